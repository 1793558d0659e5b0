"""How this package was built: the record that the build left in it, and what its libraries say of themselves."""

from __future__ import annotations

import ctypes
import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent


class Record(NamedTuple):
    """What ``build.json`` says, which setup.py writes."""

    built: tuple[str, ...] = ()
    left_out: dict[str, str] = {}  # the reason of each part that was not built
    settings: dict[str, str] = {}


@cache
def record() -> Record | None:
    """What the build wrote down; None in a folder that no build has made."""
    try:
        return Record(**json.loads((FOLDER / "build.json").read_text()))
    except FileNotFoundError:
        return None


def is_source_folder() -> bool:
    """Whether Python imported the sources, as in a clone's root, instead of an installed package."""
    return record() is None and (FOLDER.parent / "csrc").is_dir()


def why_not_built(part: str) -> str:
    """Why there is no library of a part."""
    if is_source_folder():
        return f"{FOLDER} is a folder of sources and not the installed package; run Python elsewhere, or install first"
    found = record()
    return found.left_out.get(part, "it was, and is gone") if found else "the build left no record"


def library_info(library: str) -> dict[str, str]:
    """What a loaded library says of itself. Mirrors csrc/build_info.cpp."""
    try:
        text = ctypes.CDLL(str(FOLDER / f"{library}.so")).cutmix_cuda_build_info
    except (OSError, AttributeError):
        return {}
    text.restype = ctypes.c_char_p
    return dict(line.split(": ", 1) for line in text().decode().splitlines())


def cuda_version(number: int) -> str:
    """CUDA's number of a version as people write it: 13000 is 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def driver_obstacle(library: str) -> str | None:
    """Why the driver cannot run a CUDA library, or None. A driver serves its own CUDA major version and older ones."""
    built_with = int(library_info(library).get("CUDA", 0))
    served = driver_cuda()
    if served is None or built_with // 1000 <= served // 1000:
        return None
    return (
        f"{library}.so was built with CUDA {cuda_version(built_with)}, "
        f"and the driver serves CUDA {cuda_version(served)} at most"
    )


def driver_cuda() -> int | None:
    """The newest CUDA that the installed driver serves, 12080 for 12.8, or None. Initialises nothing, so that the
    process can still be forked."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else None


def device_obstacle(library: str, capability: tuple[int, int]) -> str | None:
    """Why a GPU of a compute capability cannot run a CUDA library, or None."""
    found = record()
    compiled = found.settings.get("GPU architectures", "") if found else ""
    if not compiled or any(runs_on(arch, capability) for arch in compiled.split()):
        return None
    return (
        f"{library}.so was compiled for {compiled}, and the GPU has compute capability {capability[0]}.{capability[1]}"
    )


def runs_on(arch: str, capability: tuple[int, int]) -> bool:
    """Whether a GPU of a compute capability runs what was compiled for "8.0", "9.0a" or "8.6+PTX".

    Machine code runs on its own major version, from its minor version on, and PTX on every later GPU too. Code for
    one GPU ("a") or one family ("f") is taken for that of its own compute capability alone.
    """
    match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", arch)
    if match is None:
        return False
    own = int(match[1]), int(match[2])
    if match[3]:
        return capability == own
    return capability >= own if match[4] else capability[0] == own[0] and capability >= own
