"""The Triton kernel of several patches a sample: its PTX executed on CPU tensors, by the ops, against the reference."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from cutmix_cuda.triton_kernels import patches_launch, patches_ops
from cutmix_cuda.triton_kernels.launch import Launch

from cutmix_cuda import reference_patches
from cutmix_cuda._ops import BLENDED_DTYPES

from ..helpers import assert_same_bits, random_images, random_labels, soft_labels, strided
from ..oracle_patches import BLEND, FILL, KEEP, PASTE, in_pairs, random_plan
from ..ptx import Report
from .test_ptx_kernels import assert_same_targets
from .test_ptx_patches import DRAWS, PLANS, SEED, TABLES
from .triton_compile import execute

ARCHITECTURE = 90
CLASSES = 5
READ_ONLY = ("images", "others", "labels", "other_labels", "masks", "weights", "quantiles")


class Executed(NamedTuple):
    launch: Launch
    report: Report


@pytest.fixture(autouse=True)
def executed(monkeypatch) -> list[Executed]:
    """Makes the ops run compiled PTX on CPU tensors; each launch is appended."""
    done: list[Executed] = []

    def run(launch: Launch, device: torch.device) -> None:
        in_place = launch.options["IN_PLACE"]
        read_only = tuple(name for name in READ_ONLY if not (in_place and name == "images"))
        done.append(Executed(launch, execute(launch, ARCHITECTURE, read_only)))

    monkeypatch.setattr(Launch, "__call__", run)
    return done


def assert_as_reference(op: str, *arguments: Any) -> tuple[Tensor, ...]:
    """An op gives the reference's results, in its layout, which are returned."""
    both: list[dict[str, Any]] = [patches_ops.OPS, reference_patches.OPS]
    if op.endswith("_"):
        images = arguments[0]
        written = [images.clone(memory_format=torch.preserve_format) for _ in both]
        ours, theirs = (ops[op](each, *arguments[1:]) for ops, each in zip(both, written, strict=True))
        assert_same_bits(*written)
    else:
        ours, theirs = (ops[op](*arguments) for ops in both)
    ours, theirs = ((result,) if isinstance(result, Tensor) else result for result in (ours, theirs))
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual.stride() == expected.stride()
        same = assert_same_targets if expected.is_floating_point() else assert_same_bits
        same(actual, expected)
    return ours


def paint(images: Tensor, plan: Any, labels: Any = None, others: Any = None) -> tuple[Tensor, ...]:
    labels = random_labels(images.shape[0], CLASSES) if labels is None else labels
    other_labels = None if others is None else random_labels(others.shape[0], CLASSES, labels.dtype, seed=1)
    low, high = torch.full((16,), 3, dtype=torch.uint8).view(torch.int64).tolist()
    given = images, others, labels, other_labels, *plan
    return assert_as_reference("paint", *given, CLASSES, 0.1, torch.float32, [low, high])


SHAPES = [(4, 3, 6, 9), (3, 2, 2, 7, 4), (1, 2, 1, 1), (2, 16, 7, 4), (2, 1, 30, 48)]
# Each combination is compiled, for a second. So each two of a plan, a shape, a number of patches, a dtype, a layout
# and a place meet; the CUDA kernels, which are compiled once for all of them, meet each with each.
every_form = pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [(name, SHAPES[0], (1, 4)) for name in PLANS] + [("everything", shape, (4,)) for shape in SHAPES[1:]],
    ids=str,
)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@every_form
def test_every_shape(name, shape, counts):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for patches in counts:
        paint(images, random_plan(shape[0], patches, shape[0], *shape[-2:], **PLANS[name]))


def plans_in_turn(*dtypes: torch.dtype, without_blends: str) -> list[Any]:
    """Each dtype and layout once, by a plan that blends and by one that does not; where nothing can blend, by that."""
    names = itertools.cycle(["everything", without_blends, without_blends, "everything"])
    cells = [(dtype, layout, next(names)) for dtype in dtypes for layout in LAYOUTS]
    return [(dtype, layout, name if dtype in BLENDED_DTYPES else without_blends) for dtype, layout, name in cells]


