"""Explains a diagnostic code: what it means, why it matters, an example and the way out."""
from __future__ import annotations

import argparse

EXAMPLES = """examples:
  fusible rule FUS201
  fusible rule second-use
  fusible rule                the table of all codes
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("code", nargs="?", metavar="CODE", help="a code (FUS201) or its name (second-use)")


def run(arguments: argparse.Namespace) -> int:
    from fusible.rules import all_rules, find

    if arguments.code is None:
        for rule in all_rules().values():
            print(f"{rule.code}  {rule.name:<26} {rule.summary}")
        return 0
    try:
        rule = find(arguments.code)
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: `fusible rule` lists them") from None
    print(f"{rule.code} {rule.name} ({rule.severity})\n\n{rule.text.strip()}")
    return 0
