"""Formats of a report, one file each: `render(reports, style) -> str`, computed from the Report alone. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from fusible.comparison import Comparison
from fusible.render.style import PLAIN, Style
from fusible.report import Report, Unusable

FORMATS = ("full", "concise", "json", "sarif", "github", "gitlab", "junit", "rdjson", "remarks", "markdown", "html")
COMPARISON_FORMATS = ("full", "json", "github", "markdown")
TELL_UNUSABLE = ("sarif", "github", "gitlab", "junit", "rdjson", "markdown")  # read where nobody reads what the command line says beside them

__all__ = ["COMPARISON_FORMATS", "FORMATS", "PLAIN", "Style", "render", "render_comparison"]


def render(name: str, reports: Sequence[Report], style: Style = PLAIN, unusable: Sequence[Unusable] = (), several: bool = False) -> str:
    """`unusable`: models that could not be linted. `several`: more than one model may have been asked for, so that json is a list.
    Raises ValueError for a format that is not in FORMATS."""
    if name not in FORMATS:
        raise ValueError(f"a format was needed (one of {', '.join(FORMATS)}), found {name!r}")
    further = {"unusable": unusable} if name in TELL_UNUSABLE else {"several": several} if name == "json" else {}
    return import_module(f"fusible.render.{name}").render(reports, style, **further)


def render_comparison(name: str, comparison: Comparison, style: Style = PLAIN) -> str:
    """Raises ValueError for a format that is not in COMPARISON_FORMATS."""
    if name not in COMPARISON_FORMATS:
        raise ValueError(f"a format was needed (one of {', '.join(COMPARISON_FORMATS)}), found {name!r}")
    return import_module(f"fusible.render.{name}").render_comparison(comparison, style)
