"""Faults while a module is fused or written: the module and the file stay whole, and the message says where it stopped."""
import os
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

def test_a_full_disk_leaves_the_old_file_and_nothing_else(archive, tmp_path):
    out = tmp_path / "fused.pt"
    out.write_text("old")
    full = (1 << 10, resource.RLIM_INFINITY)
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", "fusible", "fuse", archive, "-o", out], capture_output=True, text=True, timeout=300,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, full))
    assert done.returncode == 2 and done.stdout == ""
    assert f"{out} could not be written" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert out.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == ["fused.pt", "model.pt"]


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
