"""Several patches a sample, in plain PyTorch on any device: the specification of the plan int32 (samples, patches, 8).

The functions are twins of those in ``csrc/patches.h``, which says what is painted and in which order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import reference
from ._ops import (
    BLENDED_DTYPES,
    KINDS,
    NO_FILL,
    PATCH_METHODS,
    RICAP_PATCHES,
    Kind,
    PatchMethod,
    PatchSampling,
    Placement,
    Sampling,
    TargetFormat,
    patch_ops,
)
from .reference import (
    PER_DRAW,
    blends,
    has_box,
    has_partner,
    is_kind,
    mixed_value,
    mixes_target,
    mulhi,
    philox,
    quantile,
)

_PER_PATCH_BATCH, PER_PATCH = 8, 9  # streams. Mirrors patches.h::PatchStream
_UNITS = 1 << 24  # of a pixel's weight


class Patches(NamedTuple):
    """The tensors of a plan, as the ops take them."""

    rows: Tensor
    sources: Tensor | None
    masks: Tensor | None
    weights: Tensor | None


# ---- How patches are drawn


def scaled_box(scale: Tensor, word_x: Tensor, word_y: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """A box of the image's shape, or a span of an image one pixel high or wide, anywhere inside.

    Mirrors patches.h::scaled_box.
    """
    return reference.inside_box(torch.zeros_like(scale), word_x, word_y, height, width, scale)


def nearest_part_of(share: Tensor, length: int) -> Tensor:
    """A share of a length in whole pixels, halves up. Mirrors patches.h::nearest_part_of."""
    part = share * torch.full_like(share, length) + 0.5
    return part.to(torch.int64).clamp(max=length)


def draws_holes_alone(bounds: Sequence[float]) -> bool:
    """Whether no method but cutout can be drawn. Mirrors patches.h::draws_holes_alone."""
    return not any(reference.can_draw(k, bounds) for k in range(1, PATCH_METHODS + 1) if k != Kind.cutout)


_Columns = tuple[Tensor, ...]  # of a patch of each sample: partner, box, lam, kind, source


def _patch_of_kind(row: Tensor, height: int, width: int) -> _Columns:
    """What is mixed as one of the kinds: its box is painted, or where the kind has none all of the image."""
    partner, kind = row[:, 0].long(), row[:, 6].long()
    whole = torch.tensor([0, 0, height, width], device=row.device)
    everywhere = (kind != int(Kind.keep)) & ~has_box(kind)
    box = torch.where(everywhere[:, None], whole, row[:, 1:5].long()).unbind(1)
    return partner, *box, row[:, 5].view(torch.float32), kind, *box


def _resized_partner(partner: Tensor, table: Tensor, words: tuple[Tensor, ...], height: int, width: int) -> _Columns:
    """The patch of resizemix."""
    box = scaled_box(quantile(table, words[0]), words[1], words[2], height, width)
    zero = torch.zeros_like(partner)
    kind = zero + int(Kind.cutmix)
    return partner, *box, reference.share_outside(box, height, width), kind, zero, zero, zero + height, zero + width


def _corner(
    partner: Tensor,
    table: Tensor,
    patch: int,
    of_sample: tuple[Tensor, ...],
    words: tuple[Tensor, ...],
    height: int,
    width: int,
) -> _Columns:
    """A patch of ricap."""
    zero = torch.zeros_like(partner)
    corner_y = nearest_part_of(quantile(table, of_sample[0]), height)
    corner_x = nearest_part_of(quantile(table, of_sample[1]), width)
    right, lower = patch % 2 == 1, patch // 2 == 1
    y0, y1 = (corner_y, zero + height) if lower else (zero, corner_y)
    x0, x1 = (corner_x, zero + width) if right else (zero, corner_x)
    box = y0, x0, y1, x1
    y, x = mulhi(words[2], height - (y1 - y0) + 1), mulhi(words[1], width - (x1 - x0) + 1)
    kind = zero + int(Kind.cutmix)
    return partner, *box, reference.share_outside(box, height, width), kind, y, x, y + (y1 - y0), x + (x1 - x0)


def sample_patches(
    seed: Tensor,
    quantiles: Tensor,
    bounds: Sequence[float],
    patch_sampling: Sequence[int],
    batch: int,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Rows, int32 (batch, patches, 8), and sources, int32 (batch, patches, 4). Mirrors patches.h::sample_patch."""
    scope, rule, placement, holes, patches = PatchSampling(*patch_sampling)
    index = torch.arange(batch, device=quantiles.device)
    if batch == 0:
        return index.new_empty((0, patches, 8), dtype=torch.int32), index.new_empty((0, patches, 4), dtype=torch.int32)
    seed = seed.to(quantiles.device).reshape(1)
    mapped = reference.partner_of(reference.partner_map(rule, seed, batch), index, batch)
    draw = reference.draw_index(scope, index, mapped)
    method = reference.first_below(bounds, philox(seed, draw, PER_DRAW)[3])
    method = torch.where((method == int(PatchMethod.resizemix)) & (mapped == index), 0, method)
    if height == 0 or width == 0:
        method = torch.zeros_like(method)
    sampling = Sampling(scope, rule, placement, correct_lam=1)
    of_kinds = reference.sample_plan(seed, quantiles[:KINDS], bounds[:KINDS], sampling, batch, height, width)
    of_sample = philox(seed, draw, PER_PATCH)
    place = reference.clipped_box if placement == Placement.clip else reference.inside_box

    rows, sources = [], []
    zero, one = torch.zeros_like(index), torch.ones(batch, device=index.device)
    for patch in range(patches):
        words = philox(seed, draw, PER_PATCH, 1 + patch)
        made = mapped, *[zero] * 4, one, zero, *[zero] * 4
        drawn: dict[int, _Columns] = {}
        if patch == 0:
            drawn |= dict.fromkeys(range(1, KINDS + 1), _patch_of_kind(of_kinds, height, width))
            table = quantiles[PatchMethod.resizemix - 1]
            drawn[PatchMethod.resizemix] = _resized_partner(mapped, table, words, height, width)
        if holes > 1 and patch < holes:
            box = place(quantile(quantiles[Kind.cutout - 1], words[0]), words[1], words[2], height, width)
            drawn[Kind.cutout] = mapped, *box, one, zero + int(Kind.cutout), *box
        if patch < RICAP_PATCHES:
            shift = mulhi(philox(seed, torch.zeros_like(seed), _PER_PATCH_BATCH, patch)[0], batch)
            partner, table = (index + shift) % batch, quantiles[PatchMethod.ricap - 1]
            drawn[PatchMethod.ricap] = _corner(partner, table, patch, of_sample, words, height, width)
        for each, columns in drawn.items():
            made = tuple(torch.where(method == int(each), *both) for both in zip(columns, made, strict=True))
        partner, y0, x0, y1, x1, lam, kind, *source = made
        integers = [column.to(torch.int32) for column in (partner, y0, x0, y1, x1)]
        rows.append(torch.stack([*integers, lam.view(torch.int32), kind.to(torch.int32), zero.to(torch.int32)], dim=1))
        sources.append(torch.stack(source, dim=1).to(torch.int32))
    return torch.stack(rows, dim=1), torch.stack(sources, dim=1)


