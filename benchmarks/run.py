"""Checks, measures, and writes the results as JSON, Markdown and pictures. How and why: README.md beside this file.

python benchmarks/run.py                  this machine's CPU, in under ten minutes on two cores
python benchmarks/run.py --device cuda    its GPU
python benchmarks/run.py --quick          does everything once on tiny batches; the numbers mean nothing
python benchmarks/run.py --redraw         tables and pictures again, from the JSON that is there
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import plots
import tables
import torch
from checks import check_all
from contenders import Contender, all_contenders, chosen
from counted import BOXES, count_peers, read_ours
from cross_entropy import FULL_SIZES, QUICK_SIZES, Sizes, loss_times
from grid import CENTRE, QUICK_CENTRE, Case, lines, quick_lines, rotation
from machine import ROOT, describe, keep_freed_memory
from overhead import SMALL, call_overhead
from rich.progress import Progress
from step import training_steps
from targets import judge, judge_overhead
from timing import Effort, Timing, stopwatch, time_in_turn

RESULTS = ROOT / "benchmarks" / "results"


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


def measure_case(contenders: list[Contender], case: Case, device: torch.device, effort: Effort) -> dict[str, Timing]:
    batches = rotation(case, device)
    watches = {one.name: stopwatch(one.prepare(case), batches, device) for one in contenders}
    return time_in_turn(watches, effort)


def as_cell(case: Case, on: list[str], contenders: list[Contender], timings: dict[str, Timing]) -> dict:
    """One batch of the grid: what each contender is, its timing, and its speed over the fewest bytes for the job."""
    rows = {}
    for one in contenders:
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
    contenders, missing = all_contenders(device, with_compiled=plan.compile)
    on_lines: dict[Case, list[str]] = {}
    for line, cases in plan.lines.items():
        for case in cases:
            on_lines.setdefault(case, []).append(line)
    results = {
        "device": device.type,
        "machine": describe(device),
        "missing": missing,
        "centre": plan.centre.as_dict(),
        "checks": check_all(contenders, list(on_lines), device),
    }

    timings: dict[Case, dict[str, Timing]] = {}
    cells = []
    with Progress() as progress:
        task = progress.add_task("timing", total=len(on_lines))
        for case, on in on_lines.items():
            progress.update(task, description=f"timing {case}")
            measured = chosen(contenders, case, plan.centre)
            timings[case] = measure_case(measured, case, device, plan.effort)
            cells.append(as_cell(case, on, measured, timings[case]))
            progress.advance(task)
    overhead = call_overhead(contenders, device, plan.effort)
    by = training_steps(contenders, device, **plan.step)
    losses = loss_times(plan.losses, device, plan.effort)
    counted = count_peers(contenders, plan.centre, plan.boxes) + read_ours(RESULTS / "ptx_report.json")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of PyTorch; as many as it takes by default")
    parser.add_argument("--quick", action="store_true", help="tiny batches; writes to build/benchmarks, not the README")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    parser.add_argument("--output", type=Path, help="folder for the results")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device")
    if args.threads:
        torch.set_num_threads(args.threads)
    folder = args.output or (ROOT / "build" / "benchmarks" if args.quick else RESULTS)
    readme = ROOT / "README.md" if folder == RESULTS and (ROOT / "README.md").exists() else None

    if args.redraw:
        results = json.loads((folder / f"{args.device}.json").read_text())
    else:
        warnings.filterwarnings("ignore", module="kornia")
        results = measure(torch.device(args.device), QUICK if args.quick else FULL)
    write(results, folder, readme)
    print(tables.speed_table(tables.centre_cell(results)))
    print("\n" + tables.loss_table(results["losses"]))
    if results["targets"]:
        print("\n" + tables.targets_table(results["targets"]))
    print(f"\nThe results are in {os.path.relpath(folder)}: {args.device}.json, {args.device}.md and pictures.")


if __name__ == "__main__":
    keep_freed_memory()
    main()
