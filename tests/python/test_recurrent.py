"""torch.nn.LSTM and GRU: one operator with packed weights for each, where the weights are constants; else a finding says why."""
import copy
import io
import subprocess
import sys

import fusible
import pytest
import torch
from fusing import assert_counts
from oracle import assert_same, assert_same_bits
from soundness import randomised
from torch import nn

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class Tagger(nn.Module):
    def __init__(self, cell="lstm", **options):
        super().__init__()
        self.rnn = CELLS[cell](8, 20, **options)
        self.head = nn.Linear(20 * (2 if self.rnn.bidirectional else 1), 3)

    def forward(self, x):
        y, state = self.rnn(x)
        return torch.relu(self.head(y)), state


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 20)

    def forward(self, x, h, c):
        return self.rnn(x, (h, c))


def recurrent_kinds(module):
    graph = module.inlined_graph
    return {kind for kind in ("aten::lstm", "aten::gru", "fusible::lstm", "fusible::gru") if graph.findAllNodes(kind)}


def reasons(fused, cell):
    return [(d.code, d.message) for d in fusible.report(fused).diagnostics if d.pattern == cell]


def saved(module):
    file = io.BytesIO()
    torch.jit.save(module, file)
    return file.getvalue()


def loaded(data):
    return torch.jit.load(io.BytesIO(data))


def exported(module, form, x):
    if form == "traced":
        return torch.jit.trace(module, x)
    scripted = torch.jit.script(module)
    if form == "frozen":
        return torch.jit.freeze(scripted)
    return loaded(saved(scripted)) if form == "loaded" else scripted


@pytest.mark.parametrize("form", ["scripted", "traced", "frozen", "loaded"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"bias": False, "num_layers": 2, "dropout": 0.3}], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_every_export_is_fused(cell, options, form):
    original = exported(randomised(Tagger(cell, **options)), form, torch.randn(4, 5, 8))
    fused = fusible.fuse(original, (torch.randn(4, 5, 8),))
    assert recurrent_kinds(fused) == {f"fusible::{cell}"}
    assert_counts(fusible.report(fused), original)
    with torch.no_grad():
        for shape in ((4, 5, 8), (1, 1, 8), (30, 2, 8)) + (() if form == "traced" else ((5, 8),)):
            x = torch.randn(shape)
            for _ in range(3):
                assert_same(fused(x), original(x))
            x.flatten()[3] = float("nan")
            assert_same(fused(x), original(x))


@pytest.mark.parametrize("cell", CELLS)
def test_weights_are_kept_once(cell):
    original = torch.jit.script(randomised(Tagger(cell, num_layers=2)))
    data = saved(fusible.fuse(original))
    assert len(data) < 1.05 * len(saved(original))
    again = loaded(data)
    assert not again.rnn._c.hasattr("_flat_weights") and not list(again.parameters())
    with torch.no_grad():
        x = torch.randn(4, 5, 8)
        assert_same_bits(again(x), fusible.fuse(original)(x))


def test_a_new_process_gives_the_same_bits(tmp_path):
    fused = fusible.fuse(torch.jit.script(randomised(Tagger("gru", bidirectional=True))))
    x = torch.randn(4, 5, 8)
    torch.jit.save(fused, tmp_path / "fused.pt")
    with torch.no_grad():
        torch.save((x, fused(x)), tmp_path / "seen.pt")
    code = ("import sys, torch, fusible; x, (y, h) = torch.load(sys.argv[1]); torch.set_grad_enabled(False); "
            "a, b = torch.jit.load(sys.argv[2])(x); assert torch.equal(a, y) and torch.equal(b, h)")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "seen.pt"), str(tmp_path / "fused.pt")], check=True)


def test_states_come_in_and_go_out():
    original = torch.jit.script(randomised(Stateful()))
    fused = fusible.fuse(original)
    assert recurrent_kinds(fused) == {"fusible::lstm"}
    with torch.no_grad():
        h, c = torch.randn(1, 3, 20), torch.randn(1, 3, 20)
        mine, theirs = (h, c), (h, c)
        for _ in range(4):  # a stream, step by step
            x = torch.randn(1, 3, 8)
            y, mine = fused(x, *mine)
            wanted, theirs = original(x, *theirs)
            assert_same((y, mine), (wanted, theirs))
    for shapes in (((7, 3, 8), (1, 2, 20)), ((0, 3, 8), (1, 3, 20)), ((7, 3, 9), (1, 3, 20)), ((7, 3, 8), (2, 3, 20)), ((7, 8, 1, 1), (1, 3, 20))):
        x, h = torch.randn(shapes[0]), torch.randn(shapes[1])
        with pytest.raises((RuntimeError, torch.jit.Error)) as ours:
            fused(x, h, h)
        with pytest.raises((RuntimeError, torch.jit.Error)) as theirs:
            original(x, h, h)
        assert str(ours.value).splitlines()[-1] == str(theirs.value).splitlines()[-1]


def test_derivatives_are_those_of_torch():
    original = torch.jit.script(randomised(Stateful()))
    fused = fusible.fuse(original)
    inputs = [torch.randn(5, 3, 8, requires_grad=True), torch.randn(1, 3, 20, requires_grad=True), torch.randn(1, 3, 20, requires_grad=True)]
    ours, theirs = ([*torch.autograd.grad(module(*inputs)[0].square().sum(), inputs)] for module in (fused, original))
    assert_same(ours, theirs)


def test_autocast_is_torchs():
    original = torch.jit.script(randomised(Stateful()))
    fused = fusible.fuse(original)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        x, h = torch.randn(5, 3, 8), torch.randn(1, 3, 20)
        assert_same_bits(fused(x, h, h), original(x, h, h))


