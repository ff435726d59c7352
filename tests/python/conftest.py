"""Small models with measured-like statistics, and their archives."""
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
torch.manual_seed(0)
warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")


class Small(nn.Module):
    """conv+batch_norm+relu, a second use of it, and a linear."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)
        self.register_buffer("scale", torch.rand(8, 1, 1) + 0.5)

    def forward(self, x):
        y = torch.relu(self.bn(self.conv(x)))
        return self.fc((y * self.scale).mean(dim=(2, 3)))


def small():
    torch.manual_seed(11)
    model = Small()
    model.bn.running_mean.normal_()
    model.bn.running_var.uniform_(0.5, 2)
    nn.init.uniform_(model.bn.weight, 0.5, 1.5)
    nn.init.normal_(model.bn.bias)
    return model.eval()


@pytest.fixture
def model():
    return small()


@pytest.fixture
def scripted(model):
    return torch.jit.script(model)


@pytest.fixture
def x():
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def archive(scripted, tmp_path):
    path = tmp_path / "model.pt"
    scripted.save(str(path))
    return path


@pytest.fixture
def python():
    """Runs Python in a new process: python(arguments..., env={...}) -> CompletedProcess."""
    def run(*arguments, env=None, check=True, cwd=None):
        result = subprocess.run([sys.executable, "-W", "ignore", *map(str, arguments)], capture_output=True, text=True,
                                env={**os.environ, **(env or {})}, cwd=cwd)
        if check:
            assert result.returncode == 0, result.stderr
        return result

    return run
