"""Bounding boxes of objects in images painted by a plan of several patches. Plain PyTorch, a sample at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import _validation
from .boxes import MixedBoxes, checked_corners
from .reference import has_partner
from .reference_patches import Patches, weight_below


class _Seen(NamedTuple):
    """What is seen of all objects of one source in one painted image."""

    source: int  # the sample that they come from
    boxes: Tensor  # float64 (n, 4): the bounds of what is seen
    visible: Tensor  # float64 (n,), the fraction of the object's area
    weight: Tensor  # float64 (n,), the mean weight of the pixels that are seen


def weights_of_parts(patches: Patches, sample: int, height: int, width: int) -> Tensor:
    """The weight of a sample's own pixels and of each patch's at each pixel, float64 (1 + patches, height, width); the
    mean over the channels where masks tell them apart."""
    channels = 1 if patches.masks is None or patches.masks.dim() == 3 else patches.masks.shape[1]
    left = torch.ones((channels, height, width), dtype=torch.float64)
    parts = []
    for row in reversed(patches.rows[sample].unbind(0)):
        below = weight_below(row[None], patches.masks, height, width)[0].double()
        parts.append(left * (1.0 - below))
        left = left * below
    return torch.stack([left, *reversed(parts)]).mean(dim=1)


def _covered(low: Tensor, high: Tensor, length: int) -> Tensor:
    """How much of each of so many pixels lies between two edges, (n, length)."""
    pixel = torch.arange(length, dtype=torch.float64)
    return (torch.minimum(high[:, None], pixel + 1) - torch.maximum(low[:, None], pixel)).clamp(0.0, 1.0)


def _bounds(seen: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The outermost edges of pixels that are seen, (n, length), within two edges; no extent where there are none."""
    length = seen.shape[1]
    pixel = torch.arange(length)
    first = torch.where(seen, pixel, length).amin(dim=1).double()
    last = torch.where(seen, pixel + 1, 0).amax(dim=1).double()
    begin = torch.maximum(low, first)
    return begin, torch.maximum(torch.minimum(high, last), begin)


def _seen(source: int, corners: Tensor, area: Tensor, weight: Tensor) -> _Seen:
    """Of boxes (n, 4), x0, y0, x1, y1, of which all of it would be so much area, where pixels weigh (height, width)."""
    x0, y0, x1, y1 = corners.unbind(1)
    across, down = _covered(x0, x1, weight.shape[1]), _covered(y0, y1, weight.shape[0])
    there = (weight > 0).double()
    shown = torch.einsum("nh,hw,nw->n", down, there, across)
    weighed = torch.einsum("nh,hw,nw->n", down, weight, across)
    rows = (torch.einsum("hw,nw->nh", there, across) > 0) & (down > 0)
    columns = (torch.einsum("nh,hw->nw", down, there) > 0) & (across > 0)
    (left, right), (top, bottom) = _bounds(columns, x0, x1), _bounds(rows, y0, y1)
    visible = torch.where(area > 0, shown / area, 0.0)
    return _Seen(
        source,
        torch.stack([left, top, right, bottom], dim=1),
        visible.clamp(max=1.0),
        torch.where(shown > 0, weighed / shown, 0.0),
    )


def _area(corners: Tensor) -> Tensor:
    return (corners[:, 2] - corners[:, 0]).clamp(min=0) * (corners[:, 3] - corners[:, 1]).clamp(min=0)


def _clipped(corners: Tensor, y0: int, x0: int, y1: int, x1: int) -> Tensor:
    low, high = corners.new_tensor([x0, y0, x0, y0]), corners.new_tensor([x1, y1, x1, y1])
    return torch.minimum(torch.maximum(corners, low), high)


def _moved(corners: Tensor, source: Sequence[int], box: Sequence[int]) -> Tensor:
    """Corners in a source as they are where it fills a box."""
    sy0, sx0, sy1, sx1 = source
    y0, x0, y1, x1 = box
    scale = corners.new_tensor([(x1 - x0) / (sx1 - sx0), (y1 - y0) / (sy1 - sy0)]).repeat(2)
    return corners.new_tensor([x0, y0, x0, y0]) + (corners - corners.new_tensor([sx0, sy0, sx0, sy0])) * scale


def mix_patch_boxes(
    patches: Patches,
    height: int,
    width: int,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor] | None,
    others: int,
    min_visible: float,
) -> MixedBoxes:
    """By a valid plan on the CPU. Everything else as :meth:`cutmix_cuda.PatchPlan.mix_boxes`."""
    _validation.check_share("min_visible", min_visible)
    corners = [
        _clipped(each, 0, 0, height, width) for each in checked_corners(boxes, labels, len(boxes), height, width)
    ]
    batch = len(boxes) - others
    mixed = MixedBoxes([], None if labels is None else [], [], [])
    for sample, rows in enumerate(patches.rows.tolist()):
        weights = weights_of_parts(patches, sample, height, width)
        own = sample % batch
        seen = [_seen(own, corners[own], _area(corners[own]), weights[0])]
        for k, (partner, y0, x0, y1, x1, _, kind, _) in enumerate(rows):
            if not has_partner(kind) or y0 == y1 or x0 == x1:
                continue
            box = y0, x0, y1, x1
            source = box if patches.sources is None else patches.sources[sample, k].tolist()
            moved = _moved(corners[partner], source, box)
            seen.append(_seen(partner, _clipped(moved, *box), _area(moved), weights[1 + k]))
        counts = [(each, (each.visible > 0) & (each.visible >= min_visible) & (each.weight > 0)) for each in seen]
        mixed.boxes.append(torch.cat([each.boxes[shown] for each, shown in counts]).to(boxes[own].dtype))
        mixed.visible.append(torch.cat([each.visible[shown] for each, shown in counts]).float())
        mixed.weight.append(torch.cat([each.weight[shown] for each, shown in counts]).float())
        if labels is not None and mixed.labels is not None:
            mixed.labels.append(torch.cat([labels[each.source][shown] for each, shown in counts]))
    return mixed
