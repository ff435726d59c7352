"""Workflow commands of GitHub Actions: an annotation per finding."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.comparison import STOPPED, Comparison
from fusible.render import summary
from fusible.render.style import Style, active, annotated, sentence
from fusible.report import Diagnostic, Report, Unusable

COMMAND = {"note": "notice", "warning": "warning", "error": "error"}


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _command(command: str, title: str, diagnostic: Diagnostic, text: str, report: Report, style: Style) -> str:
    path, place = annotated(diagnostic, report, style)
    where = f",line={place.line},col={max(place.column, 1)}" if place else ""
    return f"::{command} title={_property(title)},file={_property(path)}{where}::{_data(text)}\n"


def render(reports: Sequence[Report], style: Style, unusable: Sequence[Unusable]) -> str:
    found = [_command(COMMAND[d.severity], f"fusible {d.code} {d.name}", d, sentence(d), report, style) for report in reports for d in active(report)]
    failed = [f"::error title=fusible%3A not linted,file={_property(style.model_uri(m))}::{_data(m.message)}\n" for m in unusable]
    return "".join(found + failed)


def render_comparison(comparison: Comparison, style: Style) -> str:
    """An error per cause; what stopped without one is an error of the model itself."""
    lines, new = [], comparison.new
    for cause in comparison.causes:
        places = [summary.change(c, comparison) for c in comparison.of(STOPPED) if c.why and c.why.fingerprint == cause.fingerprint]
        title = f"fusible {cause.code} {cause.name}: stopped being fused"
        lines.append(_command("error", title, cause, sentence(cause) + "\n" + "\n".join(places), new, style))
    for change in comparison.of(STOPPED):
        if not change.why:
            text = _data(summary.change(change, comparison))
            lines.append(f"::error title=fusible%3A stopped being fused,file={_property(style.model_uri(new))}::{text}\n")
    return "".join(lines)
