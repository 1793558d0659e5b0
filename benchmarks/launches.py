"""A few launches for Nsight Compute to look at, and what it saw beside what the executed PTX promised.

python benchmarks launches             makes them: to be run under ncu, with the options of ncu_command
python benchmarks launches raw.csv     the table, from what ncu exported

They are launches of ptx_report.py: the same batch, drawn by the same seed.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import cutmix_cuda
from cutmix_cuda import CutMix, Erase

from .chains import ERASE, FLIP, MEAN, RATIO, SCALE, STD
from .command_line import make_parser
from .machine import RESULTS, ROOT
from .tables import duration, table

BACKENDS = ("cuda", "triton")
BATCH, SIZE, CLASSES, SEED = 64, 224, 1000, 20190513
KERNELS = "mix_|augment_"  # what the names of ours begin with
SECTOR, VECTOR_OF_A_WARP = 32, 16 * 32  # bytes

SECTIONS = (
    *("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats"),
    *("InstructionStats", "SchedulerStats", "WarpStateStats"),
)
METRICS = {  # name here: name for ncu, in its base units
    "dram_read": "dram__bytes_read.sum",
    "dram_written": "dram__bytes_write.sum",
    "sectors_read": "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
    "sectors_written": "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
    "instructions": "smsp__inst_executed.sum",
    "issue_slots": "sm__inst_issued.avg.pct_of_peak_sustained_active",
    "occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "registers": "launch__registers_per_thread",
    "nanoseconds": "gpu__time_duration.sum",
}


HEADLINE = f"""# What the kernels do on the GPU, beside what the executed PTX promised

One launch each of {BATCH} x 3 x {SIZE} x {SIZE} images with {CLASSES} classes, all of one kind, with cold caches; those
of the batch tail turn uint8 into normalised bfloat16. Left of an arrow what executing the PTX gave, right of it what
Nsight Compute measured. Instructions are a warp's for each 16 bytes that a lane writes: of PTX, and of machine code.
Sectors are those of all requests, and DRAM's bytes those that reached it, over the fewest that the job needs.
"""


class Launch(NamedTuple):
    kind: str  # or what Augment does beside CutMix, of AUGMENTED
    dtype: torch.dtype
    in_place: bool


LAUNCHES = [
    Launch(kind, dtype, in_place)
    for kind, dtype in (("cutmix", torch.float32), ("cutmix", torch.uint8), ("mixup", torch.uint8))
    for in_place in (False, True)
]
AUGMENTED: dict[str, dict[str, Any]] = {
    "normalise, CutMix": {},
    "normalise, CutMix, to channels-last": {"memory_format": torch.channels_last},
    "flips, shifts, erases, to channels-last": {
        "memory_format": torch.channels_last,
        "flip": FLIP,
        "translate": 4,
        "erase": Erase(ERASE, SCALE, RATIO),
    },
}
LAUNCHES += [Launch(kind, torch.uint8, False) for kind in AUGMENTED]


# ---- Made


def call_of(launch: Launch, backend: str, device: torch.device) -> Callable[[], Any]:
    """One launch: plan, pixels and targets."""
    images = torch.zeros(BATCH, 3, SIZE, SIZE, dtype=launch.dtype, device=device)
    labels = torch.zeros(BATCH, dtype=torch.int64, device=device)
    how: dict[str, Any] = {"label_smoothing": 0.1, "seed": SEED, "backend": backend}
    if launch.kind in AUGMENTED:
        cutmix = CutMix(num_classes=CLASSES, label_smoothing=how.pop("label_smoothing"))
        how |= {"mean": MEAN, "std": STD, "dtype": torch.bfloat16, **AUGMENTED[launch.kind]}
        return lambda: cutmix_cuda.augment(images, labels, cutmix, **how)
    if launch.kind == "mixup":
        mix = cutmix_cuda.mix_ if launch.in_place else cutmix_cuda.mix
        return lambda: mix(images, labels, CLASSES, cutmix_alpha=None, **how)
    function = cutmix_cuda.cutmix_ if launch.in_place else cutmix_cuda.cutmix
    return lambda: function(images, labels, CLASSES, **how)


def make_launches(device: torch.device) -> None:
    """Each once to compile, and once for the profiler."""
    for backend in BACKENDS:
        for launch in LAUNCHES:
            call = call_of(launch, backend, device)
            call()
            torch.cuda.synchronize()
            torch.cuda.profiler.start()
            call()
            torch.cuda.synchronize()
            torch.cuda.profiler.stop()


def ncu_command(ncu: str, report: Path) -> list[str]:
    """Profiles the launches into a report (.ncu-rep). The clocks of the GPU are left as they are."""
    return [
        *(ncu, "--clock-control", "none", "--profile-from-start", "off", "--kernel-name", f"regex:{KERNELS}"),
        *(part for section in SECTIONS for part in ("--section", section)),
        *("--metrics", ",".join(METRICS.values()), "--force-overwrite", "--export", str(report)),
        *(sys.executable, str(ROOT / "benchmarks"), "launches"),
    ]


def export_command(ncu: str, report: Path) -> list[str]:
    """Prints a report as the CSV that `read` takes."""
    return [ncu, "--import", str(report), "--csv", "--page", "raw", "--print-units", "base"]


# ---- Read


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


def read(text: str) -> list[dict]:
    """The rows of what ncu exported: the launches in their order, with a value or None for each of METRICS.

    Raises ValueError where it is not one row for each launch.
    """
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    seen = [row for row in csv.DictReader(lines[start:]) if row["ID"]]  # a row without ID holds the units
    made = [(backend, launch) for backend in BACKENDS for launch in LAUNCHES]
    if len(seen) != len(made):
        raise ValueError(f"ncu saw {len(seen)} launches instead of {len(made)}")
    return [
        {
            "backend": backend,
            "kernel": row["Kernel Name"],
            **launch._asdict(),
            "dtype": str(launch.dtype).removeprefix("torch."),
            **{name: _number(row.get(metric)) for name, metric in METRICS.items()},
        }
        for (backend, launch), row in zip(made, seen, strict=True)
    ]


def promised(report: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of ptx_report.json for the same launch. For the batch tail, which it lacks, the fewest sectors alone."""
    if row["kind"] in AUGMENTED:
        elements = BATCH * 3 * SIZE * SIZE
        return {"sectors_to_read": elements / SECTOR, "sectors_to_write": 2 * elements / SECTOR}
    same = {**{key: row[key] for key in ("backend", "kind", "dtype", "in_place")}, "layout": "NCHW"}
    return next((each for each in report["rows"] if same.items() <= each.items()), {})


