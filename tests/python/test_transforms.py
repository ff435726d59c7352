"""torch.func over fused modules: vmap, and the derivatives made of it, give what they give of the original."""
import fusible
import pytest
import torch
from torch import nn
from torch.nn import functional as F

ANCHORS = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, stride=2, groups=2), (2, 4, 9, 8)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 4)),
    "linear": (lambda: nn.Linear(4, 6), (3, 4)),
}


class Chain(nn.Module):
    def __init__(self, anchor):
        super().__init__()
        self.anchor = anchor

    def forward(self, x, scale):
        return F.gelu(self.anchor(x)) * scale


class Pieces(nn.Module):
    """A region with sizes and pieces of a tensor."""

    def __init__(self):
        super().__init__()
        self.projection, self.out = nn.Linear(8, 16), nn.Linear(8, 8)

    def forward(self, x):
        value, gate = self.projection(x).chunk(2, dim=-1)
        return torch.relu(self.out(value * torch.sigmoid(gate))).view(x.size(0), x.size(1), 2, 4)


class Image(nn.Module):
    """A run in channels_last between operators that convert."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.b(torch.relu(self.a(x))))


def pair(module):
    scripted = torch.jit.script(module.eval())
    return scripted, fusible.fuse(scripted)


def expect_same(transform, original, fused, *inputs):
    wanted, found = transform(original)(*inputs), transform(fused)(*inputs)
    assert found.shape == wanted.shape and found.stride() == wanted.stride()
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("in_dims", [(0, None), (1, None), (-1, 0), (None, 0)])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_vmap_of_an_operator(anchor, in_dims):
    create, shape = ANCHORS[anchor]
    original, fused = pair(Chain(create()))
    batched = list(shape)
    if in_dims[0] is not None:
        batched.insert(in_dims[0] if in_dims[0] >= 0 else len(shape), 5)
    scale = torch.randn(()) if in_dims[1] is None else torch.randn(5)
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            expect_same(lambda module: torch.vmap(module, in_dims=in_dims), original, fused, torch.randn(batched), scale)


@pytest.mark.parametrize("model, shape", [(Pieces(), (2, 5, 8)), (Image(), (2, 8, 7, 6))], ids=["pieces", "image"])
def test_vmap_of_a_region(model, shape):
    original, fused = pair(model)
    assert fusible.regions(fused)
    with torch.no_grad():
        expect_same(torch.vmap, original, fused, torch.randn(3, *shape))
        expect_same(lambda module: torch.vmap(module, in_dims=1), original, fused, torch.randn(shape[0], 3, *shape[1:]))
        expect_same(lambda module: torch.vmap(torch.vmap(module)), original, fused, torch.randn(3, 2, *shape))


def test_vmap_of_the_borders_of_a_run():
    x = torch.randn(3, 2, 4, 5, 6).transpose(-1, -3)
    for border in (torch.ops.fusible.to_channels_last, lambda image: torch.ops.fusible.restore_layout(image, [image])):
        assert torch.equal(torch.vmap(border)(x), x)


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd, torch.func.grad])
def test_derivatives_by_transforms(transform):
    original, fused = pair(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Sigmoid()))
    expect_same(lambda module: transform(lambda x: module(x).sum()), original, fused, torch.randn(2, 4))
