"""A baseline: the findings that a project has accepted. Only what is not in it counts."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from fusible.report import Diagnostic, Report
from fusible.whole import write_whole

SCHEMA = 2
FIELDS = {"model": str, "fingerprint": str, "code": str, "module_path": str, "sites": int}
Accepted = dict[str, Counter[str]]  # model -> fingerprint -> places


class BaselineError(ValueError):
    """The file is no baseline: what was needed, what was found."""


@dataclass(frozen=True)
class Entry:
    """`model` is the file's path from the baseline's folder; in schema 1 it was the file's name. `known_as`: what a linted model is found by."""

    model: str
    fingerprint: str
    code: str
    module_path: str
    sites: int
    known_as: tuple[str, ...] = ()


def _places(report: Report) -> Counter[str]:
    """Fingerprint -> places. Diagnostics that differ in a detail of the place share a fingerprint; what names no place counts as one."""
    places: Counter[str] = Counter()
    for d in report.diagnostics:
        if not d.suppressed:
            places[d.fingerprint] += max(len(d.sites), 1)
    return places


def findings(reports: Iterable[Report], folder: Path) -> list[Entry]:
    """One per model and fingerprint, sorted, so that the file can be compared by eye."""
    entries: dict[tuple[str, str], Entry] = {}
    for report in reports:
        model, places = PurePath(os.path.relpath(report.model or ".", folder)).as_posix(), _places(report)
        for d in report.diagnostics:
            if not d.suppressed:
                entries.setdefault((model, d.fingerprint), Entry(model, d.fingerprint, d.code, d.module_path, places[d.fingerprint]))
    return sorted(entries.values(), key=lambda e: (e.model, e.code, e.module_path, e.fingerprint))


def write(path: Path, reports: Iterable[Report]) -> int:
    """Writes the findings that are not suppressed. Returns their number."""
    entries = findings(reports, path.parent)
    data = {"fusible-baseline": SCHEMA, "findings": [{name: getattr(e, name) for name in FIELDS} for e in entries]}
    write_whole(path, json.dumps(data, indent=2) + "\n")
    return len(entries)


def _entry(data: Any, number: int, path: Path) -> Entry:
    where = f"at findings[{number}] of {path}: write the baseline again"
    if not isinstance(data, dict):
        raise BaselineError(f"a baseline's finding was needed as an object, found {data!r:.40} {where}")
    for name, kind in FIELDS.items():
        if type(data.get(name)) is not kind:  # a bool is an int
            found = f"{data[name]!r:.40}" if name in data else "none"
            raise BaselineError(f"a baseline's finding was needed whose {name} is {'a number' if kind is int else 'a string'}, found {found} {where}")
    return Entry(**{name: data[name] for name in FIELDS})


def read(path: Path) -> list[Entry]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BaselineError(f"a baseline was needed at {path}, it cannot be read: {error.strerror}; write one with --write-baseline") from error
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"a baseline was needed, found another file at {path}: {error}") from error
    if not isinstance(data, dict) or "fusible-baseline" not in data or not isinstance(data.get("findings"), list):
        raise BaselineError(f"a baseline was needed, found other JSON at {path}: write one with --write-baseline")
    schema = data["fusible-baseline"]
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise BaselineError(f"a baseline of schema {SCHEMA} or older was needed, found {schema!r:.40} in {path}: update fusible, or write it again")
    entries = [_entry(item, number, path) for number, item in enumerate(data["findings"])]
    return [replace(e, known_as=(e.model,)) for e in entries] if schema == 1 else _known(entries, path.parent)


def _known(entries: list[Entry], folder: Path) -> list[Entry]:
    """A model is known by its path, and by its name too where it lies there no more and no other that moved has this name."""
    files = {e.model: os.path.abspath(folder / e.model) for e in entries}
    moved = Counter(PurePath(model).name for model, file in files.items() if not os.path.exists(file))
    known = {model: (file, PurePath(model).name) if moved[PurePath(model).name] == 1 and not os.path.exists(file) else (file,)
             for model, file in files.items()}
    return [replace(e, known_as=known[e.model]) for e in entries]


def accepted(entries: Iterable[Entry]) -> Accepted:
    models: Accepted = defaultdict(Counter)
    for entry in entries:
        for model in entry.known_as:
            models[model][entry.fingerprint] += max(entry.sites, 1)
    return dict(models)


def _key(report: Report, accepted: Accepted) -> str:
    path = os.path.abspath(report.model)
    return path if path in accepted else PurePath(report.model).name


def is_new(report: Report, diagnostic: Diagnostic, accepted: Accepted) -> bool:
    """More places of a fingerprint than were accepted for this model are new."""
    return _places(report)[diagnostic.fingerprint] > accepted.get(_key(report, accepted), Counter())[diagnostic.fingerprint]


def stale(entries: Iterable[Entry], reports: list[Report]) -> list[Entry]:
    """Accepted findings of the linted models that are found no more."""
    entries = list(entries)
    models = accepted(entries)
    present: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        present[_key(report, models)] |= _places(report).keys()
    linted = [(e, [present[model] for model in e.known_as if model in present]) for e in entries]
    return [e for e, found in linted if found and not any(e.fingerprint in fingerprints for fingerprints in found)]