# ---- What a given plan may say


def valid_samples(patches: Patches, samples: int, height: int, width: int, can_blend: bool = True) -> Tensor:
    """Which samples may be painted, bool (N,), of a batch of so many samples and others. Mirrors patches.h::valid_patch
    and patches.h::valid_weights."""
    rows, sources, masks, weights = patches
    partner, y0, x0, y1, x1, _, kind, mask = rows.unbind(2)
    lam = rows[:, :, 5].view(torch.float32)
    count = 0 if masks is None else masks.shape[0]
    valid = (partner >= 0) & (partner < samples) & is_kind(kind) & (mask >= 0) & (mask <= count)
    valid &= (y0 >= 0) & (y0 <= y1) & (y1 <= height) & (x0 >= 0) & (x0 <= x1) & (x1 <= width)
    valid &= (lam >= 0) & (lam <= 1)
    if not can_blend:
        soft = (mask != 0) & (kind != int(Kind.keep)) if masks is not None and masks.is_floating_point() else mask < 0
        valid &= ~(blends(kind) | soft)
    if sources is not None:
        sy0, sx0, sy1, sx1 = sources.unbind(2)
        valid &= (sy0 >= 0) & (sy0 <= sy1) & (sy1 <= height) & (sx0 >= 0) & (sx0 <= sx1) & (sx1 <= width)
        nothing = (sy0 == sy1) | (sx0 == sx1)
        valid &= ~(nothing & has_partner(kind) & (y0 < y1) & (x0 < x1))
    valid = valid.all(dim=1)
    if weights is not None:
        valid = valid & ((weights >= 0) & (weights <= 1)).all(dim=1)
    return valid


