"""Sums, products and constants behind a contraction: which operand, which operator, in place or not must not matter."""
import pytest
import torch
from torch import nn

from fusing import assert_fuses
from spellings import FORMS, draw, functional, sample


class Residual(nn.Module):
    """combine(conv-bn(x), other) with the other operand an input, so that it is no candidate for anything."""

    def __init__(self, combine):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.combine = combine

    def forward(self, x, other):
        return self.combine(self.bn(self.conv(x)), other)


class Sum(nn.Module):
    def forward(self, y, other):
        return y + other


class SumOnTheRight(nn.Module):
    def forward(self, y, other):
        return other + y


class SumByFunction(nn.Module):
    def forward(self, y, other):
        return torch.add(y, other)


class SumByMethodOnTheRight(nn.Module):
    def forward(self, y, other):
        return other.add(y)


class SumInPlace(nn.Module):
    def forward(self, y, other):
        y += other
        return y


class SumByInPlaceMethod(nn.Module):
    def forward(self, y, other):
        return y.add_(other)


class SumWithAlphaOne(nn.Module):
    def forward(self, y, other):
        return torch.add(y, other, alpha=1)


SUMS = (Sum, SumOnTheRight, SumByFunction, SumByMethodOnTheRight, SumInPlace, SumByInPlaceMethod, SumWithAlphaOne)
INPUTS = sample((2, 4, 6, 5)), sample((2, 8, 6, 5), seed=1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("combine", SUMS, ids=lambda combine: combine.__name__)
def test_every_sum_is_one_operator(combine, form):
    assert_fuses(draw(Residual(combine())), INPUTS, form, "conv+batch_norm+add")


class Then(nn.Module):
    def __init__(self, combine, activation):
        super().__init__()
        self.combine, self.activation = combine, activation

    def forward(self, y, other):
        return self.activation(self.combine(y, other))


@pytest.mark.parametrize("form", ["scripted", "traced"])
@pytest.mark.parametrize("activation, name", [(nn.ReLU(inplace=True), "relu"), (nn.SiLU(), "silu"), (nn.Hardswish(), "hardswish")])
@pytest.mark.parametrize("combine", SUMS, ids=lambda combine: combine.__name__)
def test_every_sum_and_an_activation(combine, activation, name, form):
    assert_fuses(draw(Residual(Then(combine(), activation))), INPUTS, form, f"conv+batch_norm+add+{name}")


class TwoBranches(nn.Module):
    """Both operands come from a contraction: one takes the sum, the other ends before it."""

    def __init__(self, swapped):
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.shortcut = nn.Sequential(nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.swapped = swapped

    def forward(self, x):
        if self.swapped:
            return torch.relu(self.shortcut(x) + self.main(x))
        y = self.main(x)
        y += self.shortcut(x)
        return torch.relu_(y)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_branches_one_takes_the_sum(swapped, form):
    assert_fuses(draw(TwoBranches(swapped)), INPUTS[:1], form, "conv+batch_norm", "conv+batch_norm+add+relu")


class LinearResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.gelu(self.fc(x) + x)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 5, 4), (2, 3, 5, 4)])
def test_a_linear_residual_of_any_rank(shape, form):
    assert_fuses(draw(LinearResidual()), (sample(shape),), form, "linear+add+gelu")


class Affine(nn.Module):
    """A constant step behind a convolution; the constant is a buffer of the shape given, or a number."""

    def __init__(self, step, constant):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3)
        self.register_buffer("constant", constant)
        self.step = step

    def forward(self, x):
        return self.step(self.conv(x), self.constant)


NUMBERS = {
    "y + 0.5": "add", "0.5 + y": "add", "y - 0.5": "sub", "y * 1.5": "mul", "1.5 * y": "mul", "y / 3": "div", "y + 2": "add",
    "y.add(0.5)": "add",
    "y.add_(0.5)": "add", "y.sub_(0.5)": "sub", "y.mul_(1.5)": "mul", "y.div_(1.5)": "div",
    "torch.mul(y, 1.5)": "mul", "torch.div(y, 1.5)": "div",
    "2 - y": "sub", "0.5 - y": "sub", "torch.rsub(y, 0.5)": "sub",
}


@pytest.mark.parametrize("form", ["scripted", "traced", "frozen loaded"])
@pytest.mark.parametrize("expression", NUMBERS)
def test_a_number_is_taken_in(expression, form):
    module = draw(nn.Sequential(nn.Conv2d(4, 8, 3), functional(expression), nn.ReLU()))
    assert_fuses(module, INPUTS[:1], form, f"conv+{NUMBERS[expression]}+relu")


class Add(nn.Module):
    def forward(self, y, constant):
        return y + constant


class AddOnTheRight(nn.Module):
    def forward(self, y, constant):
        return constant + y


class Sub(nn.Module):
    def forward(self, y, constant):
        return y - constant


class SubOnTheRight(nn.Module):
    def forward(self, y, constant):
        return constant - y


class Mul(nn.Module):
    def forward(self, y, constant):
        return y * constant


class MulOnTheRight(nn.Module):
    def forward(self, y, constant):
        return constant * y


class Div(nn.Module):
    def forward(self, y, constant):
        return y / constant


class AddInPlace(nn.Module):
    def forward(self, y, constant):
        y += constant
        return y


STEPS = ((Add, "add"), (AddOnTheRight, "add"), (AddInPlace, "add"), (Sub, "sub"), (SubOnTheRight, "sub"), (Mul, "mul"), (MulOnTheRight, "mul"), (Div, "div"))


@pytest.mark.parametrize("form", ["scripted", "traced", "frozen"])
@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1), (1, 1, 1, 1), (1,), ()], ids=str)
@pytest.mark.parametrize("step, name", STEPS, ids=lambda value: getattr(value, "__name__", value))
def test_a_constant_per_channel_is_taken_in(step, name, shape, form):
    constant = torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 0.5
    assert_fuses(draw(Affine(step(), constant)), INPUTS[:1], form, f"conv+{name}")
