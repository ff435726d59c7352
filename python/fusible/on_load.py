"""What torch's loader would run of an archive's code, found by reading the text: `__setstate__` and all that it calls, and the expressions that give
default arguments and class constants their values. What torch itself writes passes, by the operators that it calls, not by the names of its classes."""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# C++ classes whose __setstate__ only packs weights; others come from libraries that the caller loaded.
PACKED_CLASSES = frozenset({"fusible", "mkldnn", "quantized", "rnn", "sparse", "xnnpack"})

_LITERAL_CALLS = frozenset({"float", "torch.device"})
_CALLS = re.compile(r"(annotate|unchecked_cast|torch\.(eq|ne|lt|le|gt|ge|len|__contains__|__is__|__isnot__|__not__)"
                    r"|ops\.(quantized|sparse)\.(\w+_prepack\w*|\w+_unpack\w*|q?linear_unpack)|ops\.prim\.RaiseException)")
_PACKED_METHODS = frozenset({"unpack"})
_KEYWORDS = frozenset({"return", "if", "elif", "else", "and", "or", "not", "in", "is", "assert", "raise", "class", "def"})
_STRING_OR_COMMENT = re.compile(r"\"(?:\\[^\n]|[^\"\\\n])*\"|'(?:\\[^\n]|[^'\\\n])*'|#[^\n]*")
_CALL = re.compile(r"([\w.]+|[\])}\0])?\s*\(")


class _Found(Exception):
    """Something that torch does not write, or that is not on the list; the text says what and where."""


@dataclass
class _Code:
    """The functions of an archive, and the text that lies in none of them: class bodies and the headers of functions."""

    bodies: dict[str, list[str]] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        end = 0
        for start in re.finditer(r"^( *)def\b\s*(\w*)", text, re.MULTILINE):
            if start.start() < end:
                continue  # nested: part of the function around it
            body = _end_of_header(text, start.end())
            last = re.compile(rf"^ {{0,{len(start[1])}}}[^ \n]", re.MULTILINE).search(text, body)
            self.outside += [text[end:start.start()], text[start.end():body]]
            end = last.start() if last else len(text)
            self.bodies.setdefault(start[2], []).append(text[body:end])
        self.outside.append(text[end:])


def runs_more(code: Mapping[str, str], pickled: list[str]) -> str | None:
    """`code`: the code records of an archive; `pickled`: the strings of its pickles. What loading would run beyond storing and packing of weights;
    None when nothing."""
    for name in pickled:
        if (match := re.match(r"__torch__\.torch\.classes\.(\w+)", name)) and match[1] not in PACKED_CLASSES:
            return f"the C++ class {name.replace(' ', '.')}"
    read = _Code()
    try:
        for record, text in code.items():
            read.add(_plain(text, record))
        for text in read.outside:
            _check_literals(text)
        if "__setstate__" in read.bodies:
            _check_reachable(read, "\n".join(code.values()))
    except _Found as found:
        return str(found)
    return None


def _plain(text: str, record: str) -> str:
    """Without comments, a NUL for each string, no space around dots. Raises _Found for what hides code from a reader of lines."""
    plain = _STRING_OR_COMMENT.sub(lambda match: "" if match[0][0] == "#" else "\0", text.replace("\0", "'"))
    if re.search(r"[\"'\\\t\r]|\0\0", plain):
        raise _Found(f"text that torch does not write ({record})")
    return re.sub(r" *\. *", ".", plain)


def _end_of_header(text: str, start: int) -> int:
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] in "([") - (text[position] in ")]")
        if depth == 0 and text[position] == "\n":
            return position + 1
    return len(text)


def _calls(text: str) -> Iterator[str]:
    for match in _CALL.finditer(text):
        if match[1] and match[1] not in _KEYWORDS:
            yield match[1]


def _check_literals(text: str) -> None:
    """Class constants and default arguments: torch evaluates them when it reads the code."""
    text = re.sub(r"\bclass\s+\w+\s*\(\s*\w+\s*\)", "", text)
    for name in _calls(text):
        if name not in _LITERAL_CALLS:
            raise _Found(f"{name}(...) as a default argument or class constant")
    if re.search(r"\*(?!\s*,)", text):
        raise _Found("arithmetic as a default argument or class constant")


def _check_reachable(code: _Code, raw: str) -> None:
    """Python's operators call methods without naming them, so every special method counts as called."""
    waiting = [name for name in code.bodies if name.startswith("__") and name != "__getstate__"]
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        if name != "__setstate__" and re.search(rf"\b{name}\s*:|[\"']{name}[\"']", raw):
            raise _Found(f"{name}, a function and an attribute, from __setstate__")
        for body in code.bodies[name]:
            _check_body(body, code.bodies)
            named = {word for word in re.findall(r"\w+", body) if word in code.bodies} - seen
            seen |= named
            waiting += named


def _check_body(body: str, defined: Mapping[str, list[str]]) -> None:
    if loop := re.search(r"\b(while|for|with|def|lambda)\b", body):
        raise _Found(f"`{loop[1]}` from __setstate__")
    for name in re.findall(r"(?<![\w.])(?:torch|ops)\b[\w.]*", body):
        if not _CALLS.fullmatch(name):
            raise _Found(f"{name} from __setstate__")
    for name in _calls(body):
        method = name.rpartition(".")[2]
        if not _CALLS.fullmatch(name) and not ("." in name and (method in defined or method in _PACKED_METHODS)):
            raise _Found(f"{name if name.isprintable() else 'a value'}(...) from __setstate__")
