"""Counts the candidates of a module without fusible: what every verdict count is held against.

A candidate is a convolution, linear, matmul, addmm, bmm or batch_norm node in any block of the raw inlined graph of a treated method.
"""
from collections import Counter

_PREFIXES = ("aten::conv", "aten::_convolution")
_KINDS = {"aten::linear", "aten::matmul", "aten::addmm", "aten::bmm", "aten::batch_norm"}


def is_candidate(kind):
    return kind in _KINDS or kind.startswith(_PREFIXES)


def nodes(block):
    """Every node of a graph or block, sub-blocks included."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes(inner)


def raw_graph(module, method):
    return module._c._get_method(method).inlined_graph


def count_candidates(module, methods):
    """{kind: number} over `methods` (names) of a ScriptModule that no pass has touched."""
    counts = Counter()
    for method in methods:
        counts.update(node.kind() for node in nodes(raw_graph(module, method)) if is_candidate(node.kind()))
    return counts
