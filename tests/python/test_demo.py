"""The demo: every step runs, and its timing claims no more than its rounds show."""
import pytest
from fusible.demo.__main__ import WIDTH, timing
from fusible.race import Result


@pytest.mark.slow
def test_the_demo_runs_whole_in_80_columns(python):
    lines = python("-m", "fusible.demo", "--rounds", "1").stdout.splitlines()
    assert all(len(line) <= WIDTH for line in lines), max(lines, key=len)
    text = "\n".join(lines)
    assert [word for word in ("script", "lint", "fuse", "verify", "save", "load", "time") if f"✓ {word}" not in text] == []
    assert "107 candidates: 107 fused" in text and "the same bits" in text


@pytest.mark.parametrize("before, after, says", [
    ((2.0, 2.2, 2.1), (1.0, 1.0, 1.0), "faster in"),
    ((1.0, 1.0, 1.0), (2.0, 2.2, 2.1), "slower in"),
    ((1.0, 2.0, 1.0), (2.0, 1.0, 1.0), "nothing was shown"),
])
def test_the_timing_says_what_the_rounds_show(before, after, says):
    lines = timing(Result(before, after), 3)
    assert says in lines[-1]
    assert max(line.count("█") for line in lines) == 40
    assert all(len(line) + 12 <= WIDTH for line in lines)
