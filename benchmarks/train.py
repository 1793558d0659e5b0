"""Does mixing regularise? A small network on few of scikit-learn's digits, with and without it, over several seeds.

python benchmarks train            under two minutes on two cores; leaves results/train.json and train.png
python benchmarks train --quick    does everything once, hardly training; the numbers mean nothing

Method and limits: README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch
from matplotlib.figure import Figure
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.transforms import v2

from cutmix_cuda import CutMix, Mix

from .implementations import NO_MIXING, TORCHVISION
from .machine import RESULTS, ROOT, describe
from .plots import DPI, FAINT, GRID, INK
from .tables import put_between_markers, table

CLASSES = 10
HELD_OUT = 797  # the last images, not drawn ones: neighbours in the data set are often by one writer
BATCH = 50
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 5e-4
WIDTH = 16  # channels of the first layers

COLOURS = {NO_MIXING: INK, TORCHVISION: "#2b8a3e"}
OURS_COLOUR = "#c2410c"

Mixer = Callable[[Tensor, Tensor], tuple[Tensor, Any]]  # images and labels -> mixed images and their targets

# The mixer for a seed; every lambda is from Beta(1, 1). torchvision's, which draws by torch's own seed, is the control:
# ours with a box a batch is to come out alike.
VARIANTS: dict[str, Callable[[int], Mixer]] = {
    NO_MIXING: lambda seed: lambda images, labels: (images, labels),
    "CutMix, a box a sample": lambda seed: CutMix(num_classes=CLASSES, seed=seed),
    "CutMix, a box a batch": lambda seed: CutMix(num_classes=CLASSES, scope="batch", seed=seed),
    TORCHVISION: lambda seed: v2.CutMix(num_classes=CLASSES),
    "MixUp": lambda seed: Mix(num_classes=CLASSES, cutmix_alpha=None, seed=seed),
    "Mix: CutMix, MixUp, Cutout": lambda seed: Mix(num_classes=CLASSES, cutout=0.2, seed=seed),
}


class Effort(NamedTuple):
    """How much to train."""

    images_a_class: int  # to train on
    epochs: int
    seeds: int


FULL = Effort(10, 300, 5)
QUICK = Effort(10, 1, 2)


def digits() -> tuple[Tensor, Tensor]:
    """All images, float32 (1797, 1, 8, 8) in [0, 1], and labels, int64 (1797,)."""
    data = load_digits()
    return torch.from_numpy(data.images).float().unsqueeze(1) / 16, torch.from_numpy(data.target).long()


def split(labels: Tensor, images_a_class: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices to train on, as many of each class, drawn; and to test on, always the same."""
    pool = torch.arange(len(labels) - HELD_OUT)
    pool = pool[torch.randperm(len(pool), generator=generator)]
    drawn = [pool[labels[pool] == label][:images_a_class] for label in range(CLASSES)]
    return torch.cat(drawn), torch.arange(len(labels) - HELD_OUT, len(labels))


def make_network() -> nn.Sequential:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, WIDTH),
        *block(WIDTH, WIDTH),
        nn.MaxPool2d(2),
        *block(WIDTH, 2 * WIDTH),
        *block(2 * WIDTH, 2 * WIDTH),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * WIDTH * 2 * 2, CLASSES),
    )


def train(mix: Mixer, seed: int, effort: Effort) -> float:
    """Test accuracy after the last step.

    The seed decides the training images, their order and the network's initial weights, whatever mixes.
    """
    images, labels = digits()
    generator = torch.Generator().manual_seed(seed)
    to_train, to_test = split(labels, effort.images_a_class, generator)
    torch.manual_seed(seed)
    network = make_network().train()
    optimizer = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = effort.epochs * (len(to_train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(effort.epochs):
        for batch in to_train[torch.randperm(len(to_train), generator=generator)].split(BATCH):
            mixed, targets = mix(images[batch], labels[batch])
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(mixed), targets).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        guesses = network(images[to_test]).argmax(1)
    return (guesses == labels[to_test]).double().mean().item()


def run(variant: str, seed: int, effort: Effort) -> float:
    return train(VARIANTS[variant](seed), seed, effort)


def measure(effort: Effort) -> dict[str, list[float]]:
    """Test accuracy of each variant for each seed, a process for each core, of one thread so that results repeat."""
    jobs = list(product(VARIANTS, range(effort.seeds)))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn, torch.set_num_threads, (1,)) as pool:
        done = list(pool.map(run, *zip(*jobs, strict=True), repeat(effort)))
    return {name: done[i * effort.seeds : (i + 1) * effort.seeds] for i, name in enumerate(VARIANTS)}


