"""File lengths and strings that must not be committed. Exit 1 with one line per finding."""
import re
import subprocess
import sys
from pathlib import Path

LINES = 400
TEXT = {".cpp", ".h", ".py", ".md", ".txt", ".cmake", ".fus", ".toml", ".in", ".json", ".pyi", ".js", ".css", ".j2", ""}
LENGTH_CHECKED = {".cpp", ".h", ".py", ".cmake", ".js"}
FORBIDDEN = [
    (re.compile(r"(?<![\w.$/])/(root|work|home/[a-z])/"), "an absolute path of one machine"),
    (re.compile(r"https?://[\w.-]*(pypi|pythonhosted|artifactory|nexus)[\w.-]*"), "a registry host"),
    (re.compile(r"^(<{7}|>{7}) ", re.MULTILINE), "a merge conflict"),
]

findings = []
for name in subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout.split("\0"):
    path = Path(name)
    if not name or path.suffix not in TEXT or not path.is_file() or name == ".ci/style.py":
        continue
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        continue
    lines = text.count("\n")
    if path.suffix in LENGTH_CHECKED and lines > LINES:
        findings.append(f"{name}: {lines} lines, at most {LINES} were allowed: split it")
    if path.name == "pch.h" and (own := re.search(r'^#include "(.*)"', text, re.MULTILINE)):
        findings.append(f"{name}: includes {own[1]}, foreign headers were allowed: a comment changed there breaks clones that share ccache")
    findings += [f"{name}:{text[:match.start()].count(chr(10)) + 1}: {what}: {match.group()}" for pattern, what in FORBIDDEN for match in pattern.finditer(text)]
print(*findings, sep="\n") if findings else print("style: clean")
sys.exit(bool(findings))
