"""The gallery: the same eight photographs under every method, their soft targets below them in words.

Needs the extra ``cutmix_cuda[demo]``. The photographs are those of :mod:`cutmix_cuda.demo`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from . import masks
from .demo import ACCENT, CLASSES, INK, make_batch, words_of
from .patches import mix_by_masks
from .transforms import RICAP, CutMix, Cutout, FMix, Mix, MixUp, ResizeMix

BATCH = len(CLASSES)
GAP, NAME_WIDTH, TEXT, LINE = 10, 104, 13, 16  # pixels
MOST_LINES = 4  # of a target

Method = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor | None]]  # images, labels, seed


def _by_masks(make: Callable[..., Tensor], **options: object) -> Method:
    """A method of masks, a partner for each sample that is as far away as it gets."""

    def mix(images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor | None]:
        fraction = torch.full((len(images),), 0.5)
        cells = make(fraction, *images.shape[-2:], seed=seed, **options)
        return mix_by_masks(images, labels, cells, BATCH, partner=torch.arange(len(images)).roll(len(images) // 2))

    return mix


def _smooth(lam: Tensor, height: int, width: int, *, seed: int) -> Tensor:
    """Floats that fall from 1 to 0, as SmoothMix's."""
    sharp = masks.cow(lam, height, width, sigma=(0.2, 0.2), seed=seed).float()[:, None]
    side = max(height // 6, 1)
    return F.interpolate(F.adaptive_avg_pool2d(sharp, side), (height, width), mode="bilinear")[:, 0]


def _all(transform: type, **options: object) -> Method:
    return lambda images, labels, seed: transform(num_classes=BATCH, seed=seed, **options)(images, labels)


METHODS: dict[str, Method] = {
    "as they are": lambda images, labels, seed: (images, torch.eye(BATCH)[labels]),
    "CutMix": _all(CutMix),
    "MixUp": _all(MixUp, alpha=4.0),
    "Cutout": _all(Cutout),
    "Cutout,\n3 holes": _all(Cutout, area=0.08, holes=3),
    "RICAP": _all(RICAP, beta=1.0),
    "ResizeMix": _all(ResizeMix),
    "Mix of\nthose": _all(
        Mix, cutout=0.15, cutout_area=0.08, cutout_holes=3, ricap=0.2, resizemix=0.15, mixup_alpha=4.0
    ),
    "FMix": _all(FMix),
    "cow masks": _by_masks(masks.cow, sigma=(0.125, 0.2)),
    "grid masks": _by_masks(masks.grid),
    "blocks": _by_masks(lambda lam, height, width, *, seed: masks.blocks(lam, 8, 8, seed=seed)),
    "soft masks": _by_masks(_smooth),
}


def draw(size: int, seed: int) -> Image.Image:
    """The picture: a row for each method, its name to the left, and below each image its soft target."""
    images, labels = make_batch(BATCH, size)
    font, bold = ImageFont.load_default(TEXT), ImageFont.load_default(TEXT + 3)
    rows = {name: mix(images, labels, seed) for name, mix in METHODS.items()}
    lines = {
        name: [_lines(targets[i], int(labels[i])) for i in range(BATCH)]
        for name, (_, targets) in rows.items()
        if targets is not None
    }
    heights = {name: size + LINE * max(map(len, words)) + 2 * GAP for name, words in lines.items()}
    width = NAME_WIDTH + BATCH * (size + GAP)
    picture = Image.new("RGB", (width, GAP + sum(heights.values())), "white")
    pen = ImageDraw.Draw(picture)
    top = GAP
    for name, (mixed, _) in rows.items():
        pen.multiline_text((GAP, top + size / 2), name, INK, bold, anchor="lm")
        for i in range(BATCH):
            left = NAME_WIDTH + i * (size + GAP)
            picture.paste(Image.fromarray(mixed[i].permute(1, 2, 0).numpy()), (left, top))
            for number, (words, own) in enumerate(lines[name][i]):
                place = left + size / 2, top + size + 3 + LINE * number
                pen.text(place, words, INK if own else ACCENT, font, anchor="ma")
        top += heights[name]
    return picture


def _lines(target: Tensor, label: int) -> list[tuple[str, bool]]:
    """A soft target in words, a class a line, and whether it is the sample's own: that first, then by weight."""
    words = words_of(target, label)
    own, others = words[0], sorted(words[1:], reverse=True)
    shown = [(own, True)] if float(target[label]) > 0 else []
    return [*shown, *((other, False) for other in others)][:MOST_LINES]


def run(args: argparse.Namespace) -> None:
    path: Path = args.output
    draw(args.size, args.seed).save(path)
    print(f"The picture is {path}.")
