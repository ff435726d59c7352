"""The report itself (docs/report-schema.md): one object for one model, a list where several were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from json import dumps
from typing import Any

from fusible.comparison import Change, Comparison
from fusible.render.style import Style
from fusible.report import Report


def render(reports: Sequence[Report], style: Style, several: bool) -> str:
    objects = [report.to_dict() for report in reports]
    return dumps(objects[0] if len(objects) == 1 and not several else objects, indent=2) + "\n"


def _change(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "old": asdict(change.old) if change.old else None,
        "new": asdict(change.new) if change.new else None,
        "why": asdict(change.why) if change.why else None,
    }


def render_comparison(comparison: Comparison, style: Style) -> str:
    sides = {
        name: {"path": report.model, "origin": report.origin, "counts": report.counts}
        for name, report in (("old", comparison.old), ("new", comparison.new))
    }
    return dumps({"schema": 1, **sides, "counts": comparison.counts, "changes": [_change(c) for c in comparison.changes]}, indent=2) + "\n"
