"""fusible fuses TorchScript models, or says exactly why not."""
from __future__ import annotations

from fusible.api import (FusibleError, disable, enable, enabled, fuse, lint, load, load_patterns, report, warmup, why_not_running)
from fusible.report import Diagnostic, Report

__all__ = ["Diagnostic", "FusibleError", "Report", "disable", "enable", "enabled", "fuse", "lint", "load", "load_patterns", "report",
           "warmup", "why_not_running"]
