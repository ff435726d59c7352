"""Fuses an exported module and holds the outcome against the original: operators, verdicts, values."""
import copy
from collections import Counter

import fusible
import torch

from candidates import count_candidates, nodes, raw_graph
from oracle import assert_same
from spellings import export


def run(module, inputs):
    """The output on copies of `inputs`, and the copies, which the module may have written to."""
    inputs = copy.deepcopy(inputs)
    with torch.no_grad():
        return module(*inputs), inputs


def spread(inputs):
    """`inputs` with NaN and large numbers of both signs in the first tensor."""
    first = inputs[0].clone()
    first.flatten()[:3] = torch.tensor([float("nan"), 40.0, -40.0])
    return (first, *inputs[1:])


def patterns(report):
    """How often each pattern was fused, counted by its contraction; absorbed batch_norms are candidates with a verdict of their own."""
    return Counter(verdict.pattern for verdict in report.fused if verdict.site.op != "aten::batch_norm")


def aten_left(fused):
    """ATen operators outside a fused operator that compute tensors; checks of ranks and sizes may stay."""
    return {
        node.kind() for node in nodes(raw_graph(fused, "forward"))
        if node.kind().startswith("aten::") and any(isinstance(output.type(), torch.TensorType) for output in node.outputs())
    }


def assert_counts(report, original):
    """Law 2: every candidate of the raw graph has exactly one verdict."""
    counts = report.counts
    assert counts["candidates"] == sum(count_candidates(original, report.methods).values())
    assert counts["fused"] + counts["declined"] + counts["suppressed"] == counts["candidates"]


def assert_equal_runs(fused, original, inputs):
    """Same outputs and same writes to the inputs: twice on `inputs`, as the executor optimises at the second call, then on NaN."""
    for arguments in (inputs, inputs, spread(inputs)):
        found, found_inputs = run(fused, arguments)
        expected, expected_inputs = run(original, arguments)
        assert_same(found, expected)
        assert_same(found_inputs, expected_inputs)


def assert_fuses(module, inputs, form, *expected, left=("aten::pad",)):
    """The eager module, exported in `form`, becomes the fused operators `expected` (patterns), and nothing but `left` stays in ATen."""
    original = export(module, inputs, form)
    fused = fusible.fuse(original)
    report = fusible.report(fused)
    assert patterns(report) == Counter(expected), [diagnostic.message for diagnostic in report.diagnostics]
    assert_counts(report, original)
    assert aten_left(fused) <= set(left)
    assert_equal_runs(fused, original, inputs)
    return fused
