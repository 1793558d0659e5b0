"""What the compiled kernels cost on a training batch, counted by executing their PTX: `make ptx-report`.

A row is one launch of 64 x 3 x 224 x 224 images, box by box as a user's call would run it; tests/ptx says how it is
executed and counted. Nothing here is a time, and no GPU takes part.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from cutmix_cuda._ops import BLENDED_DTYPES, Kind
from tests.kernels.execution import (
    Call,
    Executed,
    execute,
    image_sectors,
    training_call,
    triton_launch,
    vectors_written,
)
from tests.kernels.machine_code import machine_kernels, resources, tools
from tests.ptx.toolchain import nvcc

from .counted import BOXES
from .machine import RESULTS, parse_no_arguments
from .tables import table

ARCHITECTURE = 90
DTYPES = (torch.uint8, torch.float16, torch.float32, torch.float64)
OPS = {"cutmix": "out of place", "cutmix_": "in place"}

HEADLINE = f"""# What the compiled kernels cost, counted

Measured by executing compiled code: the PTX that nvcc and Triton make for compute capability {ARCHITECTURE / 10},
interpreted on a CPU. **No GPU was used, and nothing here is a time.** One fused call (plan, pixels, targets of 1000
classes) on 64 x 3 x 224 x 224 images, all of them of one kind, always one launch.

- *instructions*: PTX instructions that a warp executes, for each 16 bytes that a lane writes to the images.
- *sectors*: 32 bytes each, every one that is read (written) at all, over those that hold a pixel which has to be: 1.000
  is the least that any kernel could move between memory and cache.
- *requests*: sectors of all requests of all warps for all that the launch reads (writes), over the same minimum. It
  includes tables, plan and targets, and out of place every pixel that two samples show is requested twice.
"""


def registers(kind: str, call: Call, done: Executed) -> int | None:
    """A thread's, by ptxas; None where its report cannot be read."""
    if tools() is None:
        return None
    if kind == "cuda":
        return machine_kernels(ARCHITECTURE)[done.launch["kernel"]].resources["REG"]
    from tests.kernels.triton_compile import compiled

    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(compiled(triton_launch(call), ARCHITECTURE).asm["cubin"])
        (used,) = resources(cubin).values()
    return used["REG"]


def kernel_name(kind: str, done: Executed) -> str:
    if kind == "cuda":
        return done.launch["kernel"]
    return "mix_kernel<{WIDTH}, {GRANULE}>".format(**done.launch.options)


def measure(backend: str, kind: Kind, op: str, dtype: torch.dtype, channels_last: bool) -> dict:
    """A row of the report."""
    call = training_call(op, dtype, channels_last, kind=kind)
    done = execute(backend, call, ARCHITECTURE)
    report = done.report
    to_read, to_write = (int(np.count_nonzero(each)) for each in image_sectors(call, done.plan))
    out = report.buffers["images" if call.in_place else "out"]
    to_write = to_write if call.in_place else len(out.written)

    def requested(opcode: str) -> int:
        return sum(count.sectors for count in report.matching(opcode))

    return {
        "backend": backend,
        "kernel": kernel_name(backend, done),
        "kind": kind.name,
        "dtype": str(dtype).removeprefix("torch."),
        "layout": "channels-last" if channels_last else "NCHW",
        "in_place": call.in_place,
        "registers": registers(backend, call, done),
        "instructions_per_16_bytes": report.warp_instructions / vectors_written(call, report),
        "sectors_read_over_minimum": report.buffers["images"].sectors_read / to_read,
        "sectors_written_over_minimum": out.sectors_written / to_write,
        "requests_read_over_minimum": requested("ld.global") / to_read,
        "requests_written_over_minimum": requested("st.global") / to_write,
    }


def benchmark_row(kind: str, op: str) -> dict:
    """The row of benchmarks/counted.py: bytes that are asked for, caches or not, as it counts those of the peers."""
    passes, others = [], []
    for seed in range(BOXES // 64):
        call = training_call(op, torch.float32, channels_last=False, seed=seed)
        assert call.images is not None
        traffic = execute(kind, call, ARCHITECTURE).report.buffers
        moved = {name: each.bytes_read + each.bytes_written for name, each in traffic.items()}
        passes.append((moved["images"] + moved.get("out", 0)) / call.images.nbytes)
        others.append(moved["targets"] + moved["labels"])
    return {
        "name": f"ours, {OPS[op]} [{kind}]",
        "scope": "sample",
        "in_place": op == "cutmix_",
        "image_kernels": 1,
        "label_kernels": 0,
        "transfers": 0,
        "image_passes": fmean(passes),
        "label_bytes": fmean(others),
        "counted_by": "execution",
    }


def as_markdown(rows: list[dict]) -> str:
    header = (
        *("backend", "kernel", "kind", "dtype", "layout", "pixels", "registers", "instructions"),
        *("sectors read", "written", "requests to read", "to write"),
    )
    lines = [
        (
            *(row["backend"], f"`{row['kernel']}`", row["kind"], row["dtype"], row["layout"]),
            *(OPS["cutmix_" if row["in_place"] else "cutmix"], row["registers"] or "?"),
            f"{row['instructions_per_16_bytes']:.1f}",
            *(f"{row[f'sectors_{what}_over_minimum']:.3f}" for what in ("read", "written")),
            *(f"{row[f'requests_{what}_over_minimum']:.3f}" for what in ("read", "written")),
        )
        for row in rows
    ]
    return f"{HEADLINE}\n{table(header, lines, numbers_from=6)}\n"


def main(arguments: Sequence[str]) -> None:
    parse_no_arguments(arguments, __doc__)
    backends = ["cuda", "triton"] if nvcc() else ["triton"]
    # Layouts are nothing to mixup, and to cutout what they are to cutmix.
    pixels = [(Kind.cutmix, op, dtype, last) for op in OPS for dtype in DTYPES for last in (False, True)]
    pixels += [(Kind.mixup, op, dtype, False) for op in OPS for dtype in BLENDED_DTYPES]
    rows = [measure(backend, *case) for backend in backends for case in pixels]
    benchmark_rows = [benchmark_row(backend, op) for backend in backends for op in OPS]
    text = as_markdown(rows)
    print(text)
    report = {"architecture": ARCHITECTURE, "rows": rows, "benchmark_rows": benchmark_rows}
    (RESULTS / "ptx_report.json").write_text(json.dumps(report, indent=1) + "\n")
    (RESULTS / "ptx_report.md").write_text(text)
