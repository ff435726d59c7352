"""Suppression comments of real archives: the text comes from the archive alone, the Python file is not there any more."""

from __future__ import annotations

import importlib.util
import zipfile

import fusible
import pytest
import torch

from fusible.report import Report
from fusible.suppress import apply_comments

SOURCE = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        {above}
        y = self.conv(x)
        return torch.relu(y) + y
"""


@pytest.fixture
def linted(tmp_path):
    """linted(comment) -> the report of an archive whose source has it on a line of its own above the convolution, and is gone."""

    def make(above: str) -> Report:
        source = tmp_path / "net_with_comment.py"
        source.write_text(SOURCE.format(above=above))
        spec = importlib.util.spec_from_file_location("net_with_comment", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        torch.jit.script(module.Net().eval()).save(str(tmp_path / "net.pt"))
        source.unlink()
        return fusible.lint(tmp_path / "net.pt")

    return make


def findings(report: Report) -> dict[str, bool]:
    return {d.code: d.suppressed for d in apply_comments(report).diagnostics}


def test_a_comment_on_a_line_of_its_own_is_read_from_the_archive(linted):
    assert findings(linted("pass"))["FUS201"] is False
    report = linted("# fusible: ignore[FUS201] residual")
    assert findings(report)["FUS201"] is True and "FUS803" not in findings(report)


@pytest.mark.parametrize("comment", ["# fusible: ignore[FUS303]", "# fusible: ignore[fus201]", "# fusible: ignore FUS201"])
def test_one_that_suppresses_nothing_is_reported_on_its_own_line(linted, comment):
    applied = {d.code: d for d in apply_comments(linted(comment)).diagnostics}
    assert not applied["FUS201"].suppressed
    assert applied["FUS803"].location.line == 11 and applied["FUS803"].location.excerpt == comment


@pytest.mark.parametrize("damage", ["gone", "folder", "no zip", "no archive"])
def test_the_archive_of_a_report_need_not_be_at_hand(linted, tmp_path, damage):
    report = Report.from_json(linted("# fusible: ignore[FUS201]").to_json())
    path = tmp_path / "net.pt"
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "no zip":
        path.write_bytes(b"PK\x03\x04" + b"x" * 100)
    elif damage == "no archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/code/net.py.debug_pkl", b"# fusible: ignore[FUS201]")
    assert findings(report)["FUS201"] is False
