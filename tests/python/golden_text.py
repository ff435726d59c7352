"""Golden files: FUSIBLE_BLESS=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("FUSIBLE_BLESS"):
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{name} is missing: run pytest with FUSIBLE_BLESS=1 and read what it writes"
    assert text == path.read_text(encoding="utf-8"), f"{name} differs: read the difference, then run pytest with FUSIBLE_BLESS=1"
