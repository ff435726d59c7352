"""fusible fuses TorchScript models, or says exactly why not.

    fused = fusible.fuse(torch.jit.script(model.eval()), (example,))
    print(fusible.report(fused))
    fused.save("fused.pt")

``import fusible`` maps libfusible.so, whose operators ``torch.jit.load("fused.pt")`` needs.
"""
from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusible.api import (FusibleError, disable, enable, enabled, fuse, lint, load, load_patterns, report, save, version, warmup, weight_bytes,
                             why_not_running)
    from fusible.report import Diagnostic, Report

__all__ = ["Diagnostic", "FusibleError", "Report", "disable", "enable", "enabled", "fuse", "lint", "load", "load_patterns", "regions", "report",
           "save", "version", "warmup", "weight_bytes", "why_not_running"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fusible' has no attribute {name!r}")
    _open()
    return globals()[name]


def _open() -> None:
    from fusible import gate

    gate.open_library()
    for module in ("fusible.report", "fusible.api"):  # `report` is the function: api comes last
        source = importlib.import_module(module)
        globals().update({name: getattr(source, name) for name in __all__ if hasattr(source, name)})


# The command line answers --help and `rule` without torch, whose import takes a second. argv[0] is "-m" while `python -m fusible` looks for
# its module, and the name of the installed command when that one runs.
if Path(sys.argv[0] if sys.argv else "").name not in ("-m", "fusible"):
    _open()
