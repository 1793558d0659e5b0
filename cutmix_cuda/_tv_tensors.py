"""torchvision's own kinds of tensors, told without importing torchvision: where nothing imported it there are none."""

from __future__ import annotations

import sys

import torch
from torch import Tensor


def is_tv_tensor(tensor: object, name: str) -> bool:
    """Whether it is a ``torchvision.tv_tensors`` tensor of the class of that name."""
    module = sys.modules.get("torchvision.tv_tensors")
    return module is not None and isinstance(tensor, getattr(module, name))


def corners_of(boxes: Tensor) -> Tensor:
    """``tv_tensors.BoundingBoxes`` (n, 4) of any format that is not rotated -> x0, y0, x1, y1, float64 (n, 4)."""
    from torchvision.ops import box_convert

    return box_convert(boxes.as_subclass(Tensor).to(torch.float64), boxes.format.value.lower(), "xyxy")  # type: ignore[attr-defined]
