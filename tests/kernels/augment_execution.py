"""Runs on CPU tensors what a call of the batch tail launches on a GPU, as execution.py does for mixing."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cutmix_cuda._ops import COLOUR_ROWS, FEW_CHANNELS, PLAN_COLUMNS, QUADRUPLE, Draw, ViewChoices, new_images

from .. import bindings
from ..ptx import Device, Kernel, Module, Report
from ..ptx.toolchain import compile_cuda
from .execution import Memory, cuda_flags, dtype_name

# Whoever refers to the function that launches has every kernel.
AUGMENT_SOURCE = '#include "cuda/augment_kernels.cuh"\n[[maybe_unused]] auto* const used = &cutmix::launch_augment;\n'


class AugmentCall(NamedTuple):
    """A call of an op of the batch tail as its wrapper hands it on, with the outputs allocated."""

    sizes: tuple[int, int, int]  # batch, height, width
    arguments: dict[str, Any]  # of the op, by their names in its schema
    out: Any  # Tensor or None
    targets: Any
    plan: Any
    views: Tensor

    @property
    def drawn(self) -> bool:
        return "view_parameters" in self.arguments

    @property
    def coloured(self) -> bool:
        return bool(ViewChoices(*self.arguments["view_choices"]).coloured if self.drawn else self.arguments["coloured"])


def augment_call(op: str, *arguments: Any) -> AugmentCall:
    """The call of augment, apply_views (or their _out) or sample_views with the arguments of its schema."""
    schema = getattr(torch.ops.cutmix_cuda_reference, op).default._schema
    named = {argument.name: value for argument, value in zip(schema.arguments, arguments, strict=True)}
    images, labels = named.get("images"), named.get("labels")
    out = named.get("out")
    if images is None:
        sizes = named["batch"], named["height"], named["width"]
    else:
        sizes = images.shape[0], *images.shape[2:]
        if out is None:
            out = new_images(images, named["output_dtype"], named["memory_format"])
    choices = ViewChoices(*named.get("view_choices", ()))
    plan, views = named.get("plan"), named.get("views")
    if views is None:
        rows = 1 + choices.max_boxes + COLOUR_ROWS * choices.coloured
        views = torch.empty(sizes[0], rows, QUADRUPLE, dtype=torch.int32)
        plan = None if images is None else torch.empty(sizes[0], PLAN_COLUMNS, dtype=torch.int32)
    targets = None if labels is None else torch.empty(sizes[0], named["num_classes"], dtype=named["dtype"])
    return AugmentCall(sizes, named, out, targets, plan, views)


class AugmentMemory(Memory):
    """A device that holds every storage of a call once, at an address as aligned as its own."""

    def __init__(self, call: AugmentCall):
        self.device = Device()
        self.buffers = {}
        for name in ("images", "labels", "seed", "quantiles", "view_tables", "colours"):
            self._copy(name, call.arguments.get(name))
        if wide_constants(call) is not None:
            self._copy("constants", wide_constants(call))
        for name, tensor in (("plan", call.plan), ("views", call.views)):
            if call.drawn:
                self._empty(name, tensor)
            else:
                self._copy(name, tensor)
        self._empty("out", call.out)
        self._empty("targets", call.targets)


def wide_constants(call: AugmentCall) -> Any:
    """Constants that lie on the device, or None."""
    constants = call.arguments.get("constants")
    return None if constants is None or constants.shape[1] <= FEW_CHANNELS else constants


def augment_launch(call: AugmentCall, memory: AugmentMemory, seed_on_device: bool = False) -> dict[str, Any]:
    """What csrc/cuda/augment_cuda.cu launches for a call: kernel, grid, block, shared memory and the parameters."""
    batch, height, width = call.sizes
    named = call.arguments
    boxes = call.views.shape[1] - 1 - COLOUR_ROWS * call.coloured
    arguments: dict[str, Any] = {"batch": batch, "height": height, "width": width}
    arguments |= {"boxes": boxes, "coloured": call.coloured}
    arguments |= {"plan": memory.address(call.plan) if call.plan is not None else 0}
    arguments |= {"views": memory.address(call.views)}
    if seed_on_device:
        arguments["device_seed"] = memory.address(named["seed"])
    else:
        arguments["seed"] = named["seed"].item() % (1 << 64)
    if "quantiles" in named:
        draw = Draw(*(named[name] for name in Draw._fields))
        arguments["draw"] = memory.address(draw.quantiles), draw.bounds, draw.sampling
    if call.drawn:
        arguments |= {name: named[name] for name in ("view_parameters", "view_choices")}
        arguments["aspects"] = memory.address(named["view_tables"])
        if named["colours"] is not None:
            arguments["colours"] = memory.address(named["colours"])
    if call.out is not None:
        arguments["erasing"] = tuple(named["erasing"])
        if wide_constants(call) is None:
            arguments["few_constants"] = named["constants"].numpy()
        else:
            arguments["wide_constants"] = memory.address(named["constants"])
    if call.out is not None and call.out.numel() > 0:
        for name, tensor in (("images", named["images"]), ("out", call.out)):
            arguments[name] = memory.address(tensor), tensor.shape, tensor.stride()
        arguments |= {"dtype": dtype_name(named["images"]), "out_dtype": dtype_name(call.out)}
    if call.targets is not None and call.targets.numel() > 0:
        for name, tensor in (("labels", named["labels"]), ("targets", call.targets)):
            arguments[name] = memory.address(tensor), dtype_name(tensor)
        arguments |= {"num_classes": call.targets.shape[1], "label_smoothing": named["label_smoothing"]}
    return bindings.load().augment_geometry(**arguments)


def augment_module(architecture: int) -> Module:
    return compile_cuda(AUGMENT_SOURCE, architecture, cuda_flags())


@functools.cache
def augment_kernel(name: str, architecture: int) -> Kernel:
    """A kernel by its name in C++: augment_pixels<false>, augment_vectors<ElementBF16,3,Path::kColoured>."""
    match = re.fullmatch(r"(\w+)<(?:(\w+),(\d),)?(?:Path::)?(\w+)>", name)
    assert match is not None
    base, element, channels, last = match.groups()
    if element:
        path = ("kPlain", "kViewed", "kColoured").index(last)
        values = f"NS_{len(element)}{element}ELi{channels}ELNS_4PathE{path}E"
    else:
        values = f"Lb{int(last == 'true')}E"
    mangled = f"_ZN6cutmix{len(base)}{base}I{values}EEvNS_13AugmentParamsE"
    return augment_module(architecture)[mangled]


@dataclass
class Augmented:
    """What a launch left behind."""

    out: Any  # Tensor or None
    targets: Any
    plan: Any
    views: Tensor
    launch: dict[str, Any]
    report: Report
    memory: AugmentMemory


def execute_augment(
    call: AugmentCall, architecture: int = 80, seed_on_device: bool = False, blocks: range | None = None
) -> Augmented:
    """Runs the one launch of a call, or some blocks of it. Raises `Fault` at the first wrong act."""
    memory = AugmentMemory(call)
    launch = augment_launch(call, memory, seed_on_device)
    kernel = augment_kernel(launch["kernel"], architecture)
    params = [launch["params"]]
    report = memory.device.launch(kernel, launch["grid"], launch["block"], params, launch["shared_bytes"], blocks)
    out, targets, plan = (None if each is None else memory.fetch(each) for each in (call.out, call.targets, call.plan))
    return Augmented(out, targets, plan, memory.fetch(call.views), launch, report, memory)
