"""The batch tail in plain PyTorch on any device: the specification that every other backend meets to the last bit.

The functions are twins of those in ``csrc/views.h``, which says what is done and in which order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from ._ops import (
    COLOUR_ROWS,
    QUADRUPLE,
    EraseOrder,
    EraseValue,
    Erasing,
    TargetFormat,
    ViewChoices,
    ViewParameters,
    new_images,
)
from .reference import mulhi, philox, quantile, sqrt_rn, unit_float

_PER_VIEW, _PER_ERASING, _PER_TRY, _PER_NOISE, _PER_COLOUR = 2, 3, 4, 5, 6  # streams, after those of reference.py
_TRIES = 10  # of a box that fits
_NOISE_SCALE = float.fromhex("0x1.bb688cp-8")
_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey. Mirrors views.h::kLumaRed and the others


def source_y(dy: Tensor, height: int) -> Tensor:
    """The source of each output row, (batch, height). Mirrors views.h::source_y."""
    return torch.arange(height, device=dy.device) + dy[:, None]


def source_x(flip: Tensor, dx: Tensor, width: int) -> Tensor:
    """The source of each output column, (batch, width). Mirrors views.h::source_x."""
    x = torch.arange(width, device=dx.device)
    return torch.where(flip[:, None] != 0, width - 1 - x, x) + dx[:, None]


def offset_within(most: int, word: Tensor) -> Tensor:
    """A number in -most..most. Mirrors views.h::offset_within."""
    return mulhi(word, 2 * most + 1) - most


def _below(word: Tensor, bound: float) -> Tensor:
    number = unit_float(word)
    return number < torch.full_like(number, bound)


def uniform(least: float, most: float, word: Tensor) -> Tensor:
    """A number from the least to the most. Mirrors views.h::uniform."""
    number = unit_float(word)
    low, high = (torch.full_like(number, bound) for bound in (least, most))
    return low + (high - low) * number


def sample_geometry(
    parameters: ViewParameters, choices: ViewChoices, height: int, width: int, seed: Tensor, index: Tensor
) -> Tensor:
    """flip, dy, dx and 0, int64 (batch, 4). Mirrors views.h::sample_geometry."""
    word_flip, word_y, word_x, _ = philox(seed, index, _PER_VIEW)
    flip = _below(word_flip, parameters.flip_below).long()
    dy = offset_within(min(choices.translate_y, height), word_y)
    dx = offset_within(min(choices.translate_x, width), word_x)
    return torch.stack([flip, dy, dx, torch.zeros_like(flip)], dim=1)


def sample_box_count(parameters: ViewParameters, choices: ViewChoices, seed: Tensor, index: Tensor) -> Tensor:
    """How many boxes of each sample are erased. Mirrors views.h::sample_box_count."""
    word_erased, word_count, _, _ = philox(seed, index, _PER_ERASING)
    erased = (index >= choices.first_erased) & _below(word_erased, parameters.erase_below)
    count = choices.min_boxes + mulhi(word_count, choices.max_boxes - choices.min_boxes + 1)
    return torch.where(erased, count, 0)


def nearest_int(number: Tensor) -> Tensor:
    """The nearest whole number, ties to even, in 0..2^30; 0 of NaN. Mirrors views.h::nearest_int."""
    number = torch.where(number > 0.0, number, 0.0)
    return torch.where(number < 2.0**30, number, 2.0**30).round().long()


def try_box(
    parameters: ViewParameters,
    aspects: Tensor,
    height: int,
    width: int,
    seed: Tensor,
    index: Tensor,
    position: int,
    count: Tensor,
) -> tuple[Tensor, Tensor]:
    """Which tries fit, bool (batch,), and their boxes, int64 (batch, 4). Mirrors views.h::try_box."""
    word_area, word_aspect, word_y, word_x = philox(seed, index, _PER_TRY, position)
    fraction = uniform(parameters.min_area, parameters.max_area, word_area)
    scale, all_pixels = (torch.full_like(fraction, value) for value in (parameters.max_aspect, height * width))
    area = fraction * (all_pixels / count.to(torch.float32))
    aspect = scale * quantile(aspects, word_aspect)
    box_height, box_width = nearest_int(sqrt_rn(area * aspect)), nearest_int(sqrt_rn(area / aspect))
    fits = (box_height < height) & (box_width < width)
    y0 = mulhi(word_y, (height - box_height + 1).clamp(min=0))
    x0 = mulhi(word_x, (width - box_width + 1).clamp(min=0))
    return fits, torch.stack([y0, x0, y0 + box_height, x0 + box_width], dim=1)


def sample_box(
    parameters: ViewParameters,
    aspects: Tensor,
    height: int,
    width: int,
    seed: Tensor,
    index: Tensor,
    number: int,
    count: Tensor,
) -> Tensor:
    """One erased box a sample, int64 (batch, 4); empty where no try fits. Mirrors views.h::sample_box."""
    box = torch.zeros((index.shape[0], QUADRUPLE), dtype=torch.int64, device=index.device)
    missing = count > number
    for attempt in range(_TRIES):
        at = number * _TRIES + attempt
        fits, tried = try_box(parameters, aspects, height, width, seed, index, at, count.clamp(min=1))
        box = torch.where((missing & fits)[:, None], tried, box)
        missing = missing & ~fits
    return box


def colour_matrix(brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Brightness, then contrast around mid-grey, then saturation, float32 (batch, 3, 4).

    Mirrors views.h::colour_matrix.
    """
    gain = brightness * contrast
    own, grey = gain * saturation, gain * (1.0 - saturation)
    luma = grey[:, None] * torch.tensor(_LUMA, device=grey.device)
    mixed = luma[:, None] + torch.diag_embed(own[:, None].expand(-1, COLOUR_ROWS))
    offset = 0.5 * (1.0 - contrast)
    return torch.cat([mixed, offset[:, None, None].expand(-1, COLOUR_ROWS, 1)], dim=2)


