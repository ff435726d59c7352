"""What fuse_modules says, or does silently wrong, and the text that fusible gives instead: the rows of docs/from-fuse-modules.md."""
from __future__ import annotations

import re
import warnings
from pathlib import Path

import fusible
import pytest
import torch
from fusible.render import Style, render
from torch import nn
from torch.ao.quantization import fuse_modules

PAGE = (Path(__file__).parents[2] / "docs" / "from-fuse-modules.md").read_text()
INPUT = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(5))


class Smooth(nn.Module):
    def forward(self, x):
        return torch.cumsum(x, 1)


class Half(nn.Module):
    def forward(self, x):
        return x * 0.5


class PaddedConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()


class ViewBetween(Base):
    def forward(self, x):
        return self.relu(self.bn(self.conv(x)).transpose(2, 3))


class SameShapeView(Base):
    def forward(self, x):
        y = self.conv(x)
        return self.relu(self.bn(y.view(y.shape)))


class OtherReader(Base):
    def forward(self, x):
        y = self.conv(x)
        return self.relu(self.bn(y)) * torch.exp(y)


class TwoNorms(Base):
    def __init__(self):
        super().__init__()
        self.other = nn.BatchNorm2d(8)

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + self.other(y)


class SharedRelu(Base):
    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.relu(self.second(self.relu(self.conv(x))))


