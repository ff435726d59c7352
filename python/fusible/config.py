"""Settings of the linter: `fusible.toml`, or `[tool.fusible]` of pyproject.toml, whichever is closest above the working directory. Files
are not merged; what the command line gives wins; a key that is not known is an error."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

LEVELS = ("error", "warning", "note", "never")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG]?)B?$")
SCALE = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}


class ConfigError(ValueError):
    """Settings that cannot be used: what was needed, what was found, where."""


@dataclass(frozen=True)
class Settings:
    select: tuple[str, ...] = ()  # code prefixes to report; empty: all
    ignore: tuple[str, ...] = ()  # code prefixes to leave out
    error: tuple[str, ...] = ()  # code prefixes raised to errors
    per_module_ignores: dict[str, tuple[str, ...]] = field(default_factory=dict)  # glob on the module path -> code prefixes
    fail_on: str = "warning"  # the least severity that fails
    exit_zero: bool = False
    output_format: str = "full"
    show_fused: bool = False
    source: bool = True  # print source lines
    source_root: str = "."  # user files are looked for here, and named relative to it
    path_map: dict[str, str] = field(default_factory=dict)  # prefix on the exporting machine -> prefix here
    baseline: str = ""
    min_fused: float = 0.0  # least share of fused candidates per model
    max_missed_bytes: int = -1  # most bytes per call that missed fusions of a model may cost; -1: any
    origin: str = ""  # the file that they come from


KEYS = {f.name.replace("_", "-"): f.name for f in fields(Settings) if f.name != "origin"}


def parse_size(value: Any, place: str) -> int:
    """1500, "1500", "1.5 kB", "10MB". `place` is what an error begins with: the option, or file and key."""
    found = SIZE.match(str(value).strip()) if not isinstance(value, bool) else None
    if not found:
        raise ConfigError(f'{place}: a size such as "10 MB" was needed, found {value!r}')
    return int(float(found.group(1)) * SCALE[found.group(2)])


def check_prefixes(prefixes: Iterable[str], known: Iterable[str], place: str) -> None:
    """Raises ConfigError for what begins none of the codes `known`, and for "", which begins all: either would switch the gate off unseen."""
    for prefix in prefixes:
        if not prefix or not any(code.startswith(prefix) for code in known):
            raise ConfigError(f'{place}: the beginning of a code ("FUS2") was needed, found "{prefix}": `fusible rule` lists the codes')


def _strings(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{place}: a list of strings was needed, found {value!r}")
    return tuple(value)


def _table(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{place}: a table was needed, found {value!r}")
    return value


def _value(key: str, value: Any, place: str) -> Any:
    if key in ("select", "ignore", "error"):
        return _strings(value, place)
    if key == "per-module-ignores":
        return {glob: _strings(codes, f"{place}.{glob}") for glob, codes in _table(value, place).items()}
    if key == "path-map":
        if not all(isinstance(v, str) for v in _table(value, place).values()):
            raise ConfigError(f"{place}: strings were needed, found {value!r}")
        return value
    if key == "max-missed-bytes":
        return parse_size(value, place)
    if key == "min-fused":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ConfigError(f"{place}: a share between 0 and 1 was needed, found {value!r}")
        return float(value)
    wanted = bool if key in ("exit-zero", "show-fused", "source") else str
    if not isinstance(value, wanted):
        raise ConfigError(f"{place}: a {wanted.__name__} was needed, found {value!r}")
    if key == "fail-on" and value not in LEVELS:
        raise ConfigError(f"{place}: one of {', '.join(LEVELS)} was needed, found {value!r}")
    return value


def from_table(table: dict[str, Any], where: str) -> Settings:
    for key in table:
        if key not in KEYS:
            raise ConfigError(f"{where}: a known key was needed, found {key!r}: the keys are {', '.join(sorted(KEYS))}")
    return replace(Settings(origin=where), **{KEYS[key]: _value(key, value, f"{where}: {key}") for key, value in table.items()})


def read(path: Path) -> Settings | None:
    """The settings of one file; None for a pyproject.toml without [tool.fusible]."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"a settings file was needed at {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: TOML was needed: {error}") from error
    if path.name == "pyproject.toml":
        data = _table(data.get("tool", {}), f"{path}: tool").get("fusible")
    return None if data is None else from_table(_table(data, f"{path}: tool.fusible"), str(path))


def closest(start: Path) -> Settings:
    """Walks up from `start`; fusible.toml goes before pyproject.toml in one folder."""
    for folder in (start.resolve(), *start.resolve().parents):
        for name in ("fusible.toml", "pyproject.toml"):
            if (folder / name).is_file() and (settings := read(folder / name)) is not None:
                return settings
    return Settings()


def show(settings: Settings) -> str:
    """One `key = value` line each, as --show-settings prints them."""
    lines = [f"# from {settings.origin or 'the defaults'}"]
    lines += [f"{key} = {getattr(settings, name)!r}" for key, name in sorted(KEYS.items())]
    return "\n".join(lines) + "\n"
