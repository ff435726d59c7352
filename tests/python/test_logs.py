"""The logger "fusible": findings and stages, for programs that ask for them."""

from __future__ import annotations

import logging

import fusible
import pytest


@pytest.mark.parametrize("call", [fusible.fuse, fusible.lint], ids=["fuse", "lint"])
def test_findings_are_records_that_carry_the_finding(call, scripted, caplog):
    caplog.set_level(logging.INFO, "fusible")
    result = call(scripted)
    report = result if call is fusible.lint else fusible.report(result)
    expected = [d.code for d in report.diagnostics if d.severity != "note"]
    records = [r for r in caplog.records if r.name == "fusible"]
    assert [r.diagnostic.code for r in records if hasattr(r, "diagnostic")] == expected
    assert records[-1].getMessage().startswith(f"{call.__name__}: {report.counts['fused']} of {report.counts['candidates']} candidates fused")


def test_notes_and_stages_are_for_debugging(scripted, caplog):
    caplog.set_level(logging.DEBUG, "fusible")
    heard = []
    fusible.lint(scripted, progress=lambda stage, share: heard.append(stage))
    messages = [record.getMessage() for record in caplog.records]
    assert any("FUS003" in message for message in messages)
    assert [m for m in messages if m.startswith("lint: ") and "%)" in m][0].startswith("lint: load (0 %)") and "decide" in heard


def test_nothing_is_written_unless_asked_for(python, archive):
    result = python("-c", f"import fusible; fusible.fuse(fusible.load({str(archive)!r})); fusible.lint({str(archive)!r})")
    assert result.stdout == "" and result.stderr == ""
