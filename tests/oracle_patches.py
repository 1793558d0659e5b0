"""An oracle of plans of several patches: slices, numpy and a sample at a time; and plans to hold it to.

It imports nothing of the implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .helpers import generator, oracle_box, oracle_lambda, oracle_plan, philox4x32, share_left

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

METHODS = ("keep", "cutmix", "mixup", "cutout", "resizemix", "ricap")  # in the order of their numbers
SCOPES, PARTNERS, PLACEMENTS = ("sample", "pair", "batch"), ("roll", "flip", "shift", "mirror"), ("clip", "inside")


def only(method: str, prob: float = 1.0) -> tuple[float, ...]:
    """The bounds of which one method has a share."""
    before = METHODS.index(method) - 1
    return (0.0,) * before + (prob,) * (len(METHODS) - 1 - before)


def _words(seed: int, index: int, stream: int, position: int = 0) -> list[int]:
    return philox4x32((index, position, stream, 0), (seed % (1 << 32), seed >> 32 & 0xFFFFFFFF))


Columns = tuple[list[int], list[int]]  # of a patch: its row and its source


def _columns(partner: int, box: tuple[int, ...], lam: np.float32, kind: int, source: tuple[int, ...]) -> Columns:
    return [partner, *box, int(lam.view(np.int32)), kind, 0], list(source)


def oracle_patches(
    seed: int,
    tables: np.ndarray,
    bounds: Sequence[float],
    sampling: Sequence[int],
    batch: int,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Rows and sources that every backend has to draw."""
    scope, rule, placement, holes, patches = sampling
    names = SCOPES[scope], PARTNERS[rule], PLACEMENTS[placement]
    options: dict[str, Any] = dict(zip(("scope", "partner", "placement"), names, strict=True))
    of_kinds = oracle_plan(seed, tables[:3], batch, height, width, bounds=bounds[:3], **options)
    every = []
    for i, planned in enumerate(of_kinds):
        draw = {"sample": i, "pair": min(i, planned.partner), "batch": 0}[names[0]]
        number = np.float32(_words(seed, draw, 1)[3] >> 8) * np.float32(2.0**-24)
        below = (method for method, bound in zip(METHODS[1:], bounds, strict=True) if number < np.float32(bound))
        method = next(below, "keep") if height * width > 0 else "keep"
        made: list[Columns] = []
        box: tuple[int, ...]
        if method == "ricap":
            made = [_corner(seed, i, draw, k, tables[4], batch, height, width) for k in range(4)]
        elif method == "resizemix" and planned.partner != i:
            word, word_x, word_y, _ = _words(seed, draw, 9, 1)
            scale = oracle_lambda(tables[3], word)
            tall, wide = int(scale * np.float32(height)), int(scale * np.float32(width))
            if height == 1 or width == 1:  # a span along the one side, across all of the other
                tall, wide = (1, wide) if height == 1 else (tall, 1)
            y0, x0 = word_y * (height - tall + 1) >> 32, word_x * (width - wide + 1) >> 32
            box = y0, x0, y0 + tall, x0 + wide
            made = [_columns(planned.partner, box, share_left(box, height, width), PASTE, (0, 0, height, width))]
        elif method == "cutout" and holes > 1:
            for k in range(holes):
                word, word_x, word_y, _ = _words(seed, draw, 9, 1 + k)
                box = oracle_box(oracle_lambda(tables[2], word), word_x, word_y, height, width, names[2])
                made.append(_columns(planned.partner, box, np.float32(1), FILL, box))
        elif planned.kind != "keep":
            box = (0, 0, height, width) if planned.kind == "mixup" else planned.box
            kind = {"cutmix": PASTE, "mixup": BLEND, "cutout": FILL}[planned.kind]
            made = [_columns(planned.partner, box, planned.lam, kind, box)]
        kept = _columns(planned.partner, (0, 0, 0, 0), np.float32(1), KEEP, (0, 0, 0, 0))
        every += [*made, *[kept] * (patches - len(made))]
    rows, sources = zip(*every, strict=True) if every else ((), ())
    return (
        torch.tensor(rows, dtype=torch.int32).reshape(batch, patches, 8),
        torch.tensor(sources, dtype=torch.int32).reshape(batch, patches, 4),
    )


def _corner(
    seed: int, index: int, draw: int, patch: int, table: np.ndarray, batch: int, height: int, width: int
) -> Columns:
    """A patch of ricap."""
    partner = (index + (_words(seed, 0, 8, patch)[0] * batch >> 32)) % batch
    y, x = (
        int(oracle_lambda(table, word) * np.float32(length) + np.float32(0.5))
        for word, length in zip(_words(seed, draw, 9)[:2], (height, width), strict=True)
    )
    box = [(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)][patch]
    _, word_x, word_y, _ = _words(seed, draw, 9, 1 + patch)
    tall, wide = box[2] - box[0], box[3] - box[1]
    y0, x0 = word_y * (height - tall + 1) >> 32, word_x * (width - wide + 1) >> 32
    return _columns(partner, box, share_left(box, height, width), PASTE, (y0, x0, y0 + tall, x0 + wide))
