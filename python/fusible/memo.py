"""The numbers under which a pickle remembers its objects: Python's reader and torch's make room for all numbers below the largest, so that seven
bytes can ask for 64 GiB. Writers count from 0, so no number reaches that of the bytes."""
from __future__ import annotations

import pickletools

_COUNTS = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4, pickletools.TAKEN_FROM_ARGUMENT4U: 4,
           pickletools.TAKEN_FROM_ARGUMENT8U: 8}
_LONG_BINPUT, _PUT = ord("r"), ord("p")

# By opcode, what follows it: bytes of a fixed number, of a number that as many bytes give, or lines.
_FIXED, _COUNTED, _LINES = [-1] * 256, [0] * 256, [0] * 256
for _opcode in pickletools.opcodes:
    _code, _taken = ord(_opcode.code), _opcode.arg.n if _opcode.arg else 0
    if _taken >= 0:
        _FIXED[_code] = _taken
    elif _taken in _COUNTS:
        _COUNTED[_code] = _COUNTS[_taken]
    else:
        _LINES[_code] = 2 if _opcode.name in ("GLOBAL", "INST") else 1


def problem_of_memo(data: bytes) -> str | None:
    """What a pickle remembers under a number that no writer gives; None when nothing. Looks up to where the pickle is damaged."""
    position, end, fixed = 0, len(data), _FIXED
    while position < end:
        code = data[position]
        position += 1
        if code == _LONG_BINPUT and (number := int.from_bytes(data[position:position + 4], "little")) >= end:
            return f"it remembers an object under the number {number} within {end} bytes"
        if (step := fixed[code]) >= 0:
            position += step
        elif width := _COUNTED[code]:
            position += width + int.from_bytes(data[position:position + width], "little")
        elif lines := _LINES[code]:
            start = position
            for _ in range(lines):
                position = data.find(b"\n", position) + 1 or end
            text = data[start:position].strip()
            if code == _PUT and not (text.isdigit() and len(text) < 20 and int(text) < end):
                return f"it remembers an object under another number than writers give, within {end} bytes"
        else:
            return None
    return None
