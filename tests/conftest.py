"""Settings and fixtures of all tests."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest
import torch

from . import shared

# Behind the installed package, which the sources would hide: the tests of the benchmarks import those.
sys.path.append(str(Path(__file__).resolve().parents[1]))

# Under pytest-xdist each process, and whatever it runs, keeps to its share of the cores.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = max(1, len(os.sched_getaffinity(0)) // int(workers))
    torch.set_num_threads(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


_in_worker = False  # of pytest-xdist; a run that a test starts in one inherits its environment


def pytest_configure(config: pytest.Config) -> None:
    global _in_worker
    _in_worker = hasattr(config, "workerinput")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The garbage collector would go through ten thousand tests again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked as long come first, lest one of them be all that still runs, in one process, at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """What was imported and collected stays, and is none of the garbage collector's business."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Nor is what a file's tests leave in caches, kernels that were compiled above all."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Adds a line of JSON for each test that ended to the file CUTMIX_CUDA_TEST_LINES: a run may be killed later."""
    lines = os.environ.get("CUTMIX_CUDA_TEST_LINES")
    ended = report.when not in ("setup", "teardown") or report.failed or (report.when == "setup" and report.skipped)
    if lines is None or not ended or _in_worker:
        return
    why = ""
    if report.skipped and isinstance(report.longrepr, tuple | list):
        why = report.longrepr[2].removeprefix("Skipped: ")
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        why = str(crash.message if crash else report.longrepr).strip().partition("\n")[0]
    line = {"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration, "why": why}
    with open(lines, "a") as file:
        file.write(json.dumps(line) + "\n")


# On CI the same examples at every run; elsewhere new ones.
hypothesis.settings.register_profile("cutmix", deadline=None, print_blob=True, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("cutmix")


@pytest.fixture(scope="session", autouse=True)
def shared_folder(tmp_path_factory):
    """Under pytest-xdist each process has a temporary folder of its own, in one of the run's."""
    folder = tmp_path_factory.getbasetemp()
    shared.folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture
def poisoned_memory():
    """torch fills memory that was not initialised with NaN, or the greatest integer, instead of whatever was there."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(before)
