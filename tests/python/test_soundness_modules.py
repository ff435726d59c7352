"""Modules against the original: attributes, methods, state, branches, loops, forks, what is written and shared."""
import copy

import fusible
import torch
import torch.nn.functional as F
from oracle import assert_same
from soundness import Module, check, image, randomised
from torch import nn


def test_branches_stay_branches():
    class Net(Module):
        def forward(self, x):
            y = self.conv(x)
            if x.sum() > 0:
                y = F.relu(y)
            else:
                y = self.bn(y)
            return y

    check(Net(), image(), codes=["FUS103"], forms=("script",))


def test_branch_not_taken_is_not_run():
    class Net(Module):
        def forward(self, x):
            if x.dim() == 4:
                return F.relu(self.conv(x))
            return x * 2

    net = randomised(Net())
    original = torch.jit.script(net)
    ours = fusible.fuse(original)
    assert_same(ours(torch.ones(2, 2)), original(torch.ones(2, 2)))
    assert_same(ours(*image()), original(*image()))


def test_loops():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.same = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x, n: int):
            for _ in range(n):
                x = F.relu(self.same(x))
            return x

    net = randomised(Net())
    original = torch.jit.script(net)
    ours = fusible.fuse(original)
    for n in (0, 1, 3):
        assert_same(ours(*image(), n), original(*image(), n))
    assert fusible.report(ours).counts["fused"] == 1


def test_weights_that_are_written_stay():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.randn(8, 3, 3, 3))

        def forward(self, x):
            y = F.relu(F.conv2d(x, self.weight))
            self.weight.mul_(0.5)
            return y

    check(Net(), image(), codes=["FUS304"])


def test_weights_that_are_assigned_stay():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.randn(8, 3, 3, 3))

        def forward(self, x):
            y = F.relu(F.conv2d(x, self.weight))
            self.weight = self.weight * 0.5
            return y

    check(Net(), image(), codes=["FUS304"], forms=("script",))


def test_a_method_writes_what_another_reads():
    class Net(Module):
        @torch.jit.export
        def decay(self):
            self.conv.weight.mul_(0.5)

        def forward(self, x):
            return F.relu(self.conv(x))

    original = torch.jit.script(randomised(Net()))
    ours = fusible.fuse(original)
    for module in (original, ours):
        with torch.no_grad():
            module.decay()
    # The original shares the weight with the fused copy only as long as nothing writes it.
    assert_same(ours(*image()), original(*image()))


def test_running_one_module_does_not_advance_the_other():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count += 1
            return F.relu(self.conv(x)) * self.count

    original = torch.jit.script(randomised(Net()))
    ours = fusible.fuse(original)
    for _ in range(3):
        assert_same(ours(*image()), original(*image()))


def test_statistics_of_a_training_batch_norm_are_not_shared():
    class Net(Module):
        def forward(self, x):
            return F.batch_norm(self.conv(x), self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias, True)

    original = torch.jit.script(randomised(Net()))
    ours = fusible.fuse(original)
    before = original.bn.running_mean.clone()
    ours(*image())
    assert torch.equal(original.bn.running_mean, before) and not torch.equal(ours.bn.running_mean, before)


def test_attributes_methods_and_state_survive():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.labels = ["cat", "dog"]
            self.scale = 3

        @torch.jit.export
        def names(self):
            return self.labels

        @torch.jit.export
        def encode(self, x):
            return F.relu(self.bn(self.conv(x)))

        def forward(self, x):
            return self.encode(x) * self.scale

    original = torch.jit.script(randomised(Net()))
    ours = fusible.fuse(original)
    assert ours.names() == ["cat", "dog"] and ours.labels == ["cat", "dog"] and ours.scale == 3
    assert_same(ours.encode(*image()), original.encode(*image()))
    assert not ours.training
    clone = copy.deepcopy(ours)
    assert_same(clone(*image()), original(*image()))
    assert set(ours.state_dict()) <= set(original.state_dict())
    assert "conv.weight" in original.state_dict()


def test_fusing_twice_changes_nothing():
    class Net(Module):
        def forward(self, x):
            return F.relu(self.bn(self.conv(x)))

    once = fusible.fuse(torch.jit.script(randomised(Net())))
    twice = fusible.fuse(once)
    assert torch.equal(once(*image()), twice(*image()))
    told = fusible.report(twice)
    assert [d.code for d in told.diagnostics] == [*(d.code for d in fusible.report(once).diagnostics), "FUS006"]
    assert [(v.site, v.pattern) for v in told.verdicts] == [(v.site, v.pattern) for v in fusible.report(once).verdicts]


def test_fork_and_wait():
    class Net(Module):
        def forward(self, x):
            future = torch.jit.fork(self.conv, x)
            return F.relu(self.bn(torch.jit.wait(future)))

    check(Net(), image(), forms=("script",))


def test_a_future_in_a_list():
    class Net(Module):
        def forward(self, x):
            futures = [torch.jit.fork(self.conv, x), torch.jit.fork(self.conv, x * 2)]
            return F.relu(torch.jit.wait(futures[1]) - torch.jit.wait(futures[0]))

    check(Net(), image(), forms=("script",))


@torch.jit.interface
class Counts(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pass


class Counter(nn.Module):
    """Writes to one buffer and assigns another; in a submodule, too."""

    def __init__(self, inner=None):
        super().__init__()
        self.register_buffer("written", torch.ones(1))
        self.register_buffer("assigned", torch.ones(1))
        self.inner = inner if inner is not None else nn.Identity()

    def forward(self, x):
        self.written.add_(1)
        self.assigned = self.assigned * 2
        return self.inner(x) * self.written + self.assigned


def test_submodules_behind_an_interface_have_a_state_of_their_own():
    class Net(Module):
        counts: Counts

        def __init__(self):
            super().__init__()
            self.counts = Counter(Counter())

        def forward(self, x):
            return self.counts.forward(F.relu(self.conv(x)))

    net = randomised(Net())
    original, expected = torch.jit.script(net), torch.jit.script(copy.deepcopy(net))
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    ours = fusible.fuse(original)
    for _ in range(3):
        assert_same(ours(*image()), expected(*image()))
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_submodule_that_is_known_by_its_class_and_by_an_interface():
    class Net(Module):
        counts: Counts

        def __init__(self):
            super().__init__()
            self.inner = Counter()
            self.counter = Counter(self.inner)
            self.counts = self.counter

        def forward(self, x):
            return self.counts.forward(F.relu(self.conv(x))) * self.inner.assigned

    net = randomised(Net())
    original, expected = torch.jit.script(net), torch.jit.script(copy.deepcopy(net))
    ours = fusible.fuse(original)
    for _ in range(3):
        assert_same(ours(*image()), expected(*image()))


def test_dropout_and_identity_vanish():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(self.conv, nn.Dropout(), nn.Identity(), self.bn, nn.Dropout2d(), nn.ReLU())

        def forward(self, x):
            return self.layers(x)

    check(Net(), image(), fused=["conv+batch_norm+relu"])
