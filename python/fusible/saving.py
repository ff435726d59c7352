"""Archives written whole: torch's own writer ends the process when the disk is full, and leaves half a file when it is interrupted."""
from __future__ import annotations

import copy
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import torch

from fusible.archive import told
from fusible.wrapping import wrap


def write_archive(module: torch.jit.ScriptModule, path: str | os.PathLike[str], **extra: Any) -> int:
    """The archive is made in memory, written beside its place and renamed: a reader sees the old file or the whole new one. Returns its bytes."""
    archive = module.save_to_buffer(**extra)
    try:
        _replace(Path(path), archive)
    except OSError as error:
        failure = OSError(f"{told(path)} could not be written: {error.strerror}")
        failure.errno = error.errno
        raise failure from error
    return len(archive)


def _replace(path: Path, archive: bytes) -> None:
    try:
        mode = path.stat().st_mode  # before links are followed: /dev/stdout leads to a pipe that has no name
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):  # a pipe or a device has no old content to keep
        path.write_bytes(archive)
        return
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    # The system takes the umask from the mode: asking for the umask would change it for the other threads of this process.
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode & 0o777)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(archive)
            file.flush()
            os.fsync(file.fileno())  # some file systems find out here that they are full
        if mode is not None:
            part.chmod(mode & 0o777)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


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
