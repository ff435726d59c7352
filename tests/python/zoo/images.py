"""Random images with structure at every scale: white noise averages out to the same features for every image."""
import torch
from torch.nn import functional as F


def images(batch, size, seed):
    """float32 [batch, 3, size, size], mean 0."""
    generator = torch.Generator().manual_seed(seed)
    octaves = (torch.randn(batch, 3, cells, cells, generator=generator) for cells in (1, 2, 4, 8, 16, size))
    return sum(0.5 * F.interpolate(octave, size=(size, size), mode="bilinear") for octave in octaves)
