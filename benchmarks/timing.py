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
from functools import cache
from typing import Any, Protocol

import torch

Call = Callable[[Any], object]  # of one of the batches that calls take in turn

WARM_UP_CALLS = 3
SLOW = 0.2  # seconds; such a call is warm when it has run once
SHORTEST_LAP = 1e-3  # seconds; shorter calls are repeated, for the clock and the loop around them cost something too
MOST_REPEATS = 10_000
SHORTEST_BUSY = 20e-3  # seconds; so long calls that the host issues are timed in a row
SHORTEST_REPLAY = 4e-3  # seconds; so few of them are the time between two replays that it does not show
FASTEST_CLOCK = 2e9  # cycles a second, of any GPU


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


@cache
def _some_numbers() -> torch.Tensor:
    return torch.ones(1 << 20)


def wake_threads() -> None:
    """PyTorch's threads wait for the next call then, each on a core of its own, as in a loop that trains on the CPU.

    One that sleeps may be woken on the core of the thread that waits for it, and get its turn four milliseconds later.
    """
    for _ in range(3):
        _some_numbers().neg_()


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
        wake_threads()
        start = time.perf_counter()
        for inputs in self.batches:
            call(inputs)
        return (time.perf_counter() - start) / len(self.batches)


class DeviceClock:
    """CUDA events around calls on the rotated batches, issued by the host while the GPU works.

    A slow call takes some of the batches each lap, and the next ones in the next.
    """

    method = "CUDA events"

    def __init__(self, call: Call, rotation: Sequence[Any]) -> None:
        self.call, self.rotation, self.turn = call, rotation, itertools.cycle(rotation)
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for inputs in itertools.islice(self.turn, WARM_UP_CALLS):
            call(inputs)
        torch.cuda.synchronize()
        start = time.perf_counter()
        call(next(self.turn))
        torch.cuda.synchronize()
        self.calls = min(len(rotation), math.ceil(SHORTEST_BUSY / (time.perf_counter() - start)))

    def lap(self) -> float:
        batches = list(itertools.islice(self.turn, self.calls))
        self.start.record()
        # Results are kept, so that outputs rotate through memory as inputs do.
        self.results = [self.call(inputs) for inputs in batches]
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) / 1e3 / self.calls


class GraphReplay(DeviceClock):
    """CUDA events around replays of a graph of the same calls: the GPU's time without the host's.

    The GPU is kept busy until all of the replays are launched. What the host draws is frozen into the graph; that
    changes no kernel's work from one replay to the next.
    """

    method = "CUDA graph replay"

    def __init__(self, call: Call, rotation: Sequence[Any]) -> None:
        super().__init__(call, rotation)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.results = [call(inputs) for inputs in rotation]
        self.repeats, self.busy_cycles = 1, 0
        self.lap()
        self.repeats = max(1, math.ceil(SHORTEST_REPLAY / (self.lap() * len(rotation))))
        start = time.perf_counter()
        self.replay()
        self.busy_cycles = int(2 * (time.perf_counter() - start) * FASTEST_CLOCK)
        torch.cuda.synchronize()

    def replay(self) -> None:
        for _ in range(self.repeats):
            self.graph.replay()

    def lap(self) -> float:
        torch.cuda._sleep(self.busy_cycles)
        self.start.record()
        self.replay()
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) / 1e3 / (self.repeats * len(self.rotation))


def makes_host_wait(call: Call, inputs: Any) -> bool:
    """Whether a call, made before, waits for the GPU, which a capture forbids. Captures nothing to find out."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(inputs)
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return False


class Stopwatches:
    """Makes them for a device: on the CPU wall clocks; on a GPU graph replays, or events for calls that wait for it.

    On torch 2.11 a capture that failed may leave torch unable to capture anything else (pytorch/pytorch#180395). From
    then on all calls are timed by events: times of different clocks are not compared.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu, self.can_capture = device.type == "cuda", True
        self.failed_captures: dict[str, str] = {}  # name: error

    def make(self, calls: Mapping[str, Call], rotation: Sequence[Any]) -> dict[str, Stopwatch]:
        """A stopwatch for each call on a rotation of batches."""
        could_capture = self.can_capture
        watches = {name: self._make(name, call, rotation) for name, call in calls.items()}
        if self.can_capture == could_capture:
            return watches
        return {name: self._make(name, call, rotation) for name, call in calls.items()}

    def _make(self, name: str, call: Call, rotation: Sequence[Any]) -> Stopwatch:
        if not self.on_gpu:
            return WallClock(call, rotation)
        eager = DeviceClock(call, rotation)
        if not self.can_capture or makes_host_wait(call, rotation[0]):
            return eager
        stream = torch.cuda.current_stream()
        try:
            return GraphReplay(call, rotation)
        except RuntimeError as error:
            self.failed_captures[name] = str(error).partition("\n")[0]
        torch.cuda.set_stream(stream)  # torch leaves that of the capture
        torch.cuda.synchronize()
        self.can_capture = captures_work()
        return eager


def captures_work() -> bool:
    """Whether torch can capture a draw of random numbers in a graph of its own."""
    numbers = torch.zeros(8, device="cuda")
    try:
        with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=torch.cuda.Stream()):
            numbers.uniform_()
        numbers.uniform_()
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds for one batch with all its implementations, and the rounds of each.

    warm_up: seconds of laps that do not count, in which a GPU reaches the clocks that it keeps.
    """

    seconds: float
    fewest_rounds: int
    most_rounds: int
    warm_up: float = 0.0


def time_in_turn(stopwatches: Mapping[str, Stopwatch], effort: Effort) -> dict[str, Timing]:
    """Laps of every stopwatch, interleaved in a new order each round, so that what else the machine does befalls all.

    Each gets its share of the time; the slow ones sit out some rounds, evenly.
    """
    share = effort.seconds / len(stopwatches)
    warm = time.perf_counter() + effort.warm_up
    for watch in itertools.cycle(stopwatches.values()):
        if time.perf_counter() >= warm:
            break
        watch.lap()

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