@pytest.mark.parametrize(
    ("dtype", "layout", "name"),
    plans_in_turn(
        *(torch.uint8, torch.float16, torch.bfloat16, torch.float64, torch.int16, torch.complex128),
        without_blends="sources",
    ),
    ids=str,
)
def test_every_dtype_and_layout(dtype, layout, name):
    images = random_images((4, 3, 6, 8), torch.uint8).to(dtype).contiguous(memory_format=layout)
    paint(images, random_plan(4, 3, 4, 6, 8, **PLANS[name]))


def test_views_in_any_memory():
    images = torch.rand(3, 2, 6, 10)
    for each in (images[..., 1:9], strided(images), images.transpose(2, 3)):
        paint(each, random_plan(3, 2, 3, *each.shape[-2:], **PLANS["sources"]))


@pytest.mark.parametrize("samples", [0, 2, 9])
def test_other_numbers_of_samples_and_a_second_batch(samples):
    images, others = torch.rand(4, 3, 6, 16), torch.rand(3, 3, 6, 16)
    paint(images, random_plan(samples, 2, 7, 6, 16, **PLANS["everything"]), others=others)
    paint(images, random_plan(samples, 2, 4, 6, 16, **PLANS["masks"], weights=True))


def test_samples_beyond_32_bits(monkeypatch):
    """The kernel for samples of more elements than 32 bits are good for, on small ones."""
    monkeypatch.setattr(patches_launch, "MAX_FAST_DIVISION", 0)
    monkeypatch.setattr(patches_launch, "patch_geometry", patches_launch.patch_geometry.__wrapped__)
    plan = random_plan(4, 3, 4, 6, 8, **PLANS["everything"])
    paint(torch.rand(4, 3, 6, 8), plan)
    paint(torch.rand(4, 3, 6, 8).contiguous(memory_format=torch.channels_last), plan)
    paint_in_place(torch.rand(4, 3, 6, 8), in_pairs(plan))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_targets_alone(dtype):
    plan = random_plan(5, 3, 5, 9, 11, **PLANS["everything"])
    parts = plan.rows, plan.masks, plan.weights
    for labels in (random_labels(5, 300), soft_labels(5, 300, torch.bfloat16)):
        assert_as_reference("paint_targets", labels, None, *parts, 9, 11, 300, 0.1, dtype)


def test_rows_that_may_not_be_followed():
    images, labels = torch.rand(4, 2, 6, 8), random_labels(4, CLASSES)
    plan = random_plan(4, 2, 4, 6, 8, masks=(3, 3), sources=True, weights=True)
    plan.rows[0, 1, 0], plan.rows[1, 0, 7], plan.sources[2, 0, 2], plan.weights[3, 2] = 4, 6, 7, 1.5
    _, targets = paint(images, plan, labels)
    assert targets.isnan().all()
    labels[3] = CLASSES
    _, targets = paint(images, random_plan(4, 1, 4, 6, 8, kinds=(KEEP,)), labels)
    assert targets.isnan().all(dim=1).tolist() == [False, False, False, True]


@pytest.mark.parametrize("name", DRAWS)
def test_drawn_in_the_launch(name, executed):
    draw = SEED, TABLES, *DRAWS[name]
    thin = ((9, 1, 32), (9, 32, 1)) if name == "every method" else ()  # for which it is compiled anew
    sizes = (1, 7, 8), (16, 7, 16), (9, 7, 9), *thin  # the first two by one kernel
    for batch, height, width in sizes:
        images = torch.rand(batch, 3, height, width)
        rest = random_labels(batch, CLASSES), *draw, CLASSES, 0.1, torch.float32
        assert_as_reference("sample_and_paint", images, *rest)
        assert_as_reference("sample_patches", *draw, batch, height, width)
    assert len(executed) == 2 * len(sizes)


# ---- In place


def paint_in_place(images: Tensor, plan: Any, labels: Any = None) -> tuple[Tensor, ...]:
    labels = random_labels(images.shape[0], CLASSES) if labels is None else labels
    low, high = torch.full((16,), 3, dtype=torch.uint8).view(torch.int64).tolist()
    return assert_as_reference("paint_", images, labels, *plan, CLASSES, 0.1, torch.float32, [low, high])


