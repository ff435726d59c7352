"""Files written whole: beside their place, then renamed, so that a reader sees the old file or the whole new one, also when the disk is full. No torch."""
from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from fusible.archive import told


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Text is written as UTF-8. Raises OSError with one sentence that names `path`."""
    try:
        _replace(Path(path), content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise unwritten(path, error) from error


def unwritten(path: str | os.PathLike[str], error: OSError) -> OSError:
    """`error` as a sentence that names `path`."""
    failure = OSError(f"{told(path)} could not be written: {error.strerror}")
    failure.errno = error.errno
    return failure


def _replace(path: Path, content: bytes) -> None:
    try:
        mode = path.stat().st_mode  # before links are followed: /dev/stdout leads to a pipe that has no name
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):  # a pipe or a device has no old content to keep
        path.write_bytes(content)
        return
    target = Path(os.path.realpath(path))
    part = target.with_name(f".fusible-{secrets.token_hex(8)}.part")  # not named after the target, whose name may be as long as names can be
    # The system takes the umask from the mode: asking for the umask would change it for the other threads of this process.
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode & 0o777)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # some file systems find out here that they are full
        if mode is not None:
            part.chmod(mode & 0o777)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
