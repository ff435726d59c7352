"""The command line. One verb = one file with `configure(parser)` and `run(arguments) -> exit code`; torch is imported by the verb that needs it."""
from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

VERBS = {
    "fuse": "write a fused copy of a model",
    "lint": "say what fuse would do with models, and why not more",
    "diff": "say what stopped being fused between two archives of a model, and why",
    "rule": "explain a diagnostic code",
    "patterns": "list or print the built-in patterns",
    "doctor": "versions, machine, and what a model needs, for a bug report",
    "bench": "time a model before and after",
}
EXAMPLES = """examples:
  fusible lint model.pt
  fusible fuse model.pt -o fused.pt --input 1,3,224,224
  fusible rule FUS201

exit codes: 0 clean, 1 findings, 2 unusable input or options
"""
OK, FINDINGS, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
GATES = ("lint", "diff")


def parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Of the verbs, only one that `argv` names is imported: the others are not asked."""
    top = argparse.ArgumentParser(prog="fusible", description="Fuses TorchScript models, or says exactly why not.", epilog=EXAMPLES,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action="store_true", help="print the version and the torch that it is built for")
    top.add_argument("--cmake-prefix", action="store_true", help="print the folder for CMAKE_PREFIX_PATH (find_package(fusible))")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, summary in VERBS.items():
        if name not in argv:
            verbs.add_parser(name, help=summary)
            continue
        verb = importlib.import_module(f"fusible.cli.{name}")
        sub = verbs.add_parser(name, help=summary, description=verb.__doc__, epilog=verb.EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
        verb.configure(sub)
        sub.set_defaults(run=verb.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Without `argv` the process is the command's own, and so are its streams and signals."""
    if argv is not None:
        return _run(list(argv))
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (`>&-`): the exit code still tells
            setattr(sys, name, open(os.devnull, "w"))
    sys.stdout.reconfigure(errors="replace")  # an ASCII terminal gets question marks, not an error
    code = _run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: an interrupt now would print a traceback and hide the exit code
    try:
        sys.stdout.flush()
    except OSError:  # it was said, or the reader went away; Python would flush again at its end, and exit with 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run(argv: list[str]) -> int:
    top = parser(argv)
    arguments = top.parse_args(argv)
    before = {path: _state(path) for name in ("output", "write_baseline") if (path := getattr(arguments, name, None))}
    try:
        code = _answer(top, arguments)
        _flush()
        return code
    except BrokenPipeError:  # the reader went away (`| head`); a gate that was stopped by it has not passed
        return UNUSABLE if arguments.verb in GATES else OK
    except (ValueError, ImportError) as error:  # FusibleError is a ValueError
        return _fail(f"error: {error}")
    except OSError as error:  # the system's own words come without a name when it was a stream
        return _fail(f"error: {error}" if error.strerror is None else f"error: {error.filename or 'stdout'} could not be used: {error.strerror}")
    except Exception as error:  # noqa: BLE001: Python's own exit code would be that of findings
        return _fail(f"error: {_defect(error, arguments.verb)}")
    except KeyboardInterrupt:
        written = " and ".join(str(path) for path, state in before.items() if _state(path) != state)
        return _fail(f"interrupted, {written or 'nothing'} was written", INTERRUPTED)


def _answer(top: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.version:
        return _version()
    if arguments.cmake_prefix:
        from fusible.gate import PACKAGE

        print(PACKAGE)
        return OK
    if arguments.verb is None:
        top.print_help()
        return UNUSABLE
    return arguments.run(arguments)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # what the verb found stays found
    except OSError as error:
        from fusible.whole import unwritten

        raise unwritten("stdout", error) from error


def _fail(text: str, code: int = UNUSABLE) -> int:
    from fusible.archive import one_line

    with suppress(OSError):  # nobody reads stderr: the exit code still tells
        print(f"fusible: {one_line(text)}", file=sys.stderr)
    return code


def _state(path: Path) -> tuple[int, int] | None:
    """Changes with every writing of the file: another inode where it is replaced, a later time where it is a pipe."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _defect(error: Exception, verb: str) -> str:
    """For what no verb expects; a traceback would tell a user little beyond the place."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[1])
    place = [frame for frame in frames if frame.filename.startswith(package)][-1]
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return (f"`fusible {verb}` failed at {Path(place.filename).name}:{place.lineno} with {type(error).__name__}: {said.removesuffix('.')}: "
            "please report it with what `fusible doctor` prints")


def _version() -> int:
    from fusible.gate import build_info

    info = build_info()
    print(f"fusible {info['version']} (for torch {info['torch']})")
    return OK
