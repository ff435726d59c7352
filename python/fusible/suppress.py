"""Comments in the model's Python source: `# fusible: ignore[FUS201] reason`, on the line of a finding or on a line of its own above.

The text comes from the archive itself (a scripted model carries its source, comments included) and, where the file is present, from disk.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fusible.report import Benefit, Diagnostic, Fix, Location, Report, Site

COMMENT = re.compile(r"#\s*fusible:\s*ignore\[([A-Z0-9,\s]+)\]\s*(.*)$")
UNUSED = "FUS803"
Resolve = Callable[[str], Path | None]


@dataclass(frozen=True)
class Comment:
    file: str
    line: int  # the line that it speaks of
    codes: tuple[str, ...]
    reason: str
    text: str


def _comment(text: str, file: str, line: int) -> Comment | None:
    found = COMMENT.search(text)
    if not found:
        return None
    own_line = text.lstrip().startswith("#")
    codes = tuple(code.strip() for code in found.group(1).split(",") if code.strip())
    return Comment(file, line + 1 if own_line else line, codes, found.group(2).strip(), text.strip())


def _sites(report: Report) -> Iterator[Site]:
    for verdict in report.verdicts:
        yield verdict.site
        yield from verdict.absorbed
    for diagnostic in report.diagnostics:
        yield from diagnostic.sites
        yield from (related.site for related in diagnostic.related)


def on_disk(file: str) -> Path | None:
    path = Path(file)
    return path if path.is_file() else None


def comments(report: Report, resolve: Resolve = on_disk) -> list[Comment]:
    """All suppression comments in the source lines that the report names, and in the files that `resolve` finds."""
    found: dict[tuple[str, int, str], Comment] = {}
    files: set[str] = set()
    for site in _sites(report):
        place = site.location
        if not place.known:
            continue
        files.add(place.file)
        for offset, text in enumerate(place.excerpt.splitlines()):
            if comment := _comment(text, place.file, place.line + offset):
                found[(comment.file, comment.line, comment.text)] = comment
    for file in sorted(files):
        path = resolve(file)
        if path is None:
            continue
        for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if comment := _comment(text, file, number):
                found[(comment.file, comment.line, comment.text)] = comment
    return list(found.values())


def _covers(comment: Comment, code: str, place: Location) -> bool:
    last = place.line + max(place.excerpt.count("\n"), 0)
    return comment.file == place.file and place.line <= comment.line <= last and any(code.startswith(c) for c in comment.codes)


def split(diagnostic: Diagnostic, hidden: Callable[[Site], bool]) -> list[Diagnostic]:
    """The diagnostic for the sites that stay, and a suppressed twin for the `hidden` ones. A candidate goes with its site; where a report does
    not say which that is, all stay."""
    if diagnostic.suppressed or not diagnostic.sites:
        return [diagnostic]
    flags = [hidden(site) for site in diagnostic.sites]
    if all(flags):
        return [replace(diagnostic, suppressed=True)]
    if not any(flags):
        return [diagnostic]
    owners = diagnostic.candidate_sites or (flags.index(False),) * len(diagnostic.candidates)

    def part(which: bool) -> Diagnostic:
        kept = [i for i, flag in enumerate(flags) if flag == which]
        pairs = [(c, kept.index(s)) for c, s in zip(diagnostic.candidates, owners, strict=True) if s in kept]
        return replace(
            diagnostic,
            sites=tuple(diagnostic.sites[i] for i in kept),
            candidates=tuple(c for c, _ in pairs),
            candidate_sites=tuple(s for _, s in pairs),
            suppressed=which,
        )

    return [part(False), part(True)]


def with_diagnostics(report: Report, diagnostics: list[Diagnostic]) -> Report:
    """The report with other diagnostics; a declined verdict that only suppressed ones speak of becomes suppressed."""
    shown = {(c, d.code) for d in diagnostics if not d.suppressed for c in d.candidates}
    hidden = {(c, d.code) for d in diagnostics if d.suppressed for c in d.candidates}
    verdicts = tuple(
        replace(v, status="suppressed") if v.status == "declined" and (v.candidate, v.code) in hidden - shown else v
        for v in report.verdicts
    )
    return replace(report, diagnostics=tuple(diagnostics), verdicts=verdicts)


def _unused(comment: Comment, codes: list[str]) -> Diagnostic:
    place = Location(comment.file, comment.line, 1, 0, "", comment.text)
    names = ", ".join(codes)
    digest = hashlib.sha256(f"{UNUSED}|{names}|{comment.text}".encode()).hexdigest()[:16]
    return Diagnostic(
        code=UNUSED,
        name="unused-suppression",
        severity="note",
        kind="analysis",
        message=f"the comment suppresses {names}, which is not reported here",
        needed=f"a finding {names} on this line",
        found="none",
        did="",
        help="remove the comment",
        pattern="",
        matched=0,
        steps=0,
        fix=Fix("model_edit", "remove the comment", True),
        sites=(Site("", "", "", 0, place),),
        related=(),
        candidates=(),
        fingerprint=digest,
        benefit=Benefit(),
        suppressed=False,
    )


def apply_comments(report: Report, resolve: Resolve = on_disk) -> Report:
    """Suppresses what comments name, and adds one FUS803 for each comment that suppressed nothing."""
    known = comments(report, resolve)
    if not known:
        return report
    used: set[tuple[Comment, str]] = set()

    def hides(code: str) -> Callable[[Site], bool]:
        def test(site: Site) -> bool:
            covering = [c for c in known if _covers(c, code, site.location)]
            used.update((c, prefix) for c in covering for prefix in c.codes if code.startswith(prefix))
            return bool(covering)

        return test

    diagnostics = []
    for d in report.diagnostics:
        hidden = {site for site in d.sites if hides(d.code)(site)}  # asked of suppressed findings too: their comments are not unused
        diagnostics += split(d, hidden.__contains__)
    for comment in known:
        if idle := [code for code in comment.codes if (comment, code) not in used]:
            diagnostics.append(_unused(comment, idle))
    return with_diagnostics(report, diagnostics)
