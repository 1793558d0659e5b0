"""What nvcc made of the CUDA kernels, read off the machine code: `make cuda-report`. No GPU takes part."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import NamedTuple

from tests.kernels.execution import cuda_kernel
from tests.kernels.machine_code import MachineKernel, machine_kernels, tools
from tests.ptx.toolchain import nvcc

from .command_line import parse_no_arguments
from .machine import RESULTS
from .tables import table

WARP = 32
REGISTERS, REGISTERS_AT_ONCE = 65536, 256  # of a multiprocessor; given out to a warp in units of
VECTOR = 16


class Limits(NamedTuple):
    """What fits on a multiprocessor (CUDA C++ Programming Guide, table of compute capabilities)."""

    threads: int
    blocks: int


LIMITS = {75: Limits(1024, 16), 80: Limits(2048, 32), 86: Limits(1536, 16), 89: Limits(1536, 24)}
LIMITS |= {90: Limits(2048, 32), 100: Limits(2048, 32), 120: Limits(1536, 24)}

HEADLINE = """# The CUDA kernels as machine code

Read off what nvcc made of them; no GPU was used. *Instructions*: of CutMix's loop over pixels as it stands, for each 16
bytes that it stores, edges of boxes included. *Occupancy*: the fraction of a multiprocessor's threads that registers
and the largest block leave room for.
"""


def occupancy(architecture: int, registers: int, block: int) -> float:
    """Resident threads over those that a multiprocessor can hold."""
    limits = LIMITS[architecture]
    a_warp = -(-registers * WARP // REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
    warps_in_block = block // WARP
    blocks = min(REGISTERS // a_warp // warps_in_block, limits.threads // block, limits.blocks)
    return blocks * block / limits.threads


def vector_bytes(name: str) -> int:
    """16 of mix_in_place<16>; 0 for a kernel without pixels."""
    return int(name.partition("<")[2].rstrip(">") or 0)


def in_order(name: str) -> tuple[str, int]:
    return name.partition("<")[0], -vector_bytes(name)


def loop_instructions(kernel: MachineKernel) -> float | None:
    """Of the loop over pixels, for each 16 bytes that it stores; None for a kernel without pixels."""
    width = vector_bytes(kernel.name)
    if width == 0:
        return None
    loop = kernel.pixel_loop()
    stores = sum(each.opcode.startswith("STG") for each in loop)
    return len(loop) / (stores * width / VECTOR)


def measure(architecture: int) -> list[dict]:
    rows = []
    for name, kernel in sorted(machine_kernels(architecture).items(), key=lambda item: in_order(item[0])):
        (block, *_) = cuda_kernel(name, architecture).max_threads or (1024,)
        registers = kernel.resources["REG"]
        rows.append(
            {
                "architecture": architecture,
                "kernel": name,
                "block": block,
                "registers": registers,
                "stack": kernel.resources["STACK"],
                "instructions_per_16_bytes": loop_instructions(kernel),
                "occupancy": occupancy(architecture, registers, block),
            }
        )
    return rows


def as_markdown(rows: list[dict]) -> str:
    lines = [
        (
            *(f"sm_{row['architecture']}", f"`{row['kernel']}`", row["block"], row["registers"], row["stack"]),
            f"{row['instructions_per_16_bytes']:.1f}" if row["instructions_per_16_bytes"] else "",
            f"{100 * row['occupancy']:.0f} %",
        )
        for row in rows
    ]
    header = ("GPU", "kernel", "largest block", "registers", "bytes of stack", "instructions", "occupancy")
    return f"{HEADLINE}\n{table(header, lines, numbers_from=2)}\n"


def main(arguments: Sequence[str]) -> None:
    parse_no_arguments(arguments, __doc__)
    if nvcc() is None or tools() is None:
        sys.exit("the report takes nvcc, and the tools in Triton's wheel")
    rows = [row for architecture in LIMITS for row in measure(architecture)]
    text = as_markdown(rows)
    print(text)
    (RESULTS / "cuda_report.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "cuda_report.md").write_text(text)
