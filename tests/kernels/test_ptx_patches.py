"""The compiled kernels of several patches a sample, executed with the launches that a user's calls make.

As test_ptx_kernels.py: the interpreter in tests/ptx raises at the first access out of bounds, race, or use of what was
never written. tests/ops/test_patches.py holds the reference itself to an oracle.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cutmix_cuda import reference_patches
from cutmix_cuda._ops import PATCH_METHODS

from ..helpers import assert_same_bits, random_images, random_labels, soft_labels, strided
from ..oracle_patches import BLEND, FILL, KEEP, PASTE, Plan, in_pairs, only, random_plan
from ..ptx.machine import WARP
from .execution import SECTOR, VECTOR, needs_cuda
from .patches_execution import Painted, execute_patches, patches_call
from .test_ptx_kernels import assert_same_targets, poisoned, surroundings

pytestmark = needs_cuda

CLASSES = 5
NO_SMOOTHING = 0.0
PLANS: dict[str, dict[str, Any]] = {
    "paste": {"kinds": (PASTE,)},
    "sources": {"kinds": (KEEP, PASTE, FILL), "sources": True},
    "masks": {"kinds": (PASTE, FILL), "masks": (3, 4)},
    "everything": {"kinds": (KEEP, PASTE, BLEND, FILL), "masks": (9, 13), "soft": True, "sources": True},
}
SEED = torch.tensor([20180408])
# Each uniform, on ranges of their own, by which a table that is taken for another is noticed.
TABLES = torch.stack([0.1 * k + torch.arange(4097) / 8192 for k in range(PATCH_METHODS)])


def assert_as_reference(op: str, *arguments: Any, architecture: int = 80, seed_on_device: bool = False) -> Painted:
    """A call gives the reference's images, targets and plan, writes all of them, and nothing around images."""
    call = patches_call(op, *arguments)
    done = execute_patches(call, architecture, seed_on_device)
    if op.endswith("_out"):
        *before, out, fill = (call.arguments[name] for name in call.arguments)
        arguments = *before, out.clone(memory_format=torch.preserve_format), fill
        out = arguments[-2]
    if call.in_place:
        out = call.out.clone(memory_format=torch.preserve_format)
        arguments = out, *arguments[1:]
    results: Any = reference_patches.OPS[op](*arguments)
    names = {
        "paint": ("out", "targets"),
        "paint_out": ("targets",),
        "paint_": ("targets",),
        "paint_targets": ("targets",),
        "sample_patches": ("rows", "sources"),
        "sample_and_paint": ("out", "targets", "rows", "sources"),
        "sample_and_paint_": ("targets", "rows", "sources"),
    }[op]
    named = dict(zip(names, results if len(names) > 1 else (results,), strict=True))
    if op.endswith("_out") or call.in_place:
        named["out"] = out
    for name in ("rows", "sources"):
        if name in named:
            assert_same_bits(getattr(done, name), named[name])
    if call.targets is not None:
        assert_same_targets(done.targets, named["targets"])
    if call.out is not None:
        assert_same_bits(done.out, named["out"])
        assert torch.equal(surroundings(done.out), surroundings(call.out if call.in_place else poisoned(call.out)))
    return done


def paint(
    images: Tensor, plan: Plan, labels: Any = None, *, others: Any = None, no_targets: bool = False, **options: Any
) -> Painted:
    if not no_targets:
        labels = random_labels(images.shape[0], CLASSES) if labels is None else labels
    other_labels = None if others is None else random_labels(others.shape[0], CLASSES, labels.dtype, seed=1)
    low, high = torch.full((16,), 3, dtype=torch.uint8).view(torch.int64).tolist()
    given = images, others, labels, other_labels, *plan
    return assert_as_reference("paint", *given, CLASSES, 0.1, torch.float32, [low, high], **options)


SHAPES = [(4, 3, 6, 9), (3, 1, 5, 32), (1, 2, 1, 1), (3, 3, 1, 40), (3, 2, 2, 7, 4), (2, 16, 7, 4), (2, 3, 30, 48)]
every_plan = pytest.mark.parametrize("name", PLANS)


