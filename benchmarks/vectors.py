"""What vectors the processor has: our time and that of copies with AVX-512, with AVX2 and with neither.

python benchmarks vectors            a process for each, on small and large images
python benchmarks vectors --quick    does everything once on tiny batches; the numbers mean nothing

ATEN_CPU_CAPABILITY bounds the vectors of our loops and of PyTorch's. It stands in for a processor that lacks them, and
no more: caches, memory and the rest are this one's. Without either, the loops are the portable C++ that also runs on
ARM, there by the compiler's NEON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from . import tables
from .command_line import make_parser
from .grid import CENTRE, QUICK_CENTRE, Case, random_inputs
from .implementations import (
    CLONE,
    COPY,
    OURS,
    OURS_IN_PLACE,
    OURS_OUT,
    ours_and_ceilings,
)
from .machine import RESULTS, ROOT, describe
from .timing import Effort, Stopwatches, time_in_turn

CAPABILITIES = {"avx512": "AVX-512", "avx2": "AVX2", "default": "neither"}
NAMES = (OURS, OURS_OUT, OURS_IN_PLACE, CLONE, COPY)
SIDES = ((OURS, CLONE), (OURS_OUT, COPY), (OURS_IN_PLACE, COPY))

SMALL = [
    Case(batch, 32, dtype, classes=10) for dtype in (torch.uint8, torch.float32) for batch in (1, 8, 32, 128, 1024)
]
FULL = [*SMALL, *(replace(CENTRE, batch=64, dtype=dtype) for dtype in (torch.uint8, torch.bfloat16, torch.float32))]
QUICK = [QUICK_CENTRE]


def measure(cases: list[Case], effort: Effort) -> list[dict]:
    """Of this process, whose vectors are bounded already."""
    cpu = torch.device("cpu")
    chosen = [one for one in ours_and_ceilings(cpu) if one.name in NAMES]
    cells = []
    for case in cases:
        calls = {one.name: one.prepare(case) for one in chosen}
        timings = time_in_turn(Stopwatches(cpu).make(calls, [random_inputs(case, cpu)]), effort)
        by = {name: {"fastest_s": min(timing.seconds), **timing.as_dict()} for name, timing in timings.items()}
        cells.append({"case": case.as_dict(), "by": by})
    return cells


def measure_with(capability: str, threads: int, quick: bool) -> list[dict]:
    command = [sys.executable, str(ROOT / "benchmarks"), "vectors", "--measure", "--threads", str(threads)]
    command += ["--quick"] if quick else []
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(results: dict) -> str:
    lines = ["# With and without vectors", "", tables.machine_line(results["machine"]), ""]
    lines += [
        "How many times as long ours takes as what it is beside: below 1 it is faster. The fastest laps, because these "
        "calls are so short that whatever else the machine does would decide otherwise."
    ]
    for capability, cells in results["by"].items():
        rows = []
        for cell in cells:
            case, by = cell["case"], cell["by"]
            name = f"{case['batch']} x {case['channels']} x {case['size']} x {case['size']}, {case['dtype']}"
            times = [tables.duration(by[one]["fastest_s"]) for one in (OURS_OUT, OURS_IN_PLACE, COPY)]
            ratios = [f"{by[ours]['fastest_s'] / by[other]['fastest_s']:.2f}" for ours, other in SIDES]
            rows.append((name, *times, *ratios))
        header = ("images", OURS_OUT, OURS_IN_PLACE, COPY, *(f"{ours} / {other}" for ours, other in SIDES))
        lines += ["", f"## {CAPABILITIES[capability]}", "", tables.table(header, rows)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny batches; writes to build/benchmarks")
    parser.add_argument("--output", type=Path, help="folder for the results")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, 1 by default")
    parser.add_argument("--measure", action="store_true", help="this process alone, and print a line of JSON")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    cases, effort = (QUICK, Effort(0.1, 2, 5)) if args.quick else (FULL, Effort(3.0, 5, 200))
    if args.measure:
        print(json.dumps(measure(cases, effort)))
        return
    folder = args.output or (ROOT / "build" / "benchmarks" if args.quick else RESULTS)
    most = torch.backends.cpu.get_cpu_capability()  # DEFAULT, AVX2, AVX512, or another processor's
    usable = list(CAPABILITIES)[{"AVX512": 0, "AVX2": 1}.get(most, 2) :]
    by = {capability: measure_with(capability, args.threads, args.quick) for capability in usable}
    results = {"machine": describe(torch.device("cpu")), "by": by}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vectors_cpu.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "vectors_cpu.md").write_text(report(results))
    print(report(results))
    print(f"The results are in {os.path.relpath(folder)}: vectors_cpu.json and vectors_cpu.md.")
