"""Every step of the front page, on a real network. Results on stdout; 80 columns."""
from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WIDTH = 80
LOADER = """
import sys, torch
torch.ops.load_library(sys.argv[1])
module = torch.jit.load(sys.argv[2])
x = torch.load(sys.argv[3])
with torch.no_grad():
    y = module(x)
assert "fusible" not in sys.modules
torch.save(y, sys.argv[4])
"""


class Page:
    """One line per step: what, how long, what came out."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()

    def title(self, text: str) -> None:
        print(f"{text}\n{'─' * WIDTH}")

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        if self.live:
            print(f"  … {name}", end="", flush=True)
        start, said = time.perf_counter(), []
        yield said
        seconds = time.perf_counter() - start
        text = said[0] if said else ""
        print(("\r" if self.live else "") + f"  ✓ {name:<8}{text:<{WIDTH - 21}}{seconds:7.2f} s", flush=True)
        for line in said[1:]:
            print(f"    {'':<8}{line}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fusible.demo", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="interleaved rounds of the timing (default 7)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # torch deprecates TorchScript: the README says so
    import torch

    import fusible
    from fusible.gate import LIBRARY
    from fusible.race import Runner, race

    from fusible.demo.resnet50 import IMAGE, resnet50

    page = Page()
    page.title(f"fusible {fusible.version()} on torch {torch.__version__}, {torch.get_num_threads()} threads, "
               f"{torch.backends.cpu.get_cpu_capability()}")
    with tempfile.TemporaryDirectory(prefix="fusible-demo-") as folder:
        before, after = Path(folder) / "resnet50.pt", Path(folder) / "fused.pt"
        x = torch.randn(IMAGE, generator=torch.Generator().manual_seed(1))
        with page.step("script") as said:
            scripted = torch.jit.script(resnet50())
            scripted.save(str(before))
            said.append(f"resnet50.pt, {before.stat().st_size / 2**20:.0f} MB")
        with page.step("lint") as said:
            report = fusible.lint(before)
            said += [count_line(report), *declined(report)]
        with page.step("fuse") as said:
            fused = fusible.fuse(scripted, (x,), verify=False)
            report = fusible.report(fused)
            said += [count_line(report), *fused_patterns(report)]
        with page.step("verify") as said:
            fused = fusible.fuse(scripted, (x,), verify=True)
            with torch.no_grad():
                reference, found = scripted(x), fused(x)
            error = ((found - reference).abs().max() / reference.abs().max()).item()
            said.append(f"max error {error:.1e} of max |y|")
        with page.step("save") as said:
            fused.save(str(after))
            said.append(f"fused.pt, {after.stat().st_size / 2**20:.0f} MB")
        with page.step("load") as said:
            torch.save(x, f"{folder}/x.pt")
            subprocess.run([sys.executable, "-W", "ignore", "-c", LOADER, str(LIBRARY), str(after), f"{folder}/x.pt", f"{folder}/y.pt"], check=True)
            same = torch.equal(torch.load(f"{folder}/y.pt"), found)
            said.append(f"in a process that has only libfusible.so: {'the same bits' if same else 'OTHER BITS'}")
        with page.step("time") as said:
            shape = ",".join(map(str, IMAGE))
            with Runner(before, [shape]) as old, Runner(after, [shape], library=True) as new:
                result = race(old, new, rounds=arguments.rounds)
            said += timing(result, arguments.rounds)
    print("─" * WIDTH)
    return 0 if same else 1


def count_line(report) -> str:
    counts = report.counts
    return f"{counts['candidates']} candidates: {counts['fused']} fused, {counts['declined']} declined, {counts['suppressed']} suppressed"


def fused_patterns(report) -> list[str]:
    """How often each sequence was fused, the most frequent first."""
    kinds = Counter(verdict.pattern for verdict in report.fused if "batch_norm" not in verdict.site.op)
    return [f"{number:>4} x {pattern}" for pattern, number in kinds.most_common()]


def declined(report) -> list[str]:
    kinds = Counter((finding.code, finding.name) for finding in report.diagnostics if finding.severity != "note")
    return [f"{number:>4} x {code} {name}: fusible rule {code}" for (code, name), number in kinds.most_common()]


def timing(result, rounds: int) -> list[str]:
    before, after = (1e3 * sorted(times)[len(times) // 2] for times in (result.before, result.after))
    low, high = result.quantile(0.1), result.quantile(0.9)
    verdict = "the spread includes 1: nothing was shown" if low < 1 < high else f"{'faster' if low >= 1 else 'slower'} in at least 9 of 10 rounds"
    scale = 40 / max(before, after)
    return [f"batch 1, {rounds} interleaved rounds",
            f"before {before:7.1f} ms  {'█' * max(1, round(scale * before))}",
            f"after  {after:7.1f} ms  {'█' * max(1, round(scale * after))}",
            f"before / after {result.median:.2f} (10th to 90th percentile {low:.2f} to {high:.2f})",
            verdict]


if __name__ == "__main__":
    raise SystemExit(main())
