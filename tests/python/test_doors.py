"""The other doors: hosts in C++ built from the installed package, a host that knows nothing of fusible, and a process with the library alone."""
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fusible
import pytest
import torch
from fusible.cli.doctor import OPENMP
from fusible.gate import LIBRARY, PACKAGE
from oracle import assert_same_bits
from torch import nn

ROOT = Path(__file__).parents[2]
SHAPE = ["2", "3", "9", "9"]


@pytest.fixture(scope="session")
def hosts(tmp_path_factory):
    """Builds examples/NAME with CMake, once: hosts(NAME) -> path of the program."""
    folder = tmp_path_factory.mktemp("hosts")
    built = {}

    def build(name):
        if name not in built:
            prefix = subprocess.run([sys.executable, "-m", "fusible", "--cmake-prefix"], capture_output=True, text=True, check=True).stdout.strip()
            launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
            configure = ["cmake", "-S", ROOT / "examples" / name, "-B", folder / name, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *launcher,
                         f"-DCMAKE_PREFIX_PATH={prefix};{torch.utils.cmake_prefix_path}"]
            for command in (configure, ["cmake", "--build", folder / name]):
                result = subprocess.run(command, capture_output=True, text=True)
                assert result.returncode == 0, result.stdout + result.stderr
            built[name] = folder / name / name
        return built[name]

    return build


def run(*command, **env):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **env})


def test_a_cpp_host_loads_fuses_runs_and_saves(hosts, archive, tmp_path, x, python):
    out = tmp_path / "fused.pt"
    result = run(hosts("cpp_host"), archive, out, *SHAPE)
    assert result.returncode == 0, result.stderr
    fused, candidates = map(int, re.search(r"fused (\d+) of (\d+), error", result.stdout).groups())
    counts = fusible.lint(archive).counts
    assert (fused, candidates) == (counts["fused"], counts["candidates"]) and fused >= 2
    loaded = torch.jit.load(out)
    with torch.no_grad():
        assert_same_bits(loaded(x), fusible.fuse(torch.jit.load(archive))(x))


def test_a_cpp_host_tells_unusable_input_in_a_sentence(hosts, model, tmp_path):
    train = tmp_path / "train.pt"
    torch.jit.script(model.train()).save(str(train))
    result = run(hosts("cpp_host"), train, tmp_path / "out.pt", *SHAPE)
    assert result.returncode == 2 and "eval()" in result.stderr and not (tmp_path / "out.pt").exists()
    result = run(hosts("cpp_host"), tmp_path / "none.pt", tmp_path / "out.pt", *SHAPE)
    assert result.returncode == 2 and result.stderr.startswith("cpp_host: ")


def test_hosts_tell_what_they_cannot_run_in_a_sentence(hosts, archive, tmp_path):
    for host, arguments in (("cpp_host", [tmp_path / "out.pt"]), ("preloaded_host", [])):
        for model, shape, says in ((archive, ["2", "7", "9", "9"], "3 channels"), (archive, ["2", "x", "9", "9"], 'found "x"'),
                                   (tmp_path / "none.pt", SHAPE, "none.pt")):
            result = run(hosts(host), model, *arguments, *shape)
            assert result.returncode == 2 and result.stderr.startswith(f"{host}: ") and says in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_the_cmake_package_refuses_another_torch(tmp_path):
    fake = tmp_path / "torch"
    fake.mkdir()
    (fake / "TorchConfig.cmake").write_text("set(Torch_FOUND TRUE)\n")
    (fake / "TorchConfigVersion.cmake").write_text(
        'set(PACKAGE_VERSION 2.14.0)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\nif(PACKAGE_FIND_VERSION STREQUAL PACKAGE_VERSION)\n'
        "  set(PACKAGE_VERSION_EXACT TRUE)\nendif()\n")
    result = subprocess.run(["cmake", "-S", ROOT / "examples" / "cpp_host", "-B", tmp_path / "build", "-G", "Ninja", f"-DTorch_DIR={fake}",
                             f"-DCMAKE_PREFIX_PATH={PACKAGE}"], capture_output=True, text=True)
    assert result.returncode != 0 and "2.13.0" in result.stderr and "2.14.0" in result.stderr


def plan(stdout):
    return Counter({name: int(number) for name, number in re.findall(r"^plan (\S+) (\d+)$", stdout, re.M)})


def sums(stdout):
    return [float(value) for value in re.findall(r"^sum (\S+)$", stdout, re.M)]


@pytest.fixture
def weight_agnostic(tmp_path):
    """What can be fused while the weights are attributes: no batch_norm between the convolution and its activation."""
    torch.manual_seed(5)
    path = tmp_path / "conv_relu.pt"
    torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()).eval()).save(str(path))
    return path


