"""The pictures of the gallery: photographs mixed and drawn by the package itself, whenever the pages are built.

``python docs/gallery.py`` draws docs/tail.png, README's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cutmix_cuda import Augment, CutMix, Cutout, Erase, Mix, MixUp, Views
from cutmix_cuda.demo import CLASSES, INK, draw_mixed, make_batch, words_of
from cutmix_cuda.distributions import Constant

BATCH, SIZE, DPI = 6, 224, 150
WIDTH_INCHES, ROW_INCHES = 9.0, 2.1
GRID = {"left": 0.05, "right": 0.998, "bottom": 0.17, "top": 0.99, "wspace": 0.06}

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
TAIL_BATCH, TAIL_INCHES = 4, (9.0, 8.6)
TAIL_GRID = {"left": 0.005, "right": 0.995, "bottom": 0.045, "top": 0.965, "wspace": 0.06, "hspace": 0.28}

Rows = dict[str, CutMix | Mix | MixUp | Cutout]


def cutmix(**options) -> CutMix:
    return CutMix(num_classes=len(CLASSES), **options)


def mix(**options) -> Mix:
    return Mix(num_classes=len(CLASSES), **options)


# What there is to see: for each picture of gallery.md a row for each transform, under its name.
PICTURES: dict[str, Rows] = {
    "batch": {"": mix(cutmix_alpha=None, mixup_alpha=None)},  # as it is before mixing
    "kinds": {
        "CutMix": cutmix(seed=10),
        "MixUp": MixUp(num_classes=len(CLASSES), alpha=4.0, seed=4),
        "Cutout": Cutout(num_classes=len(CLASSES), seed=8),
        "Mix": mix(mixup_alpha=4.0, cutout=0.2, prob=0.8, seed=11),
    },
    "scope": {scope: cutmix(scope=scope, seed=4) for scope in ("sample", "pair", "batch")},
    "partner": {
        partner: cutmix(alpha=Constant(0.6), partner=partner, placement="inside", seed=4)
        for partner in ("mirror", "shift", "roll", "flip")
    },
    "placement": {
        placement: cutmix(alpha=Constant(0.6), placement=placement, seed=2) for placement in ("clip", "inside")
    },
    "alpha": {f"alpha {alpha:g}": cutmix(alpha=alpha, seed=1) for alpha in (0.2, 1.0, 8.0)},
}


def draw(folder: Path) -> None:
    """Writes every picture to a folder."""
    folder.mkdir(exist_ok=True)
    images, labels = make_batch(BATCH, SIZE)
    for name, rows in PICTURES.items():
        picture(images, labels, rows).savefig(folder / f"{name}.png", dpi=DPI)
    tail(*make_batch(TAIL_BATCH, SIZE)).savefig(folder / "tail.png", dpi=DPI)


def picture(images: Tensor, labels: Tensor, rows: Rows) -> Figure:
    """A row for each transform: its name, the images as it mixes them, and their soft targets in words."""
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * len(rows)), facecolor="white")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (name, transform) in zip(parts, rows.items(), strict=True):
        part.text(0.005, 0.58, name, rotation=90, fontsize=11, color=INK, ha="left", va="center", weight="bold")
        mixed, targets, plan = transform(images, labels, return_plan=True)
        for i, axes in enumerate(part.subplots(1, len(images), gridspec_kw=GRID)):
            axes.set_axis_off()
            draw_mixed(axes, mixed[i], plan.boxes[i], words_of(targets[i], int(labels[i])))
    return figure


def tail(images: Tensor, labels: Tensor) -> Figure:
    """The stages of the batch tail, a column each, and in the last one what the model gets."""
    whole = Augment(
        cutmix(alpha=Constant(0.6)), mean=MEAN, std=STD, flip=0.5, translate=40, erase=Erase(0.7, value="pixel"), seed=5
    )
    _, targets, plan, views = whole(images, labels, return_plan=True)
    moved = Views.make(len(images), SIZE, SIZE, flip=views.flip, offset=views.offset)
    nothing = torch.zeros_like(plan.boxes)
    stages = {
        "from the loader": (images, nothing),
        "shifted and flipped": (Augment().apply_plan(images, views=moved)[0], nothing),
        "normalised": (whole.apply_plan(images, views=moved)[0], nothing),
        "erased": (whole.apply_plan(images, views=views, seed=1)[0], views.erased[:, 0]),
        "mixed": (whole.apply_plan(images, None, plan, views, seed=1)[0], plan.boxes),
    }
    figure = Figure(figsize=TAIL_INCHES, facecolor="white")
    grid = figure.subplots(len(images), len(stages), gridspec_kw=TAIL_GRID)
    for column, (name, (batch, boxes)) in enumerate(stages.items()):
        grid[0, column].set_title(name, fontsize=11, color=INK, weight="bold", pad=6)
        for i, axes in enumerate(grid[:, column]):
            axes.set_axis_off()
            shown = (batch[i] / 5 + 0.5).clamp(0, 1) if batch.is_floating_point() else batch[i]  # of -2.5 to 2.5
            words = words_of(targets[i], int(labels[i])) if name == "mixed" else [""]
            draw_mixed(axes, shown, boxes[i], words)
    return figure


if __name__ == "__main__":
    tail(*make_batch(TAIL_BATCH, SIZE)).savefig(Path(__file__).parent / "tail.png", dpi=80)
