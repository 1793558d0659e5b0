"""The compiled kernels of the batch tail, executed with the launches that a user's calls make, against the reference.

As test_ptx_kernels.py: the interpreter in tests/ptx raises at the first access out of bounds, race, or use of what was
never written. tests/ops/test_augment.py holds the reference itself to an oracle.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from cutmix_cuda import reference, reference_augment
from cutmix_cuda._ops import EraseOrder, EraseValue, Kind, MemoryFormat, Partner, ViewChoices, ViewParameters

from ..helpers import assert_same_bits, random_labels
from ..ptx.machine import WARP
from .augment_execution import Augmented, AugmentMemory, augment_call, augment_launch, execute_augment
from .execution import SECTOR, UNIFORM, bounds_of, needs_cuda
from .test_ptx_kernels import assert_same_targets, plan_rows, poisoned, surroundings

pytestmark = needs_cuda

SEED = torch.tensor([20200207])
EVERY_KIND = (0.3, 0.6, 0.8)  # bounds: cutmix, mixup, cutout, and the rest is kept
NO_CUTOUT = (0.4, 0.8, 0.8)
CLASSES = 5
ASPECTS = (torch.linspace(0.3, 3.3, 4097) / 3.3)[None]
PLAIN = ViewParameters(), ViewChoices()
EVERYTHING = (
    ViewParameters(flip_below=0.5, erase_below=0.8, min_area=0.05, max_area=0.4, max_aspect=3.3),
    ViewChoices(translate_y=2, translate_x=3, min_boxes=1, max_boxes=2),
)
COLOUR = {
    "brightness_least": 0.6,
    "brightness_most": 1.4,
    "contrast_least": 0.5,
    "contrast_most": 1.6,
    "saturation_least": 0.0,
    "saturation_most": 2.0,
    "grey_below": 0.3,
}
COLOURED = ViewParameters(**COLOUR), ViewChoices(coloured=1)
EVERYTHING_COLOURED = EVERYTHING[0]._replace(**COLOUR), EVERYTHING[1]._replace(coloured=1)
FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def some_images(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8, layout: int = 0) -> Tensor:
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8) if dtype == torch.uint8 else (images / 16 - 7).to(dtype)
    return images.contiguous(memory_format=MemoryFormat(layout).of_torch)


def some_constants(channels: int) -> Tensor:
    numbers = torch.linspace(0.2, 1.4, channels)
    return torch.stack([100 * numbers, 0.017 / numbers, numbers - 1, -numbers])


def draw_of(bounds: tuple[float, ...] = EVERY_KIND, partner: Partner = Partner.mirror) -> tuple:
    return SEED, UNIFORM, list(bounds), [0, partner.value, 0, 1]


def views_of(how: tuple, colours: Any = None) -> tuple:
    return ASPECTS if how[1].max_boxes else ASPECTS[:0], colours, list(how[0]), list(how[1])


def assert_as_reference(op: str, *arguments: Any, architecture: int = 80, seed_on_device: bool = False) -> Augmented:
    """A call gives the reference's images, targets, plan and views, writes all of them, and nothing around images."""
    call = augment_call(op, *arguments)
    done = execute_augment(call, architecture, seed_on_device)
    out = None if call.out is None else torch.empty_strided(call.out.shape, call.out.stride(), dtype=call.out.dtype)
    if op.endswith("_out"):
        arguments = *arguments[:-1], out
    results: Any = getattr(reference_augment, op)(*arguments)
    names = {
        "sample_views": ("views",),
        "augment": ("out", "targets", "plan", "views"),
        "augment_out": ("targets", "plan", "views"),
        "apply_views": ("out", "targets"),
        "apply_views_out": ("targets",),
    }[op]
    named = {"out": out} | dict(zip(names, results if len(names) > 1 else (results,), strict=True))
    for name in ("plan", "views"):
        if name in named:
            assert_same_bits(getattr(done, name), named[name])
    if call.targets is not None:
        assert_same_targets(done.targets, named["targets"])
    if call.out is not None:
        assert_same_bits(done.out, named["out"])
        assert torch.equal(surroundings(done.out), surroundings(poisoned(call.out)))
    return done


def augment(
    images: Tensor,
    *,
    bounds: tuple[float, ...] = EVERY_KIND,
    how: tuple = EVERYTHING,
    erasing: tuple[int, int] = (0, 0),
    dtype: torch.dtype = torch.float32,
    layout: int = 0,
    partner: Partner = Partner.mirror,
    labels: Any = None,
    colours: Any = None,
    **options: Any,
) -> Augmented:
    """A call of augment as the reference does it."""
    labels = random_labels(images.shape[0], CLASSES) if labels is None else labels
    rest = CLASSES, 0.1, torch.float32, some_constants(images.shape[1]), list(erasing), dtype, layout
    return assert_as_reference(
        "augment", images, labels, *draw_of(bounds, partner), *views_of(how, colours), *rest, **options
    )


