"""Opens TorchScript archives: one clear sentence for each way in which a file is not one."""
from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch.jit._recursive import wrap_cpp_module

from fusible import _C

LFS_POINTER = b"version https://git-lfs"


def problem_of(path: Path) -> str | None:
    """Why `path` cannot be a TorchScript archive, by its bytes alone: nothing is loaded. None when it may be one."""
    if not path.exists():
        return f"a TorchScript archive was needed, found nothing at {path}"
    if path.is_dir():
        return f"a TorchScript archive was needed, found the directory {path}"
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return f"a TorchScript archive was needed, found the empty file {path}"
    if head.startswith(LFS_POINTER):
        return f"a TorchScript archive was needed, found a Git LFS pointer at {path}: run `git lfs pull`"
    if not zipfile.is_zipfile(path):
        return f"a TorchScript archive (zip) was needed, found another or a truncated file at {path}"
    try:
        names = zipfile.ZipFile(path).namelist()
    except zipfile.BadZipFile as error:
        return f"a whole TorchScript archive was needed, found a damaged one at {path}: {error}"
    inner = {name.split("/", 1)[-1] for name in names}
    if "constants.pkl" not in inner:
        if "data.pkl" in inner:
            return f"a TorchScript archive was needed, found a torch.save file at {path}: script or trace the module and save that"
        return f"a TorchScript archive was needed, found a zip without one at {path}"
    return None


def load_archive(path: Path) -> torch.jit.ScriptModule:
    """Loads onto the CPU. Raises FusibleError."""
    problem = problem_of(path)
    if problem:
        raise _C.FusibleError(problem)
    try:
        return wrap_cpp_module(_C.load(str(path)))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise _C.FusibleError(f"a TorchScript archive that torch {torch.__version__} can load was needed, {path} failed: {reason}") from error
