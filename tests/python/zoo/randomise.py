"""Gives a freshly built network parameters and statistics on which a wrong rewrite shows.

Initial values hide mistakes: batch_norm with mean 0, variance 1 and affine 1, 0 is the identity, a zero bias can be dropped unseen, a
layer scale of 1e-6 mutes its whole block, a zero head makes every output equal.

The values must also keep rounding small, or nothing could be told from an error: a deep chain of batch_norm and relu with shifts around 0
multiplies a perturbation by about sqrt(pi / (pi - 1)) per layer. Shifts around 1 keep most of a relu's inputs on its linear side.
"""
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_CONTRACTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def randomise(module, seed):
    """Draws biases, affine parameters and muted weights in place; `module` keeps its initial weights where those are alive."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(parameter, low, high):
        parameter.uniform_(low, high, generator=generator)

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, _BatchNorm) and layer.affine:
                uniform(layer.weight, 0.6, 1.4)
                uniform(layer.bias, 0, 2)
            elif isinstance(layer, nn.LayerNorm) and layer.elementwise_affine:
                uniform(layer.weight, 0.6, 1.4)
                uniform(layer.bias, -0.3, 0.3)
            elif isinstance(layer, _CONTRACTIONS):
                if layer.bias is not None:
                    uniform(layer.bias, -0.1, 0.1)
                fan_in = layer.weight[0].numel()
                if layer.weight.std() < 0.25 * fan_in**-0.5:
                    layer.weight.normal_(0, fan_in**-0.5, generator=generator)
        for name, parameter in module.named_parameters():
            if parameter.abs().max() < 1e-4:
                muted_scale = "scale" in name or "gamma" in name
                uniform(parameter, 0.2, 0.6) if muted_scale else uniform(parameter, -0.1, 0.1)


def measure_statistics(module, batches):
    """Sets every batch_norm's running statistics to the average of those of `batches` (tuples of inputs), measured in train mode.

    A variance measured on few values can come out near zero and would blow rounding up by 1/sqrt(eps): it is kept above a hundredth of the
    layer's mean variance.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    module.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    with torch.no_grad():
        for inputs in batches:
            module(*inputs)
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
            if layer.num_batches_tracked == 0:  # a head that eval mode never reaches
                layer.running_mean.uniform_(-0.3, 0.3)
                layer.running_var.uniform_(0.5, 1.5)
            layer.running_var.clamp_min_(0.01 * layer.running_var.mean())
    module.eval()
