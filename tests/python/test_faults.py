"""Faults while a module is fused or written: the module and the file stay whole, and the message says where it stopped."""
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
