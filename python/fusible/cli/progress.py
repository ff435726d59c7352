"""A line on stderr that tells the stage of a long fuse: only on a terminal, and only after a second."""
from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from collections.abc import Iterator

QUIET_SECONDS = 1.0
BAR = 24


@contextmanager
def progress(label: str) -> Iterator[Callable[[str, float], None] | None]:
    """Gives a callback for fuse's `progress`, or None when nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    start, width = time.monotonic(), 0

    def show(stage: str, share: float) -> None:
        nonlocal width
        if time.monotonic() - start < QUIET_SECONDS:
            return
        done = round(BAR * min(max(share, 0.0), 1.0))
        line = f"{label} {'━' * done}{'╌' * (BAR - done)} {stage}"[:79]
        print(f"\r{line:<{width}}", end="", file=sys.stderr, flush=True)
        width = len(line)

    try:
        yield show
    finally:
        if width:
            print(f"\r{'':<{width}}\r", end="", file=sys.stderr, flush=True)
