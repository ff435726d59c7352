"""Folds against the original: batch_norm, constants of every shape and dtype, inputs on which a fold is not valid, strict and stock targets."""
import fusible
import pytest
import torch
import torch.nn.functional as F
from oracle import assert_same
from soundness import Module, check, image, outcome, randomised
from torch import nn


def test_wrong_order():
    class Net(Module):
        def forward(self, x):
            return self.bn(F.relu(self.conv(x)))

    check(Net(), image(), codes=["FUS101"], fused=["conv+relu"])


def test_training_batch_norm_in_eval_model():
    class Net(Module):
        def forward(self, x):
            return F.batch_norm(self.conv(x), self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias, True)

    check(Net(), image(), codes=["FUS301"], tolerance=1e-4)


def test_no_running_statistics():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(8, track_running_stats=False)

        def forward(self, x):
            return self.bn(self.conv(x))

    report = check(Net(), image(), tolerance=1e-4)
    assert {d.code for d in report.diagnostics} & {"FUS301", "FUS302"}


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (8, 1, 1), (1, 8, 1, 1), (1, 1), (1,), ()])
@pytest.mark.parametrize("op", [torch.add, torch.sub, torch.mul, torch.div])
def test_constant_broadcast_is_counted_from_the_right(op, shape):
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("c", torch.rand(shape) + 0.5)

        def forward(self, x):
            return op(self.conv(x), self.c)

    check(Net(), image())


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bfloat16])
def test_constant_of_another_dtype(dtype):
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("c", (torch.rand(1, 8, 1, 1) * 5 + 1).to(dtype))

        def forward(self, x):
            return self.conv(x) * self.c

    check(Net(), image())


def test_linear_batch_norm_on_sequences_normalises_the_other_axis():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm1d(8)

        def forward(self, x):
            return torch.relu(self.bn(self.fc(x)))

    check(Net(), image(4, 8), fused=["linear+batch_norm+relu"])
    net = randomised(Net())
    for form in (torch.jit.script(net), torch.jit.trace(net, image(4, 8))):
        ours = fusible.fuse(form)
        for inputs in (image(4, 8, 8), image(4, 5, 8), image(8), image(0, 8)):
            expected, _, error = outcome(form, inputs)
            found, _, found_error = outcome(ours, inputs)
            assert (error is None) == (found_error is None), (inputs[0].shape, error, found_error)
            if error is None:
                assert_same(found, expected, 1e-4)


def test_linear_used_twice():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm1d(8)

        def forward(self, x):
            y = self.fc(x)
            return self.bn(y) + y

    check(Net(), image(4, 8), fused=["linear"])


def test_unbatched_and_empty_images():
    class Net(Module):
        def forward(self, x):
            return F.relu(self.conv(x) + 1)

    net = randomised(Net())
    for form in (torch.jit.script(net), torch.jit.trace(net, image())):
        ours = fusible.fuse(form)
        for inputs in (image(3, 8, 8), image(0, 3, 8, 8), image(1, 3, 8, 8), image(3, 3, 5, 7)):
            expected, _, error = outcome(form, inputs)
            found, _, found_error = outcome(ours, inputs)
            if error is not None and found_error is None:  # a traced _convolution refuses what eager accepts; either is right
                expected, _, error = outcome(net, inputs)
            assert (error is None) == (found_error is None)
            if error is None:
                assert_same(found, expected)


def test_unbatched_image_whose_height_equals_the_channels():
    class Net(Module):
        def forward(self, x):
            return F.relu(self.bn(self.conv(x)))

    original = torch.jit.script(randomised(Net()))
    assert_same(fusible.fuse(original)(*image(3, 8, 9)), original(*image(3, 8, 9)), 1e-4)


def test_alpha():
    class Net(Module):
        def forward(self, x):
            a, b = self.conv(x), self.bn(self.conv(x))
            return torch.add(a, b, alpha=2) + a

    check(Net(), image(), codes=["FUS501"])