def sample_colour(parameters: ViewParameters, seed: Tensor, index: Tensor) -> Tensor:
    """Each sample's colour matrix, float32 (batch, 3, 4). Mirrors views.h::sample_colour."""
    word_brightness, word_contrast, word_saturation, word_grey = philox(seed, index, _PER_COLOUR)
    brightness = uniform(parameters.brightness_least, parameters.brightness_most, word_brightness)
    contrast = uniform(parameters.contrast_least, parameters.contrast_most, word_contrast)
    saturation = uniform(parameters.saturation_least, parameters.saturation_most, word_saturation)
    saturation = torch.where(_below(word_grey, parameters.grey_below), 0.0, saturation)
    return colour_matrix(brightness, contrast, saturation)


def sample_views(
    seed: Tensor,
    batch: int,
    height: int,
    width: int,
    tables: Tensor,
    colours: Tensor | None,
    view_parameters: list[float],
    view_choices: list[int],
) -> Tensor:
    """The packed views, int32 (batch, 1 + boxes, 4), or three more behind the boxes of views that are coloured."""
    parameters, choices = ViewParameters(*view_parameters), ViewChoices(*view_choices)
    index = torch.arange(batch, device=tables.device)
    seed = seed.to(tables.device).reshape(1)
    count = sample_box_count(parameters, choices, seed, index)
    boxes = [
        sample_box(parameters, tables[0], height, width, seed, index, number, count)
        for number in range(choices.max_boxes)
    ]
    geometry = sample_geometry(parameters, choices, height, width, seed, index)
    packed = torch.stack([geometry, *boxes], dim=1).to(torch.int32)
    if not choices.coloured:
        return packed
    matrices = sample_colour(parameters, seed, index) if colours is None else colours
    return torch.cat([packed, matrices.contiguous().view(torch.int32)], dim=1)


def parted(views: Tensor, coloured: bool) -> tuple[Tensor, Tensor | None]:
    """Packed views as their geometry and boxes, and their colour matrices, float32 (batch, 3, 4), or None."""
    if not coloured:
        return views, None
    return views[:, :-COLOUR_ROWS], views[:, -COLOUR_ROWS:].contiguous().view(torch.float32)


