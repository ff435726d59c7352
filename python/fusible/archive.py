"""TorchScript archives as files: one clear sentence for each way in which a file is not one, and what one holds, without loading it."""
from __future__ import annotations

import os
import pickletools
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from fusible.debug_records import problem_of_debug_record
from fusible.memo import problem_of_memo
from fusible.nesting import DEEPEST, code_depth, pickle_depth
from fusible.on_load import runs_more
from fusible.storages import problem_of_pickle

LFS_POINTER = b"version https://git-lfs"
ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"
# torch stores tensors uncompressed: a record that unpacks to far more than its bytes was not written by torch.
LARGEST_RATIO, SMALL = 200, 1 << 20
NEWEST_FORMAT = 10  # caffe2::serialize::kMaxSupportedFileFormatVersion of torch 2.13.0

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|meta)(:\d+)?")
# With what reorders a line's text: a terminal obeys U+202E too.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NEEDED = "a TorchScript archive was needed"
_SCRIPT = "script or trace the module and save that"


def told(text: object) -> str:
    """What can be printed and handed to C++: a byte of a path that is no UTF-8 becomes U+FFFD."""
    return _SURROGATE.sub("\ufffd", str(text))


def one_line(text: object) -> str:
    """`text` without what a terminal would obey: names of records and of classes are the file's own words."""
    return _CONTROL.sub(" ", told(text))


def problem_of(path: Path) -> str | None:
    """Why `path` cannot be a TorchScript archive, by its bytes alone: nothing is loaded. None when it may be one."""
    problem = _problem_of(path)
    return problem and one_line(problem)


def refusal_of(path: Path, trust: bool = False) -> str | None:
    """Why `path` is not loaded: it is no archive, or, without `trust`, one whose loading runs code of its own. None when nothing speaks against it."""
    if problem := problem_of(path):
        return problem
    if not trust and (code := runs_code(path)):
        return (f"an archive that runs no code of its own when it is loaded was needed, {told(path)} runs {code}: "
                "read its code/ first, and pass --trust (trust=True) if you would run it")
    return None


def extra_files(path: Path) -> dict[str, bytes]:
    """What torch.jit.save was given as `_extra_files`: labels, versions, configuration that a server reads beside the model."""
    with zipfile.ZipFile(path) as archive:
        records = {record: record.partition("/extra/") for record in archive.namelist()}
        return {name: archive.read(record) for record, (root, found, name) in records.items() if found and "/" not in root and name}


def _problem_of(path: Path) -> str | None:
    try:
        if path.is_dir():
            return f"{_NEEDED}, found the directory {path}"
        if not path.exists():
            return f"{_NEEDED}, found {'a symbolic link that leads nowhere' if path.is_symlink() else 'nothing'} at {path}"
        if not stat.S_ISREG(path.stat().st_mode):
            return f"{_NEEDED} in a seekable file, found {'a pipe' if path.is_fifo() else 'a device or a socket'} at {path}: write it to a file first"
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        return f"{_NEEDED}, {path} cannot be read: {error.strerror}"
    if not head:
        return f"{_NEEDED}, found the empty file {path}"
    if head.startswith(LFS_POINTER):
        return f"{_NEEDED}, found a Git LFS pointer at {path}: run `git lfs pull`"
    if head.startswith(PICKLE_MAGIC):
        return f"{_NEEDED}, found a pickle at {path} (torch.save's old format, or another program's): {_SCRIPT}"
    if not head.startswith(ZIP_MAGIC):
        return f"{_NEEDED} (a zip file), found another kind of file at {path}"
    try:
        if not zipfile.is_zipfile(path):
            return f"{_NEEDED}, found a truncated one at {path} ({path.stat().st_size} bytes, its table of contents is missing): copy it again"
        with zipfile.ZipFile(path) as archive:
            return _problem_inside(path, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, OverflowError) as error:
        return f"a whole TorchScript archive was needed, found a damaged one at {path}: {error}"


