"""Processes that train together, by gloo: with a sure end, and with what they were at where they are late."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS = 2
SECONDS = 120  # to meet; twice that for everything, imports included, for they share the cores with other tests

needs_gloo = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="this torch has no gloo"
)


def run_on_ranks(function: Callable[..., None], folder: str) -> None:
    """Runs function(rank, folder) in RANKS new processes, a group that meets in the folder. Raises what they do.

    One that is late writes the stacks of its threads to stderr and ends, and with it the others.
    """
    end = time.monotonic() + 2 * SECONDS
    processes = mp.spawn(_run, (function, folder), nprocs=RANKS, join=False, daemon=True)
    while not processes.join(timeout=max(end - time.monotonic(), 0)):
        if time.monotonic() >= end:
            for process in processes.processes:
                process.kill()
            pytest.fail(f"the processes did not end within {2 * SECONDS} seconds")


def _run(rank: int, function: Callable[..., None], folder: str) -> None:
    faulthandler.dump_traceback_later(1.5 * SECONDS, exit=True)
    torch.set_num_threads(1)  # of the few cores that the processes share
    meeting, most = f"file://{folder}/meeting", timedelta(seconds=SECONDS)
    dist.init_process_group("gloo", init_method=meeting, timeout=most, rank=rank, world_size=RANKS)
    function(rank, folder)
    dist.destroy_process_group()
    faulthandler.cancel_dump_traceback_later()
