"""Mixing where a loader collates: images a second from worker processes of one thread each, beside torchvision's and
timm's collate functions.

python benchmarks loader             four workers, uint8 and float32
python benchmarks loader --quick     does everything once on tiny batches; the numbers mean nothing

Samples are in memory, so that nothing is read or decoded: what is left is collating, mixing, and the way of a batch to
the main process.
"""

from __future__ import annotations

import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from cutmix_cuda import CutMix

from . import tables
from .command_line import make_parser
from .grid import CHANNELS
from .implementations import NO_MIXING, OURS, OURS_IN_PLACE, TIMM_BATCH, TIMM_ELEM, TORCHVISION
from .machine import RESULTS, ROOT, describe
from .timing import Effort, Timing, time_in_turn

Collate = Callable[[list], Any]

TIMM_COLLATE = "timm FastCollateMixup elem"
WORKERS = 4


class LoaderCase(NamedTuple):
    """Batches of square images (batch, 3, size, size)."""

    batch: int
    size: int
    dtype: torch.dtype
    classes: int = 1000

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"{self.batch} x {CHANNELS} x {self.size} x {self.size}, {name}, {self.classes} classes"


FULL = [
    LoaderCase(batch, size, dtype) for batch, size in ((128, 32), (64, 224)) for dtype in (torch.uint8, torch.float32)
]
QUICK = [LoaderCase(4, 16, dtype, 10) for dtype in (torch.uint8, torch.float32)]


class Samples(Dataset):
    """As many as there is ever need of, of a few images in memory."""

    def __init__(self, case: LoaderCase, as_arrays: bool) -> None:
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(256, (64, CHANNELS, case.size, case.size), generator=draw, dtype=torch.uint8)
        self.images = list(images.to(case.dtype))
        if as_arrays:
            self.images = [image.numpy() for image in self.images]
        self.classes = case.classes

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index % len(self.images)], index % self.classes


def collates(case: LoaderCase) -> dict[str, tuple[Collate, bool]]:
    """What collates and mixes, by name, and whether it takes images as numpy arrays."""

    def after(mix: Callable) -> Collate:
        return lambda samples: mix(*default_collate(samples))

    found: dict[str, tuple[Collate, bool]] = {
        NO_MIXING: (default_collate, False),
        OURS: (after(CutMix(num_classes=case.classes)), False),
        OURS_IN_PLACE: (after(CutMix(num_classes=case.classes, inplace=True)), False),
    }
    try:
        from torchvision.transforms import v2

        found[TORCHVISION] = after(v2.CutMix(num_classes=case.classes)), False
    except ImportError:
        pass
    try:
        from timm.data.mixup import FastCollateMixup, Mixup
    except ImportError:
        return found
    how: dict[str, Any] = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "label_smoothing": 0.0, "num_classes": case.classes}
    found[TIMM_BATCH] = after(Mixup(**how, mode="batch")), False
    if case.dtype == torch.uint8:  # in which Mixup rounds the lambda of a sample to 0
        found[TIMM_COLLATE] = FastCollateMixup(**how, mode="elem"), True
    else:
        found[TIMM_ELEM] = after(Mixup(**how, mode="elem")), False
    return found


class BatchClock:
    """Seconds a batch from a loader whose workers are always at work on the next ones."""

    method = "wall clock"

    def __init__(self, case: LoaderCase, collate: Collate, as_arrays: bool, batches: int) -> None:
        self.case, self.collate, self.as_arrays, self.batches = case, collate, as_arrays, batches
        self.lap()

    def lap(self) -> float:
        # A loader for each lap, because one that waits would keep on filling its queue beside the others.
        loader: DataLoader = DataLoader(
            Samples(self.case, self.as_arrays),
            batch_size=self.case.batch,
            num_workers=WORKERS,
            collate_fn=self.collate,
            multiprocessing_context="fork",
        )
        batches: Iterator = iter(loader)
        for _ in range(2 * WORKERS):  # those that were made ahead while the workers started
            next(batches)
        start = time.perf_counter()
        for _ in itertools.islice(batches, self.batches):
            pass
        return (time.perf_counter() - start) / self.batches


def measure(case: LoaderCase, effort: Effort, batches: int) -> dict[str, Timing]:
    clocks = {
        name: BatchClock(case, collate, as_arrays, batches) for name, (collate, as_arrays) in collates(case).items()
    }
    return time_in_turn(clocks, effort)


def report(results: dict) -> str:
    lines = ["# Mixing in the workers of a loader", "", tables.machine_line(results["machine"]), ""]
    lines += [f"{WORKERS} worker processes of one thread each; images a second, of all of them together."]
    for cell in results["cells"]:
        rows = [
            (name, f"{cell['batch'] / timing['median_s']:,.0f}", tables.spread(timing))
            for name, timing in sorted(cell["by"].items(), key=lambda item: item[1]["median_s"])
        ]
        lines += ["", f"## {cell['case']}", "", tables.table(("collated by", "images/s", "a batch (quartiles)"), rows)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny batches; writes to build/benchmarks")
    parser.add_argument("--output", type=Path, help="folder for the results")
    args = parser.parse_args(arguments)
    folder = args.output or (ROOT / "build" / "benchmarks" if args.quick else RESULTS)
    cases, effort, batches = (QUICK, Effort(0.1, 2, 2), 2) if args.quick else (FULL, Effort(20.0, 3, 7), 24)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores
    results: dict = {"machine": describe(torch.device("cpu")), "workers": WORKERS, "cells": []}
    for case in cases:
        print(f"timing {case}", flush=True)
        timings = measure(case, effort, batches)
        by = {name: timing.as_dict() for name, timing in timings.items()}
        results["cells"].append({"case": str(case), "batch": case.batch, "by": by})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loader_cpu.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "loader_cpu.md").write_text(report(results))
    print(report(results))
    print(f"The results are in {os.path.relpath(folder)}: loader_cpu.json and loader_cpu.md.")
