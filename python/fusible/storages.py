"""Compares the tensors that an archive's pickles declare with the bytes that it holds: torch's loader takes both at their word, and a tensor larger
than its record reads memory that is not its own."""
from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

ELEMENT_BYTES = {"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4, "ShortStorage": 2,
                 "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "ComplexDoubleStorage": 16, "ComplexFloatStorage": 8, "QInt8Storage": 1,
                 "QUInt8Storage": 1, "QInt32Storage": 4}


class Oversized(Exception):
    """A tensor that lies outside of its storage, or a storage that lies outside of its record."""


class _Anything:
    """Stands for every class and function that a pickle names: nothing of the archive is run."""

    name = ""

    def __new__(cls, *arguments: Any) -> _Anything:
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


class _Walker(pickle.Unpickler):
    """Builds nothing but plain containers and checks what goes by."""

    def __init__(self, data: bytes, folder: str, sizes: Mapping[str, int]) -> None:
        super().__init__(io.BytesIO(data))
        self._folder, self._sizes = folder, sizes

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_qtensor"):
            return _checked_tensor
        return type(name, (_Anything,), {"name": name})

    def persistent_load(self, identity: Any) -> Any:
        kind, storage, key, _, elements = identity[:5]
        name = getattr(storage, "name", type(storage).__name__)
        width = ELEMENT_BYTES.get(name)
        # Nothing else of the pickle is printed: lists that share their items are longer as a text than any memory.
        if kind != "storage" or width is None or not isinstance(key, str) or not isinstance(elements, int):
            raise Oversized(f"a storage of a kind that torch does not write ({name})")
        record = f"{self._folder}/{key}"
        held = self._sizes.get(record)
        if held is not None and (elements < 0 or elements * width > held):
            raise Oversized(f"tensor {record!r} declares {elements * width} bytes, the archive holds {held}")
        return record, elements


def _checked_tensor(storage: tuple[str, int], offset: int, size: Any, stride: Any, *_: Any) -> None:
    record, elements = storage
    if offset < 0 or any(n < 0 for n in size) or any(n < 0 for n in stride) or len(size) != len(stride):
        raise Oversized(f"a tensor on {record!r} has a negative or uneven shape")
    if all(size) and offset + sum((n - 1) * step for n, step in zip(size, stride)) >= elements:
        raise Oversized(f"a tensor on {record!r} reaches beyond its {elements} elements")


def problem_of_pickle(data: bytes, folder: str, sizes: Mapping[str, int]) -> str | None:
    """`sizes`: record -> bytes. What is wrong with the tensors of one pickle; None when nothing is. Call it on pickles of bounded depth only."""
    try:
        _Walker(data, folder, sizes).load()
    except Oversized as error:
        return str(error)
    except Exception as error:  # noqa: BLE001: a damaged pickle raises almost any type
        return f"its pickle is damaged ({type(error).__name__}: {error})"
    return None
