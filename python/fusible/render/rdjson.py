"""Reviewdog Diagnostic Format: `fusible lint --output-format rdjson m.pt | reviewdog -f=rdjson`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fusible.render.style import Style, active, annotated, sentence
from fusible.report import Report, Unusable

SEVERITY = {"note": "INFO", "warning": "WARNING", "error": "ERROR"}


def render(reports: Sequence[Report], style: Style, unusable: Sequence[Unusable]) -> str:
    diagnostics = []
    for report in reports:
        for d in active(report):
            path, place = annotated(d, report, style)
            location: dict[str, Any] = {"path": path}
            if place:
                start = {"line": place.line, "column": max(place.column, 1)}
                end = {"line": place.line, "column": max(place.end_column, start["column"])}
                location["range"] = {"start": start, "end": end}
            diagnostics.append(
                {"message": f"{d.name}: {sentence(d)}", "location": location, "severity": SEVERITY[d.severity], "code": {"value": d.code}}
            )
    diagnostics += [{"message": f"not linted: {m.message}", "location": {"path": style.model_uri(m)}, "severity": "ERROR"} for m in unusable]
    return json.dumps({"source": {"name": "fusible"}, "severity": "WARNING", "diagnostics": diagnostics}, indent=2) + "\n"
