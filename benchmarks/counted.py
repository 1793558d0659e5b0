"""Kernels and bytes of one call on a GPU, counted where there is no GPU. Nothing here is a time.

Peers: the call runs on meta tensors, which have a device of their own and no data, under a mode that sees every
operation that PyTorch dispatches. An operation on them that is neither a view nor an allocation would be a kernel on a
GPU (or several: this is the fewest), and reads its inputs and writes its outputs once. What peers draw on the host
stays on the host, and each draw moves other bytes: the counts are means over draws.

Ours: one kernel, whose memory accesses were counted by executing the compiled code; see ptx_report.py.
"""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .checks import seed_everything
from .grid import Case, meta_inputs
from .implementations import COMPILED_BATCH, COMPILED_SAMPLE, Implementation

BOXES = 256  # to average over, so that the mean share of a box is off by 2 % or less
IMAGE_DIMS = 3  # labels have 1 or 2; timm handles one sample (C, H, W) at a time

NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "detach", "alias"}
OVERWRITES = {"copy_", "fill_", "zero_", "index_put", "index_put_", "scatter", "scatter_"}  # what is there is not read
GATHERS = {"index", "index_select", "gather"}  # as much is read as comes out


@dataclass
class Count:
    """What one call asks of the GPU."""

    image_kernels: int = 0
    label_kernels: int = 0
    transfers: int = 0  # copies from the host: of lambdas, masks, indices
    image_bytes: int = 0
    label_bytes: int = 0


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _on_device(tensors: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor) and leaf.is_meta]


def _on_host(tensors: Any) -> list[Tensor]:
    """What has to be copied to the device first; scalars are parameters of the kernel."""
    return [leaf for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor) and not leaf.is_meta and leaf.dim() > 0]


class Counter(TorchDispatchMode):
    """Counts the operations on meta tensors as the kernels that they would be on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        inputs, outputs = _on_device((args, kwargs)), _on_device(result)
        name = func.overloadpacket.__name__
        if not (inputs or outputs) or name in NO_KERNEL or func.is_view:
            return result
        if name == "_to_copy" and not inputs:  # from the host: the data arrives without a kernel
            self.count.transfers += 1
            return result
        if not func.namespace.startswith("cutmix_cuda"):  # whose launches take what is on the host by value
            self.count.transfers += len(_on_host(args))
        moved = self._read(name, inputs, outputs) + self._written(name, args, outputs)
        traffic = sum(map(_size, moved))
        if any(tensor.dim() >= IMAGE_DIMS for tensor in inputs + outputs):
            self.count.image_kernels += 1
            self.count.image_bytes += traffic
        else:
            self.count.label_kernels += 1
            self.count.label_bytes += traffic
        return result

    @staticmethod
    def _read(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> list[Tensor]:
        if name in OVERWRITES:
            return inputs[1:]
        return inputs[1:] + outputs if name in GATHERS else inputs

    @staticmethod
    def _written(name: str, args: tuple, outputs: list[Tensor]) -> list[Tensor]:
        return _on_device(args[2]) if name.startswith(("index_put", "scatter")) else outputs


class OneHotAsOnCuda(TorchFunctionMode):
    """one_hot in the two kernels that it takes on CUDA, zeros and scatter; on meta tensors it takes another way."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.nn.functional.one_hot:
            return func(*args, **(kwargs or {}))
        return self._zeros_and_scatter(*args, **(kwargs or {}))

    @staticmethod
    def _zeros_and_scatter(labels: Tensor, num_classes: int) -> Tensor:
        return labels.new_zeros(*labels.shape, num_classes).scatter_(-1, labels.unsqueeze(-1), 1)


class NumbersAsOnCuda(TorchFunctionMode):
    """Tensors made of numbers are made on the host and copied. On meta tensors only arrays are seen to be."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, func, types, args=(), kwargs=None):
        before = self.count.transfers
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and result.is_meta and not isinstance(args[0], Tensor):
            self.count.transfers = before + 1
        return result


def count_call(implementation: Implementation, case: Case, boxes: int) -> dict:
    """Means over as many boxes, as a row of the table."""
    draws = boxes if implementation.scope == "batch" else math.ceil(boxes / case.batch)
    call, inputs = implementation.prepare(case), meta_inputs(case)
    call(inputs)  # what is made once, as tables are, is not counted
    counts = []
    for seed in range(draws):
        seed_everything(seed)
        with ExitStack() as modes:
            counter = modes.enter_context(Counter())
            modes.enter_context(OneHotAsOnCuda())
            modes.enter_context(NumbersAsOnCuda(counter.count))
            # Ours build their tables anew under modes that make tensors of their own, which this one does not.
            modes.enter_context(mock.patch("torch._C._len_torch_dispatch_stack", lambda: 0))
            call(inputs)
        counts.append(counter.count)
    return {
        "name": implementation.name,
        "scope": implementation.scope,
        "in_place": implementation.in_place,
        "image_kernels": fmean(count.image_kernels for count in counts),
        "label_kernels": fmean(count.label_kernels for count in counts),
        "transfers": fmean(count.transfers for count in counts),
        "image_passes": fmean(count.image_bytes for count in counts) / case.image_bytes,
        "label_bytes": fmean(count.label_bytes for count in counts),
        "counted_by": "dispatch",
    }


def count_peers(implementations: list[Implementation], case: Case, boxes: int = BOXES) -> list[dict]:
    """A row for each peer. What torch.compile would launch takes its compiler and a GPU to know, so it has none."""
    return [
        count_call(one, case, boxes)
        for one in implementations
        if one.kind == "peer" and one.name not in (COMPILED_BATCH, COMPILED_SAMPLE) and one.fits(case)
    ]


def read_ours(report: Path) -> list[dict]:
    """The rows that ptx_report.py left under "benchmark_rows", with the keys of count_call; none if it has not run."""
    return json.loads(report.read_text()).get("benchmark_rows", []) if report.exists() else []
