"""A small graph per module as SVG text: the chains of operators that start in it, in layers, coloured by what became of them."""

from __future__ import annotations

from collections import defaultdict
from html import escape

import networkx as nx

from fusible.report import Report, Site, Verdict

WIDTH, HEIGHT, GAP_X, GAP_Y = 118, 26, 34, 12
MOST_CHAINS = 60


def module_of(site: Site) -> str:
    """The module that a person would open: the parent of the leaf that holds the operator."""
    return site.module_path.rpartition(".")[0]


def _chains(verdicts: list[Verdict], findings: dict[int, list[tuple[str, Site]]]) -> list[list[tuple[str, str, str]]]:
    """Per chain its nodes as (label, status, module path); what blocked it stands last."""

    def key(site: Site) -> tuple[str, str, int]:
        return site.module_path, site.op, site.location.line

    candidate_of = {key(v.site): v.candidate for v in verdicts}
    absorbed = {key(s) for v in verdicts for s in v.absorbed}
    chains = []
    for v in verdicts:
        if v.status == "fused" and not v.absorbed and key(v.site) in absorbed:
            continue  # drawn in the chain of the contraction that absorbed it
        sites = (v.site, *v.absorbed)
        candidates = {v.candidate, *(candidate_of[key(s)] for s in v.absorbed if key(s) in candidate_of)}
        chain = [(s.op, v.status, s.module_path) for s in sites]
        chain += [(site.op, "blocker", label) for c in sorted(candidates) for label, site in findings.get(c, [])]
        chains.append(chain)
    return chains


def _draw(chains: list[list[tuple[str, str, str]]]) -> str:
    graph = nx.DiGraph()
    for row, chain in enumerate(chains):
        nodes = [(row, step) for step in range(len(chain))]
        graph.add_nodes_from(nodes)
        nx.add_path(graph, nodes)
    parts, columns = [], 0
    for layer, nodes in enumerate(nx.topological_generations(graph)):
        columns = layer + 1
        for row, step in sorted(nodes):
            label, status, title = chains[row][step]
            x, y = layer * (WIDTH + GAP_X) + 4, row * (HEIGHT + GAP_Y) + 4
            if step:
                parts.append(f'<path class="e" d="M{x - GAP_X} {y + HEIGHT // 2}h{GAP_X}"/>')
            parts.append(
                f'<g class="{status}"><title>{escape(title)}</title><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
                f'<text x="{x + WIDTH // 2}" y="{y + 17}">{escape(label.removeprefix("aten::"))}</text></g>'
            )
    width, height = columns * (WIDTH + GAP_X), len(chains) * (HEIGHT + GAP_Y) + 4
    return f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'


def graphs(report: Report) -> dict[str, str]:
    """Module path -> SVG. A module with more than 60 chains shows the first 60."""
    per_module: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in report.verdicts:
        per_module[module_of(verdict.site)].append(verdict)
    findings: dict[int, list[tuple[str, Site]]] = defaultdict(list)
    for d in report.diagnostics:
        for candidate in d.candidates:
            findings[candidate] += [(f"{d.code}: {r.label}", r.site) for r in d.related[:1]]
    return {module: _draw(_chains(verdicts, findings)[:MOST_CHAINS]) for module, verdicts in per_module.items()}
