"""Bounds how deeply the texts of an archive nest: torch's readers recurse, and a file that nests deeply enough overflows the stack of the host."""
from __future__ import annotations

import pickletools

DEEPEST = 1000  # a module tree, or a nested constant, of a real model stays below 100

_MUTATES = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
# Opcodes that can put one object into another. Each adds at most one level.
_NESTING = "".join(opcode.code for opcode in pickletools.opcodes if opcode.stack_before and opcode.stack_after and opcode.name not in _PUTS).encode("latin-1")


def pickle_depth(data: bytes) -> int:
    """Depth of the object that a pickle builds, by a walk over its opcodes; up to where it is damaged, since torch reads no further.

    Each item of the stack is (depth, whether it came from the memo). A container that grows after it was remembered could nest without the stack
    showing it; torch never writes that, so it counts as too deep. A pickle with too few opcodes to nest deeper than DEEPEST is not walked: their
    number, an upper bound, is the answer.
    """
    if (bound := len(data) - len(data.translate(None, _NESTING))) <= DEEPEST:
        return bound
    stack: list[tuple[int, bool] | None] = []  # None is a mark
    memo: dict[object, int] = {}
    deepest = 0
    try:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name == "MARK":
                stack.append(None)
            elif name in _PUTS:
                memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1][0]
            elif name in _GETS:
                stack.append((memo.get(argument, 0), True))
            elif name == "DUP":
                stack.append((stack[-1][0], True))
            elif opcode.stack_before or opcode.stack_after:
                taken = _take(stack, opcode)
                container = taken[0] if taken else (0, False)
                depth = max((item[0] for item in taken), default=0) + (len(taken) > 0)
                if name in _MUTATES:
                    if container[1]:
                        return DEEPEST + 1
                    depth = max([container[0]] + [item[0] + 1 for item in taken[1:]])
                stack.extend((depth, False) for _ in opcode.stack_after)
                deepest = max(deepest, depth)
            if deepest > DEEPEST:
                break
    except (ValueError, IndexError, TypeError):
        pass
    return deepest


def _take(stack: list, opcode) -> list[tuple[int, bool]]:
    """Pops what an opcode uses, from the container on: down to the mark and what lies below it, or a fixed number of items."""
    before = [item.name for item in opcode.stack_before]
    taken: list[tuple[int, bool]] = []
    if "mark" in before:
        while (item := stack.pop()) is not None:
            taken.append(item)
        before = before[:before.index("mark")]
    for _ in before:
        taken.append(stack.pop() or (0, False))
    return taken[::-1]


def code_depth(text: str) -> int:
    """How deeply brackets nest in a file of code; brackets in strings count, which errs on the safe side."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(depth - 1, 0)
    return deepest