@every_plan
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(name, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for patches in (1, 4):
        paint(images, random_plan(shape[0], patches, shape[0], *shape[-2:], **PLANS[name]))


@every_plan
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float64, torch.int16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_every_dtype_and_layout(name, dtype, layout):
    if name == "everything" and dtype == torch.int16:
        pytest.skip("nothing to blend")
    for width in (9, 32):
        images = random_images((4, 3, 6, width), torch.uint8).to(dtype).contiguous(memory_format=layout)
        paint(images, random_plan(4, 3, 4, 6, width, **PLANS[name]))


@pytest.mark.parametrize("dtype", [torch.complex128, torch.int64, torch.bool], ids=str)
def test_bytes_of_any_dtype(dtype):
    for width in (9, 32):
        paint(random_images((4, 3, 6, width), dtype), random_plan(4, 3, 4, 6, width, **PLANS["sources"]))


def test_views_in_any_memory():
    wide = torch.rand(4, 3, 6, 40)
    for images in (wide[..., 1:33], wide[..., 4:36], wide[:, :2, 1:5, :32], wide[::2]):
        paint(images, random_plan(len(images), 2, len(images), *images.shape[-2:], **PLANS["sources"]))


@pytest.mark.parametrize("samples", [2, 4, 9])
def test_other_numbers_of_samples_and_a_second_batch(samples):
    images, others = torch.rand(4, 3, 6, 16), torch.rand(3, 3, 6, 16)
    paint(images, random_plan(samples, 2, 7, 6, 16, **PLANS["everything"]), others=others)
    paint(images, random_plan(samples, 2, 4, 6, 16, **PLANS["masks"], weights=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_targets_alone(dtype):
    plan = random_plan(5, 3, 5, 9, 11, **PLANS["everything"])
    parts = plan.rows, plan.masks, plan.weights
    for labels in (random_labels(5, 300), soft_labels(5, 300, torch.float16), random_labels(5, 300, torch.uint8)):
        assert_as_reference("paint_targets", labels, None, *parts, 9, 11, 300, 0.1, dtype)


def test_rows_that_may_not_be_followed():
    """Such samples are kept, and their targets NaN."""
    images, labels = torch.rand(11, 2, 6, 8), random_labels(11, CLASSES)
    plan = random_plan(11, 2, 11, 6, 8, masks=(3, 3), sources=True, weights=True)
    rows, sources, weights = plan.rows, plan.sources, plan.weights
    whole = torch.tensor([0, 0, 6, 8], dtype=torch.int32)
    rows[:, :, 1:5], rows[:, :, 6], sources[:] = whole, PASTE, whole
    for sample, (column, value) in enumerate([(0, -1), (0, 11), (1, -1), (3, 7), (4, 9), (2, 9), (6, 4), (7, 6)]):
        rows[sample, sample % 2, column] = value
    sources[8, 1] = torch.tensor([0, 0, 7, 8])
    sources[9, 0] = torch.tensor([3, 3, 3, 5])
    weights[10, 1] = -1e-9
    done = paint(images, plan, labels)
    assert done.targets.isnan().all()
    assert torch.equal(done.out, images)
    labels[3] = CLASSES
    done = paint(images[:4], random_plan(4, 1, 4, 6, 8, kinds=(KEEP,)), labels[:4])
    assert done.targets.isnan().all(dim=1).tolist() == [False, False, False, True]


def test_out_between_other_bytes():
    images = torch.rand(3, 2, 6, 32)
    plan = random_plan(5, 2, 3, 6, 32, **PLANS["sources"])
    for wide in (torch.zeros(5, 2, 6, 40)[..., 4:36], torch.zeros(5, 2, 6, 40)[..., 3:35]):
        parts = images, None, None, None, *plan
        assert_as_reference("paint_out", *parts, 0, 0.0, torch.float32, wide, [0, 0])


def test_strided_images_are_copied_first():
    assert strided(torch.rand(3, 2, 6, 8)).stride(-1) == 3


DRAWS: dict[str, tuple[tuple[float, ...], list[int]]] = {  # bounds, and the integers of the op
    "holes": (only("cutout", 0.8), [0, 3, 0, 3, 3]),
    "inside": (only("cutout", 0.8), [1, 3, 1, 2, 2]),
    "pairs": (only("cutout", 0.8), [1, 1, 0, 2, 2]),
    "resizemix": (only("resizemix", 0.8), [0, 3, 0, 1, 1]),
    "ricap": (only("ricap", 0.8), [0, 3, 0, 1, 4]),
    "ricap of a batch": (only("ricap", 0.8), [2, 3, 0, 1, 4]),
    "every method": ((0.15, 0.4, 0.55, 0.7, 0.95), [0, 3, 0, 1, 4]),
    "every method, inside": ((0.15, 0.4, 0.55, 0.7, 0.95), [0, 2, 1, 5, 5]),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("seed_on_device", [False, True], ids=["by_value", "on_device"])
def test_drawn_in_the_launch(name, seed_on_device):
    draw = SEED, TABLES, *DRAWS[name]
    for batch, height, width in ((1, 7, 8), (16, 7, 32), (9, 7, 9), (9, 1, 32)):
        images = torch.rand(batch, 3, height, width)
        rest = random_labels(batch, CLASSES), *draw, CLASSES, 0.1, torch.float32
        assert_as_reference("sample_and_paint", images, *rest, seed_on_device=seed_on_device)
        assert_as_reference("sample_patches", *draw, batch, height, width, seed_on_device=seed_on_device)


def test_traffic_is_one_read_and_one_write():
    """Of RICAP whose patches cover the image, each byte of it is read once, but for those on the edges of patches."""
    batch, side = 4, 64
    images = torch.rand(batch, 3, side, side)
    draw = SEED, TABLES, only("ricap"), [0, 3, 0, 1, 4]
    call = patches_call("sample_and_paint", images, None, *draw, 0, 0.0, torch.float32)
    report = execute_patches(call).report
    assert report.buffers["out"].bytes_written == images.nbytes
    assert report.buffers["out"].sectors_written == images.nbytes // SECTOR
    assert report.buffers["images"].sectors_read <= images.nbytes // SECTOR


@pytest.mark.parametrize("soft", [False, True])
def test_traffic_of_masks_is_theirs_beside(soft):
    """A mask whose cells are whole sectors of the images makes nothing of them be read twice; its own bytes are read
    once for each channel, which finds them in the cache."""
    batch, channels, side = 4, 3, 64
    images = torch.rand(batch, channels, side, side)
    cells = torch.rand(batch, side // 8, side // 8, generator=torch.Generator().manual_seed(0)) > 0.5
    masks = cells.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.float32 if soft else torch.bool)
    rows = torch.tensor([[0, 0, side, side, 0, PASTE]]).expand(batch, 1, 6)
    partner, number = torch.arange(batch).flip(0)[:, None, None], torch.arange(1, batch + 1)[:, None, None]
    rows = torch.cat([partner, rows, number], dim=2).to(torch.int32)
    parts = images, None, None, None, rows, None, masks, None
    report = execute_patches(patches_call("paint", *parts, 0, 0.0, torch.float32, [0, 0])).report
    assert report.buffers["out"].bytes_written == images.nbytes
    assert report.buffers["images"].sectors_read <= images.nbytes // SECTOR
    assert report.buffers["masks"].bytes_read <= channels * masks.nbytes


# ---- Patches as they are elsewhere, and masks of a cell for each pixel


def shifted_plan(patches: int, height: int, width: int, **options: Any) -> Plan:
    """Four samples, of whose patches each has a source of its own size; and at the ends of rows boxes of one pixel,
    from the first pixel of the batch and from the last one."""
    plan = random_plan(4, patches, 4, height, width, kinds=(PASTE, PASTE, FILL), **options)
    rows, sources = plan.rows, plan.rows[..., 1:5].clone()
    ends = torch.tensor([[0, 0, 1, 1], [height - 1, width - 1, height, width]], dtype=torch.int32)
    rows[0, -1, 0], rows[1, -1, 0] = 0, 3
    rows[:2, -1, 1:5], rows[:2, -1, 6] = ends.flip(0), PASTE
    sources[:2, -1] = ends
    generator = torch.Generator().manual_seed(patches)
    for sample, patch in torch.cartesian_prod(torch.arange(4), torch.arange(patches)).tolist():
        if sample < 2 and patch == patches - 1:
            continue
        y0, x0, y1, x1 = rows[sample, patch, 1:5].tolist()
        y = int(torch.randint(height - (y1 - y0) + 1, (), generator=generator))
        x = int(torch.randint(width - (x1 - x0) + 1, (), generator=generator))
        sources[sample, patch] = torch.tensor([y, x, y + y1 - y0, x + x1 - x0])
    return plan._replace(rows=rows, sources=sources)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_patches_from_other_places(dtype, layout):
    for patches, width in ((1, 48), (4, 48), (4, 9), (64, 48)):
        images = random_images((4, 3, 5, width), torch.uint8).to(dtype).contiguous(memory_format=layout)
        paint(images, shifted_plan(patches, 5, width), no_targets=patches == 64)  # which take a minute here


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("first", [0, 1, 8])
def test_masks_of_a_cell_for_each_pixel(dtype, first):
    """Whose memory begins anywhere, and which may lie upon each other."""
    for patches, width in ((1, 48), (3, 48), (2, 9)):
        plan = shifted_plan(patches, 5, width, masks=(5, width))
        plan.rows[2:, 0, 1:5] = torch.tensor([1, 0, 4, width])
        assert plan.sources is not None and plan.masks is not None
        plan.sources[2:, 0] = plan.rows[2:, 0, 1:5]
        masks = torch.empty(first + plan.masks.numel(), dtype=torch.bool)[first:].view(plan.masks.shape)
        masks.copy_(plan.masks)
        paint(random_images((4, 3, 5, width), torch.uint8).to(dtype), plan._replace(masks=masks))


# ---- Costs


def rows_of(boxes: list[tuple[int, int, int, int]], kind: int = PASTE, mask: int = 0) -> Tensor:
    """Two samples, each with these patches of the other."""
    rows = torch.tensor([[0, *box, 0, kind, mask] for box in boxes], dtype=torch.int32).repeat(2, 1, 1)
    rows[0, :, 0] = 1
    return rows


def usual_plan(name: str, height: int, width: int) -> Plan:
    if name == "ricap":
        y, x = height * 2 // 5, width * 3 // 8 - 1
        rows = rows_of([(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)])
        apart = torch.where(rows[..., 1:3] == 0, 5, -5)
        return Plan(rows, (rows[..., 1:5] + apart.repeat(1, 1, 2)).to(torch.int32))
    if name == "resizemix":
        rows = rows_of([(3, width // 8 - 1, height // 2, width * 3 // 4 + 1)])
        return Plan(rows, torch.tensor([[[0, 0, height, width]]] * 2, dtype=torch.int32))
    if name == "holes":
        quarters = [(0, width // 3), (width // 5, width // 2), (width // 2 + 1, width - 9), (width * 3 // 4, width)]
        return Plan(rows_of([(2 + 3 * k, x0, height // 2 + 5 * k, x1) for k, (x0, x1) in enumerate(quarters)], FILL))
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    masks = (torch.sin(across / 19) + torch.cos(down / 11 + across / 40) > 0.2)[None]
    return Plan(rows_of([(0, 0, height, width)], mask=1), masks=masks if name == "mask" else 0.9 * masks)


COSTS = {  # warp instructions of PTX for each 16 bytes that a lane writes
    "ricap": {torch.uint8: 262, torch.float32: 258},
    "resizemix": {torch.uint8: 412, torch.float32: 312},
    "holes": {torch.uint8: 302, torch.float32: 278},
    "mask": {torch.uint8: 335, torch.float32: 262},
    "soft": {torch.uint8: 1580, torch.float32: 640},
}


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_instructions(name, dtype):
    """In the time that 280 take, an H100's memory moves the 16 bytes."""
    images = random_images((2, 3, 48, 224), torch.uint8).to(dtype)
    report = paint(images, usual_plan(name, 48, 224), no_targets=True).report
    spent = report.warp_instructions / (images.nbytes / (VECTOR * WARP))
    assert spent <= COSTS[name][dtype], report.hottest()


@pytest.mark.parametrize(("name", "most"), [("ricap", 600), ("holes", 470), ("mask", 970), ("soft", 10000)])
def test_targets_take_no_long_chains(name, most):
    """Of the one block that writes a sample's target, of 1000 classes, a warp's part of the instructions; the bool mask
    is of 50176 cells."""
    plan = usual_plan(name, 224, 224)
    labels = random_labels(2, 1000)
    done = assert_as_reference(
        "paint_targets", labels, None, plan.rows, plan.masks, None, 224, 224, 1000, 0.1, torch.float32
    )
    warps = done.launch["grid"] * done.launch["block"] // WARP
    assert done.launch["grid"] == 2
    assert done.report.warp_instructions / warps <= most, done.report.hottest()


# ---- In place


def paint_in_place(images: Tensor, plan: Plan, labels: Any = None, **options: Any) -> Painted:
    labels = random_labels(images.shape[0], CLASSES) if labels is None else labels
    low, high = torch.full((16,), 3, dtype=torch.uint8).view(torch.int64).tolist()
    rest = CLASSES, 0.1, torch.float32, [low, high]
    done = assert_as_reference("paint_", images, labels, *plan, *rest, **options)
    assert done.launch["kernel"].startswith("paint_in_place")
    return done


@every_plan
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_in_place(name, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for patches in (1, 4):
        paint_in_place(images, in_pairs(random_plan(shape[0], patches, shape[0], *shape[-2:], **PLANS[name])))


@every_plan
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float64, torch.int16, torch.complex128], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_every_dtype_and_layout_in_place(name, dtype, layout):
    if name == "everything" and dtype in (torch.int16, torch.complex128):
        pytest.skip("nothing to blend")
    for width in (9, 32):
        images = random_images((5, 3, 6, width), torch.uint8).to(dtype).contiguous(memory_format=layout)
        paint_in_place(images, in_pairs(random_plan(5, 3, 5, 6, width, **PLANS[name])))


def test_views_in_place():
    wide = torch.rand(4, 3, 6, 40)
    for images in (wide[..., 1:33], wide[..., 4:36], wide[:, :2, 1:5, :32], wide[::2]):
        paint_in_place(images, in_pairs(random_plan(len(images), 2, len(images), *images.shape[-2:])))


@pytest.mark.parametrize("width", [9, 32])
def test_samples_that_do_not_exchange_in_pairs(width):
    """Are left, and nobody reads what another writes."""
    for patches in (1, 3):
        plan = random_plan(12, patches, 12, 6, width, kinds=(KEEP, PASTE, BLEND, FILL), seed=patches)
        rows = in_pairs(plan).rows
        rows[::3, 0, 0] = plan.rows[::3, 0, 0]
        rows[0, 0, 0], rows[1, 0, 0], rows[2, -1, 4] = -1, 12, width + 1
        done = paint_in_place(torch.rand(12, 2, 6, width), Plan(rows))
        assert done.targets.isnan().any() and not done.targets.isnan().all()
        everyone = rows.clone()
        everyone[..., 0] = 5
        paint_in_place(torch.rand(12, 2, 6, width), Plan(everyone))


@pytest.mark.parametrize("name", ["holes", "inside", "pairs"])
@pytest.mark.parametrize("seed_on_device", [False, True], ids=["by_value", "on_device"])
def test_holes_drawn_in_place(name, seed_on_device):
    for batch, width in ((1, 8), (6, 32), (5, 9)):
        images = torch.rand(batch, 3, 7, width)
        rest = random_labels(batch, CLASSES), SEED, TABLES, *DRAWS[name], CLASSES, 0.1, torch.float32
        assert_as_reference("sample_and_paint_", images, *rest, seed_on_device=seed_on_device)


def test_traffic_in_place_is_that_of_the_boxes():
    """Of pairs that exchange a box of whole vectors each byte of it is read once and written once."""
    images = torch.rand(4, 3, 16, 64)
    rows = torch.tensor([[1, 4, 16, 8, 48, 0, PASTE, 0]] * 4, dtype=torch.int32)
    rows[:, 0] = torch.tensor([1, 0, 3, 2])
    done = paint_in_place(images, Plan(rows[:, None]))
    traffic = done.report.buffers["images"]
    assert traffic.bytes_read == traffic.bytes_written == 4 * 3 * 4 * 32 * 4
    rows[:, 6] = FILL
    traffic = paint_in_place(images, Plan(rows[:, None])).report.buffers["images"]
    assert (traffic.bytes_read, traffic.bytes_written) == (0, 4 * 3 * 4 * 32 * 4)


# ---- Masks of each channel


@pytest.mark.parametrize("soft", [False, True], ids=["bool", "soft"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_masks_of_each_channel(soft, dtype, layout):
    if soft and dtype in (torch.int16, torch.complex128):
        pytest.skip("nothing to blend")
    for channels, width in ((3, 9), (4, 32)):
        images = random_images((4, channels, 6, width), torch.uint8).to(dtype).contiguous(memory_format=layout)
        kinds = (PASTE, BLEND, FILL) if soft else (PASTE, FILL)
        plan = random_plan(4, 3, 4, 6, width, kinds=kinds, masks=(channels, 3, 4), soft=soft)
        assert paint(images, plan).launch["kernel"].startswith("paint_channels")
        paint_in_place(images, in_pairs(plan))


def test_masks_of_each_channel_of_a_video():
    video = torch.rand(3, 2, 3, 5, 8)
    for images in (video, video.transpose(1, 2).contiguous().transpose(1, 2)):
        plan = random_plan(3, 2, 3, 5, 8, masks=(2, 5, 8), soft=True)
        paint(images, plan)
        paint_in_place(images, in_pairs(plan))


def test_targets_alone_of_masks_of_each_channel():
    plan = random_plan(3, 2, 3, 9, 11, kinds=(PASTE, BLEND), masks=(7, 4, 5), soft=True)
    assert_as_reference(
        "paint_targets", random_labels(3, 5), None, plan.rows, plan.masks, None, 9, 11, 5, 0.1, torch.float32
    )
