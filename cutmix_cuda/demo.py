"""The demo: real photographs mixed, drawn, tabulated, and the mixing timed beside torchvision's v2.CutMix.

Needs the extra ``cutmix_cuda[demo]``. The photographs are those that ship inside scikit-image.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from skimage import data
from torch import Tensor
from torchvision.transforms import v2

from ._backends import backend_for
from ._literals import BackendName
from .augmentation import Augment
from .functional import cutmix
from .plan import MixPlan
from .transforms import CutMix

PHOTOGRAPHS: dict[str, Callable[[], np.ndarray]] = {  # each its own class
    "astronaut": data.astronaut,
    "cat": data.cat,
    "coffee": data.coffee,
    "galaxies": data.hubble_deep_field,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
    "retina": data.retina,
    "rocket": data.rocket,
    "tissue": data.immunohistochemistry,
}
CLASSES = tuple(PHOTOGRAPHS)

# The timed batch: large enough to leave every cache, of the size most networks train on.
TIMED_BATCH, TIMED_SIZE = 128, 224
TIMED_SECONDS = 3.0
MIN_ROUNDS, MAX_ROUNDS = 5, 200

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

COLUMNS, MAX_DRAWN = 8, 32
CELL_INCHES, ROW_INCHES, DPI = 1.5, 3.6, 100
GRID = {"left": 0.005, "right": 0.995, "bottom": 0.11, "top": 0.94, "hspace": 0.06, "wspace": 0.05}
INK, ACCENT = "#24292f", "#d9480f"


# ---- The batch


def crop(photograph: Tensor, size: int, number: int) -> Tensor:
    """A square of a photograph (3, H, W) at size x size: number 0 its centre, each other one a place of its own."""
    extent = torch.tensor(photograph.shape[-2:])
    if number == 0:
        scale, place = 1.0, torch.tensor([0.5, 0.5])
    else:
        draw = torch.rand(3, generator=torch.Generator().manual_seed(number))
        scale, place = 0.5 + 0.4 * float(draw[0]), draw[1:]
    side = int(scale * int(extent.min()))
    y, x = ((extent - side) * place).int().tolist()
    square = photograph[None, :, y : y + side, x : x + side]
    return torch.nn.functional.interpolate(square, (size, size), mode="bilinear", antialias=True)[0]


def make_batch(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """Images, uint8 (batch, 3, size, size), and labels, int64 (batch,): the photographs in turn, then other crops."""
    photographs = [torch.from_numpy(load()).permute(2, 0, 1) for load in PHOTOGRAPHS.values()]
    labels = torch.arange(batch) % len(CLASSES)
    images = [crop(photographs[label], size, i // len(CLASSES)) for i, label in enumerate(labels.tolist())]
    return torch.stack(images), labels


def words_of(target: Tensor, label: int) -> list[str]:
    """A soft target (K,) in words, the sample's own class first: ["0.63 cat", "0.37 rocket"]."""
    classes = [label, *(k for k in target.nonzero().flatten().tolist() if k != label)]
    return [f"{float(target[k]):.2f} {CLASSES[k]}" for k in classes]


# ---- What the reader sees


def draw_mixed(axes: Axes, image: Tensor, edges: Tensor, words: list[str]) -> None:
    """A mixed image (3, H, W) with its box (y0, x0, y1, x1) outlined, and below it its soft target in words."""
    axes.imshow(image.permute(1, 2, 0).numpy())
    y0, x0, y1, x1 = edges.tolist()
    if y1 > y0 and x1 > x0:
        corner = (x0 - 0.5, y0 - 0.5)  # pixel centres are at whole numbers
        outline = Rectangle(corner, x1 - x0, y1 - y0, fill=False, edgecolor=ACCENT, linewidth=1.6, clip_on=False)
        outline.set_path_effects([withStroke(linewidth=3.2, foreground="white")])
        axes.add_patch(outline)
    own, *others = words
    axes.text(0.5, -0.04, own, fontsize=9, color=INK, ha="center", va="top", transform=axes.transAxes)
    if others:
        pasted = " + ".join(["", *others]).strip()
        axes.text(0.5, -0.15, pasted, fontsize=9, color=ACCENT, ha="center", va="top", transform=axes.transAxes)


