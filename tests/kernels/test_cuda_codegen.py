"""What nvcc makes of the CUDA kernels: registers, memory accesses, calls and roundings, read off the machine code."""

from __future__ import annotations

import re
from functools import cache

import pytest

from .execution import cuda_kernel, needs_cuda
from .machine_code import INSTRUCTION_BYTES, MachineKernel, bits_of, machine_kernels, tools

pytestmark = [
    needs_cuda,
    pytest.mark.skipif(tools() is None, reason="cuobjdump was not found in Triton's wheel"),
]

WIDTHS = (16, 8, 4, 2, 1)
KERNELS = ["mix_no_pixels", *(f"{name}<{width}>" for name in ("mix_out_of_place", "mix_in_place") for width in WIDTHS)]

ROW_FIELDS = 6  # box, lambda, kind

every_architecture = pytest.mark.parametrize("architecture", [80, 90, 100])
every_kernel = pytest.mark.parametrize("name", KERNELS)


@every_architecture
def test_every_kernel_is_there(architecture):
    kernels = machine_kernels(architecture)
    assert sorted(kernels) == sorted(KERNELS)
    assert all(kernel.matching("EXIT") for kernel in kernels.values())


@every_architecture
@every_kernel
def test_registers_and_memory(architecture, name):
    """No spill, stack, shared memory or barrier, and what lanes tell each other is the rows of a pair. 32 registers
    fill a multiprocessor; mix_kernels.cuh says why vectors of 16 bytes get more."""
    kernel = machine_kernels(architecture)[name]
    used = kernel.resources
    assert (used["STACK"], used["LOCAL"], used["SHARED"]) == (0, 0, 0)
    assert not kernel.matching("LDL", "STL", "LDS", "STS", "BAR", "ATOM", "RED")
    assert len(kernel.matching("SHFL")) <= (2 * ROW_FIELDS if "in_place" in name else 0)
    if "in_place" in name:
        assert used["REG"] <= (48 if name == "mix_in_place<16>" and architecture != 100 else 64)
    else:
        assert used["REG"] <= (40 if name == "mix_out_of_place<16>" else 32)


@every_architecture
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["mix_out_of_place", "mix_in_place"])
def test_hot_loops_move_whole_vectors(architecture, name, width):
    """The loop over pixels has no narrower access."""
    kernel = machine_kernels(architecture)[f"{name}<{width}>"]
    loop = kernel.pixel_loop()
    loads, stores = ([bits_of(each) for each in loop if each.opcode.startswith(op)] for op in ("LDG", "STG"))
    assert set(loads) == set(stores) == {8 * width}


@every_architecture
def test_loads_are_under_way_together(architecture):
    """Memory takes as long for several as for one. Of both samples four columns of soft labels a lane; and two rows of
    pixels, out of place on an edge of the box."""
    kernels = machine_kernels(architecture)
    for bits in (16, 32, 64):
        assert kernels["mix_no_pixels"].loads_under_way(bits) == 2 * 4
    assert not [
        loop for loop in kernels["mix_no_pixels"].loops() if any(each.opcode.startswith("LDG") for each in loop)
    ]
    for name in ("mix_out_of_place<16>", "mix_in_place<16>"):
        assert kernels[name].loads_under_way(128) >= 2 * 2


@every_architecture
@every_kernel
def test_calls_are_of_slow_paths_alone(architecture, name):
    """Those of exact square roots and divisions of float32; a 64-bit division would be another. For sm_80 the compiler
    also ends a thread by a call that leads to an EXIT, or to where threads meet before one."""
    kernel = machine_kernels(architecture)[name]
    ends = {each.address for each in kernel.matching("EXIT")}
    ends |= {each.address for each in kernel.matching("BSYNC") if each.address + INSTRUCTION_BYTES in ends}
    callees = {label for _, label in kernel.targets("CALL") if kernel.labels[label] not in ends}
    assert len(kernel.targets("CALL")) == len(kernel.matching("CALL", "JCAL")), "an indirect call"
    assert callees
    assert all(re.search(r"__cuda_sm\w+_(sqrt_rn_f32|div_rn_noftz_f32)_slowpath$", callee) for callee in callees)


def divisions_and_roots(name: str, architecture: int) -> tuple[int, int]:
    """How many of each there are in a kernel's PTX."""
    opcodes = [each.opcode for each in cuda_kernel(name, architecture).body]
    return opcodes.count("div.rn.f32"), opcodes.count("sqrt.rn.f32")


@cache
def probes(architecture: int) -> dict[tuple[int, int], MachineKernel]:
    """Kernels of divisions and square roots, and of nothing else, as many as a kernel of ours has; by their numbers."""
    numbers = {divisions_and_roots(name, architecture) for name in KERNELS}
    source = ""
    for divisions, roots in numbers:
        lines = [f"x[{k}] = __fdiv_rn(x[{k}], y[{k}]);" for k in range(divisions)]
        lines += [f"y[{k}] = __fsqrt_rn(y[{k}]);" for k in range(divisions, divisions + roots)]
        head = f'extern "C" __global__ void probe_{divisions}_{roots}(volatile float* x, volatile float* y)'
        source += f"{head} {{ {' '.join(lines)} }}\n"
    kernels = machine_kernels(architecture, source)
    return {(divisions, roots): kernels[f"probe_{divisions}_{roots}"] for divisions, roots in numbers}


@every_architecture
@every_kernel
def test_no_product_is_fused_with_a_sum(architecture, name):
    """None in PTX; and in machine code no more than the expansions of as many square roots and divisions have."""
    opcodes = [each.opcode for each in cuda_kernel(name, architecture).body]
    assert not [each for each in opcodes if re.match(r"fma|.*\.(approx|ftz|full)", each)]
    contracted = [each for each in opcodes if re.match(r"(add|sub|mul)\.f(32|64)", each)]
    assert not contracted, "without .rn, ptxas may fuse them"
    numbers = divisions_and_roots(name, architecture)
    assert all(number > 0 for number in numbers)

    kernel = machine_kernels(architecture)[name]
    probe = probes(architecture)[numbers]
    assert 0 < len(kernel.matching("FFMA")) <= len(probe.matching("FFMA"))
    assert not kernel.matching("DFMA")
