"""Compares a fused module with its original ScriptModule (law 1): what it returns, what it writes, what it raises, three times."""
import copy

import fusible
import torch
from oracle import assert_same
from torch import nn


def randomised(module, shape=None):
    torch.manual_seed(7)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            if layer.running_mean is not None:
                layer.running_mean.normal_(0, 0.5)
                layer.running_var.uniform_(0.5, 2)
            if layer.weight is not None:
                layer.weight.data.uniform_(0.5, 1.5)
                layer.bias.data.normal_(0, 0.5)
    return module.eval()


def outcome(module, inputs):
    inputs = tuple(value.clone() if isinstance(value, torch.Tensor) and value._base is None else value for value in inputs)
    try:
        with torch.no_grad():
            return module(*inputs), inputs, None
    except Exception as error:  # noqa: BLE001: the type is what is compared
        return None, inputs, type(error)


def check(module, inputs, codes=(), absent=(), forms=("script", "trace"), tolerance=1e-5, fused=None):
    module = randomised(module)
    for form in forms:
        original = torch.jit.script(module) if form == "script" else torch.jit.trace(module, inputs, check_trace=False)
        ours = fusible.fuse(original)
        report = fusible.report(ours)
        for call in range(3):
            expected, expected_inputs, expected_error = outcome(original, inputs)
            found, found_inputs, found_error = outcome(ours, inputs)
            assert (found_error is None) == (expected_error is None), (form, call, found_error, expected_error)
            if expected_error is None:
                assert_same(found, expected, tolerance)
            assert_same(found_inputs, expected_inputs, 0)
        present = {d.code for d in report.diagnostics}
        assert set(codes) <= present, (form, present)
        assert not set(absent) & present, (form, present)
        if fused is not None:
            assert sorted(v.pattern for v in report.fused if "batch_norm" != v.site.op.removeprefix("aten::")) == sorted(fused), form
    return report


def image(*shape):
    torch.manual_seed(3)
    return (torch.randn(*shape or (2, 3, 8, 8)),)


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 8)