def draw(path: Path, images: Tensor, mixed: Tensor, labels: Tensor, targets: Tensor, plan: MixPlan) -> None:
    """Writes the picture: originals above, mixed below with the box outlined and the soft target in words."""
    shown = min(len(images), MAX_DRAWN)
    columns = min(shown, COLUMNS)
    rows = -(-shown // columns)
    figure = Figure(figsize=(columns * CELL_INCHES, rows * ROW_INCHES), dpi=DPI, facecolor="white")
    grids = [
        part.subplots(2, columns, squeeze=False, gridspec_kw=GRID)
        for part in figure.subfigures(rows, 1, squeeze=False).flat
    ]
    for axes in np.ravel(grids):
        axes.set_axis_off()
    for i in range(shown):
        above, below = grids[i // columns][:, i % columns]
        above.imshow(images[i].permute(1, 2, 0).numpy())
        above.set_title(CLASSES[labels[i]], fontsize=9, color=INK, pad=3)
        draw_mixed(below, mixed[i], plan.boxes[i], words_of(targets[i], int(labels[i])))
    figure.savefig(path)


def plan_table(plan: MixPlan, labels: Tensor, targets: Tensor) -> Table:
    table = Table(title="The plan", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("image", "partner", "y0", "x0", "y1", "x1", "lam"):
        table.add_column(name, justify="right")
    table.add_column("soft target", no_wrap=True)
    for i in range(len(plan)):
        edges = [str(edge) for edge in plan.boxes[i].tolist()]
        words = " + ".join(words_of(targets[i], int(labels[i])))
        table.add_row(str(i), str(int(plan.partner[i])), *edges, f"{float(plan.lam[i]):.4f}", words)
    return table


# ---- Images per second


@dataclass(frozen=True)
class Timing:
    """Seconds of each call of one method."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def quartiles(self) -> tuple[float, float]:
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return first, third


def time_in_turn(methods: dict[str, Callable[[], object]], device: torch.device, console: Console) -> dict[str, Timing]:
    """Calls each method once a round, so that whatever else the machine does befalls all alike."""

    def seconds_of(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    for call in methods.values():  # compile, fault pages in, wake threads
        seconds_of(call)
    round_seconds = sum(map(seconds_of, methods.values()))
    rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, int(TIMED_SECONDS / round_seconds)))
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    with Progress(console=console, transient=True) as progress:
        for _ in progress.track(range(rounds), description="timing"):
            for name, call in methods.items():
                seconds[name].append(seconds_of(call))
    return {name: Timing(values) for name, values in seconds.items()}


def timing_table(title: str, timings: dict[str, Timing], baseline: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("call")
    for name in ("images/s", "ms", "quartiles, ms", "speed-up"):
        table.add_column(name, justify="right")
    for name, timing in timings.items():
        first, third = timing.quartiles()
        table.add_row(
            name,
            f"{TIMED_BATCH / timing.median:,.0f}",
            f"{1e3 * timing.median:.2f}",
            f"{1e3 * first:.2f} .. {1e3 * third:.2f}",
            f"{timings[baseline].median / timing.median:.1f}x",
        )
    return table


def compare(device: torch.device, alpha: float, backend: BackendName | None, console: Console) -> None:
    """Prints the speed of ours and of torchvision on one batch: of CutMix, and of the whole batch tail."""
    with console.status(f"cropping {TIMED_BATCH} photographs"):
        images, labels = (tensor.to(device) for tensor in make_batch(TIMED_BATCH, TIMED_SIZE))
    compare_mixing(images.float() / 255, labels, alpha, backend, console)
    compare_tail(images, labels, alpha, backend, console)


def compare_mixing(images: Tensor, labels: Tensor, alpha: float, backend: BackendName | None, console: Console) -> None:
    """Ours, out of place and in place, and torchvision's v2.CutMix on float32 images."""
    scratch = images.clone()
    ours = CutMix(num_classes=len(CLASSES), alpha=alpha, backend=backend)
    in_place = CutMix(num_classes=len(CLASSES), alpha=alpha, backend=backend, inplace=True)
    theirs = v2.CutMix(num_classes=len(CLASSES), alpha=alpha)
    methods = {
        "CutMix": lambda: ours(images, labels),
        "CutMix, in place": lambda: in_place(scratch, labels),
        "torchvision v2.CutMix": lambda: theirs(images, labels),
    }
    timings = time_in_turn(methods, images.device, console)
    rounds = len(timings["CutMix"].seconds)
    console.print(timing_table("Images per second", timings, "torchvision v2.CutMix"))
    console.print(
        f"Medians of {rounds} rounds that call the three in turn on {TIMED_BATCH} float32 photographs of "
        f"3x{TIMED_SIZE}x{TIMED_SIZE}, targets included. Ours draws a box for each sample, torchvision one a batch."
    )


def compare_tail(images: Tensor, labels: Tensor, alpha: float, backend: BackendName | None, console: Console) -> None:
    """Augment and torchvision's chain of the same steps, on uint8 images."""
    mix = CutMix(num_classes=len(CLASSES), alpha=alpha)
    dtype, layout = torch.bfloat16, torch.channels_last
    ours = Augment(mix, mean=MEAN, std=STD, dtype=dtype, memory_format=layout, backend=backend)
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    theirs = v2.CutMix(num_classes=len(CLASSES), alpha=alpha)

    def chain() -> tuple[Tensor, Tensor]:
        mixed, targets = theirs(normalize(images), labels)
        return mixed.to(dtype, memory_format=layout), targets

    calls = {"Augment": lambda: ours(images, labels), "torchvision's chain": chain}
    timings = time_in_turn(calls, images.device, console)
    console.print(timing_table("Images per second, the whole batch tail", timings, "torchvision's chain"))
    console.print("uint8 photographs to normalised, mixed bfloat16 in channels-last, targets included.")


def run(args: argparse.Namespace) -> None:
    console = Console(highlight=False)
    on_gpu = torch.cuda.is_available() and args.backend != "cpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    images, labels = make_batch(args.batch, args.size)
    mixed, targets, plan = cutmix(
        images.to(device),
        labels.to(device),
        len(CLASSES),
        alpha=args.alpha,
        seed=args.seed,
        return_plan=True,
        backend=args.backend,
    )
    mixed, targets, plan = mixed.cpu(), targets.cpu(), plan.to("cpu")
    backend = backend_for(args.backend, device.type)
    console.print(f"A batch of {args.batch} mixed on {device.type} by the backend {backend}, seed {args.seed}.")
    console.print(plan_table(plan, labels, targets))
    with console.status("drawing"):
        draw(args.output, images, mixed, labels, targets, plan)
    console.print(f"The picture is {args.output}.")
    if args.timing:
        compare(device, args.alpha, args.backend, console)
