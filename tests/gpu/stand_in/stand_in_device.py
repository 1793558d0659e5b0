"""A CUDA device that is none: CPU tensors that say they are on cuda:0, and raise where those of a GPU would.

Every Python process with this folder on PYTHONPATH has it, so that what is meant for a machine with a GPU runs to its
end on any machine:

    PYTHONPATH=tests/gpu/stand_in pytest -p stand_in_device tests/gpu

- A CPU tensor with dimensions beside a tensor on the device raises, and so does ``numpy()``.
- What makes the host wait raises while a graph is captured, and where ``torch.cuda.set_sync_debug_mode`` says so.
- A capture that failed makes every later one fail, as on torch 2.11 (pytorch/pytorch#180395).
- A replay runs again what was captured, but for gradients.
- Kernels and allocations are counted, for torch's profiler and ``torch.cuda.memory_stats``: a kernel for each of
  torch's functions that makes or writes a tensor.

The ops of ``cuda`` and ``triton`` are those in C++, ``torch.compile`` compiles nothing, and times mean nothing.

(For pytest, which would warn that it was imported before: PYTEST_DONT_REWRITE.)
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

NAME = "stand-in"
DEVICE = torch.device("cuda", 0)


class Device:
    """What has become of the one device."""

    def __init__(self) -> None:
        self.busy = False
        self.sync_debug_mode = 0
        self.capturing: list[Call] | None = None
        self.capture_failed = False
        self.kernels: list[str] = []
        self.allocations = self.allocated_bytes = 0

    def synchronize(self, *device: Any) -> None:
        if self.capturing is not None:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.busy = False

    def wait(self) -> None:
        """An operation makes the host wait."""
        if self.sync_debug_mode == 2:
            raise RuntimeError("called a synchronizing CUDA operation")
        self.synchronize()


THE = Device()


# ---- Tensors


class OnDevice(Tensor):
    """A CPU tensor that is on the device, as far as Python can tell."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return Call(func, args, kwargs or {}).run()

    def as_subclass(self, cls):
        """Of other classes of tensors, such as those of torchvision, too."""
        return super().as_subclass(on_device(cls))


@functools.cache
def on_device(cls: type[Tensor]) -> type[Tensor]:
    return cls if issubclass(cls, OnDevice) else type(cls.__name__, (OnDevice, cls), {})


