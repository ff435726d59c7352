"""Writes shapes.csv: each convolution and each product with a parameter that the race's models compute at batch 1, a row per model and shape.

    python bench/shapes.py

kernels_bench.cpp measures these. A linear layer is a row of height 1 whose width is the number of rows of x.
"""
import csv
import sys
from collections import Counter
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models import MODELS

COLUMNS = ["model", "kind", "in", "out", "kernel_h", "kernel_w", "stride_h", "stride_w", "padding_h", "padding_w", "dilation_h", "dilation_w", "groups",
           "height", "width", "times"]


class Shapes(TorchDispatchMode):
    """Counts what passes the dispatcher, below autograd: there a linear layer is addmm or mm."""

    def __init__(self, module):
        super().__init__()
        self.weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket
        if name is torch.ops.aten.convolution:
            x, weight, _, stride, padding, dilation, _, _, groups = args
            if x.dim() == 4:
                self.counts["conv", x.shape[1], weight.shape[0], *weight.shape[2:], *stride, *padding, *dilation, groups, *x.shape[2:]] += 1
        elif name in (torch.ops.aten.addmm, torch.ops.aten.mm):
            x, weight = args[-2:]
            if weight.untyped_storage().data_ptr() in self.weights:
                self.counts["linear", weight.shape[0], weight.shape[1], 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, x.shape[0]] += 1
        return function(*args, **(kwargs or {}))


def main():
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for a whole layer: its products would not be seen
    rows = []
    for name, model in MODELS.items():
        print(name, file=sys.stderr)
        module = model.create().eval()
        with torch.no_grad(), Shapes(module) as shapes:
            module(*model.inputs(1, 0))
        rows += [[name, *shape, times] for shape, times in shapes.counts.items()]
    with open(Path(__file__).parent / "shapes.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
