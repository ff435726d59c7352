"""The test bed itself: a model on which a wrong rewrite would not show, or on which rounding looks like one, tests nothing."""
import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from candidates import nodes, raw_graph
from oracle import relative_error, tensors
from zoo import archives
from zoo.models import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_as_the_table_says_shows_wrong_rewrites_and_keeps_rounding_small(name):
    model = MODELS[name]
    module = archives.built(name)
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            scale = layer.weight / (layer.running_var + layer.eps).sqrt()
            shift = layer.bias - layer.running_mean * scale
            assert scale.std() > 1e-3 and shift.std() > 1e-2
    inputs = model.inputs()
    with torch.no_grad():
        single = tensors(module(*inputs))
        double = tensors(copy.deepcopy(module).double()(*(tensor.double() for tensor in inputs)))
        other = tensors(module(*model.inputs(seed=1)))
    for one, two, three in zip(single, double, other, strict=True):
        assert relative_error(one, two) < 5e-6
        assert relative_error(three, two) > 1e-2, "another image must give another output"
    traced = torch.jit.load(archives.archive(name, "traced"))
    convolutions = sum(node.kind() == "aten::_convolution" for node in nodes(raw_graph(traced, "forward")))
    assert convolutions == model.convolutions
