"""Linting reads no weights: archives are mapped. Same reports as from a module that was loaded whole, in the memory of torch alone."""

from __future__ import annotations

import hashlib
import zipfile

import fusible
import pytest
import torch
from conftest import small
from fusible.archive import load_archive
from fusible.mapped import load_mapped, with_prefix
from torch import nn
from zoo import archives

FORMS = ("scripted", "traced", "frozen")


def export(module, form, inputs):
    if form == "scripted":
        return torch.jit.script(module)
    traced = torch.jit.trace(module, inputs)
    return torch.jit.freeze(traced, optimize_numerics=False) if form == "frozen" else traced


def comparable(report):
    data = report.to_dict()
    return {key: data[key] for key in ("counts", "verdicts", "diagnostics")} | {"origin": data["model"]["origin"]}


@pytest.fixture(params=FORMS)
def saved(request, tmp_path, x):
    path = tmp_path / "model.pt"
    export(small(), request.param, (x,)).save(str(path))
    return path


def test_a_mapped_module_is_the_loaded_one(saved, x):
    mapped, loaded = load_mapped(saved), fusible.load(saved)
    assert mapped.state_dict().keys() == loaded.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(mapped(x), loaded(x))
    assert comparable(fusible.lint(saved)) == comparable(fusible.lint(loaded))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
@pytest.mark.parametrize("form", archives.FORMS)
def test_real_archives_get_the_same_report(name, form):
    path = archives.archive(name, form)
    assert comparable(fusible.lint(path)) == comparable(fusible.lint(fusible.load(path)))


def test_what_is_written_does_not_reach_the_file(saved):
    before = hashlib.sha256(saved.read_bytes()).hexdigest()
    mapped = load_mapped(saved)
    for tensor in mapped.state_dict().values():
        tensor.zero_()
    assert hashlib.sha256(saved.read_bytes()).hexdigest() == before


def test_compressed_records_are_read(tmp_path, x, scripted):
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    scripted.save(str(plain))
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
    with torch.no_grad():
        assert torch.equal(load_mapped(packed)(x), scripted(x))


def test_an_archive_of_the_other_byte_order_is_loaded_whole(saved, tmp_path):
    other = tmp_path / "big.pt"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(other, "w") as new:
        for record in old.infolist():
            new.writestr(record.filename, b"big" if record.filename.endswith("/byteorder") else old.read(record))
    assert load_mapped(other) is None and load_archive(other, mapped=True) is not None


def test_keys_get_their_prefix_and_the_rest_stays(saved):
    with zipfile.ZipFile(saved) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/constants.pkl"))
        pickled = archive.read(name)
    assert with_prefix(pickled, "") == pickled
    longer = with_prefix(pickled, "constants/")
    assert (len(longer) - len(pickled)) % len("constants/") == 0 and longer.count(b"constants/") == pickled.count(b"Q")


class Large(nn.Module):
    """300 MB of weights, and a batch_norm whose statistics are asked for."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(5000, 5000) for _ in range(3)), nn.Linear(5000, 8), nn.BatchNorm1d(8))

    def forward(self, x):
        return torch.relu(self.layers(x))


# ru_maxrss would count the process that started this one; the kernel's own high-water mark begins anew with the program.
PEAK = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"


@pytest.mark.parametrize("form", ["scripted", "frozen"])
def test_a_large_archive_is_linted_in_the_memory_of_torch_alone(form, python, tmp_path):
    path = tmp_path / "large.pt"
    export(Large().eval(), form, (torch.zeros(2, 5000),)).save(str(path))
    assert path.stat().st_size > 300_000_000
    alone = int(python("-c", f"import torch; {PEAK}").stdout)
    linted = python("-c", f"import fusible; print(fusible.lint({str(path)!r}).counts['fused']); {PEAK}").stdout.split()
    loaded = int(python("-c", f"import fusible; fusible.load({str(path)!r}); {PEAK}").stdout)
    path.unlink()
    assert int(linted[0]) >= 4
    assert int(linted[1]) < 1.2 * alone, (linted, alone)
    assert loaded > 1.8 * alone, "the weights would show if they were read"
