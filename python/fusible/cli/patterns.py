"""Lists the built-in patterns, or prints one: the text files that a user's own pattern looks like."""
from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """examples:
  fusible patterns
  fusible patterns silu          what a pattern file looks like; a copy needs a name of its own
"""
FILES = Path(__file__).parent.parent / "share" / "patterns"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this pattern file")


def run(arguments: argparse.Namespace) -> int:
    files = {path.stem: path for path in sorted(FILES.glob("*.fus"))}
    if not files:
        raise OSError(f"pattern files were needed in {FILES}, none were found: reinstall fusible")
    if arguments.name is None:
        width = max(map(len, files))
        for name, path in files.items():
            print(f"{name:<{width}}  {summary(path.read_text())}"[:140].rstrip())
        return 0
    if arguments.name not in files:
        from difflib import get_close_matches

        near = get_close_matches(arguments.name, files, n=1)
        raise ValueError(f"the name of a pattern was needed, found {arguments.name!r}: " + (f"did you mean {near[0]}?" if near else "`fusible patterns` lists them"))
    print(files[arguments.name].read_text().rstrip())
    return 0


def summary(text: str) -> str:
    """The algebra of a pattern file, or its doc when it has none."""
    lines = {}
    for line in text.splitlines():
        key, _, rest = line.strip().partition(" ")
        lines.setdefault(key, rest.strip().strip('"'))
    return lines.get("algebra") or lines.get("doc") or ""
