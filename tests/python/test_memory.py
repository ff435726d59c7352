"""A weight is held once: dense in the archive, packed while the model runs. Measured on processes that do what a host does."""
import copy
import io
import json
import subprocess
import sys
import threading
import zipfile

import fusible
import pytest
import torch
from oracle import assert_same, assert_same_bits
from soundness import randomised
from torch import nn
from zoo.fresh_process import libfusible

MB = 2**20

# What a process holds that loads an archive and calls it: resident memory, in MB, after the load, after the calls, and the most during one more.
HOST = """
import json, sys, torch
from pathlib import Path

def resident(field="VmRSS"):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024

torch.set_num_threads(2)
if sys.argv[1]:
    torch.ops.load_library(sys.argv[1])
x = torch.load(sys.argv[3])
torch.jit.load(sys.argv[4])(x)  # threads, executor, libraries
before = resident()
module = torch.jit.load(sys.argv[2])
with torch.no_grad():
    loaded = resident() - before
    module(x)
    packing = resident("VmHWM") - before
    for _ in range(3):
        module(x)
    after = resident() - before
    Path("/proc/self/clear_refs").write_text("5")
    module(x)
    print(json.dumps({"loaded": loaded, "packing": packing, "after": after, "running": resident("VmHWM") - before}))
"""


class Wide(nn.Module):
    """Contractions of 4 to 16 MB, 3x3 convolutions in Winograd's way among them, and one that has it beside a direct sum."""

    def __init__(self, width=8):
        super().__init__()
        self.a = nn.Conv2d(3, 64 * width, 1)
        self.b = nn.Conv2d(64 * width, 64 * width, 3, stride=2, padding=1)
        self.c = nn.Conv2d(64 * width, 64 * width, 1)
        self.bn = nn.BatchNorm2d(64 * width)
        self.wide = nn.Linear(64 * width, 256 * width)
        self.middle = nn.ModuleList([nn.Linear(256 * width, 256 * width) for _ in range(4)])
        self.head = nn.Linear(256 * width, 10)

    def forward(self, x):
        y = torch.relu(self.bn(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))
        y = torch.relu(self.wide(y.mean((2, 3))))
        for layer in self.middle:
            y = torch.relu(layer(y))
        return self.head(y)