SHAPES = [(8, 3, 6, 9), (7, 1, 9, 5), (1, 4, 5, 5), (5, 5, 3, 17), (4, 16, 7, 4), (2, 3, 1, 1), (3, 3, 40, 30)]
SHAPES += [(4, 3, 1, 40)]  # whose boxes are spans


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_everything_at_once(shape):
    augment(some_images(shape))


@pytest.mark.parametrize("order", list(EraseOrder), ids=lambda order: order.name)
@pytest.mark.parametrize("value", list(EraseValue), ids=lambda value: value.name)
@pytest.mark.parametrize("width", [7, 32])
def test_every_kind_and_way_to_erase(width, value, order):
    for kind in Kind:
        augment(some_images((5, 3, 6, width)), bounds=bounds_of(kind), erasing=(value, order))
    augment(some_images((5, 6, 6, width)), erasing=(value, order))
    augment(some_images((5, 3, 6, width)), how=EVERYTHING_COLOURED, erasing=(value, order))
    augment(some_images((5, 1, 6, width)), erasing=(value, order), dtype=torch.bfloat16)
    augment(some_images((5, 3, 6, width)), erasing=(value, order), dtype=torch.float16, layout=1)


# ---- The vector kernels: rows of whole units of 8 or 16 pixels

LAYOUTS = pytest.mark.parametrize("layout", list(MemoryFormat), ids=lambda layout: layout.name)


@pytest.mark.parametrize("in_layout", list(MemoryFormat), ids=lambda layout: f"from_{layout.name}")
@LAYOUTS
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_vectors_of_every_layout_and_float(dtype, layout, in_layout):
    """Of one and three channels; blended pairs are written by one of their blocks."""
    for channels in (1, 3):
        images = some_images((4, channels, 3, 32), layout=in_layout)
        for how, bounds, path in ((EVERYTHING, EVERY_KIND, "kViewed"), (PLAIN, NO_CUTOUT, "kPlain")):
            done = augment(images, how=how, bounds=bounds, dtype=dtype, layout=layout)
            assert path_of(done) == path


def path_of(done: Augmented) -> str:
    """Of the vector kernel that was launched."""
    base, _, path = done.launch["kernel"].rstrip(">").partition("Path::")
    assert base.startswith("augment_vectors<")
    return path


PATHS = {  # views, bounds: the path that serves them
    "keep": (PLAIN, (0.0, 0.0, 0.0), "kPlain"),
    "cutmix": (PLAIN, bounds_of(Kind.cutmix), "kPlain"),
    "mixup": (PLAIN, bounds_of(Kind.mixup), "kPlain"),
    "both": (PLAIN, NO_CUTOUT, "kPlain"),
    "cutout": (PLAIN, (0.4, 0.8, 0.9), "kViewed"),
    "flips": ((ViewParameters(flip_below=0.5), ViewChoices()), NO_CUTOUT, "kViewed"),
    "shifts down": ((ViewParameters(), ViewChoices(translate_y=1)), NO_CUTOUT, "kViewed"),
    "shifts to the side": ((ViewParameters(), ViewChoices(translate_x=1)), NO_CUTOUT, "kViewed"),
    "room for a box": ((ViewParameters(), ViewChoices(max_boxes=1)), NO_CUTOUT, "kViewed"),
    "colour": (COLOURED, NO_CUTOUT, "kColoured"),
}


@pytest.mark.parametrize(("how", "bounds", "path"), PATHS.values(), ids=PATHS)
def test_the_shortest_path_that_serves(how, bounds, path):
    for partner in (Partner.mirror, Partner.roll):
        done = augment(some_images((9, 3, 4, 48)), how=how, bounds=bounds, partner=partner, dtype=torch.bfloat16)
        assert path_of(done) == path


@pytest.mark.parametrize(
    ("how", "shape", "threads"),
    [
        (PLAIN, (3, 1, 32, 32), 128),
        (PLAIN, (3, 1, 33, 32), 256),
        (EVERYTHING, (3, 1, 64, 32), 128),
        (EVERYTHING, (3, 1, 65, 32), 256),
        (EVERYTHING, (3, 1, 8, 15), 128),
        (EVERYTHING, (3, 1, 9, 15), 256),
    ],
)
def test_blocks_of_small_samples_are_small(how, shape, threads):
    """A sample of up to 128 units has a block of as many threads, in which targets, plan and views are cut as well."""
    labels = random_labels(shape[0], CLASSES)
    done = augment(some_images(shape), how=how, bounds=NO_CUTOUT, labels=labels)
    assert done.launch["block"] == threads


