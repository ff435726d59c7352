"""The report itself (docs/report-schema.md): one object for one model, a list for several."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps

from fusible.render.style import Style
from fusible.report import Report


def render(reports: Sequence[Report], style: Style) -> str:
    objects = [report.to_dict() for report in reports]
    return dumps(objects[0] if len(objects) == 1 else objects, indent=2) + "\n"
