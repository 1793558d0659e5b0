"""Runs on CPU tensors what a call of apply_adjoint_out launches on a GPU, as execution.py does for mixing."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import bindings
from ..ptx import Device, Kernel, Report
from ..ptx.machine import WARP
from ..ptx.toolchain import compile_cuda
from .execution import Memory, cuda_flags, dtype_name, run_triton

# Whoever refers to the function that launches has every kernel.
ADJOINT_SOURCE = '#include "cuda/adjoint_kernels.cuh"\n[[maybe_unused]] auto* const used = &cutmix::launch_adjoint;\n'


class AdjointMemory(Memory):
    """A device that holds the tensors of a call, and the lists of takers, which nobody has written yet."""

    def __init__(self, gradients: Tensor, plan: Tensor, out: Tensor):
        self.device = Device()
        self.buffers = {}
        self.links = torch.empty(plan.shape[0], 2, dtype=torch.int32)
        self._copy("gradients", gradients)
        self._copy("plan", plan)
        self._empty("links", self.links)
        self._empty("out", out)


@functools.cache
def adjoint_kernel(name: str, architecture: int) -> Kernel:
    """A kernel by its name in C++: link_takers, sum_takers<ElementF16,16>."""
    match = re.fullmatch(r"(\w+?)(?:<(\w+),(\d+)>)?", name)
    assert match is not None
    base, element, width = match.groups()
    values = f"INS_{len(element)}{element}ELi{width}EEEv" if element else "E"
    mangled = f"_ZN6cutmix{len(base)}{base}{values}NS_13AdjointParamsE"
    return compile_cuda(ADJOINT_SOURCE, architecture, cuda_flags())[mangled]


def adjoint_launch(gradients: Tensor, plan: Tensor, out: Tensor, memory: Memory, links: Tensor) -> dict[str, Any]:
    """What csrc/cuda/adjoint_cuda.cu launches: the grids, the block of the sums and the parameters of both."""
    return bindings.load().adjoint_geometry(
        plan=memory.address(plan),
        links=memory.address(links),
        gradients=(memory.address(gradients), gradients.shape, gradients.stride()),
        out=(memory.address(out), out.shape, out.stride()),
        element_bytes=gradients.element_size(),
        dtype=dtype_name(gradients),
    )


def _run_cuda(memory: AdjointMemory, gradients: Tensor, plan: Tensor, out: Tensor, architecture: int) -> list[Report]:
    launch = adjoint_launch(gradients, plan, out, memory, memory.links)
    link, add = (adjoint_kernel(name, architecture) for name in ("link_takers", launch["kernel"]))
    return [
        memory.device.launch(link, launch["link_grid"], WARP, [launch["params"]]),
        memory.device.launch(add, launch["grid"], launch["block"], [launch["params"]]),
    ]


def _run_triton(memory: AdjointMemory, gradients: Tensor, plan: Tensor, out: Tensor, architecture: int) -> list[Report]:
    from cutmix_cuda.triton_kernels.adjoint_ops import adjoint_launches

    launches = adjoint_launches(gradients, plan, out, memory.links)
    return [run_triton(launch, memory.device, memory.address, architecture) for launch in launches]


@dataclass
class Adjoint:
    """What a call left behind: the output, with its surroundings in memory, and a report of each launch."""

    out: Tensor
    links: Tensor
    linking: Report
    adding: Report
    memory: AdjointMemory


def execute_adjoint(kind: str, gradients: Tensor, plan: Tensor, out: Tensor, architecture: int = 80) -> Adjoint:
    """Runs the two launches of a call; `kind` is "cuda" or "triton". Raises `Fault` at the first wrong act."""
    memory = AdjointMemory(gradients, plan, out)
    run = _run_cuda if kind == "cuda" else _run_triton
    linking, adding = run(memory, gradients, plan, out, architecture)
    return Adjoint(memory.fetch(out), memory.fetch(memory.links), linking, adding, memory)
