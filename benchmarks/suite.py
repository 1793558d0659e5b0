"""Checks, measures, and writes the results as JSON, Markdown and pictures. How and why: README.md beside this file.

python benchmarks cpu             this machine's CPU, in under ten minutes on two cores
python benchmarks gpu             its GPU
python benchmarks cpu --quick     does everything once on tiny batches; the numbers mean nothing
python benchmarks cpu --redraw    tables and pictures again, from the JSON that is there
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from . import plots, tables
from .checks import check_all
from .counted import BOXES, count_peers, read_ours
from .cross_entropy import FULL_SIZES, QUICK_SIZES, Sizes, loss_times
from .goals import judge, judge_overhead
from .grid import CENTRE, QUICK_CENTRE, Case, lines, quick_lines, rotation
from .implementations import Implementation, all_implementations, chosen
from .machine import RESULTS, ROOT, describe
from .overhead import SMALL, call_overhead
from .timing import Effort, Timing, stopwatch, time_in_turn
from .training_step import training_steps


class Plan(NamedTuple):
    """How much to measure."""

    centre: Case
    lines: dict[str, list[Case]]
    effort: Effort  # for each batch of the grid
    step: dict[str, int]
    losses: tuple[Sizes, ...]
    boxes: int  # that counts are averaged over
    compile: bool


FULL = Plan(CENTRE, lines(), Effort(10.0, 5, 60), {"batch": 32, "size": 224, "steps": 5}, FULL_SIZES, BOXES, True)
QUICK = Plan(
    QUICK_CENTRE, quick_lines(), Effort(0.1, 2, 5), {"batch": 4, "size": 32, "steps": 1}, QUICK_SIZES, 2, False
)


def measure_case(
    implementations: list[Implementation], case: Case, device: torch.device, effort: Effort
) -> dict[str, Timing]:
    batches = rotation(case, device)
    watches = {one.name: stopwatch(one.prepare(case), batches, device) for one in implementations}
    return time_in_turn(watches, effort)


def as_cell(case: Case, on: list[str], implementations: list[Implementation], timings: dict[str, Timing]) -> dict:
    """One batch of the grid: what each side is, its timing, and its speed over the fewest bytes for the job."""
    rows = {}
    for one in implementations:
        timing = timings[one.name]
        rows[one.name] = {
            "kind": one.kind,
            "scope": one.scope,
            "in_place": one.in_place,
            "includes": one.includes,
            "centre_only": one.centre_only,
            **timing.as_dict(),
            "images_per_s": case.batch / timing.median,
            "gb_per_s": one.image_passes * case.image_bytes / timing.median / 1e9,
        }
    return {"case": case.as_dict(), "lines": on, "timings": rows}


def measure(device: torch.device, plan: Plan) -> dict:
    """Everything, in the order in which it is worth waiting for; the checks come first, and stop it."""
    implementations, missing = all_implementations(device, with_compiled=plan.compile)
    on_lines: dict[Case, list[str]] = {}
    for line, cases in plan.lines.items():
        for case in cases:
            on_lines.setdefault(case, []).append(line)
    results = {
        "device": device.type,
        "machine": describe(device),
        "missing": missing,
        "centre": plan.centre.as_dict(),
        "checks": check_all(implementations, list(on_lines), device),
    }

    timings: dict[Case, dict[str, Timing]] = {}
    cells = []
    for number, (case, on) in enumerate(on_lines.items(), 1):
        print(f"timing {number} of {len(on_lines)}: {case}", flush=True)
        measured = chosen(implementations, case, plan.centre)
        timings[case] = measure_case(measured, case, device, plan.effort)
        cells.append(as_cell(case, on, measured, timings[case]))
    overhead = call_overhead(implementations, device, plan.effort)
    by = training_steps(implementations, device, **plan.step)
    losses = loss_times(plan.losses, device, plan.effort)
    counted = count_peers(implementations, plan.centre, plan.boxes) + read_ours(RESULTS / "ptx_report.json")
    return {
        **results,
        "cells": cells,
        "overhead": {"case": SMALL.as_dict(), "by": overhead},
        "step": {**plan.step, "by": by},
        "losses": losses,
        "counted": {"case": plan.centre.as_dict(), "rows": counted},
        "targets": judge(timings) + judge_overhead(overhead) if device.type == "cpu" else [],
    }


def write(results: dict, folder: Path, readme: Path | None) -> None:
    """The JSON, the tables, the pictures, and the README's section if it has a place for one."""
    folder.mkdir(parents=True, exist_ok=True)
    name = results["device"]
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"{name}.md").write_text(tables.report(results))
    plots.draw_all(results, folder)
    if readme is not None:
        tables.put_between_markers(readme, name, tables.readme_section(results))


def main(device: str, arguments: Sequence[str]) -> None:
    """On "cpu" or "cuda"."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="of PyTorch; as many as it takes by default")
    parser.add_argument("--quick", action="store_true", help="tiny batches; writes to build/benchmarks, not the README")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    parser.add_argument("--output", type=Path, help="folder for the results")
    args = parser.parse_args(arguments)
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device")
    if args.threads:
        torch.set_num_threads(args.threads)
    folder = args.output or (ROOT / "build" / "benchmarks" if args.quick else RESULTS)
    readme = ROOT / "README.md" if folder == RESULTS and (ROOT / "README.md").exists() else None

    if args.redraw:
        results = json.loads((folder / f"{device}.json").read_text())
    else:
        warnings.filterwarnings("ignore", module="kornia")
        results = measure(torch.device(device), QUICK if args.quick else FULL)
    write(results, folder, readme)
    print(tables.speed_table(tables.centre_cell(results)))
    print("\n" + tables.loss_table(results["losses"]))
    if results["targets"]:
        print("\n" + tables.targets_table(results["targets"]))
    print(f"\nThe results are in {os.path.relpath(folder)}: {device}.json, {device}.md and pictures.")
