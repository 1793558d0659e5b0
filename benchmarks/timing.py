"""How seconds are taken: all implementations in turn, many rounds, medians with their spread."""

from __future__ import annotations

import gc
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

Call = Callable[[Any], object]  # of one of the batches that calls take in turn

WARM_UP_CALLS = 3
SLOW = 0.2  # seconds; such a call is warm when it has run once
SHORTEST_LAP = 1e-3  # seconds; shorter calls are repeated, for the clock and the loop around them cost something too
MOST_REPEATS = 10_000


@dataclass(frozen=True)
class Timing:
    """Seconds a call, one value for each round."""

    seconds: list[float]
    method: str

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def quartiles(self) -> tuple[float, float]:
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third

    def as_dict(self) -> dict:
        first, third = self.quartiles()
        return {
            "median_s": self.median,
            "q1_s": first,
            "q3_s": third,
            "mean_s": statistics.fmean(self.seconds),
            "rounds": len(self.seconds),
            "method": self.method,
        }


class Stopwatch(Protocol):
    method: str

    def lap(self) -> float:
        """Seconds a call, now."""


class WallClock:
    """The host's clock around calls that return when they are done."""

    method = "wall clock"

    def __init__(self, call: Call, rotation: Sequence[Any]) -> None:
        self.call, self.batches = call, rotation
        self.lap()
        once = self.lap()
        if once < SLOW:
            once = min(self.lap() for _ in range(WARM_UP_CALLS - 1))
        repeats = min(MOST_REPEATS, math.ceil(SHORTEST_LAP / once))
        self.batches = list(itertools.islice(itertools.cycle(rotation), max(repeats, len(rotation))))

    def lap(self) -> float:
        call = self.call
        start = time.perf_counter()
        for inputs in self.batches:
            call(inputs)
        return (time.perf_counter() - start) / len(self.batches)


class DeviceClock:
    """CUDA events around one call on each of the rotated batches, issued by the host while the GPU works."""

    method = "CUDA events"

    def __init__(self, call: Call, rotation: Sequence[Any]) -> None:
        self.call, self.rotation = call, rotation
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for inputs in itertools.islice(itertools.cycle(rotation), WARM_UP_CALLS):
            call(inputs)
        torch.cuda.synchronize()

    def work(self) -> None:
        # Results are kept, so that outputs rotate through memory as inputs do.
        self.results = [self.call(inputs) for inputs in self.rotation]

    def lap(self) -> float:
        self.start.record()
        self.work()
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) / 1e3 / len(self.rotation)


class GraphReplay(DeviceClock):
    """CUDA events around the replay of a graph of the same calls: the GPU's time without the host's.

    What the host draws is frozen into the graph; that changes no kernel's work from one replay to the next.
    """

    method = "CUDA graph replay"

    def __init__(self, call: Call, rotation: Sequence[Any]) -> None:
        super().__init__(call, rotation)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            super().work()
        self.work()
        torch.cuda.synchronize()

    def work(self) -> None:
        self.graph.replay()


def stopwatch(call: Call, rotation: Sequence[Any], device: torch.device) -> Stopwatch:
    """On the CPU the wall clock; on a GPU graph replay, or events for calls that cannot be captured."""
    if device.type != "cuda":
        return WallClock(call, rotation)
    try:
        return GraphReplay(call, rotation)
    except RuntimeError:  # it makes the host wait, which a capture forbids
        torch.cuda.synchronize()
        return DeviceClock(call, rotation)


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds for one batch with all its implementations, and the rounds of each."""

    seconds: float
    fewest_rounds: int
    most_rounds: int


def time_in_turn(stopwatches: Mapping[str, Stopwatch], effort: Effort) -> dict[str, Timing]:
    """Laps of every stopwatch, interleaved in a new order each round, so that what else the machine does befalls all.

    Each gets its share of the time; the slow ones sit out some rounds, evenly.
    """
    share = effort.seconds / len(stopwatches)

    def rounds_of(watch: Stopwatch) -> int:
        start = time.perf_counter()
        watch.lap()
        cost = time.perf_counter() - start
        return max(effort.fewest_rounds, min(effort.most_rounds, int(share / cost)))

    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        rounds = {name: rounds_of(watch) for name, watch in stopwatches.items()}
        most = max(rounds.values())
        seconds: dict[str, list[float]] = {name: [] for name in stopwatches}
        order, shuffle = list(stopwatches), random.Random(0).shuffle
        for turn in range(most):
            shuffle(order)
            for name in order:
                if (turn + 1) * rounds[name] // most > turn * rounds[name] // most:
                    seconds[name].append(stopwatches[name].lap())
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(values, stopwatches[name].method) for name, values in seconds.items()}
