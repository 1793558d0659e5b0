"""PTX from the compilers: CUDA sources by nvcc, Triton functions by Triton itself. Neither needs a GPU."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..shared import made_once
from .machine import WARP, Buffer, Device
from .parse import Kernel, Module, parse
from .report import Report


@functools.cache
def nvcc() -> str | None:
    """The CUDA compiler: of CUDA_HOME, on the PATH, or in the usual place; None where there is none."""
    home = os.environ.get("CUDA_HOME")
    places = ([str(Path(home, "bin"))] if home else []) + [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(places))


def run_nvcc(*options: str, source: str, suffix: str, to: str) -> Path:
    """The file with suffix `to` that nvcc makes of a text, whose suffix says what it is: CUDA or PTX. Raises
    RuntimeError with what nvcc said."""
    compiler = nvcc()
    if compiler is None:
        raise RuntimeError("nvcc was not found")

    def make(path: Path) -> None:
        given = path.with_suffix(suffix)
        given.write_text(source)
        command = [compiler, *options, "-o", str(path), str(given)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")

    return made_once(repr((options, source)), to, make)


def cuda_ptx(source: str, architecture: int, flags: tuple[str, ...]) -> str:
    """The PTX of a CUDA source text, for `compute_<architecture>`, as text. A warning is an error."""
    options = "--ptx", "--Werror=all-warnings", f"-arch=compute_{architecture}", *flags
    return run_nvcc(*options, source=source, suffix=".cu", to=".ptx").read_text()


@functools.cache
def compile_cuda(source: str, architecture: int = 80, flags: tuple[str, ...] = ("-std=c++17",)) -> Module:
    """The PTX of a CUDA source text, for `compute_<architecture>`."""
    return parse(cuda_ptx(source, architecture, flags))


@dataclass
class TritonKernel:
    """A compiled Triton specialisation, with what its launcher would pass besides the arguments."""

    kernel: Kernel
    threads: int
    shared_bytes: int

    def launch(self, device: Device, grid: int | Sequence[int], args: Sequence[Buffer | int | np.generic]) -> Report:
        """`args` without the constants. Triton's own last parameters (scratch memory that such kernels do not ask
        for) are null."""
        scratch = [0] * (len(self.kernel.parameters) - len(args))
        return device.launch(self.kernel, grid, self.threads, [*args, *scratch], self.shared_bytes)


def compile_triton(
    function: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    architecture: int = 80,
    divisible_by_16: Sequence[str] = (),
    **options: Any,
) -> TritonKernel:
    """Compiles a `triton.jit` function as its launcher would.

    `signature` maps every argument to its type ("*fp32", "i32", ..., "constexpr"), `constants` the constexpr ones and
    those specialised to 1 to their values; `divisible_by_16` names the arguments that Triton would find so. `options`
    are those of a launch: num_warps, enable_fp_fusion, ...
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(signature)
    source = ASTSource(
        fn=function,
        signature=dict(signature),
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in divisible_by_16},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, WARP), options=options)
    kernel = parse(compiled.asm["ptx"])[compiled.metadata.name]
    return TritonKernel(kernel, compiled.metadata.num_warps * WARP, compiled.metadata.shared)
