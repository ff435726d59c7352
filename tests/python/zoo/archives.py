"""TorchScript archives of the models, built once per session in a temporary folder."""
import atexit
import functools
import shutil
import tempfile
import warnings
from pathlib import Path

import torch

from .models import MODELS

FORMS = ("scripted", "traced")
SPACE = 2 << 30  # two archives of the largest model, and what its tests write


@functools.cache
def folder():
    path = tempfile.mkdtemp(prefix="fusible-zoo-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def script(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


def trace(module, inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, inputs, strict=False, check_trace=False)


@functools.lru_cache(maxsize=1)
def built(name):
    """The eager network; the last one asked for is kept. Do not change it."""
    return MODELS[name].build()


@functools.cache
def archives(name):
    """Paths of the archives of model `name`: {"scripted": path, "traced": path}."""
    module = built(name)
    exported = {"scripted": script(module), "traced": trace(module, MODELS[name].inputs())}
    paths = {}
    free = shutil.disk_usage(folder()).free
    if free < SPACE:  # torch's writer ends the process when the disk is full
        raise OSError(f"{name}: {SPACE >> 20} MiB were needed for its archives in {folder()}, found {free >> 20} MiB free: make room, or set TMPDIR")
    for form in FORMS:
        paths[form] = folder() / f"{name}-{form}.pt"
        torch.jit.save(exported[form], str(paths[form]))
    return paths


def archive(name, form):
    return archives(name)[form]
