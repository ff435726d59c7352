"""Every step of the front page, on a real network. Results on stdout; 80 columns."""
from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

from fusible.demo.page import RULE, Page, rewrite

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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fusible.demo", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="interleaved rounds of the timing (default 7)")
    parser.add_argument("--write", type=Path, metavar="README.md", help="put what was printed between the markers of this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # torch deprecates TorchScript: the README says so
    page = Page()
    same = show(page, arguments.rounds)
    if arguments.write:
        rewrite(arguments.write, page.text)
    return 0 if same else 1


def show(page: Page, rounds: int) -> bool:
    """Runs every step; whether the loaded model gave the bits of the saved one."""
    import torch

    import fusible
    from fusible.demo.resnet50 import IMAGE, resnet50
    from fusible.gate import LIBRARY
    from fusible.race import Runner, race

    page.line(f"fusible {fusible.version()} on torch {torch.__version__}, {torch.get_num_threads()} threads, "
              f"{torch.backends.cpu.get_cpu_capability()}")
    page.line(RULE)
    with tempfile.TemporaryDirectory(prefix="fusible-demo-") as folder:
        before, after = Path(folder) / "resnet50.pt", Path(folder) / "fused.pt"
        x = torch.randn(IMAGE, generator=torch.Generator().manual_seed(1))
        with page.step("script") as step:
            scripted = torch.jit.script(resnet50())
            scripted.save(str(before))
            step.say(f"resnet50.pt, {before.stat().st_size / 2**20:.0f} MB")
        with page.step("lint") as step:
            report = fusible.lint(before, progress=step.progress)
            step.say(count_line(report), *declined(report))
        with page.step("fuse") as step:
            report = fusible.report(fusible.fuse(scripted, (x,), verify=False, progress=step.progress))
            kinds = fused_patterns(report)
            step.say(f"into {sum(kinds.values())} operators of {len(kinds)} kinds", *(f"{number:>4} x {kind}" for kind, number in kinds.most_common()))
        with page.step("verify") as step:
            fused = fusible.fuse(scripted, (x,), verify=True, progress=step.progress)
            with torch.no_grad():
                reference, found = scripted(x), fused(x)
            error = ((found - reference).abs().max() / reference.abs().max()).item()
            step.say(f"max error {error:.1e} of max |y|, equal dtype and strides")
        with page.step("save") as step:
            fused.save(str(after))
            step.say(f"fused.pt, {after.stat().st_size / 2**20:.0f} MB")
        with page.step("load") as step:
            torch.save(x, f"{folder}/x.pt")
            subprocess.run([sys.executable, "-W", "ignore", "-c", LOADER, str(LIBRARY), str(after), f"{folder}/x.pt", f"{folder}/y.pt"], check=True)
            same = torch.equal(torch.load(f"{folder}/y.pt"), found)
            step.say(f"in a process that has only libfusible.so: {'the same bits' if same else 'OTHER BITS'}")
        with page.step("time") as step:
            shape = ",".join(map(str, IMAGE))
            with Runner(before, [shape]) as old, Runner(after, [shape], library=True) as new:
                result = race(old, new, rounds=rounds, tick=lambda done: step.progress(f"round {done} of {rounds}", done / rounds))
            step.say(*timing(result, rounds))
    page.line(RULE)
    return same


def count_line(report) -> str:
    counts = report.counts
    return f"{counts['candidates']} candidates: {counts['fused']} fused, {counts['declined']} declined, {counts['suppressed']} suppressed"


def fused_patterns(report) -> Counter[str]:
    """How often each sequence was fused: one operator each."""
    return Counter(verdict.pattern for verdict in report.fused if "batch_norm" not in verdict.site.op)


def declined(report) -> list[str]:
    kinds = Counter((finding.code, finding.name) for finding in report.diagnostics if finding.severity != "note")
    return [f"{number:>4} x {code} {name}: fusible rule {code}" for (code, name), number in kinds.most_common()]


def timing(result, rounds: int) -> list[str]:
    before, after = (1e3 * sorted(times)[len(times) // 2] for times in (result.before, result.after))
    low, high = result.quantile(0.1), result.quantile(0.9)
    verdict = "the spread includes 1: no difference was shown" if low < 1 < high else f"{'faster' if low >= 1 else 'slower'} in at least 9 of 10 rounds"
    scale = 40 / max(before, after)
    return [f"batch 1, {rounds} interleaved round{'s' if rounds != 1 else ''}",
            f"before {before:7.1f} ms  {'█' * max(1, round(scale * before))}",
            f"after  {after:7.1f} ms  {'█' * max(1, round(scale * after))}",
            f"before / after {result.median:.2f} (10th to 90th percentile {low:.2f} to {high:.2f})",
            verdict]


if __name__ == "__main__":
    raise SystemExit(main())
