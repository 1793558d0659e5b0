"""What a call costs when there is almost nothing to mix: microseconds of the host at a batch of one."""

from __future__ import annotations

import torch

from .grid import Case, random_inputs
from .implementations import Implementation
from .timing import Effort, WallClock, time_in_turn

SMALL = Case(batch=1, size=32, classes=10)


class HostClock(WallClock):
    """The host's time to issue calls: on a GPU it does not wait for them to end."""

    method = "host clock"


def call_overhead(implementations: list[Implementation], device: torch.device, effort: Effort) -> dict[str, dict]:
    """Timings by implementation, on one float32 image of 3x32x32 with K = 10."""
    fitting = [one for one in implementations if one.kind != "ceiling" and not one.centre_only and one.fits(SMALL)]
    inputs = [random_inputs(SMALL, device)]
    clocks = {one.name: HostClock(one.prepare(SMALL), inputs) for one in fitting}
    return {name: timing.as_dict() for name, timing in time_in_turn(clocks, effort).items()}