def as_markdown(rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> str:
    header = (
        *("backend", "kind", "dtype", "pixels", "registers", "instructions"),
        *("sectors read", "written", "DRAM read", "written", "occupancy", "issue slots", "time"),
    )
    lines = []
    for row in rows:
        said = promised(report, row)

        def beside(executed: float | None, measured: float | None, digits: int) -> str:
            return " -> ".join("?" if each is None else f"{each:.{digits}f}" for each in (executed, measured))

        def over(name: str, unit: int, minimum: str) -> float | None:
            value, least = row[name], said.get(minimum)  # noqa: B023
            return value / unit / least if value is not None and least else None

        written = said.get("sectors_to_write")
        vectors = written * SECTOR / VECTOR_OF_A_WARP if written else None
        instructions = row["instructions"] / vectors if vectors and row["instructions"] is not None else None
        lines.append(
            (
                *(row["backend"], row["kind"], row["dtype"], "in place" if row["in_place"] else "out of place"),
                beside(said.get("registers"), row["registers"], 0),
                beside(said.get("instructions_per_16_bytes"), instructions, 1),
                beside(said.get("requests_read_over_minimum"), over("sectors_read", 1, "sectors_to_read"), 3),
                beside(said.get("requests_written_over_minimum"), over("sectors_written", 1, "sectors_to_write"), 3),
                beside(said.get("sectors_read_over_minimum"), over("dram_read", SECTOR, "sectors_to_read"), 3),
                beside(said.get("sectors_written_over_minimum"), over("dram_written", SECTOR, "sectors_to_write"), 3),
                *("?" if row[name] is None else f"{row[name]:.0f} %" for name in ("occupancy", "issue_slots")),
                "?" if row["nanoseconds"] is None else duration(row["nanoseconds"] / 1e9),
            )
        )
    return f"{HEADLINE}\n{table(header, lines, numbers_from=4)}\n"


def main(arguments: Sequence[str]) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("csv", type=Path, nargs="?", help="what ncu exported; without it the launches are made")
    args = parser.parse_args(arguments)
    if args.csv is None:
        if not torch.cuda.is_available():
            parser.error("torch sees no CUDA device")
        make_launches(torch.device("cuda"))
        return
    print(as_markdown(read(args.csv.read_text()), json.loads((RESULTS / "ptx_report.json").read_text())))
