"""A summary for pull requests and $GITHUB_STEP_SUMMARY."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.comparison import Comparison
from fusible.render import summary
from fusible.render.benefit import short
from fusible.render.style import Style, active, annotated, named
from fusible.report import Report, Unusable


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def render(reports: Sequence[Report], style: Style, unusable: Sequence[Unusable]) -> str:
    lines = ["| model | candidates | fused | declined | suppressed | share |", "|---|---:|---:|---:|---:|---:|"]
    for r in reports:
        c = r.counts
        lines.append(
            f"| {_cell(r.model or 'model')} | {c['candidates']} | {c['fused']} | {c['declined']} | {c['suppressed']} "
            f"| {r.fused_share:.1%} |"
        )
    lines += [f"| {_cell(m.model)} | not linted: {_cell(m.message)} | | | | |" for m in unusable]
    if any(active(r) for r in reports):
        lines += ["", "| | finding | module | place | sites | would save per call |", "|---|---|---|---|---:|---|"]
    for report in reports:
        for d in active(report):
            path, place = annotated(d, report, style)
            where = f"{path}:{place.line}" if place else path
            name = named(d.sites[0], report) if d.sites else ""
            saved = short(d) or ("unknown" if d.kind == "missed" else "")
            lines.append(f"| {d.severity} | **{d.code}** {_cell(d.message)} | {_cell(name)} | {_cell(where)} | {len(d.sites) or ''} | {saved} |")
    return "\n".join([*lines, "", summary.totals(reports)]) + "\n"


def render_comparison(comparison: Comparison, style: Style) -> str:
    lines = [_cell(summary.compared(comparison))]
    if comparison.changes:
        lines += ["", "| | module | before | after | why |", "|---|---|---|---|---|"]
    for change in comparison.changes:
        name = named(change.verdict.site, comparison.new if change.new else comparison.old)
        why = f"**{change.why.code}** {_cell(change.why.message)}" if change.why else ""
        lines.append(f"| {change.kind} | {_cell(name)} | {_cell(summary.state(change.old))} | {_cell(summary.state(change.new))} | {why} |")
    return "\n".join(lines) + "\n"
