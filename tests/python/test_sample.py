"""`lint --sample`: what missed fusions would save in measured time, on the command line and in every format."""
from __future__ import annotations

import json

import fusible
import pytest
import torch
from fusible.cli import main
from torch import nn


class Missed(nn.Module):
    """A batch_norm that reads its whole batch three times more than a folded one, and a small second use."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32, track_running_stats=False)
        self.small = nn.Conv2d(3, 4, 1)
        self.runs = nn.Parameter(torch.zeros(2), requires_grad=False)

    def forward(self, x):
        self.runs.add_(1)
        y = self.small(x[:, :, :4, :4])
        return self.bn(self.conv(x)), torch.relu(y) + torch.exp(y)


SHAPE = "1,3,128,128"


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.script(Missed().eval()).save(str(path))
    return path


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_findings_are_measured_ranked_by_time_and_written(archive, capsys):
    code, out, _ = run(capsys, "lint", archive, "--isolated", "--input", SHAPE, "--sample", "--output-format", "json")
    missed = [d for d in json.loads(out)["diagnostics"] if d["kind"] == "missed"]
    assert code == 1 and [d["code"] for d in missed] == ["FUS302", "FUS201"]
    assert missed[0]["benefit"]["ns"] > missed[1]["benefit"]["ns"] >= 0
    assert {d["benefit"]["basis"] for d in missed} == {"measured"} and all(d["benefit"]["bytes"] > 0 for d in missed)


@pytest.mark.parametrize("form", ["full", "concise", "github", "markdown", "html"])
def test_every_format_for_people_says_so(form, archive, capsys):
    _, out, _ = run(capsys, "lint", archive, "--isolated", "--input", SHAPE, "--sample", "--output-format", form)
    assert " ms" in out


def test_the_model_is_not_run_and_not_changed():
    module = torch.jit.script(Missed().eval())
    before = torch.get_rng_state()
    report = fusible.lint(module, (torch.zeros(1, 3, 64, 64),), sample=True)
    assert any(d.benefit.basis == "measured" for d in report.diagnostics)
    assert not module.runs.any() and torch.equal(torch.get_rng_state(), before)


# For the life of the process: torch.jit keeps the ids of operators that are gone, and takes what comes to lie there for one.
LIBRARY = torch.library.Library("fusible_sample_test", "DEF")
LIBRARY.define("smooth(Tensor x) -> Tensor")
LIBRARY.impl("smooth", lambda x: pytest.fail("it was run"), "CPU")
LIBRARY.impl("smooth", torch.empty_like, "Meta")


def test_operators_of_others_are_not_run():
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return torch.relu(torch.ops.fusible_sample_test.smooth(self.conv(x)))

    (finding,) = [d for d in fusible.lint(torch.jit.script(Foreign().eval()), (torch.zeros(1, 3, 8, 8),), sample=True).diagnostics if d.code == "FUS105"]
    assert finding.benefit.bytes > 0


def test_without_shapes_it_is_an_error_and_a_module_traced_here_has_them(archive, capsys, tmp_path):
    code, out, err = run(capsys, "lint", archive, "--isolated", "--sample")
    assert code == 2 and "FUS" not in out and "--input 1,3,224,224" in err
    traced = torch.jit.trace(Missed().eval(), torch.zeros(1, 3, 16, 16), check_trace=False)
    assert any(d.benefit.basis == "measured" for d in fusible.lint(traced, sample=True).diagnostics)


def test_without_the_option_nothing_is_measured(archive, capsys):
    _, out, _ = run(capsys, "lint", archive, "--isolated", "--input", SHAPE, "--output-format", "json")
    assert {d["benefit"]["ns"] for d in json.loads(out)["diagnostics"]} == {-1}
