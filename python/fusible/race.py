"""Times archives against each other: each in a process of its own, in turn, round by round.

Threads of one engine spin and take cores from another inside one process; absolute times drift with the machine. So the figure is the ratio of
two times taken one after the other, and its spread over the rounds.

    with Runner("model.pt", ["1,3,224,224"]) as before, Runner("fused.pt", ["1,3,224,224"], library=True) as after:
        rounds = race(before, after, rounds=7)
"""
from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

WARM_UP_CALLS = 5
ROUND_SECONDS = 0.4


@dataclass(frozen=True)
class Result:
    """Seconds per call, one pair per round."""

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """before / after of each round, sorted: larger than 1 is faster."""
        return sorted(old / new for old, new in zip(self.before, self.after))

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    def quantile(self, share: float) -> float:
        return self.ratios[round(share * (len(self.ratios) - 1))]


class Runner:
    """A process that holds one archive and times it on demand."""

    def __init__(self, archive: Path | str, inputs: Sequence[str], *, library: bool = False, threads: int | None = None) -> None:
        order = {"archive": str(archive), "inputs": list(inputs), "library": library, "threads": threads}
        self._process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "fusible.race", json.dumps(order)],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()

    def measure(self) -> float:
        """Median seconds per call of one round. Raises ValueError with the process's last line when it ended."""
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            last = (self._process.stderr.read().strip().splitlines() or ["no message"])[-1]
            raise ValueError(f"the model could not be timed: {last}")
        return float(answer)


def race(before: Runner, after: Runner, *, rounds: int, tick: Callable[[int], None] = lambda done: None) -> Result:
    """Alternates who goes first, so that a drift of the machine does not favour one side."""
    times: tuple[list[float], list[float]] = ([], [])
    runners = (before, after)
    for index in range(rounds):
        for side in (0, 1) if index % 2 == 0 else (1, 0):
            times[side].append(runners[side].measure())
        tick(index + 1)
    return Result(tuple(times[0]), tuple(times[1]))


def _serve(order: dict) -> None:
    import time

    import torch

    from fusible.cli.options import example_inputs

    if order["library"]:
        from fusible.gate import LIBRARY

        torch.ops.load_library(str(LIBRARY))
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    with open(order["archive"], "rb") as archive:  # torch takes no name that is not UTF-8
        module = torch.jit.load(archive, map_location="cpu")
    inputs = example_inputs(order["inputs"]) or ()
    with torch.no_grad():
        for _ in range(WARM_UP_CALLS):
            module(*inputs)
        for _ in sys.stdin:
            calls: list[float] = []
            while sum(calls) < ROUND_SECONDS or len(calls) < 3:
                start = time.perf_counter()
                module(*inputs)
                calls.append(time.perf_counter() - start)
            print(statistics.median(calls), flush=True)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
