"""pytest: a fixture that fails a test when a model is fused less than it should be.

def test_detector(assert_fused):
    assert_fused(torch.jit.script(Detector().eval()), min_share=0.95, allow=["FUS201"])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fusible.render import render
from fusible.render.style import RANK, active
from fusible.report import Report


def check(report: Report, min_share: float = 1.0, allow: Sequence[str] = ()) -> None:
    """Raises AssertionError with the findings as `fusible lint` prints them when less than `min_share` of the candidates is fused, or a
    warning or error has a code that no prefix in `allow` covers. Candidates declined with an allowed code do not lower the share."""
    if isinstance(allow, str):  # its letters would be prefixes of every code
        from fusible import FusibleError

        raise FusibleError(f"allow: a list of strings was needed, found one string: pass [{allow!r}]")
    allowed = tuple(allow) or ("-",)
    counted = [v for v in report.verdicts if v.status == "fused" or v.status == "declined" and not v.code.startswith(allowed)]
    share = sum(v.status == "fused" for v in counted) / len(counted) if counted else 1.0
    findings = [d for d in active(report) if RANK[d.severity] >= RANK["warning"] and not d.code.startswith(allowed)]
    if share >= min_share and not findings:
        return
    short = (
        f"a fused share of at least {min_share:.1%} was needed, found {share:.1%}"
        if share < min_share
        else f"{len(findings)} findings are not allowed"
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