def _problem_inside(path: Path, archive: zipfile.ZipFile) -> str | None:
    if problem := _ambiguous(path, archive):
        return problem
    for record in archive.infolist():
        if record.filename.startswith("/") or ".." in Path(record.filename).parts:
            return f"{_NEEDED}, found one at {path} with a record outside of it ({record.filename!r}): do not load this file"
        if record.file_size > max(SMALL, LARGEST_RATIO * record.compress_size):
            return (f"{_NEEDED}, found one at {path} whose record {record.filename!r} unpacks {record.compress_size} bytes to {record.file_size}: "
                    "do not load this file")
        archive.open(record).close()  # reads its header: it lies where the table of contents says, and has the name that stands there
    records = {name.partition("/")[2]: name for name in archive.namelist()}
    if "archive_format" in records or "models/model.json" in records:
        return f"{_NEEDED}, found a torch.export archive (.pt2) at {path}: fusible fuses TorchScript only, {_SCRIPT}"
    if "data.pkl" not in records:
        return f"{_NEEDED}, found a zip file without data.pkl at {path}"
    if "constants.pkl" not in records:
        return f"{_NEEDED}, found {_saved_by_torch(archive.read(records['data.pkl']))} at {path}: {_SCRIPT}"
    for name, record in records.items():
        is_code = name.startswith("code/") and name.endswith(".py")
        if not is_code and not name.endswith("pkl"):
            continue
        data = archive.read(record)
        if (code_depth(data.decode("utf-8", "replace")) if is_code else pickle_depth(data)) > DEEPEST:
            return f"{_NEEDED}, found one at {path} whose record {name!r} nests deeper than {DEEPEST} levels: do not load this file"
        if not is_code and (problem := problem_of_memo(data)):
            return f"{_NEEDED}, found one at {path} whose record {name!r} would fill the memory ({problem}): do not load this file"
        if name.endswith(".debug_pkl") and (problem := problem_of_debug_record(data)):
            return f"a whole TorchScript archive was needed, found a damaged one at {path}: {name}: {problem}"
    sizes = {name: archive.getinfo(record).file_size for name, record in records.items()}
    for name, folder in (("data.pkl", "data"), ("constants.pkl", "constants")):
        if problem := problem_of_pickle(archive.read(records[name]), folder, sizes):
            return f"a whole TorchScript archive was needed, found a damaged one at {path}: {name}: {problem}"
    version = _version(archive, records)
    if not version.isdigit():
        return f"{_NEEDED}, found one at {path} whose format version is not a number ({version[:20]!r})"
    if int(version) > NEWEST_FORMAT:
        return f"{_NEEDED} of format version {NEWEST_FORMAT} or older, found version {version} at {path}: save it with torch 2.13.0 or older"
    return None


def _ambiguous(path: Path, archive: zipfile.ZipFile) -> str | None:
    """Names that torch's reader could take for another record than the one that is looked at here; it takes upper and lower case for the same."""
    names = [record.orig_filename for record in archive.infolist()]
    seen: set[str] = set()
    for name in names:
        if "\0" in name or name.casefold() in seen:
            return f"{_NEEDED}, found one at {path} with two records of one name ({name!r}): do not load this file"
        seen.add(name.casefold())
    if len(folders := {name.partition("/")[0] for name in names}) > 1 and any(name.endswith("/constants.pkl") for name in names):
        return f"{_NEEDED}, found one at {path} with records outside of its one folder ({', '.join(sorted(folders)[:3])}): do not load this file"
    if (held := sum(record.compress_size for record in archive.infolist())) > path.stat().st_size:
        return f"{_NEEDED}, found one at {path} whose records overlap ({held} bytes of records in a smaller file): do not load this file"
    return None


def _strings(data: bytes) -> list[str]:
    """The strings of a pickle, up to where it is damaged."""
    found = []
    try:
        for _, argument, _ in pickletools.genops(data):
            if isinstance(argument, str):
                found.append(argument)
    except (ValueError, IndexError):
        pass
    return found


