"""A fused module's submodules are wrapped when they are asked for; what a user sees is what torch's own wrappers show."""
import copy
import threading

import fusible
import pytest
import torch
from torch import nn
from torch.jit._recursive import wrap_cpp_module


@pytest.fixture()
def fused():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    model = nn.Sequential(inner, nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())).eval()
    return fusible.fuse(torch.jit.script(model))


def wrapped(module):
    """How many of its submodules have a wrapper by now."""
    children = module._modules.__dict__.get("_python_modules", {})
    return sum(1 + wrapped(child) for child in children.values())


def test_fuse_run_and_save_wrap_no_submodule(fused, tmp_path):
    fused(torch.randn(1, 3, 8, 8))
    fused.save(str(tmp_path / "fused.pt"))
    fusible.report(fused)
    assert wrapped(fused) == 0


def test_what_is_seen_is_what_torch_shows(fused):
    torchs = wrap_cpp_module(fused._c)
    assert [name for name, _ in fused.named_modules()] == [name for name, _ in torchs.named_modules()]
    assert [m.original_name for m in fused.modules()] == [m.original_name for m in torchs.modules()]
    assert isinstance(fused, type(torchs))  # of its own class: its save writes the file whole
    assert [type(m) for m in fused.modules()][1:] == [type(m) for m in torchs.modules()][1:]
    assert list(fused.state_dict()) == list(torchs.state_dict())
    assert list(fused._modules.keys()) == list(torchs._modules.keys())
    assert len(fused._modules) == len(torchs._modules) and repr(fused) == repr(torchs) and str(fused.graph) == str(torchs.graph)
    assert wrapped(fused) == len(list(torchs.modules())) - 1


def test_a_submodule_is_one_object(fused):
    first = getattr(fused, "0")
    assert first is getattr(fused, "0") is fused._modules["0"] is dict(fused.named_children())["0"]
    assert "0" in fused._modules and "7" not in fused._modules and not hasattr(fused, "7")


def test_modes_reach_submodules(fused):
    assert not any(m.training for m in fused.modules())
    fused.train()
    assert all(m.training for m in wrap_cpp_module(fused._c).modules())


def test_a_submodule_is_replaced_by_one_of_its_type(fused):
    other = copy.deepcopy(fused)
    inner = getattr(fused, "0")
    setattr(fused, "0", inner)
    assert getattr(fused, "0") is inner
    with pytest.raises(RuntimeError, match="non-scripted"):
        setattr(fused, "0", nn.ReLU())
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(fused(x), other(x))


def test_threads_get_the_same_wrappers(fused):
    start, seen = threading.Barrier(8), []

    def look():
        start.wait()
        seen.append(getattr(fused, "1"))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8 and all(module is seen[0] for module in seen)
