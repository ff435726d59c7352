"""State that is shared, held or written in other ways than one tensor per attribute, and what stands in a `with`: as in the original, whose own
state neither fuse nor lint changes."""
from typing import Dict, Tuple

import fusible
import pytest
import torch
import torch.nn.functional as F
from oracle import assert_same
from soundness import randomised
from torch import nn


def scripted(module):
    torch.manual_seed(3)
    return torch.jit.script(randomised(module()))


def assert_same_calls(module, *inputs, calls=3, between=None, **options):
    """Both are run side by side; the one that was fused is left as it was."""
    original, source = scripted(module), scripted(module)
    fused = fusible.fuse(source, **options)
    with torch.no_grad():
        for _ in range(calls):
            expected = original(*inputs)
            assert_same(fused(*inputs), expected)
            if between:
                getattr(original, between)(), getattr(fused, between)()
        assert_same(source(*inputs), scripted(module)(*inputs))
    return fused


class Reader(nn.Module):
    def __init__(self, t):
        super().__init__()
        self.register_buffer("t", t)

    def forward(self, x):
        return x + self.t


class SharedBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("t", torch.zeros(4))
        self.reader, self.lin = Reader(self.t), nn.Linear(4, 4)

    def forward(self, x):
        y = F.relu(self.lin(x))
        self.t.add_(1)
        return self.reader(y)


class Cache(nn.Module):
    """k is a view of kv."""

    def __init__(self):
        super().__init__()
        kv = torch.zeros(2, 4, 4)
        self.register_buffer("kv", kv)
        self.register_buffer("k", kv[1])
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        self.kv[1, 2] = F.relu(self.lin(x)).sum(0)
        return self.k * 2


class TiedWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("alias", self.lin.weight.detach()[1:])

    def forward(self, x):
        return F.relu(self.lin(x))

    @torch.jit.export
    def update(self):
        self.alias.mul_(2)


class HeldByAList(TiedWeight):
    def __init__(self):
        super().__init__()
        self.held = [self.lin.weight.detach()]

    @torch.jit.export
    def update(self):
        parts = self.held
        parts[0].mul_(2)


@torch.jit.script
class Holder:
    def __init__(self, t: torch.Tensor):
        self.t = t
        self.n = 0

    def bump(self) -> int:
        self.t.mul_(2)
        self.n += 1
        return self.n


class HeldByAnObject(TiedWeight):
    def __init__(self):
        super().__init__()
        self.holder = Holder(self.lin.weight.detach())

    @torch.jit.export
    def update(self):
        self.holder.bump()


class Incremental(nn.Module):
    """State as fairseq keeps it."""

    state: Dict[str, torch.Tensor]

    def __init__(self):
        super().__init__()
        self.lin, self.state = nn.Linear(4, 4), {}

    def forward(self, x):
        k = F.relu(self.lin(x))
        if "k" in self.state:
            k = torch.cat([self.state["k"], k])
        self.state["k"] = k
        return k.sum(0)


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.seen, self.holder = nn.Linear(4, 4), [0], Holder(torch.ones(4))

    def forward(self, x):
        self.seen.append(1)
        return F.relu(self.lin(x)) * self.holder.t, len(self.seen), self.holder.bump()


class WritesAParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.scale = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        with torch.no_grad():
            self.scale.weight.mul_(0.5)
        return F.relu(self.lin(x)) + self.scale(x)


STATEFUL = [SharedBuffer, Cache, Incremental, Counted, WritesAParameter]
X = torch.linspace(-1, 2, 8).view(2, 4)


@pytest.mark.parametrize("module", STATEFUL)
@pytest.mark.parametrize("options", [{}, {"example_inputs": (X,)}, {"example_inputs": (X,), "tune": True}], ids=["", "verified", "tuned"])
def test_state_goes_on_as_in_the_original(module, options):
    fused = assert_same_calls(module, X, **options)
    assert options.get("tune") or fusible.report(fused).counts["fused"] == 1
    assert not any(tensor.requires_grad for tensor in fused.state_dict(keep_vars=True).values())


@pytest.mark.parametrize("module", [TiedWeight, HeldByAList, HeldByAnObject])
def test_a_weight_that_is_written_under_another_name_is_not_taken(module):
    fused = assert_same_calls(module, X, between="update")
    assert [d.code for d in fusible.report(fused).diagnostics] == ["FUS304", "FUS003"]


def test_lint_writes_no_number_of_the_module_or_of_the_caller():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.register_buffer("scale", torch.tensor(1.0))

        def forward(self, x, step):
            self.scale.mul_(0.5)
            step.add_(1)
            return F.relu(self.bn(F.max_pool2d(self.conv(x), 2))) * self.scale + step

    module = scripted(Net)
    step = torch.tensor(0.0)
    inputs = (torch.randn(1, 3, 8, 8), step)
    assert fusible.lint(module, inputs).diagnostics
    fused = fusible.fuse(module, inputs, verify=False)
    assert float(step) == 0 and float(module.scale) == float(fused.scale) == 1