@every_form
def test_every_shape_in_place(name, shape, counts):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for patches in counts:
        paint_in_place(images, in_pairs(random_plan(shape[0], patches, shape[0], *shape[-2:], **PLANS[name])))


@pytest.mark.parametrize(
    ("dtype", "layout", "name"),
    plans_in_turn(*(torch.uint8, torch.bfloat16, torch.float64, torch.int16, torch.complex128), without_blends="masks"),
    ids=str,
)
def test_every_dtype_and_layout_in_place(dtype, layout, name):
    images = random_images((5, 3, 6, 8), torch.uint8).to(dtype).contiguous(memory_format=layout)
    paint_in_place(images, in_pairs(random_plan(5, 3, 5, 6, 8, **PLANS[name])))


def test_views_in_place():
    images = torch.rand(3, 2, 6, 10)
    for each in (images[..., 1:9], strided(images), images.transpose(2, 3)):
        paint_in_place(each, in_pairs(random_plan(3, 2, 3, *each.shape[-2:])))


def test_samples_that_do_not_exchange_in_pairs():
    """Are left, and nobody reads what another writes."""
    for patches in (1, 3):
        plan = random_plan(12, patches, 12, 6, 9, seed=patches)
        rows = in_pairs(plan).rows
        rows[::3, 0, 0] = plan.rows[::3, 0, 0]
        rows[0, 0, 0], rows[1, 0, 0], rows[2, -1, 4] = -1, 12, 10
        (targets,) = paint_in_place(torch.rand(12, 2, 6, 9), (rows, None, None, None))
        assert targets.isnan().any() and not targets.isnan().all()
        rows[..., 0] = 5
        paint_in_place(torch.rand(12, 2, 6, 9), (rows, None, None, None))


@pytest.mark.parametrize("name", ["holes", "inside", "pairs"])
def test_holes_drawn_in_place(name, executed):
    for batch, width in ((1, 8), (6, 12), (5, 9)):
        images = torch.rand(batch, 3, 7, width)
        rest = random_labels(batch, CLASSES), SEED, TABLES, *DRAWS[name], CLASSES, 0.1, torch.float32
        assert_as_reference("sample_and_paint_", images, *rest)
    assert len(executed) == 3


def test_traffic_in_place_is_that_of_the_boxes(executed):
    rows = torch.tensor([[1, 4, 0, 8, 64, 0, PASTE, 0]] * 4, dtype=torch.int32)
    rows[:, 0] = torch.tensor([1, 0, 3, 2])
    paint_in_place(torch.rand(4, 3, 16, 64), (rows[:, None], None, None, None))
    traffic = executed[0].report.buffers["images"]
    assert traffic.bytes_read == traffic.bytes_written == 4 * 3 * 4 * 64 * 4


# ---- Masks of each channel


@pytest.mark.parametrize(
    ("dtype", "soft", "layouts"),  # one out of place, and one in place
    [
        (torch.uint8, False, LAYOUTS),
        (torch.uint8, True, LAYOUTS[::-1]),
        (torch.float32, False, LAYOUTS[::-1]),
        (torch.float32, True, LAYOUTS),
        (torch.int16, False, LAYOUTS),
        (torch.complex128, False, LAYOUTS[::-1]),
    ],
    ids=["uint8", "uint8-soft", "float32", "float32-soft", "int16", "complex128"],
)
def test_masks_of_each_channel(dtype, soft, layouts):
    images = random_images((4, 4, 6, 8), torch.uint8).to(dtype)
    out_of_place, in_place = (images.contiguous(memory_format=layout) for layout in layouts)
    kinds = (PASTE, BLEND, FILL) if soft else (PASTE, FILL)
    plan = random_plan(4, 2, 4, 6, 8, kinds=kinds, masks=(4, 3, 4), soft=soft)
    paint(out_of_place, plan)
    paint_in_place(in_place, in_pairs(plan))


