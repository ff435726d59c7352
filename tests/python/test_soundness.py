"""Dataflow against the original: uses, outputs, writes, views, in-place operators, exceptions. Each with the code that explains it."""
import fusible
import torch
import torch.nn.functional as F
from soundness import Module, check, image, outcome, randomised
from torch import nn


def test_second_use():
    class Net(Module):
        def forward(self, x):
            y = self.bn(self.conv(x))
            return F.relu(y) + y

    check(Net(), image(), codes=["FUS201"], fused=["conv+batch_norm"])


def test_graph_output():
    class Net(Module):
        def forward(self, x):
            y = self.conv(x)
            return F.relu(y), y

    check(Net(), image(), codes=["FUS202"], fused=["conv"])


def test_in_place_second_use_sees_the_write():
    class Net(Module):
        def forward(self, x):
            y = self.conv(x)
            z = y * 2
            return F.relu_(y) + z + y

    check(Net(), image())


def test_wrong_inputs_raise_the_same():
    class Net(Module):
        def forward(self, x):
            return F.relu(self.bn(self.conv(x)))

    net = randomised(Net())
    original = torch.jit.script(net)
    ours = fusible.fuse(original)
    for x in (torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8), torch.randn(2, 3, 8, 8).double(), torch.randn(2, 3, 8, 8).long(), torch.randn(3, 9, 9)):
        _, _, error = outcome(original, (x,))
        _, _, found = outcome(ours, (x,))
        assert error is not None
        assert found is not None and issubclass(found, (error, ValueError, RuntimeError))


def test_residual_forms():
    class Net(Module):
        def __init__(self, form):
            super().__init__()
            self.form = form
            self.other = nn.Conv2d(3, 8, 1)

        def forward(self, x):
            y, r = self.bn(self.conv(x)), self.other(x)
            if self.form == 0:
                y = y + r
            elif self.form == 1:
                y = r + y
            elif self.form == 2:
                y += r
            elif self.form == 3:
                y = torch.add(r, y)
            else:
                r = r + y
                y = r
            return F.relu(y)

    for form in range(5):
        report = check(Net(form), image())
        assert len(report.fused) == 3


def test_in_place_on_the_input_reaches_the_caller():
    class Net(Module):
        def forward(self, x, y):
            y.add_(self.conv(x))
            return F.relu(y)

    check(Net(), image() + image(2, 8, 8, 8), codes=["FUS205"])


def test_write_between_is_not_crossed():
    class Net(Module):
        def forward(self, x):
            y = self.conv(x)
            x.mul_(0)
            return F.relu(y)

    check(Net(), image(), codes=["FUS203"], fused=["conv"])


def test_write_to_the_operand_between():
    class Net(Module):
        def forward(self, x, r):
            y = self.conv(x) + r
            r.zero_()
            return F.relu(y)

    check(Net(), image() + image(2, 8, 8, 8), codes=["FUS203"])


def test_view_between():
    class Net(Module):
        def forward(self, x):
            return F.relu(self.conv(x).flatten(1))

    check(Net(), image(), codes=["FUS204"], fused=["conv"])


def test_nan_and_infinity_pass():
    class Net(Module):
        def forward(self, x):
            return F.relu6(self.bn(self.conv(x)))

    x = image()[0]
    x[0, 0, 0, 0], x[1, 1, 4, 4] = float("nan"), float("inf")
    check(Net(), (x,))
