"""What a launch did, counted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Count:
    """One instruction of the kernel, summed over the launch."""

    line: int
    opcode: str
    text: str
    executed: int = 0  # warp instructions: one for each warp of which a thread reached it, whatever its guard said
    requests: int = 0  # warps of which a thread accessed memory here
    sectors: int = 0  # distinct 32-byte sectors of each warp request, summed; global and constant memory
    bytes: int = 0  # bytes that the threads asked for


@dataclass
class Traffic:
    """One buffer. `read` and `written` hold a bool for each 32-byte sector, from address `start` on."""

    start: int
    read: np.ndarray
    written: np.ndarray
    bytes_read: int = 0  # asked for by threads, repeats included
    bytes_written: int = 0

    @property
    def sectors_read(self) -> int:
        """Distinct sectors: with a perfect cache, the traffic from DRAM."""
        return int(np.count_nonzero(self.read))

    @property
    def sectors_written(self) -> int:
        return int(np.count_nonzero(self.written))

    def touch(self, sectors: np.ndarray, size: int, writes: bool) -> None:
        if writes:
            self.written[sectors] = True
            self.bytes_written += size * len(sectors)
        else:
            self.read[sectors] = True
            self.bytes_read += size * len(sectors)


@dataclass
class Report:
    """`instructions` follow the kernel's text (calls inlined); `buffers` go by name."""

    kernel: str
    instructions: list[Count]
    buffers: dict[str, Traffic] = field(default_factory=dict)

    @property
    def warp_instructions(self) -> int:
        return sum(count.executed for count in self.instructions)

    def matching(self, opcode: str) -> list[Count]:
        """The instructions whose opcode starts with `opcode`, for instance "ld.global"."""
        return [count for count in self.instructions if count.opcode.startswith(opcode)]

    def hottest(self, number: int = 10) -> str:
        """The most executed instructions, one a line."""
        ranked = sorted(self.instructions, key=lambda count: -count.executed)[:number]
        return "\n".join(f"{count.executed:>10}  line {count.line:>5}  {count.text}" for count in ranked)
