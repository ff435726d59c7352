"""What a bug report needs: versions, machine, libraries mapped, what keeps fusible.enable() from running; of a model, what it requires.

A model is read as text and never loaded: nothing of it is executed. The rows `JIT pass` speak of the process that prints them: to ask
one of your own, call fusible.cli.main(["doctor"]) in it, or fusible.why_not_running(model) for a single model.
"""
from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from pathlib import Path

EXAMPLES = """examples:
  fusible doctor
  fusible doctor model.pt
"""
OPENMP = ("libgomp", "libiomp", "libomp")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL.pt", help="say what this archive needs to load")


def run(arguments: argparse.Namespace) -> int:
    rows = of_model(arguments.model) if arguments.model else of_process()
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0


def of_process() -> Iterator[tuple[str, str]]:
    from fusible.gate import LIBRARY, PACKAGE, build_info

    info = build_info()
    yield "fusible", f"{info['version']}, built for torch {info['torch']} and Python {info['python']} ({info['compiler']}, {info['build_type']})"
    yield "package", str(PACKAGE)
    yield "library", f"{LIBRARY}" if LIBRARY.exists() else f"{LIBRARY} is missing: reinstall fusible"
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    try:
        import torch
    except ModuleNotFoundError:
        yield "torch", f"none was found: run `pip install torch=={info['torch']}`"
        return
    yield "torch", f"{torch.__version__} (CUDA: {torch.version.cuda or 'none'})"
    yield "cpu", f"{_cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"
    yield "oneDNN", "available" if torch.backends.mkldnn.is_available() else "not in this torch: convolutions run on ATen"
    yield "threads", f"{torch.get_num_threads()} in an operator, {torch.get_num_interop_threads()} between, {os.cpu_count()} cores"
    try:
        import fusible

        fusible.version()
    except ImportError as error:
        yield "import", f"fails: {error}"
        return
    runtimes = openmp_runtimes()
    yield "OpenMP", ", ".join(runtimes) if len(runtimes) < 2 else f"{len(runtimes)} runtimes are mapped, they take cores from each other: {', '.join(runtimes)}"
    for variable in ("FUSIBLE_ENABLE", "LD_PRELOAD", "OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "PYTORCH_JIT"):
        if variable in os.environ:
            yield variable, os.environ[variable]
    yield "JIT pass", "enabled" if fusible.enabled() else "disabled"
    yield from (("JIT pass", reason) for reason in fusible.why_not_running())


def openmp_runtimes() -> list[str]:
    """Paths of the OpenMP runtimes mapped into this process."""
    paths = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return sorted(path for path in paths if Path(path).name.startswith(OPENMP))


def of_model(path: Path) -> Iterator[tuple[str, str]]:
    from fusible.archive import Contents, one_line, problem_of, runs_code, told

    if problem := problem_of(path):
        raise ValueError(problem)
    contents = Contents.of(path)
    yield "archive", f"{told(path)} ({path.stat().st_size / 2**20:.1f} MB, format version {contents.version})"
    yield "operators", ", ".join(contents.namespaces) or "none"
    if "fusible" in contents.namespaces:
        yield "needs", "libfusible.so: `import fusible`, torch.ops.load_library, or LD_PRELOAD in a host that knows nothing of it"
    foreign = [name for name in contents.namespaces if name not in ("aten", "prim", "prims", "fusible", "mkldnn", "quantized")]
    if foreign:
        yield "needs", f"the libraries that register {', '.join(foreign)}; without them torch says `Unknown builtin op`"
    yield "devices", ", ".join(contents.devices) or "none"
    if any(device.startswith("cuda") for device in contents.devices):
        yield "note", "saved on CUDA: fusible maps it to the CPU; a plain torch.jit.load on a CPU build needs map_location"
    yield "debug info", "whole: findings name file and line" if contents.debug_files else "none: findings name modules, not lines (stripped at save)"
    code = runs_code(path)
    yield "runs on load", one_line(", ".join([*contents.setstate, *filter(None, [code])])) or "nothing"
    if code:
        yield "note", f"loading it runs {code}: lint, fuse and bench stop at that without --trust"


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
