"""The gates before the compiled part is mapped: this torch, then this library, then this pybind11 (in bind.cpp)."""
from __future__ import annotations

import json
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
LIBRARY = PACKAGE / "lib" / "libfusible.so"


@cache
def build_info() -> dict[str, str]:
    """What the build recorded: versions of fusible, torch and Python, compiler, build type. ImportError when nothing was built."""
    try:
        return json.loads((PACKAGE / "_build_info.json").read_text())
    except FileNotFoundError:
        raise ImportError(f"a built fusible was needed, found only its sources in {PACKAGE}: "
                          "run `pip install --no-build-isolation .` in the source tree") from None


def check_torch() -> None:
    """Compares torch with the one that fusible was built for; nothing of fusible is mapped yet, so that a mismatch is a sentence, not a crash."""
    needed = build_info()["torch"]
    try:
        import torch
    except ModuleNotFoundError:
        raise ImportError(f"torch {needed} was needed, none was found: run `pip install torch=={needed}`") from None
    found = torch.__version__.split("+")[0]
    if found != needed:
        raise ImportError(f"fusible was built for torch {needed}, found torch {torch.__version__}: run `pip install torch=={needed}`, "
                          f"or rebuild fusible for this torch with `pip install --no-build-isolation .` in its source tree")


def open_library() -> None:
    """Maps the compiled part, which registers the operators. Raises ImportError."""
    check_torch()
    try:
        from fusible import _C  # noqa: F401
    except ImportError as error:
        import torch

        raise ImportError(f"the compiled part of fusible (built for torch {build_info()['torch']}, Python {build_info()['python']}) does not load "
                          f"into torch {torch.__version__}: {error}. Run `pip install --no-build-isolation .` in the source tree") from error
