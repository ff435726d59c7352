"""One line per finding: place, code, message."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.render import summary
from fusible.render.benefit import short
from fusible.render.style import SEVERITY_COLOUR, Style, active, named, printable
from fusible.report import Diagnostic, Report


def _line(diagnostic: Diagnostic, report: Report, style: Style) -> str:
    place, name = diagnostic.location, named(diagnostic.sites[0], report) if diagnostic.sites else ""
    where = f"{style.shown(place.file)}:{place.line}:{place.column}" if place.known else report.model or "model"
    more = f" (and {len(diagnostic.sites) - 1} more)" if len(diagnostic.sites) > 1 else ""
    code = style.paint(diagnostic.code, SEVERITY_COLOUR[diagnostic.severity])
    saved = f" (would save {short(diagnostic)})" if diagnostic.benefit.bytes > 0 or diagnostic.benefit.ns >= 0 else ""
    return f"{where}: {code} {diagnostic.name}: {diagnostic.message}" + (f" [{name}]" if name else "") + more + saved


def render(reports: Sequence[Report], style: Style) -> str:
    reports = [printable(report) for report in reports]
    lines = [_line(d, report, style) for report in reports for d in active(report)]
    if style.show_fused:
        lines += [f"{report.model or 'model'}: fused {v.pattern} [{named(v.site, report)}]" for report in reports for v in report.fused]
    return "\n".join([*lines, summary.totals(reports)]) + "\n"
