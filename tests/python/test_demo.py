"""The demo: every step runs, the README shows what it prints, and its timing claims no more than its rounds show."""
import subprocess
import sys
from pathlib import Path

import pytest
from fusible.demo.__main__ import timing
from fusible.demo.page import WIDTH, block_of, masked, rewrite
from fusible.race import Result

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What `python -m fusible.demo` prints, and the file that it rewrote."""
    copy = tmp_path_factory.mktemp("demo") / "README.md"
    copy.write_text(README.read_text())
    result = subprocess.run([sys.executable, "-W", "ignore", "-m", "fusible.demo", "--rounds", "1", "--write", str(copy)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout, copy.read_text()


@pytest.mark.slow
def test_the_demo_runs_whole_in_80_columns(printed):
    text, _ = printed
    assert all(len(line) <= WIDTH for line in text.splitlines()), max(text.splitlines(), key=len)
    assert [word for word in ("script", "lint", "fuse", "verify", "save", "load", "time") if f"✓ {word}" not in text] == []
    assert "107 candidates: 107 fused" in text and "the same bits" in text


@pytest.mark.slow
def test_the_readme_shows_what_the_demo_prints(printed):
    text, rewritten = printed
    assert masked(block_of(README.read_text())) == masked(text), "run `make readme`"
    assert block_of(rewritten) == text


@pytest.mark.slow
def test_the_rest_of_the_readme_stays(printed):
    before, after = README.read_text(), printed[1]
    assert before.replace(block_of(before), "") == after.replace(block_of(after), "")


def test_only_times_versions_and_errors_are_masked():
    text = block_of(README.read_text())
    assert text.count("\n") == masked(text).count("\n")
    for line in ("107 candidates: 107 fused, 0 declined, 0 suppressed", "  33 x conv+batch_norm+relu", "resnet50.pt, 98 MB", "the same bits"):
        assert line in masked(text), line
    assert masked(text.replace("33 x", "32 x")) != masked(text)


def test_a_file_without_markers_is_left_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# nothing\n")
    with pytest.raises(ValueError, match="found none"):
        rewrite(page, "text\n")
    assert page.read_text() == "# nothing\n"


@pytest.mark.parametrize("before, after, says", [
    ((2.0, 2.2, 2.1), (1.0, 1.0, 1.0), "faster in"),
    ((1.0, 1.0, 1.0), (2.0, 2.2, 2.1), "slower in"),
    ((1.0, 2.0, 1.0), (2.0, 1.0, 1.0), "no difference was shown"),
])
def test_the_timing_says_what_the_rounds_show(before, after, says):
    lines = timing(Result(before, after), 3)
    assert says in lines[-1] and "VERDICT" in masked(lines[-1])
    assert max(line.count("█") for line in lines) == 40
    assert all(len(line) + 12 <= WIDTH for line in lines)
