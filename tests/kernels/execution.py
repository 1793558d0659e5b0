"""Runs on CPU tensors what a call launches on a GPU: the compiled PTX of a CUDA or Triton kernel, in tests/ptx.

Grid, block, kernel and parameters are those that the package itself would launch: ``bindings.launch_geometry`` says
them for CUDA, ``triton_kernels.launch.mix_launch`` for Triton. Here stands only what the wrappers around them do:
allocate the outputs and hand over addresses.
"""

from __future__ import annotations

import functools
import importlib.util
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from cutmix_cuda._ops import KINDS, PLAN_COLUMNS, QUANTILE_INTERVALS, Draw, Kind, Partner, Sampling
from cutmix_cuda.reference import has_box, has_partner, reads_own

from .. import bindings
from ..ptx import Buffer, Device, Kernel, Module, Report, parse
from ..ptx.machine import WARP
from ..ptx.toolchain import compile_cuda, nvcc

ROOT = Path(__file__).resolve().parents[2]
MAX_INT32 = 2**31 - 1
VECTOR = 16  # bytes
POISON = 0xA5  # what Device.empty fills memory with


def _importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


# ---- Calls


class Call(NamedTuple):
    """A call of an op as its wrapper hands it on, with the outputs allocated; None is what it has not."""

    sizes: tuple[int, int, int]  # batch, height, width
    images: Any  # Tensor or None, as what follows
    out: Any  # the images themselves in place
    labels: Any
    targets: Any
    label_smoothing: float
    plan: Tensor  # given, or to be drawn
    draw: Draw | None
    fill: tuple[int, int]  # what cutout fills with: 16 bytes, an element of the images over and over

    @property
    def in_place(self) -> bool:
        return self.images is not None and self.out is self.images


def bounds_of(kind: Kind) -> tuple[float, ...]:
    """The bounds that draw one kind for every sample."""
    return tuple(float(kind != Kind.keep and kind <= each) for each in range(1, KINDS + 1))


