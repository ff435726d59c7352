"""A baseline: the findings that a project has accepted. Only what is not in it counts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from fusible.report import Diagnostic, Report

SCHEMA = 1


class BaselineError(ValueError):
    """The file is no baseline: what was needed, what was found."""


@dataclass(frozen=True)
class Entry:
    """`model` is the file's name without its folder: a model that moves keeps its baseline."""

    model: str
    fingerprint: str
    code: str
    module_path: str
    sites: int


def _entry(report: Report, diagnostic: Diagnostic) -> Entry:
    return Entry(PurePath(report.model).name, diagnostic.fingerprint, diagnostic.code, diagnostic.module_path, len(diagnostic.sites))


def findings(reports: Iterable[Report]) -> list[Entry]:
    return [_entry(r, d) for r in reports for d in r.diagnostics if not d.suppressed]


def write(path: Path, reports: Iterable[Report]) -> int:
    """Writes the findings that are not suppressed, sorted, so that the file can be compared by eye. Returns their number."""
    entries = sorted(findings(reports), key=lambda e: (e.model, e.code, e.module_path, e.fingerprint))
    path.write_text(json.dumps({"fusible-baseline": SCHEMA, "findings": [vars(e) for e in entries]}, indent=2) + "\n")
    return len(entries)


def read(path: Path) -> list[Entry]:
    try:
        data = json.loads(path.read_text())
        if data["fusible-baseline"] != SCHEMA:
            raise BaselineError(f"a baseline of schema {SCHEMA} was needed, found {data['fusible-baseline']!r} in {path}")
        return [Entry(**entry) for entry in data["findings"]]
    except OSError as error:
        raise BaselineError(
            f"a baseline was needed at {path}, it cannot be read: {error.strerror}; write one with --write-baseline"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise BaselineError(f"a baseline was needed, found another file at {path}: {error}") from error


def is_new(report: Report, diagnostic: Diagnostic, accepted: dict[tuple[str, str], int]) -> bool:
    """`accepted`: (model, fingerprint) -> sites. More sites than were accepted are new."""
    entry = _entry(report, diagnostic)
    return entry.sites > accepted.get((entry.model, entry.fingerprint), 0)


def accepted(entries: Iterable[Entry]) -> dict[tuple[str, str], int]:
    return {(e.model, e.fingerprint): e.sites for e in entries}


def stale(entries: Iterable[Entry], reports: list[Report]) -> list[Entry]:
    """Accepted findings of the linted models that are found no more."""
    present = {(e.model, e.fingerprint) for e in findings(reports)}
    models = {PurePath(r.model).name for r in reports}
    return [e for e in entries if e.model in models and (e.model, e.fingerprint) not in present]
