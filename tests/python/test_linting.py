"""The linter's decisions on reports: settings, comments, baselines, budgets, exit codes."""

from __future__ import annotations

import argparse
import io
import json
import re
import tomllib
from pathlib import Path

import pytest

from fusible import baseline, config
from fusible.linting import Unusable, add_lint_arguments, run_lint
from fusible.report import Report
from fusible.suppress import apply_comments, split

TEXT = (Path(__file__).parent / "reports" / "scripted.json").read_text()
REPORT = Report.from_json(TEXT)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FUSIBLE_OUTPUT_FORMAT", raising=False)


def lint(*arguments: str, reports=(REPORT,)) -> tuple[int, str, str]:
    parser = argparse.ArgumentParser()
    add_lint_arguments(parser)
    out, log = io.StringIO(), io.StringIO()
    return run_lint(iter(reports), parser.parse_args(arguments), out, log), out.getvalue(), log.getvalue()


def codes(*arguments: str) -> set[str]:
    data = json.loads(lint("--output-format", "json", *arguments)[1])
    return {d["code"] for d in data["diagnostics"] if not d["suppressed"]}


def test_a_comment_in_the_archive_suppresses_and_its_verdict_too():
    applied = apply_comments(REPORT)
    assert [d.suppressed for d in applied.diagnostics] == [False, False, True]
    assert applied.verdicts[6].status == "suppressed" and applied.counts["declined"] == REPORT.counts["declined"] - 1
    assert sum(applied.counts[s] for s in ("fused", "declined", "suppressed")) == applied.counts["candidates"]


def test_a_comment_on_disk_suppresses_the_sites_of_its_line_only(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "block.py").write_text("\n" * 10 + "        # fusible: ignore[FUS2] residual\n        y = self.bn(y)\n")
    assert codes() == {"FUS303"}
    data = json.loads(TEXT)
    data["diagnostics"][0]["sites"][0]["location"]["file"] = "models/stem.py"
    second_use = [d for d in apply_comments(Report.from_json(json.dumps(data))).diagnostics if d.code == "FUS201"]
    assert [(len(d.sites), d.candidates, d.suppressed) for d in second_use] == [(1, (1,), False), (2, (3, 5), True)]


def test_a_candidate_goes_with_its_own_site_in_whatever_order():
    data = json.loads(TEXT)
    finding = data["diagnostics"][0]
    finding["sites"].reverse()
    finding["candidate_sites"].reverse()
    (_, hidden), owners = split_second_use(data, "stem.bn"), {s["module_path"]: c for s, c in zip(finding["sites"], [5, 3, 1], strict=True)}
    assert hidden.candidates == (owners["stem.bn"],) and hidden.suppressed


def test_several_candidates_of_one_site_go_with_it():
    data = json.loads(TEXT)
    data["diagnostics"][0].update(candidates=[0, 1, 2, 3, 4, 5], candidate_sites=[0, 0, 1, 1, 2, 2])
    shown, hidden = split_second_use(data, "layers.0.bn")
    assert hidden.candidates == (2, 3) and hidden.candidate_sites == (0, 0)
    assert shown.candidates == (0, 1, 4, 5) and shown.candidate_sites == (0, 0, 1, 1)


def test_a_report_of_an_older_version_keeps_its_candidates_with_what_is_shown():
    data = json.loads(TEXT)
    del data["diagnostics"][0]["candidate_sites"]
    shown, hidden = split_second_use(data, "stem.bn")
    assert shown.candidates == (1, 3, 5) and hidden.candidates == ()


def split_second_use(data, module_path):
    return split(Report.from_json(json.dumps(data)).diagnostics[0], lambda site: site.module_path == module_path)


@pytest.mark.parametrize(
    "comment, unused",
    [
        ("# fusible: ignore[FUS108] x", False),
        ("# fusible: ignore[FUS1] x", False),
        ("# fusible: ignore[FUS108,FUS303]", True),
        ("# fusible: ignore[FUS401]", True),
        ("#fusible:ignore[FUS108]", False),
        ("# fusible: ignore[FUS108, ]", False),
        ("# fusible: ignores nothing", False),
        ("# fusible: ignore", True),
        ("# fusible: ignore[]", True),
        ("# fusible: ignore[fus108]", True),
        ("# fusible: ignore FUS108", True),
        ("# fusible: ignore[FUS108", True),
    ],
)
def test_unused_suppressions_are_reported(comment, unused):
    report = Report.from_json(TEXT.replace("# fusible: ignore[FUS108] pre-activation", comment))
    found = [d for d in apply_comments(report).diagnostics if d.code == "FUS803"]
    assert bool(found) == unused
    if unused:
        assert found[0].location.file == "models/head.py" and found[0].location.line == 31


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((), {"FUS201", "FUS303"}),
        (("--select", "FUS2"), {"FUS201"}),
        (("--ignore", "FUS2,FUS3"), set()),
        (("--select", "FUS2,FUS3", "--ignore", "FUS303"), {"FUS201"}),
    ],
)
def test_select_and_ignore_by_prefix(arguments, expected):
    assert codes(*arguments) == expected


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((), 1),
        (("--exit-zero",), 0),
        (("--fail-on", "error"), 0),
        (("--fail-on", "never"), 0),
        (("--fail-on", "error", "--error", "FUS201"), 1),
        (("--ignore", "FUS"), 0),
        (("--fail-on", "never", "--min-fused", "0.95"), 1),
        (("--fail-on", "never", "--min-fused", "0.8"), 0),
        (("--fail-on", "never", "--max-missed-bytes", "2 MB"), 1),
        (("--fail-on", "never", "--max-missed-bytes", "3 MB"), 0),
        (("--min-fused", "2"), 2),
    ],
)
def test_exit_codes(arguments, expected):
    assert lint(*arguments)[0] == expected