def mates(rows: Tensor) -> Tensor:
    """In place, the sample that each exchanges pixels with, int64 (N,): the partner that all of its patches have, and
    whose patches all have it; itself where there is none. Mirrors patches.h::mate_of."""
    samples = rows.shape[0]
    index = torch.arange(samples, device=rows.device)
    if samples == 0:
        return index
    partner = rows[:, :, 0]
    mate = partner[:, 0].long()
    there = (mate >= 0) & (mate < samples) & (partner == partner[:, :1]).all(dim=1)
    back = (partner[mate.clamp(0, samples - 1)] == index[:, None]).all(dim=1)
    return torch.where(there & back, mate, index)


def valid_in_place(patches: Patches) -> Tensor:
    """Which samples may be painted in place, bool (N,): whose patches bring nobody's pixels, or their mate's from where
    they are. Mirrors patches.h::valid_in_place."""
    rows, sources, _, _ = patches
    stays = rows[:, :, 0] == mates(rows)[:, None]
    if sources is not None:
        stays = stays & (sources == rows[:, :, 1:5]).all(dim=2)
    return (~has_partner(rows[:, :, 6]) | stays).all(dim=1)


# ---- What is painted


def weight_below(row: Tensor, masks: Tensor | None, height: int, width: int) -> Tensor:
    """The weight of what lies below a patch at each pixel, float32 (N, channels, height, width), of rows (N, 8) that
    are valid; there is one channel where masks do not tell them apart. Mirrors patches.h::weight_below."""
    _, y0, x0, y1, x1, _, kind, mask = (column[:, None, None, None] for column in row.unbind(1))
    y = torch.arange(height, device=row.device)[:, None]
    x = torch.arange(width, device=row.device)
    inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1) & (kind != int(Kind.keep))
    lam = row[:, 5].view(torch.float32)[:, None, None, None]
    below = torch.where(blends(kind), lam, torch.zeros_like(lam)).expand(inside.shape)
    if masks is not None and masks.shape[0] > 0:
        cell_y = torch.arange(height, device=row.device) * masks.shape[-2] // max(height, 1)
        cell_x = torch.arange(width, device=row.device) * masks.shape[-1] // max(width, 1)
        number = (row[:, 7] - 1).clamp(min=0).long()
        planes = masks.reshape(masks.shape[0], -1, *masks.shape[-2:])
        weight = planes[number][:, :, cell_y[:, None], cell_x].to(torch.float32)
        weight = torch.where(weight > 0, weight, torch.zeros_like(weight))  # first, because it is this that takes NaN
        weight = torch.where(weight < 1, weight, torch.ones_like(weight))
        below = torch.where(mask > 0, weight + (1.0 - weight) * below, below)
    return torch.where(inside, below, torch.ones_like(below))