def valid_views(views: Tensor, height: int, width: int) -> Tensor:
    """Which views, without their colours, may be followed, bool (batch,). Mirrors views.h::valid_geometry and
    valid_box."""
    flip, dy, dx, _ = views[:, 0].unbind(1)
    y0, x0, y1, x1 = views[:, 1:].unbind(2)
    boxes = (y0 >= 0) & (y0 <= y1) & (y1 <= height) & (x0 >= 0) & (x0 <= x1) & (x1 <= width)
    within = (dy >= -height) & (dy <= height) & (dx >= -width) & (dx <= width)
    return boxes.all(dim=1) & (flip >= 0) & (flip <= 1) & within


def followed(plan: Tensor, views: Tensor, height: int, width: int) -> Tensor:
    """Which samples are mixed as planned and seen as viewed, bool (batch,); the others are kept and seen as they are.

    The plan's row and the view have to be valid, and the view of a partner whose pixels are taken.
    """
    valid, seen = reference.valid_rows(plan, height, width), valid_views(views, height, width)
    if plan.shape[0] == 0:
        return valid
    return valid & seen & (~reference.has_partner(plan[:, 6]) | seen[torch.where(valid, plan[:, 0], 0).long()])


def coloured_value(row: Tensor, red: Tensor, green: Tensor, blue: Tensor, white: float) -> Tensor:
    """One channel through its row of a matrix (.., 4), in 0..white. Mirrors views.h::coloured_value."""
    of_red, of_green, of_blue, offset = row.unbind(-1)
    value = of_red * red + of_green * green + of_blue * blue + offset * white
    return torch.where(value > 0.0, torch.where(value < white, value, white), 0.0)


def _coloured(raw: Tensor, colours: Tensor, white: float) -> Tensor:
    """Raw values (batch, 3, height, width) through each sample's matrix."""
    red, green, blue = raw.unbind(1)
    rows = colours[:, :, None, None].unbind(1)
    return torch.stack([coloured_value(row, red, green, blue, white) for row in rows], dim=1)


