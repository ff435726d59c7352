"""Writes the golden archives of this folder: one per saved-state format version, never rewritten once committed.

Usage: python make_golden.py PATH/TO/libfusible.so [FOLDER]

Each archive holds fused operators with their packed weights, an input and the output of the plain torch operators, all as buffers and
attributes of one module: `forward()` gives the fused output, `expected` is what it has to be.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F


class Golden(torch.nn.Module):
    def __init__(self, image: bool):
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        normal = lambda *shape: torch.randn(*shape, generator=generator)
        self.image = image
        if image:
            weight = normal(6, 3, 3, 3).contiguous(memory_format=torch.channels_last)
            up = normal(6, 4, 2, 2)
            x, bias = normal(2, 3, 7, 8), normal(6)
            conv = torch.classes.fusible.Contraction("conv", weight, bias, [2, 1], [1, 1], [1, 1], [0, 0], 1, "")
            second = torch.classes.fusible.Contraction("conv_transpose", up, None, [2, 2], [0, 0], [1, 1], [1, 0], 1, "")
            y = F.silu(F.conv2d(x, weight, bias, [2, 1], 1)) * 0.5
            expected = torch.clamp(F.conv_transpose2d(y, up, None, [2, 2], 0, [1, 0]), None, 2)
        else:
            weight, bias, last, x = normal(9, 5), normal(9), normal(4, 9), normal(6, 5)
            conv = torch.classes.fusible.Contraction("linear", weight, bias, [], [], [], [], 1, "")
            second = torch.classes.fusible.Contraction("linear", last, None, [], [], [], [], 1, "")
            expected = F.hardtanh(F.linear(F.gelu(F.linear(x, weight, bias), approximate="tanh"), last), 0, 6)
        self.first, self.second = conv, second
        self.register_buffer("x", x)
        self.register_buffer("expected", expected)

    def forward(self):
        if self.image:
            y = torch.ops.fusible.conv(self.x, self.first, "silu|mul(0.5)", [])
            return torch.ops.fusible.conv_transpose(y, self.second, "clamp(none, 2)", [])
        y = torch.ops.fusible.linear(self.x, self.first, "gelu(tanh)", [])
        return torch.ops.fusible.linear(y, self.second, "hardtanh(0, 6)", [])


class Tagger(torch.nn.Module):
    """Two LSTM layers both ways, then a GRU."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        normal = lambda *shape: torch.randn(*shape, generator=generator) * 0.5
        lstm = [normal(*shape) for inputs in (3, 10) for _ in range(2) for shape in ((20, inputs), (20, 5), (20,), (20,))]
        gru = [normal(12, 10), normal(12, 4)]
        x, h, c, last = normal(2, 6, 3), normal(4, 2, 5), normal(4, 2, 5), normal(1, 2, 4)
        y = torch.lstm(x, [h, c], lstm, True, 2, 0.0, False, True, True)[0]
        self.lstm = torch.classes.fusible.Recurrent("lstm", lstm, True, 2, True, True)
        self.gru = torch.classes.fusible.Recurrent("gru", gru, False, 1, False, True)
        for name, value in (("x", x), ("h", h), ("c", c), ("last", last), ("expected", torch.gru(y, last, gru, False, 1, 0.0, False, False, True)[0])):
            self.register_buffer(name, value)

    def forward(self):
        y = torch.ops.fusible.lstm(self.x, [self.h, self.c], self.lstm)[0]
        return torch.ops.fusible.gru(y, self.last, self.gru)[0]


def main(library: str, folder: str = str(pathlib.Path(__file__).parent)) -> None:
    torch.ops.load_library(library)
    for name, make in (("state1_image", lambda: Golden(True)), ("state1_rows", lambda: Golden(False)), ("recurrent1", Tagger)):
        path = pathlib.Path(folder) / f"{name}.pt"
        if path.exists():
            print(f"{path.name} stays: a golden archive is never rewritten, give a new format version a new name")
        else:
            torch.jit.save(torch.jit.script(make()), str(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
