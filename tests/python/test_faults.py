"""Faults while a module is fused or written: the module and the file stay whole, and the message says where it stopped."""
import copy
import errno
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import fusible
import pytest
import torch
from fusible.cli import main
from oracle import assert_same, assert_same_bits
from torch import nn


def test_a_full_disk_leaves_the_old_file_and_nothing_else(archive, tmp_path):
    out = tmp_path / "fused.pt"
    out.write_text("old")
    full = (1 << 10, resource.RLIM_INFINITY)
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", "fusible", "fuse", archive, "-o", out], capture_output=True, text=True, timeout=300,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, full))
    assert done.returncode == 2 and done.stdout == ""
    assert f"{out} could not be written" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert out.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == ["fused.pt", "model.pt"]


SAVE = """
import copy, resource, sys
import fusible, torch

module = torch.jit.load(sys.argv[1])
fused = fusible.fuse(module)
ways = {"save": lambda path: fusible.save(fused, path), "method": fused.save, "jit.save": lambda path: torch.jit.save(fused, path),
        "of a copy": copy.deepcopy(fused).save, "of any module": lambda path: fusible.save(module, path)}
if len(sys.argv) > 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, resource.RLIM_INFINITY))
for way, save in ways.items():
    try:
        save(sys.argv[2])
    except OSError as error:
        print(f"{way}: {error}", error.errno)
"""
WAYS = ["save", "method", "jit.save", "of a copy", "of any module"]


def refusals(*arguments):
    path = str(Path(fusible.__file__).parents[1])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SAVE, *map(str, arguments)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-500:])
    return done.stdout.splitlines()


def test_no_way_to_save_from_python_ends_the_process_or_harms_the_old_file(archive, tmp_path):
    out = tmp_path / "fused.pt"
    out.write_text("old")
    says = f"{out} could not be written: {os.strerror(errno.EFBIG)} {errno.EFBIG}"
    assert refusals(archive, out, "limited") == [f"{way}: {says}" for way in WAYS]
    assert out.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == ["fused.pt", "model.pt"]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", folder], capture_output=True).returncode:
        pytest.skip("a file system of 8 KiB needs the right to mount one")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full_in_earnest(archive, small_disk):
    out = small_disk / "fused.pt"
    out.write_text("old")
    assert refusals(archive, out) == [f"{way}: {out} could not be written: {os.strerror(errno.ENOSPC)} {errno.ENOSPC}" for way in WAYS]
    assert out.read_text() == "old" and [path.name for path in small_disk.iterdir()] == ["fused.pt"]


def test_saving_keeps_what_torch_s_own_writer_offers(scripted, x, tmp_path):
    fused = fusible.fuse(scripted)
    (tmp_path / "link.pt").symlink_to(tmp_path / "fused.pt")
    for module in (fused, copy.deepcopy(fused), copy.copy(fused)):
        module.save(tmp_path / "link.pt", _extra_files={"note": b"kept"})
        files = {"note": ""}
        loaded = torch.jit.load(tmp_path / "fused.pt", _extra_files=files)
        assert files == {"note": b"kept"} and (tmp_path / "link.pt").is_symlink()
        with torch.no_grad():
            assert_same_bits(loaded(x), fused(x))
    (tmp_path / "fused.pt").chmod(0o640)
    fusible.save(fused, str(tmp_path / "fused.pt"))
    assert (tmp_path / "fused.pt").stat().st_mode & 0o777 == 0o640
    fusible.save(fused, "/dev/null")
    with pytest.raises(OSError, match="none/fused.pt could not be written: No such file or directory"):
        fusible.save(fused, tmp_path / "none" / "fused.pt")
    with pytest.raises(fusible.FusibleError, match="a ScriptModule was needed"):
        fusible.save(nn.Linear(2, 2), tmp_path / "fused.pt")


def test_a_new_file_has_the_mode_of_the_umask_which_nobody_sees_changed(scripted, tmp_path, monkeypatch):
    umask, before = os.umask, os.umask(0o027)
    monkeypatch.setattr(os, "umask", None)
    try:
        fusible.save(scripted, tmp_path / "new.pt")
    finally:
        umask(before)
    assert (tmp_path / "new.pt").stat().st_mode & 0o777 == 0o640