class Written(Tagger):
    def forward(self, x):
        y = self.rnn(x)[0]
        self.rnn.weight_hh_l0.data.mul_(0.5)
        return y


class WrittenInTheList(Tagger):
    def forward(self, x):
        return self.rnn(x)[0]

    @torch.jit.export
    def shrink(self):
        self.rnn._flat_weights[1].data.mul_(0.5)


class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 20, proj_size=5)

    def forward(self, x):
        return self.rnn(x)[0]


class PaddedSentences(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 20)

    def forward(self, x):
        return self.rnn(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3, 2])))[0].data


class Given(nn.Module):
    def forward(self, x, h, weights: list[torch.Tensor]):
        return torch.gru(x, h, weights, True, 1, 0.0, False, False, False)[0]


@pytest.mark.parametrize(("module", "cell", "code", "found"), [
    (Written("gru"), "gru", "FUS303", "weights that are computed or written at run time"),
    (WrittenInTheList("gru"), "gru", "FUS303", "weights that are computed or written at run time"),
    (Given(), "gru", "FUS303", "weights that are computed or written at run time"),
    (PaddedSentences(), "lstm", "FUS502", "a packed sequence (pack_padded_sequence)"),
    (Projected(), "lstm", "FUS502", "5 weights for each layer and direction: projections (proj_size)"),
    (Tagger("lstm").double(), "lstm", "FUS401", "Double weights"),
], ids=["written", "written in the list", "given", "packed", "projected", "double"])
def test_what_is_left_to_torch_is_told(module, cell, code, found):
    original = torch.jit.script(randomised(module))
    fused = fusible.fuse(original)
    assert recurrent_kinds(fused) == {f"aten::{cell}"}
    assert reasons(fused, cell) == [(code, f"{cell} not fused: {found}")]
    assert reasons(fusible.fuse(torch.jit.script(randomised(Tagger(cell)))), cell) == []


@pytest.mark.parametrize("module", [Written("gru"), WrittenInTheList("lstm")], ids=["by name", "in the list"])
def test_written_weights_are_seen(module):
    original = torch.jit.script(randomised(module))
    fused = fusible.fuse(original)
    with torch.no_grad():
        x = torch.randn(5, 3, 8)
        outputs = []
        for _ in range(3):
            outputs.append(original(x))
            assert_same_bits(fused(x), outputs[-1])
            if hasattr(original, "shrink"):
                original.shrink(), fused.shrink()
        assert not torch.equal(outputs[0], outputs[-1])


def test_a_frozen_list_that_is_written_is_seen():
    class Shrinking(Tagger):
        def forward(self, x):
            y = self.rnn(x)[0]
            self.rnn._flat_weights[1].mul_(0.5)
            return y

    frozen = torch.jit.freeze(torch.jit.script(randomised(Shrinking("gru"))))  # a literal in the graph, which is written
    fused = fusible.fuse(frozen)
    assert recurrent_kinds(fused) == {"aten::gru"}
    assert [code for code, _ in reasons(fused, "gru")] == ["FUS303"]


class Dropping(nn.Module):
    """Draws random numbers also in eval."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 20, 2, dropout=0.5)

    def forward(self, x):
        zeros = torch.zeros(2, x.size(1), 20)
        return torch.lstm(x, [zeros, zeros], self.rnn._flat_weights, True, 2, 0.5, True, False, False)[0]


def test_dropout_that_draws_is_left():
    fused = fusible.fuse(torch.jit.script(randomised(Dropping())))
    assert recurrent_kinds(fused) == {"aten::lstm"}
    assert reasons(fused, "lstm")[0][0] == "FUS502"


def test_options_leave_them_alone():
    original = torch.jit.script(randomised(Tagger()))
    for options in ({"target": "aten"}, {"ignore": ["lstm"]}, {"select": ["linear"]}):
        assert recurrent_kinds(fusible.fuse(original, **options)) == {"aten::lstm"}


def test_weights_shared_by_two_calls_are_packed_once():
    class Twice(Tagger):
        def forward(self, x):
            return self.rnn(x)[0] + self.rnn(x.flip(0))[0]

    original = torch.jit.script(randomised(Twice()))
    fused = fusible.fuse(original)
    assert len(fused.graph.findAllNodes("fusible::lstm")) == 2
    packed = {node.s("name") for node in fused.graph.findAllNodes("prim::GetAttr")}
    assert {name for name in packed if name.startswith("_fusible_recurrent")} == {"_fusible_recurrent_0"}
    with torch.no_grad():
        x = torch.randn(5, 3, 8)
        assert_same(fused(x), original(x))


def test_lists_of_other_tensors_stay():
    class Listed(Tagger):
        def __init__(self):
            super().__init__()
            self.marks: list[torch.Tensor] = [torch.randn(3), torch.randn(2)]

    fused = loaded(saved(fusible.fuse(torch.jit.script(randomised(Listed())))))
    assert [mark.shape for mark in fused.marks] == [(3,), (2,)]


def test_warmup_packs():
    fused = fusible.fuse(torch.jit.script(randomised(Tagger(num_layers=2))))
    fusible.warmup(fused)
    fusible.warmup(fused, (torch.randn(5, 3, 8),))


def test_the_original_is_not_changed():
    original = torch.jit.script(randomised(Tagger()))
    before = copy.deepcopy(original.state_dict())
    graph = str(original.graph)
    fusible.fuse(original)
    assert str(original.graph) == graph and all(torch.equal(before[key], value) for key, value in original.state_dict().items())
