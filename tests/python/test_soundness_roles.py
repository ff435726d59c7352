"""Who plays which part in a sequence: values that stand where a pattern does not expect them, constants of other kinds, writes in between."""
from __future__ import annotations

import fusible
import pytest
import torch
import torch.nn.functional as F
from oracle import assert_same, assert_same_bits
from soundness import Module, check, image, outcome, randomised
from torch import nn


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.fc = nn.Linear(6, 8)
        self.register_buffer("mean", torch.randn(8))
        self.register_buffer("var", torch.rand(8) + 0.5)


def rows():
    torch.manual_seed(3)
    return torch.randn(5, 8), torch.randn(6)


def test_a_slope_that_a_linear_computes_is_no_input_of_prelu():
    class Net(Rows):
        def forward(self, z, v):
            return F.prelu(z, self.fc(v))

    check(Net(), rows())


def test_a_batch_norm_whose_weight_a_linear_computes_is_not_folded_into_it():
    class Net(Rows):
        def forward(self, z, v):
            return F.batch_norm(z, self.mean, self.var, self.fc(v), None, False, 0.1, 1e-5)

    check(Net(), rows())


def test_a_bool_buffer_is_not_subtracted():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.tensor([True, False] * 4).view(8, 1, 1))

        def forward(self, x):
            return F.relu(self.conv(x) - self.mask)

    check(Net(), image(), forms=("script",))


def test_lists_of_one_number_stand_for_all_dimensions():
    class Net(Module):
        def forward(self, x):
            return F.relu(self.bn(torch.conv2d(x, self.conv.weight, self.conv.bias, [2], [1], [1], 1)))

    check(Net(), image(4, 3, 97, 96))  # large enough for a kernel that reads them itself


def test_integers_are_multiplied_as_integers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.arange(-24, 24).view(8, 6))

        def forward(self, x):
            return F.relu(F.linear(x, self.weight))

    check(Net(), (torch.arange(-15, 15).view(5, 6),))


def test_a_bias_that_is_written_is_read_anew():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("bias", torch.zeros(8))

        def forward(self, x):
            self.bias.add_(1.0)
            return F.relu(F.conv2d(x, self.conv.weight, self.bias))

    check(Net(), image(), forms=("script",))


@pytest.mark.parametrize("written", ["x", "other"])
def test_writes_to_what_a_sequence_read_stay_behind_it(written):
    class Net(Module):
        def forward(self, x, other):
            y = self.conv(x) + other
            if written == "x":
                x.add_(1.0)
            else:
                other.mul_(2.0)
            return F.relu(y), x * 1, other * 1

    torch.manual_seed(4)
    check(Net(), (*image(), torch.randn(2, 8, 8, 8)), forms=("trace",))


def test_a_view_that_is_written_is_no_constant():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("flat", torch.randn(8 * 27))

        def forward(self, x):
            weight = self.flat.view(8, 3, 3, 3)
            weight.mul_(0.5)
            return F.relu(F.conv2d(x, weight))

    check(Net(), image(), forms=("script",))


def test_a_row_of_what_is_written_is_no_constant():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("rows", torch.rand(2, 8, 1, 1))

        def forward(self, x):
            scale = self.rows[0]
            self.rows.add_(1.0)
            return F.relu(self.conv(x) * scale), self.conv(x) * self.rows[1]

    check(Net(), image(), forms=("script",))


@pytest.mark.parametrize("gate", [(1, 8, 1, 1), (2, 8, 1, 1), (2, 8, 8, 8)])
def test_a_product_belongs_to_the_map_that_is_larger(gate):
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.squeeze = nn.Conv2d(8, 8, 1)

        def forward(self, x, g):
            return self.conv(x) * torch.sigmoid(self.squeeze(g)), torch.sigmoid(self.squeeze(g)) * self.conv(x)

    torch.manual_seed(5)
    check(Net(), (*image(), torch.randn(*gate)))


@pytest.mark.parametrize("body", [lambda y: y * 0.5, lambda y: y * torch.sigmoid(y), lambda y: F.relu(y + 3) / 6, lambda y: (y - 1).relu()],
                         ids=["factor", "decomposed silu", "sum and quotient", "difference"])
def test_strict_keeps_every_bit(body):
    class Net(Module):
        def forward(self, x):
            return body(self.bn(self.conv(x)))

    x = image()[0]
    x[0, 0, 3, 3], x[1, 1, 4, 4] = float("nan"), float("inf")
    original = torch.jit.trace(randomised(Net()), (x,), check_trace=False)
    ours = fusible.fuse(original, strict=True)
    with torch.no_grad():
        assert_same_bits(ours(x), original(x))


def test_state_that_is_assigned_and_written_is_not_shared_with_the_original():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(8))

        def forward(self, x):
            y = F.relu(self.bn(self.conv(x)))
            self.seen.add_(y.sum(dim=(0, 2, 3)))
            self.seen = self.seen * 2.0
            return y

    original = torch.jit.script(randomised(Net()))
    ours = fusible.fuse(original)
    before = original.seen.clone()
    with torch.no_grad():
        ours(*image())
        assert_same_bits(original.seen, before)
        original(*image())
    assert_same(ours.seen, original.seen)


