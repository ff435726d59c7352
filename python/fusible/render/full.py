"""The text for a terminal, in the manner of rustc: what, where with the source underlined, needed and found, what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from fusible.comparison import BECAME, STOPPED, Comparison, compare
from fusible.render import benefit, summary
from fusible.render.style import SEVERITY_COLOUR, Style, active, named, printable
from fusible.report import Diagnostic, Location, Report

GAP = 2  # source lines between two marks that are printed rather than skipped


@dataclass(frozen=True)
class Mark:
    place: Location
    label: str
    primary: bool


def _marks(diagnostic: Diagnostic) -> list[Mark]:
    marks = [Mark(diagnostic.location, "this value" if diagnostic.related else "", True)] if diagnostic.location.known else []
    marks += [
        Mark(r.site.location, r.label, False)
        for r in diagnostic.related
        if r.site.location.known and r.site.location.file == diagnostic.location.file
    ]
    return sorted(marks, key=lambda m: (m.place.line, m.place.column))


def _lines(marks: list[Mark], style: Style) -> dict[int, str]:
    """Source lines by number: the archive's own, and from disk those between them where the file is still the same."""
    lines = {m.place.line + i: text for m in marks for i, text in enumerate(m.place.excerpt.splitlines()[:1])}
    path = style.resolve(marks[0].place.file)
    if path is not None:
        disk = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if all(n <= len(disk) and disk[n - 1].rstrip() == text.rstrip() for n, text in lines.items()):
            for a, b in zip(sorted(lines), sorted(lines)[1:]):
                if b - a - 1 <= GAP:
                    lines.update({n: disk[n - 1] for n in range(a + 1, b)})
    return lines


def _underline(mark: Mark, text: str, style: Style, colour: str) -> str:
    start = max(mark.place.column - 1, 0) if mark.place.column else len(text) - len(text.lstrip())
    end = mark.place.end_column - 1 if mark.place.end_column > start + 1 else len(text.rstrip())
    sign = "^" if mark.primary else "~"
    return " " * start + style.paint((sign * max(end - start, 1) + " " + mark.label).rstrip(), colour if mark.primary else "blue")


def _source(marks: list[Mark], style: Style, colour: str) -> list[str]:
    lines = _lines(marks, style)
    if not lines:
        return []
    width = len(str(max(lines)))
    bar = style.paint(" " * width + " |", "blue")
    out = [bar]
    previous = None
    for number, text in sorted(lines.items()):
        if previous is not None and number > previous + 1:
            out.append(style.paint("..." + " " * max(width - 2, 0), "blue"))
        out.append(f"{style.paint(f'{number:>{width}} |', 'blue')} {text.rstrip()}".rstrip())
        out += [f"{bar} {_underline(m, text, style, colour)}" for m in marks if m.place.line == number]
        previous = number
    return [*out, bar]


def _wrapped(label: str, text: str, style: Style) -> list[str]:
    head = f"   = {label}: "
    return textwrap.wrap(
        text, style.width, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False, break_on_hyphens=False
    ) or [head.rstrip()]


def _where(diagnostic: Diagnostic, report: Report, style: Style) -> str:
    place, name = diagnostic.location, named(diagnostic.sites[0], report) if diagnostic.sites else ""
    count = f"  (1 of {len(diagnostic.sites)} like this)" if len(diagnostic.sites) > 1 else ""
    model = report.model or "model"
    if not place.known:
        lines = any(v.site.location.known for v in report.verdicts)
        lost = "\n      (Python line unknown" + (")" if lines else ": the archive names no file of yours)") if diagnostic.sites else ""
        return f"  --> {model}{'!' + name if name else ''}{count}{lost}"
    text = f"{style.shown(place.file)}:{place.line}" + (f":{place.column}" if place.column else "")
    path = style.resolve(place.file)
    left = "  --> " + (style.link(text, path.resolve().as_uri()) if path else text)
    right = f"module {name}{count}" if diagnostic.sites[0].module_path else count.strip()
    free = style.width - 6 - len(text) - len(right)
    return left + ("" if not right else " " * free + right if free >= 2 else "\n      " + right)


