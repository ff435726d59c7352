"""pytest: a fixture that fails a test when a model is fused less than it should be.

def test_detector(assert_fused):
    assert_fused(torch.jit.script(Detector().eval()), min_share=0.95, allow=["FUS201"])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fusible.render import render, summary
from fusible.render.style import RANK, active
from fusible.report import Report
from fusible.rules import all_rules


def _check_settings(min_share: float, allow: Sequence[str]) -> None:
    from fusible import FusibleError

    if isinstance(allow, str):  # its letters would be prefixes of every code
        raise FusibleError(f"allow: a list of strings was needed, found one string: pass [{allow!r}]")
    for prefix in allow:
        # A rule of the user's may decline with a code of its own.
        if not isinstance(prefix, str) or not prefix or prefix.startswith("FUS") and not any(code.startswith(prefix) for code in all_rules()):
            raise FusibleError(f'allow: the beginning of a code ("FUS2") was needed, found {prefix!r}: `fusible rule` lists the codes')
    if isinstance(min_share, bool) or not isinstance(min_share, (int, float)) or not 0 <= min_share <= 1:
        raise FusibleError(f"min_share: a share between 0 and 1 was needed (0.95), found {min_share!r}")


def check(report: Report, min_share: float = 1.0, allow: Sequence[str] = ()) -> None:
    """Raises AssertionError with the findings as `fusible lint` prints them when less than `min_share` of the candidates is fused, or a
    warning or error has a code that no prefix in `allow` covers. Candidates declined with an allowed code do not lower the share."""
    _check_settings(min_share, allow)
    allowed = tuple(allow) or ("-",)
    counted = [v for v in report.verdicts if v.status == "fused" or v.status == "declined" and not v.code.startswith(allowed)]
    share = sum(v.status == "fused" for v in counted) / len(counted) if counted else 1.0
    findings = [d for d in active(report) if RANK[d.severity] >= RANK["warning"] and not d.code.startswith(allowed)]
    if share >= min_share and not findings:
        return
    short = (
        f"a fused share of at least {min_share:.1%} was needed, found {share:.1%}"
        if share < min_share
        else f"{summary.plural(len(findings), 'finding')} {'is' if len(findings) == 1 else 'are'} not allowed"
    )
    raise AssertionError(
        short + "\n" + render("full", [replace(report, diagnostics=tuple(d for d in active(report) if not d.code.startswith(allowed)))])
    )


@pytest.fixture
def assert_fused() -> Callable[..., Report]:
    """assert_fused(module_or_path_or_report, example_inputs=None, *, min_share=1.0, allow=(), **options of fusible.lint) -> Report."""

    def assert_it(
        module: Any, example_inputs: tuple[Any, ...] | None = None, *, min_share: float = 1.0, allow: Sequence[str] = (), **options: Any
    ) -> Report:
        __tracebackhide__ = True
        if not isinstance(module, Report):
            import fusible

            module = fusible.lint(module, example_inputs, **options)
        check(module, min_share, allow)
        return module

    return assert_it
