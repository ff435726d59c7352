"""Options that several verbs share, and what they mean."""
from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

INPUT_HELP = "an example input, once per argument of forward: 1,3,224,224 (float32, random) or 1,16:int64; verifies and times with it"
_INPUT = re.compile(r"(?P<shape>\d+(?:,\d+)*)?(?::(?P<dtype>[a-z]+\d*))?")


def add_fusing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to fuse")
    group.add_argument("--input", action="append", metavar="SHAPE[:DTYPE]", help=INPUT_HELP)
    group.add_argument("--method", action="append", metavar="NAME", dest="methods", help="method to treat (default: forward and the exported ones)")
    group.add_argument("--target", choices=("cpu", "aten"), default="cpu", help="cpu: fusible's operators; aten: stock operators only")
    group.add_argument("--strict", action="store_true", help="fold no weights; sums may be added in another order (with --target aten: the same bits)")
    group.add_argument("--patterns", action="append", metavar="FILE", help="a further pattern file")
    group.add_argument("--trust", action="store_true", help="load archives whose loading runs code of their own (fusible doctor names it)")


def add_selection(parser: argparse.ArgumentParser) -> None:
    """For verbs that fuse; `lint` has options of these names for what it shows."""
    group = parser.add_argument_group("which patterns")
    group.add_argument("--select", action="append", metavar="PREFIX", help="only these patterns or codes (conv+batch_norm, FUS2)")
    group.add_argument("--ignore", action="append", metavar="PREFIX", help="leave these patterns or codes alone")


def selection(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"select": arguments.select, "ignore": arguments.ignore}


def fusing(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of fusible.fuse and fusible.lint."""
    return {"methods": arguments.methods, "target": arguments.target, "strict": arguments.strict,
            "patterns": [_readable(Path(file)) for file in arguments.patterns or []],
            "example_inputs": example_inputs(arguments.input)}


def _readable(pattern_file: Path) -> Path:
    """Read here once: each model that is linted would say again what is wrong with it."""
    import fusible
    import torch

    fusible.lint(torch.jit.CompilationUnit("def nothing(x):\n  return x\n").nothing, patterns=[pattern_file])
    return pattern_file


def repeated(arguments: argparse.Namespace) -> str:
    """Those options of `add_fusing`, as they are typed, that decide what is fused; each with a space before it."""
    words = []
    for option, given in (("--method", arguments.methods), ("--patterns", arguments.patterns)):
        words += [word for value in given or [] for word in (option, value)]
    words += ["--target", arguments.target] if arguments.target != "cpu" else []
    words += [f"--{name}" for name in ("strict", "trust") if getattr(arguments, name)]
    return "".join(f" {shlex.quote(word)}" for word in words)


def refuse_overwriting(option: str, output: Path | None, inputs: Iterable[Path | str]) -> None:
    """Raises ValueError when what `option` names is one of the files that are read, under whatever name."""
    for path in inputs if output is not None else ():
        try:
            same = os.path.samefile(output, path)
        except OSError:  # one of them is not there
            continue
        if same:
            raise ValueError(f"{option}: a file that is not read was needed, found {output}, which is the input {path}: write to another file")


def example_inputs(texts: Sequence[str] | None, seed: int = 0) -> tuple[Any, ...] | None:
    """Seeded random tensors: normal for floating dtypes, 0 or 1 for the others. Raises ValueError."""
    if not texts:
        return None
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for text in texts:
        match = _INPUT.fullmatch(text)
        dtype = getattr(torch, match["dtype"] or "float32", None) if match else None
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"--input: SHAPE or SHAPE:DTYPE was needed, found {text!r}: write 1,3,224,224 or 1,16:int64")
        shape = [int(size) for size in match["shape"].split(",")] if match["shape"] else []
        try:
            floating = dtype.is_floating_point or dtype.is_complex
            made = torch.randn(shape, generator=generator) if floating else torch.randint(0, 2, shape, generator=generator)
            tensors.append(made.to(dtype))
        except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
            reason = (str(error).splitlines() or ["no message"])[0]
            raise ValueError(f"--input: a tensor that torch can make was needed, found {text!r}: give another shape or dtype ({reason})") from error
    return tuple(tensors)