def shares(patches: Patches, valid: Tensor, height: int, width: int) -> Tensor:
    """The share of each sample's pixels that are its own and each patch's, float32 (N, 1 + patches); the mean over the
    channels where masks tell them apart. Mirrors patches.h::share_of."""
    if patches.weights is not None:
        return patches.weights
    channels = 1 if patches.masks is None or patches.masks.dim() == 3 else patches.masks.shape[1]
    left = torch.ones((), device=valid.device)
    sums = []
    for row in reversed(_followed(patches.rows, valid).unbind(1)):
        below = weight_below(row, patches.masks, height, width)
        below = torch.where(mixes_target(row[:, 6])[:, None, None, None], below, torch.ones_like(below))
        units = (left * (1.0 - below) * _UNITS).to(torch.int64).expand(-1, channels, -1, -1)
        sums.append(units.sum(dim=(1, 2, 3)))
        left = left * below
    every = channels * height * width * _UNITS
    others = torch.stack(sums[::-1], dim=1)
    own = every - others.sum(dim=1, keepdim=True)
    parts = torch.cat([own, others], dim=1).to(torch.float32)
    pixels = torch.full_like(parts, channels * height * width) * float(_UNITS)
    if height * width == 0:
        return (torch.arange(parts.shape[1], device=parts.device) == 0).to(torch.float32).expand(parts.shape)
    return parts / pixels


def _followed(rows: Tensor, valid: Tensor) -> Tensor:
    """The rows, of samples that may not be painted zeros, which keep them."""
    return torch.where(valid[:, None, None], rows, torch.zeros_like(rows))


def _source_index(box: tuple[Tensor, Tensor], source: tuple[Tensor, Tensor], length: int) -> Tensor:
    """Which row (or column) of the partner comes where, (N, length). Mirrors patches.h::source_of."""
    (begin, end), (source_begin, source_end) = ((edge[:, None].long() for edge in edges) for edges in (box, source))
    position = torch.arange(length, device=begin.device)
    index = source_begin + (position - begin) * (source_end - source_begin) // (end - begin).clamp(min=1)
    return index.clamp(0, max(length - 1, 0))  # of positions outside of the box, which nobody asks for


