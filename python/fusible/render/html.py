"""One self-contained page: verdict bar, module tree, source with a gutter, findings, a graph per module. Works offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from fusible.render import summary
from fusible.render.benefit import told
from fusible.render.graph import graphs
from fusible.render.style import Style
from fusible.report import Report
from fusible.rules import all_rules

CONTEXT = 3  # lines of source around a named one


def _sources(report: Report, style: Style) -> dict[str, dict[int, str]]:
    """file -> line -> text: the archive's own lines, and around them those of the file on disk where it is still the same."""
    files: dict[str, dict[int, str]] = {}
    sites = [s for v in report.verdicts for s in (v.site, *v.absorbed)] + [
        s for d in report.diagnostics for s in (*d.sites, *(r.site for r in d.related))
    ]
    for place in (s.location for s in sites if s.location.known):
        files.setdefault(place.file, {}).update({place.line + i: text for i, text in enumerate(place.excerpt.splitlines()[:1])})
    for file, lines in files.items():
        path = style.resolve(file)
        if path is None:
            continue
        disk = dict(enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1))
        if all(disk.get(n, "").rstrip() == text.rstrip() for n, text in lines.items()):
            near = {n for line in lines for n in range(line - CONTEXT, line + CONTEXT + 1)}
            lines.update({n: disk[n] for n in near if n in disk})
    return {style.shown(file): dict(sorted(lines.items())) for file, lines in files.items()}


def _data(report: Report, style: Style) -> dict[str, object]:
    shown = {s.location.file: style.shown(s.location.file) for v in report.verdicts for s in (v.site, *v.absorbed)}
    shown |= {s.location.file: style.shown(s.location.file) for d in report.diagnostics for s in (*d.sites, *(r.site for r in d.related))}
    return {
        "report": report.to_dict(),
        "summary": summary.line(report),
        "saves": [told(d) for d in report.diagnostics],
        "graphs": graphs(report),
        "shown": shown,
        "sources": _sources(report, style) if style.source else {},
    }


def render(reports: Sequence[Report], style: Style) -> str:
    rules = {
        r.code: {"summary": r.summary, "why": r.section("Why it blocks"), "accept": r.section("When to accept")}
        for r in all_rules().values()
    }
    # '<' never ends the script element, and the text stays JSON.
    data = json.dumps({"models": [_data(r, style) for r in reports], "rules": rules}, separators=(",", ":")).replace("<", "\\u003c")
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent / "page"), autoescape=True)
    folder = Path(__file__).parent / "page"
    return pages.get_template("report.html.j2").render(
        data=data,
        css=(folder / "report.css").read_text(),
        js=(folder / "report.js").read_text(),
        title=", ".join(Path(r.model).name or "model" for r in reports[:3]),
    )
