"""Explains a diagnostic code: what it means, why it matters, an example and the way out."""
from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """examples:
  fusible rule FUS201
  fusible rule second-use
  fusible rule                the table of all codes
"""
PAGES = Path(__file__).parent.parent / "share" / "rules"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("code", nargs="?", metavar="CODE", help="a code (FUS201) or its name (second-use)")


def pages() -> dict[str, Path]:
    """Code and name of each page: {"FUS201 second-use": path}, in order."""
    return {path.stem.replace("-", " ", 1): path for path in sorted(PAGES.glob("FUS*.md"))}


def run(arguments: argparse.Namespace) -> int:
    table = pages()
    if not table:
        raise OSError(f"the pages of the codes were needed in {PAGES}, none were found: reinstall fusible")
    if arguments.code is None:
        print("\n".join(table))
        return 0
    wanted = arguments.code.lower()
    for key, path in table.items():
        if wanted in key.lower().split():
            print(path.read_text().rstrip())
            return 0
    from difflib import get_close_matches

    words = [word.lower() for key in table for word in key.split()]
    near = get_close_matches(wanted, words, n=1)
    hint = f": did you mean {near[0].upper() if near[0].startswith('fus') else near[0]}?" if near else ": `fusible rule` lists them"
    raise ValueError(f"a diagnostic code was needed, found {arguments.code!r}{hint}")
