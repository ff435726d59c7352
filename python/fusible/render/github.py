"""Workflow commands of GitHub Actions: an annotation per finding."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.render.style import Style, active, annotated, sentence
from fusible.report import Report

COMMAND = {"note": "notice", "warning": "warning", "error": "error"}


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def render(reports: Sequence[Report], style: Style) -> str:
    lines = []
    for report in reports:
        for d in active(report):
            path, place = annotated(d, report, style)
            where = f",line={place.line},col={max(place.column, 1)}" if place else ""
            lines.append(
                f"::{COMMAND[d.severity]} title={_property(f'fusible {d.code} {d.name}')},file={_property(path)}{where}"
                f"::{_data(sentence(d))}"
            )
    return "".join(line + "\n" for line in lines)
