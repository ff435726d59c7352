"""Runs of operators as one `fusible::region`: what stands in it, what stays outside, and the same answers, aliases, writes and errors."""
import copy
import io
import threading

import fusible
import pytest
import torch
import torch.nn.functional as F
from oracle import assert_same, assert_same_bits
from soundness import image, outcome, randomised
from spellings import functional
from torch import nn


class Net(nn.Module):
    """Three convolutions to put between whatever a test writes."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.b = nn.Conv2d(16, 16, 3, padding=1)
        self.c = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)


def fused_pair(module, form="scripted"):
    net = randomised(module)
    original = torch.jit.script(net) if form == "scripted" else torch.jit.trace(net, image())
    return original, fusible.fuse(original)


def regions(fused):
    """The operators of each region of `fused`."""
    return [[line.split(" = ")[1].split()[0] for line in text.splitlines()] for text in fusible.regions(fused).values()]


def check(module, inputs, *, form="scripted", count=1):
    """`count` regions, and the original's results, writes and errors on three calls."""
    original, fused = fused_pair(module, form)
    assert len(regions(fused)) == count
    for _ in range(3):
        found, expected = outcome(fused, inputs), outcome(original, inputs)
        assert_same(found[:2], expected[:2])
        assert found[2] is expected[2] is None
    return original, fused


@pytest.mark.parametrize("again", [True, False], ids=["fused again", "held"])
def test_the_regions_of_a_submodule_go_by_their_path(again):
    inner = fusible.fuse(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()).eval()))
    text, = fusible.regions(inner).values()
    outer = torch.jit.script(nn.Sequential(nn.Sequential(inner), nn.Conv2d(4, 4, 1), nn.ReLU()).eval())
    assert fusible.regions(fusible.fuse(outer) if again else outer) == {"0.0._fusible_region_0": text}


def test_a_straight_run_is_one_operator():
    class Straight(Net):
        def forward(self, x):
            y = F.max_pool2d(F.relu(self.bn(self.a(x))), 2)
            return self.head(F.adaptive_avg_pool2d(F.silu(self.c(self.b(y))), 1).flatten(1))

    _, fused = check(Straight(), (torch.randn(2, 3, 12, 14),))
    assert regions(fused)[0].count("fusible::conv") == 3
    assert fused.graph.findNode("aten::max_pool2d") is None


def test_an_escaping_view_still_shows_what_it_shows():
    class Escapes(Net):
        def forward(self, x):
            y = self.b(F.relu(self.a(x)))
            rows = y.permute(0, 2, 3, 1)
            z = self.c(rows.permute(0, 3, 1, 2))
            rows.add_(1)
            return y, rows, z

    original, fused = check(Escapes(), (torch.randn(2, 3, 8, 8),))
    y, rows, _ = fused(torch.randn(2, 3, 8, 8))
    assert y.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()


def test_a_view_of_the_input_stays_a_view():
    class Views(Net):
        def forward(self, x):
            part = x[:, :3]
            y = self.c(self.b(self.a(part)))
            part.mul_(2)
            return y, part

    check(Views(), (torch.randn(2, 6, 8, 8),))


def test_a_write_between_ends_the_region():
    class Writes(Net):
        def forward(self, x):
            y = self.b(self.a(x))
            x.mul_(0.5)
            return self.c(self.b(self.a(x))) + y.mean()

    check(Writes(), (torch.randn(2, 3, 8, 8),), count=2)


def test_an_attribute_assigned_before_a_region_is_assigned_when_the_region_raises():
    class Assigns(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(1))

        def forward(self, x):
            y = torch.tanh(x)
            self.last = y
            return self.c(self.b(self.a(y)))

    original, fused = fused_pair(Assigns())
    wrong = torch.randn(2, 5, 8, 8)
    assert outcome(fused, (wrong,))[2] is outcome(original, (wrong,))[2] is not None
    assert_same(fused.last, original.last)
    assert fused.last.shape == wrong.shape


def test_an_activation_in_place_is_a_member_only_when_nobody_looked_before():
    class Before(Net):
        def forward(self, x):
            y = F.max_pool2d(self.b(self.a(x)), 2)
            z = y * 2
            torch.relu_(y)
            return self.c(self.b(y)), z, y

    class After(Net):
        def forward(self, x):
            y = F.max_pool2d(self.b(self.a(x)), 2)
            torch.relu_(y)
            return self.c(self.b(y)), y * 2

    check(Before(), (torch.randn(2, 3, 8, 8),), count=2)
    _, fused = check(After(), (torch.randn(2, 3, 8, 8),))
    assert "aten::relu_" in regions(fused)[0]


def test_the_input_written_in_place_is_the_callers():
    class Writes(Net):
        def forward(self, x):
            torch.relu_(x)
            return self.b(self.a(x))

    check(Writes(), (torch.randn(2, 3, 8, 8),))


def test_branches_and_loops_hold_regions_of_their_own():
    class Branches(Net):
        def forward(self, x, n: int):
            y = self.b(self.a(x))
            if bool(y.sum() > 0):
                y = self.b(self.b(y))
            for _ in range(n):
                y = F.relu(self.b(torch.tanh(self.b(y))))
            return self.c(self.b(y))

    net = randomised(Branches())
    original = torch.jit.script(net)
    fused = fusible.fuse(original)
    for n in (0, 3):
        for sign in (1, -1):
            x = sign * torch.randn(1, 3, 8, 8)
            assert_same(fused(x, n), original(x, n))


def test_size_queries_stand_behind_the_region():
    class Sizes(Net):
        def forward(self, x):
            y = self.b(self.a(x))
            n = y.size(2) * y.size(3)
            z = self.c(self.b(y))
            return z.reshape(z.size(0), -1, n)

    check(Sizes(), (torch.randn(2, 3, 8, 6),))


