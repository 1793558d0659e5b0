"""The ops of the batch tail: pixels, targets, plans and views of every backend against the oracle, bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from cutmix_cuda._backends import ops_for
from cutmix_cuda._ops import AUGMENTED_DTYPES, MemoryFormat

from ..helpers import (
    Backend,
    assert_same_bits,
    at_odd_address,
    bytes_on_cpu,
    every_backend,
    every_compiled_backend,
    oracle_plan,
    oracle_targets,
    packed,
    random_labels,
    strided,
)
from ..oracle_augment import DrawnViews, Values, View, oracle_augmented, oracle_view, packed_views

SEED = 20200207
TABLES = np.tile(np.arange(4097, dtype=np.float32) / 4096, (3, 1))  # alpha = 1, of every kind
ASPECTS = (np.geomspace(0.3, 3.3, 4097) / 3.3).astype(np.float32)
BOUNDS = {"keep": (0.0, 0.0, 0.0), "cutmix": (1.0,) * 3, "mixup": (0.0, 1.0, 1.0), "cutout": (0.0, 0.0, 1.0)}
ALL_KINDS = (0.3, 0.6, 0.8)
PLAIN = DrawnViews()
EVERYTHING = DrawnViews(0.5, 0.8, (0.05, 0.4), 3.3, (2, 3), (1, 2))
COLOURED = DrawnViews(brightness=(0.6, 1.4), contrast=(0.5, 1.6), saturation=(0.0, 2.0), grey=0.3, coloured=1)
EVERYTHING_COLOURED = EVERYTHING._replace(**{name: getattr(COLOURED, name) for name in COLOURED._fields[7:]})
LAYOUTS = (torch.contiguous_format, torch.channels_last)
OUT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def some_values(channels: int, erase_value: str = "constant", erase_order: str = "before") -> Values:
    numbers = np.linspace(0.2, 1.4, channels)
    return Values(
        (100 * numbers).tolist(),
        (0.017 / numbers).tolist(),
        (numbers - 1).tolist(),
        (-numbers).tolist(),
        erase_value,
        erase_order,
    )


def identity_values(channels: int) -> Values:
    return Values([0.0] * channels, [1.0] * channels, [7.0] * channels, [200.0] * channels)


def some_images(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8, seed: int = 0) -> Tensor:
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(seed))
    return images.to(torch.uint8) if dtype == torch.uint8 else (images / 16 - 7).to(dtype)


def constants_for(values: Values, backend: Backend) -> Tensor:
    return values.constants if len(values.mean) <= 4 else values.constants.to(backend.device)


def draw_arguments(backend: Backend, bounds: tuple[float, ...], how: DrawnViews) -> list:
    tables = torch.from_numpy(TABLES).to(backend.device), torch.from_numpy(ASPECTS[None]).to(backend.device)
    mirror = [0, 3, 0, 1]  # each sample its own draw, boxes clipped, lambda corrected
    return [torch.tensor([SEED]), tables[0], list(bounds), mirror, tables[1], None, how.parameters, how.choices]


def expected_draws(shape: tuple[int, ...], bounds: tuple[float, ...], how: DrawnViews):
    batch, _, height, width = shape
    plan = oracle_plan(SEED, TABLES, batch, height, width, bounds=bounds)
    return plan, [oracle_view(how, ASPECTS, height, width, SEED, i) for i in range(batch)]


def check_augment(
    backend: Backend,
    images: Tensor,
    bounds: tuple[float, ...] = ALL_KINDS,
    how: DrawnViews = EVERYTHING,
    values: Values | None = None,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> None:
    """Drawn and given, allocated and into out: all the same."""
    ops = ops_for(backend.name, torch.device(backend.device))
    batch, channels, *_ = images.shape
    values = values or some_values(channels)
    plan, views = expected_draws(tuple(images.shape), bounds, how)
    labels = random_labels(batch, 5)
    expected = oracle_augmented(images, plan, views, values, SEED, dtype)
    expected_targets = oracle_targets(labels, plan, 5, 0.1)

    images, labels = images.to(backend.device), labels.to(backend.device)
    untouched = images.clone()
    layout = 1 if memory_format == torch.channels_last else 0
    targets_as = 5, 0.1, torch.float32
    value_arguments = constants_for(values, backend), values.erasing
    drawn_by = draw_arguments(backend, bounds, how)

    out, targets, drawn_plan, drawn_views = ops.augment(
        images, labels, *drawn_by, *targets_as, *value_arguments, dtype, layout
    )
    assert_same_bits(drawn_plan.cpu(), packed(plan))
    assert_same_bits(drawn_views.cpu(), packed_views(views, how.boxes[1]))
    assert_same_bits(out, expected)
    assert_same_bits(targets, expected_targets)
    assert out.is_contiguous(memory_format=memory_format)
    sizes = images.shape[0], *images.shape[2:]
    assert_same_bits(ops.sample_views(drawn_by[0], *sizes, *drawn_by[4:]).cpu(), packed_views(views, how.boxes[1]))

    given = drawn_plan, drawn_views, bool(how.coloured), drawn_by[0]
    out, targets = ops.apply_views(images, labels, *given, *targets_as, *value_arguments, dtype, layout)
    assert_same_bits(out, expected)
    assert_same_bits(targets, expected_targets)
    assert out.is_contiguous(memory_format=memory_format)

    out = torch.zeros_like(out)
    targets, *_ = ops.augment_out(images, None, *drawn_by, *targets_as, *value_arguments, out)
    assert_same_bits(out, expected)
    assert targets.shape == (batch, 0)
    out.zero_()
    ops.apply_views_out(images, None, *given, *targets_as, *value_arguments, out)
    assert_same_bits(out, expected)
    assert_same_bits(images, untouched)


@every_backend
@pytest.mark.parametrize(
    "shape", [(8, 3, 6, 9), (7, 1, 9, 5), (1, 4, 5, 5), (5, 5, 3, 17), (4, 16, 7, 4), (2, 3, 1, 1), (8, 3, 1, 40)]
)
def test_everything_at_once(backend, shape, poisoned_memory):
    check_augment(backend, some_images(shape))


@every_backend
@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("erase_order", ["before", "after"])
@pytest.mark.parametrize("erase_value", ["constant", "channel", "pixel"])
def test_every_kind_and_way_to_erase(backend, kind, erase_value, erase_order):
    for channels in (3, 6):
        values = some_values(channels, erase_value, erase_order)
        check_augment(backend, some_images((5, channels, 7, 10)), BOUNDS[kind], EVERYTHING, values)


@every_backend
@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_every_layout_to_every_layout(backend, channels, layout, memory_format):
    images = some_images((4, channels, 7, 10)).contiguous(memory_format=layout)
    for dtype in OUT_DTYPES:
        check_augment(backend, images, dtype=dtype, memory_format=memory_format)


@every_backend
@pytest.mark.parametrize("dtype", OUT_DTYPES)
@pytest.mark.parametrize("in_dtype", AUGMENTED_DTYPES)
def test_every_dtype_to_every_dtype(backend, in_dtype, dtype):
    check_augment(backend, some_images((4, 3, 7, 10), in_dtype), dtype=dtype)


@every_backend
@pytest.mark.parametrize("how", [PLAIN, EVERYTHING])
def test_uint8_stays_uint8_where_nothing_is_normalised(backend, how):
    values = identity_values(3)
    check_augment(backend, some_images((8, 3, 7, 10)), ALL_KINDS, how, values, torch.uint8)


@every_backend
@pytest.mark.parametrize(
    "how",
    [
        PLAIN,
        DrawnViews(flip=1.0),
        DrawnViews(translate=(3, 0)),
        DrawnViews(translate=(0, 50)),
        DrawnViews(erase=1.0, max_aspect=3.3, boxes=(2, 3), first_erased=2),
    ],
    ids=["plain", "flip", "translate", "translate out of sight", "erase"],
)
def test_each_part_of_a_view(backend, how):
    check_augment(backend, some_images((5, 3, 8, 11)), how=how)


@every_backend
@pytest.mark.parametrize("in_dtype", AUGMENTED_DTYPES)
@pytest.mark.parametrize(
    "how",
    [PLAIN, COLOURED, DrawnViews(erase=0.5, max_aspect=3.3, boxes=(1, 1)), DrawnViews(flip=0.5)],
    ids=["plain", "colour", "erase", "flip"],
)
def test_rows_as_they_lie_in_the_image(backend, how, in_dtype):
    """Narrow ones go through the CPU several at a time, up to the box that something else begins with."""
    for bounds in BOUNDS.values():
        check_augment(backend, some_images((4, 3, 8, 11), in_dtype), bounds, how)


# ---- Colour


@every_backend
@pytest.mark.parametrize("how", [COLOURED, EVERYTHING_COLOURED], ids=["colour", "everything"])
@pytest.mark.parametrize("shape", [(8, 3, 6, 9), (1, 3, 5, 5), (3, 3, 3, 37), (2, 3, 1, 1)])
def test_colour(backend, shape, how, poisoned_memory):
    check_augment(backend, some_images(shape), how=how)


@every_backend
@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("erase_order", ["before", "after"])
@pytest.mark.parametrize("erase_value", ["constant", "pixel"])
def test_colour_of_every_kind_and_way_to_erase(backend, kind, erase_value, erase_order):
    values = some_values(3, erase_value, erase_order)
    check_augment(backend, some_images((5, 3, 7, 20)), BOUNDS[kind], EVERYTHING_COLOURED, values)


@every_backend
@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("in_dtype", AUGMENTED_DTYPES)
def test_colour_of_every_dtype_and_layout(backend, in_dtype, layout, memory_format):
    images = some_images((4, 3, 7, 20)) / 255 if in_dtype != torch.uint8 else some_images((4, 3, 7, 20))
    images = images.to(in_dtype).contiguous(memory_format=layout)
    for dtype in OUT_DTYPES:
        check_augment(backend, images, how=EVERYTHING_COLOURED, dtype=dtype, memory_format=memory_format)


@every_backend
def test_floats_are_clamped_to_one(backend):
    check_augment(backend, some_images((4, 3, 7, 10), torch.float32), how=COLOURED)


@every_backend
def test_coloured_uint8_stays_uint8_where_nothing_is_normalised(backend):
    values = identity_values(3)
    check_augment(backend, some_images((8, 3, 7, 10)), ALL_KINDS, EVERYTHING_COLOURED, values, torch.uint8)


@every_backend
def test_colour_of_views_of_memory(backend):
    for view in views_of(some_images((3, 3, 7, 10))):
        check_augment(backend, view, how=EVERYTHING_COLOURED)


@every_backend
def test_given_colours(backend):
    """Matrices of any numbers, in a call that draws the rest; they come back in the views."""
    shape = 5, 3, 6, 20
    images, values = some_images(shape), some_values(3)
    colours = np.random.default_rng(0).normal(0, 1, (5, 3, 4)).astype(np.float32)
    colours[1, 0, 2], colours[2, 1, 3] = np.nan, np.inf
    plan, views = expected_draws(shape, ALL_KINDS, EVERYTHING_COLOURED)
    views = [view._replace(colour=matrix) for view, matrix in zip(views, colours, strict=True)]
    expected = oracle_augmented(images, plan, views, values, SEED, torch.float32)
    arguments = draw_arguments(backend, ALL_KINDS, EVERYTHING_COLOURED)
    arguments[5] = torch.from_numpy(colours).to(backend.device)
    out, _, _, drawn = ops_for(backend.name, torch.device(backend.device)).augment(
        images.to(backend.device), None, *arguments, 0, 0.0, torch.float32, values.constants, values.erasing,
        torch.float32, 0,
    )  # fmt: skip
    assert_same_bits(out, expected)
    assert torch.equal(drawn[:, -3:].cpu(), torch.from_numpy(colours).view(torch.int32))


@every_backend
def test_the_rest_of_a_view_does_not_depend_on_colour(backend):
    ops = ops_for(backend.name, torch.device(backend.device))
    plain, coloured = (
        ops.sample_views(torch.tensor([SEED]), 9, 6, 8, *draw_arguments(backend, ALL_KINDS, how)[4:])
        for how in (EVERYTHING, EVERYTHING_COLOURED)
    )
    assert torch.equal(coloured[:, :-3], plain)


def views_of(images: Tensor) -> list[Tensor]:
    """The same images in memory that is not simply dense."""
    batch, channels, height, width = images.shape
    wide = torch.zeros(batch, channels, height + 1, width + 3, dtype=images.dtype)
    wide[..., 1:, 3:] = images
    deep = torch.zeros(batch, height, width, channels + 2, dtype=images.dtype)
    deep[..., 2:] = images.permute(0, 2, 3, 1)
    return [
        wide[..., 1:, 3:],
        deep[..., 2:].permute(0, 3, 1, 2),
        images.repeat_interleave(2, dim=3)[..., ::2],
        images.transpose(2, 3).contiguous().transpose(2, 3),
        images.transpose(0, 1).contiguous().transpose(0, 1),
        images.flip(0).contiguous().flip(0),
    ]


@every_backend
@pytest.mark.parametrize("shape", [(4, 3, 7, 10), (3, 1, 5, 6), (3, 3, 4, 1), (2, 2, 1, 5)])
def test_views_of_memory(backend, shape):
    """Images and out of any strides; what lies between the elements of out is not written to."""
    images = some_images(shape)
    for view in views_of(images):
        check_augment(backend, view)
    ops = ops_for(backend.name, torch.device(backend.device))
    values = some_values(shape[1])
    plan, views = expected_draws(shape, ALL_KINDS, EVERYTHING)
    expected = oracle_augmented(images, plan, views, values, SEED, torch.float32)
    drawn_by = draw_arguments(backend, ALL_KINDS, EVERYTHING)
    for out in views_of(torch.zeros(shape)):
        whole = out._base if out._base is not None else out
        whole = whole.fill_(77.0).to(backend.device)
        out = torch.as_strided(whole, out.shape, out.stride(), out.storage_offset())
        ops.augment_out(
            images.to(backend.device), None, *drawn_by, 0, 0.0, torch.float32, values.constants, values.erasing, out
        )
        assert_same_bits(out, expected)
        out.fill_(77.0)
        assert (whole == 77.0).all()


@every_compiled_backend
@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize("width", [31, 64, 97, 160])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_outputs_that_begin_anywhere_in_a_cache_line(backend, channels, width, memory_format):
    """Lines of the output that lie across rows are put together from the two; its neighbours are not written to."""
    shape = (3, channels, 5, width)
    images, values, how = some_images(shape), some_values(channels), EVERYTHING._replace(erase=0.2)
    bounds = 0.8, 0.8, 1.0  # cutmix, or cut out
    plan, views = expected_draws(shape, bounds, how)
    expected = oracle_augmented(images, plan, views, values, SEED, torch.bfloat16)
    strides = expected.contiguous(memory_format=memory_format).stride()
    drawn_by = draw_arguments(backend, bounds, how)
    ops = ops_for(backend.name, torch.device(backend.device))
    for offset in (0, 1, 16, 31):
        whole = torch.full((expected.numel() + 64,), 77.0, dtype=torch.bfloat16, device=backend.device)
        out = whole[offset:].as_strided(shape, strides)
        ops.augment_out(
            images.to(backend.device),
            None,
            *drawn_by,
            0,
            0.0,
            torch.float32,
            constants_for(values, backend),
            values.erasing,
            out,
        )
        assert_same_bits(out, expected)
        out.fill_(77.0)
        assert (whole == 77.0).all()


@every_backend
@pytest.mark.parametrize("offset", range(1, 4))
def test_plans_views_and_labels_in_any_memory(backend, offset):
    """Rows are read as vectors: neither plan, nor views, nor labels need be aligned for that, or dense."""
    images, labels = some_images((6, 3, 6, 9)), torch.rand(6, 5)
    plan, views = expected_draws((6, 3, 6, 9), ALL_KINDS, EVERYTHING)
    values = some_values(3)
    expected = oracle_augmented(images, plan, views, values, SEED, torch.float32)
    given = labels, packed(plan), packed_views(views, 2)
    shifted = [tensor.new_full((tensor.numel() + offset,), 1)[offset:].view(tensor.shape) for tensor in given]
    shifted = [other.copy_(tensor) for other, tensor in zip(shifted, given, strict=True)]
    ops = ops_for(backend.name, torch.device(backend.device))
    for others in (shifted, map(strided, given)):
        on = [other.to(backend.device) for other in others]
        rest = torch.tensor([SEED]), 5, 0.1, torch.float32, values.constants, values.erasing, torch.float32, 0
        out, targets = ops.apply_views(images.to(backend.device), *on, False, *rest)
        assert_same_bits(out, expected)
        assert_same_bits(targets, oracle_targets(labels, plan, 5, 0.1))


@every_compiled_backend
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_that_elements_are_not_aligned_in(backend, layout):
    images, values = some_images((4, 3, 7, 10), torch.float16).contiguous(memory_format=layout), some_values(3)
    plan, views = expected_draws((4, 3, 7, 10), ALL_KINDS, EVERYTHING)
    expected = oracle_augmented(images, plan, views, values, SEED, torch.float32)
    drawn_by = draw_arguments(backend, ALL_KINDS, EVERYTHING)
    ops = ops_for(backend.name, torch.device(backend.device))
    source, out = (
        at_odd_address(each.to(backend.device)) for each in (images, expected.contiguous(memory_format=layout))
    )
    for given, into in (
        (images.to(backend.device), out),
        (source, out),
        (source, torch.zeros_like(expected).to(backend.device)),
    ):
        ops.augment_out(given, None, *drawn_by, 0, 0.0, torch.float32, values.constants, values.erasing, into)
        assert_same_bits(bytes_on_cpu(into), expected)


@every_backend
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (3, 0, 4, 5), (3, 3, 0, 5), (3, 3, 4, 0)])
def test_empty_images_still_have_targets(backend, shape):
    check_augment(backend, some_images(shape))


BAD_VIEWS = [[2, 0, 0, 0], [-1, 0, 0, 0], [0, 7, 0, 0], [0, 0, -10, 0], [0, 2**31 - 1, 0, 0], [0, 0, -(2**31), 0]]
BAD_BOXES = [[-1, 0, 2, 2], [0, 0, 7, 2], [0, 0, 2, 10], [3, 0, 2, 2], [0, 5, 2, 4], [0, 0, 2**31 - 1, 2]]


@every_backend
@pytest.mark.parametrize("how", [EVERYTHING, EVERYTHING_COLOURED], ids=["plain", "coloured"])
@pytest.mark.parametrize(("quadruple", "bad"), [(0, bad) for bad in BAD_VIEWS] + [(1, bad) for bad in BAD_BOXES])
def test_what_leads_outside_is_not_followed(backend, quadruple, bad, how):
    """A sample with a bad view is seen as it is and kept, its target is NaN; so is one that takes pixels of it."""
    images, labels = some_images((6, 3, 6, 9), torch.float32), torch.arange(6) % 5
    plan, views = expected_draws((6, 3, 6, 9), BOUNDS["mixup"], how)
    bad_one = 2
    packed_bad = packed_views(views, 2)
    packed_bad[bad_one, quadruple] = torch.tensor(bad, dtype=torch.int32)
    spoilt = {bad_one, *(i for i, sample in enumerate(plan) if sample.partner == bad_one)}
    assert len(spoilt) == 2
    values = some_values(3, "channel")
    expected = oracle_augmented(images, plan, views, values, SEED, torch.float32)
    kept = [sample._replace(kind="keep") for sample in plan]
    plain = oracle_augmented(images, kept, [View()] * 6, values, SEED, torch.float32)
    targets_expected = oracle_targets(labels, plan, 5)
    for i in spoilt:
        expected[i] = plain[i]
        targets_expected[i] = torch.nan

    ops = ops_for(backend.name, torch.device(backend.device))
    on = [tensor.to(backend.device) for tensor in (images, labels, packed(plan), packed_bad)]
    out, targets = ops.apply_views(
        *on,
        bool(how.coloured),
        torch.tensor([SEED]),
        5,
        0.0,
        torch.float32,
        values.constants,
        values.erasing,
        torch.float32,
        0,
    )
    assert_same_bits(out, expected)
    assert torch.equal(targets.cpu().nan_to_num(-1), targets_expected.nan_to_num(-1))


@every_backend
def test_a_bad_row_of_the_plan_is_not_followed(backend):
    images, labels = some_images((4, 3, 6, 9)), torch.arange(4)
    plan, views = expected_draws((4, 3, 6, 9), BOUNDS["cutmix"], EVERYTHING)
    rows = packed(plan)
    rows[1, 0] = 4
    values = some_values(3, "pixel")
    expected = oracle_augmented(images, plan, views, values, SEED, torch.float32)
    plain = [sample._replace(kind="keep") for sample in plan]
    expected[1] = oracle_augmented(images, plain, [View()] * 4, values, SEED, torch.float32)[1]
    ops = ops_for(backend.name, torch.device(backend.device))
    on = [tensor.to(backend.device) for tensor in (images, labels, rows, packed_views(views, 2))]
    out, targets = ops.apply_views(
        *on, False, torch.tensor([SEED]), 5, 0.0, torch.float32, values.constants, values.erasing, torch.float32, 0
    )
    assert_same_bits(out, expected)
    assert targets.isnan().all(dim=1).tolist() == [False, True, False, False]


@every_backend
@pytest.mark.parametrize("labels_dtype", [torch.int64, torch.uint8, torch.float16])
@pytest.mark.parametrize("target_dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_targets_of_any_dtype(backend, labels_dtype, target_dtype):
    images = some_images((6, 3, 4, 5))
    plan, _ = expected_draws((6, 3, 4, 5), ALL_KINDS, PLAIN)
    labels = torch.rand(6, 5).to(labels_dtype) if labels_dtype.is_floating_point else random_labels(6, 5, labels_dtype)
    values = some_values(3)
    _, targets, *_ = ops_for(backend.name, torch.device(backend.device)).augment(
        images.to(backend.device),
        labels.to(backend.device),
        *draw_arguments(backend, ALL_KINDS, PLAIN),
        *(5, 0.1, target_dtype),
        *(values.constants, values.erasing, torch.float32, 0),
    )
    assert_same_bits(targets, oracle_targets(labels, plan, 5, 0.1, target_dtype))


@every_backend
@pytest.mark.parametrize("how", [EVERYTHING, EVERYTHING_COLOURED], ids=["plain", "coloured"])
def test_opcheck(backend, how):
    namespace = {"triton": "cutmix_cuda_triton", "reference": "cutmix_cuda_reference"}.get(backend.name, "cutmix_cuda")
    ops = getattr(torch.ops, namespace)
    images = some_images((3, 3, 4, 5)).to(backend.device)
    labels = torch.arange(3).to(backend.device)
    values = some_values(3)
    drawn_by = draw_arguments(backend, ALL_KINDS, how)
    if how.coloured:
        drawn_by[5] = torch.rand(3, 3, 4, device=backend.device)
    rest = 5, 0.1, torch.float32, values.constants, values.erasing
    for labels_or_none, layout in itertools.product((labels, None), MemoryFormat):
        torch.library.opcheck(ops.augment, (images, labels_or_none, *drawn_by, *rest, torch.bfloat16, int(layout)))
    out = torch.empty(images.shape, device=backend.device)
    torch.library.opcheck(ops.augment_out, (images, labels, *drawn_by, *rest, out))
    torch.library.opcheck(ops.sample_views, (drawn_by[0], 3, 4, 5, *drawn_by[4:]))
    *_, plan, views = ops.augment(images, labels, *drawn_by, *rest, torch.float32, 0)
    given = images, labels, plan, views, bool(how.coloured), drawn_by[0], *rest
    torch.library.opcheck(ops.apply_views, (*given, torch.float16, 1))
    torch.library.opcheck(ops.apply_views_out, (*given, out))
