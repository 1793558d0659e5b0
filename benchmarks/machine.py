"""Where and with what something was measured."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "torchvision", "timm", "kornia", "triton", "numpy")


# By itself glibc hands every freed block of a batch's size back to the system, or not, as the history of the process
# has it, and then each page of the next one is faulted in and zeroed: two to five times the work of a copy, for whoever
# is unlucky. A heap that keeps what was freed, as tcmalloc and jemalloc do, treats all implementations alike.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


def keep_freed_memory() -> None:
    """Starts this process again with an allocator that keeps freed memory, unless it has one."""
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | ALLOCATOR)


def _processor() -> str:
    """The name of the processor, and how many cores there are of it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit that is checked out, with a plus where files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", "-C", ROOT, *arguments), capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe(device: torch.device) -> dict:
    """Processor, threads, versions, commit and date (UTC)."""
    on_gpu = device.type == "cuda"
    return {
        "processor": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "host": _processor(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "allocator": {name: os.environ.get(name, "default") for name in ALLOCATOR},
        "versions": _versions(),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def parse_no_arguments(arguments: Sequence[str], description: str | None) -> None:
    """The command line of a command that takes none but --help."""
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=description, formatter_class=formatter).parse_args(arguments)