def test_hooks_of_the_module_itself_run():
    def before(self, given: Tuple[torch.Tensor]) -> Tuple[torch.Tensor]:
        return (given[0] / 255.0,)

    def shifted(self, given: Tuple[torch.Tensor], result: torch.Tensor) -> torch.Tensor:
        return result + self.shift

    def doubled(self, given: Tuple[torch.Tensor], result: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.last(result)) * 2

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
            self.register_buffer("shift", torch.randn(4))
            self.register_forward_pre_hook(before)
            self.register_forward_hook(shifted)
            self.register_forward_hook(doubled)

        def forward(self, x):
            return F.relu(self.lin(x))

    for options in ({}, {"example_inputs": (X,)}, {"target": "aten"}):
        fused = assert_same_calls(Net, X * 255, **options)
    loaded = torch.jit.freeze(scripted(Net))
    assert not torch.equal(loaded(X * 255), fused(X * 255))  # as freeze does it


class OutsideOfNoGrad(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        with torch.no_grad():
            y = self.lin(x)
        return F.relu(y + x)


class InsideOfNoGrad(OutsideOfNoGrad):
    def forward(self, x):
        with torch.no_grad():
            y = F.relu(self.lin(x))
        return y * x


class LayoutOfNoGrad(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = x.view(2, 3, 5, 5)
        with torch.no_grad():
            t = F.relu(self.bn(self.conv(x)))
        return F.relu(self.bn(self.conv(x))) - t


@pytest.mark.parametrize("module, x, fused", [(OutsideOfNoGrad, X, {"linear"}), (InsideOfNoGrad, X, {"linear+relu"}),
                                              (LayoutOfNoGrad, torch.randn(2, 75), {"conv+batch_norm+relu", "conv+batch_norm+relu+sub"})])
def test_what_stands_in_no_grad_stays_there(module, x, fused):
    original = scripted(module)
    ours = fusible.fuse(original)
    assert {f.pattern for f in fusible.report(ours).fused} == fused
    for _ in range(3):
        gradients = []
        for m in (original, ours):
            leaf = x.clone().requires_grad_()
            gradients.append(torch.autograd.grad(m(leaf).sum(), leaf)[0])
        torch.testing.assert_close(gradients[1], gradients[0])


def test_autocast_in_the_model_casts():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.lin = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 4)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = F.relu(self.bn(self.conv(x)))
            return F.relu(self.lin(y.float().mean(3).mean(2))), y

    fused = assert_same_calls(Net, torch.randn(1, 3, 8, 8))
    report = fusible.report(fused)
    assert [f.pattern for f in report.fused] == ["linear+relu"] and "FUS401" in [d.code for d in report.diagnostics]


def test_complex_results_are_compared_as_numbers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 6)

        def forward(self, x):
            return torch.view_as_complex(F.relu(self.lin(x)).view(-1, 3, 2)) * 1j

    fused = assert_same_calls(Net, X, example_inputs=(X,))
    assert fusible.report(fused).counts["fused"] == 1


def test_warmup_leaves_inputs_and_finds_what_submodules_hold():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x):
            return F.relu(self.lin(x.mul_(0.5)))

    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x) + 1

    fused = fusible.fuse(scripted(Halves))
    x = X.clone()
    fusible.warmup(fused, (x,))
    assert torch.equal(x, X)
    outer = torch.jit.script(Outer(fused).eval())
    held = fusible.weight_bytes(fused)
    assert sum(held.values()) >= 64 and fusible.weight_bytes(outer) == held


def test_inputs_on_which_the_original_raises_verify_nothing():
    fused = fusible.fuse(scripted(TiedWeight), (torch.ones(2, 3),))
    (told,) = [d for d in fusible.report(fused).diagnostics if d.code == "FUS004"]
    assert "the original raises on these inputs: " in told.found and "shapes cannot be multiplied" in told.found


def test_a_fused_module_is_copied_and_keeps_its_target():
    source = scripted(SharedBuffer)
    fused = fusible.fuse(source)
    again = fusible.fuse(fused, strict=True)
    assert [d.code for d in fusible.report(again).diagnostics].count("FUS006") == 1
    again(X)
    assert_same(fused(X), scripted(SharedBuffer)(X))
    with pytest.raises(fusible.FusibleError, match='target="aten": the original module was needed'):
        fusible.fuse(fused, target="aten")
    stock = fusible.fuse(scripted(LayoutOfNoGrad), target="aten")
    assert_same(fusible.fuse(stock, target="aten")(torch.ones(2, 75)), stock(torch.ones(2, 75)))