def _paint_pixels(images: Tensor, others: Tensor | None, patches: Patches, valid: Tensor, out: Tensor, fill) -> None:
    samples, batch = out.shape[0], images.shape[0]
    if out.numel() == 0:
        return
    height, width = images.shape[-2:]
    every = images if others is None else torch.cat([images, others])
    if every.data_ptr() % every.element_size() != 0:
        every = every.clone()  # because torch's index of complex128 counts on alignment
    flat = every.reshape(every.shape[0], -1, height, width)
    canvas = torch.arange(samples, device=images.device) % batch
    bits = reference._as_bits(flat)
    painted = bits[canvas]
    can_blend = images.dtype in BLENDED_DTYPES
    value = torch.float64 if images.dtype == torch.float64 else torch.float32
    mixed = flat[canvas].to(value) if can_blend else None
    blended = torch.zeros((), dtype=torch.bool, device=images.device)
    rows = _followed(patches.rows, valid)
    fill_bits = reference._fill_of(images, fill)
    for patch in range(rows.shape[1]):
        row = rows[:, patch]
        partner, y0, x0, y1, x1, _, kind, _ = row.unbind(1)
        sy0, sx0, sy1, sx1 = (row[:, 1:5] if patches.sources is None else patches.sources[:, patch]).unbind(1)
        from_y = _source_index((y0, y1), (sy0, sy1), height)
        from_x = _source_index((x0, x1), (sx0, sx1), width)
        at = partner.long()[:, None, None], from_y[:, :, None], from_x[:, None, :]
        theirs = bits.permute(0, 2, 3, 1)[at].permute(0, 3, 1, 2)
        theirs = torch.where(has_partner(kind)[:, None, None, None], theirs, fill_bits)
        below = weight_below(row, patches.masks, height, width)
        if below.shape[1] > 1:  # slices of a channel lie side by side
            below = below.repeat_interleave(flat.shape[1] // below.shape[1], dim=1)
        painted = torch.where(below == 0, theirs, painted)
        if mixed is not None:
            values = theirs.contiguous().view(images.dtype).to(value)
            between = torch.where(below < 1, mixed_value(below.to(value), mixed, values), mixed)
            mixed = torch.where(below == 0, values, between)
            blended = torch.where(below == 0, False, blended | (below < 1))
    if mixed is not None:
        rounded = mixed.round().to(torch.uint8) if images.dtype == torch.uint8 else mixed.to(images.dtype)
        painted = torch.where(blended, reference._as_bits(rounded), painted)
    reference._as_bits(out).copy_(painted.reshape(out.shape))


def soft_targets(
    labels: Tensor,
    other_labels: Tensor | None,
    patches: Patches,
    valid: Tensor,
    height: int,
    width: int,
    target_format: TargetFormat,
) -> Tensor:
    """Targets, (N, num_classes): the sum of shares times labels, own first; those without a share do not count.
    Mirrors patches.h::patch_target."""
    num_classes, label_smoothing, dtype = target_format
    value = torch.float64 if dtype == torch.float64 else torch.float32
    scale, off, on = (
        torch.full((), x, dtype=value, device=labels.device)
        for x in reference.smoothing_of(label_smoothing, num_classes)
    )
    every = labels if other_labels is None else torch.cat([labels, other_labels])
    samples = patches.rows.shape[0]
    if samples == 0:
        return labels.new_empty((0, num_classes), dtype=dtype)
    weights = shares(patches, valid, height, width)
    rows = _followed(patches.rows, valid)
    canvas = torch.arange(samples, device=labels.device) % labels.shape[0]
    if not every.is_floating_point():
        every = every.view(torch.int64) if every.dtype == torch.uint64 else every.long()
    targets = torch.zeros((samples, num_classes), dtype=value, device=labels.device)
    for part, index in enumerate([canvas, *rows[:, :, 0].long().unbind(1)]):
        weight = weights[:, part, None]
        if part > 0 and patches.weights is not None:
            weight = torch.where(mixes_target(rows[:, part - 1, 6])[:, None], weight, torch.zeros_like(weight))
        counts = weight > 0
        label = every[index]
        if every.is_floating_point():
            own = label.to(value) * scale + off
        else:
            valid = valid & (~counts[:, 0] | ((label >= 0) & (label < num_classes)))
            own = torch.where(label[:, None] == torch.arange(num_classes, device=labels.device), on, off)
        targets = torch.where(counts, targets + weight.to(value) * own, targets)
    return torch.where(valid[:, None], targets, torch.full_like(targets, float("nan"))).to(dtype)


# ---- The ops, in the order of _ops.py


def paint_out(
    images, others, labels, other_labels, rows, sources, masks, weights,
    num_classes, label_smoothing, dtype, out, fill=NO_FILL,
):  # fmt: skip
    """In place where out is the images."""
    patches = Patches(rows, sources, masks, weights)
    samples = images.shape[0] + (0 if others is None else others.shape[0])
    valid = valid_samples(patches, samples, *images.shape[-2:], images.dtype in BLENDED_DTYPES)
    if out is images:
        valid = valid & valid_in_place(patches)
    _paint_pixels(images, others, patches, valid, out, fill)
    if labels is None:
        return images.new_empty((rows.shape[0], 0), dtype=dtype)
    target_format = TargetFormat(num_classes, label_smoothing, dtype)
    return soft_targets(labels, other_labels, patches, valid, *images.shape[-2:], target_format)


def paint_targets(
    labels, other_labels, rows, masks, weights, height, width, num_classes, label_smoothing, dtype
):  # fmt: skip
    patches = Patches(rows, None, masks, weights)
    samples = labels.shape[0] + (0 if other_labels is None else other_labels.shape[0])
    valid = valid_samples(patches, samples, height, width)
    target_format = TargetFormat(num_classes, label_smoothing, dtype)
    return soft_targets(labels, other_labels, patches, valid, height, width, target_format)


def sample_and_paint_out(
    images, labels, seed, quantiles, bounds, patch_sampling, num_classes, label_smoothing, dtype, out, fill=NO_FILL
):
    rows, sources = sample_patches(seed, quantiles, bounds, patch_sampling, images.shape[0], *images.shape[-2:])
    given = images, None, labels, None, rows, sources, None, None
    return paint_out(*given, num_classes, label_smoothing, dtype, out, fill), rows, sources


OPS = patch_ops(paint_out, paint_targets, sample_patches, sample_and_paint_out)
