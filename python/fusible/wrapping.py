"""Modules of C++ as Python's ScriptModules. torch.jit._recursive.wrap_cpp_module makes a wrapper for each of thousands of submodules at
once, which took a fifth of a fuse; here a module's submodules are wrapped when somebody first asks for one of them."""
from __future__ import annotations

from typing import Any

import torch
from torch.jit._script import OrderedDictWrapper, OrderedModuleDict, RecursiveScriptModule


class _Submodules(OrderedModuleDict):
    """What torch's dict of submodules is, with wrappers made at the first look at them; __getattr__ is asked for what is not there yet."""

    def __init__(self, cpp_module: torch._C.ScriptModule) -> None:
        super().__init__(cpp_module, None)
        del self._python_modules

    def __getattr__(self, name: str) -> dict[str, RecursiveScriptModule]:
        if name != "_python_modules":
            raise AttributeError(name)
        # setdefault: of two threads that look at once, both get the wrappers of one.
        return self.__dict__.setdefault(name, {key: wrap(module) for key, module in self._c.items()})

    def __contains__(self, key: Any) -> bool:
        return OrderedDictWrapper.__contains__(self, key)


def wrap(cpp_module: torch._C.ScriptModule) -> RecursiveScriptModule:
    def complete(module: RecursiveScriptModule) -> None:
        module._concrete_type = torch._C.ConcreteModuleType.from_jit_type(cpp_module._type())
        module._forward_pre_hooks.update(enumerate(cpp_module._get_forward_pre_hooks()))
        module._forward_hooks.update(enumerate(cpp_module._get_forward_hooks()))

    module = RecursiveScriptModule._construct(cpp_module, complete)
    module.__dict__["_modules"] = _Submodules(cpp_module)
    return module