@pytest.mark.parametrize("layout", list(MemoryFormat), ids=lambda layout: layout.name)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_colour_by_vectors(dtype, layout):
    for kind in Kind:
        done = augment(
            some_images((4, 3, 3, 32), layout=layout), bounds=bounds_of(kind), how=COLOURED, dtype=dtype, layout=layout
        )
        assert path_of(done) == "kColoured"
    augment(some_images((4, 3, 3, 32)), how=EVERYTHING_COLOURED, dtype=dtype, layout=layout)


# ---- Pixel by pixel


@LAYOUTS
@pytest.mark.parametrize("in_dtype", FLOATS, ids=str)
def test_other_dtypes_come_in(in_dtype, layout):
    for how in (EVERYTHING, EVERYTHING_COLOURED):
        images = some_images((4, 3, 3, 16), in_dtype, layout) / 8
        done = augment(images, how=how, dtype=torch.bfloat16, layout=1 - layout)
        assert done.launch["kernel"].startswith("augment_pixels")


def test_bytes_stay_bytes():
    constants = torch.tensor([0.0, 1.0, 7.0, 200.0])[:, None].repeat(1, 3)
    for how in (EVERYTHING, EVERYTHING_COLOURED):
        rest = CLASSES, 0.0, torch.float32, constants, [0, 0], torch.uint8, 0
        labels = random_labels(4, CLASSES)
        assert_as_reference("augment", some_images((4, 3, 3, 16)), labels, *draw_of(), *views_of(how), *rest)


@pytest.mark.parametrize("width", [7, 32])
def test_given_colours(width):
    """Of any numbers."""
    colours = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(0))
    colours[0, 1, 2], colours[1, 2, 3], colours[2, 0, 0] = torch.nan, torch.inf, -torch.inf
    augment(some_images((4, 3, 3, width)), how=COLOURED, colours=colours)


# ---- Given plans and views, which may be of anyone


def given(width: int, how: tuple, bounds: tuple[float, ...] = EVERY_KIND) -> tuple:
    """Images, labels, a plan and views of them."""
    images = some_images((6, 3, 4, width))
    rest = CLASSES, 0.0, torch.float32, some_constants(3), [0, 0], torch.float32, 0
    drawn = reference_augment.augment(images, None, *draw_of(bounds), *views_of(how), *rest)
    return images, random_labels(6, CLASSES), drawn[2], drawn[3]


def apply(images: Tensor, labels: Tensor, plan: Tensor, views: Tensor, how: tuple) -> Augmented:
    rest = CLASSES, 0.1, torch.float32, some_constants(3), [EraseValue.channel, EraseOrder.before], torch.bfloat16, 0
    return assert_as_reference("apply_views", images, labels, plan, views, bool(how[1].coloured), SEED, *rest)


BAD_ROWS = [(0, 6), (0, -1), (1, 5), (2, 40), (3, 5), (4, -1), (6, 9)]  # a column, and what no row has there
BAD_QUADRUPLES = [(0, 0, 2), (0, 1, 5), (0, 2, -40), (1, 0, -1), (1, 3, 40), (2, 2, 5)]


@pytest.mark.parametrize("how", [EVERYTHING, EVERYTHING_COLOURED], ids=["plain", "coloured"])
@pytest.mark.parametrize("width", [7, 32])
def test_what_leads_outside_is_not_followed(width, how):
    """Bad rows of the plan and bad views, of cutmix and of pairs that are blended."""
    for bounds in (bounds_of(Kind.cutmix), bounds_of(Kind.mixup)):
        images, labels, plan, views = given(width, how, bounds)
        apply(images, labels, plan, views, how)
        for number, (column, value) in enumerate(BAD_ROWS[:6]):
            plan[number % 6, column] = value
            if number % 2:
                apply(images, labels, plan, views, how)
    images, labels, plan, views = given(width, how)
    for number, (quadruple, column, value) in enumerate(BAD_QUADRUPLES[:3] + BAD_QUADRUPLES[3:]):
        views[number % 6, quadruple, column] = value
        if number in (0, 3, 5):
            apply(images, labels, plan, views, how)


def test_views_alone():
    for how in (EVERYTHING, EVERYTHING_COLOURED):
        assert_as_reference("sample_views", SEED, 7, 5, 9, *views_of(how))