@pytest.mark.parametrize("form", ["scripted", "traced"])
def test_layouts_shapes_and_dtypes_that_no_plan_takes(form):
    class Straight(Net):
        def forward(self, x):
            y = F.relu(self.bn(self.a(x)))
            return self.c(self.b(y) + y), y

    original, fused = fused_pair(Straight(), form)
    x = torch.randn(2, 3, 9, 7)
    spread = x.clone()
    spread[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    for given in (x, x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3), x[:0], x[:, :, ::2], x[:1].expand(3, 3, 9, 7), spread,
                  *(torch.randn(1 + i % 2, 3, 5 + i, 6) for i in range(12))):
        for _ in range(2):
            assert_same(fused(given), original(given))
    for wrong in (torch.randn(2, 4, 8, 8), x.double(), x.long(), torch.randn(3)):
        assert (outcome(fused, (wrong,))[2] is None) == (outcome(original, (wrong,))[2] is None)
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    fused(leaf)[0].square().sum().backward()
    original(other)[0].square().sum().backward()
    assert_same(leaf.grad, other.grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fused(x)[0].dtype == original(x)[0].dtype


def test_saved_loaded_copied_and_shared_between_threads_the_bits_are_the_same():
    class Straight(Net):
        def forward(self, x):
            return self.head(self.c(F.relu(self.b(F.relu(self.bn(self.a(x)))))).mean((2, 3)))

    _, fused = fused_pair(Straight())
    buffer = io.BytesIO()
    torch.jit.save(fused, buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    images = [torch.randn(1 + i % 3, 3, 10 + i, 11) for i in range(10)]
    with torch.no_grad():
        expected = [fused(x) for x in images]
        for other in (loaded, copy.deepcopy(fused), fused):
            for x, y in zip(images, expected):
                assert_same_bits(other(x), y)
        wrong = []

        def serve():
            with torch.no_grad():
                wrong.extend(i for i, x in enumerate(images) if not torch.equal(fused(x), expected[i]))

        threads = [threading.Thread(target=serve) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert not wrong


def test_a_weight_is_kept_once_on_disk():
    class Straight(Net):
        def forward(self, x):
            return self.c(self.b(self.b(self.a(x))))

    original, fused = fused_pair(Straight())
    sizes = []
    for module in (original, fused):
        buffer = io.BytesIO()
        torch.jit.save(module, buffer)
        sizes.append(buffer.getbuffer().nbytes)
    assert not [name for name, _ in fused.named_parameters() if name.startswith(("a.", "b.", "c."))]
    assert sizes[1] < sizes[0] + 24000
    held = [node.s("name") for node in fused.graph.findAllNodes("prim::GetAttr")]
    assert held == ["_fusible_region_0"]


def test_buffers_that_a_method_writes_are_read_at_each_call():
    class Counts(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(16, 1, 1))

        def forward(self, x):
            self.scale += 1
            y = self.b(self.a(x))
            return self.c(self.b(y * self.scale))

    net = randomised(Counts())
    original, other = torch.jit.script(net), torch.jit.script(net)
    fused = fusible.fuse(other)
    for _ in range(3):
        x = torch.randn(1, 3, 8, 8)
        assert_same(fused(x), original(x), tolerance=3e-5)


class Tabled(Net):
    """Adds what `made` makes of a parameter."""

    def __init__(self, made):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 2, 8, 12, 14))
        self.made = made

    def forward(self, x):
        return self.c(self.b(self.a(x) + self.made(self.table)))


@pytest.mark.parametrize("form", ["scripted", "traced"])
@pytest.mark.parametrize("text", [
    "y.view(1, 16, 12, 14)", "y.reshape(1, 16, 12, 14)", "y.view(16, 12, 14).unsqueeze(0)", "y.transpose(1, 2).reshape(1, 16, 12, 14)",
    "y.transpose(1, 2).contiguous().view(1, 16, 12, 14)", "y.view(1, 2, 8, 12, 14).transpose(1, 2).contiguous().view(1, 16, 12, 14)",
    "y.view(1, 14, 12, 16).transpose(1, 3).contiguous()", "F.relu(y).view(1, 16, 12, 14)", "torch.cat([y, y], 1).view(2, 16, 12, 14)",
    "torch.chunk(y.view(1, 16, 12, 14), 2)[0]", "F.max_pool2d(y.view(1, 16, 12, 14), 3, 1, 1)", "F.layer_norm(y.view(1, 16, 12, 14), [14])",
    "F.softmax(y.view(1, 16, 12, 14), 1)", "(y + y).view(1, 16, 12, 14)", "F.adaptive_avg_pool2d(y.view(1, 16, 12, 14), 1)"])
def test_operators_on_constants_stand_in_regions(text, form):
    net = randomised(Tabled(functional(text)))
    x = torch.randn(2, 3, 12, 14)
    original = torch.jit.script(net) if form == "scripted" else torch.jit.trace(net, x)
    fused = fusible.fuse(original)
    assert regions(fused)
    with torch.no_grad():
        for _ in range(3):
            assert_same(fused(x), original(x))


@pytest.mark.parametrize("first", [nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))], ids=["linear", "relu", "norm"])
def test_contractions_of_constants_stand_in_regions(first):
    class Queries(nn.Module):
        """Learned queries through layers of their own, as decoders of DETR have them; the result is a classifier's."""

        def __init__(self):
            super().__init__()
            self.queries = nn.Parameter(torch.randn(5, 8))
            self.first, self.second, self.head = first, nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(torch.relu(self.second(x) + self.first(self.queries)))

    original, fused = fused_pair(Queries())
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(5, 8)
            assert_same(fused(x), original(x))
