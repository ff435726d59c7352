"""assert_fused refuses settings that would let everything, or nothing, through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fusible import FusibleError

from fusible.pytest_plugin import check
from fusible.report import Report

TEXT = (Path(__file__).parent / "reports" / "scripted.json").read_text()
REPORT = Report.from_json(TEXT)


@pytest.mark.parametrize("prefix", ["", "FUS999", "FUSX", 201, None])
def test_what_begins_no_code_is_not_allowed(prefix):
    with pytest.raises(FusibleError, match=r'^allow: the beginning of a code \("FUS2"\) was needed, found '):
        check(REPORT, 0, ["FUS2", "FUS303", prefix])


def test_a_code_of_a_users_rule_may_be_allowed():
    own = Report.from_json(TEXT.replace("FUS303", "OWN1"))
    check(own, 0, ["FUS2", "OWN1"])


@pytest.mark.parametrize("share", [95, -0.1, float("nan"), True, "0.9", None])
def test_a_share_lies_between_0_and_1(share):
    with pytest.raises(FusibleError, match=r"^min_share: a share between 0 and 1 was needed \(0.95\), found "):
        check(REPORT, share, ["FUS"])


def test_one_finding_is_no_plural():
    data = json.loads(TEXT)
    one = Report.from_json(json.dumps({**data, "diagnostics": data["diagnostics"][:1]}))
    with pytest.raises(AssertionError, match="^1 finding is not allowed\n"):
        check(one, 0)
