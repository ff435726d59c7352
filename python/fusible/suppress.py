"""Comments in the model's Python source: `# fusible: ignore[FUS201] reason`, on the line of a finding or on a line of its own above.

The text comes from the archive itself (a scripted model carries its source, comments included) and, where the file is present, from disk.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fusible.archive import LARGEST_RATIO, SMALL, problem_of
from fusible.debug_records import sources
from fusible.report import Benefit, Diagnostic, Fix, Location, Report, Site

MEANT = re.compile(r"#\s*fusible:\s*ignore\b(.*)$")
CODES = re.compile(r"\[\s*(FUS\d*(?:\s*,\s*FUS\d*)*)\s*,?\s*\]")
MARK = b"fusible:"  # a record without it holds no comment and need not be unpickled
UNUSED = "FUS803"
Resolve = Callable[[str], Path | None]


@dataclass(frozen=True)
class Comment:
    file: str
    at: int  # its own line
    line: int  # the line that it speaks of
    codes: tuple[str, ...]  # none: it is not written as a suppression is
    text: str


def _comment(text: str, file: str, line: int) -> Comment | None:
    if not (meant := MEANT.search(text)):
        return None
    own_line, named = text.lstrip().startswith("#"), CODES.match(meant[1])
    return Comment(file, line, line + own_line, tuple(re.findall(r"FUS\d*", named[1])) if named else (), text.strip())


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


def _archived(model: str) -> Iterator[tuple[str, int, str]]:
    """(file, number of the first line, text) of the functions in the archive `model` that may hold a comment. A report that was read from JSON may
    name a file that is no archive, or is not there."""
    path = Path(model)
    try:
        if not path.is_file():
            return
        with zipfile.ZipFile(path) as archive:
            records = [r for r in archive.infolist() if r.filename.endswith(".debug_pkl") and r.file_size <= max(SMALL, LARGEST_RATIO * r.compress_size)]
            marked = [data for record in records if MARK in (data := archive.read(record))]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError):
        return
    if marked and not problem_of(path):
        for data in marked:
            yield from sources(data)


def comments(report: Report, resolve: Resolve = on_disk) -> list[Comment]:
    """All suppression comments in the source lines that the report names, in its archive, and in the files that `resolve` finds."""
    places = [site.location for site in _sites(report) if site.location.known]
    files = sorted({place.file for place in places})
    texts = [(place.file, place.line, place.excerpt) for place in places]
    texts += [text for text in _archived(report.model) if text[0] in files]
    texts += [(file, 1, path.read_text(encoding="utf-8", errors="replace")) for file in files if (path := resolve(file))]
    found: dict[Comment, None] = {}  # each once, in their order
    for file, first, text in texts:
        for number, line in enumerate(text.splitlines(), first):
            if comment := _comment(line, file, number):
                found[comment] = None
    return list(found)


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


def _reported(comment: Comment, codes: str, message: str, needed: str, found: str, help: str) -> Diagnostic:
    """A FUS803 on the comment's own line."""
    return Diagnostic(
        code=UNUSED,
        name="unused-suppression",
        severity="note",
        kind="analysis",
        message=message,
        needed=needed,
        found=found,
        did="",
        help=help,
        pattern="",
        matched=0,
        steps=0,
        fix=Fix("model_edit", help, True),
        sites=(Site("", "", "", 0, Location(comment.file, comment.at, 1, 0, "", comment.text)),),
        related=(),
        candidates=(),
        fingerprint=hashlib.sha256(f"{UNUSED}|{codes}|{comment.text}".encode()).hexdigest()[:16],
        benefit=Benefit(),
        suppressed=False,
    )


def _unused(comment: Comment, codes: str) -> Diagnostic:
    message = f"the comment suppresses {codes}, which is not reported here"
    return _reported(comment, codes, message, f"a finding {codes} on this line", "none", "remove the comment")


def _malformed(comment: Comment) -> Diagnostic:
    message = "the comment suppresses nothing, because it is not written as a suppression is"
    found = comment.text[comment.text.index("#") :]
    return _reported(comment, "", message, "# fusible: ignore[FUS201] reason", found, "write the codes in brackets and in upper case, or remove the comment")


def apply_comments(report: Report, resolve: Resolve = on_disk) -> Report:
    """Suppresses what comments name, and adds one FUS803 for each comment that suppressed nothing or names no code."""
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
        if not comment.codes:
            diagnostics.append(_malformed(comment))
        elif idle := [code for code in comment.codes if (comment, code) not in used]:
            diagnostics.append(_unused(comment, ", ".join(idle)))
    return with_diagnostics(report, diagnostics)
