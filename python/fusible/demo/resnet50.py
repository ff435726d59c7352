"""A ResNet-50 (He et al., "Deep residual learning for image recognition", 2015; stride in the 3x3, as in version 1.5).

Weights are seeded, batch_norm statistics measured on random images: with the statistics of a new network (mean 0, variance 1) a wrong fold of a
batch_norm would go unseen.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
EXPANSION = 4
IMAGE = (1, 3, 224, 224)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with batch_norm, and the shortcut; [N, C, H, W] -> [N, 4 * width, H / stride, W / stride]."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.shortcut(x)
        return self.relu(y)


class ResNet50(nn.Module):
    """Images [N, 3, H, W] -> scores [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1))
        blocks, channels = [], 64
        for stage, (width, depth) in enumerate(STAGES):
            for index in range(depth):
                blocks.append(Bottleneck(channels, width, stride=2 if stage and index == 0 else 1))
                channels = EXPANSION * width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


def resnet50(seed: int = 0) -> ResNet50:
    """In eval mode; the same weights in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResNet50()
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        for layer in norms:
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, 0, 0.2)
            layer.momentum = 1.0  # the statistics of the batch below, not a moving average
        for block in network.blocks:
            nn.init.uniform_(block.bn3.weight, 0.1, 0.4)  # a sum of 16 branches that stays of one size, as training makes it
        with torch.no_grad():
            network.train()(torch.randn(4, 3, 96, 96))
    return network.eval()
