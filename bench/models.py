"""The networks of the race: built with seeded weights at their real input sizes (tests/python/zoo gives weights and statistics)."""
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "python"))
from zoo import torchvision_shim  # noqa: E402, F401
from zoo.images import images  # noqa: E402
from zoo.randomise import measure_statistics, randomise  # noqa: E402


@dataclass(frozen=True)
class Model:
    name: str
    create: Callable[[], nn.Module]
    inputs: Callable[[int, int], tuple]  # (batch, seed) -> inputs

    def build(self):
        seed = sum(map(ord, self.name))
        torch.manual_seed(seed)
        module = self.create().eval()
        randomise(module, seed)
        measure_statistics(module, [self.inputs(8, 100)])
        return module


class TensorOutput(nn.Module):
    """Wraps a transformers model: token ids in, last hidden state out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, token_ids):
        return self.model(token_ids, return_dict=False)[0]


class Scores(nn.Module):
    """Wraps a segmentation model: the scores of each pixel out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model(image)["out"]


class LstmClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(128, 256, num_layers=2, batch_first=True)
        self.head = nn.Linear(256, 10)

    def forward(self, sequence):
        return self.head(self.lstm(sequence)[0][:, -1])


def torchvision(name, **options):
    def create():
        from torchvision import models

        return getattr(models, name)(weights=None, **options)

    return Model(name, create, lambda batch, seed: (images(batch, 224, seed),))


def segmentation(name):
    def create():
        from torchvision import models

        return Scores(getattr(models.segmentation, name)(weights=None, weights_backbone=None))

    return Model(name, create, lambda batch, seed: (images(batch, 224, seed),))


def timm(name):
    def create():
        import timm

        return timm.create_model(name, pretrained=False, exportable=True)

    return Model(name, create, lambda batch, seed: (images(batch, 224, seed),))


def transformer(name, config_class, model_class):
    def create():
        import transformers

        return TensorOutput(getattr(transformers, model_class)(getattr(transformers, config_class)()))

    def inputs(batch, seed):
        return (torch.randint(0, 30000, (batch, 128), generator=torch.Generator().manual_seed(seed)),)

    return Model(name, create, inputs)


def vectors(*shape):
    return lambda batch, seed: (torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed)),)


def perceptron():
    return nn.Sequential(*(layer for _ in range(8) for layer in (nn.Linear(1024, 1024), nn.ReLU())))


_ALL = (
    torchvision("resnet18"), torchvision("resnet50"), torchvision("vgg16"), torchvision("vgg16_bn"), torchvision("mobilenet_v2"),
    torchvision("mobilenet_v3_large"),
    torchvision("efficientnet_b0"), torchvision("densenet121"), torchvision("googlenet", init_weights=False),
    torchvision("inception_v3", init_weights=False),
    torchvision("shufflenet_v2_x1_0"), torchvision("convnext_tiny"), torchvision("vit_b_16"),
    torchvision("resnext50_32x4d"), segmentation("deeplabv3_resnet50"),
    timm("regnety_016"), timm("mixer_s32_224"), timm("edgenext_small"),
    transformer("bert", "BertConfig", "BertModel"), transformer("distilbert", "DistilBertConfig", "DistilBertModel"),
    Model("mlp", perceptron, vectors(1024)), Model("lstm", LstmClassifier, vectors(64, 128)),
)
MODELS = {model.name: model for model in _ALL}


def write(name, batch, folder):
    """Writes module.pt (pickled eager network), inputs.pt and traced.pt (what TorchScript users deploy)."""
    folder = Path(folder)
    module, inputs = MODELS[name].build(), MODELS[name].inputs(batch, 0)
    torch.save(module, folder / "module.pt")
    torch.save(inputs, folder / "inputs.pt")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, inputs, strict=False, check_trace=False), str(folder / "traced.pt"))

