"""Fusing takes time linear in the nodes of the graph, and the report's stages tell nearly all of it. Times are the process's own, not the wall's."""
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
