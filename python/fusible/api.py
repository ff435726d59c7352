"""The Python functions over fusible._C. Types of arguments are checked here, so that every mistake gets one clear sentence."""
from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from fusible import _C, logs
from fusible.archive import load_archive, told
from fusible.attributes import attributes_read
from fusible.report import Report
from fusible.saving import FusedModule, write_archive
from fusible.wrapping import wrap

FusibleError = _C.FusibleError
Progress = Callable[[str, float], None]


def _scripted(module: Any) -> torch.jit.ScriptModule:
    if isinstance(module, torch.jit.ScriptModule):
        return module
    if isinstance(module, torch.jit.ScriptFunction):
        return wrap(_C.module_of(module))
    if isinstance(module, torch.nn.Module):
        raise FusibleError(f"a ScriptModule was needed, found the eager {type(module).__name__}: "
                           "script it with torch.jit.script(module.eval()), or trace it")
    raise FusibleError(f"a ScriptModule was needed, found {type(module).__name__}: load one with torch.jit.load, or script or trace a module")


def _check_inputs(example_inputs: Any) -> None:
    if not isinstance(example_inputs, tuple):
        raise FusibleError(f"example_inputs: a tuple was needed, found {type(example_inputs).__name__}: pass (x,) for a single input")


def _list(name: str, value: Any, of: str = "strings") -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, os.PathLike)):
        raise FusibleError(f"{name}: a list of {of} was needed, found one {'string' if isinstance(value, str) else 'path'}: pass [{value!r}]")
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise FusibleError(f"{name}: a list of {of} was needed, found {type(value).__name__}")
    return list(value)


def _strings(name: str, value: Any) -> list[str]:
    items = _list(name, value)
    for item in items:
        if not isinstance(item, str):
            raise FusibleError(f"{name}: a list of strings was needed, found one that holds {item!r:.40}")
    return [told(item) for item in items]


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise FusibleError(f"{name}: True or False was needed, found {value!r:.40}")


def _path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise FusibleError(f"a path was needed, found {type(path).__name__}")
    return Path(path)


def _call(verb: str, module: Any, example_inputs: Any, patterns: Any, progress: Any, **given: Any) -> Any:
    """The library's function of this name, with options of the right types."""
    scripted = _scripted(module)
    if example_inputs is not None:
        _check_inputs(example_inputs)
    for name in ("methods", "select", "ignore"):
        given[name] = _strings(name, given[name])
    if given["target"] not in ("cpu", "aten"):
        raise FusibleError(f"target: one of cpu, aten was needed, found {given['target']!r:.40}")
    for name in ("strict", "sample", "tune", *(("verify",) if given["verify"] is not None else ())):
        _check_bool(name, given[name])
    if progress is not None and not callable(progress):
        raise FusibleError(f"progress: a function of (stage, share) was needed, found {type(progress).__name__}")
    named = [_pattern(item, f"patterns[{i}]") for i, item in enumerate(_list("patterns", patterns, "files or texts"))]
    given.update(example_inputs=example_inputs, patterns=[text for text, _ in named], progress=logs.stages(verb, progress))
    try:
        return getattr(_C, verb)(scripted._c, given)
    except FusibleError as error:
        message = str(error)
        for i, (_, name) in enumerate(named):  # the library gets texts, and counts them; a reader looks for a file
            message = message.replace(f"patterns[{i}]", name)
        if message == str(error):
            raise
        raise FusibleError(message) from None


def _pattern(path_or_text: Any, name: str) -> tuple[str, str]:
    """The text, and what its places are named after: its file, or `name`."""
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        text = told(path_or_text)
    else:
        text, name = _read_pattern(_path(path_or_text)), told(path_or_text)
    if "\0" in text:
        before = text[:text.index("\0")].split("\n")
        raise FusibleError(f"{name}:{len(before)}:{len(before[-1]) + 1}: a pattern in plain text was needed, found a NUL character: take it out")
    return text, name


