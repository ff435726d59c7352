"""How a report is written: terminal abilities, and how places are named on this machine."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from fusible.render.benefit import told
from fusible.report import Diagnostic, Location, Report, Site, Unusable

ANSI = {"bold": "1", "dim": "2", "red": "31;1", "yellow": "33;1", "blue": "34;1", "green": "32;1"}
SEVERITY_COLOUR = {"error": "red", "warning": "yellow", "note": "blue"}
RANK = {"note": 0, "warning": 1, "error": 2}


@dataclass(frozen=True)
class Style:
    colour: bool = False
    hyperlinks: bool = False
    width: int = 80
    show_fused: bool = False
    source: bool = True
    source_root: Path = Path(".")
    path_map: dict[str, str] = field(default_factory=dict)

    def paint(self, text: str, colour: str) -> str:
        return f"\033[{ANSI[colour]}m{text}\033[0m" if self.colour and text else text

    def link(self, text: str, target: str) -> str:
        """OSC 8; `target` is a file or an address."""
        return f"\033]8;;{target}\033\\{text}\033]8;;\033\\" if self.hyperlinks else text

    def resolve(self, file: str) -> Path | None:
        """The file of the exporting machine as it lies here, or None."""
        for prefix, replacement in self.path_map.items():
            if file.startswith(prefix):
                file = replacement + file[len(prefix) :]
                break
        for path in (Path(file), self.source_root / file):
            if path.is_file():
                return path
        return None

    def shown(self, file: str) -> str:
        """Relative to the source root where the file lies below it, else as the archive names it."""
        return self.relative(file) or file

    def relative(self, file: str) -> str | None:
        """The path below the source root with '/', or None: what code hosts can annotate."""
        path = self.resolve(file)
        if path is None:
            return None
        try:
            return path.resolve().relative_to(self.source_root.resolve()).as_posix()
        except ValueError:
            return None

    def model_uri(self, report: Report | Unusable) -> str:
        return self.relative(report.model) or Path(report.model).as_posix() if report.model else "model"


PLAIN = Style()


def for_stream(stream: TextIO, colour: str = "auto", **given: object) -> Style:
    """`colour`: "auto" follows the terminal, NO_COLOR and FORCE_COLOR; "always"; "never"."""
    terminal = stream.isatty()
    wanted = terminal and "NO_COLOR" not in os.environ or bool(os.environ.get("FORCE_COLOR"))
    on = wanted if colour == "auto" else colour == "always"
    return Style(colour=on, hyperlinks=terminal and on and os.environ.get("TERM") != "dumb", **given)  # type: ignore[arg-type]


# Of what is no control character: those that turn the direction of a line around, and those that end one.
CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(report: Report) -> Report:
    """Texts of an archive are not trusted: what a terminal would obey, or a log would take for a line of its own, becomes a replacement
    character."""

    def clean(value: object) -> object:
        if isinstance(value, str):
            return CONTROL.sub("\ufffd", value)
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        return [clean(item) for item in value] if isinstance(value, list) else value

    return Report.from_json(json.dumps(clean(json.loads(report.to_json()))))


def active(report: Report) -> list[Diagnostic]:
    return [d for d in report.diagnostics if not d.suppressed]


def annotated(diagnostic: Diagnostic, report: Report, style: Style) -> tuple[str, Location | None]:
    """(path, place) that a code host can show: the user's line below the source root, else the model file without a line."""
    for site in diagnostic.sites:
        if site.location.known and (path := style.relative(site.location.file)):
            return path, site.location
    return style.model_uri(report), None


def named(site: Site, report: Report) -> str:
    """What a person calls a node: its module path, or its operator and ordinal where the archive lost the path."""
    if site.module_path:
        return site.module_path
    if not site.op:
        return ""
    if not site.ordinal:
        return f"{site.method}, {site.op}"
    total = sum(v.site.op == site.op and v.site.method == site.method for v in report.verdicts)
    return f"{site.method}, {site.op} #{site.ordinal} of {total}"


def sentence(diagnostic: Diagnostic) -> str:
    """The whole finding in one line, for formats without structure."""
    parts = [diagnostic.message]
    if diagnostic.needed:
        parts.append(f"needed {diagnostic.needed}, found {diagnostic.found}")
    if diagnostic.benefit.bytes > 0 or diagnostic.benefit.ns >= 0:
        parts.append(f"would save {told(diagnostic)}")
    if diagnostic.help:
        parts.append(f"help: {diagnostic.help}")
    if len(diagnostic.sites) > 1:
        parts.append(f"{len(diagnostic.sites)} places")
    return "; ".join(parts)
