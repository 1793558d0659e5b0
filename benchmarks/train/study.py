"""The runs of a study: what defines each, those that are there already, and the others, a process on each core."""

from __future__ import annotations

import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import measures, training
from .arms import ARMS
from .data import DIGITS, FASHION_MNIST, load


class Effort(NamedTuple):
    """How much to train.

    Attributes:
        epochs: for each number of training images.
        batch: images in a batch.
        seeds: how many.
    """

    epochs: dict[int, int]
    batch: int
    seeds: int


FULL = {
    FASHION_MNIST: Effort({3000: 80, 10_000: 40}, batch=100, seeds=5),
    DIGITS: Effort({100: 300, 500: 60}, batch=50, seeds=5),
}
QUICK = Effort({40: 1, 80: 1}, batch=20, seeds=2)


def definitions(data: str, folder: Path, tested_on: str, effort: Effort) -> list[dict]:
    """What each run is, as JSON has it. All arms of a seed are next to each other.

    Args:
        data: name of the data set.
        folder: of its files.
        tested_on: "test" or "validation".
    """
    common = {
        "data": data,
        "checksum": load(data, folder).checksum(),
        "tested_on": tested_on,
        "batch": effort.batch,
        "widths": list(training.WIDTHS),
        "learning_rate": training.LEARNING_RATE,
        "momentum": list(training.MOMENTUM),
        "weight_decay": training.WEIGHT_DECAY,
        "occluder_sides": measures.occluder_sides(load(data, folder).test.images.shape[-1]),
        "noise": list(measures.NOISE),
        "bins": measures.BINS,
    }
    return [
        common
        | {"training_images": images, "epochs": epochs, "seed": seed, "arm": name, "mixer": repr(arm.mixer(seed))}
        for seed in range(effort.seeds)
        for images, epochs in effort.epochs.items()
        for name, arm in ARMS.items()
    ]


def run(definition: dict, folder: Path) -> dict:
    """Trains and measures one network; returns the definition and what came out."""
    start = time.monotonic()
    data = load(definition["data"], folder)
    seed = definition["seed"]
    network, trained_on = training.train(
        ARMS[definition["arm"]].mixer(seed),
        data,
        definition["training_images"],
        definition["epochs"],
        definition["batch"],
        seed,
    )
    tested_on = data.test if definition["tested_on"] == "test" else data.validation
    measured = measures.measure(network, trained_on, tested_on)
    return definition | measured | {"seconds": round(time.monotonic() - start, 1)}


def find(runs: list[dict], definition: dict) -> dict | None:
    """The last run of this definition, if there is one."""
    return next((one for one in reversed(runs) if definition.items() <= one.items()), None)


def complete(path: Path, wanted: list[dict], folder: Path, processes: int, machine: dict) -> list[dict]:
    """The runs that are wanted, in their order. Those that the file lacks are run, and each is written when it is done.

    Args:
        path: JSON, a run on each line.
        wanted: their definitions.
        folder: of the files of the data set.
        processes: how many run at a time, each with one thread so that the same numbers come out again.
        machine: noted beside what comes out.
    """
    runs = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    missing = [definition for definition in wanted if find(runs, definition) is None]
    if missing:
        columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, spawn, torch.set_num_threads, (1,))
        try:
            with Progress(*columns) as progress, path.open("a") as file:
                futures = [pool.submit(run, definition, folder) for definition in missing]
                bar = progress.add_task("", total=len(wanted), completed=len(wanted) - len(missing))
                for future in as_completed(futures):
                    runs.append(future.result() | {"machine": machine})
                    file.write(json.dumps(runs[-1]) + "\n")
                    file.flush()
                    progress.advance(bar)
        finally:
            pool.shutdown(cancel_futures=True)
    return [found for definition in wanted if (found := find(runs, definition)) is not None]
