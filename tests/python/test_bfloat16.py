"""Models of bfloat16: inside of a region they are computed in float32, so that a fused one is no further from the exact result than the original."""
import copy
import io

import fusible
import pytest
import torch
from oracle import assert_same_bits, observable_strides, relative_error, tensors
from soundness import outcome, randomised
from torch import nn
from torch.nn import functional as F


class Images(nn.Module):
    """batch_norm, depthwise, a gate, a residual sum, concatenation, pooling, a classifier."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        self.wide, self.bn1 = nn.Conv2d(32, 64, 1, bias=False), nn.BatchNorm2d(64)
        self.depthwise, self.bn2 = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False), nn.BatchNorm2d(64)
        self.squeeze, self.excite = nn.Conv2d(64, 16, 1), nn.Conv2d(16, 64, 1)
        self.project, self.bn3 = nn.Conv2d(64, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.square = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        y = F.hardswish(self.bn1(self.wide(x)))
        y = F.hardswish(self.bn2(self.depthwise(y)))
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        y = F.relu(self.bn3(self.project(y)) + x)
        y = torch.cat([F.max_pool2d(y, 2), F.avg_pool2d(F.silu(self.square(y)), 2)], 1)
        return self.head(y.mean((2, 3))), y


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.last = nn.LayerNorm(64), nn.LayerNorm(64)
        self.q, self.k, self.v, self.out = (nn.Linear(64, 64) for _ in range(4))
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x):
        y = self.norm(x)
        q, k, v = (f(y).reshape(y.shape[0], y.shape[1], 4, 16).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.last(x))))


MODELS = {"images": (Images, (3, 33, 29)), "tokens": (Tokens, (20, 64))}


def made(name, form="trace", dtype=torch.bfloat16):
    model, shape = MODELS[name]
    module = randomised(model()).to(dtype)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    if form == "script" and name == "tokens":
        pytest.skip("a generator expression is not TorchScript")
    original = torch.jit.script(module) if form == "script" else torch.jit.trace(module, x, check_trace=False)
    return module, original, fusible.fuse(original), shape


@pytest.mark.parametrize("form", ["script", "trace"])
@pytest.mark.parametrize("name", MODELS)
def test_no_further_from_the_exact_result_than_the_original(name, form):
    module, original, fused, shape = made(name, form)
    exact = copy.deepcopy(module).double()
    assert fusible.regions(fused)
    for batch in (1, 2, 5):
        x = torch.randn(batch, *shape).bfloat16()
        layouts = [x, x.contiguous(memory_format=torch.channels_last)] if x.dim() == 4 else [x]
        for given in layouts:
            for _ in range(3):
                found, expected = outcome(fused, (given,))[0], outcome(original, (given,))[0]
                for ours, theirs, right in zip(tensors(found), tensors(expected), tensors(exact(given.double())), strict=True):
                    assert ours.dtype == theirs.dtype == torch.bfloat16
                    assert observable_strides(ours) == observable_strides(theirs)
                    assert relative_error(ours, right) <= relative_error(theirs, right) + 2**-8


@pytest.mark.parametrize("name", MODELS)
def test_nan_and_infinity_come_through(name):
    _, original, fused, shape = made(name)
    x = torch.randn(2, *shape).bfloat16()
    for value in (float("nan"), float("inf")):
        x.view(2, -1)[1, 77] = value
        for ours, theirs in zip(tensors(outcome(fused, (x,))[0]), tensors(outcome(original, (x,))[0]), strict=True):
            assert torch.equal(ours[0].isfinite(), theirs[0].isfinite())
            assert torch.equal(ours.isnan().any(), theirs.isnan().any())


@pytest.mark.parametrize("name", MODELS)
def test_saved_loaded_and_copied_the_bits_are_the_same(name):
    _, _, fused, shape = made(name)
    x = torch.randn(2, *shape).bfloat16()
    with torch.no_grad():
        expected = fused(x)
        buffer = io.BytesIO()
        torch.jit.save(fused, buffer)
        buffer.seek(0)
        for other in (torch.jit.load(buffer), copy.deepcopy(fused), fused):
            assert_same_bits(other(x), expected)


def test_an_input_of_another_dtype_raises_as_in_the_original():
    _, original, fused, shape = made("images")
    x = torch.randn(2, *shape)
    for wrong in (x, x.double(), x.half()):
        assert outcome(fused, (wrong,))[2] is outcome(original, (wrong,))[2] is not None


def test_gradients_are_no_further_off_than_those_of_the_original():
    module, original, fused, shape = made("images")
    x = torch.randn(2, *shape).bfloat16()

    def gradient(model, leaf):
        leaf.requires_grad_()
        model(leaf)[0].double().square().sum().backward()
        return leaf.grad

    exact = gradient(copy.deepcopy(module).double(), x.double())
    ours, theirs = gradient(fused, x.clone()), gradient(original, x.clone())
    assert ours.dtype == theirs.dtype
    assert relative_error(ours, exact) <= 1.5 * relative_error(theirs, exact) + 2**-7


def test_weights_stay_as_small_as_they_are():
    module = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(512, 512), nn.ReLU()))).bfloat16().eval()
    fused = fusible.fuse(torch.jit.trace(module, torch.randn(2, 512).bfloat16()))
    with torch.no_grad():
        fused(torch.randn(2, 512).bfloat16())
    held = fusible.weight_bytes(fused)
    assert held["dense"] == 0
    assert held["packed"] <= 4 * 512 * 512 * 2 + 4096
