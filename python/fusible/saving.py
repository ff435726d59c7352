"""Archives written whole: torch's own writer ends the process when the disk is full, and leaves half a file when it is interrupted."""
from __future__ import annotations

import copy
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import torch

from fusible.wrapping import wrap


def write_archive(module: torch.jit.ScriptModule, path: str | os.PathLike[str], **extra: Any) -> None:
    """The archive is made in memory, written beside its place and renamed: a reader sees the old file or the whole new one."""
    archive = module.save_to_buffer(**extra)
    target = Path(os.path.realpath(path))
    try:
        _replace(target, archive)
    except OSError as error:
        failure = OSError(f"{path} could not be written: {error.strerror}")
        failure.errno = error.errno
        raise failure from error


def _replace(target: Path, archive: bytes) -> None:
    mode = target.stat().st_mode if target.exists() else stat.S_IFREG | 0o666 & ~_umask()
    if not stat.S_ISREG(mode):  # a pipe or a device has no old content to keep
        target.write_bytes(archive)
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(archive)
            file.flush()
            os.fsync(file.fileno())  # some file systems find out here that they are full
        part.chmod(stat.S_IMODE(mode) & 0o777)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class FusedModule(torch.jit.RecursiveScriptModule):
    """A ScriptModule as torch makes it, whose `save` writes the file whole."""

    _disable_script_meta = True

    @classmethod
    def of(cls, module: torch._C.ScriptModule) -> FusedModule:
        wrapped = wrap(module)
        wrapped.__class__ = cls
        return wrapped

    def save(self, f: str | os.PathLike[str], **kwargs: Any) -> None:
        write_archive(self, f, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any] | None) -> FusedModule:
        return type(self).of(copy.deepcopy(self._c, memo))

    def _get_name(self) -> str:
        return torch.jit.RecursiveScriptModule.__name__  # printed as torch prints it
