"""Archives written whole: torch's own writer ends the process when the disk is full, and leaves half a file when it is interrupted."""
from __future__ import annotations

import copy
import os
from typing import Any

import torch

from fusible.whole import write_whole
from fusible.wrapping import wrap


def write_archive(module: torch.jit.ScriptModule, path: str | os.PathLike[str], **extra: Any) -> int:
    """The archive is made in memory, written beside its place and renamed: a reader sees the old file or the whole new one. Returns its bytes."""
    archive = module.save_to_buffer(**extra)
    write_whole(path, archive)
    return len(archive)


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
