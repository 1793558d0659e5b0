"""One batch at a time: everything that it is measured with, in turn, as a cell of the results."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from .grid import Case, rotation
from .implementations import Implementation
from .machine import clocks
from .timing import Effort, Stopwatches, Timing, time_in_turn


class Bench:
    """Where and for how long is measured. `tell` is given each cell as soon as it is there."""

    def __init__(self, device: torch.device, effort: Effort, deadline: float, tell: Callable[[dict], None]) -> None:
        self.device, self.effort, self.deadline, self.tell = device, effort, deadline, tell
        self.stopwatches = Stopwatches(device)

    def no_time_for(self, seconds: float) -> bool:
        """Whether what takes so long would not be ready by the deadline, of time.monotonic()."""
        return time.monotonic() + seconds > self.deadline

    def measure(
        self, case: Case, on: list[str], implementations: list[Implementation]
    ) -> tuple[dict, dict[str, Timing]]:
        watches = self.stopwatches.make(
            {one.name: one.prepare(case) for one in implementations}, rotation(case, self.device)
        )
        before = self._clocks()
        timings = time_in_turn(watches, self.effort)
        cell = as_cell(case, on, implementations, timings)
        if before:
            cell["clocks"] = {"before": before, "after": self._clocks()}
        self.tell(cell)
        return cell, timings

    def _clocks(self) -> dict[str, str]:
        return clocks() if self.device.type == "cuda" else {}


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
