"""What the interpreter refuses and what it judges.

`Unsupported` means that the PTX text goes beyond what the interpreter models; `Fault` means that the interpreter
understood the program and the program did something wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class PtxError(Exception):
    """Anything that keeps a launch from being a proof."""


class Unsupported(PtxError):
    """PTX that is not understood or not modelled. It is never skipped."""


class Approximate(Unsupported):
    """An instruction whose result IEEE 754 does not fix (`.approx`, `.full`, `.ftz`, contractible arithmetic)."""


class Kind(str, Enum):
    OUT_OF_BOUNDS = "out-of-bounds access"
    MISALIGNED = "misaligned access"
    READ_ONLY = "write to a read-only buffer"
    UNDEFINED_MEMORY = "read of uninitialised memory"
    UNDEFINED_REGISTER = "read of an uninitialised register"
    RACE = "race"
    DIVISION_BY_ZERO = "division by zero"
    DEADLOCK = "barrier deadlock"
    DIVERGENCE = "warp operation without all its lanes"
    TRAP = "trap"
    ENDLESS = "endless loop"

    def __str__(self) -> str:
        return self.value


@dataclass
class Fault(PtxError):
    """A wrong act of one thread, the first of those that committed it at that instruction.

    `thread` and `block` are (x, y, z) indices, `line` and `text` the instruction's place in the PTX text, `address`
    the byte address where memory is concerned, `detail` what else is known (buffer and offset, the other thread).
    """

    kind: Kind
    kernel: str
    line: int
    text: str
    thread: tuple[int, int, int]
    block: tuple[int, int, int]
    address: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        where = "" if self.address is None else f" at address {self.address:#x}"
        detail = f" ({self.detail})" if self.detail else ""
        return (
            f"{self.kind}{where}{detail}: thread {self.thread} of block {self.block}, "
            f"{self.kernel} line {self.line}: {self.text}"
        )
