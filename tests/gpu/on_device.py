"""What the tests of this folder share: where they run, every call there is, and the reference to compare it with."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import Colour, CutMix, Erase, MixPlan
from cutmix_cuda._literals import BackendName

from ..helpers import assert_same_bits, random_images, random_labels

BACKENDS = ("cuda", "triton")

# A mistake in a test shows on any machine by the device of stand_in/, where few and small batches are enough.
ON_STAND_IN = torch.cuda.is_available() and torch.cuda.get_device_name() == "stand-in"

SEED = 20190513
OWN_INVERSE = ("flip", "mirror")


def moved(view: Tensor, device: torch.device | str) -> Tensor:
    """A copy of a view together with all of the storage around it: the same strides and alignment."""
    storage = whole_storage(view, view.dtype).to(device, copy=True)
    return storage.as_strided(view.shape, view.stride(), view.storage_offset())


def whole_storage(view: Tensor, dtype: torch.dtype = torch.uint8) -> Tensor:
    return torch.empty(0, dtype=dtype, device=view.device).set_(view.untyped_storage())


class Batch(NamedTuple):
    """What a call works on."""

    images: Tensor
    out: Tensor  # like images; its strides may differ
    labels: Tensor
    classes: int
    seed: Tensor
    plan: MixPlan
    sampling: dict[str, Any]  # arguments of every call that samples
    label_smoothing: float
    target_dtype: torch.dtype

    def on(self, device: torch.device | str) -> Batch:
        """A copy; a seed on the CPU stays there."""
        return self._replace(
            images=moved(self.images, device),
            out=moved(self.out, device),
            labels=moved(self.labels, device),
            seed=self.seed.clone() if self.seed.device.type == "cpu" else self.seed.to(device),
            plan=self.plan.to(device),
        )

    @property
    def targets(self) -> dict[str, Any]:
        return {"label_smoothing": self.label_smoothing, "target_dtype": self.target_dtype}


def finite_images(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Images of numbers that arithmetic leaves finite; which NaN comes of a NaN, processors choose as they like."""
    images = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return images if dtype == torch.uint8 else (images / 255).to(dtype)


def make_batch(
    images: Tensor,
    labels: Tensor | None = None,
    classes: int = 5,
    *,
    out: Tensor | None = None,
    seed: int = SEED,
    label_smoothing: float = 0.1,
    target_dtype: torch.dtype = torch.float32,
    **sampling: Any,
) -> Batch:
    """A batch on the CPU, whose plan is what the calls that sample draw."""
    size, (height, width) = images.shape[0], images.shape[-2:]
    if labels is None:
        labels = random_labels(size, classes)
    if out is None:
        out = torch.empty_like(images).copy_(random_images(images.shape, images.dtype, seed=1))
    plan = cutmix_cuda.sample_plan(size, height, width, seed=seed, backend="reference", **sampling)
    return Batch(
        images, out, labels, classes, torch.tensor([seed]), plan, sampling, label_smoothing, target_dtype
    )  # fmt: skip


# ---- Every call there is


def _drawn(
    call: Callable[..., Any], batch: Batch, backend: BackendName | None, **how: Any
) -> tuple[Any, Tensor, Tensor]:
    mixed, targets, plan = call(
        batch.images,
        batch.labels,
        batch.classes,
        seed=batch.seed,
        return_plan=True,
        backend=backend,
        **batch.sampling,
        **batch.targets,
        **how,
    )
    return mixed, targets, plan.packed


def _followed(call: Callable[..., Any], batch: Batch, backend: BackendName | None, **how: Any) -> tuple[Any, Tensor]:
    return call(batch.images, batch.labels, batch.plan, batch.classes, backend=backend, **batch.targets, **how)


def _sample_plan(batch: Batch, backend: BackendName | None) -> tuple[Tensor, ...]:
    size, (height, width) = batch.images.shape[0], batch.images.shape[-2:]
    how: dict[str, Any] = {"seed": batch.seed, "device": batch.images.device, "backend": backend, **batch.sampling}
    return (cutmix_cuda.sample_plan(size, height, width, **how).packed,)


def _mix_targets(batch: Batch, backend: BackendName | None) -> tuple[Tensor, ...]:
    how: dict[str, Any] = {
        "label_smoothing": batch.label_smoothing,
        "target_dtype": batch.target_dtype,
        "backend": backend,
    }
    return (cutmix_cuda.mix_targets(batch.labels, batch.plan, batch.classes, **how),)


def _mix_images_out(batch: Batch, backend: BackendName | None) -> tuple[Tensor, ...]:
    cutmix_cuda.mix_images(batch.images, batch.plan, out=batch.out, backend=backend)
    return ()


def _mix_images_in_place(batch: Batch, backend: BackendName | None) -> tuple[Tensor, ...]:
    cutmix_cuda.mix_images_(batch.images, batch.plan, backend=backend)
    return ()


