"""Compiles what a launch of the Triton kernel would run on a GPU, and runs it, on a machine that has none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from cutmix_cuda.triton_kernels.launch import Launch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel, make_backend
from triton.compiler import compile as compile_source
from triton.runtime.jit import JITFunction, create_function_from_signature

from ..ptx.machine import WARP, Buffer, Device
from ..ptx.report import Report
from .execution import parsed

_compiled: dict[tuple[str, int], CompiledKernel] = {}


@cache
def _binder(kernel: JITFunction, architecture: int):
    backend = make_backend(GPUTarget("cuda", architecture, WARP))
    return backend, create_function_from_signature(kernel.signature, kernel.params, backend)


def _specialized(launch: Launch, architecture: int):
    """What `kernel[grid](*arguments, **options)` would look up, in the steps of JITFunction.run."""
    backend, bind = _binder(launch.kernel, architecture)
    bound, specialization, options = bind(*launch.arguments, **launch.options)
    packed = launch.kernel._pack_args(backend, dict(launch.options), bound, specialization, options)
    return str((specialization, options)), packed


def kernels_of(launches: Sequence[Launch]) -> int:
    """How many kernels Triton would compile for launches, which has to be what they say themselves."""
    specializations = [_specialized(launch, 80)[0] for launch in launches]
    keys = [launch.compiled_for() for launch in launches]
    assert len(set(specializations)) == len(set(keys)) == len(set(zip(specializations, keys, strict=True)))
    return len(set(keys))


def compiled(launch: Launch, architecture: int) -> CompiledKernel:
    """The kernel as a GPU of this architecture would run it: ``asm["ptx"]``, ``asm["cubin"]`` and ``metadata``."""
    key, (options, signature, constants, attributes) = _specialized(launch, architecture)
    if (key, architecture) not in _compiled:
        source = ASTSource(launch.kernel, signature, constants, attributes)
        target = GPUTarget("cuda", architecture, WARP)
        _compiled[key, architecture] = compile_source(source, target=target, options=options.__dict__)
    return _compiled[key, architecture]


def execute(launch: Launch, architecture: int = 90, read_only: tuple[str, ...] = ()) -> Report:
    """Runs the compiled PTX of a launch on its CPU tensors, which it writes as a GPU would.

    Every storage is a buffer of the device, named after the first parameter that points into it.
    """
    kernel = compiled(launch, architecture)
    entry = parsed(kernel.asm["ptx"])[kernel.metadata.name]
    device = Device()
    buffers: dict[int, tuple[Buffer, Tensor]] = {}
    arguments: list[int | float] = []
    for parameter, argument in zip(launch.kernel.params, launch.arguments, strict=False):
        tensor = getattr(argument, "base", argument)
        if argument is None:
            continue  # a constant, as far as Triton is concerned
        if not isinstance(tensor, Tensor):
            arguments.extend(argument if isinstance(argument, tuple) else [argument])
            continue
        storage = tensor.untyped_storage()
        base = storage.data_ptr()
        if base not in buffers:
            contents = torch.empty(0, dtype=torch.uint8).set_(storage)
            buffer = device.buffer(
                parameter.name, contents.numpy(), parameter.name not in read_only, misalignment=base % 16
            )
            buffers[base] = buffer, contents
        arguments.append(buffers[base][0].address + tensor.data_ptr() - base)
    scratch = [0] * (len(entry.parameters) - len(arguments))  # Triton's own, which this kernel does not use
    threads = kernel.metadata.num_warps * WARP
    report = device.launch(entry, launch.grid, threads, [*arguments, *scratch], kernel.metadata.shared)
    for buffer, contents in buffers.values():
        if buffer.region.writable:
            contents.copy_(torch.from_numpy(np.array(buffer.numpy())))
    return report
