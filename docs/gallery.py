"""The pictures of the gallery: photographs mixed and drawn by the package itself, whenever the pages are built."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from cutmix_cuda import CutMix, Mix
from cutmix_cuda.demo import CLASSES, INK, draw_mixed, make_batch, shares
from cutmix_cuda.distributions import Constant

BATCH, SIZE, DPI = 6, 224, 150
WIDTH_INCHES, ROW_INCHES = 9.0, 2.1
GRID = {"left": 0.05, "right": 0.998, "bottom": 0.17, "top": 0.99, "wspace": 0.06}

Rows = dict[str, CutMix | Mix]


def cutmix(**options) -> CutMix:
    return CutMix(num_classes=len(CLASSES), **options)


def mix(**options) -> Mix:
    return Mix(num_classes=len(CLASSES), **options)


# What there is to see: for each picture of gallery.md a row for each transform, under its name.
PICTURES: dict[str, Rows] = {
    "batch": {"": mix(cutmix_alpha=None, mixup_alpha=None)},  # as it is before mixing
    "kinds": {
        "CutMix": cutmix(seed=10),
        "MixUp": mix(cutmix_alpha=None, mixup_alpha=4.0, seed=4),
        "Cutout": mix(cutmix_alpha=None, mixup_alpha=None, cutout=1.0, seed=8),
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


def picture(images: Tensor, labels: Tensor, rows: Rows) -> Figure:
    """A row for each transform: its name, the images as it mixes them, and their soft targets in words."""
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * len(rows)), facecolor="white")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (name, transform) in zip(parts, rows.items(), strict=True):
        part.text(0.005, 0.58, name, rotation=90, fontsize=11, color=INK, ha="left", va="center", weight="bold")
        mixed, targets, plan = transform(images, labels, return_plan=True)
        for i, axes in enumerate(part.subplots(1, len(images), gridspec_kw=GRID)):
            axes.set_axis_off()
            draw_mixed(axes, mixed[i], plan.boxes[i], shares(targets[i], int(labels[i])))
    return figure