def _read_pattern(path: Path) -> str:
    try:
        if not path.is_file():
            raise FusibleError(f"a pattern file was needed, found nothing at {told(path)}")
        return path.read_text(encoding="utf-8-sig")  # editors of Windows write a mark at the beginning
    except UnicodeDecodeError as error:
        before = error.object[:error.start].split(b"\n")
        place = f"{told(path)}:{len(before)}:{len(before[-1]) + 1}"
        raise FusibleError(f"{place}: a pattern file in UTF-8 was needed, found the byte 0x{error.object[error.start]:02x}: "
                           "save it as UTF-8") from error
    except OSError as error:
        raise FusibleError(f"a pattern file was needed, {told(path)} cannot be read: {error.strerror}") from error


def fuse(module: torch.jit.ScriptModule, example_inputs: tuple[Any, ...] | None = None, *, methods: Sequence[str] | None = None,
         target: str = "cpu", strict: bool = False, verify: bool | None = None, select: Sequence[str] | None = None,
         ignore: Sequence[str] | None = None, patterns: Sequence[str | os.PathLike[str]] | None = None,
         tune: bool = False, progress: Progress | None = None) -> torch.jit.ScriptModule:
    """Returns a fused copy of `module`; `module` is not changed.

    `module`: scripted, traced, frozen or loaded, in eval mode. `example_inputs`: inputs of forward; with them the result is compared with
    the original (`verify`), and a sequence that changes it is declined. `methods`: those to treat; default forward and the exported ones.
    `target`: "cpu" (fusible operators) or "aten" (stock operators only). `strict`: nothing is folded into weights and no activation
    is seen in several operations; the kernels of "cpu" may still add up in another order, while with "aten" every bit is the original's.
    `select`: prefixes of patterns to apply ("conv+batch_norm") or of codes to report ("FUS2"); of either none: all. `ignore`: those to leave
    alone, or not to report. `patterns`: further pattern files or texts.
    `tune`: measure on `example_inputs`, on this machine with torch's number of threads; the result remembers which kernel was fastest for each
    operator, and what loses to the original is left as it was (docs/tuning.md). It takes some dozens of runs of the model. A module that was fused
    before is tuned for this machine, too.
    Raises FusibleError on unusable input; a sequence that cannot be fused is never an error, ``fusible.report(fused)`` explains it.
    """
    fused = FusedModule.of(_call("fuse", module, example_inputs, patterns, progress, methods=methods, target=target, strict=strict, verify=verify,
                                 select=select, ignore=ignore, sample=False, tune=tune, model_path=""))
    logs.findings("fuse", lambda: report(fused))
    return fused


def load(path: str | os.PathLike[str], *, trust: bool = False) -> torch.jit.ScriptModule:
    """A TorchScript archive on the CPU. Raises FusibleError with one clear sentence when `path` is not a usable archive, or when loading
    it would run code of the archive (`__setstate__`, default arguments) beyond what torch writes itself; `trust` lets that run."""
    _check_bool("trust", trust)
    return load_archive(_path(path), trust)


def save(module: torch.jit.ScriptModule, path: str | os.PathLike[str]) -> None:
    """Writes the archive of any ScriptModule beside `path` and renames it: a reader sees the old file or the whole new one. `save` of a module
    that fuse returned does the same. Raises OSError with one clear sentence when it cannot be written; torch's own writer ends the process
    when the disk is full."""
    write_archive(_scripted(module), _path(path))


