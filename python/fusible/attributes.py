"""Attributes that the methods of a module read, of the module itself and of the submodules that it holds, by their dotted paths."""
from __future__ import annotations

from functools import reduce
from typing import Any

import torch

Path = tuple[str, ...]


def attributes_read(root: torch._C.ScriptModule, prefix: str) -> dict[str, Any]:
    """Those whose own name starts with `prefix`, sorted by path. A method that no other and no caller reaches is not asked."""
    todo: list[tuple[Path, str]] = [((), method) for method in root._method_names()]
    seen, found = set(todo), set()
    while todo:
        path, method = todo.pop()
        graph = _held(root, path)._get_method(method).graph
        for node in graph.findAllNodes("prim::GetAttr"):
            if node.s("name").startswith(prefix) and (holder := _path_to(node.input())) is not None:
                found.add((*path, *holder, node.s("name")))
        for node in graph.findAllNodes("prim::CallMethod"):
            holder = _path_to(next(node.inputs()))
            if holder is None or not isinstance(_held(root, (*path, *holder)), torch._C.ScriptModule):
                continue
            call = ((*path, *holder), node.s("name"))
            if call not in seen:
                seen.add(call)
                todo.append(call)
    return {".".join(path): _held(root, path) for path in sorted(found)}


def _held(root: torch._C.ScriptModule, path: Path) -> Any:
    return reduce(lambda holder, name: holder.getattr(name), path, root)


def _path_to(value: torch._C.Value) -> Path | None:
    """The attributes that lead from the module of a graph, its first input, to `value`; None for what is no attribute."""
    names: list[str] = []
    while value.node().kind() == "prim::GetAttr":
        names.append(value.node().s("name"))
        value = value.node().input()
    is_self = value.node().kind() == "prim::Param" and value.debugName() == next(value.node().outputs()).debugName()
    return tuple(reversed(names)) if is_self else None
