"""What the tests share: the backends to run, batches to feed them, and an oracle that owes the package nothing.

The oracle follows the documented maths with Python integers, numpy float32 scalars and plain slices, one sample at a
time. It imports nothing of the implementation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import cutmix_cuda

# ---- Backends


class Backend(NamedTuple):
    """A backend and a device that it runs on here: ``f(x.to(backend.device), ..., backend=backend.name)``."""

    name: str
    device: str


def _backends() -> list[Backend]:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    runs_on = {"cuda": ["cuda"], "triton": devices[-1:], "cpu": ["cpu"], "reference": devices}
    return [Backend(name, device) for name in cutmix_cuda.available_backends() for device in runs_on[name]]


BACKENDS = _backends()

# def test_x(backend): runs once for each backend and device of this machine.
every_backend = pytest.mark.parametrize("backend", BACKENDS, ids="-".join)

# Of memory in which elements are not aligned: torch's own kernels for a GPU, which are the reference there, fail on it.
every_compiled_backend = pytest.mark.parametrize(
    "backend", [each for each in BACKENDS if each != ("reference", "cuda")], ids="-".join
)

# ---- Names of the choices, for parametrize and hypothesis

SCOPES = ("sample", "pair", "batch")
PARTNERS = ("roll", "flip", "shift", "mirror")
PLACEMENTS = ("clip", "inside")
KINDS = ("keep", "cutmix", "mixup", "cutout")  # in the order of their numbers in a plan

# ---- Batches

PIXEL_DTYPES = (  # of element sizes 1, 2, 4, 8 and 16
    torch.uint8,
    torch.bool,
    torch.int16,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.int64,
    torch.float64,
    torch.complex64,
    torch.complex128,
)


# Of class indices. Said once more than in the package, so that one that goes missing there fails here.
INTEGERS = (
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(shape: Iterable[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Contiguous images of random bits: NaNs, infinities and subnormals included."""
    shape = tuple(shape)
    if dtype == torch.bool:
        return torch.randint(2, shape, generator=generator(seed)).bool()
    count = math.prod(shape) * dtype.itemsize
    return torch.randint(256, (count,), generator=generator(seed), dtype=torch.uint8).view(dtype).reshape(shape)


def at_odd_address(tensor: Tensor) -> Tensor:
    """The same, of the same strides, as in a file that begins with a header of odd length."""
    memory = torch.empty(tensor.nbytes + 1, dtype=torch.uint8, device=tensor.device)
    memory[1:] = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())[: tensor.nbytes]
    moved = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    moved.set_(memory.untyped_storage()[1:], 0, tensor.shape, tensor.stride())
    assert moved.data_ptr() % 2 == 1
    return moved


def bytes_on_cpu(tensor: Tensor) -> Tensor:
    """A copy, moved as bytes: on a GPU torch's own kernels fail on elements that are not aligned."""
    storage = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
    return storage.cpu()[: tensor.nbytes].view(tensor.dtype).as_strided(tensor.shape, tensor.stride())