def test_masks_of_each_channel_of_a_video():
    video = torch.rand(3, 2, 3, 5, 8)
    for images in (video, video.transpose(1, 2).contiguous().transpose(1, 2)):
        plan = random_plan(3, 2, 3, 5, 8, kinds=(PASTE,), masks=(2, 5, 8))
        paint(images, plan)
        paint_in_place(images, in_pairs(plan))


def test_targets_alone_of_masks_of_each_channel():
    plan = random_plan(3, 2, 3, 9, 11, kinds=(PASTE, BLEND), masks=(7, 4, 5), soft=True)
    assert_as_reference(
        "paint_targets", random_labels(3, 5), None, plan.rows, plan.masks, None, 9, 11, 5, 0.1, torch.float32
    )


# ---- What it costs

HEIGHT, WIDTH = 64, 224  # rows as long as usual, of which a program has few at a time
# Instructions of a warp for each 16 bytes that a lane writes. While memory moves as many in and out, an H100 issues
# about 280; more have only elements of a byte that come from several places, which are read one by one.
INSTRUCTIONS = {
    ("ricap", torch.uint8): 690,
    ("ricap", torch.float32): 245,
    ("holes", torch.uint8): 630,
    ("resizemix", torch.uint8): 360,
    ("mask", torch.uint8): 550,
}
# Of a warp that works out whose a target is, where one waits for the other.
TARGET_INSTRUCTIONS = {"ricap": 1500, "holes": 1100, "mask": 3000}


def costly_plan(name: str) -> tuple[Tensor, Any, Any, None]:
    """Of two samples."""
    if name == "mask":
        rows = torch.tensor([[[1, 0, 0, HEIGHT, WIDTH, 0, PASTE, 1]], [[0, 0, 0, HEIGHT, WIDTH, 0, PASTE, 2]]])
        return rows.to(torch.int32), None, torch.rand(2, HEIGHT, WIDTH) < 0.5, None
    y, x = 40, 130
    boxes = torch.tensor([[0, 0, y, x], [0, x, y, WIDTH], [y, 0, HEIGHT, x], [y, x, HEIGHT, WIDTH]])
    sources = boxes + torch.tensor([[9, 31, 9, 31], [5, -11, 5, -11], [-7, 2, -7, 2], [-40, -53, -40, -53]])
    if name == "holes":
        boxes = sources = torch.tensor([[3, 7, 20, 30], [10, 40, 32, 71], [41, 9, 57, 33], [40, 165, 61, 190]])
    if name == "resizemix":
        boxes, sources = torch.tensor([[20, 31, 53, 134]]), torch.tensor([[0, 0, HEIGHT, WIDTH]])
    rows = torch.zeros(2, len(boxes), 8, dtype=torch.int32)
    rows[..., 0] = torch.arange(2 * len(boxes)).reshape(2, -1) % 2
    rows[..., 1:5] = boxes
    rows[..., 6] = FILL if name == "holes" else PASTE
    return rows, sources.repeat(2, 1, 1).to(torch.int32), None, None


@pytest.mark.parametrize(("name", "dtype"), INSTRUCTIONS, ids=str)
def test_instructions_of_pixels(name, dtype, executed):
    images = random_images((2, 3, HEIGHT, WIDTH), dtype)
    assert_as_reference("paint", images, None, None, None, *costly_plan(name), 0, 0.0, torch.float32, [0, 0])
    per_vector = executed[0].report.warp_instructions / (images.nbytes / 16 / 32)
    assert per_vector <= INSTRUCTIONS[name, dtype]


@pytest.mark.parametrize("name", TARGET_INSTRUCTIONS)
def test_instructions_of_targets(name, executed):
    """Without masks as many for images of any size."""
    rows, _, masks, _ = costly_plan(name)
    for times in (1,) if name == "mask" else (1, 9):
        size = times * HEIGHT, times * WIDTH
        parts = random_labels(2, CLASSES), None, rows, masks, None, *size, CLASSES, 0.1, torch.float32
        assert_as_reference("paint_targets", *parts)
        warps = 2 * executed[-1].launch.options["num_warps"]
        assert executed[-1].report.warp_instructions <= warps * TARGET_INSTRUCTIONS[name]
