"""SARIF 2.1.0 for code scanning: all rules are declared, not only those that fired, so that alerts can close."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from fusible.render.style import Style, annotated, named, sentence
from fusible.report import Diagnostic, Location, Report, Site, Unusable
from fusible.rules import Rule, all_rules

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVEL = {"note": "note", "warning": "warning", "error": "error"}
MOST_RELATED = 99  # code scanning keeps 100 locations of a result


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.section("What it does")},
        "help": {"text": rule.section("Fix"), "markdown": rule.text},
        "defaultConfiguration": {"level": LEVEL[rule.severity]},
        "properties": {
            "tags": ["fusion", f"FUS{rule.code[3]}xx"],
            "precision": "very-high",
            "problem.severity": rule.severity.replace("note", "recommendation"),
        },
    }


def _physical(uri: str, place: Location | None) -> dict[str, Any]:
    region: dict[str, int] = {"startLine": place.line if place else 1}
    if place and place.column:
        region["startColumn"] = place.column
        if place.end_column > place.column:
            region["endColumn"] = place.end_column
    # Below no root that a viewer knows: absolute, since a relative reference may not begin with a slash.
    return {"artifactLocation": {"uri": ("file://" if uri.startswith("/") else "") + quote(uri, safe="/")}, "region": region}


def _logical(site: Site, report: Report) -> list[dict[str, str]]:
    name = named(site, report)
    return [{"fullyQualifiedName": name, "kind": "module" if site.module_path else "function"}] if name else []


def _related(number: int, label: str, site: Site, report: Report, style: Style) -> dict[str, Any]:
    path = style.relative(site.location.file) if site.location.known else None
    return {
        "id": number,
        "message": {"text": label},
        "logicalLocations": _logical(site, report),
        "physicalLocation": _physical(path or style.model_uri(report), site.location if path else None),
    }


def _result(diagnostic: Diagnostic, report: Report, style: Style, index: dict[str, int]) -> dict[str, Any]:
    uri, place = annotated(diagnostic, report, style)
    location: dict[str, Any] = {"physicalLocation": _physical(uri, place)}
    if diagnostic.sites:
        location["logicalLocations"] = _logical(diagnostic.sites[0], report)
    others = [(r.label, r.site) for r in diagnostic.related] + [("the same cause", s) for s in diagnostic.sites[1:]]
    result: dict[str, Any] = {
        "ruleId": diagnostic.code,
        "level": LEVEL[diagnostic.severity],
        "message": {"text": sentence(diagnostic)},
        "locations": [location],
        "relatedLocations": [_related(i, label, site, report, style) for i, (label, site) in enumerate(others[:MOST_RELATED], 1)],
        "partialFingerprints": {"fusible/v1": diagnostic.fingerprint, "primaryLocationLineHash": f"{diagnostic.fingerprint}:1"},
        "properties": {"pattern": diagnostic.pattern, "model": report.model, "sites": len(diagnostic.sites), "benefit": asdict(diagnostic.benefit)},
    }
    if diagnostic.code in index:
        result["ruleIndex"] = index[diagnostic.code]
    if diagnostic.suppressed:
        result["suppressions"] = [{"kind": "external"}]
    return result


def _notification(model: Unusable, style: Style) -> dict[str, Any]:
    return {"level": "error", "message": {"text": model.message}, "locations": [{"physicalLocation": _physical(style.model_uri(model), None)}]}


def render(reports: Sequence[Report], style: Style, unusable: Sequence[Unusable]) -> str:
    rules = list(all_rules().values())
    index = {rule.code: i for i, rule in enumerate(rules)}
    results = [_result(d, report, style, index) for report in reports for d in report.diagnostics]
    driver = {"name": "fusible", "version": next((r.version for r in reports), ""), "rules": [_rule(r) for r in rules]}
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    if unusable:
        run["invocations"] = [{"executionSuccessful": False, "toolExecutionNotifications": [_notification(model, style) for model in unusable]}]
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"
