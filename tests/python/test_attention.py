"""torch.nn's attention and encoder layers: the operators that they become in inference are spelled out, fused, and give the same."""
import fusible
import pytest
import torch
from oracle import assert_same
from soundness import randomised
from torch import nn

NATIVE = "aten::_native_multi_head_attention"
LAYER = "aten::_transformer_encoder_layer_fwd"


class SelfAttention(nn.Module):
    def __init__(self, width=16, heads=4, bias=True):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True, bias=bias)

    def forward(self, x):
        y = self.norm(x)
        return x + self.attention(y, y, y, need_weights=False)[0]


class WithWeights(SelfAttention):
    def forward(self, x):
        return self.attention(x, x, x, need_weights=True)


class OfAnother(SelfAttention):
    def forward(self, x):
        return self.attention(x, x + 1, x + 1, need_weights=False)[0]


def layer(**options):
    return nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **options)


def traced(module, *inputs):
    net = randomised(module)
    with torch.no_grad():
        return torch.jit.trace(net, inputs, check_trace=False)


def kinds(module):
    found = set()

    def walk(block):
        for node in block.nodes():
            found.add(node.kind())
            for inner in node.blocks():
                walk(inner)

    walk(module.inlined_graph)
    return found


def raises(module, x):
    try:
        module(x)
    except (RuntimeError, torch.jit.Error):
        return True
    return False


def check(original, *, native, spelled_out=True, width=16):
    fused = fusible.fuse(original)
    assert native in kinds(original)
    assert (native in kinds(fused)) is not spelled_out
    with torch.no_grad():
        for shape in ((2, 5, width), (1, 1, width), (3, 33, width)):
            x = torch.randn(shape)
            for _ in range(3):
                assert_same(fused(x), original(x), tolerance=1e-5)
            x[0, 0, 0] = float("nan")
            assert_same(fused(x), original(x), tolerance=1e-5)
        for shape in ((0, 5, width), (2, 0, width)):
            assert fused(torch.zeros(shape)).shape == original(torch.zeros(shape)).shape
        for shape in ((5, width), (2, 5, width + 1), (2, 3, 5, width)):
            assert raises(fused, torch.randn(shape)) == raises(original, torch.randn(shape))
    return fused


def test_self_attention_is_two_linears_around_the_product_of_heads():
    fused = check(traced(SelfAttention(), torch.randn(2, 5, 16)), native=NATIVE)
    text = "".join(fusible.regions(fused).values())
    assert text.count("fusible::linear") == 2 and text.count("scaled_dot_product_attention") == 1


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}, {"norm_first": True, "activation": "gelu", "layer_norm_eps": 1e-3}])
def test_an_encoder_layer_is_spelled_out(options):
    fused = check(traced(layer(**options), torch.randn(2, 5, 16)), native=LAYER)
    assert "".join(fusible.regions(fused).values()).count("fusible::linear") == 4


class WithoutMasks(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def test_a_scripted_encoder_layer_is_spelled_out_on_its_fast_path():
    check(torch.jit.script(randomised(WithoutMasks(layer()))), native=LAYER)


def test_a_mask_that_may_be_given_is_left_to_torch():
    original = torch.jit.script(randomised(layer()))
    fused = fusible.fuse(original)
    assert LAYER in kinds(fused)
    x, mask = torch.randn(2, 5, 16), torch.ones(5, 5, dtype=torch.bool).triu(1)
    with torch.no_grad():
        assert_same(fused(x), original(x), tolerance=1e-5)
        assert_same(fused(x, mask), original(x, mask), tolerance=1e-5)


def test_a_stack_of_layers():
    with torch.no_grad():
        original = traced(nn.TransformerEncoder(layer(), 3, enable_nested_tensor=False), torch.randn(2, 5, 16))
    fused = check(original, native=LAYER)
    assert len(fusible.regions(fused)) == 1


def test_attention_whose_weights_are_asked_for_is_left_alone():
    original = traced(WithWeights(), torch.randn(2, 5, 16))
    fused = fusible.fuse(original)
    assert NATIVE in kinds(fused)
    with torch.no_grad():
        for found, expected in zip(fused(torch.ones(1, 4, 16)), original(torch.ones(1, 4, 16))):
            assert_same(found, expected)


def test_attention_to_another_sequence_is_left_alone():
    original = traced(OfAnother(), torch.randn(2, 5, 16))
    assert kinds(fusible.fuse(original)) & {NATIVE} == kinds(original) & {NATIVE}


def test_nested_tensors_go_on_from_layer_to_layer():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.TransformerEncoder(layer(), 2)

        def forward(self, x, padding):
            return self.encoder(x, src_key_padding_mask=padding)

    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    original = traced(Masked(), x, padding)
    fused = fusible.fuse(original)
    with torch.no_grad():
        assert_same(fused(x, padding), original(x, padding), tolerance=1e-5)


def test_double_is_left_to_torch():
    net = randomised(SelfAttention()).double()
    with torch.no_grad():
        original = torch.jit.trace(net, torch.randn(2, 5, 16).double(), check_trace=False)
    fused = fusible.fuse(original)
    assert NATIVE in kinds(fused)


class Operator(SelfAttention):
    """The operator itself, with what torch.nn never passes: another sequence, a mask."""

    def __init__(self, other: bool, masked: bool):
        super().__init__()
        self.other, self.masked = other, masked
        self.register_buffer("mask", torch.ones(5, 5, dtype=torch.bool).triu(1))

    def forward(self, x):
        a, y = self.attention, x + 1 if self.other else x
        return torch._native_multi_head_attention(x, y, y, a.embed_dim, a.num_heads, a.in_proj_weight, a.in_proj_bias, a.out_proj.weight, a.out_proj.bias,
                                                  self.mask if self.masked else None, False, True, 0 if self.masked else None)[0]


@pytest.mark.parametrize("other, masked", [(False, False), (True, False), (False, True)])
def test_the_operator_with_another_sequence_or_a_mask(other, masked):
    original = traced(Operator(other, masked), torch.randn(2, 5, 16))
    fused = fusible.fuse(original)
    assert (NATIVE in kinds(fused)) is (other or masked)
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        assert_same(fused(x), original(x), tolerance=1e-5)
