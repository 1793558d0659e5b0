"""torchvision's own kinds of tensors, told without importing torchvision: where nothing imported it there are none."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from ._ops import BLENDED_DTYPES


def is_tv_tensor(tensor: object, name: str) -> bool:
    """Whether it is a ``torchvision.tv_tensors`` tensor of the class of that name."""
    module = sys.modules.get("torchvision.tv_tensors")
    return module is not None and isinstance(tensor, getattr(module, name))


_SAME_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def classes_of(images: Tensor) -> Tensor:
    """The images; of a ``tv_tensors.Mask`` that mixup would blend by its dtype its bits, of which there is no mean."""
    if images.dtype in BLENDED_DTYPES and is_tv_tensor(images, "Mask"):
        return images.as_subclass(Tensor).view(_SAME_SIZE[images.dtype.itemsize])
    return images


def corners_of(boxes: Tensor) -> Tensor:
    """``tv_tensors.BoundingBoxes`` (n, 4) of any format that is not rotated -> x0, y0, x1, y1, float64 (n, 4)."""
    from torchvision.ops import box_convert

    return box_convert(boxes.as_subclass(Tensor).to(torch.float64), boxes.format.value.lower(), "xyxy")  # type: ignore[attr-defined]