def test_a_host_that_knows_nothing_of_fusible_is_fused_when_preloaded(hosts, weight_agnostic):
    archive = weight_agnostic
    host = hosts("preloaded_host")
    bare = run(host, archive, *SHAPE)
    assert bare.returncode == 0 and not [name for name in plan(bare.stdout) if "fusible" in name]
    preloaded = run(host, archive, *SHAPE, LD_PRELOAD=str(LIBRARY), FUSIBLE_ENABLE="1")
    assert preloaded.returncode == 0, preloaded.stderr
    assert sum(number for name, number in plan(preloaded.stdout).items() if name.startswith("fusible::")) >= 1, preloaded.stdout
    assert sums(preloaded.stdout) == pytest.approx(sums(bare.stdout), rel=1e-5) and len(sums(bare.stdout)) == 5


def test_preloading_alone_changes_nothing(hosts, archive):
    host = hosts("preloaded_host")
    idle = run(host, archive, *SHAPE, LD_PRELOAD=str(LIBRARY))
    assert idle.returncode == 0 and idle.stdout == run(host, archive, *SHAPE).stdout


def test_a_preloaded_host_loads_a_fused_archive(hosts, archive, tmp_path):
    fused = tmp_path / "fused.pt"
    fusible.fuse(torch.jit.load(archive)).save(str(fused))
    host = hosts("preloaded_host")
    assert run(host, fused, *SHAPE).returncode != 0
    result = run(host, fused, *SHAPE, LD_PRELOAD=str(LIBRARY))
    assert result.returncode == 0, result.stderr
    assert sums(result.stdout) == pytest.approx(sums(run(host, archive, *SHAPE).stdout), rel=1e-5)


def openmp_runtimes(text):
    """Of a list of mapped files. Two runtimes would each keep a team of threads, which take the cores from each other."""
    return sorted({path for path in re.findall(r"(/\S*)", text) if Path(path).name.startswith(OPENMP)})


def test_one_openmp_runtime_is_mapped_and_it_is_torch_s(hosts, python, archive):
    code = "import sys, fusible, torch; fusible.fuse(torch.jit.load(sys.argv[1]))(torch.rand(2, 3, 9, 9)); print(open('/proc/self/maps').read())"
    for runtimes in (openmp_runtimes(python("-W", "ignore", "-c", code, archive).stdout),
                     openmp_runtimes(run("cat", "/proc/self/maps", LD_PRELOAD=str(LIBRARY)).stdout),
                     openmp_runtimes(run(hosts("preloaded_host"), LD_PRELOAD=str(LIBRARY), LD_TRACE_LOADED_OBJECTS="1").stdout)):
        assert len(runtimes) == 1 and Path(runtimes[0]).parent.name in ("lib", "torch.libs"), runtimes
        assert "torch" in runtimes[0]


LOAD = """
import sys, torch
torch.ops.load_library(sys.argv[1])
module = torch.jit.load(sys.argv[2])
with torch.no_grad():
    torch.save([module(torch.load(sys.argv[3])) for _ in range(3)], sys.argv[4])
assert not [name for name in sys.modules if name.startswith("fusible")]
"""


def test_a_fused_file_runs_where_only_the_library_was_loaded(scripted, x, tmp_path, python):
    fused = fusible.fuse(scripted)
    fused.save(str(tmp_path / "fused.pt"))
    torch.save(x, tmp_path / "x.pt")
    python("-c", LOAD, LIBRARY, tmp_path / "fused.pt", tmp_path / "x.pt", tmp_path / "y.pt", cwd=tmp_path)
    with torch.no_grad():
        for y in torch.load(tmp_path / "y.pt"):
            assert_same_bits(y, fused(x))


def test_without_the_library_torch_names_what_is_missing(scripted, tmp_path, python):
    fusible.fuse(scripted).save(str(tmp_path / "fused.pt"))
    code = "import sys, torch; torch.jit.load(sys.argv[1])"
    result = python("-c", code, tmp_path / "fused.pt", check=False)
    assert result.returncode != 0 and "fusible" in result.stderr


def test_target_aten_needs_no_library(scripted, x, tmp_path, python):
    fused = fusible.fuse(scripted, target="aten")
    fused.save(str(tmp_path / "aten.pt"))
    torch.save(x, tmp_path / "x.pt")
    code = "import sys, torch; torch.save(torch.jit.load(sys.argv[1])(torch.load(sys.argv[2])).detach(), sys.argv[3])"
    python("-c", code, tmp_path / "aten.pt", tmp_path / "x.pt", tmp_path / "y.pt")
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "y.pt"), scripted(x), rtol=1e-5, atol=1e-5)