def test_an_unusable_model_gives_2_and_the_others_are_still_linted():
    code, out, log = lint("--exit-zero", reports=(Unusable("a.pt", "a.pt: a whole archive was needed"), REPORT))
    assert code == 2 and "FUS201" in out and log == "error: a.pt: a whole archive was needed\n"


def test_per_module_ignores(tmp_path):
    (tmp_path / "fusible.toml").write_text('[per-module-ignores]\n"layers.*" = ["FUS2"]\n"head.*" = ["FUS"]\n')
    data = json.loads(lint("--output-format", "json")[1])
    shown = [d for d in data["diagnostics"] if not d["suppressed"]]
    assert [(d["code"], [s["module_path"] for s in d["sites"]]) for d in shown] == [("FUS201", ["stem.bn"])]


def test_the_closest_settings_win_and_are_not_merged(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[tool.fusible]\nignore = ["FUS2"]\nmin-fused = 0.5\n')
    (tmp_path / "inner").mkdir()
    assert codes() == {"FUS303"}
    monkeypatch.chdir(tmp_path / "inner")
    assert config.closest(Path.cwd()).min_fused == 0.5
    (tmp_path / "inner" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert config.closest(Path.cwd()).min_fused == 0.5, "a pyproject.toml without [tool.fusible] is passed over"
    (tmp_path / "inner" / "fusible.toml").write_text('select = ["FUS2"]\n')
    settings = config.closest(Path.cwd())
    assert settings.min_fused == 0 and settings.ignore == () and codes() == {"FUS201"} and codes("--isolated") == {"FUS201", "FUS303"}
    assert codes("--select", "FUS3") == {"FUS303"}, "the command line wins"


@pytest.mark.parametrize(
    "text, words",
    [
        ("selcet = []", "selcet"),
        ("select = 'FUS2'", "list of strings"),
        ("fail-on = 'warn'", "error, warning, note, never"),
        ("min-fused = 95", "between 0 and 1"),
        ("max-missed-bytes = 'much'", "10 MB"),
        ("output-format = 'xml'", "sarif"),
        ("= 3", "TOML"),
        ("max-missed-bytes = 'foo'", "fusible.toml: max-missed-bytes: a size"),
        ("select = ['FUS9999']", 'fusible.toml: select: the beginning of a code ("FUS2") was needed, found "FUS9999": `fusible rule` lists'),
        ("ignore = ['']", 'fusible.toml: ignore: the beginning of a code ("FUS2") was needed, found ""'),
        ("ignore = ['fus201']", 'found "fus201"'),
        ("error = ['FUS2', 'second-use']", 'fusible.toml: error: the beginning of a code ("FUS2") was needed, found "second-use"'),
        ("per-module-ignores = {'head.*' = ['FSU2']}", 'fusible.toml: per-module-ignores.head.*: the beginning of a code'),
    ],
)
def test_settings_that_cannot_be_used_give_2_and_a_sentence(tmp_path, text, words):
    (tmp_path / "fusible.toml").write_text(text + "\n")
    code, out, log = lint()
    assert code == 2 and out == "" and words in log and log.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--select", "FSU2"), '--select: the beginning of a code ("FUS2") was needed, found "FSU2": `fusible rule` lists the codes'),
        (("--ignore", "FUS2,FUS9999"), '--ignore: the beginning of a code ("FUS2") was needed, found "FUS9999"'),
        (("--error", "second-use"), "--error: the beginning of a code"),
        (("--max-missed-bytes", "foo"), "--max-missed-bytes: a size such as \"10 MB\" was needed, found 'foo'"),
    ],
)
def test_options_that_select_nothing_give_2_and_a_sentence(arguments, words):
    code, out, log = lint(*arguments)
    assert code == 2 and out == "" and words in log and log.count("\n") == 1


def test_a_code_of_a_pattern_file_may_be_selected(tmp_path):
    (tmp_path / "own.fus").write_text("rule own\n  match y = conv(x, w, b)\n  need constant(w) else OWN1\n  emit y = aten::relu(x)\n")
    parser = argparse.ArgumentParser()
    add_lint_arguments(parser)
    parser.add_argument("--patterns", action="append")
    arguments = ["--ignore", "OWN", "--patterns", "own.fus"]
    assert run_lint(iter((REPORT,)), parser.parse_args(arguments), io.StringIO(), io.StringIO()) == 1
    assert run_lint(iter((REPORT,)), parser.parse_args(arguments[:2]), io.StringIO(), io.StringIO()) == 2


