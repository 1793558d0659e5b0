"""Bounding boxes of objects, mixed by a plan as the images are. Plain PyTorch, a sample at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _validation
from ._serialization import register
from ._tv_tensors import corners_of, is_tv_tensor
from .reference import has_box, has_partner


class MixedBoxes(NamedTuple):
    """The objects of each mixed image.

    >>> mixed, _, plan = cutmix(images, return_plan=True)
    >>> boxes = [torch.tensor([[2.0, 2.0, 9.0, 9.0]])] * 4  # x0, y0, x1, y1
    >>> mixed_boxes = plan.mix_boxes(boxes, min_visible=0.2).boxes

    Attributes:
        boxes: for each sample, (m, 4): x0, y0, x1, y1 in pixels, of the dtype that was given.
        labels: for each sample, (m,); None where none were given.
        visible: for each sample, float32 (m,) in (0, 1]: the fraction of the object's box that is still to be seen.
        weight: for each sample, float32 (m,) in (0, 1]: lam for its own and 1 - lam for its partner's objects where the
            two are blended (mixup), else 1. What a loss may weigh them by.
    """

    boxes: list[Tensor]
    labels: list[Tensor] | None
    visible: list[Tensor]
    weight: list[Tensor]


register(MixedBoxes, MixedBoxes._fields)


_FORMATS = ("XYXY", "XYWH", "CXCYWH")  # of torchvision's BoundingBoxFormat, those that are not rotated


class _Objects(NamedTuple):
    """All objects of one source in one mixed image, the hidden ones included."""

    source: int  # the sample that they come from
    boxes: Tensor  # float64 (n, 4)
    visible: Tensor  # float64 (n,)
    weight: float = 1.0

    def seen(self, min_visible: float) -> Tensor:
        """Which of them count, bool (n,)."""
        return (self.visible > 0) & (self.visible >= min_visible) & (self.weight > 0)


def _area(boxes: Tensor) -> Tensor:
    x0, y0, x1, y1 = boxes.unbind(1)
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Of two areas; a box without an area shows nothing."""
    return torch.where(whole > 0, part / whole, 0.0)


def _clipped(boxes: Tensor, patch: Tensor) -> Tensor:
    """What boxes have in common with a patch; of no area where that is nothing."""
    return torch.cat([torch.maximum(boxes[:, :2], patch[:2]), torch.minimum(boxes[:, 2:], patch[2:])], dim=1)


def _bounds_of_rest(boxes: Tensor, patch: Tensor) -> Tensor:
    """The bounding boxes of what a patch leaves of boxes.

    The bounding box of a rectangle less another is the rectangle itself, unless the other reaches from side to side of
    it and covers one of the remaining two sides.
    """
    x0, y0, x1, y1 = boxes.unbind(1)
    left, top, right, bottom = patch.unbind()
    across_x, across_y = (left <= x0) & (x1 <= right), (top <= y0) & (y1 <= bottom)
    rest = (
        torch.where(across_y & (left <= x0), torch.maximum(x0, right), x0),
        torch.where(across_x & (top <= y0), torch.maximum(y0, bottom), y0),
        torch.where(across_y & (x1 <= right), torch.minimum(x1, left), x1),
        torch.where(across_x & (y1 <= bottom), torch.minimum(y1, top), y1),
    )
    return torch.stack(rest, dim=1)


def _whole(source: int, boxes: Tensor, weight: float = 1.0) -> _Objects:
    return _Objects(source, boxes, _share(_area(boxes), _area(boxes)), weight)


def _inside(source: int, boxes: Tensor, patch: Tensor) -> _Objects:
    clipped = _clipped(boxes, patch)
    return _Objects(source, clipped, _share(_area(clipped), _area(boxes)))


def _outside(source: int, boxes: Tensor, patch: Tensor) -> _Objects:
    area = _area(boxes)
    return _Objects(source, _bounds_of_rest(boxes, patch), _share(area - _area(_clipped(boxes, patch)), area))