# Each gives the tensors that it allocated, and none that it was given. Those that end in _ write to the images.
CALLS: dict[str, Callable[[Batch, BackendName | None], tuple[Tensor, ...]]] = {
    "cutmix": lambda batch, backend: _drawn(cutmix_cuda.cutmix, batch, backend),
    "cutmix out": lambda batch, backend: _drawn(cutmix_cuda.cutmix, batch, backend, out=batch.out)[1:],
    "cutmix_": lambda batch, backend: _drawn(cutmix_cuda.cutmix_, batch, backend)[1:],
    "sample_plan": _sample_plan,
    "apply_plan": lambda batch, backend: _followed(cutmix_cuda.apply_plan, batch, backend),
    "apply_plan out": lambda batch, backend: _followed(cutmix_cuda.apply_plan, batch, backend, out=batch.out)[1:],
    "apply_plan_": lambda batch, backend: _followed(cutmix_cuda.apply_plan_, batch, backend)[1:],
    "mix_images": lambda batch, backend: (cutmix_cuda.mix_images(batch.images, batch.plan, backend=backend),),
    "mix_images out": _mix_images_out,
    "mix_images_": _mix_images_in_place,
    "mix_targets": _mix_targets,
}

# What the batch tail does, all of it at once, on images of three channels.
VIEWS: dict[str, Any] = {"flip": 0.5, "translate": 3, "colour": Colour(0.4, 0.4, 0.4), "erase": Erase(0.5, value=1.0)}
NORMALISED: dict[str, Any] = {"mean": (0.4, 0.5, 0.6), "std": 0.25, "dtype": torch.float16}
NORMALISED["memory_format"] = torch.channels_last


def _augmented(batch: Batch, backend: BackendName | None, **how: Any) -> tuple[Tensor, ...]:
    """Images, unless they are given, then targets, the plan and views."""
    images, targets, plan, views = cutmix_cuda.augment(
        batch.images,
        batch.labels,
        CutMix(num_classes=batch.classes, **batch.sampling, **batch.targets),
        **VIEWS,
        seed=batch.seed,
        return_plan=True,
        backend=backend,
        **how,
    )
    return *([] if "out" in how else [images]), targets, plan.packed, views.packed


def _normalised(batch: Batch, backend: BackendName | None) -> tuple[Tensor, ...]:
    return (cutmix_cuda.normalize_images(batch.images, **NORMALISED, backend=backend),)


TAIL_CALLS: dict[str, Callable[[Batch, BackendName | None], tuple[Tensor, ...]]] = {
    "augment": lambda batch, backend: _augmented(batch, backend, **NORMALISED),
    "augment out": lambda batch, backend: _augmented(batch, backend, out=batch.out),
    "normalize_images": _normalised,
}
ALL_CALLS = CALLS | TAIL_CALLS
every_call = pytest.mark.parametrize("call", ALL_CALLS)


def calls_for(batch: Batch) -> list[str]:
    """The calls that a batch's partner rule allows."""
    in_place = batch.sampling.get("partner", "mirror") in OWN_INVERSE
    return [call for call in CALLS if in_place or not call.endswith("_")]


def assert_as_expected(batch: Batch, results: tuple[Tensor, ...], like: Batch, expected: tuple[Tensor, ...]) -> None:
    """What a call gave, and every byte of what it was given, are those of the same call on another batch."""
    for result, wanted in zip(results, expected, strict=True):
        assert_same_bits(result, wanted)
        assert result.stride() == wanted.stride()
    for name in ("images", "out", "labels"):
        assert_same_bits(whole_storage(getattr(batch, name)), whole_storage(getattr(like, name)))


def check(
    batch: Batch,
    backend: BackendName,
    device: torch.device,
    calls: list[str] | None = None,
    reference_on: torch.device | str = "cpu",
) -> None:
    """Each call, on a copy of a batch on the device, does what the reference does."""
    for call in calls or calls_for(batch):
        given, like = batch.on(device), batch.on(reference_on)._replace(seed=batch.seed.cpu())
        expected = ALL_CALLS[call](like, "reference")
        try:
            assert_as_expected(given, ALL_CALLS[call](given, backend), like, expected)
        except AssertionError as error:
            raise AssertionError(f"{call}: {error}") from error


# ---- What CUDA does


def capture(call: Callable[[], tuple[Tensor, ...]]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
    """A CUDA graph of a call, and the results that each replay writes anew.

    The call has to have been made once before, as torch asks of all that is captured.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    return graph, results


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Work goes to another stream, which the host waits for at the end."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """torch raises where it would make the host wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def device_work(trace: dict[str, Any]) -> list[str]:
    """The kernels, copies and fills of a profiler's trace, by name."""
    on_device = ("kernel", "gpu_memcpy", "gpu_memset")
    return [event["name"] for event in trace["traceEvents"] if event.get("cat") in on_device]


def profiled(call: Callable[[], object]) -> dict[str, Any]:
    """The trace of a call."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        call()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return json.loads(path.read_text())
