#!/usr/bin/env python3
"""Shows that fusible's tests notice when a rule of fusible is broken: builds all mutants of mutants/*.toml into one tree, then runs each.

    python tests/mutation/check.py                      # build, then every mutant that has no result yet: minutes to an hour
    python tests/mutation/check.py --only affine        # those whose file, name or rule holds "affine", again
    python tests/mutation/check.py --all --jobs 4       # every mutant again, four processes at once

A mutant is met by the ctest cases, then by the pytest files, that reach its place (measured once per build), the quickest first, until one
fails. Results are kept in results.json as they come, so an interrupted run goes on where it stopped. Exit 0: every mutant that can be seen
turned a case red, 1: some did not, 2: the mutants do not fit the sources, the build failed, or a case is red without a mutant.
"""
from __future__ import annotations

import argparse
import collections
import concurrent.futures
import fnmatch
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from mutants import HEADER, SOURCE, Mutant, listed, with_mutants

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = pathlib.Path(__file__).parent / "results.json"
OUTPUT = "build/make"  # as in the repository itself, the Python beside it too, so that ccache knows what has no mutant
# Each takes longer than all others together, and shows nothing about a rule that no other case shows.
LEFT_OUT = ["ops.Conv.MatchesAten*", "*ParserErr*", "patterns.Cost*", "load.*"]
# What holds the rules of the passes from outside; each file is one case.
PYTEST_FILES = ["test_soundness", "test_soundness_folds", "test_soundness_modules", "test_soundness_state", "test_soundness_roles", "test_api", "test_families",
                "test_provenance", "test_gradients", "test_regions", "test_region_sizes", "test_attention", "test_recurrent", "test_jit_pass"]
# A case that takes less than this many seconds is run before all that take longer.
CLASSES = (0.15, 0.8, 5)


# Cases run beside each other; those about threads ask for their own number.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


class Failed(Exception):
    """Ends the run with exit 2."""


def write_tree(mutants: list[Mutant], tree: pathlib.Path) -> None:
    """Copies what git knows, with the mutants; files that are as they were keep their time, so that a second build is short."""
    by_file = collections.defaultdict(list)
    for mutant in mutants:
        by_file[mutant.file].append(mutant)
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    wanted = {name: (ROOT / name).read_bytes() for name in listing.decode().split("\0") if name and (ROOT / name).is_file()}
    for file, own in by_file.items():
        if file not in wanted:
            raise Failed(f"{own[0].listed_in}: a file of the repository was needed, found '{file}'")
        wanted[file] = with_mutants(wanted[file].decode(), own).encode()
    wanted["fusible_mutant.h"] = HEADER.encode()
    wanted["ops/fusible_mutant.cpp"] = SOURCE.encode()
    stale = [path for path in tree.rglob("*") if path.is_file() and path.relative_to(tree).parts[0] != "build"]
    for path in stale:
        if str(path.relative_to(tree)) not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = tree / name
        if path.is_file() and path.read_bytes() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if (ROOT / ".venv").is_dir() and not (tree / ".venv").exists():
        (tree / ".venv").symlink_to(ROOT / ".venv")


def interpreter(tree: pathlib.Path) -> str:
    return sys.executable.replace(str(ROOT / ".venv"), str(tree / ".venv"))


def build(tree: pathlib.Path, targets: list[str], jobs: int) -> None:
    output = tree / OUTPUT
    package = output / "package/fusible"
    shutil.copytree(tree / "python/fusible", package, dirs_exist_ok=True)
    commands = [["cmake", "-S", str(tree), "-B", str(output), "-G", "Ninja", "-DFUSIBLE_PYTHON=ON", "-DFUSIBLE_PACKAGE_LAYOUT=ON",
                 "-DCMAKE_INSTALL_LIBDIR=lib", "-DFUSIBLE_TESTS=ON", f"-DPython3_EXECUTABLE={interpreter(tree)}"],
                ["cmake", "--build", str(output), "--parallel", str(jobs), "--target", *targets],
                ["cmake", "--install", str(output), "--prefix", str(package), "--component", "fusible"]]
    if targets != ["all"]:
        commands.pop()
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(command[:2])} failed:\n{(done.stdout + done.stderr)[-6000:]}")


