"""What findings would save: from the shapes of a call, in the reports of real archives and in the formats that show them."""

from __future__ import annotations

import json

import fusible
import pytest
import torch
from fusible.cli import main
from fusible.render import FORMATS, render
from torch import nn
from zoo import archives
from zoo.models import MODELS


class SecondUse(nn.Module):
    """float32 [N, 8, H, W] is read twice behind the convolution, [N, 8, H/2, W/2] behind the other."""

    def __init__(self):
        super().__init__()
        self.conv, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x):
        y = self.conv(x)
        y = torch.relu(y) + torch.exp(y)
        z = self.down(y)
        return torch.sigmoid(z) + torch.exp(z)


LARGE, SMALL = 2 * 4 * 2 * 8 * 16 * 16, 2 * 4 * 2 * 8 * 8 * 8
INPUT = torch.zeros(2, 3, 16, 16)


def missed(report):
    return [d.benefit.bytes for d in report.diagnostics if d.kind == "missed"]


def test_findings_are_ranked_by_what_they_would_save():
    assert missed(fusible.lint(torch.jit.script(SecondUse().eval()), (INPUT,))) == [LARGE, SMALL]


def test_a_module_traced_in_this_process_knows_its_shapes_and_its_archive_does_not(tmp_path):
    traced = torch.jit.trace(SecondUse().eval(), (INPUT,))
    report = fusible.lint(traced)
    assert missed(report) == [LARGE, SMALL]
    assert {d.benefit.basis for d in report.diagnostics if d.kind == "missed"} == {"shapes that tracing recorded"}
    traced.save(str(tmp_path / "traced.pt"))
    assert missed(fusible.lint(tmp_path / "traced.pt")) == [-1, -1]
    assert missed(fusible.lint(tmp_path / "traced.pt", (INPUT,))) == [LARGE, SMALL]


def test_linting_with_inputs_computes_no_number():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.register_buffer("calls", torch.zeros(4))

        def forward(self, x):
            self.calls.add_(1)
            noise = torch.rand(x.shape)
            y = self.conv(x + noise)
            return torch.relu(y) + torch.exp(y)

    module = torch.jit.script(Counting().eval())
    before = torch.get_rng_state()
    assert missed(fusible.lint(module, (INPUT,))) == [LARGE]
    assert torch.equal(torch.get_rng_state(), before) and not module.calls.any()


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.script(SecondUse().eval()).save(str(path))
    return path


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_budget_of_missed_bytes(archive, capsys):
    lint = ("lint", archive, "--isolated", "--fail-on", "never")
    assert run(capsys, *lint, "--input", "2,3,16,16", "--max-missed-bytes", LARGE + SMALL)[0] == 0
    code, _, log = run(capsys, *lint, "--input", "2,3,16,16", "--max-missed-bytes", LARGE + SMALL - 1)
    assert code == 1 and "41.0 kB" in log
    code, _, log = run(capsys, *lint, "--max-missed-bytes", 0)
    assert code == 0 and "2 missed fusions is unknown" in log


# junit has a case per candidate: the candidates of this model are fused, its findings are about what follows them.
@pytest.mark.parametrize("form", [f for f in FORMATS if f not in ("json", "junit")])
def test_every_format_that_shows_findings_says_what_they_would_save(form):
    report = fusible.lint(torch.jit.script(SecondUse().eval()), (INPUT,))
    text = render(form, [report])
    if form == "sarif":
        assert [r["properties"]["benefit"]["bytes"] for r in json.loads(text)["runs"][0]["results"]][:2] == [LARGE, SMALL]
    else:
        assert "32.8 kB" in text


def test_without_shapes_a_report_says_unknown():
    report = fusible.lint(torch.jit.script(SecondUse().eval()))
    for form in ("markdown", "html"):
        assert "unknown" in render(form, [report])
    assert render("full", [report]).count("--input") == 1, "once, not per finding"


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "efficientnet_b0", "convnext_tiny"])
@pytest.mark.parametrize("form", archives.FORMS)
def test_what_stock_operators_leave_outside_of_a_real_model_has_a_known_cost(name, form):
    report = fusible.lint(torch.jit.load(str(archives.archive(name, form))), MODELS[name].inputs(), target="aten")
    outside = [d.benefit.bytes for d in report.diagnostics if d.code == "FUS603"]
    assert outside and all(size > 0 for size in outside)
