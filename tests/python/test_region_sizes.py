"""Sizes that a graph computes, and pieces of lists, inside of regions: the same numbers, views and errors."""
import fusible
import pytest
import torch
import torch.nn.functional as F
from oracle import assert_same
from test_regions import Net, check, fused_pair, regions
from torch import nn


class Shuffled(Net):
    """A ShuffleNet unit: halves of the channels, sizes from the graph, channels of two groups mixed."""

    def forward(self, x):
        y = self.a(x)
        kept, inner = y.chunk(2, dim=1)
        y = torch.cat((kept, F.relu(self.inside(inner))), dim=1)
        n, c, h, w = y.size()
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        return F.relu(self.c(self.b(y)))

    def __init__(self):
        super().__init__()
        self.inside = nn.Conv2d(8, 8, 3, padding=1)


@pytest.mark.parametrize("form", ["scripted", "traced"])
def test_sizes_and_pieces_do_not_cut_a_region(form):
    for size in ((1, 3, 9, 7), (4, 3, 16, 16)):
        _, fused = check(Shuffled(), (torch.randn(size),), form=form)
    assert {"fusible::chunk", "aten::view"} <= set(regions(fused)[0])


def test_sizes_that_leave_a_region_are_numbers_outside():
    class Sized(Net):
        def forward(self, x):
            y = self.b(F.relu(self.a(x)))
            n, width = y.size(0), y.shape[3]
            return y.reshape(n, -1), [n, width * 2], y.view(n, 16, y.size(2) * width)

    original, fused = fused_pair(Sized())
    assert len(regions(fused)) == 1
    for size in ((2, 3, 6, 5), (1, 3, 4, 4), (2, 3, 6, 5)):
        x = torch.randn(size)
        found, expected = fused(x), original(x)
        assert found[1] == expected[1]
        assert_same((found[0], found[2]), (expected[0], expected[2]))


def test_numbers_computed_before_a_region_go_in():
    class Given(Net):
        def forward(self, x, width: int):
            y = self.b(F.relu(self.a(x)))
            return self.c(F.relu(y)).view(x.size(0), -1, width * 2)

    original, fused = fused_pair(Given())
    assert len(regions(fused)) == 1
    x = torch.randn(2, 3, 6, 6)
    for width in (2, 3, 6, 2):
        assert_same(fused(x, width), original(x, width))
    with pytest.raises(RuntimeError):
        fused(x, 5)


def test_a_list_of_pieces_of_another_length_raises():
    class Halves(Net):
        def forward(self, x):
            y = F.relu(self.b(self.a(x)))
            left, right = y.split(9, dim=3)
            return self.c(left), self.c(right)

    original, fused = fused_pair(Halves())
    x = torch.randn(1, 3, 4, 12)
    assert_same(fused(x), original(x))
    for width in (9, 19):
        for module in (original, fused):
            with pytest.raises(RuntimeError):
                module(torch.randn(1, 3, 4, width))


def test_a_mask_that_is_no_float_keeps_the_plan():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.v, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x, mask):
            q, v = self.q(x), self.v(x)
            return self.out(F.gelu(F.scaled_dot_product_attention(q, q, v, mask)) + x)

    x, mask = torch.randn(2, 5, 16), torch.ones(5, 5, dtype=torch.bool).tril()
    original, fused = fused_pair(Masked())
    for given in (mask, mask.float(), mask):
        assert_same(fused(x, given), original(x, given))
    name, = fusible.regions(fused)
    inputs = [x, mask] if "scaled_dot_product_attention" in fusible.regions(fused)[name] else [x]
    assert "loop nest" in getattr(fused, name).explain(inputs)


class OfSizes(Net):
    """What a trace computes from sizes on tensors: sums with alpha, divisions of negative numbers, a number that is written to."""

    def forward(self, x):
        y = self.b(F.relu(self.a(x)))
        n = x.size(0)
        if not isinstance(n, torch.Tensor):
            n = torch.tensor(n)
        twice = torch.add(n, n, alpha=2)
        below = torch.div(n - 4, 3, rounding_mode="trunc")
        written = n * 1
        written.view(()).add_(1)
        return y.narrow(1, 0, twice), y.narrow(1, 0, below + 5), y.narrow(1, 0, written), y.narrow(1, 0, n // 2 + 1)


def test_arithmetic_of_a_trace_on_sizes():
    original, fused = fused_pair(OfSizes(), form="traced")
    for batch in (1, 2, 4, 5):
        x = torch.randn(batch, 3, 6, 6)
        assert_same(fused(x), original(x))


def test_branches_that_disagree_are_not_taken_for_one():
    class Branches(Net):
        def forward(self, x, flag: bool):
            if flag:
                scale, shift, name, size = 1, True, "a", x.size(0)
            else:
                scale, shift, name, size = 2, False, "b", x.size(0)
            y = F.relu(self.b(self.a(x)) * scale)
            if shift:
                y = y + 1
            return self.c(y), name, size

    original, fused = fused_pair(Branches())
    x = torch.randn(2, 3, 6, 6)
    for flag in (True, False):
        found, expected = fused(x, flag), original(x, flag)
        assert found[1:] == expected[1:]
        assert_same(found[0], expected[0])


def test_pieces_whose_list_others_read_stay_a_list():
    class Lists(Net):
        def forward(self, x):
            y = F.relu(self.b(self.a(x)))
            pieces = y.chunk(2, dim=1)
            left, right = pieces
            pieces.append(right)
            return left, right, len(pieces), pieces

    original, fused = fused_pair(Lists())
    x = torch.randn(1, 3, 6, 6)
    found, expected = fused(x), original(x)
    assert found[2] == expected[2] == 3
    assert_same((found[0], found[1], *found[3]), (expected[0], expected[1], *expected[3]))
