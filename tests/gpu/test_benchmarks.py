"""The clocks of the benchmarks on a GPU, and what they time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import timing
from benchmarks.grid import MEAN_BOX_SHARE, MOST_ROTATED, Case, random_inputs, rotation
from benchmarks.implementations import OURS, OURS_IN_PLACE, SEEDED_IN_GRAPH, all_implementations
from benchmarks.timing import DeviceClock, Effort, GraphReplay, Stopwatches, time_in_turn

ROOT = Path(__file__).resolve().parents[2]
CASE = Case(batch=4, size=16, classes=3)


def waits(inputs):
    return inputs.images.sum().item()


def does_not(inputs):
    return inputs.out.copy_(inputs.images)


def test_a_call_that_waits_is_timed_by_events_and_captured_by_nobody(device, monkeypatch):
    captured = []
    graph = torch.cuda.graph
    monkeypatch.setattr(torch.cuda, "graph", lambda *args, **options: captured.append(1) or graph(*args, **options))
    batches = [random_inputs(CASE, device, seed) for seed in range(3)]
    watches = Stopwatches(device).make({"one": does_not, "waits": waits, "other": does_not}, batches)
    assert {name: type(watch) for name, watch in watches.items()} == {
        "one": GraphReplay,
        "waits": DeviceClock,
        "other": GraphReplay,
    }
    assert len(captured) == 2
    timings = time_in_turn(watches, Effort(0.01, 2, 3, warm_up=0.01))
    assert [each.method for each in timings.values()] == ["CUDA graph replay", "CUDA events", "CUDA graph replay"]
    assert all(second > 0 for each in timings.values() for second in each.seconds)


def fails_in_a_capture(inputs):
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("not while capturing\nas it is")
    return does_not(inputs)


FAILED_CAPTURE = f"""
import sys
sys.path.append({str(ROOT)!r})
import torch
from tests.gpu.test_benchmarks import *

batches = [random_inputs(CASE, torch.device("cuda"))]
stopwatches = Stopwatches(torch.device("cuda"))
watches = stopwatches.make({{"one": does_not, "fails": fails_in_a_capture, "other": does_not}}, batches)
assert stopwatches.failed_captures == {{"fails": "not while capturing"}}
others = GraphReplay if stopwatches.can_capture else DeviceClock
assert [type(watches[name]) for name in ("one", "fails", "other")] == [others, DeviceClock, others]
(later,) = stopwatches.make({{"later": does_not}}, batches).values()
assert type(later) is others
for watch in (*watches.values(), later):
    assert watch.lap() > 0
print("can capture:", stopwatches.can_capture)
"""


def test_no_two_clocks_after_a_failed_capture(device):
    """If torch can capture again, all but that call are replays; if it cannot, none is. In a process of its own."""
    done = subprocess.run([sys.executable, "-c", FAILED_CAPTURE], cwd="/", text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch("can capture: (True|False)\n", done.stdout)


def test_replays_last_and_begin_behind_a_busy_device(device, monkeypatch):
    monkeypatch.setattr(timing, "SHORTEST_REPLAY", 0.02)
    batches = [random_inputs(CASE, device)]
    watch = GraphReplay(does_not, batches)
    assert watch.repeats > 1
    asleep = []
    sleep = torch.cuda._sleep
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: asleep.append(cycles) or sleep(cycles))
    replays = []
    monkeypatch.setattr(watch.graph, "replay", lambda: replays.append(len(asleep)))
    watch.lap()
    assert replays == [1] * watch.repeats
    assert asleep == [watch.busy_cycles] and watch.busy_cycles > 0


@pytest.mark.parametrize("name", [OURS, OURS_IN_PLACE])
def test_what_ours_draw_is_frozen_like_the_draws_of_peers(device, name):
    """Unless they draw in the graph, as it says of them."""
    found, _ = all_implementations(device, with_compiled=False)
    inputs = random_inputs(CASE, device)
    coded = inputs._replace(images=torch.arange(4.0, device=device).reshape(4, 1, 1, 1).expand(4, 3, 16, 16).clone())
    for wanted, frozen in ((name, True), (name + SEEDED_IN_GRAPH, False)):
        (one,) = (each for each in found if each.name == wanted)
        call = one.prepare(CASE)
        call(coded)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            mixed, _ = call(coded)
        seen = set()
        for _ in range(6):
            coded.images.copy_(torch.arange(4.0, device=device).reshape(4, 1, 1, 1).expand(4, 3, 16, 16))
            graph.replay()
            seen.add(mixed.cpu().numpy().tobytes())
        assert (len(seen) == 1) == frozen


@pytest.mark.parametrize("size", [8, 64])
def test_batches_rotate_past_the_cache(device, size):
    case = Case(batch=4, size=size, classes=3)
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    count = len(rotation(case, device))
    assert count == MOST_ROTATED or count * MEAN_BOX_SHARE * case.image_bytes >= 4 * cache
    assert len({batch.images.data_ptr() for batch in rotation(case, device)}) == count