def fill_of(value: float, dtype: torch.dtype) -> tuple[int, int]:
    """The fill of a value of the images' dtype."""
    low, high = torch.full((VECTOR // dtype.itemsize,), value, dtype=dtype).view(torch.int64).tolist()
    return low, high


def call_of(op: str, *arguments: Any) -> Call:
    """The call of an op of cutmix_cuda/_ops.py with the arguments of its schema, of which fill may be left out."""
    schema = getattr(torch.ops.cutmix_cuda_reference, op).default._schema
    values = (*arguments, *(each.default_value for each in schema.arguments[len(arguments) :]))
    named = {argument.name: value for argument, value in zip(schema.arguments, values, strict=True)}
    images, labels, plan = (named.get(name) for name in ("images", "labels", "plan"))
    if images is not None:
        sizes = images.shape[0], *images.shape[-2:]
    elif plan is not None:
        sizes = plan.shape[0], MAX_INT32, MAX_INT32
    else:
        sizes = named["batch"], named["height"], named["width"]
    out = named["out"] if "out" in named else images if op.endswith("_") or images is None else torch.empty_like(images)
    return Call(
        sizes=sizes,
        images=images,
        out=out,
        labels=labels,
        targets=torch.empty(sizes[0], named["num_classes"], dtype=named["dtype"]) if labels is not None else None,
        label_smoothing=named.get("label_smoothing", 0.0),
        plan=torch.empty(sizes[0], PLAN_COLUMNS, dtype=torch.int32) if plan is None else plan,
        draw=None if plan is not None else Draw(*(named[name] for name in Draw._fields)),
        fill=tuple(named.get("fill", (0, 0))),
    )


class Memory:
    """A device that holds every storage of a call once, at an address as aligned as its own."""

    def __init__(self, call: Call):
        self.device = Device()
        self.buffers: dict[int, Buffer] = {}  # by the address of the storage here
        self._copy("images", call.images, writable=call.in_place)
        self._empty("out", call.out)
        self._copy("labels", call.labels)
        self._empty("targets", call.targets)
        if call.draw is None:
            self._copy("plan", call.plan)
        else:
            self._empty("plan", call.plan)
            self._copy("seed", call.draw.seed)
            self._copy("quantiles", call.draw.quantiles)

    def _new(self, tensor: Any) -> bool:
        return tensor is not None and tensor.numel() > 0 and tensor.untyped_storage().data_ptr() not in self.buffers

    def _copy(self, name: str, tensor: Any, writable: bool = False) -> None:
        if self._new(tensor):
            contents, base = _bytes(tensor), tensor.untyped_storage().data_ptr()
            self.buffers[base] = self.device.buffer(name, contents.numpy(), writable, misalignment=base % 16)

    def _empty(self, name: str, tensor: Any) -> None:
        if self._new(tensor):
            size, base = tensor.untyped_storage().nbytes(), tensor.untyped_storage().data_ptr()
            self.buffers[base] = self.device.empty(name, size, np.uint8, misalignment=base % 16)

    def buffer(self, tensor: Tensor) -> Buffer:
        return self.buffers[tensor.untyped_storage().data_ptr()]

    def address(self, tensor: Any) -> int:
        """Of a tensor's first element on the device; 0 where there is none. Also of what triton.reinterpret returns."""
        storage = getattr(tensor, "base", None)
        storage = (tensor if storage is None else storage).untyped_storage().data_ptr()
        return self.buffers[storage].address + tensor.data_ptr() - storage if storage in self.buffers else 0

    def fetch(self, tensor: Tensor) -> Tensor:
        """The tensor as it is on the device, with whatever its storage holds around it."""
        if tensor.numel() == 0:
            return tensor.clone()
        storage = torch.from_numpy(self.buffer(tensor).numpy())
        contents = torch.empty(0, dtype=tensor.dtype).set_(storage.untyped_storage())
        return contents.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _bytes(tensor: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


# ---- CUDA


# Whoever refers to the function that launches has every kernel.
CUDA_SOURCE = '#include "cuda/mix_kernels.cuh"\n[[maybe_unused]] auto* const used = &cutmix::launch_mix;\n'


@functools.cache
def cuda_flags() -> tuple[str, ...]:
    """What setup.py hands to nvcc for every file, and where it finds the sources."""
    return *runpy.run_path(str(ROOT / "setup.py"))["NVCC_FLAGS"], f"-I{ROOT / 'csrc'}"


def cuda_module(architecture: int) -> Module:
    """mix_kernels.cuh as PTX."""
    return compile_cuda(CUDA_SOURCE, architecture, cuda_flags())


def cuda_kernel(name: str, architecture: int) -> Kernel:
    """A kernel by its name in C++: mix_no_pixels, mix_in_place<16>."""
    base, _, width = name.rstrip(">").partition("<")
    mangled = f"_ZN6cutmix{len(base)}{base}{f'ILi{width}EEEv' if width else 'E'}NS_12KernelParamsE"
    return cuda_module(architecture)[mangled]


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def cuda_launch(call: Call, memory: Memory, seed_on_device: bool = False) -> dict[str, Any]:
    """What csrc/cuda/mix_cuda.cu launches for a call: kernel, grid, block and the bytes of the parameters."""
    batch, height, width = call.sizes
    arguments: dict[str, Any] = {"batch": batch, "height": height, "width": width, "plan": memory.address(call.plan)}
    if call.draw is not None:
        seed, quantiles, bounds, sampling = call.draw
        arguments["draw"] = memory.address(quantiles), bounds, sampling
        if seed_on_device:
            arguments["device_seed"] = memory.address(seed)
        else:
            arguments["seed"] = seed.item() % (1 << 64)
    if call.images is not None and call.images.numel() > 0:
        for name, tensor in (("images", call.images), ("out", call.out)):
            arguments[name] = memory.address(tensor), tensor.shape, tensor.stride()
        arguments |= {"element_bytes": call.images.element_size(), "in_place": call.in_place}
        arguments |= {"dtype": dtype_name(call.images), "fill": call.fill}
    if call.labels is not None and call.targets.numel() > 0:
        for name, tensor in (("labels", call.labels), ("targets", call.targets)):
            arguments[name] = memory.address(tensor), dtype_name(tensor)
        arguments |= {"num_classes": call.targets.shape[1], "label_smoothing": call.label_smoothing}
    return bindings.load().launch_geometry(**arguments)


def _run_cuda(call: Call, memory: Memory, architecture: int, seed_on_device: bool) -> tuple[Any, Report]:
    launch = cuda_launch(call, memory, seed_on_device)
    kernel = cuda_kernel(launch["kernel"], architecture)
    return launch, memory.device.launch(kernel, launch["grid"], launch["block"], [launch["params"]])


# ---- Triton


def triton_launch(call: Call, seed_on_device: bool = False):
    """What triton_kernels launches for a call."""
    from cutmix_cuda.triton_kernels.launch import Labels, Pixels, mix_launch
    from cutmix_cuda.triton_kernels.rows import rows_of

    draw, pixels, targets = call.draw, None, None
    if draw is not None and seed_on_device:  # on any device but the CPU; of the tensor it takes the address alone
        draw = draw._replace(seed=draw.seed.to("meta"))
    if call.images is not None and call.images.numel() > 0:
        pixels = Pixels(call.images, call.out, rows_of(call.images), rows_of(call.out))
    if call.labels is not None and call.targets.numel() > 0:
        targets = Labels(call.labels, call.targets, call.label_smoothing)
    dtype = call.images.dtype if call.images is not None else torch.float32
    return mix_launch(
        *call.sizes, call.plan, draw, pixels, targets, in_place=call.in_place, dtype=dtype, fill=call.fill
    )


def run_triton(
    launch: Any, device: Device, address: Callable[[Any], int], architecture: int, blocks: range | None = None
) -> Report:
    """Runs a launch, or some blocks of it, with its tensors at the addresses that `address` gives them."""
    from .triton_compile import compiled

    compiled_kernel = compiled(launch, architecture)
    kernel = parsed(compiled_kernel.asm["ptx"])[compiled_kernel.metadata.name]
    arguments: list[int | float] = []
    for argument in launch.arguments:
        if isinstance(argument, tuple):
            arguments.extend(argument)
        elif isinstance(argument, int | float):
            arguments.append(argument)
        elif argument is not None:  # which is a constant, as far as Triton is concerned
            arguments.append(address(argument))
    scratch = [0] * (len(kernel.parameters) - len(arguments))  # Triton's own, which this kernel does not use
    threads = compiled_kernel.metadata.num_warps * WARP
    shared = compiled_kernel.metadata.shared
    return device.launch(kernel, launch.grid, threads, [*arguments, *scratch], shared, blocks)


def _run_triton(call: Call, memory: Memory, architecture: int, seed_on_device: bool) -> tuple[Any, Report]:
    launch = triton_launch(call, seed_on_device)

    def address(tensor: Any) -> int:
        is_seed = isinstance(tensor, Tensor) and tensor.is_meta
        return memory.address(call.draw.seed if is_seed and call.draw is not None else tensor)

    return launch, run_triton(launch, memory.device, address, architecture)


parsed = functools.lru_cache(maxsize=16)(parse)  # what some tests in a row run; all would be gigabytes

# ---- Both

_RUN = {"cuda": _run_cuda, "triton": _run_triton}


# def test_x(kind): runs once for CUDA and once for Triton, as far as this machine can compile them.
needs_cuda = pytest.mark.skipif(
    nvcc() is None or not bindings.available,
    reason=f"{bindings.NEEDS}, and nvcc in CUDA_HOME, on the PATH or in /usr/local/cuda, are not all there",
)
needs_triton = pytest.mark.skipif(not _importable("triton"), reason="triton is not installed")
every_kind = pytest.mark.parametrize(
    "kind", [pytest.param("cuda", marks=needs_cuda), pytest.param("triton", marks=needs_triton)]
)


@dataclass
class Executed:
    """What a launch left behind. Tensors have the strides, and the surroundings in memory, of those of the call."""

    out: Any  # Tensor or None
    targets: Any
    plan: Tensor
    launch: Any  # what cuda_launch or triton_launch returned
    report: Report
    memory: Memory


def execute(kind: str, call: Call, architecture: int = 80, seed_on_device: bool = False) -> Executed:
    """Runs the one launch of a call; `kind` is "cuda" or "triton". Raises `Fault` at the first wrong act."""
    memory = Memory(call)
    launch, report = _RUN[kind](call, memory, architecture, seed_on_device)
    out, targets = (tensor if tensor is None else memory.fetch(tensor) for tensor in (call.out, call.targets))
    return Executed(out, targets, memory.fetch(call.plan), launch, report, memory)


# ---- Costs

SECTOR = 32
UNIFORM = (torch.arange(QUANTILE_INTERVALS + 1) / QUANTILE_INTERVALS).repeat(KINDS, 1)  # alpha = 1, for every kind


def training_call(
    op: str,
    dtype: torch.dtype,
    channels_last: bool,
    batch: int = 64,
    seed: int = 20190513,
    kind: Kind = Kind.cutmix,
) -> Call:
    """A fused call of a training run: 224 x 224, 1000 classes, random pairs, a uniform lambda for each sample.

    All samples are of one kind.
    """
    images = torch.zeros(batch, 3, 224, 224, dtype=dtype)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    draw = torch.tensor([seed]), UNIFORM, bounds_of(kind), Sampling(0, Partner.mirror.value, 0, 1)
    return call_of(op, images, torch.zeros(batch, dtype=torch.int64), *draw, 1000, 0.1, torch.float32)


def image_sectors(call: Call, plan: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Which 32-byte sectors of the images a plan has to read and, in place, to write: bool, of the whole storage."""
    assert call.images is not None
    read = torch.full(call.sizes, not call.in_place)
    changed = torch.zeros(call.sizes, dtype=torch.bool)
    for sample, (_, y0, x0, y1, x1, _, kind, _) in enumerate(plan.tolist()):
        region = (sample, slice(y0, y1), slice(x0, x1)) if has_box(kind) else (sample,)
        if kind != Kind.keep:
            read[region] = reads_own(kind)
            changed[region] = True
    for sample, (partner, *_, kind, _) in enumerate(plan.tolist()):
        if has_partner(kind):
            read[partner] |= changed[sample]

    def sectors(pixels: Tensor) -> np.ndarray:
        element_bytes = call.images.element_size()
        marked = torch.zeros(call.images.untyped_storage().nbytes() // element_bytes, dtype=torch.bool)
        view = marked.as_strided(call.images.shape, call.images.stride(), call.images.storage_offset())
        view.copy_(pixels.reshape(call.sizes[0], *[1] * (call.images.dim() - 3), *call.sizes[1:]))
        return np.logical_or.reduceat(marked.numpy(), np.arange(0, len(marked), SECTOR // element_bytes))

    return sectors(read), sectors(changed)


def box_edges(call: Call, plan: Tensor) -> int:
    """Rows of memory that an edge of a box crosses, each edge on its own."""
    assert call.images is not None
    channels = 1 if call.images.stride(-1) != 1 else call.images.shape[1:-2].numel()
    return sum(2 * channels * (y1 - y0) for _, y0, x0, y1, x1, *_ in plan.tolist() if x0 < x1)


def vectors_written(call: Call, report: Report) -> float:
    """The 16 bytes times 32 lanes that a launch writes to the images: what warp instructions are counted against."""
    return report.buffers["images" if call.in_place else "out"].bytes_written / (VECTOR * WARP)