# ---- Memory of any strides

SHAPE = (2, 3, 4, 32)
EVEN_STRIDES = {"planes": (1024, 256, 48, 1), "pixels": (1024, 1, 112, 3)}  # rows with gaps between them


def view_of_memory(shape: tuple[int, ...], dtype: torch.dtype, layout: str, odd: str, by: int) -> Tensor:
    """Images whose rows begin at multiples of 16 bytes, but for one stride, or the address, that is off by elements."""
    strides = dict(zip(("sample", "channel", "row", "pixel"), EVEN_STRIDES[layout], strict=True))
    offset = by if odd == "address" else 0
    if odd in strides:
        strides[odd] += by
    values = some_images(shape)
    memory = torch.full((4096,), 77, dtype=dtype)
    return memory.as_strided(shape, tuple(strides.values()), offset).copy_(values)


def augment_into(images: Tensor, out: Tensor, how: tuple = EVERYTHING, bounds: tuple[float, ...] = EVERY_KIND) -> str:
    """Checks a call of augment_out, and returns the kernel that it launched."""
    labels = random_labels(len(images), CLASSES)
    rest = CLASSES, 0.1, torch.float32, some_constants(images.shape[1]), [0, 0], out
    done = assert_as_reference("augment_out", images, labels, *draw_of(bounds), *views_of(how), *rest)
    return done.launch["kernel"]


ODD_STRIDES = [*(("planes", odd) for odd in ("address", "sample", "channel", "row"))]
ODD_STRIDES += [("pixels", odd) for odd in ("address", "sample", "row")]


@pytest.mark.parametrize(("layout", "odd"), ODD_STRIDES)
@pytest.mark.parametrize(
    ("whose", "dtype", "by"), [("images", torch.float32, 1), ("out", torch.float32, 1), ("out", torch.float16, 4)]
)
def test_every_stride_counts_for_vectors(whose, dtype, by, layout, odd):
    """With one that is odd, a thread takes pixel by pixel; where it leads nowhere, vectors all the same."""
    odd_or_not = {"images": "none", "out": "none", whose: odd}
    images = view_of_memory(SHAPE, torch.uint8, layout, odd_or_not["images"], by)
    out = view_of_memory(SHAPE, dtype, layout, odd_or_not["out"], by)
    assert augment_into(images, out) == "augment_pixels<false>"
    dim = {"address": None, "sample": 0, "channel": 1, "row": 2}[odd]
    if dim is not None:
        few = (slice(None),) * dim + (slice(1),)
        assert augment_into(images[few], out[few]).startswith("augment_vectors<")


@pytest.mark.parametrize("layouts", [*itertools.product(EVEN_STRIDES, EVEN_STRIDES)], ids="-to-".join)
def test_rows_with_gaps_between_them(layouts):
    images, out = (
        view_of_memory(SHAPE, dtype, layout, "none", 0)
        for layout, dtype in zip(layouts, (torch.uint8, torch.bfloat16), strict=True)
    )
    assert augment_into(images, out) == "augment_vectors<ElementBF16,3,Path::kViewed>"
    assert augment_into(images, out, PLAIN, NO_CUTOUT) == "augment_vectors<ElementBF16,3,Path::kPlain>"


@pytest.mark.parametrize("what", [Kind.keep, Kind.cutout], ids=lambda what: what.name)
def test_a_label_that_only_the_partner_has(what):
    """Who keeps the own target does not look at the partner's label, which may be none."""
    images, labels = some_images((4, 3, 3, 16)), torch.tensor([0, CLASSES, -1, 2])
    plan = plan_rows(*((k ^ 1, (0, 0, 2, 5), what if labels[k] in (0, 2) else Kind.cutmix) for k in range(4)))
    views = torch.zeros(4, 1, 4, dtype=torch.int32)
    rest = CLASSES, 0.1, torch.float32, some_constants(3), [0, 0], torch.float32, 0
    done = assert_as_reference("apply_views", images, labels, plan, views, False, SEED, *rest)
    assert path_of(done) == "kViewed", "whatever a given plan holds"
    assert done.targets.isnan().all(1).tolist() == done.targets.isnan().any(1).tolist() == [False, True, True, False]


# ---- Costs: warp instructions of PTX for each 16 elements of bfloat16 that a lane writes
#
# The conversion of bytes takes 32 of them, (x - mean) * scale 32, that into pairs of bfloat16 8. To these come loads,
# stores, and the draws of a block for its samples; cutmix chooses between the bytes of two samples, flips and shifts
# join words at any byte, mixup normalises two samples, and colour takes 8 an element. Few moves are machine code. The
# plain kernel takes 35 to 60 more than the viewed one would, because it looks at box and kind every 8 pixels and its
# blocks are shorter; it takes a third less time (augment_geometry.h), because more of its blocks run at the same time.