class Case:
    """One ctest case: a gtest filter, or a command of its own; or one pytest file."""

    def __init__(self, entry: dict, environment: dict[str, str] | None = None):
        self.name: str = entry["name"]
        self.environment = environment or {}
        self.command: list[str] = [part for part in entry["command"] if not part.startswith("--gtest")]
        filters = [part.removeprefix("--gtest_filter=") for part in entry["command"] if part.startswith("--gtest_filter=")]
        self.filter = filters[0] if filters else None
        self.seconds = 0.0
        self.reaches: set[int] = set()


def run(command: list[str], environment: dict[str, str], limit: float) -> tuple[str, str]:
    """What became of it (passed, failed, crashed or timed out), and its output."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True, env={**os.environ, **ONE_THREAD, **environment},
                                   start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        output.seek(0)
        text = output.read()
    return "timed out" if code is None else "passed" if code == 0 else "crashed" if code < 0 else "failed", text


def pytest_cases(tree: pathlib.Path) -> list[Case]:
    def case(name: str) -> Case:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-W", "ignore", "-p", "no:cacheprovider", str(tree / f"tests/python/{name}.py")]
        return Case({"name": f"python.{name}", "command": command}, {"PYTHONPATH": str(tree / OUTPUT / "package")})

    return [case(name) for name in PYTEST_FILES] if (tree / OUTPUT / "package/fusible/lib").is_dir() else []


def cases_of(tree: pathlib.Path, jobs: int) -> list[Case]:
    """Every ctest case and pytest file with its time and the places that it reaches, from a run without a mutant, which must be green."""
    shown = subprocess.run(["ctest", "--test-dir", str(tree / OUTPUT), "--show-only=json-v1"], capture_output=True, text=True, check=True)
    cases = [Case(entry) for entry in json.loads(shown.stdout)["tests"] if pathlib.Path(entry.get("command", ["-"])[0]).is_file()]
    cases = [case for case in cases if not any(fnmatch.fnmatch(case.name, pattern) for pattern in LEFT_OUT)]
    cases += pytest_cases(tree)
    libraries = sorted(path for path in (tree / OUTPUT).rglob("*") if path.is_file() and os.access(path, os.X_OK) and "CMakeFiles" not in path.parts)
    stamp = [[str(path), path.stat().st_mtime_ns] for path in libraries]
    kept = tree / OUTPUT / "reached.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {"stamp": None}
    if known["stamp"] == stamp:
        for case in cases:
            if case.name in known["cases"]:
                case.seconds, reaches = known["cases"][case.name]
                case.reaches = set(reaches)
    new = [case for case in cases if known["stamp"] != stamp or case.name not in known["cases"]]
    if not new:
        return cases

    def trace(case: Case) -> str | None:
        with tempfile.TemporaryDirectory() as temporary:
            file = pathlib.Path(temporary, "reached")
            filtered = [f"--gtest_filter={case.filter}"] if case.filter else []
            begin = time.monotonic()
            outcome, output = run([*case.command, *filtered], {**case.environment, "FUSIBLE_MUTANT_TRACE": str(file)}, 900)
            own = re.search(r"ran\. \((\d+) ms total\)", output)  # without the start of the process, which the cases of a batch share
            case.seconds = int(own[1]) / 1000 if own else time.monotonic() - begin
            case.reaches = {int(line) for line in file.read_text().split()} if file.is_file() else set()
        return None if outcome == "passed" else f"{case.name} {outcome} without a mutant:\n{output[-3000:]}"

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for done, failure in enumerate(pool.map(trace, new), 1):
            if failure:
                raise Failed(failure)
            progress(f"what {done} of {len(new)} cases reach")
    kept.write_text(json.dumps({"stamp": stamp, "cases": {case.name: [case.seconds, sorted(case.reaches)] for case in cases}}))
    return cases


def batches(cases: list[Case]) -> list[list[Case]]:
    """Cases that one process runs, the quickest first."""
    groups = collections.defaultdict(list)
    for case in cases:
        order = sum(case.seconds > bound for bound in CLASSES)
        groups[order, *case.command, "" if case.filter else case.name].append(case)
    return sorted(groups.values(), key=lambda group: (sum(group[0].seconds > bound for bound in CLASSES), sum(case.seconds for case in group)))


def judge(mutant: Mutant, cases: list[Case]) -> dict[str, str]:
    """What becomes of the mutant: how it was killed and by which case, or "survived", or "not reached"."""
    met = [case for case in cases if mutant.number in case.reaches]
    result = {"digest": mutant.digest, "rule": mutant.rule, "listed in": mutant.listed_in, "outcome": "survived" if met else "not reached"}
    for group in batches(met):
        filtered = [f"--gtest_filter={':'.join(case.filter for case in group)}", "--gtest_fail_fast"] if group[0].filter else []
        outcome, output = run([*group[0].command, *filtered], {**group[0].environment, "FUSIBLE_MUTANT": str(mutant.number)},
                              30 + 10 * sum(case.seconds for case in group))
        if outcome == "passed":
            continue
        result["outcome"] = outcome
        named = re.findall(r"^\[  FAILED  \] ([^\s,]+)" if outcome == "failed" else r"^\[ RUN      \] (\S+)", output, re.M)
        named += re.findall(r"^FAILED \S*?(\w+\.py::\S+)", output, re.M)
        test = (named[0] if outcome == "failed" else named[-1]) if named else ""
        result["killed by"] = next((case.name for case in group if case.filter == test), test or group[0].name)
        break
    return result


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def known_results() -> dict[str, dict[str, str]]:
    return json.loads(RESULTS.read_text())["mutants"] if RESULTS.is_file() else {}


def check(mutants: list[Mutant], asked: list[Mutant], tree: pathlib.Path, targets: list[str], jobs: int) -> int:
    write_tree(mutants, tree)
    print(f"{len(mutants)} mutants in {tree}; building", flush=True)
    build(tree, targets, jobs)
    cases = cases_of(tree, jobs)
    results = {mutant.key: known for mutant in mutants if (known := known_results().get(mutant.key))}
    lock = threading.Lock()

    def one(mutant: Mutant) -> tuple[Mutant, dict[str, str]]:
        result = judge(mutant, cases)
        with lock:
            results[mutant.key] = result
            RESULTS.write_text(json.dumps({"mutants": dict(sorted(results.items()))}, indent=1) + "\n")
        return mutant, result

    begin = time.monotonic()
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        for done, (mutant, result) in enumerate(pool.map(one, asked), 1):
            progress("")
            print(f"{result['outcome']:<12} {mutant.key}  <- {result.get('killed by', 'nothing')}", flush=True)
            progress(f"{done} of {len(asked)}, {(time.monotonic() - begin) / done * (len(asked) - done) / 60:.0f} minutes to go")
    finally:
        pool.shutdown(cancel_futures=True)
    equivalent = {mutant.key for mutant in mutants if mutant.equivalent}
    left = [key for key, result in results.items() if "killed by" not in result and key not in equivalent]
    red = sum("killed by" in result for result in results.values())
    print(f"{red} of {len(results)} mutants turned a case red, {len(results) - red - len(left)} cannot be seen; "
          f"{len(asked)} run in {(time.monotonic() - begin) / 60:.1f} minutes")
    for key in left:
        print(f"{results[key]['outcome']}: {key}")
    return 1 if left else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", help="mutants whose file, name or rule holds TEXT")
    parser.add_argument("--all", action="store_true", help="also those that results.json says were killed")
    parser.add_argument("--list", action="store_true", help="print the mutants, build nothing")
    parser.add_argument("--targets", nargs="+", default=["all"], help="build and run these executables alone, such as test_passes (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once (default: all cores)")
    parser.add_argument("--tree", type=pathlib.Path, default=ROOT / "build/mutation", help="the tree with all mutants (default: build/mutation)")
    arguments = parser.parse_args()
    try:
        mutants = listed()
        asked = [m for m in mutants if not arguments.only or any(arguments.only in text for text in (m.listed_in, m.file, m.name, m.rule))]
        if arguments.list:
            print(*(f"{mutant.rule:<36} {mutant.key}" for mutant in asked), sep="\n")
            return 0
        known = known_results()
        if not arguments.all and not arguments.only:
            asked = [m for m in asked if known.get(m.key, {}).get("digest") != m.digest or "killed by" not in known[m.key]]
        return check(mutants, asked, arguments.tree, arguments.targets, arguments.jobs)
    except (Failed, ValueError, KeyError) as error:
        print(f"check.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: results.json holds what was found; the same command goes on", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
