"""The command line. One verb = one file with `configure(parser)` and `run(arguments) -> exit code`; torch is imported by the verb that needs it."""
from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

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
OK, FINDINGS, UNUSABLE = 0, 1, 2


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
    argv = sys.argv[1:] if argv is None else list(argv)
    top = parser(argv)
    arguments = top.parse_args(argv)
    try:
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
    except (ValueError, ImportError, OSError) as error:  # FusibleError is a ValueError
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()  # the reader went away (`| head`): nothing is left to say
            return OK
        print(f"fusible: error: {error}", file=sys.stderr)
        return UNUSABLE
    except Exception as error:  # noqa: BLE001: Python's own exit code would be that of findings
        print(f"fusible: error: {_defect(error, arguments.verb)}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("fusible: interrupted, nothing was written", file=sys.stderr)
        return 130


def _defect(error: Exception, verb: str) -> str:
    """For what no verb expects; a traceback would tell a user little beyond the place."""
    import traceback
    from pathlib import Path

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