FLIPS_AND_SHIFTS = ViewParameters(flip_below=0.5), ViewChoices(translate_y=8, translate_x=8)
ERASING = (  # a quarter of the samples, as timm's and torchvision's recipes do
    ViewParameters(flip_below=0.5, erase_below=0.25, min_area=0.02, max_area=0.33, max_aspect=3.3),
    ViewChoices(translate_y=4, translate_x=4, min_boxes=1, max_boxes=1),
)
COSTS = {  # kind, views, layout of out: all instructions, and those that are no moves between registers
    "keep": (Kind.keep, PLAIN, 0, 237, 183),
    "keep into channels-last": (Kind.keep, PLAIN, 1, 235, 181),
    "cutmix": (Kind.cutmix, PLAIN, 0, 295, 233),
    "cutmix with flips and shifts": (Kind.cutmix, FLIPS_AND_SHIFTS, 0, 293, 226),
    "mixup": (Kind.mixup, PLAIN, 0, 350, 287),
    "mixup with flips and shifts": (Kind.mixup, FLIPS_AND_SHIFTS, 0, 350, 282),
    "keep with colour": (Kind.keep, COLOURED, 0, 353, 298),
    "cutmix with colour": (Kind.cutmix, COLOURED, 0, 524, 430),
    "mixup with colour": (Kind.mixup, COLOURED, 0, 601, 535),
}


def pair_of_the_first(batch: int, bounds: tuple[float, ...]) -> Tensor:
    """A seed by which the first two samples are each other's partner."""
    drawn = (
        (seed, reference.sample_plan(seed, UNIFORM, list(bounds), [0, Partner.mirror.value, 0, 1], batch, 4, 4))
        for seed in (torch.tensor([number]) for number in itertools.count())
    )
    return next(seed for seed, plan in drawn if plan[0, 0] == 1)


def instructions_of(
    kind: Kind, how: tuple, layout: int, erasing: tuple[int, int] = (0, 0), samples: int = 2
) -> tuple[float, float]:
    """All, and those that are no moves: of a training batch the blocks of some samples, which draw its plan and views.

    Unless it is more, of the first two, which are a pair.
    """
    batch = 128
    images = torch.zeros(batch, 3, 224, 224, dtype=torch.uint8)
    bounds = bounds_of(kind)
    rest = 0, 0.0, torch.float32, some_constants(3), list(erasing), torch.bfloat16, layout
    draw = pair_of_the_first(batch, bounds), *draw_of(bounds)[1:]
    call = augment_call("augment", images, None, *draw, *views_of(how), *rest)
    blocks_of_sample, first = divmod(augment_launch(call, AugmentMemory(call))["grid"], batch)  # after plan and views
    report = execute_augment(call, blocks=range(first, first + samples * blocks_of_sample)).report
    written = report.buffers["out"]
    assert written.bytes_written == written.sectors_written * SECTOR == samples * 2 * 3 * 224 * 224
    units = written.bytes_written / 2 / 16 / WARP
    moves = sum(count.executed for count in report.matching("mov"))
    return report.warp_instructions / units, (report.warp_instructions - moves) / units


@pytest.mark.parametrize(("kind", "how", "layout", "most", "most_without_moves"), COSTS.values(), ids=COSTS)
def test_costs(kind, how, layout, most, most_without_moves):
    spent, without_moves = instructions_of(kind, how, layout)
    assert spent <= most and without_moves <= most_without_moves, (spent, without_moves)


ERASING_COSTS = {  # as above, over samples of which a quarter is erased
    "constant": (EraseValue.constant, EraseOrder.before, 0, 347),
    "constant after mixing": (EraseValue.constant, EraseOrder.after, 0, 344),
    "constant into channels-last": (EraseValue.constant, EraseOrder.before, 1, 343),
    "channel": (EraseValue.channel, EraseOrder.before, 0, 391),
    "pixel": (EraseValue.pixel, EraseOrder.before, 0, 507),
}


@pytest.mark.parametrize(("value", "order", "layout", "most"), ERASING_COSTS.values(), ids=ERASING_COSTS)
def test_costs_of_erasing(value, order, layout, most):
    spent, _ = instructions_of(Kind.cutmix, ERASING, layout, (value, order), samples=24)
    assert spent <= most, spent
