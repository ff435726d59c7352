"""GitLab Code Quality."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256

from fusible.render.style import Style, active, annotated, sentence
from fusible.report import Report, Unusable

SEVERITY = {"note": "info", "warning": "minor", "error": "major"}


def render(reports: Sequence[Report], style: Style, unusable: Sequence[Unusable]) -> str:
    issues = []
    for report in reports:
        for d in active(report):
            path, place = annotated(d, report, style)
            issues.append(
                {
                    "description": f"{d.code} {d.name}: {sentence(d)}",
                    "check_name": d.code,
                    "severity": SEVERITY[d.severity],
                    "fingerprint": sha256(f"{style.model_uri(report)}|{d.fingerprint}".encode()).hexdigest(),
                    "location": {"path": path, "lines": {"begin": place.line if place else 1}},
                }
            )
    for model in unusable:
        path = style.model_uri(model)
        issues.append(
            {
                "description": f"not linted: {model.message}",
                "check_name": "unusable",
                "severity": "critical",
                "fingerprint": sha256(f"{path}|unusable".encode()).hexdigest(),
                "location": {"path": path, "lines": {"begin": 1}},
            }
        )
    return json.dumps(issues, indent=2) + "\n"
