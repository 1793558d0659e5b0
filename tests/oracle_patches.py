"""An oracle of plans of several patches: slices, numpy and a sample at a time; and plans to hold it to.

It imports nothing of the implementation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .helpers import generator, oracle_box, oracle_lambda, oracle_partners, philox4x32, share_left

KEEP, PASTE, BLEND, FILL = range(4)


class Plan(NamedTuple):
    """The tensors of a plan, as the ops take them."""

    rows: Tensor
    sources: Any = None  # Tensor or None, as what follows
    masks: Any = None
    weights: Any = None


def random_rectangles(count: tuple[int, ...], height: int, width: int, seed: int, least: int = 0) -> Tensor:
    """Half open rectangles inside an image, int32 (*count, 4): y0, x0, y1, x1."""
    ends = []
    for axis, length in enumerate((height, width)):
        least_here = min(least, length)
        size = torch.randint(least_here, length + 1, count, generator=generator(seed + 10 * axis))
        start = (torch.rand(count, generator=generator(seed + 10 * axis + 1)) * (length - size + 1)).long()
        ends.append((start, start + size))
    (y0, y1), (x0, x1) = ends
    return torch.stack([y0, x0, y1, x1], dim=-1).to(torch.int32)


def random_plan(
    samples: int,
    patches: int,
    partners: int,
    height: int,
    width: int,
    *,
    kinds: tuple[int, ...] = (KEEP, PASTE, BLEND, FILL),
    sources: bool = False,
    masks: tuple[int, ...] | None = None,
    soft: bool = False,
    weights: bool = False,
    seed: int = 0,
) -> Plan:
    """A plan of random patches; masks (h, w) or (channels, h, w) gives each of them one of five masks, or none."""
    count = samples, patches
    kind = torch.tensor(kinds)[torch.randint(len(kinds), count, generator=generator(seed))]
    partner = torch.randint(partners, count, generator=generator(seed + 1))
    lam = torch.rand(count, generator=generator(seed + 2)).view(torch.int32)
    boxes = random_rectangles(count, height, width, seed + 3)
    number, every = torch.zeros(count, dtype=torch.int64), None
    if masks is not None:
        number = torch.randint(6, count, generator=generator(seed + 4))
        every = torch.rand(5, *masks, generator=generator(seed + 5))
        every = torch.where(every < 0.2, 0.0, torch.where(every > 0.8, 1.0, every)) if soft else every > 0.5
    columns = [partner, *boxes.unbind(-1), lam, kind, number]
    rows = torch.stack([column.to(torch.int32) for column in columns], dim=-1)
    shares = torch.rand(samples, 1 + patches, generator=generator(seed + 6)) if weights else None
    origins = random_rectangles(count, height, width, seed + 7, least=1) if sources else None
    return Plan(rows, origins, every, shares)


def in_pairs(plan: Plan, seed: int = 0) -> Plan:
    """The plan with one partner for all patches of a sample, by pairs at random, and the boxes as sources."""
    samples = len(plan.rows)
    order = torch.randperm(samples, generator=generator(seed)).tolist()
    partner = torch.arange(samples, dtype=torch.int32)
    for i, j in zip(order[::2], order[1::2], strict=False):
        partner[i], partner[j] = j, i
    rows = plan.rows.clone()
    rows[:, :, 0] = partner[:, None]
    return plan._replace(rows=rows, sources=None if plan.sources is None else rows[:, :, 1:5].clone())


def oracle_in_place(plan: Plan) -> list[bool]:
    """Which samples may be painted in place, as it is said in words, of rows that lead nowhere outside."""
    partners = [set(partners) for partners in plan.rows[:, :, 0].tolist()]
    followed = []
    for i, rows in enumerate(plan.rows.tolist()):
        paired = len(partners[i]) == 1 and partners[max(partners[i])] == {i}
        mate = max(partners[i]) if paired else i
        brought = [k for k, row in enumerate(rows) if row[6] in (PASTE, BLEND)]
        boxes = [row[1:5] for row in rows]
        sources = boxes if plan.sources is None else plan.sources[i].tolist()
        followed.append(all(rows[k][0] == mate and boxes[k] == sources[k] for k in brought))
    return followed


class Painted(NamedTuple):
    """What a plan makes of a batch."""

    images: Tensor
    shares: np.ndarray  # float64 (samples, 1 + patches), of the pixels


def oracle_paint(images: Tensor, plan: Plan, others: Any = None, fill: Any = 0) -> Painted:
    """The painted images, contiguous, and whose their pixels are."""
    every = images if others is None else torch.cat([images, others])
    height, width = images.shape[-2:]
    samples, patches, _ = plan.rows.shape
    real: Any = np.float64 if images.dtype == torch.float64 else np.float32
    painted, shares = [], np.zeros((samples, 1 + patches))
    for i in range(samples):
        bits = every[i % images.shape[0]].clone(memory_format=torch.contiguous_format)
        value = _values(bits, real)
        of_channels = plan.masks is not None and plan.masks.dim() == 4
        lead = (images.shape[1], *[1] * (images.dim() - 4)) if of_channels else ()
        touched = np.zeros((*lead, height, width), dtype=bool)
        parts = np.zeros((1 + patches, *lead, height, width))
        parts[0] = 1
        for k in range(patches):
            partner, y0, x0, y1, x1, lam_bits, kind, number = plan.rows[i, k].tolist()
            if kind == KEEP or y0 == y1 or x0 == x1:
                continue
            sy0, sx0, sy1, sx1 = (y0, x0, y1, x1) if plan.sources is None else plan.sources[i, k].tolist()
            from_y = [sy0 + (y - y0) * (sy1 - sy0) // (y1 - y0) for y in range(y0, y1)]
            from_x = [sx0 + (x - x0) * (sx1 - sx0) // (x1 - x0) for x in range(x0, x1)]
            theirs = every[partner][..., from_y, :][..., from_x]
            if kind == FILL:
                theirs = torch.full_like(theirs, fill)
            lam = np.array([lam_bits], dtype=np.int32).view(np.float32)[0] if kind == BLEND else np.float32(0)
            below = np.full((*lead, y1 - y0, x1 - x0), lam, dtype=np.float32)
            if number > 0:
                mask = plan.masks[number - 1]
                cell_y = [y * mask.shape[-2] // height for y in range(y0, y1)]
                cell_x = [x * mask.shape[-1] // width for x in range(x0, x1)]
                weight = mask[..., cell_y, :][..., cell_x].to(torch.float32).reshape(below.shape).numpy()
                weight = np.clip(np.nan_to_num(weight, nan=0.0), 0, 1).astype(np.float32)
                below = weight + (np.float32(1) - weight) * below
            box = (..., slice(y0, y1), slice(x0, x1))
            opaque, partial = below == 0, (below > 0) & (below < 1)
            bits[box] = torch.where(torch.from_numpy(opaque), theirs, bits[box])
            with np.errstate(all="ignore"):
                mixed = below.astype(real) * value[box]
                mixed = mixed + (real(1) - below.astype(real)) * _values(theirs, real)
            value[box] = np.where(opaque, _values(theirs, real), np.where(partial, mixed, value[box]))
            touched[box] = ~opaque & (touched[box] | partial)
            if kind != FILL:
                parts[box] *= below
                parts[1 + k][box] = 1 - below.astype(np.float64)
        if touched.any():
            if images.dtype == torch.uint8:
                value = np.rint(value)
            bits = torch.where(torch.from_numpy(touched), torch.from_numpy(value).to(images.dtype), bits)
        painted.append(bits)
        shares[i] = parts.reshape(1 + patches, -1).mean(axis=1)
    stacked = torch.stack(painted) if painted else images.new_empty((0, *images.shape[1:]))
    return Painted(stacked, shares)


def _values(pixels: Tensor, real: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        if pixels.is_complex():
            return np.zeros(pixels.shape, dtype=real)
        return pixels.to(torch.float64).numpy().astype(real)


def oracle_soft(labels: Tensor, num_classes: int, label_smoothing: float) -> np.ndarray:
    """Labels of either kind, smoothed, float64 (samples, num_classes)."""
    off = label_smoothing / num_classes
    if labels.is_floating_point():
        return labels.double().numpy() * (1 - label_smoothing) + off
    own = np.full((len(labels), num_classes), off)
    for i, label in enumerate(labels.tolist()):
        own[i, label] = 1 - label_smoothing + off
    return own


def oracle_painted_targets(labels: Tensor, plan: Plan, shares: np.ndarray, num_classes: int, smoothing: float) -> Any:
    """Targets in float64, from labels of all partners and the batch's size before them."""
    soft = oracle_soft(labels, num_classes, smoothing)
    targets = np.zeros((len(plan.rows), num_classes))
    for i, rows in enumerate(plan.rows.tolist()):
        targets[i] = shares[i, 0] * soft[i % (len(labels))]
        for k, (partner, *_, kind, _) in enumerate(rows):
            if kind in (PASTE, BLEND):
                targets[i] += shares[i, 1 + k] * soft[partner]
    return targets


