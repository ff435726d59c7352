"""The archives that a command line names: files, folders and globs. Needs no torch."""
from __future__ import annotations

import glob
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusible.archive import LFS_POINTER, ZIP_MAGIC

SUFFIXES = (".pt", ".pth", ".ptl", ".pts", ".ts", ".torchscript")


@dataclass(frozen=True)
class ModelFiles:
    """`models` are to be read, in the order of the arguments, each once; `others` lay in the folders and hold no TorchScript."""

    models: tuple[Path, ...]
    others: tuple[Path, ...]


def model_files(arguments: Sequence[str | os.PathLike[str]]) -> ModelFiles:
    """A file stands for itself, whatever it holds; a folder for the archives below it; what else has `*`, `?` or `[` is a glob (`**` crosses
    folders), for shells that leave it as it is. Raises ValueError for a folder or a glob without a model."""
    models: dict[str, Path] = {}
    others: list[Path] = []
    if "" in arguments:
        raise ValueError("a model was needed, found an empty argument: give a file, a folder or a glob (is a variable of the shell unset?)")
    for argument in map(Path, arguments):
        if argument.is_dir():
            found = []
            for path in _below(argument):
                (others if holds_something_else(path) else found).append(path)
        elif glob.has_magic(str(argument)) and not argument.exists():
            found = sorted(path for name in glob.iglob(str(argument), recursive=True) if not (path := Path(name)).is_dir())
        else:
            found = [argument]
        if not found:
            where = f"in the directory {argument} (files named *{', *'.join(SUFFIXES)})" if argument.is_dir() else f"that {argument} matches"
            raise ValueError(f"a model was needed, found no TorchScript archive {where}")
        for path in found:
            models.setdefault(os.path.realpath(path), path)  # Path.resolve raises where symbolic links go round in a circle
    return ModelFiles(tuple(models.values()), tuple(others))


def _below(folder: Path) -> Iterator[Path]:
    """Files with the suffix of a model, sorted; hidden folders (.git, .venv) are not entered."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(files) if name.endswith(SUFFIXES))


def holds_something_else(path: Path) -> bool:
    """Whether `path` is a checkpoint, an export archive, no model at all, or no file (a pipe, on which reading would wait). False for an archive,
    also a damaged one, and for what should have been one: an empty file, a Git LFS pointer, a file that cannot be read."""
    try:
        if path.exists() and not path.is_file():
            return True
        with path.open("rb") as file:
            head = file.read(64)
        if not head.startswith(ZIP_MAGIC):
            return bool(head) and not head.startswith(LFS_POINTER)
        with zipfile.ZipFile(path) as archive:
            return not any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