def test_what_fuse_returns_is_used_like_any_other_script_module(scripted, x):
    fused = fusible.fuse(scripted)
    assert isinstance(fused, torch.jit.RecursiveScriptModule) and fused.original_name == scripted.original_name
    with torch.no_grad():
        for module in (fusible.fuse(fused), copy.deepcopy(fused), fused.eval(), torch.jit.freeze(fused), torch.jit.script(fused),
                       torch.jit.script(nn.Sequential(fused)), torch.jit.trace(fused, x)):
            assert_same_bits(module(x), fused(x))


@pytest.fixture
def interruptible():
    """A process that was started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_while_writing_leaves_the_old_file_and_nothing_else(archive, tmp_path, capsys, monkeypatch, interruptible):
    out = tmp_path / "fused.pt"
    out.write_text("old")
    chmod = Path.chmod

    def interrupted(self, mode):
        assert self.suffix == ".part" and self.stat().st_size > 1000, "the archive lies beside its place"
        os.kill(os.getpid(), signal.SIGINT)
        chmod(self, mode)

    monkeypatch.setattr(Path, "chmod", interrupted)
    assert main(["fuse", str(archive), "-o", str(out)]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert out.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == ["fused.pt", "model.pt"]


def test_an_operator_that_this_torch_lacks_is_named_with_its_rule(scripted, x):
    rule = """rule lacking
  match e = aten::exp(x)
  match y = aten::erf(e)
  emit  y = nobody::erf_of_exp(x)
"""
    with torch.no_grad():
        before = scripted(x)
        with pytest.raises(fusible.FusibleError, match=r"patterns\[0\]:4:13.*nobody::erf_of_exp"):
            fusible.fuse(scripted, patterns=[rule])
        assert_same_bits(scripted(x), before)


def test_without_onednn_the_operators_run_on_aten(scripted, x):
    fused = fusible.fuse(scripted)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        assert_same(fused(x), scripted(x))


def test_an_exception_in_the_caller_s_progress_leaves_the_module_whole(scripted, x):
    """In every stage, one after the other."""
    with torch.no_grad():
        before = scripted(x)
        stages = []
        fusible.fuse(scripted, (x,), progress=lambda stage, share: stages.append(stage))
        for last in range(len(stages)):
            seen = []

            def stop(stage, share):
                seen.append(stage)
                if len(seen) > last:
                    raise ZeroDivisionError(stage)

            with pytest.raises(ZeroDivisionError, match=stages[last]):
                fusible.fuse(scripted, (x,), progress=stop)
            assert_same_bits(scripted(x), before)


OUT_OF_MEMORY = """
import re, resource, sys
import fusible, torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(2048, 2048, 3, bias=False), nn.BatchNorm2d(2048), nn.ReLU()).eval()  # 151 MB of weights
scripted = torch.jit.script(model)
x = torch.randn(1, 2048, 12, 12).contiguous(memory_format=torch.channels_last)
with torch.no_grad():
    before = scripted(x)
    fused = fusible.fuse(scripted) if sys.argv[1] == "pack" else None
    held = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (held + (100 << 20), resource.RLIM_INFINITY))
    try:
        fused(x) if fused else fusible.fuse(scripted)
    except RuntimeError if fused else fusible.FusibleError as error:
        print("said:", error)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    after = (fused or scripted)(x)
    print("equal:", bool((after - before).abs().max() <= 1e-5 * before.abs().max()))
"""


@pytest.mark.parametrize("stage, says", [
    ("fuse", r"fuse failed in stage rewrite at conv\+batch_norm\+relu \(0.*can't allocate memory.*the module is as it was"),
    ("pack", r"packing the weight \[2048, 2048, 3, 3\] of a fused operator failed.*can't allocate memory"),
])
def test_memory_that_runs_out_is_named_with_its_place_and_breaks_nothing(stage, says):
    path = str(Path(fusible.__file__).parents[1])
    result = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY, stage], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert re.search("said: .*" + says if stage == "fuse" else says, result.stdout), result.stdout + result.stderr
    assert "equal: True" in result.stdout