@pytest.mark.parametrize("factors, code, found", [
    ({"beta": 0.5}, "FUS501", "beta=0.5 and alpha=1"), ({"alpha": -2}, "FUS501", "beta=1 and alpha=-2"), ({"beta": 0, "alpha": 3.5}, "FUS501", "beta=0 and alpha=3.5")])
def test_factors_of_addmm(factors, code, found):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(4))
            self.beta, self.alpha = factors.get("beta", 1), factors.get("alpha", 1)

        def forward(self, x):
            return F.relu(torch.addmm(self.bias, x, self.weight, beta=self.beta, alpha=self.alpha))

    x = torch.randn(3, 6)
    for module in (torch.jit.script(Net().eval()), torch.jit.trace(Net().eval(), (x,))):
        fused = fusible.fuse(module)
        assert [(d.code, d.found) for d in fusible.report(fused).diagnostics if d.kind == "missed"] == [(code, found)]
        assert_same(fused(x), module(x))


def test_batch_of_constant_matrices():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 6, 4))

        def forward(self, x):
            return F.relu(torch.bmm(x, self.weight))

    fused = fusible.fuse(torch.jit.script(Net().eval()))
    assert [(d.code, d.found) for d in fusible.report(fused).diagnostics if d.kind == "missed"] == [("FUS303", "a batch of constant matrices")]


def test_shared_convolution_with_two_batch_norms():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.bn2 = nn.BatchNorm2d(8)

        def forward(self, x):
            return F.relu(self.bn(self.conv(x))), self.bn2(self.conv(x * 2))

    check(Net(), image(), codes=["FUS305"], fused=["conv+batch_norm+relu", "conv+batch_norm"])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last])
