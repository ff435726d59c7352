"""Fusing takes time linear in the nodes of the graph, and a small multiple of what torch's own inlining of it takes. Times are the process's own,
not the wall's."""
import sys
import time
from pathlib import Path

import fusible
import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))
from fuse_cost import chain  # noqa: E402

SMALL, FACTOR = 60, 8


@pytest.fixture(scope="module")
def chains():
    return chain(SMALL), chain(FACTOR * SMALL)


def seconds(action, repeats=3):
    """The least of a few runs, in seconds of processor time."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("action", [fusible.lint, fusible.fuse], ids=["lint", "fuse"])
def test_eight_times_the_nodes_take_about_eight_times_the_time(chains, action):
    small, large = (seconds(lambda: action(module)) for module in chains)
    assert large < 2.5 * FACTOR * small, f"{small:.3f} s and {large:.3f} s: a quadratic step makes it {FACTOR ** 2} times"


def test_costs_a_small_multiple_of_inlining(chains):
    """A yardstick of the same machine and load: torch copies and inlines the graph, once; 4 times to 5 times that was measured."""
    _, large = chains
    fusing, inlining = seconds(lambda: fusible.fuse(large)), seconds(lambda: large.inlined_graph)
    assert fusing < 10 * inlining, f"{fusing:.3f} s and {inlining:.3f} s"