class Everywhere(TorchFunctionMode):
    """Sees the functions that are given the device, and no tensor on it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return Call(func, args, kwargs or {}).run()


PROPERTIES = {
    Tensor.device.__get__: DEVICE,
    Tensor.is_cuda.__get__: True,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: False,  # type: ignore[attr-defined]
    Tensor.get_device: DEVICE.index,
}
WAITS = {
    *("item", "tolist", "equal", "allclose", "nonzero", "unique", "masked_select", "bincount", "is_nonzero"),
    *("__bool__", "__int__", "__float__", "__index__", "__contains__"),
}
MOVES = {"to", "cpu", "cuda", "copy_", "tensor", "as_tensor"}
TAKES_ANY_DEVICE = MOVES | {"set_", "type_as", "__getitem__", "__setitem__"}
GRADIENTS = {"backward", "grad"}


def tensors_in(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, tuple | list):
        return []
    return [tensor for value in values for tensor in tensors_in(value)]


def type_of(device: Any) -> str:
    if isinstance(device, Tensor):
        return "cuda" if isinstance(device, OnDevice) else "cpu"
    return "cuda" if isinstance(device, int) else torch.device(device).type


def storages(tensors: list[Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


class Call:
    """A call of one of torch's functions, some tensors of which may be on the device."""

    def __init__(self, func: Any, args: tuple, kwargs: dict) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name = getattr(func, "__name__", "")
        self.tensors = tensors_in((args, kwargs))
        self.on_device = [tensor for tensor in self.tensors if isinstance(tensor, OnDevice)]
        self.target: str | None = None  # "cpu" or "cuda", where the call names one
        if self.name in ("cpu", "cuda"):
            self.target, self.func, self.args, self.kwargs = self.name, Tensor.clone, args[:1], {}
        elif self.name == "to" and len(args) > 1 and isinstance(args[1], torch.device | str | int | Tensor):
            self.target = type_of(args[1])
            self.args = args[0], "cpu" if not isinstance(args[1], Tensor) else args[1].dtype, *args[2:]
        elif kwargs.get("device") is not None:
            self.target = type_of(kwargs["device"])
            self.kwargs = {**kwargs, "device": "cpu" if self.target == "cuda" else kwargs["device"]}

    @property
    def is_ours(self) -> bool:
        return isinstance(self.func, torch._ops.OpOverload) and self.func.namespace.startswith("cutmix_cuda")

    def run(self) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if not self.on_device and self.target != "cuda":
                return self.func(*self.args, **self.kwargs)
            if self.func in PROPERTIES:
                return PROPERTIES[self.func]
            if self.func is torch._has_compatible_shallow_copy_type:  # whether a module may change a parameter's data
                return len(self.on_device) == len(self.tensors)
            self.check()
            if self.waits():
                THE.wait()
            before = storages(self.tensors)
            result = self.on_cpu()
            result = self.placed(result) if isinstance(result, Tensor) else tree_map(self.placed, result)
            self.count(result, before)
            return result

    def on_cpu(self) -> Any:
        """What the function gives with CPU tensors."""
        func = self.func
        if self.is_ours and func.namespace == "cutmix_cuda_triton":
            func = getattr(torch.ops.cutmix_cuda, func._opname).default
        with torch.autocast("cpu", torch.get_autocast_dtype("cuda"), enabled=torch.is_autocast_enabled("cuda")):
            return func(*self.args, **self.kwargs)

    def check(self) -> None:
        """Raises where tensors of several devices do not go together."""
        if self.func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        others = [tensor for tensor in self.tensors if type_of(tensor) == "cpu" and tensor.dim() > 0]
        if self.is_ours:
            names = [argument.name for argument in self.func._schema.arguments]
            by_value = [self.args[names.index(name)] for name in ("seed", "constants") if name in names]
            others = [tensor for tensor in others if not any(tensor is each for each in by_value)]
        elif self.name in ("__getitem__", "__setitem__") and type_of(self.args[0]) == "cpu":
            others = [index for index in tensors_in(self.args[1]) if type_of(index) == "cuda" and index.dim() > 0]
        elif self.name in TAKES_ANY_DEVICE:
            others = []
        if self.on_device and others:
            raise RuntimeError(f"Expected all tensors to be on the same device, but {self.name} got cuda:0 and cpu")

    def waits(self) -> bool:
        """Whether the host has to wait for the device."""
        if self.name == "copy_":
            target, source = map(type_of, self.tensors[:2])
            return target != source and not self.kwargs.get("non_blocking", False)
        if self.name in MOVES:
            source = type_of(self.tensors[0]) if self.tensors else "cpu"
            return self.target not in (None, source) and not self.kwargs.get("non_blocking", False)
        if self.name in ("__getitem__", "__setitem__"):
            index = self.args[1]
            tensors = tensors_in(index)
            masks = any(tensor.dtype == torch.bool for tensor in tensors)
            if self.name == "__setitem__" and isinstance(self.args[2], int | float):
                masks = False  # filled where the mask says, without looking for its nonzeros
            lists = any(isinstance(each, list) for each in (index if isinstance(index, tuple) else [index]))
            return masks or lists or any(type_of(tensor) == "cpu" and tensor.dim() > 0 for tensor in tensors)
        return self.name in WAITS

    def placed(self, result: Any) -> Any:
        """A tensor that the function gave, on its device."""
        if not isinstance(result, Tensor):
            return result
        if self.target is None and any(result is tensor for tensor in self.tensors):
            return result
        kind = OnDevice if self.target in (None, "cuda") else Tensor
        if isinstance(result, OnDevice) == (kind is OnDevice):
            return result
        if self.target is not None and storages([result]) & storages(self.tensors):
            result = result.clone()
        return Tensor.as_subclass(result, kind)

    def count(self, result: Any, before: set[int]) -> None:
        made = [each for each in tensors_in(result) if each.nbytes > 0 and not storages([each]) & before]
        if self.target != "cpu":
            THE.allocations += len(made)
            THE.allocated_bytes += sum(each.nbytes for each in made)
        writes = self.name == "__setitem__" or (self.name.endswith("_") and not self.name.endswith("__"))
        if self.is_ours or ((made or writes or self.name in GRADIENTS) and "empty" not in self.name):
            THE.kernels.append(str(self.func) if self.is_ours else self.name)
            if THE.capturing is not None:
                self.result = result
                THE.capturing.append(self)

    def replay(self) -> None:
        if self.name in GRADIENTS:
            return
        with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
            for old, new in zip(tensors_in(self.result), tensors_in(self.on_cpu()), strict=True):
                if old is not new:
                    old.detach().copy_(new)


class OfTheCPU(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, torch._C.Generator)


