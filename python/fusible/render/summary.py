"""Counts that several formats print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fusible.comparison import KINDS, Change, Comparison
from fusible.render.style import active, named
from fusible.report import Report, Verdict


def fused_patterns(report: Report) -> Counter[str]:
    """Fused operators per pattern. A batch_norm that a contraction absorbed is a candidate of its own, but no operator of its own."""
    return Counter(v.pattern for v in report.fused if not (v.site.op == "aten::batch_norm" and "+" in v.pattern))


def declined_codes(report: Report) -> Counter[str]:
    return Counter(v.code for v in report.verdicts if v.status == "declined")


def severities(reports: Sequence[Report]) -> Counter[str]:
    return Counter(d.severity for r in reports for d in active(r))


def listed(counts: Counter[str], separator: str) -> str:
    return ", ".join(f"{name}{separator}{n}" for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def line(report: Report) -> str:
    """ "model.pt  23 candidates: 17 fused (conv+relu 12) · 5 declined (FUS201 ×3) · 1 suppressed"."""
    counts = report.counts
    fused, declined = listed(fused_patterns(report), " "), listed(declined_codes(report), " ×")
    return (
        f"{report.model or 'model'}  {plural(counts['candidates'], 'candidate')}: {counts['fused']} fused"
        + (f" ({fused})" if fused else "")
        + f" · {counts['declined']} declined"
        + (f" ({declined})" if declined else "")
        + f" · {counts['suppressed']} suppressed"
    )


def plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def totals(reports: Sequence[Report]) -> str:
    """ "1 model, 5 warnings, 2 notes"."""
    found = severities(reports)
    parts = [plural(len(reports), "model")] + [plural(found[s], s) for s in ("error", "warning", "note") if found[s]]
    return ", ".join(parts if len(parts) > 1 else [*parts, "no findings"])


SAYS = {"stopped": "stopped being fused", "accepted": "stopped being fused, and it is accepted", "became": "became fused",
        "reason": "not fused for another reason", "appeared": "only in the new model", "vanished": "only in the old model"}


def state(verdict: Verdict | None) -> str:
    """ "fused conv+relu", "linear not fused (FUS303)"."""
    if verdict is None:
        return "not there"
    name = verdict.pattern or verdict.site.op.rpartition("::")[2]
    return f"fused {name}" if verdict.status == "fused" else f"{name} not fused ({verdict.code})"


def change(item: Change, comparison: Comparison) -> str:
    """ "stem.conv: fused conv+relu -> conv not fused (FUS201)"."""
    report = comparison.new if item.new else comparison.old
    after = state(item.new) + (f" ({item.why.code})" if item.new and item.new.status == "fused" and item.why and item.kind != "became" else "")
    return f"{named(item.verdict.site, report)}: " + (after if not item.old else f"{state(item.old)} -> {after}" if item.new else state(item.old))


def compared(comparison: Comparison) -> str:
    """ "old.pt -> new.pt  17 -> 16 of 23 candidates fused: 1 stopped being fused"."""
    old, new = comparison.old, comparison.new
    before, after = old.counts, new.counts
    of = f"{after['candidates']}" if before["candidates"] == after["candidates"] else f"{before['candidates']} -> {after['candidates']}"
    counts = [f"{comparison.counts[kind]} {SAYS[kind]}" for kind in KINDS if comparison.counts[kind]]
    return f"{old.model or 'old'} -> {new.model or 'new'}  {before['fused']} -> {after['fused']} of {of} candidates fused: " + (
        ", ".join(counts) or "no change")