def _saved_by_torch(data: bytes) -> str:
    """What torch.save wrote, by the first class that its pickle names."""
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "GLOBAL":
                strings = argument.split(" ")
                break
            if opcode.name == "STACK_GLOBAL":
                break
            if isinstance(argument, str):
                strings = [*strings[-1:], argument]
    except ValueError:
        pass
    module, name = strings if len(strings) == 2 else ("", "")
    if module in ("", "collections", "torch._utils", "torch"):
        return "a state_dict or other plain data of torch.save"
    return f"the eager module {module}.{name} of torch.save"


def _version(archive: zipfile.ZipFile, records: dict[str, str]) -> str:
    record = records.get("version") or records.get(".data/version")
    return archive.read(record).decode("ascii", "replace").strip() if record else "missing"


def runs_code(path: Path) -> str | None:
    """What torch's loader would run of the archive `path` beyond storing and packing its weights; None when nothing. Nothing is loaded."""
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: name for name in archive.namelist()}
        code = {name: archive.read(record).decode("utf-8", "replace") for name, record in records.items()
                if name.startswith("code/") and name.endswith(".py")}
        pickled = [text for name in ("data.pkl", "constants.pkl") for text in _strings(archive.read(records[name]))]
    found = runs_more(code, pickled)
    return found and one_line(found)


def load_archive(path: Path, trust: bool = False, *, mapped: bool = False):
    """The torch.jit.ScriptModule in `path`, on the CPU. Without `trust`, an archive whose loading runs code of its own is refused.
    `mapped`: its weights stay in the file until they are read. Raises FusibleError."""
    import torch

    from fusible import _C
    from fusible.mapped import load_mapped
    from fusible.wrapping import wrap

    if refusal := refusal_of(path, trust):
        raise _C.FusibleError(refusal)
    try:
        return (load_mapped(path) if mapped else None) or wrap(_C.load(os.fsencode(path)))  # a name need not be UTF-8
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise _C.FusibleError(f"{_NEEDED} that torch {torch.__version__} can load, {told(path)} failed: {one_line(_reason(str(error)))}") from error


def _reason(message: str) -> str:
    """The first line that says something: torch puts the place below the reason."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return (lines or ["no message"])[0].removesuffix(":")


@dataclass(frozen=True)
class Contents:
    """What the text of an archive tells: nothing is unpickled and nothing is run."""

    version: str
    namespaces: tuple[str, ...]   # of the operators that its code calls
    devices: tuple[str, ...]
    debug_files: bool
    setstate: tuple[str, ...]     # classes whose __setstate__ runs when torch loads the archive

    @classmethod
    def of(cls, path: Path) -> Contents:
        namespaces, setstate, devices = set(), set(), set()
        with zipfile.ZipFile(path) as archive:
            records = {name.partition("/")[2]: name for name in archive.namelist()}
            for name, record in records.items():
                if name.startswith("code/") and name.endswith(".py"):
                    code = archive.read(record).decode("utf-8", "replace")
                    namespaces.update(re.findall(r"\bops\.(\w+)\.", code))
                    namespaces.update(re.findall(r"__torch__\.torch\.classes\.(\w+)\.", code))
                    if re.search(r"\btorch\.\w+\(", code):
                        namespaces.add("aten")
                    setstate.update(_classes_with_setstate(name, code))
                elif name in ("data.pkl", "constants.pkl"):
                    devices.update(filter(_DEVICE.fullmatch, _strings(archive.read(record))))
            debug = any(name.endswith(".debug_pkl") for name in records)
            return cls(_version(archive, records), tuple(sorted(namespaces)), tuple(sorted(devices)), debug, tuple(sorted(setstate)))


def _classes_with_setstate(record: str, code: str) -> list[str]:
    """Qualified names of the classes in one code record that define __setstate__."""
    module = record.removeprefix("code/").removesuffix(".py").replace("/", ".")
    found, current = [], ""
    for line in code.splitlines():
        if match := re.match(r"class (\w+)", line):
            current = match[1]
        elif re.match(r"\s+def __setstate__\(", line) and current:
            found.append(f"{module}.{current}")
    return found