def lint(module_or_path: torch.jit.ScriptModule | str | os.PathLike[str], example_inputs: tuple[Any, ...] | None = None, *,
         methods: Sequence[str] | None = None, target: str = "cpu", strict: bool = False, verify: bool | None = None,
         select: Sequence[str] | None = None, ignore: Sequence[str] | None = None,
         patterns: Sequence[str | os.PathLike[str]] | None = None, progress: Progress | None = None, sample: bool = False,
         trust: bool = False) -> Report:
    """What fuse would do, and why not more. Nothing is changed and the model is not run; the weights of an archive stay in its file.
    Arguments as in fuse; `trust` as in load. `sample`: measure what each missed fusion would save, by running torch's operators of its sequence
    on random tensors of the shapes that `example_inputs` lead to; raises FusibleError when no shapes are known."""
    path = module_or_path if isinstance(module_or_path, (str, os.PathLike)) else None
    _check_bool("trust", trust)
    module = load_archive(Path(path), trust, mapped=True) if path is not None else module_or_path
    found = Report.from_json(_call("lint", module, example_inputs, patterns, progress, methods=methods, target=target, strict=strict, verify=verify,
                                   select=select, ignore=ignore, sample=sample, tune=False, model_path=told(path or "")))
    logs.findings("lint", lambda: found)
    return found


def report(fused: torch.jit.ScriptModule) -> Report:
    """What fuse did to this module, also after save and load. Raises FusibleError for a module that fuse did not make."""
    text = _C.report(_scripted(fused)._c)
    if text is None:
        raise FusibleError("a module made by fusible.fuse was needed, found one without a report: call fusible.lint for what fuse would do")
    return Report.from_json(text)


def enable() -> None:
    """Switches on weight-agnostic fusions in the plan of every model of this process. Warns about what keeps them from running now."""
    _C.enable()
    for reason in _C.why_not_running():
        warnings.warn(f"fusible is enabled, but will not run yet: {reason}", RuntimeWarning, stacklevel=2)


def disable() -> None:
    """Plans made from now on are left as they are; plans that exist keep their fusions."""
    _C.disable()


def enabled() -> bool:
    """Whether enable() is in force, or FUSIBLE_ENABLE=1 was when the library was loaded."""
    return _C.enabled()


def why_not_running(module: torch.jit.ScriptModule | None = None) -> list[str]:
    """What keeps the JIT pass from running for calls that this thread makes now, one sentence each; empty: nothing does.

    Without a module also how many plans of this process are older than enable(), with one which of its methods have such a plan.
    """
    return _C.why_not_running(None if module is None else _scripted(module)._c)


def load_patterns(path_or_text: str | os.PathLike[str]) -> None:
    """Adds patterns for the rest of this process. Raises FusibleError with file, line and column when they cannot be read."""
    _C.load_patterns(*_pattern(path_or_text, "<text>"))


def warmup(fused: torch.jit.ScriptModule, example_inputs: tuple[Any, ...] = ()) -> None:
    """Packs the weights and, with `example_inputs`, runs the first calls, in which the executor makes its plan."""
    _check_inputs(example_inputs)
    _C.warmup(_scripted(fused)._c, example_inputs)


def weight_bytes(fused: torch.jit.ScriptModule) -> dict[str, int]:
    """What the module holds of the weights of its fused operators: {"dense": bytes, "packed": bytes}.

    Dense until a kernel packs them for this machine (warmup, or the first call), then packed; both where an operator of torch needs the dense form
    at every call, as for derivatives and other dtypes. The packed form of a 3x3 convolution that runs Winograd's way is 25/9 of the dense one, of
    bfloat16, which runs that way in float32, 41/9.
    """
    return _C.weight_bytes(_scripted(fused)._c)


def regions(fused: torch.jit.ScriptModule) -> dict[str, str]:
    """The operators that run as one, by the path of the attribute that holds the region ("encoder._fusible_region_0" where a submodule was fused
    before): one operator per line, in the order of execution.

    A register is %n, packed weights are #n, a tensor constant is $n. Empty for a module without regions.
    """
    return {path: region.text() for path, region in attributes_read(_scripted(fused)._c, "_fusible_region_").items()}


def version() -> str:
    """The version of libfusible."""
    return _C.version()
