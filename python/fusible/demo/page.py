"""What the demo prints, and the same text in a Markdown file between two markers: 80 columns, one line per step."""
from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WIDTH = 80
RULE = "─" * WIDTH
BEGIN, END = "<!-- demo: written by `make readme` -->\n", "<!-- /demo -->\n"
# What differs from machine to machine, and from run to run.
VARYING = (
    (r"(?<=fusible )\S+ on torch .*", "VERSIONS"),
    (r" +[\d.]+ s$", " SECONDS"),
    (r" +[\d.]+ ms  █+", " MILLISECONDS"),
    (r"(?<=max error )\S+", "ERROR"),
    (r"\d+ interleaved rounds?", "ROUNDS"),
    (r"(?<=before / after ).*", "RATIOS"),
    (r"(faster|slower) in at least 9 of 10 rounds|the spread includes 1: no difference was shown", "VERDICT"),
)


class Step:
    """One step while it runs: `say` adds to its lines, `progress` tells a terminal how far it is."""

    def __init__(self, name: str, live: bool) -> None:
        self.name, self.lines, self._live = name, [], live
        self.progress("", 0.0)

    def say(self, *lines: str) -> None:
        self.lines += lines

    def progress(self, stage: str, share: float) -> None:
        if self._live:
            done = f"{100 * share:3.0f} %  {stage}" if share else ""
            print(f"\r  … {self.name:<8}{done:<{WIDTH - 12}}", end="", flush=True)


class Page:
    """Prints and keeps what it printed in `text`."""

    def __init__(self) -> None:
        self.text = ""
        self._live = sys.stdout.isatty()

    def line(self, text: str) -> None:
        print(("\r" if self._live else "") + text, flush=True)
        self.text += text + "\n"

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Its first line goes beside the name and the seconds, the others below."""
        start, step = time.perf_counter(), Step(name, self._live)
        yield step
        first, *rest = step.lines
        self.line(f"  ✓ {name:<8}{first:<{WIDTH - 21}}{time.perf_counter() - start:7.2f} s")
        for line in rest:
            self.line(f"    {'':<8}{line}")


def masked(text: str) -> str:
    """`text` with a word in place of everything that varies."""
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text


def block_of(markdown: str) -> str:
    """The text between the markers, without its fence. Raises ValueError when they are not there."""
    return _split(markdown)[1].removeprefix("```\n").removesuffix("```\n")


def rewrite(path: Path, text: str) -> None:
    """Puts `text` between the markers of the file. Raises ValueError, and leaves the file as it is, when they are not there."""
    before, _, after = _split(path.read_text())
    path.write_text(f"{before}{BEGIN}```\n{text}```\n{END}{after}")


def _split(markdown: str) -> tuple[str, str, str]:
    before, begin, rest = markdown.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"a line {BEGIN.strip()!r} and, below it, a line {END.strip()!r} were needed, found {'the first alone' if begin else 'none'}")
    return before, inside, after