def test_an_ignored_sequence_is_left_whole():
    class Net(Module):
        def forward(self, x):
            return F.relu(self.bn(self.conv(x)))

    original = torch.jit.script(randomised(Net()))
    report = fusible.report(fusible.fuse(original, ignore=["conv+batch_norm"]))
    assert [v.pattern for v in report.fused] == [] and {v.status for v in report.verdicts} == {"suppressed"}, report.verdicts


def test_target_aten_keeps_the_order_of_steps_that_it_cannot_take():
    class Net(Module):
        def forward(self, x):
            return F.relu(self.bn(self.conv(x)) * 0.5 + 1.0)

    for shape in ((2, 3, 8, 8), (3, 9, 7), (0, 3, 8, 8)):
        original = torch.jit.script(randomised(Net()))
        ours = fusible.fuse(original, target="aten")
        expected, _, expected_error = outcome(original, image(*shape))
        found, _, found_error = outcome(ours, image(*shape))
        assert (found_error is None) == (expected_error is None)
        if expected_error is None:
            assert_same(found, expected)


VIEWS = {"flatten": lambda y: y.flatten(1), "reshape": lambda y: y.reshape(2, -1), "view": lambda y: y.view(2, 8, -1), "transpose": lambda y: y.transpose(1, 2),
         "slice": lambda y: y[:, 2:5]}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_a_result_shows_that_result(view):
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.second = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            y = F.relu(self.second(F.relu(self.conv(x))))
            return y, VIEWS[view](y)

    original = torch.jit.trace(randomised(Net()), image(2, 3, 16, 16), check_trace=False)
    ours = fusible.fuse(original)
    with torch.no_grad():
        for module in (original, ours):
            for _ in range(3):
                whole, seen = module(*image(2, 3, 16, 16))
                before = whole.clone()
                seen.add_(1.0)
                assert (whole != before).sum() == seen.numel(), type(module)


def test_the_rank_that_addmm_needs_is_kept_in_an_archive(tmp_path):
    class Net(Rows):
        def forward(self, x):
            return F.relu(torch.addmm(self.fc.bias, x, self.fc.weight.t()))

    original = torch.jit.script(Net().eval())
    fusible.fuse(original).save(str(tmp_path / "fused.pt"))
    loaded = torch.jit.load(str(tmp_path / "fused.pt"))
    for shape in ((5, 6), (2, 5, 6), (6,)):
        expected, _, expected_error = outcome(original, (torch.ones(shape),))
        found, _, found_error = outcome(loaded, (torch.ones(shape),))
        assert (found_error is None) == (expected_error is None) == (len(shape) == 2)
        if expected_error is None:
            assert_same(found, expected)


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 3, 4, 4)])
@pytest.mark.parametrize("last", [False, True])
def test_weights_in_channels_last_decide_the_strides_as_before(shape, last):
    class Net(Module):
        def forward(self, x):
            return F.relu(self.conv(x))

    net = Net().to(memory_format=torch.channels_last)
    x = torch.randn(shape)
    check(net, (x.contiguous(memory_format=torch.channels_last) if last else x,))


def test_forward_mode_derivatives_pass_through():
    class Net(Module):
        def forward(self, x):
            return torch.tanh(self.bn(self.conv(x)))

    original = torch.jit.trace(randomised(Net()), image(), check_trace=False)
    ours = fusible.fuse(original)
    x, tangent = image()[0], torch.ones(2, 3, 8, 8)
    derivatives = []
    for module in (original, ours):
        with torch.no_grad(), torch.autograd.forward_ad.dual_level():
            derivatives.append(torch.autograd.forward_ad.unpack_dual(module(torch.autograd.forward_ad.make_dual(x, tangent))).tangent)
    assert derivatives[0] is not None
    assert_same(derivatives[1], derivatives[0])


@pytest.mark.parametrize("shape", [(2, 4, 64, 64), (2, 2, 64, 64), (2, 3, 1, 64), (3, 64, 64), (64, 64)])
@pytest.mark.parametrize("module", [nn.Conv2d(3, 16, 3), nn.ConvTranspose2d(3, 16, 3)], ids=["conv", "conv_transpose"])
def test_images_that_do_not_fit_raise_as_before(module, shape):
    original = torch.jit.script(nn.Sequential(module, nn.ReLU()).eval())
    ours = fusible.fuse(original)
    x = torch.ones(shape)
    for given in (x, x.contiguous(memory_format=torch.channels_last)) if x.dim() == 4 else (x,):
        expected, _, expected_error = outcome(original, (given,))
        found, _, found_error = outcome(ours, (given,))
        assert (found_error is None) == (expected_error is None)
        if expected_error is None:
            assert_same(found, expected)
