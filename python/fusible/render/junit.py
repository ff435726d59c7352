"""JUnit XML: a suite per model, a test case per candidate, so that what is fused counts as passed. A model that could not be linted is an error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as xml

from fusible.render.style import RANK, Style, active, named, sentence
from fusible.report import Report, Unusable

NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def _clean(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)


def _suite(parent: xml.Element, report: Report) -> None:
    findings = {(c, d.code): d for d in active(report) for c in d.candidates}
    suite = xml.SubElement(parent, "testsuite", name=_clean(report.model or "model"), tests=str(len(report.verdicts)))
    failures = skipped = 0
    for v in report.verdicts:
        site = v.site
        case = xml.SubElement(
            suite,
            "testcase",
            classname=_clean(site.module_path or site.method),
            name=_clean(f"{v.pattern or site.op} [{named(site, report)} #{v.candidate}]"),
        )
        finding = findings.get((v.candidate, v.code))
        if v.status == "suppressed" or v.status == "declined" and (not finding or RANK[finding.severity] < RANK["warning"]):
            xml.SubElement(case, "skipped", message=_clean(f"{v.code} {sentence(finding) if finding else v.status}"))
            skipped += 1
        elif v.status == "declined":
            failure = xml.SubElement(case, "failure", type=v.code, message=_clean(finding.message))
            failure.text = _clean(sentence(finding))
            failures += 1
    suite.set("failures", str(failures))
    suite.set("skipped", str(skipped))


def _unusable(parent: xml.Element, model: Unusable) -> None:
    """A suite whose one case is an error: what could not be linted has not passed."""
    name = _clean(model.model)
    suite = xml.SubElement(parent, "testsuite", name=name, tests="1", errors="1", failures="0", skipped="0")
    case = xml.SubElement(suite, "testcase", classname=name, name="is linted")
    error = xml.SubElement(case, "error", type="unusable", message=_clean(model.message))
    error.text = _clean(model.message)


def render(reports: Sequence[Report], style: Style, unusable: Sequence[Unusable]) -> str:
    root = xml.Element("testsuites", name="fusible")
    for report in reports:
        _suite(root, report)
    for model in unusable:
        _unusable(root, model)
    xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"
