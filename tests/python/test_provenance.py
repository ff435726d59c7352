"""What a finding can say of its place, per kind of archive: file and line, module path, source text; and what is said instead where it is lost."""
from __future__ import annotations

import importlib.util
import zipfile

import fusible
import pytest
import torch
from fusible.render import render

SOURCE = '''import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.bn(self.conv(x))
        return torch.relu(y) + torch.exp(y)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.layers = Block(), nn.Sequential(Block(), Block())

    def forward(self, x):
        return self.layers(self.stem(x))
'''
LINE = 1 + SOURCE.splitlines().index("        y = self.bn(self.conv(x))")
PATHS = {"stem", "layers.0", "layers.1"}
INPUT = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net_def.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def net(file):
    spec = importlib.util.spec_from_file_location("net_def", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Net().eval()


def freeze(module):
    return torch.jit.freeze(module, optimize_numerics=False)


def saved(module, folder):
    path = folder / "net.pt"
    module.save(str(path))
    return path


def without_debug_files(path):
    bare = path.with_name("bare.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bare, "w") as new:
        for record in old.infolist():
            if not record.filename.endswith(".debug_pkl"):
                new.writestr(record.filename, old.read(record))
    return bare


def places(report):
    """(file, line, module path without the last part) of every site of the second uses."""
    sites = [site for d in report.diagnostics if d.code == "FUS201" for site in d.sites]
    assert len(sites) == 3
    return [(site.location.file, site.location.line, site.module_path.rpartition(".")[0]) for site in sites]


def test_scripted_and_saved_has_file_line_path_and_the_source_itself(net, file, tmp_path):
    path = saved(torch.jit.script(net), tmp_path)
    file.rename(tmp_path / "away.py")  # the archive carries its text
    report = fusible.lint(path)
    assert {(f, n) for f, n, _ in places(report)} == {(str(file), LINE)} and {p for *_, p in places(report)} == PATHS
    (finding,) = [d for d in report.diagnostics if d.code == "FUS201"]
    assert len(finding.sites) == 3, "one finding for one cause"
    text = render("full", [report])
    assert f"{LINE} |         y = self.bn(self.conv(x))" in text and "^^^^^^^ this value" in text and "second use: aten::exp" in text


def test_traced_and_saved_has_file_line_and_path(net, file, tmp_path):
    report = fusible.lint(saved(torch.jit.trace(net, INPUT), tmp_path))
    assert {(f, n) for f, n, _ in places(report)} == {(str(file), LINE)} and {p for *_, p in places(report)} == PATHS
    assert "net_def.py:11" in render("full", [report])


@pytest.mark.parametrize("export", [torch.jit.script, lambda net: torch.jit.trace(net, INPUT)], ids=["scripted", "traced"])
def test_frozen_in_this_process_keeps_everything(export, net, file, tmp_path):
    report = fusible.lint(freeze(torch.jit.load(str(saved(export(net), tmp_path)))))
    assert {(f, n) for f, n, _ in places(report)} == {(str(file), LINE)} and {p for *_, p in places(report)} == PATHS


def test_scripted_frozen_and_then_saved_has_ordinals_and_one_note(net, tmp_path):
    report = fusible.lint(saved(freeze(torch.jit.script(net)), tmp_path))
    assert set(places(report)) == {("", 0, "")} and [d.code for d in report.diagnostics].count("FUS001") == 1
    text = render("full", [report])
    assert "forward, aten::" in text and " #1 of 3" in text and "Python line unknown" in text


def test_traced_frozen_and_then_saved_keeps_file_and_line(net, file, tmp_path):
    report = fusible.lint(saved(freeze(torch.jit.trace(net, INPUT)), tmp_path))
    assert set(places(report)) == {(str(file), LINE, "")}


@pytest.mark.parametrize("export", [torch.jit.script, lambda net: torch.jit.trace(net, INPUT)], ids=["scripted", "traced"])
def test_without_debug_files_the_module_path_is_left(export, net, tmp_path):
    report = fusible.lint(without_debug_files(saved(export(net), tmp_path)))
    assert {(f, n) for f, n, _ in places(report)} == {("", 0)} and {p for *_, p in places(report)} == PATHS
    assert "Python line unknown" in render("full", [report])


def test_a_fingerprint_is_the_same_after_another_export_with_moved_lines(net, file, tmp_path):
    def fingerprints(module):
        return [d.fingerprint for d in fusible.lint(saved(torch.jit.script(module), tmp_path)).diagnostics if d.code == "FUS201"]

    before = fingerprints(net)
    file.write_text("# moved\n\n" + SOURCE)
    spec = importlib.util.spec_from_file_location("net_def", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert fingerprints(module.Net().eval()) == before and before