class Rows(nn.Module):
    """Linear, BatchNorm1d: of [N, L, F] it normalizes L, which the fold of fuse_modules takes for F."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Linear(9, 9), nn.BatchNorm1d(9)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


def sequence(*modules):
    return nn.Sequential(*modules)


def conv():
    return nn.Conv2d(3, 8, 3)


def prepared(module):
    torch.manual_seed(7)
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            if norm.running_mean is not None:
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
    return module.eval()


def linted(module):
    return fusible.lint(torch.jit.script(module))


def text_of(report):
    return re.sub(r"\s+", " ", render("full", [report], Style(show_fused=True)))


def said_by_fuse_modules(module, names):
    with pytest.raises(Exception) as raised, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fuse_modules(module, names)
    return str(raised.value)


ERRORS = [
    (lambda: sequence(conv(), Smooth(), nn.ReLU()), "did not find fuser method for", ["FUS102", "aten::cumsum stands between them"]),
    (lambda: sequence(conv(), nn.ReLU(), nn.BatchNorm2d(8)), "did not find fuser method for",
     ["FUS101", "relu stands between the contraction and batch_norm", "fused conv -> relu", "swap them when you train"]),
    (lambda: sequence(conv(), nn.BatchNorm2d(8, track_running_stats=False)), "running_mean and bn.running_var must not be None",
     ["FUS302", "batch_norm has none: it normalizes with those of each batch"]),
    (lambda: sequence(conv(), nn.BatchNorm2d(4)), "must match the size of tensor b (4)", ["FUS402", "output channels (8)", "batch_norm has 4"]),
]


@pytest.mark.parametrize("build, says, needed", ERRORS, ids=["module between", "order", "no statistics", "channels"])
def test_an_error_of_fuse_modules_has_a_text_that_tells_the_cause(build, says, needed):
    module = prepared(build())
    assert says in said_by_fuse_modules(module, [str(i) for i in range(len(module))])
    text = text_of(linted(module))
    assert [part for part in needed if part not in text] == [], text
    assert says.split(" for")[0] in PAGE or says in PAGE


# For the life of the process: torch.jit keeps the ids of operators that are gone, and takes what comes to lie there for one.
LIBRARY = torch.library.Library("from_fuse_modules", "DEF")
LIBRARY.define("smooth(Tensor x) -> Tensor")


def test_an_operator_of_another_library_in_between_is_named_with_its_line():
    class Custom(Base):
        def forward(self, x):
            return self.relu(torch.ops.from_fuse_modules.smooth(self.conv(x)))

    text = text_of(linted(Custom().eval()))
    assert "FUS105" in text and "from_fuse_modules::smooth stands between the contraction and aten::relu" in text
    assert "test_from_fuse_modules.py:" in text and "torch.ops.from_fuse_modules.smooth(self.conv(x))" in text


def test_a_product_with_a_constant_in_between_is_folded():
    module = prepared(sequence(conv(), Half(), nn.ReLU()))
    assert "did not find fuser method for" in said_by_fuse_modules(module, ["0", "1", "2"])
    assert "conv+mul+relu" in text_of(linted(module))


@pytest.mark.parametrize("model", [ViewBetween, SameShapeView])
def test_a_view_in_between_is_named(model):
    text = text_of(linted(prepared(model())))
    assert "FUS204" in text and "stands between them" in text and ("aten::transpose" in text or "aten::view" in text)


def test_a_folded_batch_norm_is_told_as_part_of_what_was_fused():
    module = prepared(sequence(conv(), nn.BatchNorm2d(8), nn.ReLU()))
    assert type(fuse_modules(module, ["0", "1", "2"])[0]).__name__ == "ConvReLU2d"
    report = linted(module)
    assert report.counts["declined"] == 0 and "fused conv+batch_norm+relu -> fusible::conv" in text_of(report)


def test_a_batch_norm_that_was_left_alone_says_why():
    assert "aten::max_pool2d before it" in text_of(linted(prepared(sequence(nn.MaxPool2d(2), nn.BatchNorm2d(3)))))
    report = linted(prepared(OtherReader()))
    assert "2 uses of the result of aten::conv2d" in text_of(report) and "second use: aten::exp" in text_of(report)
    report = linted(prepared(TwoNorms()))
    assert {v.code for v in report.verdicts if v.site.op == "aten::batch_norm"} == {"FUS201"}


def test_training_mode_is_named_with_the_call_that_mends_it():
    module = prepared(sequence(conv(), nn.BatchNorm2d(8), nn.ReLU()))
    module[1].train()
    assert "same mode" in said_by_fuse_modules(module, ["0", "1", "2"])
    text = text_of(linted(module))
    assert "FUS301" in text and "batch_norm runs in training mode" in text and "call eval() on the whole model" in text and "checked: it then fuses" in text


def test_a_scripted_module_is_what_fusible_takes():
    module = prepared(sequence(conv(), nn.BatchNorm2d(8), nn.ReLU()))
    scripted = torch.jit.script(module)
    assert "RecursiveScriptModule" in said_by_fuse_modules(scripted, ["0", "1", "2"])
    assert fusible.report(fusible.fuse(scripted)).counts["declined"] == 0
    with pytest.raises(fusible.FusibleError, match="torch.jit.script"):
        fusible.fuse(module)


def test_a_string_instead_of_a_list_gets_a_sentence():
    module = prepared(sequence(conv(), nn.BatchNorm2d(8)))
    assert "has no attribute" in said_by_fuse_modules(module, "conv")
    with pytest.raises(fusible.FusibleError, match="select: a list of strings was needed"):
        fusible.fuse(torch.jit.script(module), select="conv+batch_norm")


def test_modules_are_not_named_so_no_name_can_be_wrong():
    module = prepared(sequence(conv(), nn.BatchNorm2d(8), nn.ReLU()))
    assert "has no attribute 'conv2d'" in said_by_fuse_modules(module, ["conv2d", "1"])
    assert fusible.report(fusible.fuse(torch.jit.script(module))).counts["declined"] == 0


def test_fused_twice_is_fused():
    module = prepared(sequence(conv(), nn.BatchNorm2d(8), nn.ReLU()))
    assert "did not find fuser method for" in said_by_fuse_modules(fuse_modules(module, ["0", "1", "2"]), ["0", "1", "2"])
    once = fusible.fuse(torch.jit.script(module))
    torch.testing.assert_close(fusible.fuse(once)(INPUT), once(INPUT), rtol=0, atol=0)
    assert "FUS006" in text_of(fusible.lint(once)) and "conv+batch_norm+relu" in text_of(fusible.lint(once))


def test_a_weight_that_is_computed_is_named_with_what_computes_it():
    module = prepared(sequence(nn.utils.parametrizations.weight_norm(conv()), nn.BatchNorm2d(8), nn.ReLU()))
    assert "ParametrizedConv2d" in said_by_fuse_modules(module, ["0", "1", "2"])
    text = text_of(fusible.lint(torch.jit.trace(module, INPUT)))
    assert "FUS303" in text and "its weight is computed by aten::_weight_norm at run time" in text and "remove_parametrizations" in text
    assert "aten::_convolution before it, which is not fused itself" in text
    nn.utils.parametrize.remove_parametrizations(module[0], "weight")
    assert "conv+batch_norm+relu" in text_of(linted(module))


def test_a_subclass_is_fused_by_its_operators():
    module = prepared(sequence(PaddedConv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
    assert "PaddedConv" in said_by_fuse_modules(module, ["0", "1", "2"])
    traced = torch.jit.trace(module, INPUT)
    assert "conv+batch_norm+relu" in text_of(fusible.lint(traced))


# What fuse_modules fuses without a word, with another result.
@pytest.mark.parametrize("model, names", [
    (OtherReader, ["conv", "bn", "relu"]), (ViewBetween, ["conv", "bn", "relu"]), (TwoNorms, ["conv", "bn"]), (SharedRelu, ["conv", "relu"]), (Rows, ["conv", "bn"]),
], ids=lambda value: getattr(value, "__name__", ""))
def test_what_fuse_modules_gets_wrong_silently_is_right(model, names):
    module = prepared(model())
    x = torch.randn(2, 9, 9) if model is Rows else INPUT
    with torch.no_grad():
        expected = module(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = fuse_modules(module, names)(x)
        ours = fusible.fuse(torch.jit.script(module))(x)
    torch.testing.assert_close(ours, expected)
    if model is not ViewBetween:  # relu commutes with a transpose
        assert not torch.allclose(theirs, expected, atol=1e-3)