def summarise(accuracies: dict[str, list[float]]) -> dict[str, dict]:
    """Mean and standard deviation, and the gain over no mixing seed by seed: its mean, with a 95 % interval of t."""
    plain = np.array(accuracies[NO_MIXING])
    summary = {}
    for name, each in accuracies.items():
        row: dict = {"each": each, "mean": np.mean(each), "std": np.std(each, ddof=1)}
        if name != NO_MIXING:
            gains = np.array(each) - plain
            half = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)
            row |= {"gain": gains.mean(), "gain_low": gains.mean() - half, "gain_high": gains.mean() + half}
        summary[name] = row
    return summary


def gain_in_words(row: dict) -> str:
    """In percentage points."""
    if "gain" not in row:
        return "-"
    return "{:+.2f} ({:+.2f} .. {:+.2f})".format(*(100 * row[key] for key in ("gain", "gain_low", "gain_high")))


def as_markdown(results: dict) -> str:
    rows = [
        (name, f"{100 * row['mean']:.2f} ± {100 * row['std']:.2f}", gain_in_words(row))
        for name, row in results["accuracy"].items()
    ]
    return table(("training with", "test accuracy, %", "gain over no mixing, points (95 % interval)"), rows)


def draw(results: dict, path: Path) -> None:
    """A row a variant: a dot a seed, the mean with its standard deviation, and both in words."""
    rows, effort = results["accuracy"], results["effort"]
    figure = Figure(figsize=(9.0, 4.8), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.235, 0.115, 0.53, 0.735))
    figure.text(0.015, 0.95, "Does mixing regularise? A toy", fontsize=13, color=INK, weight="bold", va="center")
    figure.text(
        0.015,
        0.89,
        f"A small network trained on {CLASSES * effort['images_a_class']} of scikit-learn's digits for "
        f"{effort['epochs']} epochs; a dot is one of {effort['seeds']} seeds",
        fontsize=9,
        color=FAINT,
        va="center",
    )
    for height, (name, row) in zip(range(len(rows), 0, -1), rows.items(), strict=True):
        colour = COLOURS.get(name, OURS_COLOUR)
        each, mean, std = 100 * np.array(row["each"]), 100 * row["mean"], 100 * row["std"]
        axes.scatter(each, np.full(len(each), height), s=26, color=colour, alpha=0.35, linewidths=0, zorder=2)
        axes.plot([mean - std, mean + std], [height - 0.3] * 2, color=colour, linewidth=1.6, zorder=3)
        axes.plot(mean, height - 0.3, "D", color=colour, markersize=6, markeredgecolor="white", zorder=4)
        label: dict[str, Any] = {
            "transform": axes.get_yaxis_transform(),
            "va": "center",
            "color": colour,
            "fontsize": 9,
        }
        axes.text(1.03, height - 0.02, f"{mean:.1f} ± {std:.1f} %", weight="bold", **label)
        if name != NO_MIXING:
            axes.text(1.03, height - 0.36, f"{100 * row['gain']:+.1f} points", **label)
        axes.text(-0.03, height - 0.15, name, ha="right", **{**label, "color": INK})
    axes.axvline(100 * rows[NO_MIXING]["mean"], color=FAINT, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    axes.set_ylim(0.4, len(rows) + 0.5)
    axes.set_yticks([])
    axes.grid(True, axis="x", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.set_xlabel("test accuracy, %; diamond and bar: mean and standard deviation", color=INK, fontsize=9)
    figure.savefig(path)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="hardly train, to see that everything works")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results; %(default)s")
    args = parser.parse_args(arguments)
    effort = QUICK if args.quick else FULL
    machine = describe(torch.device("cpu"))
    machine["threads"] = 1
    machine["versions"]["scikit-learn"] = sklearn.__version__
    results = {
        "machine": machine,
        "effort": effort._asdict(),
        "test_images": HELD_OUT,
        "accuracy": summarise(measure(effort)),
    }
    text = as_markdown(results)
    print(text)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "train.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, args.output / "train.png")
    print(f"\nJSON and picture are in {args.output}.")
    if args.output == RESULTS and not args.quick:
        put_between_markers(ROOT / "README.md", "train", text)
