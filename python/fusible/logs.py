"""The logger "fusible": findings at INFO, notes and the stages of a long call at DEBUG. Nothing is written unless the program asks for it.

    logging.basicConfig(level=logging.INFO)
"""
from __future__ import annotations

import logging
from collections.abc import Callable

from fusible.report import Report

Progress = Callable[[str, float], None]
logger = logging.getLogger("fusible")
logger.addHandler(logging.NullHandler())


def stages(verb: str, progress: Progress | None) -> Progress | None:
    """`progress`, and each stage logged, where someone listens."""
    if not logger.isEnabledFor(logging.DEBUG):
        return progress

    def show(stage: str, share: float) -> None:
        logger.debug("%s: %s (%.0f %%)", verb, stage, 100 * share)
        if progress:
            progress(stage, share)

    return show


def findings(verb: str, report: Callable[[], Report]) -> None:
    """One record per finding that is not suppressed, then the counts. `report` is asked for only where someone listens. A record carries the
    finding itself as `record.diagnostic`."""
    if not logger.isEnabledFor(logging.INFO):
        return
    found = report()
    for diagnostic in found.diagnostics:
        if not diagnostic.suppressed:
            level = logging.DEBUG if diagnostic.severity == "note" else logging.INFO
            place = f" at {diagnostic.location}" if diagnostic.location.known else ""
            logger.log(level, "%s: %s %s: %s%s", verb, diagnostic.code, diagnostic.name, diagnostic.message, place, extra={"diagnostic": diagnostic})
    counts = found.counts
    logger.info("%s: %d of %d candidates fused, %d declined, %d suppressed", verb, counts["fused"], counts["candidates"], counts["declined"],
                counts["suppressed"])
