"""The batch tail beside its peers: checked, timed, counted, and as a part of a training step."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from . import tables
from .bench import Bench
from .chains import (
    ERASE_AND_MIX,
    JOBS,
    OURS,
    OURS_OUT,
    TIMM_BATCH,
    TORCHVISION,
    TailCase,
    chains,
)
from .counted import BOXES, count_call
from .goals import OF_THE_TAIL, judge
from .grid import Case
from .headline import update_readme
from .machine import RESULTS, describe, describe_error
from .tail_checks import check_all
from .timing import Effort, Timing
from .training_step import Crops, tail_network, training_steps

# Whose inputs a network trains on.
STEPS_BY = (TORCHVISION, TIMM_BATCH, OURS)


class Plan(NamedTuple):
    """How much to measure."""

    batch: int
    sizes: tuple[int, ...]
    classes: int
    effort: Effort  # for each batch
    steps: list[dict[str, int]]
    boxes: int  # that counts are averaged over
    compile: bool


FULL = Plan(
    *(128, (224, 32), 1000, Effort(6.0, 5, 60)),
    steps=[{"batch": 32, "size": 224, "steps": 3}, {"batch": 128, "size": 32, "steps": 3}],
    boxes=BOXES,
    compile=True,
)
QUICK = Plan(16, (32,), 10, Effort(0.05, 2, 3), [{"batch": 4, "size": 32, "steps": 1}], 2, False)
ON_A_GPU = FULL._replace(
    effort=Effort(2.0, 5, 60, warm_up=0.3),
    steps=[{"batch": 128, "size": 224, "steps": 3}, {"batch": 512, "size": 32, "steps": 3}],
)


def measure(bench: Bench, plan: Plan, results: dict) -> None:
    """Adds to `results` what was measured of the batches, and what is counted."""
    device = bench.device
    timings: dict[Case, dict[str, Timing]] = {}
    results |= {"machine": describe(device), "checks": 0, "missing": {}, "wrong": {}, "ours_wrong": [], "cells": []}
    for job in JOBS:
        found, results["missing"] = chains(job, device, with_compiled=plan.compile)
        checks, wrong = check_all(found, job, device)
        results["checks"] += checks
        results["wrong"] |= {f"{name}, {job.name}": why for name, why in wrong.items()}
        results["ours_wrong"] += [
            f"{one.name}, {job.name}" for one in found if one.kind == "ours" and one.name in wrong
        ]
        right = [one for one in found if one.name not in wrong]
        for size, to_channels_last in itertools.product(plan.sizes, (False, True)):
            case = TailCase(plan.batch, size, classes=plan.classes, job=job, to_channels_last=to_channels_last)
            if bench.no_time_for(plan.effort.warm_up + 1.5 * plan.effort.seconds):
                results.setdefault("no_time_for", []).append(str(case))
                continue
            print(f"timing {case}", flush=True)
            cell, timings[case] = bench.measure(case, ["tail"], right)
            results["cells"].append(cell)
    if bench.stopwatches.failed_captures:
        results["failed_captures"] = bench.stopwatches.failed_captures
    if device.type == "cpu":
        results["targets"] = judge(timings, OF_THE_TAIL)
        results["counted"] = count(plan)  # the same on every machine


def measure_steps(bench: Bench, plan: Plan, results: dict) -> None:
    """Adds the training steps, which take minutes on a CPU without instructions for bfloat16."""
    for step in plan.steps:
        if bench.no_time_for(2 * plan.effort.seconds):
            results.setdefault("no_time_for", []).append(f"training steps on {step['size']} pixels")
            continue
        print(f"timing training steps on {step['size']} pixels", flush=True)
        try:
            results.setdefault("steps", []).append(step_times(bench.device, plan.classes, step))
        except ImportError as error:
            results["missing"]["training steps"] = str(error)


def count(plan: Plan) -> dict:
    """Kernels, copies and bytes of ours and of the peers, by dispatch on meta tensors."""
    meta, rows, uncounted = torch.device("meta"), [], []
    for job in JOBS:
        case = TailCase(batch=plan.batch, size=plan.sizes[0], classes=plan.classes, job=job, to_channels_last=True)
        for one in chains(job, meta, with_compiled=False)[0]:
            if one.kind == "ceiling" or one.name == OURS_OUT:  # which is as the other of ours
                continue
            try:
                rows.append({"job": job.name, **count_call(one, case, plan.boxes)})
            except NotImplementedError as error:  # it reads values on the host, which meta tensors do not have
                uncounted.append({"job": job.name, "name": one.name, "why": describe_error(error)})
    return {"case": case.as_dict(), "rows": rows, "uncounted": uncounted}


def step_times(device: torch.device, classes: int, step: dict[str, int]) -> dict:
    """A training step by whose chain makes its inputs of uint8 crops."""
    batch, size = step["batch"], step["size"]
    case = TailCase(batch=batch, size=size, classes=classes, job=ERASE_AND_MIX, to_channels_last=True)
    found, _ = chains(ERASE_AND_MIX, device, with_compiled=False)
    preparing = {one.name: one.prepare for one in found}
    mixers = {name: preparing[name](case) for name in STEPS_BY if name in preparing}
    crops = Crops(size, 4 * batch, normalize=False)
    network = tail_network(size, classes)
    by = training_steps(mixers, crops, network, device, batch, step["steps"])
    return {**step, "job": ERASE_AND_MIX.name, "by": by}


def run_all(
    device: str, plan: Plan, folder: Path, deadline: float, tell: Callable[[dict], None], redraw: bool
) -> list[str]:
    """Measures or, to be drawn again, reads; writes JSON and tables. Returns those of ours that were wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"tail_{device}"
    if redraw:
        results = json.loads(stem.with_suffix(".json").read_text())
    else:
        results, bench = {"device": device}, Bench(torch.device(device), plan.effort, deadline, tell)
        for part in (measure, measure_steps):
            try:
                part(bench, plan, results)
            finally:
                stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    stem.with_suffix(".md").write_text(tables.tail_report(results, OURS))
    if folder == RESULTS:
        update_readme()
    if results.get("targets"):
        print(tables.targets_table(results["targets"]))
    print(f"\nThe batch tail's results are in {os.path.relpath(folder)}: {stem.name}.json and {stem.name}.md.")
    return results["ours_wrong"]
