"""Spelling decides coverage: however a layer is written and handed over, the same fused operator must come out, and compute the same."""
import pytest
from torch import nn

from fusing import assert_fuses
from spellings import ACTIVATIONS, CONTRACTIONS, FORMS, draw, sample


def entry(activation):
    """The vocabulary's name of a key of ACTIVATIONS: "clamp from below" is a clamp."""
    return activation.split()[0]


def layers(contraction, norm, activation=None):
    """(module, inputs, pattern) of contraction, batch_norm if `norm`, and an activation module."""
    name, create, batch_norm, shape = CONTRACTIONS[contraction]
    parts = [create()] + ([batch_norm(8)] if norm else []) + ([activation] if activation else [])
    return draw(nn.Sequential(*parts)), (sample(shape),), name + ("+batch_norm" if norm else "")


@pytest.mark.parametrize("norm", [False, True], ids=["bare", "batch_norm"])
@pytest.mark.parametrize("activation, spelling", [(name, spelling) for name, spellings in ACTIVATIONS.items() for spelling in spellings])
def test_every_spelling_of_an_activation_behind_conv2d(activation, spelling, norm):
    module, inputs, pattern = layers("conv2d", norm, ACTIVATIONS[activation][spelling]())
    for form in ("scripted", "traced"):
        assert_fuses(module, inputs, form, f"{pattern}+{entry(activation)}")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_every_activation_behind_every_contraction(contraction, activation):
    spelling = list(ACTIVATIONS[activation].values())[-1]
    for norm, form in ((False, "traced"), (True, "scripted")):
        module, inputs, pattern = layers(contraction, norm, spelling())
        assert_fuses(module, inputs, form, f"{pattern}+{entry(activation)}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_every_contraction_in_every_form(contraction, form):
    for norm in (False, True):
        for activation, suffix in ((None, ""), (nn.ReLU(inplace=True), "+relu"), (nn.Hardswish(), "+hardswish")):
            module, inputs, pattern = layers(contraction, norm, activation)
            assert_fuses(module, inputs, form, pattern + suffix)


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_without_affine_parameters(form):
    module = draw(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU()))
    assert_fuses(module, (sample((2, 4, 6, 5)),), form, "conv+batch_norm+relu")


@pytest.mark.parametrize("form", FORMS)
def test_two_batch_norms_and_dropouts_between(form):
    parts = nn.Conv2d(4, 8, 3), nn.Dropout2d(0.3), nn.BatchNorm2d(8), nn.Identity(), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.SiLU()
    assert_fuses(draw(nn.Sequential(*parts)), (sample((2, 4, 6, 5)),), form, "conv+batch_norm+batch_norm+silu")
