"""Loads an archive without reading its weights: each tensor's storage is the file itself, mapped. A page comes into memory when something reads a
number on it, and what is written goes to a private copy, never to the file. A linter asks for shapes, and for the numbers of small tensors.

torch has no such loader for archives, but it takes ready storages for TorchScript inside of a torch.package. So the records that are not tensors
are laid out as such a package does, in memory, and every tensor's record is handed over as a mapped storage. In a package the tensors of
data.pkl and constants.pkl share one namespace: the keys of the latter get a prefix.
"""
from __future__ import annotations

import io
import mmap
import pickletools
import struct
import zipfile
from pathlib import Path

import torch

FOLDER = ".data/ts_code"
PICKLES = {"data.pkl": f"{FOLDER}/0/data.pkl", "constants.pkl": f"{FOLDER}/0/constants.pkl"}
CONSTANT = "constants/"
HEADER = struct.Struct("<26xHH")  # a local file header: lengths of name and extra field, behind 26 bytes; 30 in all


def with_prefix(pickled: bytes, prefix: str) -> bytes:
    """The pickle with `prefix` before the key of every storage, ("storage", type, key, device, elements) BINPERSID. Raises ValueError when a key
    is not written out where it is first used."""
    operations = list(pickletools.genops(pickled))
    parts, done, renamed = [], 0, set()
    for end, (operation, _, _) in enumerate(operations):
        if operation.name != "BINPERSID":
            continue
        start = end
        while operations[start][0].name != "MARK":
            start -= 1
        operands = [i for i in range(start + 1, end) if "PUT" not in operations[i][0].name and operations[i][0].name != "MEMOIZE"]
        key, argument, place = operations[operands[2]]
        if key.name != "BINUNICODE":
            if key.name in ("BINGET", "LONG_BINGET") and argument in renamed:
                continue
            raise ValueError(f"the key of a storage was needed, found {key.name}")
        text = (prefix + argument).encode()
        parts += [pickled[done:place], b"X", struct.pack("<I", len(text)), text]
        following, memo, done = operations[operands[2] + 1]
        if "PUT" in following.name:
            renamed.add(memo)
    return b"".join([*parts, pickled[done:]])


def _storage(record: zipfile.ZipInfo, archive: zipfile.ZipFile, mapped: mmap.mmap) -> torch.Tensor:
    """uint8 [bytes of the record], on the mapped file."""
    if not record.file_size:
        return torch.empty(0, dtype=torch.uint8)
    if record.compress_type != zipfile.ZIP_STORED:
        return torch.frombuffer(bytearray(archive.read(record)), dtype=torch.uint8)
    name, extra = HEADER.unpack_from(mapped, record.header_offset)
    return torch.frombuffer(mapped, dtype=torch.uint8, count=record.file_size, offset=record.header_offset + 30 + name + extra)


def load_mapped(path: Path) -> torch.jit.ScriptModule | None:
    """The module in `path`, on the CPU; None where the archive cannot be mapped (of the other byte order, or an unusual pickle). `path` must be an
    archive that fusible.archive.problem_of has nothing against. Raises what torch.jit.load raises."""
    from fusible.wrapping import wrap

    context, package = torch._C.DeserializationStorageContext(), io.BytesIO()
    with path.open("rb") as file, zipfile.ZipFile(file) as archive, zipfile.ZipFile(package, "w") as laid_out:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        for record in archive.infolist():
            name = record.filename.partition("/")[2]
            if name.startswith(("data/", CONSTANT)):
                context.add_storage(name.removeprefix("data/"), _storage(record, archive, mapped))
                continue
            content = archive.read(record)
            if name == "byteorder" and content.strip() != b"little":
                return None
            if name == "constants.pkl":
                try:
                    content = with_prefix(content, CONSTANT)
                except ValueError:
                    return None
            if name in PICKLES:
                laid_out.writestr(f"p/{PICKLES[name]}", content)
            elif name.startswith("code/"):
                laid_out.writestr(f"p/{FOLDER}/{name}", content)
            elif name in ("version", ".data/version"):
                laid_out.writestr("p/.data/version", content)
    package.seek(0)
    reader = torch._C.PyTorchFileReader(package)
    unit = torch._C.CompilationUnit()
    return wrap(torch._C._import_ir_module_from_package(unit, reader, context, torch.device("cpu"), "0"))
