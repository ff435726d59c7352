"""fusible diff: candidates of two archives of one model are paired, and what stopped being fused is told with its reason."""

from __future__ import annotations

import json

import fusible
import pytest
import torch
from fusible.cli import main
from fusible.comparison import compare
from fusible.render import COMPARISON_FORMATS, Style, render_comparison
from torch import nn


class Net(nn.Module):
    """Two blocks and a head. `residual` reads the batch_norm a second time; `extra` puts a line and a layer in front of everything."""

    def __init__(self, residual: bool = False, extra: bool = False):
        super().__init__()
        self.residual = residual
        self.extra = nn.Conv2d(3, 3, 1) if extra else nn.Identity()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.other = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        y = self.bn(self.conv(self.extra(x)))
        y = torch.relu(y) + y if self.residual else torch.relu(y)
        return self.fc(torch.relu(self.other(y)).mean((2, 3)))


def exported(form="script", training=False, **options):
    torch.manual_seed(5)
    net = Net(**options).eval()
    net.bn.running_mean.normal_()
    net.bn.running_var.uniform_(0.5, 2)
    if form == "trace":
        return torch.jit.trace(net, (torch.randn(1, 3, 8, 8),))
    scripted = torch.jit.script(net)
    scripted.bn.train(training)
    return scripted


def linted(*arguments, **options):
    return fusible.lint(exported(*arguments, **options))


def summary(comparison):
    return [(c.kind, c.verdict.site.module_path, c.why.code if c.why else "") for c in comparison.changes]


def test_the_same_model_exported_anew_has_no_change():
    comparison = compare(linted(), linted())
    assert comparison.changes == ()


def test_scripted_and_traced_candidates_are_pairs():
    assert compare(linted("script"), linted("trace")).changes == ()


def test_a_sequence_that_stopped_is_told_with_its_cause_and_the_reverse_became():
    old, new = linted(), linted(residual=True)
    assert summary(compare(old, new)) == [("stopped", "conv", "FUS201")]
    assert summary(compare(new, old)) == [("became", "conv", "FUS201")]
    (cause,) = compare(old, new).causes
    assert cause.code == "FUS201"


def test_a_candidate_that_stopped_is_told_once_with_its_sequence():
    comparison = compare(linted(), linted(training=True))
    assert set(summary(comparison)) == {("stopped", "conv", "FUS301"), ("stopped", "bn", "FUS301")}
    assert len(comparison.causes) == 1


def test_what_is_only_in_one_archive_neither_stopped_nor_became():
    old, new = linted(), linted(extra=True)
    assert summary(compare(old, new)) == [("appeared", "extra", "")]
    assert summary(compare(new, old)) == [("vanished", "extra", "")]


def test_archives_without_module_paths_are_paired_in_program_order(tmp_path):
    frozen = tmp_path / "frozen.pt"
    torch.jit.freeze(exported("trace"), optimize_numerics=False).save(str(frozen))
    report = fusible.lint(frozen)
    assert not any(v.site.module_path for v in report.verdicts)
    assert compare(linted(), report).changes == ()
    assert [c.kind for c in compare(linted(residual=True), report).changes] == ["became"]


@pytest.fixture
def archives(tmp_path):
    old, new = tmp_path / "old.pt", tmp_path / "new.pt"
    exported().save(str(old))
    exported(residual=True).save(str(new))
    return old, new


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_exit_codes(archives, tmp_path, capsys):
    old, new = archives
    assert run(capsys, "diff", old, old)[0] == 0
    assert run(capsys, "diff", old, new)[0] == 1
    assert run(capsys, "diff", old, new, "--exit-zero")[0] == 0
    assert run(capsys, "diff", new, old)[0] == 0
    code, stdout, stderr = run(capsys, "diff", old, tmp_path / "none.pt")
    assert code == 2 and stdout == "" and "none.pt" in stderr


def test_a_saved_report_stands_for_its_model(archives, tmp_path, capsys):
    old, new = archives
    run(capsys, "lint", old, "--isolated", "--exit-zero", "--output-format", "json", "-o", tmp_path / "old.json")
    assert run(capsys, "diff", tmp_path / "old.json", new)[0] == 1
    (tmp_path / "bad.json").write_text("[]")
    assert run(capsys, "diff", tmp_path / "bad.json", new)[0] == 2


def test_an_accepted_finding_does_not_fail(archives, tmp_path, capsys):
    old, new = archives
    report = json.loads(fusible.lint(new).to_json())
    for diagnostic in report["diagnostics"]:
        diagnostic["suppressed"] = diagnostic["code"] == "FUS201"
    (tmp_path / "new.json").write_text(json.dumps(report))
    code, stdout, _ = run(capsys, "diff", old, tmp_path / "new.json")
    assert code == 0 and "accepted  conv: fused conv+batch_norm+relu -> fused conv+batch_norm (FUS201)" in stdout


@pytest.mark.parametrize("form", COMPARISON_FORMATS)
def test_every_format_names_what_stopped_and_why(form, archives, capsys):
    old, new = archives
    text = run(capsys, "diff", old, new, "--output-format", form)[1]
    for fact in ("stopped", "FUS201", "conv+batch_norm+relu", "old.pt", "new.pt") if form != "github" else ("::error ", "FUS201", "line="):
        assert fact in text, text


def test_json_holds_both_verdicts_and_the_finding(archives, capsys):
    data = json.loads(run(capsys, "diff", *archives, "--output-format", "json")[1])
    (change,) = data["changes"]
    assert data["counts"]["stopped"] == 1 and change["old"]["pattern"] == "conv+batch_norm+relu"
    assert change["new"]["pattern"] == "conv+batch_norm" and change["why"]["code"] == "FUS201"


def test_texts_of_an_archive_cannot_steer_a_terminal_or_a_log():
    old, new = (json.loads(linted(**o).to_json()) for o in ({}, {"residual": True}))
    text = json.dumps(new).replace('"module_path": "conv"', '"module_path": "\\u001b[2J\\n::error ::x"')
    steered = compare(fusible.Report.from_json(json.dumps(old)), fusible.Report.from_json(text))
    for form in ("full", "github"):
        shown = render_comparison(form, steered, Style())
        assert "\x1b[2J" not in shown or form == "github"
        assert sum(line.startswith("::error ::x") for line in shown.splitlines()) == 0


def test_an_archive_that_runs_code_when_loaded_is_stopped_without_trust(archives, monkeypatch, capsys):
    monkeypatch.setattr("fusible.archive.runs_code", lambda path: "__setstate__ of a class" if path.name == "new.pt" else None)
    code, stdout, stderr = run(capsys, "diff", *archives)
    assert code == 2 and stdout == "" and "--trust" in stderr
    assert run(capsys, "diff", *archives, "--trust")[0] == 1
