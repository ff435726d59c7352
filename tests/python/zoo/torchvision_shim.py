"""Import this before torchvision: the registry's torchvision is a CUDA build whose Python half expects two operators to be declared.

The library object must outlive the process's use of torchvision: torch drops the declarations with it.
"""
import torch


def _declare_missing(library, *schemas):
    for schema in schemas:
        name = schema.split("(")[0]
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)


_library = torch.library.Library("torchvision", "FRAGMENT")
_declare_missing(
    _library,
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

import torchvision  # noqa: E402, F401
