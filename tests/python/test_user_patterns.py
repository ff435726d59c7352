"""What a user's patterns may not do to a model: rules on modules traced in this process, the rule of patterns/README.md, unknown steps."""

from __future__ import annotations

import re
from pathlib import Path

import fusible
import pytest
import torch
from torch import nn

README = (Path(__file__).resolve().parents[2] / "patterns" / "README.md").read_text()
# Right for what its need says and for nothing else, so that a need that holds by mistake shows in the result.
ODD = "rule odd\n  match a = aten::neg(x)\n  match y = aten::tanh(a)\n{need}  emit c = {first}\n  emit d = aten::tanh(c)\n  emit z = aten::neg(d)\n"


class Odd(nn.Module):
    def forward(self, x):
        return torch.tanh(torch.neg(x))


class Scaled(nn.Module):
    def __init__(self, conv, factor):
        super().__init__()
        self.conv, self.factor = conv, nn.Parameter(factor) if isinstance(factor, torch.Tensor) else factor

    def forward(self, x):
        return torch.erf(self.conv(x) * self.factor)


def applied_or_codes(fused):
    report = fusible.report(fused)
    return {d.code for d in report.diagnostics} | {v.code for v in report.verdicts}


def operators(module):
    return [node.kind() for node in module.graph.nodes() if node.kind().startswith("aten::")]


@pytest.mark.parametrize("form", ["script", "trace"])
def test_a_rule_is_applied_to_scripted_and_traced_modules(form):
    x = torch.randn(2, 3)
    module = torch.jit.script(Odd().eval()) if form == "script" else torch.jit.trace(Odd().eval(), x)
    fused = fusible.fuse(module, patterns=[ODD.format(need="", first="aten::clone(x, none)")])
    assert operators(fused) == ["aten::clone", "aten::tanh", "aten::neg"], fusible.report(fused)
    torch.testing.assert_close(fused(x), module(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "need, first, code",
    [
        ("rank(x, 2)", "aten::flatten(x, 1, -1)", "FUS402"),
        ("shape_equal(x, a)", "aten::flatten(x, 1, -1)", "FUS403"),
        ("float(x)", "aten::mul(x, 1.0)", "FUS401"),
    ],
)
def test_the_example_of_a_trace_is_no_fact(need, first, code):
    module = torch.jit.trace(Odd().eval(), torch.randn(2, 3))
    fused = fusible.fuse(module, patterns=[ODD.format(need=f"  need {need}\n", first=first)])
    assert code in applied_or_codes(fused)
    for x in (torch.randn(2, 3), torch.randn(2, 3, 4), torch.arange(6, dtype=torch.float64)):
        torch.testing.assert_close(fused(x), module(x), rtol=0, atol=0)


def readme_rule():
    block = re.search(r"^    rule conv_scale\n(?:    .*\n)+", README, re.M).group()
    return re.sub(r"^    ", "", block, flags=re.M)


@pytest.mark.parametrize("form", ["script", "trace"])
@pytest.mark.parametrize(
    "factor, taken",
    [
        (torch.randn(4, 1, 1), True),
        (torch.randn(1, 1, 1), True),
        (torch.randn(()), True),
        (0.3, True),
        (torch.randn(1, 1, 4), False),
        (torch.randn(4), False),
        (torch.randn(1, 4, 1, 1), False),
        (torch.randn(4, 1, 1, dtype=torch.float64), False),
    ],
    ids=lambda value: str(list(value.shape)) + str(value.dtype) if isinstance(value, torch.Tensor) else str(value),
)
def test_the_rule_of_the_readme_computes_what_the_model_computes(factor, taken, form):
    model, x = Scaled(nn.Conv2d(3, 4, 3), factor).eval(), torch.randn(2, 3, 6, 6)
    module = torch.jit.script(model) if form == "script" else torch.jit.trace(model, x)
    fused = fusible.fuse(module, patterns=[readme_rule()])
    assert ("aten::conv2d" in operators(fused)) == taken, fusible.report(fused)
    # The operator that tracing writes takes no input without a batch.
    for example in (x, x[0] if form == "script" else x[:1]):
        with torch.no_grad():
            torch.testing.assert_close(fused(example), module(example), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("conv, x, factor", [(nn.Conv1d(3, 4, 3), (2, 3, 9), (4, 1)), (nn.Conv3d(3, 4, 3), (2, 3, 5, 5, 5), (4, 1, 1, 1))])
def test_the_rule_of_the_readme_leaves_other_convolutions(conv, x, factor):
    module = torch.jit.script(Scaled(conv, torch.randn(factor)).eval())
    fused = fusible.fuse(module, patterns=[readme_rule()])
    with torch.no_grad():
        torch.testing.assert_close(fused(torch.ones(x)), module(torch.ones(x)), rtol=1e-4, atol=1e-5)


def test_an_unknown_step_is_an_error_of_the_file():
    module = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity()).eval())
    with pytest.raises(Exception, match=r':2:8: needed a post-op step .*found "nosuch"'):
        fusible.fuse(module, patterns=["activation foo\n  step nosuch\n  spelling y = aten::neg(x)\n"])


class Replaced(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return torch.nan_to_num(self.conv(x), nan=None, posinf=0.5)


def test_a_constant_that_the_step_does_not_take_is_left():
    module, x = torch.jit.script(Replaced().eval()), torch.randn(1, 3, 6, 6)
    entry = "activation foo\n  step hardtanh(lo, hi)\n  spelling y = aten::nan_to_num(x, lo, hi, _)\n"
    fused = fusible.fuse(module, patterns=[entry])
    assert "FUS502" in applied_or_codes(fused)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), module(x))
