"""Files that take long to make, such as compiled kernels: the first process of a run of the tests to want one makes it,
and the others wait for it."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

folder: Path | None = None  # of all processes of this run of pytest; set by conftest.py


@functools.cache
def _own_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


def made_once(key: str, suffix: str, make: Callable[[Path], object]) -> Path:
    """The file that `make` wrote to the path it was given. `key` tells all that its contents depend on and that may
    change while tests run. Without a run of pytest each process makes its own."""
    name = hashlib.sha256(key.encode()).hexdigest() + suffix
    path = (folder or Path(_own_folder().name)) / name
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_name(f"unfinished-{name}")
            make(unfinished)
            unfinished.rename(path)
    return path
