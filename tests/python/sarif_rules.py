"""What the SARIF 2.1.0 schema demands of the objects that fusible writes, in a form that needs no network: per object the properties that
exist (the schema allows no others), those that are required, and of each value its type, range or enumeration.

problems(log) -> list of "where: what was needed, what was found"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Check = Callable[[Any, str], Iterator[str]]
# RFC 3986: the characters of a URI reference, and '%' only before two hexadecimal digits. A colon in the first segment would end a scheme.
URI_REFERENCE = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:|(?=[^:]*(?:/|$)))(?:[A-Za-z0-9._~!$&'()*+,;=:@/?#\[\]-]|%[0-9A-Fa-f]{2})*")


def _expect(good: bool, where: str, needed: str, found: Any) -> Iterator[str]:
    if not good:
        yield f"{where}: {needed} was needed, found {found!r}"


def text(value: Any, where: str) -> Iterator[str]:
    yield from _expect(isinstance(value, str), where, "a string", value)


def boolean(value: Any, where: str) -> Iterator[str]:
    yield from _expect(isinstance(value, bool), where, "true or false", value)


def uri(value: Any, where: str) -> Iterator[str]:
    yield from _expect(isinstance(value, str) and bool(URI_REFERENCE.fullmatch(value)), where, "a URI reference", value)
    # SARIF1004 of Microsoft's validator: it could not be combined with a base.
    yield from _expect(not str(value).startswith("/"), where, "a URI reference without a slash at its beginning", value)


def one_of(*values: str) -> Check:
    return lambda value, where: _expect(value in values, where, f"one of {', '.join(values)}", value)


def at_least(least: int) -> Check:
    return lambda value, where: _expect(isinstance(value, int) and not isinstance(value, bool) and value >= least, where, f"an integer >= {least}", value)


def bag(value: Any, where: str) -> Iterator[str]:
    yield from _expect(isinstance(value, dict), where, "an object", value)
    tags = value.get("tags", [])
    yield from _expect(all(isinstance(tag, str) for tag in tags) and len(set(tags)) == len(tags), where, "tags that are strings, each once", tags)


def strings(value: Any, where: str) -> Iterator[str]:
    good = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    yield from _expect(good, where, "an object of strings", value)


def array(check: Check, unique: bool = False) -> Check:
    def checked(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{where}: an array was needed, found {value!r}"
            return
        if unique and any(item in value[:i] for i, item in enumerate(value)):
            yield f"{where}: items that are all different were needed"
        for i, item in enumerate(value):
            yield from check(item, f"{where}[{i}]")

    return checked


def obj(required: str = "", any_of: str = "", **properties: Check) -> Check:
    """`required`: names that must be there; `any_of`: names of which one must be there."""
    known = {"properties": bag, **{name.lstrip("_"): check for name, check in properties.items()}}

    def checked(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where}: an object was needed, found {value!r}"
            return
        for name in required.split():
            yield from _expect(name in value, where, name, sorted(value))
        if any_of:
            yield from _expect(any(name in value for name in any_of.split()), where, f"one of {any_of}", sorted(value))
        for name, item in value.items():
            if name not in known:
                yield f"{where}: {name!r} is no property of it"
            else:
                yield from known[name](item, f"{where}.{name}")

    return checked


LEVEL = one_of("none", "note", "warning", "error")
MESSAGE = obj(any_of="text id", text=text, id=text, markdown=text, arguments=array(text))
MULTIFORMAT = obj(required="text", text=text, markdown=text)
REGION = obj(startLine=at_least(1), startColumn=at_least(1), endLine=at_least(1), endColumn=at_least(1), snippet=obj(text=text))
PHYSICAL = obj(any_of="artifactLocation address", artifactLocation=obj(uri=uri, uriBaseId=text, index=at_least(-1)), region=REGION, contextRegion=REGION)
LOGICAL = obj(name=text, fullyQualifiedName=text, decoratedName=text, kind=text, index=at_least(-1), parentIndex=at_least(-1))
LOCATION = obj(id=at_least(-1), physicalLocation=PHYSICAL, logicalLocations=array(LOGICAL, unique=True), message=MESSAGE)
RULE = obj(required="id", id=text, name=text, shortDescription=MULTIFORMAT, fullDescription=MULTIFORMAT, help=MULTIFORMAT, helpUri=uri,
           defaultConfiguration=obj(level=LEVEL))  # fmt: skip
RESULT = obj(required="message", ruleId=text, ruleIndex=at_least(-1), level=LEVEL, message=MESSAGE, locations=array(LOCATION),
             relatedLocations=array(LOCATION, unique=True), partialFingerprints=strings,
             suppressions=array(obj(required="kind", kind=one_of("inSource", "external"), justification=text), unique=True))  # fmt: skip
DRIVER = obj(required="name", name=text, version=text, informationUri=uri, rules=array(RULE, unique=True))
INVOCATION = obj(required="executionSuccessful", executionSuccessful=boolean,
                 toolExecutionNotifications=array(obj(required="message", level=LEVEL, message=MESSAGE, locations=array(LOCATION, unique=True))))  # fmt: skip
RUN = obj(required="tool", tool=obj(required="driver", driver=DRIVER), results=array(RESULT), invocations=array(INVOCATION),
          columnKind=one_of("utf16CodeUnits", "unicodeCodePoints"))  # fmt: skip
LOG = obj(required="version runs", _version=one_of("2.1.0"), runs=array(RUN), **{"$schema": uri})


def problems(log: Any) -> list[str]:
    found = list(LOG(log, "log"))
    for run in log.get("runs", []) if not found else []:
        rules = run["tool"]["driver"].get("rules", [])
        for i, result in enumerate(run.get("results", [])):
            index = result.get("ruleIndex", -1)
            if index >= 0 and (index >= len(rules) or rules[index]["id"] != result.get("ruleId")):
                found.append(f"results[{i}]: ruleIndex {index} is not the place of {result.get('ruleId')}")
            for location in [*result.get("locations", []), *result.get("relatedLocations", [])]:
                region = location.get("physicalLocation", {}).get("region", {})
                one_line = region.get("endLine", region.get("startLine")) == region.get("startLine")
                if one_line and region.get("endColumn", 1 << 30) <= region.get("startColumn", 1) - 1:
                    found.append(f"results[{i}]: a region that ends before it starts")
    return found
