"""A line on stderr that tells the stage of a long fuse: only on a terminal, and only after a second."""
from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from collections.abc import Iterator

QUIET_SECONDS = 1.0
BAR = 24


def _columns() -> int:
    """Asked for each line: a window changes. A line that wraps is not erased by the next one."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80  # 0: the terminal does not know
    except (OSError, ValueError):
        return 80


@contextmanager
def progress(label: str) -> Iterator[Callable[[str, float], None] | None]:
    """Gives a callback for fuse's `progress`, or None when nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    start, width, furthest = time.monotonic(), 0, 0.0

    def show(stage: str, share: float) -> None:
        nonlocal width, furthest
        furthest = max(furthest, share)  # verification fuses a trial first, and then all stages come again
        if time.monotonic() - start < QUIET_SECONDS:
            return
        done = round(BAR * min(furthest, 1.0))
        line = f"{label} {'━' * done}{'╌' * (BAR - done)} {stage}"[:_columns() - 1]
        print(f"\r{line:<{width}}", end="", file=sys.stderr, flush=True)
        width = len(line)

    try:
        yield show
    finally:
        if width:
            print(f"\r{'':<{width}}\r", end="", file=sys.stderr, flush=True)