def normalized(raw: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Mirrors views.h::normalized."""
    return (raw - mean) * scale


def byte_sum(word: Tensor) -> Tensor:
    """Mirrors views.h::byte_sum."""
    return (word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24)


def noise_of(word: Tensor) -> Tensor:
    """A number of mean 0 and variance 1. Mirrors views.h::noise_of."""
    return (byte_sum(word) - 510).to(torch.float32) * _NOISE_SCALE


def noise(seed: Tensor, index: Tensor, position: Tensor, channels: int) -> Tensor:
    """Noise of all channels, as a last dimension behind those of index and position. Mirrors views.h::noise."""
    groups = -(-channels // 4)
    words = [word for group in range(groups) for word in philox(seed, index, _PER_NOISE, position, group)]
    return noise_of(torch.stack(torch.broadcast_tensors(*words[:channels]), dim=-1))


def _in_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie in each box of (batch, n, 4), bool (batch, n, height, width)."""
    y0, x0, y1, x1 = boxes[..., None].unbind(2)
    y, x = (torch.arange(length, device=boxes.device) for length in (height, width))
    return ((y >= y0) & (y < y1))[..., :, None] & ((x >= x0) & (x < x1))[..., None, :]


def _per_channel(constants: Tensor) -> Tensor:
    return constants[:, None, None]


def _erase(values: Tensor, views: Tensor, constant: Tensor, erasing: Erasing, seed: Tensor) -> Tensor:
    """Values (batch, channels, height, width) with the boxes of each view erased."""
    batch, channels, height, width = values.shape
    index = torch.arange(batch, device=values.device)
    inside = _in_boxes(views[:, 1:], height, width)
    if erasing.value == EraseValue.pixel and inside.shape[1] > 0:
        position = torch.arange(height * width, device=values.device)
        fill = noise(seed, index[:, None], position, channels).mT.reshape(values.shape)
        return torch.where(inside.any(dim=1, keepdim=True), fill, values)
    for number in range(inside.shape[1]):
        fill = _per_channel(constant)
        if erasing.value == EraseValue.channel:
            fill = noise(seed, index, torch.full_like(index, number), channels)[:, :, None, None]
        values = torch.where(inside[:, number, None], fill, values)
    return values


def viewed(images: Tensor, views: Tensor, fill: float = 0) -> Tensor:
    """Raw pixels through each sample's flip and offset, of the images' dtype; fill from outside."""
    if images.numel() == 0:
        return images.clone()
    batch, _, height, width = images.shape
    flip, dy, dx, _ = views[:, 0].long().unbind(1)
    y, x = source_y(dy, height), source_x(flip, dx, width)
    inside = ((y >= 0) & (y < height))[:, None, :, None] & ((x >= 0) & (x < width))[:, None, None, :]
    sample = torch.arange(batch, device=images.device)[:, None, None]
    rows = y.clamp(0, height - 1)[:, :, None]
    columns = x.clamp(0, width - 1)[:, None, :]
    moved = images.permute(0, 2, 3, 1)[sample, rows, columns].permute(0, 3, 1, 2)
    return torch.where(inside, moved, torch.full((), fill, dtype=images.dtype, device=images.device))


def white_of(dtype: torch.dtype) -> float:
    """The greatest value of a channel. Mirrors views.h::white_of."""
    return 255.0 if dtype == torch.uint8 else 1.0


def cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 rounded once to the dtype of the output; uint8 takes values in 0..255. Mirrors values.h::Element::of."""
    return values.round().to(torch.uint8) if dtype == torch.uint8 else values.to(dtype)


def apply_views_out(
    images: Tensor,
    labels: Tensor | None,
    plan: Tensor,
    views: Tensor,
    coloured: bool,
    seed: Tensor,
    num_classes: int,
    label_smoothing: float,
    target_dtype: torch.dtype,
    constants: Tensor,
    erasing: list[int],
    out: Tensor,
) -> Tensor:
    batch, _, height, width = images.shape
    how = Erasing(*erasing)
    seed = seed.to(images.device).reshape(1)
    mean, scale, erase, fill = constants.to(images.device)
    views, colours = parted(views, coloured)
    valid = followed(plan, views, height, width)

    if images.numel() > 0:
        own = torch.where(valid_views(views, height, width)[:, None, None], views, 0)
        raw = viewed(images, own).to(torch.float32)
        if colours is not None:
            raw = _coloured(raw, colours, white_of(images.dtype))
        values = normalized(raw, _per_channel(mean), _per_channel(scale))
        plain = normalized(images.to(torch.float32), _per_channel(mean), _per_channel(scale))
        if how.order == EraseOrder.before:
            values = _erase(values, own, erase, how, seed)
        others = values[torch.where(valid, plan[:, 0], 0).long()]
        in_box = _in_boxes(plan[:, None, 1:5], height, width)
        lam = plan[:, 5].view(torch.float32)[:, None, None, None]
        mixed = reference.changed_pixels(
            values,
            others,
            _per_channel(fill),
            plan[:, 6, None, None, None],
            in_box,
            lambda kind: reference.computed(kind, lam, values, others),
        )
        if how.order == EraseOrder.after:
            mixed = _erase(mixed, own, erase, how, seed)
        out.copy_(cast(torch.where(valid[:, None, None, None], mixed, plain), out.dtype))
    if labels is None:
        return images.new_empty((batch, 0), dtype=target_dtype)
    return reference.soft_targets(labels, plan, valid, TargetFormat(num_classes, label_smoothing, target_dtype))


def apply_views(images, labels, *rest):
    *rest, dtype, memory_format = rest
    out = new_images(images, dtype, memory_format)
    return out, apply_views_out(images, labels, *rest, out)


def augment_out(
    images, labels, seed, quantiles, bounds, sampling, view_tables, colours, view_parameters, view_choices, *rest
):
    sizes = images.shape[0], *images.shape[-2:]
    plan = reference.sample_plan(seed, quantiles, bounds, sampling, *sizes)
    views = sample_views(seed, *sizes, view_tables, colours, view_parameters, view_choices)
    coloured = bool(ViewChoices(*view_choices).coloured)
    return apply_views_out(images, labels, plan, views, coloured, seed, *rest), plan, views


def augment(images, labels, *rest):
    *rest, dtype, memory_format = rest
    out = new_images(images, dtype, memory_format)
    return out, *augment_out(images, labels, *rest, out)


OPS = {
    "sample_views": sample_views,
    "augment": augment,
    "augment_out": augment_out,
    "apply_views": apply_views,
    "apply_views_out": apply_views_out,
}
