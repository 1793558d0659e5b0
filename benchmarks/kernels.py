"""Every kernel beside a copy of as many bytes as its job reads and writes at least.

python benchmarks kernels            on a GPU; leaves kernels.json and kernels.md
python benchmarks kernels --quick    a small batch; the numbers mean nothing

A backend whose results are not the bits of the reference is left out, and named.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import RICAP, Colour, CutMix, Cutout, Erase, FMix, MixPlan, ResizeMix
from cutmix_cuda._literals import BackendName

from .chains import ERASE, FLIP, MEAN, RATIO, SCALE, STD
from .command_line import add_limits, lines_to, make_parser
from .grid import CENTRE, QUICK_CENTRE, Case, Inputs, random_inputs, rotation
from .machine import ROOT, clocks, describe, describe_error
from .tables import clock_line, duration, machine_line, spread, table
from .timing import Effort, Stopwatches, time_in_turn

HOLES = 4
BACKENDS: tuple[BackendName, ...] = ("cuda", "triton")
CASES = [replace(CENTRE, dtype=dtype) for dtype in (torch.uint8, torch.bfloat16, torch.float32)]
QUICK_CASES = [replace(QUICK_CENTRE, dtype=dtype) for dtype in (torch.uint8, torch.float32)]


class Job(NamedTuple):
    call: Callable[[Inputs], Any]
    bytes: int  # that it reads and writes at least: of pixels where there are any, else of the plan or the targets


def jobs(case: Case, backend: BackendName, device: torch.device) -> dict[str, Job]:
    """Every kernel of a backend, by the function that launches it."""
    size, classes = case.batch, case.classes
    plan = cutmix_cuda.sample_plan(size, case.size, case.size, seed=1, device=device, backend=backend)
    pasted = float((1 - plan.lam.double()).mean())  # of all pixels, by this plan; the calls that sample draw the same
    copied, exchanged = 2 * case.image_bytes, int(2 * pasted * case.image_bytes)
    blended = 3 * case.image_bytes  # of both samples read; in place a sample is read once for two
    target_bytes = 4 * size * classes
    seeded: dict[str, Any] = {"seed": 1, "backend": backend}
    mixup: dict[str, Any] = {"cutmix_alpha": None, **seeded}
    following: dict[str, Any] = {"backend": backend}
    found = {
        "cutmix": Job(lambda x: cutmix_cuda.cutmix(x.images, x.labels, classes, **seeded), copied),
        "cutmix, soft labels": Job(lambda x: cutmix_cuda.cutmix(x.images, x.soft_labels, **seeded), copied),
        "cutmix, out=": Job(lambda x: cutmix_cuda.cutmix(x.images, x.labels, classes, out=x.out, **seeded), copied),
        "cutmix_": Job(lambda x: cutmix_cuda.cutmix_(x.images, x.labels, classes, **seeded), exchanged),
        "mixup": Job(lambda x: cutmix_cuda.mix(x.images, x.labels, classes, **mixup), blended),
        "mixup, in place": Job(lambda x: cutmix_cuda.mix_(x.images, x.labels, classes, **mixup), copied),
        "apply_plan": Job(lambda x: cutmix_cuda.apply_plan(x.images, x.labels, plan, classes, **following), copied),
        "apply_plan_": Job(
            lambda x: cutmix_cuda.apply_plan_(x.images, x.labels, plan, classes, **following), exchanged
        ),
        "mix_images": Job(lambda x: cutmix_cuda.mix_images(x.images, plan, **following), copied),
        "mix_images_": Job(lambda x: cutmix_cuda.mix_images_(x.images, plan, **following), exchanged),
        "mix_targets": Job(lambda x: cutmix_cuda.mix_targets(x.labels, plan, classes, **following), target_bytes),
        "mix_targets, soft labels": Job(
            lambda x: cutmix_cuda.mix_targets(x.soft_labels, plan, **following), 3 * target_bytes
        ),
        "sample_plan": Job(
            lambda x: cutmix_cuda.sample_plan(size, case.size, case.size, device=device, **seeded),
            plan.packed.nbytes,
        ),
    }
    found |= patch_jobs(case, backend, device)
    return found | (tail_jobs(case, backend) if case.dtype == torch.uint8 else {})


def patch_jobs(case: Case, backend: BackendName, device: torch.device) -> dict[str, Job]:
    """The kernel of several patches, by plans of the transforms that draw them."""
    drawn = {
        "RICAP": RICAP(),
        "ResizeMix": ResizeMix(),
        f"{HOLES} holes": Cutout(area=HOLES**-2.0, holes=HOLES),
        "masks of FMix": FMix(),
    }
    sizes = case.batch, case.size, case.size

    def job_of(plan: Any) -> Job:
        return Job(
            lambda x: cutmix_cuda.paint(x.images, x.labels, plan, case.classes, backend=backend), 2 * case.image_bytes
        )

    return {
        f"paint, {name}": job_of(transform.sample_plan(*sizes, seed=1, device=device))
        for name, transform in drawn.items()
    }


def tail_jobs(case: Case, backend: BackendName) -> dict[str, Job]:
    """The kernels of the batch tail, on uint8 images that become bfloat16: a byte read for two written."""
    moved = 3 * case.image_bytes
    normalise: dict[str, Any] = {"mean": MEAN, "std": STD, "dtype": torch.bfloat16, "backend": backend}
    mix = CutMix(num_classes=case.classes)
    turned: dict[str, Any] = {"memory_format": torch.channels_last}
    views: dict[str, Any] = {"flip": FLIP, "translate": 4, "erase": Erase(ERASE, SCALE, RATIO)}
    colour: dict[str, Any] = {"colour": Colour(brightness=0.4, contrast=0.4, saturation=0.4)}

    def augmented(**how: Any) -> Job:
        return Job(lambda x: cutmix_cuda.augment(x.images, x.labels, mix, seed=1, **normalise, **how), moved)

    return {
        "normalize_images": Job(lambda x: cutmix_cuda.normalize_images(x.images, **normalise), moved),
        "augment": augmented(),
        "augment, to channels-last": augmented(**turned),
        "augment, flips, shifts, erases": augmented(**views),
        "augment, flips, shifts, erases, to channels-last": augmented(**views, **turned),
        "augment, colour": augmented(**colour),
        "augment, colour, to channels-last": augmented(**colour, **turned),
    }


def copy_of(size: int) -> Callable[[Inputs], None]:
    """A call that reads and writes so many bytes in all, from the images to out; more than they hold, over again."""

    def copy(inputs: Inputs) -> None:
        source, target = (tensor.view(torch.uint8).view(-1) for tensor in (inputs.images, inputs.out))
        for left in range(size // 2, 0, -len(source)):
            target[:left].copy_(source[:left])

    return copy


# ---- Whether a backend is right


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, MixPlan):
        return [result.packed]
    return [result] if isinstance(result, Tensor) else [tensor for part in result for tensor in _tensors(part)]


def wrong_kernels(case: Case, backend: BackendName, device: torch.device) -> list[str]:
    """The kernels that leave other bits than the reference does on the device."""
    found = []
    reference = jobs(case, "reference", device)
    for name, job in jobs(case, backend, device).items():
        left = []
        for call in (job.call, reference[name].call):
            inputs = random_inputs(case, device)
            left.append([*_tensors(call(inputs)), inputs.images, inputs.out])
        if not all(torch.equal(ours, theirs) for ours, theirs in zip(*left, strict=True)):
            found.append(name)
    return found


def check(cases: Sequence[Case], backend: BackendName, device: torch.device) -> str | None:
    """What is wrong with a backend, or None."""
    for case in cases:
        try:
            wrong = wrong_kernels(case, backend, device)
        except Exception as error:  # whatever it is, the other backend can be measured
            return f"on {case}: {describe_error(error)}"
        if wrong:
            return f"on {case}: other bits than the reference in {', '.join(wrong)}"
    return None


# ---- Times


def time_case(
    case: Case, backends: Sequence[BackendName], device: torch.device, effort: Effort, stopwatches: Stopwatches
) -> list[dict]:
    """A row for each backend and kernel, all of them and the copies timed in turn."""
    batches = rotation(case, device)
    found = {(backend, name): job for backend in backends for name, job in jobs(case, backend, device).items()}
    calls: dict[str, Callable[[Inputs], Any]] = {
        f"{name} [{backend}]": job.call for (backend, name), job in found.items()
    }
    calls |= {f"copy {size}": copy_of(size) for size in sorted({job.bytes for job in found.values()})}
    timings = time_in_turn(stopwatches.make(calls, batches), effort)
    return [
        {
            "case": str(case),
            "backend": backend,
            "kernel": name,
            "bytes": job.bytes,
            "time": timings[f"{name} [{backend}]"].as_dict(),
            "copy": timings[f"copy {job.bytes}"].as_dict(),
        }
        for (backend, name), job in found.items()
    ]


def measure(
    device: torch.device,
    backends: Sequence[BackendName],
    cases: Sequence[Case],
    effort: Effort,
    deadline: float = math.inf,
    tell: Callable[[dict], None] = lambda row: None,
) -> dict:
    """Everything but what would not be ready by the deadline, of time.monotonic(). `tell` is given each row."""
    wrong = {backend: why for backend in backends if (why := check(cases, backend, device)) is not None}
    right = [backend for backend in backends if backend not in wrong]
    stopwatches = Stopwatches(device)
    results: dict = {"machine": describe(device), "wrong": wrong, "no_time_for": [], "clocks": {}, "rows": []}
    for case in cases if right else ():
        if time.monotonic() + 2 * effort.seconds + effort.warm_up > deadline:
            results["no_time_for"].append(str(case))
            continue
        print(f"timing {case}", flush=True)
        before = clocks()
        rows = time_case(case, right, device, effort, stopwatches)
        if before:
            results["clocks"][str(case)] = {"before": before, "after": clocks()}
        results["rows"] += rows
        for row in rows:
            tell(row)
    return {**results, "failed_captures": stopwatches.failed_captures}


def as_markdown(results: Mapping[str, Any]) -> str:
    parts = [
        "# Every kernel, beside a copy",
        machine_line(results["machine"]),
        "Against `copy_` of as many bytes as the job reads and writes at least. Calls rotate through more batches than "
        "the cache holds; within a call, the second sample that mixup reads may still be in the cache.",
        *(f"**Left out, because its results are wrong**: {name} ({why})." for name, why in results["wrong"].items()),
        *(f"Not captured in a CUDA graph: {name} ({why})." for name, why in results["failed_captures"].items()),
        *([f"There was no time for: {'; '.join(results['no_time_for'])}."] if results["no_time_for"] else []),
    ]
    for case in dict.fromkeys(row["case"] for row in results["rows"]):
        rows = [
            (
                row["kernel"],
                row["backend"],
                f"{row['bytes'] / 1e6:.3g} MB",
                spread(row["time"]),
                f"{row['bytes'] / row['time']['median_s'] / 1e9:.3g}",
                duration(row["copy"]["median_s"]),
                f"{100 * row['copy']['median_s'] / row['time']['median_s']:.0f} %"
                if row["copy"]["method"] == row["time"]["method"]
                else "-",
                row["time"]["method"],
            )
            for row in results["rows"]
            if row["case"] == case
        ]
        header = ("kernel", "backend", "bytes", "median (quartiles)", "GB/s", "copy_", "of copy_'s speed", "clock")
        seen = results["clocks"].get(case)
        parts += [f"## {case}", *clock_line({"clocks": seen} if seen else {}), table(header, rows, numbers_from=2)]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str]) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a small batch, hardly timed")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "benchmarks", help="folder of the results")
    add_limits(parser)
    args = parser.parse_args(arguments)
    deadline = time.monotonic() + args.seconds
    if not torch.cuda.is_available():
        parser.error("torch sees no CUDA device")

    backends = [backend for backend in BACKENDS if backend in cutmix_cuda.available_backends()]
    cases, effort = (QUICK_CASES, Effort(0.1, 2, 3)) if args.quick else (CASES, Effort(10.0, 5, 60, warm_up=1.0))
    results = measure(torch.device("cuda"), backends, cases, effort, deadline, lines_to(args.lines))
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "kernels.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.output / "kernels.md").write_text(as_markdown(results))
    print(as_markdown(results))
    if results["wrong"]:
        sys.exit(f"Wrong results: {', '.join(results['wrong'])}.")
    if not backends:
        sys.exit("There is no backend to time.")
