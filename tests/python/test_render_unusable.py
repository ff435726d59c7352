"""A model that could not be linted is told by every format that a machine reads; json is a list where several models were asked for."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sarif_rules

from fusible.render import FORMATS, render
from fusible.report import Report, Unusable

TEXT = (Path(__file__).parent / "reports" / "scripted.json").read_text()
REPORT = Report.from_json(TEXT)
CUT = Unusable("dist/cut.pt", "a whole TorchScript archive was needed,\nfound a damaged one at dist/cut.pt: 50% | <cut>\x01")


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_takes_unusable_models(form):
    assert render(form, [REPORT], unusable=[])
    text = render(form, [REPORT], unusable=[CUT])
    assert ("damaged one at dist/cut.pt" in text) == (form in ("sarif", "github", "gitlab", "junit", "rdjson", "markdown"))


def test_junit_has_an_error_case():
    root = ElementTree.fromstring(render("junit", [REPORT], unusable=[CUT]))
    suite = root.findall("testsuite")[1]
    assert suite.attrib == {"name": "dist/cut.pt", "tests": "1", "errors": "1", "failures": "0", "skipped": "0"}
    assert "found a damaged one" in suite.find("testcase/error").get("message")


def test_sarif_has_an_invocation_that_failed_and_its_notification():
    log = json.loads(render("sarif", [REPORT], unusable=[CUT]))
    assert sarif_rules.problems(log) == []
    (invocation,) = log["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is False
    (told,) = invocation["toolExecutionNotifications"]
    assert told["level"] == "error" and told["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "dist/cut.pt"
    assert "invocations" not in json.loads(render("sarif", [REPORT]))["runs"][0]


def test_github_has_an_error_on_one_line():
    line = render("github", [], unusable=[CUT])
    assert line.startswith("::error title=fusible%3A not linted,file=dist/cut.pt::a whole") and line.count("\n") == 1 and "50%25" in line


def test_gitlab_and_rdjson_name_the_file():
    (issue,) = json.loads(render("gitlab", [], unusable=[CUT]))
    assert issue["location"]["path"] == "dist/cut.pt" and issue["severity"] == "critical" and len(issue["fingerprint"]) == 64
    (diagnostic,) = json.loads(render("rdjson", [], unusable=[CUT]))["diagnostics"]
    assert diagnostic["location"]["path"] == "dist/cut.pt" and diagnostic["severity"] == "ERROR"


def test_markdown_has_a_row():
    row = next(line for line in render("markdown", [REPORT], unusable=[CUT]).splitlines() if "cut.pt" in line)
    assert row.startswith("| dist/cut.pt | not linted: ") and row.replace("\\|", "").count("|") == 7


@pytest.mark.parametrize(
    "reports, several, is_list", [([REPORT], False, False), ([REPORT], True, True), ([], True, True), ([], False, True), ([REPORT] * 2, False, True)]
)
def test_json_is_a_list_where_several_were_asked_for(reports, several, is_list):
    data = json.loads(render("json", reports, several=several))
    assert isinstance(data, list) == is_list and (not is_list or len(data) == len(reports))


@pytest.mark.parametrize("text", ["[]", f"[{TEXT}]", f"[{TEXT}, {TEXT}]"])
def test_a_list_is_no_report_in_one_sentence(text):
    with pytest.raises(ValueError, match=r"^one fusible report in JSON was needed, found a list of \d: "):
        Report.from_json(text)


@pytest.mark.parametrize("form", ["full", "concise"])
def test_texts_of_an_archive_cannot_turn_a_line_around(form):
    marks = "\u061c\u200e\u200f\u202a\u202e\u2066\u2069\u2028\u2029"
    data = json.loads(TEXT)
    for site in (s for d in data["diagnostics"] for s in d["sites"]):
        site["module_path"] = f"stem{marks}.bn"
        site["location"]["excerpt"] += f"  # {marks}"
    text = render(form, [Report.from_json(json.dumps(data))])
    assert not set(marks) & set(text) and "\ufffd" in text
