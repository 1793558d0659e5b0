"""Runs on CPU tensors what a call of several patches a sample launches on a GPU, as execution.py does for mixing."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cutmix_cuda._ops import PatchSampling, new_painted

from .. import bindings
from ..ptx import Device, Kernel, Report
from ..ptx.toolchain import compile_cuda
from .execution import Memory, cuda_flags, dtype_name

# Whoever refers to the function that launches has every kernel.
PATCHES_SOURCE = '#include "cuda/patches_kernels.cuh"\n[[maybe_unused]] auto* const used = &cutmix::launch_patches;\n'
READ = ("images", "others", "labels", "other_labels", "masks", "weights", "seed", "quantiles")


class PatchesCall(NamedTuple):
    """A call of an op as its wrapper hands it on, with the outputs allocated."""

    batch: int
    height: int
    width: int
    arguments: dict[str, Any]  # of the op, by their names in its schema
    out: Any  # Tensor or None
    targets: Any
    rows: Tensor
    sources: Any

    @property
    def in_place(self) -> bool:
        return self.out is not None and self.out is self.get("images")

    @property
    def drawn(self) -> bool:
        return "patch_sampling" in self.arguments

    def get(self, name: str) -> Any:
        return self.arguments.get(name)


def patches_call(op: str, *arguments: Any) -> PatchesCall:
    """The call of an op with the arguments of its schema, of which fill may be left out."""
    schema = getattr(torch.ops.cutmix_cuda_reference, op).default._schema
    values = (*arguments, *(each.default_value for each in schema.arguments[len(arguments) :]))
    named = {argument.name: value for argument, value in zip(schema.arguments, values, strict=True)}
    images: Any = named.get("images")
    labels: Any = named.get("labels")
    if images is not None:
        batch, (height, width) = images.shape[0], images.shape[-2:]
    else:
        batch = labels.shape[0] if labels is not None else named["batch"]
        height, width = named["height"], named["width"]
    rows, sources = named.get("rows"), named.get("sources")
    if "patch_sampling" in named:
        patches = PatchSampling(*named["patch_sampling"]).patches
        rows = torch.empty(batch, patches, 8, dtype=torch.int32)
        sources = torch.empty(batch, patches, 4, dtype=torch.int32)
    assert rows is not None
    out = images if op.endswith("_") else named.get("out")
    if out is None and images is not None:
        out = new_painted(images, rows.shape[0])
    targets = None if labels is None else torch.empty(rows.shape[0], named["num_classes"], dtype=named["dtype"])
    return PatchesCall(batch, height, width, named, out, targets, rows, sources)


class PatchesMemory(Memory):
    """A device that holds every storage of a call once, at an address as aligned as its own."""

    def __init__(self, call: PatchesCall):
        self.device = Device()
        self.buffers = {}
        for name in READ:
            self._copy(name, call.get(name), writable=name == "images" and call.in_place)
        for name, tensor in (("rows", call.rows), ("sources", call.sources)):
            if call.drawn:
                self._empty(name, tensor)
            else:
                self._copy(name, tensor)
        self._empty("out", call.out)
        self._empty("targets", call.targets)


def patches_launch(call: PatchesCall, memory: PatchesMemory, seed_on_device: bool = False) -> dict[str, Any]:
    """What csrc/cuda/patches_cuda.cu launches for a call: kernel, grid, block and the parameters."""
    samples, patches, _ = call.rows.shape
    others = call.get("others") if call.get("others") is not None else call.get("other_labels")
    arguments: dict[str, Any] = {"samples": samples, "patches": patches, "batch": call.batch}
    arguments |= {"others": 0 if others is None else others.shape[0], "height": call.height, "width": call.width}
    arguments["rows"] = memory.address(call.rows)
    if call.sources is not None:
        arguments["sources"] = memory.address(call.sources)
    if call.drawn:
        arguments["draw"] = (
            memory.address(call.get("quantiles")),
            list(call.get("bounds")),
            list(call.get("patch_sampling")),
        )
        if seed_on_device:
            arguments["device_seed"] = memory.address(call.get("seed"))
        else:
            arguments["seed"] = call.get("seed").item() % (1 << 64)
    if call.get("masks") is not None:
        masks = call.get("masks")
        sizes = [len(masks), 1, *masks.shape[1:]] if masks.dim() == 3 else list(masks.shape)
        arguments["masks"] = memory.address(masks), sizes, masks.dtype == torch.float32
    if call.get("weights") is not None:
        arguments["weights"] = memory.address(call.get("weights"))
    if call.out is not None and call.out.numel() > 0:
        images = call.get("images")
        for name, tensor in (("images", images), ("out", call.out), ("other_images", call.get("others"))):
            if tensor is not None:
                arguments[name] = memory.address(tensor), list(tensor.shape), list(tensor.stride())
        arguments |= {"element_bytes": images.element_size(), "dtype": dtype_name(images)}
        arguments["in_place"] = call.in_place
        arguments["fill"] = tuple(call.get("fill"))
    if call.targets is not None and call.targets.numel() > 0:
        for name, tensor in (("labels", call.get("labels")), ("targets", call.targets)):
            arguments[name] = memory.address(tensor), dtype_name(tensor)
        if call.get("other_labels") is not None:
            arguments["other_labels"] = memory.address(call.get("other_labels"))
        arguments |= {"num_classes": call.targets.shape[1], "label_smoothing": call.get("label_smoothing")}
    return bindings.load().patch_geometry(**arguments)


@functools.cache
def patches_kernel(name: str, architecture: int) -> Kernel:
    """A kernel by its name in C++: paint_patches<ElementBF16,16>."""
    match = re.fullmatch(r"(\w+)<(\w+),(\d+)>", name)
    assert match is not None
    base, element, width = match.groups()
    mangled = f"_ZN6cutmix{len(base)}{base}INS_{len(element)}{element}ELi{width}EEEvNS_11PatchParamsE"
    return compile_cuda(PATCHES_SOURCE, architecture, cuda_flags())[mangled]


@dataclass
class Painted:
    """What a launch left behind."""

    out: Any  # Tensor or None
    targets: Any
    rows: Tensor
    sources: Any
    launch: Any
    report: Report
    memory: Any


def execute_patches(call: PatchesCall, architecture: int = 80, seed_on_device: bool = False) -> Painted:
    """Runs the one launch of a call. Raises `Fault` at the first wrong act."""
    memory = PatchesMemory(call)
    launch = patches_launch(call, memory, seed_on_device)
    assert launch["fits"]
    kernel = patches_kernel(launch["kernel"], architecture)
    report = memory.device.launch(kernel, launch["grid"], launch["block"], [launch["params"]])
    fetched = (None if each is None else memory.fetch(each) for each in (call.out, call.targets, call.sources))
    out, targets, sources = fetched
    return Painted(out, targets, memory.fetch(call.rows), sources, launch, report, memory)
