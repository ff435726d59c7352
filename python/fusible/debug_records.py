"""The source ranges that torch saves beside its code (`code/**/*.debug_pkl`): torch 2.13's reader takes what they say about themselves on trust,
and reads beyond their table of texts where an index is wrong."""
from __future__ import annotations

import io
import pickle
from collections.abc import Iterator

_WITH_TABLE = "FORMAT_WITH_STRING_TABLE"


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) == ("torch.jit._pickle", "build_intlist"):
            return list
        raise pickle.UnpicklingError(f"numbers and texts were needed, found {module}.{name}")


def problem_of_debug_record(data: bytes) -> str | None:
    """Why torch must not read this record; None when it may."""
    try:
        held = _Plain(io.BytesIO(data)).load()
    except Exception as error:  # whatever a damaged pickle makes of the unpickler
        return f"it cannot be unpickled ({str(error) or type(error).__name__})"
    if not isinstance(held, tuple) or not held or held[0] != _WITH_TABLE:
        return None if isinstance(held, tuple) else "a tuple of source ranges was needed"
    if len(held) != 3 or not isinstance(held[1], tuple) or not isinstance(held[2], tuple) or not all(isinstance(text, str) for text in held[1]):
        return "a table of texts and a tuple of source ranges were needed"
    lengths = [len(text.encode("utf-8", "surrogatepass")) for text in held[1]]
    known: dict[int, bool] = {}  # sources are shared between ranges
    for entry in held[2]:
        if not _fits(entry, lengths, known):
            return f"source ranges inside of its {len(lengths)} texts were needed, found another"
    return None


def sources(data: bytes) -> Iterator[tuple[str, int, str]]:
    """(file, number of the first line, text) of every function that a record without a problem names."""
    held = _Plain(io.BytesIO(data)).load()
    if held[0] != _WITH_TABLE:
        return
    _, table, ranges = held
    seen = set()  # sources are shared between ranges
    for _, (source, _, _), _ in ranges:
        texts, file, line = source
        if id(source) not in seen and texts:
            seen.add(id(source))
            yield table[file], line, "".join(table[i] for i in texts)


def _fits(entry, lengths: list[int], known: dict[int, bool]) -> bool:
    match entry:
        case (int(offset), ((list(texts), int(file), int(_)) as source, int(start), int(end)), int(_)):
            if id(source) not in known:
                known[id(source)] = 0 <= file < len(lengths) and all(isinstance(i, int) and 0 <= i < len(lengths) for i in texts)
            # Code that torch wrote itself has the range (0, 1) of an empty text.
            return known[id(source)] and offset >= 0 and 0 <= start <= end <= max(1, sum(lengths[i] for i in texts))
    return False
