"""Compares what two modules return: values, dtypes, shapes, observable strides, NaN. The original ScriptModule is the oracle."""
import torch


def tensors(value):
    """The tensors of a nested output, in a fixed order; other leaves are left out."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors(item)]
    return []


def structure(value):
    """The nesting of an output with its tensors left out."""
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, dict):
        return {key: structure(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [structure(item) for item in value]
    return value


def observable_strides(tensor):
    """Strides of the dimensions larger than 1: the others cannot be told from outside."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride()) if size > 1]


def relative_error(found, expected):
    """max |found - expected| / max |expected| over the finite values."""
    finite = expected.isfinite()
    if not finite.any():
        return 0.0
    found, expected = found[finite].double(), expected[finite].double()
    scale = expected.abs().max().item()
    difference = (found - expected).abs().max().item()
    return difference / scale if scale else difference


def assert_same(found, expected, tolerance=1e-5):
    """`found` and `expected` are outputs of the fused and of the original module."""
    assert structure(found) == structure(expected)
    for ours, theirs in zip(tensors(found), tensors(expected), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert observable_strides(ours) == observable_strides(theirs)
        if theirs.is_complex():
            ours, theirs = torch.view_as_real(ours.resolve_conj()), torch.view_as_real(theirs.resolve_conj())
        if not theirs.is_floating_point():
            assert torch.equal(ours, theirs)
            continue
        assert torch.equal(ours.isnan(), theirs.isnan()), "NaN in other places"
        assert torch.equal(ours.isinf(), theirs.isinf()), "infinities in other places"
        error = relative_error(ours, theirs)
        assert error <= tolerance, f"error {error:.2e} of max|y|, needed {tolerance:.0e}"


def assert_same_bits(found, expected):
    assert structure(found) == structure(expected)
    for ours, theirs in zip(tensors(found), tensors(expected), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert torch.equal(ours.contiguous().view(torch.uint8), theirs.contiguous().view(torch.uint8))