def _objects_of(sample: int, row: Sequence[int], lam: float, boxes: list[Tensor]) -> list[_Objects]:
    """What there is in the mixed image of a sample, by its row of the plan."""
    partner, y0, x0, y1, x1, _, kind, _ = row
    own, others = boxes[sample], boxes[partner]
    patch = own.new_tensor([x0, y0, x1, y1])
    if not has_partner(kind):
        return [_outside(sample, own, patch) if has_box(kind) else _whole(sample, own)]
    if partner == sample:
        return [_whole(sample, own)]
    if has_box(kind):
        return [_outside(sample, own, patch), _inside(partner, others, patch)]
    return [_whole(sample, own, lam), _whole(partner, others, 1.0 - lam)]


def mix_boxes(
    packed: Tensor,
    height: int,
    width: int,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor] | None,
    min_visible: float,
) -> MixedBoxes:
    """By a valid packed plan on the CPU. Everything else as :meth:`cutmix_cuda.MixPlan.mix_boxes`."""
    _validation.check_share("min_visible", min_visible)
    corners = checked_corners(boxes, labels, packed.shape[0], height, width)
    exact = [_clipped(each, each.new_tensor([0, 0, width, height])) for each in corners]
    lams = packed[:, 5].view(torch.float32).tolist()
    mixed = MixedBoxes([], None if labels is None else [], [], [])
    for sample, (row, lam) in enumerate(zip(packed.tolist(), lams, strict=True)):
        parts = [(each, each.seen(min_visible)) for each in _objects_of(sample, row, lam, exact)]
        mixed.boxes.append(torch.cat([each.boxes[seen] for each, seen in parts]).to(boxes[sample].dtype))
        mixed.visible.append(torch.cat([each.visible[seen] for each, seen in parts]).float())
        weights = [torch.full_like(each.visible[seen], each.weight) for each, seen in parts]
        mixed.weight.append(torch.cat(weights).float())
        if labels is not None and mixed.labels is not None:
            mixed.labels.append(torch.cat([labels[each.source][seen] for each, seen in parts]))
    return mixed


def _check_list(name: str, tensors: Sequence[Tensor], batch: int) -> None:
    if isinstance(tensors, Tensor) or not isinstance(tensors, Sequence):
        raise TypeError(f"{name} must be a list of tensors, one a sample, got {type(tensors).__name__}")
    if len(tensors) != batch:
        raise ValueError(f"{name} must be of the {batch} samples of the plan, got {len(tensors)}")
    for sample, each in enumerate(tensors):
        if not isinstance(each, Tensor):
            raise TypeError(f"{name} must be tensors, got {type(each).__name__} for sample {sample}")


def checked_corners(
    boxes: Sequence[Tensor], labels: Sequence[Tensor] | None, batch: int, height: int, width: int
) -> list[Tensor]:
    """x0, y0, x1, y1 of each sample's boxes in float64, if everything fits together."""
    _check_list("boxes", boxes, batch)
    if labels is not None:
        _check_list("labels", labels, batch)
    corners = []
    for sample, each in enumerate(boxes):
        where = f"for sample {sample}"
        if not each.is_floating_point():
            raise TypeError(f"boxes must be of a float dtype, got {each.dtype} {where}")
        marked = is_tv_tensor(each, "BoundingBoxes")
        if marked:
            _check_marked(each, height, width, where)
        if each.dim() != 2 or each.shape[1] != 4:
            raise ValueError(f"boxes must be of shape (n, 4), got {tuple(each.shape)} {where}")
        corners.append(corners_of(each) if marked else each.double())
        if not (each.isfinite().all() and (corners[-1][:, :2] <= corners[-1][:, 2:]).all()):
            raise ValueError(f"boxes must be finite, with x0 <= x1 and y0 <= y1, got {each.tolist()} {where}")
        if labels is not None and labels[sample].shape != each.shape[:1]:
            shape = tuple(labels[sample].shape)
            raise ValueError(f"labels must be of shape (n,) = ({len(each)},), as boxes are, got {shape} {where}")
    return corners


def _check_marked(boxes: Any, height: int, width: int, where: str) -> None:
    """Raises unless ``tv_tensors.BoundingBoxes`` are parallel to the sides of an image of the plan's size."""
    if boxes.format.name not in _FORMATS:
        raise ValueError(f"boxes must be of format {', '.join(_FORMATS)}, got {boxes.format.name} {where}")
    if tuple(boxes.canvas_size) != (height, width):
        raise ValueError(
            f"boxes must be of canvas_size ({height}, {width}), the height and width of the plan, got "
            f"{tuple(boxes.canvas_size)} {where}; resize them, or use plan.rescaled"
        )
