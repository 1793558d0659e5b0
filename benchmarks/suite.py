"""Checks, measures, and writes the results as JSON, Markdown and pictures. How and why: README.md beside this file.

python benchmarks cpu             this machine's CPU, in a quarter of an hour on two cores
python benchmarks gpu             its GPU
python benchmarks tail            the batch tail alone, on the CPU
python benchmarks cpu --quick     does everything once on tiny batches; the numbers mean nothing
python benchmarks cpu --redraw    tables and pictures again, from the JSON that is there
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from . import plots, tables, tail
from .bench import Bench
from .checks import check_all
from .command_line import add_limits, lines_to, make_parser
from .counted import BOXES, count_peers, read_ours
from .cross_entropy import FULL_SIZES, QUICK_SIZES, Sizes, loss_times
from .goals import judge, judge_overhead
from .grid import CENTRE, QUICK_CENTRE, Case, lines, quick_lines
from .headline import update_readme
from .implementations import all_implementations, chosen
from .machine import RESULTS, ROOT, describe
from .overhead import SMALL, call_overhead
from .timing import Effort, Timing
from .training_step import mixing_steps

SHARE_OF_THE_TAIL = 0.45  # of the time, where that is limited


class Plan(NamedTuple):
    """How much to measure."""

    centre: Case
    lines: dict[str, list[Case]]
    effort: Effort  # for each batch of the grid
    step: dict[str, int]
    losses: tuple[Sizes, ...]
    boxes: int  # that counts are averaged over
    compile: bool
    tail: tail.Plan


FULL = Plan(
    CENTRE, lines(), Effort(10.0, 5, 60), {"batch": 32, "size": 224, "steps": 5}, FULL_SIZES, BOXES, True, tail.FULL
)
QUICK = Plan(
    QUICK_CENTRE,
    quick_lines(),
    Effort(0.1, 2, 5),
    {"batch": 4, "size": 32, "steps": 1},
    QUICK_SIZES,
    2,
    False,
    tail.QUICK,
)
ON_A_GPU = FULL._replace(
    effort=Effort(2.0, 5, 60, warm_up=0.3), step={"batch": 128, "size": 224, "steps": 3}, tail=tail.ON_A_GPU
)


class Suite:
    """A run of everything, of which `results` holds what was measured so far.

    Stops before what would not be ready by `deadline`, of time.monotonic(). `tell` is given each batch of the grid as
    soon as it was measured.
    """

    def __init__(self, device: torch.device, plan: Plan, deadline: float, tell: Callable[[dict], None]) -> None:
        self.device, self.plan = device, plan
        self.bench = Bench(device, plan.effort, deadline, tell)
        self.on_lines: dict[Case, list[str]] = {}
        for line, cases in plan.lines.items():
            for case in cases:
                self.on_lines.setdefault(case, []).append(line)
        found, missing = all_implementations(device, with_compiled=plan.compile)
        checks, wrong = check_all(found, list(self.on_lines), device)
        self.implementations = [one for one in found if one.name not in wrong]
        self.results: dict = {
            "device": device.type,
            "machine": describe(device),
            "missing": missing,
            "wrong": wrong,
            "ours_wrong": [one.name for one in found if one.kind == "ours" and one.name in wrong],
            "centre": plan.centre.as_dict(),
            "checks": checks,
            "cells": [],
        }

    def run(self) -> None:
        """In the order in which it is worth waiting for: the centre of the grid, what is no batch of it, its others."""
        plan, device, results = self.plan, self.device, self.results
        timings: dict[Case, dict[str, Timing]] = {}
        self.measure_batches([plan.centre], timings)
        for name, measure in (
            ("overhead", self.measure_overhead),
            ("step", self.measure_steps),
            ("losses", lambda: loss_times(plan.losses, device, plan.effort, self.bench.stopwatches)),
        ):
            if self.bench.no_time_for(2 * plan.effort.seconds):
                results.setdefault("no_time_for", []).append(name)
                continue
            print(f"timing {name}", flush=True)
            try:
                results[name] = measure()
            except ImportError as error:
                results["missing"][name] = str(error)
        self.measure_batches([case for case in self.on_lines if case != plan.centre], timings)
        if self.bench.stopwatches.failed_captures:
            results["failed_captures"] = self.bench.stopwatches.failed_captures

        counted = count_peers(self.implementations, plan.centre, plan.boxes) + read_ours(RESULTS / "ptx_report.json")
        results["counted"] = {"case": plan.centre.as_dict(), "rows": counted}
        if device.type == "cpu" and "overhead" in results:
            results["targets"] = judge(timings) + judge_overhead(results["overhead"]["by"])

    def measure_batches(self, cases: Sequence[Case], timings: dict[Case, dict[str, Timing]]) -> None:
        """Adds the cells of these batches to the results, and their timings."""
        for case in cases:
            if self.bench.no_time_for(self.plan.effort.warm_up + 1.5 * self.plan.effort.seconds):
                self.results.setdefault("no_time_for", []).append(str(case))
                continue
            print(f"timing {len(timings) + 1} of {len(self.on_lines)}: {case}", flush=True)
            implementations = chosen(self.implementations, case, self.plan.centre)
            cell, timings[case] = self.bench.measure(case, self.on_lines[case], implementations)
            self.results["cells"].append(cell)
        order = [case.as_dict() for case in self.on_lines]
        self.results["cells"].sort(key=lambda cell: order.index(cell["case"]))

    def measure_overhead(self) -> dict:
        by = call_overhead(self.implementations, self.device, self.plan.effort)
        return {"case": SMALL.as_dict(), "by": by}

    def measure_steps(self) -> dict:
        return {**self.plan.step, "by": mixing_steps(self.implementations, self.device, **self.plan.step)}


def write(results: dict, folder: Path) -> None:
    """The JSON, and the tables and the pictures if there is something to show."""
    folder.mkdir(parents=True, exist_ok=True)
    name = results["device"]
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    if results["cells"]:
        (folder / f"{name}.md").write_text(tables.report(results))
        plots.draw_all(results, folder)


def show(results: dict, folder: Path) -> None:
    """Prints the centre of the grid and what comes after it. Results that are kept go into the README, too."""
    name = results["device"]
    if results["cells"]:
        if folder == RESULTS:
            update_readme()
        print(tables.speed_table(tables.centre_cell(results)))
    if "losses" in results:
        print("\n" + tables.loss_table(results["losses"]))
    if "targets" in results:
        print("\n" + tables.targets_table(results["targets"]))
    for line in tables.not_measured(results):
        print("\n" + line)
    print(f"\nThe results are in {os.path.relpath(folder)}: {name}.json, {name}.md and pictures.")


def main(device: str, arguments: Sequence[str], *, tail_alone: bool = False) -> None:
    """Measures on "cpu" or "cuda", everything or the batch tail alone."""
    parser = make_parser(__doc__)
    parser.add_argument("--threads", type=int, help="of PyTorch; as many as it takes by default")
    parser.add_argument("--quick", action="store_true", help="tiny batches; writes to build/benchmarks, not the README")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    parser.add_argument("--output", type=Path, help="folder for the results")
    add_limits(parser)
    args = parser.parse_args(arguments)
    started = time.monotonic()
    if device == "cuda" and not args.redraw and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device")
    if args.threads:
        torch.set_num_threads(args.threads)
    folder = args.output or (ROOT / "build" / "benchmarks" if args.quick else RESULTS)
    warnings.filterwarnings("ignore", module="kornia")

    plan = QUICK if args.quick else FULL if device == "cpu" else ON_A_GPU
    deadline, tell = started + args.seconds, lines_to(args.lines)
    first_deadline = started + (1 - SHARE_OF_THE_TAIL) * args.seconds
    parts: list[Callable[[], list[str]]] = [
        *([] if tail_alone else [partial(run_all, device, plan, folder, first_deadline, tell, args.redraw)]),
        partial(tail.run_all, device, plan.tail, folder, deadline, tell, args.redraw),
    ]
    wrong = [name for part in parts for name in part()]
    if wrong:
        sys.exit(f"Wrong results: {', '.join(wrong)}.")


def run_all(
    device: str, plan: Plan, folder: Path, deadline: float, tell: Callable[[dict], None], redraw: bool
) -> list[str]:
    """All but the batch tail: measured or, to be drawn again, read. Returns those of ours that were wrong."""
    if redraw:
        results = json.loads((folder / f"{device}.json").read_text())
        write(results, folder)
    else:
        suite = Suite(torch.device(device), plan, deadline, tell)
        results = suite.results
        try:
            suite.run()
        finally:
            write(results, folder)
    show(results, folder)
    return results.get("ours_wrong", [])