@pytest.mark.parametrize("text, key", [("[tool]\nfusible = 1", "tool.fusible"), ("tool = 1", "tool")])
def test_a_pyproject_whose_table_is_none_gives_2_and_a_sentence(tmp_path, text, key):
    (tmp_path / "pyproject.toml").write_text(text + "\n")
    code, _, log = lint()
    assert code == 2 and log.endswith(f"pyproject.toml: {key}: a table was needed, found 1\n")


def test_a_baseline_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "b.json").write_bytes(b"\xff")
    code, _, log = lint("--baseline", "b.json")
    assert code == 2 and "found another file at b.json" in log


def test_settings_are_read_before_any_model_is_linted(tmp_path):
    def never():
        raise AssertionError("a model was linted")
        yield

    assert lint("--show-settings", reports=never())[0] == 0
    (tmp_path / "fusible.toml").write_text("unknown = 1\n")
    assert lint(reports=never())[0] == 2


def test_show_settings_names_the_file_and_what_overrules_it(tmp_path):
    (tmp_path / "fusible.toml").write_text("exit-zero = true\n")
    out = lint("--show-settings", "--fail-on", "note")[1]
    assert "fusible.toml" in out and "exit-zero = True" in out and "fail-on = 'note'" in out


def test_the_output_format_comes_from_the_environment_unless_given(monkeypatch):
    monkeypatch.setenv("FUSIBLE_OUTPUT_FORMAT", "json")
    assert json.loads(lint()[1])["schema"] == 1
    assert lint("--output-format", "concise")[1].startswith("models/block.py:12:13: FUS201")


def test_only_findings_that_are_not_in_the_baseline_fail(tmp_path):
    code, out, log = lint("--write-baseline", "base.json")
    assert code == 0 and "2 findings accepted" in log and out == ""
    assert lint("--baseline", "base.json")[0] == 0
    entries = json.loads((tmp_path / "base.json").read_text())
    entries["findings"] = [e for e in entries["findings"] if e["code"] != "FUS303"]
    (tmp_path / "base.json").write_text(json.dumps(entries))
    assert lint("--baseline", "base.json")[0] == 1
    assert (
        "FUS303" in lint("--baseline", "base.json", "--output-format", "concise")[1]
        and "FUS201" not in lint("--baseline", "base.json", "--output-format", "concise")[1]
    )


def test_more_places_of_an_accepted_finding_are_new(tmp_path):
    fewer = Report.from_json(
        json.dumps({**json.loads(TEXT), "diagnostics": [{**d, "sites": d["sites"][:1]} for d in json.loads(TEXT)["diagnostics"]]})
    )
    lint("--write-baseline", "base.json", reports=(fewer,))
    assert lint("--baseline", "base.json")[0] == 1 and lint("--baseline", "base.json", reports=(fewer,))[0] == 0


def test_stale_entries_are_noted_and_budgets_do_not_profit_from_a_baseline():
    lint("--write-baseline", "base.json")
    clean = Report.from_json(json.dumps({**json.loads(TEXT), "diagnostics": []}))
    code, _, log = lint("--baseline", "base.json", reports=(clean,))
    assert code == 0 and log.count("found no more") == 2
    assert lint("--baseline", "base.json", "--min-fused", "0.95")[0] == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"fusible-baseline": 3, "findings": []}', '{"fusible-baseline": 1, "findings": [{}]}'])
def test_a_file_that_is_no_baseline_gives_2(tmp_path, text):
    (tmp_path / "base.json").write_text(text)
    with pytest.raises(baseline.BaselineError, match="baseline"):
        baseline.read(tmp_path / "base.json")
    assert lint("--baseline", "base.json")[0] == 2
    assert lint("--baseline", "missing.json")[0] == 2


def test_statistics_and_output_file(tmp_path):
    assert lint("--statistics")[1] == "     3  FUS201  second-use\n     1  FUS303  weight-not-constant\n"
    code, out, _ = lint("--output-format", "sarif", "-o", "reports/out.sarif")
    assert code == 1 and out == "" and json.loads((tmp_path / "reports" / "out.sarif").read_text())["version"] == "2.1.0"


def test_errors_come_first_then_what_saves_most():
    data = json.loads(lint("--output-format", "json", "--error", "FUS303")[1])
    assert [d["code"] for d in data["diagnostics"]] == ["FUS303", "FUS201", "FUS108"]
    assert [d["severity"] for d in data["diagnostics"]][0] == "error"


def test_the_settings_in_the_documentation_are_all_there_are():
    text = (Path(__file__).resolve().parents[2] / "docs" / "linting.md").read_text()
    table = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.S).group(1))
    config.from_table(table, "docs/linting.md")
    assert set(table) == set(config.KEYS)
