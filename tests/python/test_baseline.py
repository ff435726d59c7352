"""Baselines: which findings of which model they accept, what they say of one that is none, and that they are written whole."""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
from pathlib import Path

import pytest

from fusible import baseline
from fusible.linting import add_lint_arguments, run_lint
from fusible.report import Report

DATA = json.loads((Path(__file__).parent / "reports" / "scripted.json").read_text())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FUSIBLE_OUTPUT_FORMAT", raising=False)
    return tmp_path


def report(model: str, copies: int = 1, sites: int = 1) -> Report:
    """A model file, and its report with one finding, in so many diagnostics of one fingerprint."""
    path = Path(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"an archive")
    finding = DATA["diagnostics"][0]
    diagnostics = [{**finding, "sites": finding["sites"][:sites], "candidates": [], "candidate_sites": []}] * copies
    return Report.from_json(json.dumps({**DATA, "model": {**DATA["model"], "path": model}, "diagnostics": diagnostics}))


def lint(*arguments: str, reports) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    add_lint_arguments(parser)
    log = io.StringIO()
    return run_lint(iter(reports), parser.parse_args(arguments), io.StringIO(), log), log.getvalue()


def write(*reports: Report, to: str = "base.json") -> None:
    assert lint("--write-baseline", to, reports=reports)[0] == 0


def check(*reports: Report, against: str = "base.json") -> tuple[int, str]:
    return lint("--baseline", against, reports=reports)


def test_places_of_one_fingerprint_are_summed_over_its_diagnostics():
    write(report("model.pt", copies=2))
    assert check(report("model.pt", copies=2)) == (0, "") and check(report("model.pt")) == (0, "")
    assert check(report("model.pt", copies=3))[0] == 1 and check(report("model.pt", sites=3))[0] == 1


def test_a_finding_without_a_place_is_new_until_it_is_accepted():
    write(report("model.pt", copies=0))
    assert check(report("model.pt", sites=0))[0] == 1
    write(report("model.pt", sites=0))
    assert check(report("model.pt", sites=0))[0] == 0


def test_models_of_one_name_share_nothing():
    write(report("b/model.pt"))
    assert check(report("b/model.pt"))[0] == 0
    assert check(report("a/model.pt"))[0] == 1
    assert check(report("a/model.pt"), report("b/model.pt"))[0] == 1


def test_linting_one_of_two_models_of_a_name_notes_nothing():
    write(report("a/model.pt", copies=0), report("b/model.pt"))
    assert check(report("a/model.pt", copies=0)) == (0, "")
    assert "in b/model.pt (stem.bn) is found no more" in check(report("b/model.pt", copies=0))[1]


def test_a_model_is_found_from_any_folder(folder, monkeypatch):
    write(report("models/a.pt"), to="models/base.json")
    assert json.loads(Path("models/base.json").read_text())["findings"][0]["model"] == "a.pt"
    monkeypatch.chdir(folder / "models")
    assert check(report("a.pt")) == (0, "") and check(report(str(folder / "models" / "a.pt"))) == (0, "")


def test_a_model_that_moved_keeps_its_entries_where_its_name_is_the_only_one():
    write(report("old/model.pt"))
    shutil.rmtree("old")
    assert check(report("new/model.pt")) == (0, "")
    assert "old/model.pt" in check(report("new/model.pt", copies=0))[1]
    write(report("one/model.pt"), report("two/model.pt"))
    shutil.rmtree("one")
    shutil.rmtree("two")
    assert check(report("new/model.pt"))[0] == 1


def test_a_baseline_of_schema_1_names_models_without_their_folder():
    report("a/model.pt")
    entry = {"model": "model.pt", "fingerprint": DATA["diagnostics"][0]["fingerprint"], "code": "FUS201", "module_path": "c", "sites": 1}
    Path("base.json").write_text(json.dumps({"fusible-baseline": 1, "findings": [entry, entry]}))
    assert check(report("a/model.pt", copies=2))[0] == 0 and check(report("a/model.pt", copies=3))[0] == 1


GOOD = {"model": "m.pt", "fingerprint": "0", "code": "FUS201", "module_path": "", "sites": 1}


@pytest.mark.parametrize(
    "text, says",
    [
        (json.dumps({"fusible-baseline": 2, "findings": [{**GOOD, "sites": "1"}]}), "whose sites is a number, found '1' at findings[0] of base.json"),
        (json.dumps({"fusible-baseline": 2, "findings": [{**GOOD, "sites": True}]}), "whose sites is a number, found True at"),
        (json.dumps({"fusible-baseline": 2, "findings": [GOOD, {**GOOD, "fingerprint": ["0"]}]}), "whose fingerprint is a string, found ['0'] at findings[1]"),
        (json.dumps({"fusible-baseline": 2, "findings": [{"model": "m.pt"}]}), "whose fingerprint is a string, found none at"),
        (json.dumps({"fusible-baseline": 2, "findings": [3]}), "as an object, found 3 at"),
        (json.dumps({"fusible-baseline": 2, "findings": 3}), "found other JSON at base.json"),
        (json.dumps({"fusible-baseline": "2", "findings": []}), "of schema 2 or older was needed, found '2'"),
        (json.dumps({"fusible-baseline": 3, "findings": []}), "of schema 2 or older was needed, found 3"),
        ("[" * 100_000, "found another file at base.json"),
    ],
)
def test_what_is_no_baseline_is_one_sentence(text, says):
    Path("base.json").write_text(text)
    code, log = check(report("m.pt"))
    assert code == 2 and says in log and log.startswith("error: a baseline") and log.count("\n") == 1


def test_a_baseline_is_written_whole():
    write(report("model.pt"))
    before = Path("base.json").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        with pytest.raises(OSError, match="base.json could not be written"):
            baseline.write(Path("base.json"), [report("model.pt", copies=0), report("other.pt")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Path("base.json").read_bytes() == before
