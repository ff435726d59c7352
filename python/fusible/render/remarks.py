"""LLVM optimisation remarks in YAML (llvm.org/docs/Remarks.html): passed, missed and analysis, as opt-viewer reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fusible.render.benefit import told
from fusible.render.style import Style, active, named
from fusible.report import Report, Site

quoted = json.dumps  # a JSON string is a double-quoted YAML scalar


def _document(kind: str, name: str, site: Site | None, style: Style, hotness: float, args: list[tuple[str, str]]) -> str:
    lines = [f"--- !{kind}", "Pass:            fusible", f"Name:            {name}"]
    if site and site.location.known:
        place = site.location
        lines.append(f"DebugLoc:        {{ File: {quoted(style.shown(place.file))}, Line: {place.line}, Column: {place.column} }}")
    lines.append(f"Function:        {quoted((site.method if site else '') or 'forward')}")
    if hotness >= 0:
        lines.append(f"Hotness:         {hotness:.0f}")
    return "\n".join([*lines, "Args:", *(f"  - {key}: {quoted(text)}" for key, text in args), "...", ""])


def render(reports: Sequence[Report], style: Style) -> str:
    out = []
    for report in reports:
        for d in active(report):
            args = [("String", d.message), ("Needed", d.needed), ("Found", d.found), ("Module", d.module_path), ("Code", d.code), ("Saves", told(d))]
            out.append(
                _document(
                    "Missed" if d.kind == "missed" else "Analysis",
                    d.name,
                    d.sites[0] if d.sites else None,
                    style,
                    d.benefit.ns,
                    [(key, text) for key, text in args if text],
                )
            )
        for v in report.fused:
            text = f"{v.pattern} fused into {v.emitted}"
            out.append(_document("Passed", "fused", v.site, style, -1, [("String", text), ("Module", named(v.site, report))]))
    return "".join(out)
