"""The command line: what each verb prints, where, and the exit code. Bad input: one clear sentence, exit 2, nothing written."""
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fusible
import pytest
import torch
from fusible.cli import main
from fusible.demo.resnet50 import resnet50
from fusible.model_files import model_files
from hostile_archives import KINDS, rewrite
from oracle import assert_same, assert_same_bits


def run(capsys, *arguments):
    """Exit code, stdout, stderr of the command, in this process."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit_:  # argparse
        code = exit_.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_file_that_is_no_archive_gets_one_sentence_and_nothing_is_written(make, archive, model, tmp_path, capsys):
    bad, out = tmp_path / "bad.pt", tmp_path / "out" / "fused.pt"
    out.parent.mkdir()
    make(bad, archive, model)
    code, stdout, stderr = run(capsys, "fuse", bad, "-o", out)
    assert code == 2 and stdout == ""
    assert stderr.startswith("fusible: error: ") and stderr.count("\n") == 1, stderr
    assert KINDS[make] in stderr and str(bad) in stderr
    assert list(out.parent.iterdir()) == []
    code, stdout, stderr = run(capsys, "lint", bad, "--isolated")
    assert code == 2 and KINDS[make] in stderr
    with pytest.raises(fusible.FusibleError, match=KINDS[make]):
        fusible.load(bad)


def test_an_archive_saved_on_cuda_is_mapped_to_the_cpu(archive, scripted, x, tmp_path, capsys):
    cuda = tmp_path / "cuda.pt"
    rewrite(archive, cuda, lambda name, data: data.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0") if name.endswith(".pkl") else data)
    assert "cuda:0" in run(capsys, "doctor", cuda)[1]
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.jit.load(cuda)
    with torch.no_grad():
        assert_same_bits(fusible.load(cuda)(x), scripted(x))
        assert_same(fusible.fuse(fusible.load(cuda))(x), scripted(x))


def test_fuse_writes_an_archive_that_computes_the_same(archive, scripted, x, tmp_path, capsys):
    out = tmp_path / "fused.pt"
    code, stdout, _ = run(capsys, "fuse", archive, "-o", out, "--input", "2,3,9,9")
    assert code == 0 and f"{out}: " in stdout and " fused" in stdout
    loaded = torch.jit.load(out)
    with torch.no_grad():
        assert_same(loaded(x), scripted(x))
    assert fusible.report(loaded).counts["fused"] >= 2


def test_fuse_says_when_its_input_verified_nothing(archive, tmp_path, capsys):
    code, stdout, stderr = run(capsys, "fuse", archive, "-o", tmp_path / "f.pt", "--input", "2,7,9,9")
    assert code == 0 and "fused" in stdout and "not verified: the original raises on these inputs: " in stderr


def test_fuse_over_its_own_input_keeps_a_usable_file(archive, scripted, x, capsys):
    archive.chmod(0o640)
    assert run(capsys, "fuse", archive, "-o", archive)[0] == 0
    assert archive.stat().st_mode & 0o777 == 0o640
    with torch.no_grad():
        assert_same(torch.jit.load(archive)(x), scripted(x))


@pytest.mark.parametrize("arguments, says", [
    (["-o", "nowhere/fused.pt"], "folder that exists"),
    (["-o", "{tmp}/f.pt", "--input", "2,x,9"], "1,3,224,224"),
    (["-o", "{tmp}/f.pt", "--input", "2,3:floatish"], "1,3,224,224"),
    (["-o", "{tmp}/f.pt", "--input", "1,3,9,9:quint8"], "--input: a tensor that torch can make was needed, found '1,3,9,9:quint8'"),
    (["-o", "{tmp}/f.pt", "--input", "1,3,9,9:bits8"], "--input: a tensor that torch can make was needed"),
    (["-o", "{tmp}/f.pt", "--input", "99999999999999999"], "--input: a tensor that torch can make was needed"),
    (["-o", "{tmp}/f.pt", "--input", "99999999999999999999999"], "--input: a tensor that torch can make was needed"),
    (["-o", "{tmp}/f.pt", "--input", "2,3,9,9", "--input", "1"], "at most 1"),
    (["-o", "{tmp}/f.pt", "--tune"], "--tune: an input to measure with was needed, found none: add --input"),
    (["-o", "{tmp}/f.pt", "--tune", "--input", "2,3,9,9", "--target", "aten"], "target=\"cpu\" was needed"),
    (["-o", "{tmp}/f.pt", "--target", "gpu"], "invalid choice: 'gpu'"),
    (["-o", "{tmp}/f.pt", "--method", "encode"], "encode"),
    (["-o", "{tmp}/f.pt", "--patterns", "{tmp}/none.fus"], "none.fus"),
    (["-o", "{tmp}/f.pt", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    ([], "-o/--output"),
])
def test_an_unusable_option_gets_one_sentence_and_nothing_is_written(arguments, says, archive, tmp_path, capsys):
    code, stdout, stderr = run(capsys, "fuse", archive, *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert code == 2 and stdout == "" and says in stderr, stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_what_no_verb_expects_is_no_finding_but_unusable(archive, capsys, monkeypatch):
    def lint(*_, **__):
        raise RuntimeError("what the reader sees\nand what torch adds")

    monkeypatch.setattr(fusible, "lint", lint)
    code, stdout, stderr = run(capsys, "lint", archive, "--isolated")
    assert code == 2 and stdout == "" and stderr.count("\n") == 1
    assert re.search(r"`fusible lint` failed at lint\.py:\d+ with RuntimeError: what the reader sees: please report it", stderr)


def test_a_file_whose_name_is_not_utf_8(archive, tmp_path):
    bad, out = os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.pt"), os.fsdecode(os.fsencode(tmp_path) + b"/out\xff.pt")
    os.rename(archive, bad)
    for arguments in (["lint", bad, "--isolated", "--exit-zero"], ["fuse", bad, "-o", out], ["doctor", bad],
                      ["bench", bad, "--fused", out, "--rounds", "1", "--input", "2,3,9,9"]):
        done = subprocess.run([sys.executable, "-W", "ignore", "-m", "fusible", *arguments], capture_output=True)
        assert done.returncode == 0 and done.stdout, done.stderr
        assert arguments[0] == "bench" or "\ufffd.pt" in done.stdout.decode()
    assert os.path.isfile(out)
    (tmp_path / "bad.fus").write_text("activation\n  nonsense")
    os.rename(tmp_path / "bad.fus", bad + ".fus")
    with pytest.raises(fusible.FusibleError, match="bad\ufffd.pt.fus:"):
        fusible.load_patterns(Path(bad + ".fus"))


@pytest.mark.parametrize("arguments", ["lint /dev/stdin", "fuse /dev/stdin -o fused.pt"])
def test_a_pipe_is_no_archive_and_is_told_to_be_written_to_a_file(arguments, archive, tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", "fusible", *arguments.split()], input=archive.read_bytes(), capture_output=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"in a seekable file, found a pipe at /dev/stdin: write it to a file first" in done.stderr


@pytest.mark.parametrize("command", ["fuse model.pt -o >(cat > out.pt) | cat; sleep 0.2", "fuse model.pt -o /dev/stdout | cat > out.pt",
                                     "fuse model.pt -o /dev/stdout > out.pt"])
def test_an_archive_goes_to_a_pipe_or_to_stdout_and_nothing_else_with_it(command, archive, scripted, x, tmp_path):
    done = subprocess.run(["bash", "-c", f"set -o pipefail; '{sys.executable}' -W ignore -m fusible {command}"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fused, 0 declined" in (done.stderr if "stdout" in command else done.stdout)
    with torch.no_grad():
        assert_same(torch.jit.load(tmp_path / "out.pt")(x), scripted(x))


def test_a_bad_pattern_file_is_named_with_line_and_column(archive, tmp_path, capsys):
    bad = tmp_path / "bad.fus"
    bad.write_text("activation wrong\n  spelling y = = aten::relu(x)\n")
    code, _, stderr = run(capsys, "fuse", archive, "-o", tmp_path / "f.pt", "--patterns", bad)
    assert code == 2 and ":2:" in stderr and not (tmp_path / "f.pt").exists(), stderr


def test_a_training_module_and_a_state_dict_are_refused(model, tmp_path, capsys):
    torch.jit.script(model.train()).save(str(tmp_path / "train.pt"))
    code, _, stderr = run(capsys, "fuse", tmp_path / "train.pt", "-o", tmp_path / "f.pt")
    assert code == 2 and "eval()" in stderr and stderr.count("\n") == 1


def test_lint_tells_on_stdout_and_fails_by_severity(archive, capsys):
    code, stdout, stderr = run(capsys, "lint", archive, "--isolated", "--output-format", "json")
    assert code in (0, 1) and stderr == ""
    report = json.loads(stdout)
    report = report[0] if isinstance(report, list) else report
    assert report.get("schema", 1) == 1
    assert run(capsys, "lint", archive, "--isolated", "--exit-zero", "--fail-on", "note")[0] == 0
    assert run(capsys, "lint", archive, "--isolated", "--fail-on", "note")[0] == 1  # parameters-are-constants


def test_lint_goes_on_after_a_file_that_it_cannot_use(archive, tmp_path, capsys):
    code, stdout, stderr = run(capsys, "lint", tmp_path / "none.pt", archive, "--isolated")
    assert code == 2 and "none.pt" in stderr and "model.pt" in stdout


@pytest.fixture
def folder(archive, tmp_path):
    """models/: a.pt, nested/b.torchscript, a state_dict, and an archive in a hidden folder."""
    for name in ("a.pt", "nested/b.torchscript", ".hidden/c.pt"):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.read_bytes())
    torch.save({"weight": torch.ones(2)}, tmp_path / "models/checkpoint.pth")
    (tmp_path / "models/notes.ts").write_text("export const answer = 42;\n")
    return tmp_path / "models"


def models_of(stdout):
    return [Path(report["model"]["path"]).name for report in json.loads(stdout)]


@pytest.mark.parametrize("jobs", [1, 3])
def test_lint_reads_the_archives_of_a_folder_in_one_order_and_names_what_it_leaves_out(jobs, folder, capsys):
    code, stdout, stderr = run(capsys, "lint", folder, "--isolated", "--output-format", "json", "--jobs", jobs)
    assert code in (0, 1) and models_of(stdout) == ["a.pt", "b.torchscript"]
    assert stderr.startswith("note: 2 of 4 files hold no TorchScript") and "checkpoint.pth" in stderr and "notes.ts" in stderr


def test_lint_of_fused_archives_names_each_by_its_file(archive, tmp_path, capsys):
    for name in ("one.pt", "other.pt"):
        run(capsys, "fuse", archive, "-o", tmp_path / name)
    _, stdout, _ = run(capsys, "lint", tmp_path / "one.pt", tmp_path / "other.pt", "--isolated", "--output-format", "json")
    assert models_of(stdout) == ["one.pt", "other.pt"]


def test_lint_of_a_folder_waits_for_no_pipe(folder):
    os.mkfifo(folder / "pipe.pt")
    assert model_files([folder]).others == (folder / "checkpoint.pth", folder / "notes.ts", folder / "pipe.pt")


def test_lint_expands_globs_and_takes_each_model_once(folder, capsys):
    code, stdout, stderr = run(capsys, "lint", f"{folder}/**/*.torchscript", folder / "a.pt", folder, "--isolated", "--output-format", "json")
    assert code in (0, 1) and models_of(stdout) == ["b.torchscript", "a.pt"]
    (folder / ".empty").mkdir()
    for nothing in (f"{folder}/*.onnx", folder / ".empty"):
        code, stdout, stderr = run(capsys, "lint", nothing, "--isolated")
        assert code == 2 and stdout == "" and "found no TorchScript archive" in stderr and str(nothing) in stderr


def test_lint_of_a_folder_fails_for_what_should_have_been_a_model(folder, capsys):
    for name, content in (("lfs.pt", b"version https://git-lfs.github.com/spec/v1\n"), ("empty.pt", b""), ("cut.pt", (folder / "a.pt").read_bytes()[:999])):
        (folder / name).write_bytes(content)
    code, stdout, stderr = run(capsys, "lint", folder, "--isolated", "--output-format", "json")
    assert code == 2 and models_of(stdout) == ["a.pt", "b.torchscript"]
    assert all(f"{name}.pt" in stderr for name in ("lfs", "empty", "cut"))


def test_lint_of_many_models_stops_at_ctrl_c(folder, capsys, monkeypatch):
    def endless(model, progress, **rest):
        for _ in range(3000):
            progress("match", 0.5)
            time.sleep(0.01)

    monkeypatch.setattr(fusible, "lint", endless)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        begin = time.monotonic()
        code, stdout, stderr = run(capsys, "lint", folder, "--isolated", "-j", "2")
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130 and stdout == "" and "interrupted" in stderr and time.monotonic() - begin < 10


def test_rule_explains_a_code_by_number_and_by_name(capsys):
    code, by_number, _ = run(capsys, "rule", "FUS201")
    assert code == 0 and "second-use" in by_number
    assert run(capsys, "rule", "second-use")[1] == by_number
    assert "FUS201" in run(capsys, "rule")[1]
    code, _, stderr = run(capsys, "rule", "FUS999")
    assert code == 2 and "FUS999" in stderr


def test_patterns_prints_the_files_that_are_embedded(capsys):
    listed = run(capsys, "patterns")[1]
    folder = Path(__file__).parents[2] / "patterns"
    for path in folder.glob("*.fus"):
        assert path.stem in listed
        assert run(capsys, "patterns", path.stem)[1].rstrip() == path.read_text().rstrip()
    code, _, stderr = run(capsys, "patterns", "rleu")
    assert code == 2 and "relu" in stderr


def test_doctor_tells_versions_and_what_keeps_the_pass_from_running(capsys):
    code, stdout, _ = run(capsys, "doctor")
    assert code == 0
    for fact in (torch.__version__, fusible.version(), torch.backends.cpu.get_cpu_capability(), "libgomp", "JIT pass"):
        assert fact in stdout


def test_doctor_reads_a_model_and_never_loads_it(archive, tmp_path, capsys, monkeypatch):
    fused = tmp_path / "fused.pt"
    fusible.fuse(fusible.load(archive)).save(str(fused))
    monkeypatch.setattr(fusible.api._C, "load", None)
    assert "fusible" not in run(capsys, "doctor", archive)[1].split("operators")[1].splitlines()[0]
    _, stdout, _ = run(capsys, "doctor", fused)
    assert "fusible" in stdout.split("operators")[1].splitlines()[0] and "libfusible.so" in stdout
    assert run(capsys, "doctor", tmp_path / "none.pt")[0] == 2


def test_bench_gives_a_ratio_with_its_spread(archive, capsys):
    code, stdout, _ = run(capsys, "bench", archive, "--input", "2,3,9,9", "--rounds", "2", "--threads", "1", "--json")
    result = json.loads(stdout)
    assert code == 0 and len(result["before_s"]) == len(result["after_s"]) == 2 and result["ratio"] > 0
    code, _, stderr = run(capsys, "bench", archive, "--input", "2,5,9,9", "--rounds", "1", "--fused", archive)
    assert code == 2 and "could not be timed" in stderr
    code, _, stderr = run(capsys, "bench", archive, "--threads", "0")
    assert code == 2 and "--threads: at least 1 was needed, found 0" in stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--cmake-prefix"], ["rule", "FUS201"], ["patterns"], ["lint", "--help"], ["diff", "--help"], ["fuse", "--help"],
                                       ["bench", "--help"], ["doctor", "--help"]], ids=" ".join)
def test_what_needs_no_torch_does_not_import_it(arguments, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    path = os.pathsep.join([str(tmp_path), str(Path(fusible.__file__).parents[1])])
    command, env = [sys.executable, "-m", "fusible", *arguments], {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 0 and result.stdout, result.stderr
    if arguments[0] in ("--help", "--version", "rule"):
        assert processor_seconds(command, env) - processor_seconds([sys.executable, "-c", ""], env) < 0.1


def test_linting_a_resnet50_costs_little_more_than_loading_it(tmp_path):
    path, env = tmp_path / "resnet50.pt", {**os.environ, "PYTHONPATH": str(Path(fusible.__file__).parents[1])}
    torch.jit.script(resnet50()).save(str(path))
    linted = processor_seconds([sys.executable, "-m", "fusible", "lint", str(path), "--isolated", "--exit-zero"], env, 3)
    loaded = processor_seconds([sys.executable, "-c", f"import torch; torch.jit.load({str(path)!r})"], env, 3)
    assert linted - loaded < 0.25


def processor_seconds(command, env, runs=5):
    """The least of some runs; processor time, which other processes on this machine do not lengthen as they do the clock's."""
    def once():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, env=env, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(runs))


def test_every_help_has_an_example(capsys):
    for verb in ("fuse", "lint", "diff", "rule", "patterns", "doctor", "bench"):
        code, stdout, _ = run(capsys, verb, "--help")
        assert code == 0 and f"examples:\n  fusible {verb}" in stdout