def _some_known(report: Report) -> bool:
    return any(benefit.short(d) for d in report.diagnostics)


def _without_shapes(reports: Sequence[Report]) -> list[str]:
    """One line for all findings whose benefit nothing is known of."""
    blind = any(d.kind == "missed" for r in reports for d in active(r) if not _some_known(r))
    return ["Give --input 1,3,224,224 (the shape of a call) to see what each fix would save."] if blind else []


def _notes(diagnostic: Diagnostic, report: Report, style: Style) -> list[str]:
    lines = []
    if diagnostic.needed and diagnostic.sites:
        both = f"   = needed: {diagnostic.needed}      found: {diagnostic.found}"
        lines += (
            [both]
            if len(both) <= style.width
            else _wrapped("needed", diagnostic.needed, style) + _wrapped("found", diagnostic.found, style)
        )
    for related in diagnostic.related:
        if related.site.location.file != diagnostic.location.file or not related.site.location.known:
            place = related.site.location
            where = f"{style.shown(place.file)}:{place.line}" if place.known else named(related.site, report)
            lines += _wrapped("note", f"{related.label} ({where})", style)
    others = list(dict.fromkeys(named(s, report) for s in diagnostic.sites))[1:]
    if others := [name for name in others if name]:
        lines += _wrapped("also in", ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else ""), style)
    if diagnostic.did:
        lines += _wrapped("did instead", diagnostic.did, style)
    if (saved := benefit.told(diagnostic)) and (saved != benefit.UNKNOWN or _some_known(report)):
        lines += _wrapped("would save", saved, style)
    if diagnostic.help:
        lines += _wrapped("help", diagnostic.help + (" (checked: it then fuses)" if diagnostic.fix.verified else ""), style)
    return [*lines, f"   = more: fusible rule {diagnostic.code}"]


def finding(diagnostic: Diagnostic, report: Report, style: Style) -> str:
    colour = SEVERITY_COLOUR[diagnostic.severity]
    head = f"{diagnostic.severity}[{diagnostic.code}]"
    message = textwrap.wrap(
        f"{head} {diagnostic.name}: {diagnostic.message}",
        style.width,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    message[0] = style.paint(head, colour) + style.paint(message[0][len(head) :], "bold")
    marks = _marks(diagnostic) if style.source else []
    source = _source(marks, style, colour) if marks else []
    return "\n".join([*message, _where(diagnostic, report, style), *source, *_notes(diagnostic, report, style)])


def _passed(report: Report, style: Style) -> list[str]:
    lines = []
    for v in report.fused:
        place = f"  {style.shown(v.site.location.file)}:{v.site.location.line}" if v.site.location.known else ""
        lines.append(f"{style.paint('fused', 'green')} {v.pattern} -> {v.emitted}  {named(v.site, report)}{place}")
    return lines


def render(reports: Sequence[Report], style: Style) -> str:
    parts, reports = [], [printable(report) for report in reports]
    for report in reports:
        parts += [finding(d, report, style) + "\n" for d in active(report)]
        if style.show_fused and report.fused:
            parts.append("\n".join(_passed(report, style)) + "\n")
    parts += [summary.line(report) for report in reports]
    return "\n".join([*parts, summary.totals(reports), *_without_shapes(reports)]) + "\n"


COMPARISON_COLOUR = {STOPPED: "red", BECAME: "green"}


def render_comparison(comparison: Comparison, style: Style) -> str:
    """The causes first, then every change in a line of its own."""
    comparison = compare(printable(comparison.old), printable(comparison.new))
    parts = [finding(d, comparison.new, style) + "\n" for d in comparison.causes]
    for item in comparison.changes:
        head = style.paint(f"{item.kind:<8}", COMPARISON_COLOUR.get(item.kind, "blue"))
        parts.append(f"{head}  {summary.change(item, comparison)}")
    return "\n".join([*parts, summary.compared(comparison)]) + "\n"