class Generator(metaclass=OfTheCPU):
    """A generator of the CPU, whatever the device."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return torch._C.Generator("cpu")


# ---- torch.cuda


class Stream:
    def __init__(self, *device: Any, **options: Any) -> None:
        self.synchronize = THE.synchronize

    def wait_stream(self, other: Stream) -> None:
        pass


class Event:
    def __init__(self, **options: Any) -> None:
        self.synchronize = THE.synchronize

    def record(self, *stream: Any) -> None:
        self.time = time.perf_counter()

    def query(self) -> bool:
        return not THE.busy

    def elapsed_time(self, other: Event) -> float:
        return (other.time - self.time) * 1e3


class CUDAGraph:
    calls: list[Call]

    def replay(self) -> None:
        for each in self.calls:
            each.replay()


@contextmanager
def graph(graph: CUDAGraph, **options: Any) -> Iterator[None]:
    if THE.capture_failed:
        raise RuntimeError("CUDA error: an earlier capture failed")
    THE.capture_failed, THE.capturing = True, []
    try:
        yield
        graph.calls, THE.capture_failed = THE.capturing, False
    finally:
        THE.capturing = None


def set_sync_debug_mode(mode: int | str) -> None:
    THE.sync_debug_mode = ["default", "warn", "error"].index(mode) if isinstance(mode, str) else mode


def _sleep(cycles: int) -> None:
    THE.busy = True


class Profile:
    """torch's profiler, which sees kernels alone."""

    def __init__(self, **options: Any) -> None:
        self.kernels: list[str] = []

    def __enter__(self) -> Profile:
        self.first = len(THE.kernels)
        return self

    def __exit__(self, *error: object) -> None:
        self.kernels = THE.kernels[self.first :]

    def export_chrome_trace(self, path: str) -> None:
        events = [{"name": name, "cat": "kernel"} for name in self.kernels]
        Path(path).write_text(json.dumps({"traceEvents": events}))


def compile(model: Callable | None = None, **options: Any) -> Callable:
    return (lambda function: function) if model is None else model


MEMORY = 8 << 30
PROPERTIES_OF_DEVICE = SimpleNamespace(name=NAME, major=9, minor=0, L2_cache_size=1 << 12, total_memory=MEMORY)


def install() -> None:
    """Puts the device into torch, for this process; not for threads that it starts."""
    here = {
        **{f.__name__: f for f in (Stream, Event, CUDAGraph, graph, set_sync_debug_mode, _sleep)},
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: DEVICE.index,
        "get_device_name": lambda *device: NAME,
        "get_device_capability": lambda *device: (9, 0),
        "get_device_properties": lambda *device: PROPERTIES_OF_DEVICE,
        "get_sync_debug_mode": lambda: THE.sync_debug_mode,
        "is_current_stream_capturing": lambda: THE.capturing is not None,
        "synchronize": THE.synchronize,
        "current_stream": Stream,
        "set_stream": lambda stream: None,
        "stream": nullcontext,
        "empty_cache": lambda: None,
        "manual_seed_all": lambda seed: None,
        "mem_get_info": lambda *device: (MEMORY, MEMORY),
        "memory_stats": lambda *device: {
            "allocation.all.allocated": THE.allocations,
            "requested_bytes.all.allocated": THE.allocated_bytes,
        },
    }
    for name, value in here.items():
        setattr(torch.cuda, name, value)
    for name in ("start", "stop"):
        setattr(torch.cuda.profiler, name, lambda: None)
    torch.profiler.profile = Profile  # type: ignore[misc, assignment]
    torch.compile = compile
    torch.Generator = Generator  # type: ignore[misc]
    Everywhere().__enter__()


# ---- The tests that run on it

NOT_HERE = {  # why the device does not do for them
    "test_opcheck": "goes below Python",
    "test_opcheck_without_images": "goes below Python",
    "test_opcheck_of_the_adjoint_into": "goes below Python",
    "test_sizes_that_change": "counts what was compiled",
    "test_cutmix_of_masks": "asks for a class, and gets its subclass",
    "test_torchvisions_masks_are_of_classes_whatever_their_dtype": "asks for a class, and gets its subclass",
    "test_torchvisions_masks_are_kept_where_nobody_looks": "asks for a class, and gets its subclass",
    "test_pinned_batches": "asks the driver for memory, in a thread",
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the cases of a test, keeps those with a choice that no case before had: that shows whether its body is right,
    and the ops that it calls have tests of their own on the CPU, with every combination. Those of Triton are the ones
    of CUDA here."""
    seen: set[object] = set()
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        name = getattr(item, "originalname", item.name)
        params = item.callspec.params if hasattr(item, "callspec") else {}
        choices: set[object] = {(item.path, name, choice, repr(value)) for choice, value in params.items()} or {item}
        here = name not in NOT_HERE and "triton" not in repr(params.get("backend"))
        (kept if here and not choices <= seen else dropped).append(item)
        seen |= choices if here else set()
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)