def test_strides(memory_format, weights):
    class Net(Module):
        def forward(self, x):
            return F.relu(self.bn(self.conv(x)))

    check(Net().to(memory_format=weights), (image()[0].contiguous(memory_format=memory_format),))
    check(Net().to(memory_format=weights), (image(2, 3, 8, 16)[0][..., ::2],))
    check(Net().to(memory_format=weights), (image(1, 3, 8, 8)[0].expand(4, 3, 8, 8),))


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("groups, into, out", [(2, 1, 4), (2, 1, 1), (3, 2, 1), (2, 2, 2)])
def test_strides_behind_1x1_groups_on_one_thread(one_thread, groups, into, out):
    """There ATen runs group by group. One pixel of one channel is in both layouts, and padding shows which was taken."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(4, groups * into, 3)
            self.conv = nn.Conv2d(groups * into, groups * out, 1, padding=(1, 0), groups=groups)

        def forward(self, x):
            return self.conv(self.first(x))

    for batch in (1, 3, 16):
        x = image(batch, 4, 3, 3)[0].contiguous(memory_format=torch.channels_last)
        check(Net(), (x,), forms=("script",))
        conv, y = torch.jit.script(Net().conv.eval()), Net().first(x).detach()
        assert_same(fusible.fuse(conv)(y), conv(y))
        with torch.no_grad():
            assert torch.empty_like(conv(y), device="meta").stride() == fusible.fuse(conv)(y.to("meta")).stride()


def test_strict_folds_nothing():
    class Net(Module):
        def forward(self, x):
            return F.relu(self.bn(self.conv(x)))

    ours = fusible.fuse(torch.jit.script(randomised(Net())), strict=True)
    assert "FUS701" in {d.code for d in fusible.report(ours).diagnostics}


def test_target_aten_needs_nothing_of_ours():
    class Net(Module):
        def forward(self, x):
            return F.relu(self.bn(self.conv(x)) * 2)

    original = torch.jit.script(randomised(Net()))
    ours = fusible.fuse(original, target="aten")
    kinds = {node.kind() for node in ours.graph.nodes()}
    assert not any(kind.startswith("fusible") for kind in kinds) and "aten::batch_norm" not in kinds
    assert_same(ours(*image()), original(*image()))


def test_target_aten_normalizes_the_height_of_an_unbatched_image():
    """batch_norm takes dimension 1 for the channels; a scripted BatchNorm2d lets an unbatched convolution through, since torch folds its rank."""
    class Net(Module):
        def forward(self, x):
            return F.relu(self.bn(self.conv(x)) * 2)

    original = torch.jit.script(randomised(Net()))
    channels = original.conv.weight.size(0)
    for zero in (False, True):
        if zero:
            original.bn.weight.data[3] = 0
        ours = fusible.fuse(original, target="aten")
        results = 0
        for height in range(4, channels + 4):
            x = image(3, height, 8)[0]
            try:
                wanted = original(x)
            except RuntimeError as error:
                with pytest.raises(type(error)):
                    ours(x)
                continue
            results += 1
            assert_same(ours(x), wanted)
        assert results == 1


def _norm(y):
    return f"torch.batch_norm({y}, self.g, self.h, self.m, self.v, False, 0.1, 0.5, False)"


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        zero = torch.randn(6, 1, 1).index_fill(0, torch.tensor([2]), 0)
        for name, tensor in {"w": torch.randn(6, 4, 3, 3), "b": torch.randn(6), "t": torch.randn(4, 3, 3, 3), "one": torch.randn(6, 6, 1, 1),
                             "g": torch.randn(6), "h": torch.randn(6), "s": torch.randn(6, 1, 1), "z": zero}.items():
            self.register_parameter(name, nn.Parameter(tensor))
        self.register_buffer("m", torch.randn(6))
        self.register_buffer("v", torch.rand(6) + 0.3)

    def forward(self, x):
        return x


UNBATCHED = [
    _norm("torch.conv2d(x, self.w, self.b)"), _norm("torch.conv2d(x, self.w)") + " * self.s + 3", _norm("torch.conv2d(x, self.w, self.b)") + " * self.z",
    _norm("torch.conv2d(x, self.w, self.b)") + ".add_(self.s)", _norm("torch.conv2d(torch.conv2d(x, self.w, self.b), self.one)"),
    _norm(f"torch.conv2d({_norm('torch.conv2d(x, self.w)')}, self.one)"),
    _norm("torch.conv_transpose2d(x, self.t, None, [1, 1], [0, 0], [0, 0], 2)"),
    _norm("torch._convolution(x, self.w, self.b, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, False, False, False)"),
]


@pytest.mark.parametrize("number", range(len(UNBATCHED)))
def test_target_aten_computes_or_raises_what_the_original_does_for_every_rank(number):
    """A height of 8, for the transposed convolution of 4, gives as many lines as channels."""
    module, name = torch.jit.script(Functional()), f"apply{number}"  # scripted modules of one class share their methods
    module.define(f"def {name}(self, x):\n    return {UNBATCHED[number]}\n")
    fused = fusible.fuse(module.eval(), target="aten", methods=[name])
    assert any("batch_norm" in verdict.pattern for verdict in fusible.report(fused).fused)
    original, ours = getattr(module, name), getattr(fused, name)
    batch = torch.randn(2, 4, 10, 9)
    for x in (batch, batch.contiguous(memory_format=torch.channels_last), batch[0], torch.randn(4, 4, 9), torch.randn(4, 8, 9), torch.randn(3, 4)):
        for _ in range(3):
            try:
                wanted = original(x)
            except RuntimeError as error:
                with pytest.raises(type(error)):
                    ours(x)
            else:
                assert_same(ours(x), wanted)


def test_matmul_and_addmm_become_linear():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(8, 5))
            self.b = nn.Parameter(torch.randn(5))

        def forward(self, x):
            return torch.relu(x @ self.w + self.b), torch.addmm(self.b, x, self.w)

    check(Net(), image(4, 8), fused=["linear+add+relu", "linear"])


def test_addmm_refuses_what_it_refused():
    class Net(Module):
        def forward(self, x):
            return torch.addmm(self.fc.bias, x, self.fc.weight.t())

    original = torch.jit.script(randomised(Net()))
    ours = fusible.fuse(original)
    assert fusible.report(ours).counts["fused"] == 1
    with pytest.raises(RuntimeError):
        ours(torch.randn(2, 4, 8))
