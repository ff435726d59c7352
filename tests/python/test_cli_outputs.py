"""Where the command line writes, and what it does when it cannot: streams that are closed, full or of ASCII, files that are read, interrupts."""
import argparse
import io
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import fusible
import pytest
import torch
from fusible.cli import progress
from fusible.linting import add_output_arguments, style_of
from test_cli import run
from torch import nn


class SecondUse(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + y


@pytest.fixture
def found(tmp_path):
    """An archive with a finding."""
    path = tmp_path / "found.pt"
    torch.jit.script(SecondUse().eval()).save(str(path))
    return path


def shell(command, folder, **env):
    """With `fusible` for the command."""
    command = f'fusible() {{ "{sys.executable}" -W ignore -m fusible "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=folder, env={**os.environ, **env})


@pytest.mark.parametrize("command, code", [
    ("fusible lint found.pt --isolated | true", 1),
    ("fusible lint found.pt --isolated --output-format json | head -1", 1),
    ("fusible lint found.pt --isolated >&-", 1),
    ("fusible lint found.pt --isolated >&- 2>&-", 1),
    ("fusible lint found.pt --isolated --exit-zero | true", 0),
    ("fusible rule | true", 0),
])
def test_the_exit_code_is_the_gate_s_whoever_reads(command, code, found, tmp_path):
    done = shell(f"{command}; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert done.returncode == code and done.stderr == "", done.stderr


def test_a_budget_that_nobody_hears_of_fails_too(found, tmp_path):
    assert shell("fusible lint found.pt --isolated --min-fused 1 2>&1 | true; exit ${PIPESTATUS[0]}", tmp_path).returncode in (1, 2)


@pytest.mark.parametrize("command", ["fusible lint found.pt --isolated >/dev/full", "fusible rule >/dev/full", "fusible doctor found.pt >/dev/full"])
def test_a_full_stdout_is_one_sentence(command, found, tmp_path):
    done = shell(command, tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("fusible: error: stdout could not be ") and done.stderr.count("\n") == 1, done.stderr


def test_stdout_of_ascii_gets_what_it_can_show(found, tmp_path):
    plain = shell("fusible lint found.pt --isolated", tmp_path, PYTHONIOENCODING="utf-8")
    ascii_only = shell("fusible lint found.pt --isolated", tmp_path, PYTHONIOENCODING="ascii")
    assert not plain.stdout.isascii() and ascii_only.returncode == plain.returncode == 1 and ascii_only.stderr == ""
    assert ascii_only.stdout == plain.stdout.encode("ascii", "replace").decode()


def style(monkeypatch, *arguments, **env):
    parser, terminal = argparse.ArgumentParser(), io.StringIO()
    add_output_arguments(parser)
    terminal.isatty = lambda: True
    for name in ("TERM", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return style_of(parser.parse_args(arguments), terminal).colour


def test_a_dumb_terminal_gets_colour_only_when_told(monkeypatch):
    assert style(monkeypatch, TERM="xterm") and not style(monkeypatch, TERM="dumb")
    assert style(monkeypatch, TERM="dumb", FORCE_COLOR="1") and style(monkeypatch, "--color", "always", TERM="dumb")


@pytest.mark.parametrize("arguments, option", [
    (["lint", "found.pt", "--isolated", "-o", "found.pt"], "--output"),
    (["lint", ".", "--isolated", "-o", "link.json"], "--output"),
    (["lint", "found.pt", "--isolated", "--write-baseline", "hard.json"], "--write-baseline"),
    (["lint", "found.pt", "--isolated", "--baseline", "b.json", "-o", "b.json"], "--output"),
    (["diff", "found.pt", "found.pt", "-o", "./found.pt"], "--output"),
])
def test_no_output_goes_over_what_is_read(arguments, option, found, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("link.json").symlink_to(found)
    Path("hard.json").hardlink_to(found)
    Path("b.json").write_text("{}")
    before = found.read_bytes()
    code, stdout, stderr = run(capsys, *arguments)
    assert code == 2 and stdout == "" and f"error: {option}: a file that is not read was needed, found {Path(arguments[-1])}" in stderr
    assert found.read_bytes() == before and Path("b.json").read_text() == "{}"


def test_a_report_is_written_whole_or_not_at_all(found, tmp_path):
    out = tmp_path / "report.json"
    out.write_text("old")
    done = shell("ulimit -f 1; fusible lint found.pt --isolated --output-format json -o report.json", tmp_path)
    assert done.returncode == 2 and done.stderr == "fusible: error: report.json could not be written: File too large\n"
    assert out.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == ["found.pt", "report.json"]


def test_a_report_below_a_file_names_the_file(found, capsys):
    code, _, stderr = run(capsys, "lint", found, "--isolated", "-o", found / "report.json")
    assert code == 2 and f"a file in a folder was needed, found {found}/report.json, whose folder cannot be made: " in stderr


def test_a_name_may_be_as_long_as_names_can_be(archive, tmp_path, capsys):
    for out in (tmp_path / ("f" * 252 + ".pt"), tmp_path / ("r" * 250 + ".json")):
        verb = "fuse" if out.suffix == ".pt" else "lint"
        assert run(capsys, verb, archive, "-o", out, *(["--isolated"] if verb == "lint" else []))[0] == 0
        assert out.stat().st_size and len(list(tmp_path.iterdir())) == (2 if verb == "fuse" else 3)


@pytest.fixture
def interruptible():
    """A process that was started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_after_the_rename_tells_what_was_written(archive, tmp_path, capsys, monkeypatch, interruptible):
    out = tmp_path / "fused.pt"
    replace = Path.replace

    def interrupted(self, target):
        replace(self, target)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Path, "replace", interrupted)
    for arguments in (["fuse", archive, "-o", out], ["lint", archive, "--isolated", "-o", tmp_path / "report.txt"]):
        assert run(capsys, *arguments)[::2] == (130, f"fusible: interrupted, {arguments[-1]} was written\n")
        assert arguments[-1].stat().st_size


def test_the_report_of_a_fuse_is_read_before_the_file_is_there(archive, tmp_path, capsys, monkeypatch):
    def report(fused):
        raise ValueError("no report")

    monkeypatch.setattr(fusible, "report", report)
    assert run(capsys, "fuse", archive, "-o", tmp_path / "fused.pt")[0] == 2 and not (tmp_path / "fused.pt").exists()


def test_an_interrupt_when_all_is_done_is_not_heard(archive, tmp_path):
    """Nor is its traceback printed: Python still runs what was registered for its end."""
    (tmp_path / "late.py").write_text("import atexit, os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
                                      "atexit.register(os.kill, os.getpid(), signal.SIGINT)\nfrom fusible.cli import main\nsys.exit(main())\n")
    done = subprocess.run([sys.executable, "-W", "ignore", "late.py", "fuse", archive, "-o", "fused.pt"], capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(Path(fusible.__file__).parents[1])})
    assert done.returncode == 0 and done.stderr == "" and (tmp_path / "fused.pt").exists()


def test_what_was_declined_is_asked_for_with_the_same_options(archive, tmp_path, capsys):
    spaced = archive.rename(tmp_path / "a model.pt")
    stderr = run(capsys, "fuse", spaced, "-o", tmp_path / "f.pt", "--strict", "--target", "aten", "--method", "forward")[2]
    assert stderr == f"why not: fusible lint '{spaced}' --method forward --target aten --strict\n"
    assert "not fused" in run(capsys, "lint", spaced, "--isolated", "--method", "forward", "--target", "aten", "--strict")[1]


def test_a_model_that_is_fused_already_is_named_so(archive, tmp_path, capsys):
    assert "already" not in run(capsys, "fuse", archive, "-o", tmp_path / "f.pt")[2]
    assert "note: the module was made by fuse already" in run(capsys, "fuse", tmp_path / "f.pt", "-o", tmp_path / "g.pt")[2]


def test_strict_promises_no_more_than_it_keeps(capsys):
    text = " ".join(run(capsys, "fuse", "--help")[1].split())
    assert "fold no weights; sums may be added in another order (with --target aten: the same bits)" in text and "exact" not in text


@pytest.mark.parametrize("arguments, says", [
    (["--method", "nope"], ["error: {first}: methods: 'nope'", "error: {second}: methods: 'nope'"]),
    (["--sample"], ["fusible: error: --sample: shapes to measure with were needed, found none: add --input"]),
    (["--patterns", "bad.fus"], ["fusible: error: bad.fus:2:"]),
    (["--sample", "--input", "1,4,16,16"], ["error: {first}: inputs that the model takes were needed to measure with, on those of --input it raises: "]),
])
def test_what_is_wrong_is_said_once_where_it_is(arguments, says, found, archive, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.fus").write_text("activation wrong\n  spelling y = = aten::relu(x)\n")
    code, _, stderr = run(capsys, "lint", found, archive, "--isolated", *arguments)
    assert code == 2 and stderr.count("\n") == len(says)
    for line, beginning in zip(stderr.splitlines(), says):
        assert line.startswith(beginning.format(first=found, second=archive)), stderr


def test_an_empty_argument_is_not_the_working_directory(archive, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = run(capsys, "lint", "", "--isolated")
    assert code == 2 and stdout == "" and "found an empty argument" in stderr


def test_a_circle_of_links_and_a_link_to_nothing_stop_no_other_model(archive, tmp_path, capsys):
    (tmp_path / "circle.pt").symlink_to("circle.pt")
    (tmp_path / "dangling.pt").symlink_to("none.pt")
    for arguments in ([tmp_path], [tmp_path / "circle.pt", tmp_path / "dangling.pt", archive]):
        code, stdout, stderr = run(capsys, "lint", *arguments, "--isolated")
        assert code == 2 and str(archive) in stdout
        assert all(f"found a symbolic link that leads nowhere at {tmp_path}/{name}.pt" in stderr for name in ("circle", "dangling"))


def shown(monkeypatch, columns, steps):
    """The lines that the progress of `steps` draws on a terminal of so many columns."""
    terminal = io.StringIO()
    terminal.isatty, terminal.fileno = lambda: True, lambda: 2
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0)
    monkeypatch.setattr(progress.os, "get_terminal_size", lambda descriptor: types.SimpleNamespace(columns=columns))
    with progress.progress("a model with a long name.pt") as show:
        for stage, share in steps:
            show(stage, share)
    return [line for line in terminal.getvalue().split("\r") if line.strip()]


def test_progress_fits_the_terminal_and_never_goes_back(monkeypatch):
    steps = [("verify", 0.8), ("load", 0.0), ("report", 0.95)]
    assert max(map(len, shown(monkeypatch, 40, steps))) == 39
    bars = [line.count("━") for line in shown(monkeypatch, 120, steps)]
    assert bars == sorted(bars) and bars[0] < bars[-1] and "report" in shown(monkeypatch, 120, steps)[-1]