# ---- How patches are drawn, in Python integers and numpy's float32

HOLES, RESIZEMIX, RICAP = range(3)
SCOPES, PARTNERS, PLACEMENTS = ("sample", "pair", "batch"), ("roll", "flip", "shift", "mirror"), ("clip", "inside")


def _words(seed: int, index: int, stream: int, position: int = 0) -> list[int]:
    return philox4x32((index, position, stream, 0), (seed % (1 << 32), seed >> 32 & 0xFFFFFFFF))


def oracle_patches(
    seed: int, table: np.ndarray, prob: float, sampling: tuple[int, ...], batch: int, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Rows and sources that every backend has to draw."""
    method, scope, rule, placement, patches = sampling
    partners = oracle_partners(PARTNERS[rule], seed, batch)
    rows, sources = [], []
    for i in range(batch):
        draw = {"sample": i, "pair": min(i, partners[i]), "batch": 0}[SCOPES[scope]]
        corner_y, corner_x, _, kept = _words(seed, draw, 9)
        for k in range(patches):
            word, word_x, word_y, _ = _words(seed, draw, 9, 1 + k)
            partner = (i + (_words(seed, 0, 8, k)[0] * batch >> 32)) % batch if method == RICAP else partners[i]
            number = np.float32(kept >> 8) * np.float32(2.0**-24)
            keeps = not number < np.float32(prob) or height * width == 0 or (method == RESIZEMIX and partner == i)
            if keeps:
                rows.append([partner, 0, 0, 0, 0, int(np.float32(1).view(np.int32)), KEEP, 0])
                sources.append([0, 0, 0, 0])
                continue
            lam, kind = np.float32(1), PASTE
            size = oracle_lambda(table, word)
            if method == HOLES:
                source = box = oracle_box(size, word_x, word_y, height, width, PLACEMENTS[placement])
                kind = FILL
            elif method == RESIZEMIX:
                tall, wide = int(size * np.float32(height)), int(size * np.float32(width))
                y0, x0 = word_y * (height - tall + 1) >> 32, word_x * (width - wide + 1) >> 32
                box, source = (y0, x0, y0 + tall, x0 + wide), (0, 0, height, width)
            else:
                y, x = (
                    int(oracle_lambda(table, corner) * np.float32(length) + np.float32(0.5))
                    for corner, length in ((corner_y, height), (corner_x, width))
                )
                box = [(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)][k]
                tall, wide = box[2] - box[0], box[3] - box[1]
                y0, x0 = word_y * (height - tall + 1) >> 32, word_x * (width - wide + 1) >> 32
                source = (y0, x0, y0 + tall, x0 + wide)
            if method != HOLES:
                lam = share_left(box, height, width)
            rows.append([partner, *box, int(lam.view(np.int32)), kind, 0])
            sources.append(list(source))
    shape = batch, patches
    return (
        torch.tensor(rows, dtype=torch.int32).reshape(*shape, 8),
        torch.tensor(sources, dtype=torch.int32).reshape(*shape, 4),
    )