def host(archive, x, small, library=None):
    """What HOST prints; `library`: libfusible.so where the archive needs it."""
    command = [sys.executable, "-W", "ignore", "-c", HOST, library or "", str(archive), str(x), str(small)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """{"original", "fused", "small", "small_fused", "x": paths}, and the bytes of the weights."""
    folder = tmp_path_factory.mktemp("memory")
    torch.manual_seed(3)
    paths = {name: folder / f"{name}.pt" for name in ("original", "fused", "small", "small_fused", "x")}
    with torch.no_grad():
        for name, width in (("", 8), ("small", 1)):
            original = torch.jit.script(randomised(Wide(width)))
            original.save(paths[name or "original"])
            fused = fusible.fuse(original)
            fused.save(paths[f"{name}_fused" if name else "fused"])
            if not name:
                paths["bytes"] = fusible.weight_bytes(fused)["dense"]
    torch.save(torch.randn(1, 3, 12, 12), paths["x"])
    return paths


def test_a_host_holds_each_weight_once(archives):
    weights = archives["bytes"] / MB
    assert weights > 70
    found = host(archives["fused"], archives["x"], archives["small_fused"], libfusible())
    original = host(archives["original"], archives["x"], archives["small"])
    assert found["loaded"] < 1.1 * weights + 8
    assert found["after"] < 1.1 * weights + 8, f"{weights:.0f} MB of weights: {found}"
    assert found["running"] < original["running"] + 0.1 * weights, f"the original: {original}, fused: {found}"
    # Layer by layer: at most one is there twice.
    assert found["packing"] < 1.1 * weights + 16 + 8, f"{weights:.0f} MB of weights: {found}"


def saved(module):
    archive = io.BytesIO()
    torch.jit.save(module, archive)
    return archive.getvalue()


def tensors_in(archive):
    """Name and bytes of each tensor's record. (The pickle around them also tells who else holds a tensor while it is written.)"""
    with zipfile.ZipFile(io.BytesIO(archive)) as records:
        return {name: records.read(name) for name in records.namelist() if "/data/" in name or "/constants/" in name}


@pytest.mark.parametrize("how", ["warmup", "forward"])
def test_weights_are_packed_or_dense_and_an_archive_does_not_tell_which(how):
    module, x = torch.jit.script(randomised(Wide(1))), torch.randn(2, 3, 12, 12)
    fused = fusible.fuse(module)
    before, held = saved(fused), fusible.weight_bytes(fused)
    assert held["packed"] == 0 and held["dense"] > 0
    with torch.no_grad():
        wanted = fusible.fuse(module)(x)
        fusible.warmup(fused) if how == "warmup" else fused(x)
    after = fusible.weight_bytes(fused)
    assert after["dense"] == 0
    assert held["dense"] <= after["packed"] < 1.2 * held["dense"]
    assert len(tensors_in(before)) > 10 and tensors_in(saved(fused)) == tensors_in(before)
    assert fusible.weight_bytes(fused) == after
    with torch.no_grad():
        for other in (fused, copy.deepcopy(fused), torch.jit.load(io.BytesIO(saved(fused)))):
            assert_same_bits(other(x), wanted)


def test_derivatives_and_other_ranks_after_packing():
    module, x = torch.jit.script(randomised(Wide(1))), torch.randn(2, 3, 12, 12)
    fused = fusible.fuse(module)
    fusible.warmup(fused)
    given, given_original = x.clone().requires_grad_(), x.clone().requires_grad_()
    fused(given).square().sum().backward()
    module(given_original).square().sum().backward()
    assert_same(given.grad, given_original.grad)
    held = fusible.weight_bytes(fused)
    assert held["dense"] > 0
    fused(given)
    assert fusible.weight_bytes(fused) == held
    with pytest.raises(RuntimeError):
        fused(x.double())


def test_calls_copies_and_archives_while_weights_are_packed():
    module, x = torch.jit.script(randomised(Wide(1))), torch.randn(2, 3, 12, 12)
    first = fusible.fuse(module)
    archive = saved(first)
    with torch.no_grad():
        wanted = first(x)
    wrong = []

    def work(fused, turn):
        try:
            with torch.no_grad():
                for _ in range(3):
                    if turn == 0:
                        assert torch.equal(fused(x), wanted)
                    elif turn == 1:
                        assert tensors_in(saved(fused)) == tensors_in(archive)
                    else:
                        assert torch.equal(copy.deepcopy(fused)(x), wanted)
        except Exception as error:
            wrong.append(error)

    for _ in range(8):
        fused = torch.jit.load(io.BytesIO(archive))
        threads = [threading.Thread(target=work, args=(fused, i % 3)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[0]


def test_a_recurrent_layer_holds_its_weights_once():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(32, 64, num_layers=2, bidirectional=True)

        def forward(self, x):
            return self.rnn(x)[0]

    module, x = torch.jit.script(Tagger().eval()), torch.randn(5, 2, 32)
    fused = fusible.fuse(module)
    before, held = saved(fused), fusible.weight_bytes(fused)
    assert held["dense"] == sum(4 * p.numel() for name, p in module.named_parameters() if "bias" not in name)
    with torch.no_grad():
        wanted = fused(x)
    assert fusible.weight_bytes(fused) == {"dense": 0, "packed": held["dense"]}
    assert tensors_in(saved(fused)) == tensors_in(before)
    with pytest.raises(RuntimeError):
        fused(x.double())
    given = x.clone().requires_grad_()
    assert_same(fused(given).detach(), wanted)
    assert fusible.weight_bytes(fused)["dense"] == held["dense"]
