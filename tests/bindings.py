"""The C++ headers as functions on numpy arrays: tests/cpp/bindings.cpp, compiled once for all processes of a run.

pybind11 has this one job. The package has no part of it, because what pybind11 makes serves one Python alone.
"""

from __future__ import annotations

import functools
import os
import runpy
import shlex
import subprocess
import sysconfig
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from shutil import which
from types import ModuleType

from .shared import made_once

ROOT = Path(__file__).resolve().parents[1]
CXX = shlex.split(os.environ.get("CXX", "c++"))

NEEDS = "pybind11 and a C++ compiler"  # which are both there where they are available
available = find_spec("pybind11") is not None and which(CXX[-1]) is not None


def _compile(path: Path) -> None:
    import pybind11

    folders = ROOT / "csrc", pybind11.get_include(), sysconfig.get_path("include")
    command = [
        *CXX,
        *runpy.run_path(str(ROOT / "setup.py"))["CXX_FLAGS"],
        "-O1",  # the same bits in half the time to compile, because nothing may be contracted or reordered
        *("-fPIC", "-shared"),
        *(f"-I{folder}" for folder in folders),
        str(ROOT / "tests" / "cpp" / "bindings.cpp"),
        *("-o", str(path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")


@functools.cache
def load() -> ModuleType:
    """The module. Raises RuntimeError with what the compiler said where it does not compile."""
    path = made_once("tests/cpp/bindings.cpp", ".so", _compile)
    loader = ExtensionFileLoader("bindings", str(path))
    spec = spec_from_loader("bindings", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module