def label_coded_images(shape: Iterable[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Images whose every pixel is the index of its sample, so that pasted pixels can be told and counted."""
    batch, *rest = shape
    return torch.arange(batch).to(dtype).reshape(batch, *[1] * len(rest)).expand(batch, *rest).contiguous()


def random_labels(batch: int, num_classes: int, dtype: torch.dtype = torch.int64, seed: int = 0) -> Tensor:
    """Class indices, (batch,)."""
    return torch.randint(num_classes, (batch,), generator=generator(seed)).to(dtype)


def soft_labels(batch: int, num_classes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Probabilities, (batch, num_classes)."""
    return torch.rand(batch, num_classes, generator=generator(seed)).softmax(1).to(dtype)


def strided(tensor: Tensor) -> Tensor:
    """The same, each element in the middle of three in memory."""
    view = torch.full((3 * tensor.shape[0], *tensor.shape[1:], 3), 77).to(tensor.dtype)[1::3, ..., 1]
    return view.copy_(tensor)


def bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor's elements, contiguous, on the CPU."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    """Same shape, dtype and bytes; a NaN equals a NaN of the same bits."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    different = (bits(actual) != bits(expected)).nonzero()
    if len(different) > 0:
        index = int(different[0]) // actual.element_size()
        at = tuple(int(i) for i in np.unravel_index(index, actual.shape))
        raise AssertionError(f"at {at}: {actual[at].item()!r} instead of {expected[at].item()!r}")


def assert_same_images(actual: Tensor, expected: Tensor, plan: list[PlannedSample]) -> None:
    """The same bits; where samples are blended, a NaN may be any NaN, which processors choose as they like."""
    blended = [i for i, sample in enumerate(plan) if sample.kind == "mixup"]
    both = [images.cpu().clone(memory_format=torch.contiguous_format) for images in (actual, expected)]
    if expected.is_floating_point() and blended:
        for images in both:
            images[blended] = torch.where(images[blended].isnan(), torch.nan, images[blended])
    assert_same_bits(*both)


# ---- The oracle


def philox4x32(counter: Iterable[int], key: Iterable[int]) -> list[int]:
    """Philox4x32-10 on any counter and key, as Salmon et al. (SC 2011) define it, in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        hi0, lo0 = divmod(0xD2511F53 * c0, 1 << 32)
        hi1, lo1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + 0x9E3779B9) % (1 << 32), (k1 + 0xBB67AE85) % (1 << 32)
    return [c0, c1, c2, c3]


def draw_words(seed: int, index: int, stream: int) -> list[int]:
    """The four words of a draw: stream 0 once a batch, stream 1 once a sample, pair or batch."""
    seed %= 1 << 64
    return philox4x32((index, 0, stream, 0), (seed % (1 << 32), seed >> 32))


class PlannedSample(NamedTuple):
    """One sample of a plan."""

    partner: int
    box: tuple[int, ...]  # y0, x0, y1, x1
    lam: np.float32
    kind: str


def oracle_partners(rule: str, seed: int, batch: int) -> list[int]:
    """The partner of each sample."""
    word = draw_words(seed, 0, 0)[0]
    if rule == "roll":
        return [(i - 1) % batch for i in range(batch)]
    if rule == "flip":
        return [batch - 1 - i for i in range(batch)]
    if rule == "shift":
        shift = 1 + (word * (batch - 1) >> 32)
        return [(i + shift) % batch for i in range(batch)]
    # A round of a tournament by the circle method. Of an even batch the last sample stands outside of the circle, and
    # meets the one that is left in it.
    circle = batch if batch % 2 == 1 else max(batch - 1, 0)
    shift = word * circle >> 32
    partners = [(shift - i) % circle for i in range(circle)]
    if circle < batch:
        left = next(i for i in range(circle) if partners[i] == i)
        partners[left] = circle
        partners.append(left)
    return partners


def oracle_lambda(table: np.ndarray, word: int) -> np.float32:
    """The table (4097 float32 knots) interpolated at word / 2^32."""
    knot, fraction = word >> 20, np.float32(word % (1 << 20)) * np.float32(2.0**-20)
    return table[knot] + fraction * (table[knot + 1] - table[knot])


def oracle_box(lam: np.float32, word_x: int, word_y: int, height: int, width: int, placement: str) -> tuple[int, ...]:
    """The box of a drawn lambda."""

    def whole_pixels(share: np.float32, length: int) -> int:
        part = share * np.float32(length)  # beyond 2^24 float32(length) may be more than length
        return int(part) if part < np.float32(length) else length

    share = np.float32(1) - lam
    if height == 1 or width == 1:  # a span along the one side, across all of the other
        word, length = (word_x, width) if height == 1 else (word_y, height)
        if placement == "inside":
            span = whole_pixels(share, length)
            start = word * (length - span + 1) >> 32
            end = start + span
        else:
            half, centre = whole_pixels(np.float32(0.5) * share, length), word * length >> 32
            start, end = max(centre - half, 0), min(centre + half, length)
        return (0, start, 1, end) if height == 1 else (start, 0, end, 1)
    side = np.sqrt(share)
    if placement == "inside":
        box_height, box_width = whole_pixels(side, height), whole_pixels(side, width)
        y0, x0 = word_y * (height - box_height + 1) >> 32, word_x * (width - box_width + 1) >> 32
        return y0, x0, y0 + box_height, x0 + box_width
    half_height, half_width = whole_pixels(np.float32(0.5) * side, height), whole_pixels(np.float32(0.5) * side, width)
    y, x = word_y * height >> 32, word_x * width >> 32
    return max(y - half_height, 0), max(x - half_width, 0), min(y + half_height, height), min(x + half_width, width)


def share_left(box: tuple[int, ...], height: int, width: int) -> np.float32:
    """1 - area / (height * width), each step rounded to float32."""
    y0, x0, y1, x1 = box
    return np.float32(1) - np.float32((y1 - y0) * (x1 - x0)) / np.float32(height * width)


def oracle_kind(word: int, bounds: Sequence[float]) -> str:
    """The first of cutmix, mixup and cutout below whose bound, rounded to float32, the word's upper 24 bits are."""
    number = np.float32(word >> 8) * np.float32(2.0**-24)
    return next((kind for kind, below in zip(KINDS[1:], bounds, strict=True) if number < np.float32(below)), "keep")


def oracle_plan(
    seed: int,
    tables: np.ndarray,
    batch: int,
    height: int,
    width: int,
    *,
    bounds: Sequence[float] = (1.0, 1.0, 1.0),
    scope: str = "sample",
    partner: str = "mirror",
    placement: str = "clip",
    correct_lam: bool = True,
) -> list[PlannedSample]:
    """The plan that every backend has to draw.

    tables holds the quantiles of lambda of cutmix, mixup and cutout, float32 (3, 4097), and bounds what a random number
    has to be below for each of them, in that order.
    """
    plan = []
    for i, other in enumerate(oracle_partners(partner, seed, batch)):
        draw = {"sample": i, "pair": min(i, other), "batch": 0}[scope]
        word_lam, word_x, word_y, word_kind = draw_words(seed, draw, 1)
        kind = oracle_kind(word_kind, bounds)
        if kind == "keep" or (other == i and kind != "cutout") or height * width == 0:
            plan.append(PlannedSample(other, (0, 0, 0, 0), np.float32(1), "keep"))
            continue
        lam = oracle_lambda(tables[KINDS.index(kind) - 1], word_lam)
        if kind == "mixup":
            plan.append(PlannedSample(other, (0, 0, 0, 0), lam, kind))
            continue
        box = oracle_box(lam, word_x, word_y, height, width, placement)
        if kind == "cutout":
            lam = np.float32(1)
        elif correct_lam:
            lam = share_left(box, height, width)
        plan.append(PlannedSample(other, box, lam, kind))
    return plan


def planned(plan: cutmix_cuda.MixPlan) -> list[PlannedSample]:
    """A plan of the package, taken apart sample by sample."""
    packed = plan.packed.cpu().numpy()
    return [
        PlannedSample(int(row[0]), tuple(map(int, row[1:5])), row[5:6].view(np.float32)[0], KINDS[row[6]])
        for row in packed
    ]


def packed(plan: list[PlannedSample]) -> Tensor:
    """A plan in its packed form, int32 (batch, 8)."""
    rows = [[s.partner, *s.box, int(s.lam.view(np.int32)), KINDS.index(s.kind), 0] for s in plan]
    return torch.tensor(rows, dtype=torch.int32).reshape(len(plan), 8)


def oracle_blend(lam: np.float32, own: Tensor, partner: Tensor) -> Tensor:
    """lam * own + (1 - lam) * partner, each step rounded to float32 (float64 for float64), and to the dtype once."""
    real: Any = np.float64 if own.dtype == torch.float64 else np.float32
    weight = real(lam)
    with np.errstate(all="ignore"):  # pixels may be NaN and infinite
        value = own.to(torch.float64).numpy().astype(real) * weight
        value = value + partner.to(torch.float64).numpy().astype(real) * (real(1) - weight)
    if own.dtype == torch.uint8:
        value = np.rint(value)
    return torch.from_numpy(value).to(own.dtype)


def oracle_images(images: Tensor, plan: list[PlannedSample], fill: Any = 0) -> Tensor:
    """The mixed images, contiguous: a box from the partner, a blend with it, or a box filled with one value."""
    mixed = images.clone(memory_format=torch.contiguous_format)
    for i, sample in enumerate(plan):
        y0, x0, y1, x1 = sample.box
        if sample.kind == "cutmix":
            mixed[i, ..., y0:y1, x0:x1] = images[sample.partner, ..., y0:y1, x0:x1]
        elif sample.kind == "mixup":
            mixed[i] = oracle_blend(sample.lam, images[i], images[sample.partner])
        elif sample.kind == "cutout":
            mixed[i, ..., y0:y1, x0:x1] = fill
    return mixed


def fill_words(fill: Any, dtype: torch.dtype) -> tuple[int, int]:
    """16 bytes of a value of a dtype over and over, as the two int64 that the ops take."""
    pattern = bytes(bits(torch.tensor([fill]).to(dtype)).tolist()) * (16 // dtype.itemsize)
    low, high = (int.from_bytes(half, "little", signed=True) for half in (pattern[:8], pattern[8:]))
    return low, high


def oracle_targets(
    labels: Tensor,
    plan: list[PlannedSample],
    num_classes: int,
    label_smoothing: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Soft targets (batch, num_classes): float64 arithmetic for float64 targets, float32 for every other dtype."""
    real: Any = np.float64 if dtype == torch.float64 else np.float32
    off = label_smoothing / num_classes
    if labels.is_floating_point():
        own = labels.to(torch.float64).numpy().astype(real) * real(1.0 - label_smoothing) + real(off)
    else:
        own = np.full((len(plan), num_classes), real(off))
        for i, label in enumerate(labels.tolist()):
            own[i, label] = real(1.0 - label_smoothing + off)
    targets = own.copy()
    for i, sample in enumerate(plan):
        if sample.kind in ("cutmix", "mixup"):
            lam = real(sample.lam)
            targets[i] = lam * own[i] + (real(1) - lam) * own[sample.partner]
    return torch.from_numpy(targets).to(dtype)
