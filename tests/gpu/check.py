"""Tests, checks and measures on a machine with a GPU, in four parts that can be run singly: ``make gpu-check``.

correct   The tests of this folder, and those of the rest that take their device by parameter, on the GPU.
sanitize  Some of them under compute-sanitizer's memcheck and racecheck. racecheck watches shared memory alone, of which
          the CUDA kernels have none: it speaks of Triton's. May run beside the part before.
measure   Every kernel beside a copy of as many bytes, and what Nsight Compute sees of a few launches.
peers     The benchmark beside torchvision, timm and others.

Each part has a limit of time, and leaves in a folder PART.md, the report, and PART.tar.gz, everything else; both are
there after each step. While a step runs, PART.jsonl holds what it has found so far, a line each. The exit status is 0
if all went well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.machine import describe, describe_error
from cutmix_cuda._info import report as info

from .commands import (
    FAILED,
    NOT_RUN,
    OUT_OF_TIME,
    ROOT,
    SUITES,
    SUMMARIES,
    Runner,
    run,
    run_benchmark,
    run_ncu,
    run_sanitizer,
    run_tests,
)
from .report import markdown, steps_that

FOLDER = ROOT / "build" / "gpu-check"
TO_WRITE = 10.0  # seconds that are kept for the last report


class Step(NamedTuple):
    name: str
    fraction: float  # of the part's time, that the steps before leave to it
    run: Callable[[float], dict[str, Any]]  # in so many seconds


def describe_machine(runner: Runner = run) -> dict[str, Any]:
    """GPUs, driver, versions and commit, and what the package says of its build."""
    try:
        smi = runner(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"], 30.0)
        gpus = smi.output.strip().splitlines() if smi.returncode == 0 else []
    except OSError:
        gpus = []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {**describe(device), "gpus": gpus, "cuda_of_torch": torch.version.cuda, "info": info()}


def failures(report: Path) -> list[str]:
    """What failed in a part, if that was run: tests by name, other steps by theirs."""
    if not report.exists():
        return []
    results = json.loads(report.read_text())
    failed = steps_that(FAILED, results)
    return [one for step in failed for one in results["steps"][step].get("failed") or [step]]


class Part:
    """A part of the check, whose results are in a folder of its own, and packed in `out`, after each step."""

    def __init__(
        self, name: str, out: Path, deadline: float, runner: Runner = run, quick: bool = False, folder: Path = FOLDER
    ) -> None:
        self.name, self.out, self.deadline, self.runner, self.quick = name, out, deadline, runner, quick
        self.folder = folder / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        out.mkdir(parents=True, exist_ok=True)
        self.lines = out / f"{name}.jsonl"
        self.lines.unlink(missing_ok=True)
        waiting = {"status": NOT_RUN, "why": "the check did not come this far"}
        self.results: dict[str, Any] = {"part": name, "machine": describe_machine(runner), "documents": []}
        self.results["steps"] = {step.name: waiting for step in self.steps()}
        self.results["failed_before"] = [] if name == "correct" else failures(folder / "correct" / "correct.json")

    def steps(self) -> list[Step]:
        """What the part does, in turn."""
        lines, folder, runner = self.lines, self.folder, self.runner
        benchmark = partial(run_benchmark, folder=folder, lines=lines, quick=self.quick, runner=runner)
        if self.name == "measure":
            return [
                Step("kernels", 0.7, partial(benchmark, "kernels")),
                Step("ncu", 0.3, partial(run_ncu, folder, runner=runner)),
            ]
        if self.name == "peers":
            return [Step("benchmark", 1.0, partial(benchmark, "gpu"))]
        if self.name == "sanitize":
            return [Step(tool, 0.5, partial(run_sanitizer, tool, runner=runner)) for tool in SUMMARIES]
        return [
            Step(name, suite.fraction, partial(run_tests, suite, lines, runner=runner))
            for name, suite in SUITES.items()
        ]

    def run(self) -> list[str]:
        """Runs the steps; returns those that did not go well."""
        self.write()
        limit = self.deadline - time.monotonic()
        steps = self.steps()
        for number, step in enumerate(steps, 1):
            kept = TO_WRITE + limit * sum(later.fraction for later in steps[number:])
            self.results["steps"][step.name] = self.guarded(step, self.deadline - time.monotonic() - kept)
            self.write()
        self.lines.unlink(missing_ok=True)
        return [*steps_that(FAILED, self.results), *steps_that(OUT_OF_TIME, self.results)]

    @staticmethod
    def guarded(step: Step, seconds: float) -> dict[str, Any]:
        """A step, of which an error leaves a line in the report and not a check without one."""
        if seconds <= 0:
            return {"status": OUT_OF_TIME, "why": "the steps before took all of the time"}
        try:
            return step.run(seconds)
        except Exception as error:
            return {"status": FAILED, "why": describe_error(error)}

    def write(self) -> None:
        """The report, and everything in one archive."""
        documents = [self.folder / name for name in ("kernels.md", "launches.md", "cuda.md")]
        self.results["documents"] = [document.read_text() for document in documents if document.exists()]
        (self.folder / f"{self.name}.json").write_text(json.dumps(self.results, indent=1) + "\n")
        (self.out / f"{self.name}.md").write_text(markdown(self.results))
        if self.lines.exists():
            shutil.copy(self.lines, self.folder)
        with tarfile.open(self.out / f"{self.name}.tar.gz", "w:gz") as archive:
            archive.add(self.folder, self.name)


PARTS = ("correct", "sanitize", "measure", "peers")


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Returns what went wrong, or None."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="all of them, in turn, by default")
    parser.add_argument("--limit", type=float, default=560.0, help="seconds for a part; %(default).0f by default")
    parser.add_argument("--since", type=float, help="when the first part began, by time.time(); now by default")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for report and archive; %(default)s")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for what is archived; %(default)s")
    parser.add_argument("--quick", action="store_true", help="hardly measure; the numbers mean nothing")
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        return "gpu-check needs a machine with a GPU, and torch sees no CUDA device here."
    spent = time.time() - args.since if args.since else 0.0
    wrong = {}
    for name in [args.part] if args.part else PARTS:
        part = Part(name, args.out, time.monotonic() + args.limit - spent, quick=args.quick, folder=args.folder)
        if steps := part.run():
            wrong[name] = steps
        spent = 0.0
        print(f"\nThe report is {os.path.relpath(args.out / name)}.md.", flush=True)
    return "; ".join(f"{name}: {', '.join(steps)}" for name, steps in wrong.items()) + "." if wrong else None
