"""What was treated before: fused submodules in new scripts, modules that torch froze in this process, copies of modules with hooks, nested tensors."""
import os
import subprocess
import sys
from typing import List, Tuple

import fusible
import pytest
import torch
import torch.nn.functional as F
from oracle import assert_same
from soundness import randomised
from torch import Tensor, nn


class Inner(nn.Module):
    def __init__(self, kernel=3):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, kernel), nn.BatchNorm2d(8)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Outer(nn.Module):
    """Its own attributes would be called as those of its fused parts are."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.stem, self.bn, self.head = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Linear(8, 2)

    def forward(self, x):
        y = F.relu(self.bn(self.stem(x)))
        total = torch.zeros(1)
        for part in self.parts:
            total = total + self.head(part(y).mean((2, 3))).sum()
        return total


@pytest.mark.parametrize("options", [{}, {"target": "aten"}, {"example_inputs": (torch.randn(2, 3, 9, 7),)}, {"tune": True, "example_inputs": (torch.randn(2, 3, 9, 7),)}])
@pytest.mark.parametrize("form", ["script", "trace", "freeze"])
def test_fused_submodules_keep_their_own_weights_when_the_whole_is_fused(form, options):
    torch.manual_seed(5)
    x = torch.randn(2, 3, 9, 7)
    parts = [randomised(Inner(kernel)) for kernel in (3, 1)]
    plain = randomised(Outer(*parts))
    fused_parts = [fusible.fuse(torch.jit.script(part)) for part in parts]
    outer = Outer(*fused_parts).eval()
    outer.load_state_dict({name: value for name, value in plain.state_dict().items() if not name.startswith("parts.")}, strict=False)
    whole = torch.jit.trace(outer, x) if form == "trace" else torch.jit.script(outer)
    if form == "freeze":
        whole = torch.jit.freeze(whole)
    again = fusible.fuse(whole, **options)
    with torch.no_grad():
        expected = plain(x)
        for _ in range(2):
            assert_same(whole(x), expected)
            assert_same(again(x), expected)


IN_ONE_PROCESS = """
import gc, sys
import torch, fusible
import torch.nn.functional as F
from torch import nn
from fusible.demo.resnet50 import resnet50

class Helped(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.helper(x)

    def helper(self, x):
        if x.size(0) > 1:
            return F.dropout(self.fc(x), 0.1, self.training)
        return F.gelu(self.fc(x))

network, x = {
    "helper": lambda: (Helped(), torch.randn(2, 4)),
    "transformer": lambda: (nn.TransformerEncoderLayer(16, 2, 32), torch.randn(5, 2, 16)),
    "resnet": lambda: (resnet50(), torch.randn(1, 3, 64, 64)),
}[sys.argv[1]]()
scripted = torch.jit.script(network.eval())
frozen = {"freeze": torch.jit.freeze, "ofi": lambda m: torch.jit.optimize_for_inference(torch.jit.freeze(m))}[sys.argv[2]](scripted)
gc.collect()
print(len(fusible.lint(frozen).verdicts))
fused = fusible.fuse(frozen)
with torch.no_grad():
    print(float((fused(x) - frozen(x)).abs().max() / frozen(x).abs().max()))
"""


# Calls that freeze has inlined are named by functions that it destroyed.
@pytest.mark.parametrize("how", ["freeze", "ofi"])
@pytest.mark.parametrize("model", ["helper", "transformer", "resnet"])
def test_a_module_that_was_frozen_in_this_process_is_treated_as_any_other(model, how, tmp_path):
    (tmp_path / "program.py").write_text(IN_ONE_PROCESS)
    command = [sys.executable, "-W", "ignore", str(tmp_path / "program.py"), model, how]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MALLOC_PERTURB_": "165"})
    assert done.returncode == 0, done.stderr[-1000:]
    assert float(done.stdout.split()[1]) < 1e-5


def shifted(self, given: Tuple[Tensor], result: Tensor) -> Tensor:
    return result + self.shift


def halved(self, given: Tuple[Tensor]) -> Tuple[Tensor]:
    return (given[0] / 2,)


class Hooked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("shift", torch.randn(4))
        self.register_forward_pre_hook(halved)
        self.register_forward_hook(shifted)

    def forward(self, x):
        return F.relu(self.lin(x))


class HookedForks(Hooked):
    """Left alone as a whole."""

    def forward(self, x: Tensor):
        parts: List[torch.jit.Future[Tensor]] = []
        for _ in range(2):
            parts.append(torch.jit.fork(self.lin, x))
        y = self.lin(x)
        for part in parts:
            y = y + torch.jit.wait(part)
        return y


@pytest.mark.parametrize("network", [Hooked, HookedForks])
def test_copies_keep_the_hooks(network, tmp_path):
    torch.manual_seed(7)
    original, x = torch.jit.script(network().eval()), torch.randn(3, 4)
    with torch.no_grad():
        expected = original(x)
        once = fusible.fuse(original)
        for fused in (once, fusible.fuse(once), fusible.fuse(once, (x,)), fusible.fuse(original, (x,)), fusible.fuse(fusible.fuse(once))):
            assert_same(fused(x), expected)
        fusible.fuse(once).save(tmp_path / "again.pt")
        assert_same(torch.jit.load(tmp_path / "again.pt")(x), expected)
        assert_same(original(x), expected)


@pytest.mark.parametrize("behind", [nn.Identity, nn.ReLU, nn.GELU, nn.Tanh])
def test_linears_take_nested_tensors(behind):
    original = torch.jit.script(nn.Sequential(nn.Linear(16, 8), behind()).eval())
    x = torch.nested.nested_tensor([torch.randn(3, 16), torch.randn(2, 16)])
    for fused in (fusible.fuse(original), fusible.fuse(original, (torch.randn(2, 16),))):
        for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            with context():
                for part, expected in zip(fused(x).unbind(), original(x).unbind(), strict=True):
                    assert_same(part.detach(), expected.detach())
