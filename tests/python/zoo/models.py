"""The table of real models: how each is built, and the smallest input that exercises all of its layers."""
from dataclasses import dataclass
from typing import Callable

import torch

from . import torchvision_shim  # noqa: F401
from .images import images
from .randomise import measure_statistics, randomise
from torchvision import models as tv


@dataclass(frozen=True)
class Model:
    name: str
    create: Callable[[], torch.nn.Module]
    size: int            # input is [N, 3, size, size]
    convolutions: int    # convolutions that run in eval mode

    def build(self):
        """The network in eval mode; the same weights in every process."""
        seed = sum(map(ord, self.name))
        torch.manual_seed(seed)
        module = self.create().eval()
        randomise(module, seed)
        measure_statistics(module, [self.inputs(batch=8, seed=100 + i) for i in range(3)])
        return module

    def inputs(self, batch=1, seed=0):
        return (images(batch, self.size, seed),)


def _table(*models):
    return {model.name: model for model in models}


MODELS = _table(
    Model("resnet18", lambda: tv.resnet18(weights=None), 64, 20),
    Model("resnet50", lambda: tv.resnet50(weights=None), 64, 53),
    Model("vgg16_bn", lambda: tv.vgg16_bn(weights=None), 32, 13),
    Model("mobilenet_v2", lambda: tv.mobilenet_v2(weights=None), 64, 52),
    Model("mobilenet_v3_large", lambda: tv.mobilenet_v3_large(weights=None), 64, 62),
    Model("densenet121", lambda: tv.densenet121(weights=None), 64, 120),
    Model("efficientnet_b0", lambda: tv.efficientnet_b0(weights=None), 64, 81),
    Model("googlenet", lambda: tv.googlenet(weights=None, init_weights=False), 64, 57),
    Model("inception_v3", lambda: tv.inception_v3(weights=None, init_weights=False), 96, 94),
    Model("shufflenet_v2_x1_0", lambda: tv.shufflenet_v2_x1_0(weights=None), 64, 56),
    Model("convnext_tiny", lambda: tv.convnext_tiny(weights=None), 64, 22),
    Model("vit_b_16", lambda: tv.vit_b_16(weights=None, image_size=64), 64, 1),
    Model("deeplabv3_resnet50", lambda: tv.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None), 64, 61),
)
