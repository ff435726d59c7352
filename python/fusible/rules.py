"""The pages of the diagnostic codes (rules/*.md), without importing torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HEADINGS = ("What it does", "Why it blocks", "Example", "Fix", "When to accept")


@dataclass(frozen=True)
class Rule:
    """One code: front matter and text of its page. `unrunnable` says why the page has no example that a test can run."""

    code: str
    name: str
    severity: str
    summary: str
    text: str
    unrunnable: str = ""

    @property
    def page(self) -> str:
        return f"rules/{self.code}-{self.name}.md"

    def section(self, heading: str) -> str:
        found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", self.text, re.M | re.S)
        return found.group(1).strip() if found else ""


def folder() -> Path:
    """Installed: fusible/share/rules. In the source tree: rules/ at its root."""
    here = Path(__file__).resolve().parent
    installed = here / "share" / "rules"
    return installed if installed.is_dir() else here.parent.parent / "rules"


def parse(page: str) -> Rule:
    """`page`: the text of a rule page. Raises ValueError when its front matter is not `key: value` lines between `---`."""
    found = re.match(r"---\n(.*?)\n---\n(.*)", page, re.S)
    if not found:
        raise ValueError("a rule page with front matter between '---' lines was needed, found " + repr(page[:40]))
    fields = dict(line.split(": ", 1) for line in found.group(1).splitlines())
    return Rule(**fields, text=found.group(2))


@cache
def all_rules() -> dict[str, Rule]:
    """Code -> page, in the order of the codes. Raises FileNotFoundError when the pages were not installed."""
    pages = sorted(folder().glob("FUS*.md"))
    if not pages:
        raise FileNotFoundError(f"rule pages were needed in {folder()}, found none: reinstall fusible")
    return {rule.code: rule for rule in (parse(page.read_text(encoding="utf-8")) for page in pages)}


def find(code_or_name: str) -> Rule:
    """The page of "FUS201", "fus201" or "second-use". Raises KeyError with what is nearest."""
    wanted = code_or_name.strip()
    for rule in all_rules().values():
        if wanted.upper() == rule.code or wanted.lower() == rule.name:
            return rule
    near = [r.code for r in all_rules().values() if r.code.startswith(wanted.upper()[:4]) or wanted.lower() in r.name]
    raise KeyError(f"a code or name of a rule was needed, found {wanted!r}" + (f"; near it: {', '.join(near)}" if near else ""))


def index() -> str:
    """The text of docs/rules.md."""
    lines = [
        "# Diagnostic codes",
        "",
        "Written by `python -m fusible.rules`; the pages are in rules/.",
        "",
        "| code | name | severity | says |",
        "|---|---|---|---|",
    ]
    lines += [f"| [{r.code}](../{r.page}) | {r.name} | {r.severity} | {r.summary} |" for r in all_rules().values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(index(), end="")
