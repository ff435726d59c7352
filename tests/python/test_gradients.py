"""A fused module gives its inputs the right gradient, in float64 by gradcheck: behind every anchor and every post-op. Parameters are constants."""
import fusible
import pytest
import torch
from torch import nn
from torch.nn import functional as F

ANCHORS = {
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1, groups=1), (2, 3, 5)),
    "conv2d": (lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2), (2, 4, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (1, 2, 3, 3, 3)),
    "conv_same": (lambda: nn.Conv2d(2, 3, 2, padding="same"), (1, 2, 4, 3)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(3, 4, 3, stride=2), (2, 3, 4)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(4, 4, 2, groups=2), (1, 4, 3, 3)),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (1, 2, 2, 2, 2)),
    "linear": (lambda: nn.Linear(4, 5), (3, 4)),
    "linear_rows": (lambda: nn.Linear(4, 5, bias=False), (2, 3, 4)),
}
POST_OPS = {
    "relu": F.relu, "relu6": F.relu6, "hardtanh": lambda y: F.hardtanh(y, -0.4, 0.3), "clamp": lambda y: torch.clamp(y, max=0.2),
    "leaky_relu": lambda y: F.leaky_relu(y, 0.2), "sigmoid": torch.sigmoid, "tanh": torch.tanh, "silu": F.silu, "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid, "gelu": F.gelu, "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"), "elu": F.elu, "mish": F.mish,
    "softplus": F.softplus, "mul": lambda y: y * 1.7, "sub": lambda y: 0.3 - y, "div": lambda y: y / 1.3,
}


class Chain(nn.Module):
    """anchor, batch_norm where it has statistics of its own, a post-op, and the sum with a second input."""

    def __init__(self, anchor, post_op, norm=None, residual=False):
        super().__init__()
        self.anchor, self.norm, self.post_op, self.residual = anchor, norm, post_op, residual

    def forward(self, x, other):
        y = self.anchor(x)
        if self.norm is not None:
            y = self.norm(y)
        y = self.post_op(y)
        return torch.relu(y + other) if self.residual else y


def norm_for(channels, rank):
    norm = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[rank](channels)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def check(module, x, other, pattern):
    """gradcheck, the gradients of the original, and a second call, for which the executor has made another plan."""
    original = torch.jit.trace(module.double().eval(), (x, other))
    fused = fusible.fuse(original)
    assert [verdict.pattern for verdict in fusible.report(fused).fused][0].startswith(pattern)
    assert any(finding.name == "parameters-are-constants" for finding in fusible.report(fused).diagnostics)
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    wanted = (x.requires_grad_(), other.requires_grad_())
    for _ in range(3):
        found = torch.autograd.grad(fused(x, other).square().sum(), wanted, allow_unused=True)
        expected = torch.autograd.grad(original(x, other).square().sum(), wanted, allow_unused=True)
        for ours, theirs in zip(found, expected):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(lambda *inputs: fused(*inputs), wanted, fast_mode=True)


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_every_anchor(anchor, residual):
    torch.manual_seed(len(anchor))
    make, shape = ANCHORS[anchor]
    layer, x = make(), torch.randn(shape, dtype=torch.double)
    y = layer.double()(x)
    norm = None if anchor == "linear_rows" else norm_for(y.shape[1], y.dim())
    check(Chain(layer, F.silu, norm, residual), x, torch.randn_like(y.detach()), anchor.split("_")[0].rstrip("123d"))


@pytest.mark.parametrize("post_op", POST_OPS)
@pytest.mark.parametrize("anchor", ["conv2d", "linear"])
def test_every_post_op(anchor, post_op):
    torch.manual_seed(len(post_op))
    make, shape = ANCHORS[anchor]
    layer, x = make(), torch.randn(shape, dtype=torch.double)
    check(Chain(layer, POST_OPS[post_op], residual=True), x, torch.randn_like(layer.double()(x).detach()), anchor.rstrip("2d"))


def test_prelu():
    torch.manual_seed(5)
    layer, x = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 5, 5, dtype=torch.double)
    activation = nn.PReLU(4)
    nn.init.uniform_(activation.weight, 0.1, 0.6)
    check(Chain(layer, activation), x, torch.zeros(1, dtype=torch.double), "conv+prelu")


@pytest.mark.parametrize("anchor", ["conv2d", "linear"])
def test_derivatives_of_forward_mode(anchor):
    make, shape = ANCHORS[anchor]
    module = torch.jit.trace(nn.Sequential(make(), nn.Tanh()).eval(), torch.zeros(shape))
    fused = fusible.fuse(module)
    x, tangent = torch.randn(shape), torch.randn(shape)
    with torch.no_grad():
        found, wanted = (torch.func.jvp(call, (x,), (tangent,)) for call in (fused, module))
    torch.testing.assert_close(found, wanted)


class Learning(nn.Module):
    """A method writes the weight of one layer."""

    def __init__(self):
        super().__init__()
        self.frozen, self.learned = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.relu(self.learned(torch.relu(self.frozen(x))))

    @torch.jit.export
    def step(self, amount: float):
        with torch.no_grad():
            self.learned.weight.sub_(amount)


def test_a_weight_that_a_treated_method_writes_is_declined():
    module, x = torch.jit.script(Learning().eval()), torch.randn(2, 4)
    fused = fusible.fuse(module)
    report = fusible.report(fused)
    assert report.counts["fused"] == 1 and report.counts["declined"] == 1
    assert any(finding.name == "weight-written" for finding in report.diagnostics), report
    with torch.no_grad():
        for amount in (0.0, 0.25):
            module.step(amount)
            fused.step(amount)
            torch.testing.assert_close(fused(x), module(x))
