"""The batch tail in Triton: its compiled PTX, executed, gives the reference's bits; what it costs; what compiles it.

The interpreter in tests/ptx raises at an access out of bounds, a race, or a use of what was never written. A kernel
takes Triton seconds to compile, so that each here has as much to do as it can; tests/ops/test_augment.py goes through
the combinations wherever Triton runs.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from cutmix_cuda.triton_kernels import augment_launch, augment_ops  # noqa: E402
from cutmix_cuda.triton_kernels.launch import Labels, Launch  # noqa: E402

from cutmix_cuda import reference_augment  # noqa: E402
from cutmix_cuda._ops import Draw, Erasing, Kind, Sampling, ViewChoices, ViewParameters  # noqa: E402

from ..helpers import Backend, assert_same_bits, packed, random_labels, strided  # noqa: E402
from ..ops.test_augment import (  # noqa: E402
    ALL_KINDS,
    BAD_BOXES,
    BAD_VIEWS,
    BOUNDS,
    COLOURED,
    EVERYTHING,
    EVERYTHING_COLOURED,
    PLAIN,
    constants_for,
    draw_arguments,
    expected_draws,
    some_images,
    some_values,
)
from ..oracle_augment import DrawnViews, Values, packed_views  # noqa: E402
from ..ptx.machine import WARP  # noqa: E402
from ..ptx.report import Report  # noqa: E402
from .execution import SECTOR, call_of, image_sectors  # noqa: E402
from .test_triton_codegen import assert_same_targets, opcodes, resources  # noqa: E402
from .triton_compile import compiled, execute, kernels_of  # noqa: E402

ARCHITECTURE = 90
TRITON = Backend("triton", "cpu")
ONE_BOX = EVERYTHING._replace(boxes=(1, 1))
ONE_BOX_COLOURED = EVERYTHING_COLOURED._replace(boxes=(1, 1))
FLIPS_AND_SHIFTS = DrawnViews(flip=0.5, translate=(4, 4))


class Executed(NamedTuple):
    """A launch that was made, and what it did."""

    launch: Launch
    report: Report


@pytest.fixture
def executed(monkeypatch) -> list[Executed]:
    """Makes the ops run compiled PTX on CPU tensors; each launch is appended."""
    done: list[Executed] = []

    def run(launch: Launch, device: torch.device) -> None:
        done.append(Executed(launch, execute(launch, ARCHITECTURE)))

    monkeypatch.setattr(Launch, "__call__", run)
    return done


def arguments_of(
    images: Tensor,
    bounds: tuple[float, ...] = ALL_KINDS,
    how: DrawnViews = EVERYTHING,
    values: Values | None = None,
) -> list:
    """The arguments of augment_out but for out."""
    values = values or some_values(images.shape[1])
    drawn_by = draw_arguments(TRITON, bounds, how)
    constants = constants_for(values, TRITON), values.erasing
    return [images, random_labels(len(images), 5), *drawn_by, 5, 0.1, torch.float32, *constants]


def assert_as_reference(op: str, *arguments: Any) -> tuple[Tensor, ...]:
    """An op gives the reference's results, in its layout, which are returned."""
    both: list[dict[str, Any]] = [augment_ops.OPS, reference_augment.OPS]
    ours, theirs = (ops[op](*arguments) for ops in both)
    ours, theirs = ((result,) if isinstance(result, Tensor) else result for result in (ours, theirs))
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual.stride() == expected.stride()
        assert_same_targets(actual, expected) if expected.is_floating_point() else assert_same_bits(actual, expected)
    return ours


# ---- Bits

FORMS = {  # of a kernel: shape, layout of images, dtype and layout of out, what is erased with and when
    "planes": ((8, 3, 6, 16), "contiguous", torch.float32, 0, "pixel", "before"),
    "planes of pixels": ((8, 2, 6, 16), "channels-last", torch.float16, 0, "constant", "after"),
    "pixels of planes": ((8, 4, 6, 8), "contiguous", torch.bfloat16, 1, "channel", "before"),
    "many planes": ((9, 5, 6, 7), "contiguous", torch.bfloat16, 0, "pixel", "after"),
    "pixels of many channels": ((8, 16, 6, 7), "channels-last", torch.bfloat16, 1, "channel", "before"),
}


@pytest.mark.parametrize(("shape", "layout", "dtype", "memory_format", "value", "order"), FORMS.values(), ids=FORMS)
def test_every_form(executed, shape, layout, dtype, memory_format, value, order):
    """All kinds, flips, shifts and erased boxes at once: whole vectors where rows allow them."""
    images = some_images(shape)
    if layout == "channels-last":
        images = images.contiguous(memory_format=torch.channels_last)
    how = EVERYTHING if shape[1] > 4 else ONE_BOX
    arguments = arguments_of(images, ALL_KINDS, how, some_values(shape[1], value, order))
    _, _, plan, views = assert_as_reference("augment", *arguments, dtype, memory_format)
    assert set(plan[:, 6].tolist()) >= {Kind.cutmix, Kind.mixup, Kind.cutout}
    assert views[:, 0, 0].any() and views[:, 1].any()
    ((_, report),) = executed
    size = images.numel() * dtype.itemsize
    assert (report.buffers["out"].bytes_written, report.buffers["images"].sectors_written) == (size, 0)


@pytest.mark.parametrize("order", ["before", "after"])
def test_nothing_but_cutmix(executed, order):
    """It chooses between pixels before they are normalised, unless some of them are erased by then."""
    images = some_images((6, 2, 6, 16))
    arguments = arguments_of(images, BOUNDS["cutmix"], ONE_BOX, some_values(2, "constant", order))
    _, _, plan, views = assert_as_reference("augment", *arguments, torch.bfloat16, 0)
    assert (plan[:, 6] == Kind.cutmix).any() and views[:, 1].any()
    assert executed[0].launch.options["ONLY_CUTMIX"]


COLOURED_FORMS = {  # dtype and layout of images, dtype and layout of out, views
    "planes": (torch.uint8, 0, torch.bfloat16, 0, COLOURED),
    "pixels of planes": (torch.uint8, 0, torch.bfloat16, 1, ONE_BOX_COLOURED),
    "planes of pixels of floats": (torch.float16, 1, torch.float32, 0, ONE_BOX_COLOURED),
}


@pytest.mark.parametrize(
    ("dtype", "layout", "out_dtype", "memory_format", "how"), COLOURED_FORMS.values(), ids=COLOURED_FORMS
)
def test_colour(executed, dtype, layout, out_dtype, memory_format, how):
    images = some_images((8, 3, 6, 16)) if dtype == torch.uint8 else (some_images((8, 3, 6, 16)) / 255).to(dtype)
    images = images.contiguous(memory_format=torch.channels_last if layout else torch.contiguous_format)
    arguments = arguments_of(images, ALL_KINDS, how)
    if dtype != torch.uint8:
        arguments[7] = torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(0))  # given colours
    *_, plan, views = assert_as_reference("augment", *arguments, out_dtype, memory_format)
    assert set(plan[:, 6].tolist()) >= {Kind.cutmix, Kind.mixup, Kind.cutout}
    assert executed[0].launch.options["COLOURED"]


def test_coloured_views_that_are_given(executed):
    """One of them is not followed, and keeps its values, which are not clamped either."""
    images = some_images((8, 3, 4, 5), torch.float32)
    arguments = arguments_of(images, ALL_KINDS, COLOURED)
    *_, plan, views = reference_augment.augment(*arguments, torch.float32, 0)
    views[3, 0, 0] = 2
    rest = True, arguments[2], *arguments[-5:], torch.float32, 0
    out, targets = assert_as_reference("apply_views", *arguments[:2], plan, views, *rest)
    assert targets[3].isnan().all() and out[3].abs().max() > out[0].abs().max()


def test_images_and_out_of_any_strides(executed):
    """What lies between the elements of out is not written to, and images that are not dense are not copied."""
    images = some_images((3, 3, 7, 20))[:, :, 1:, 2::2]
    storage = torch.full((3, 4, 6, 21), 77.0)
    out = storage[:, 1:, :, 3::2]
    arguments = arguments_of(images, BOUNDS["cutmix"], PLAIN)
    augment_ops.augment_out(*arguments, out)
    expected = reference_augment.augment(*arguments, torch.float32, 0)[0]
    assert_same_bits(out, expected)
    out.fill_(77.0)
    assert (storage == 77.0).all()
    assert len(executed) == 1


def test_what_leads_outside_is_not_followed(executed):
    """Given views and plans with every fault, of which none leads out of bounds; in memory of any strides."""
    batch, shape = 32, (32, 1, 6, 9)
    images, labels = some_images(shape), random_labels(batch, 5)
    plan, views = expected_draws(shape, ALL_KINDS, ONE_BOX)
    rows, packed_bad = packed(plan), packed_views(views, 1)
    for sample, bad in enumerate(BAD_VIEWS):
        packed_bad[sample, 0] = torch.tensor(bad, dtype=torch.int32)
    for sample, bad in enumerate(BAD_BOXES, start=len(BAD_VIEWS)):
        packed_bad[sample, 1] = torch.tensor(bad, dtype=torch.int32)
    rows[13, 0], rows[14, 3], rows[15, 6] = batch, 7, 9
    values = some_values(1, "channel")
    rest = 5, 0.1, torch.float32, values.constants, values.erasing, torch.float32, 0
    given = map(strided, (labels, rows, packed_bad))
    _, targets = assert_as_reference("apply_views", images, *given, False, torch.tensor([3]), *rest)
    assert targets.isnan().any(1)[[*range(12), 13, 14, 15]].all() and not targets.isnan().all()


def test_views_without_images(executed):
    """Of many samples, with boxes that take several tries, by seeds of any bits."""
    table = draw_arguments(TRITON, ALL_KINDS, EVERYTHING)[4]
    for seed in (0, -1, 2**40 + 5):
        for how in (EVERYTHING, DrawnViews(0.3, 1.0, (0.4, 0.9), 3.3, (99, 0), (0, 3), 7), COLOURED):
            arguments = torch.tensor([seed]), 70, 20, 31, table, None, how.parameters, how.choices
            (views,) = assert_as_reference("sample_views", *arguments)
            if how.boxes[1] == 3:
                assert (views[7:, 1:].sum(2) == 0).any() and views[7:, 3].any()
    assert len(executed) == 9


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (3, 0, 4, 5), (3, 3, 0, 5), (3, 3, 4, 0)])
def test_empty_images_still_have_targets(executed, shape):
    assert_as_reference("augment", *arguments_of(some_images(shape), ALL_KINDS, PLAIN), torch.float32, 0)
    assert len(executed) == (shape[0] > 0)


# ---- Costs: instructions of PTX for each 16 elements of bfloat16 that a lane writes
#
# 72 are the values: a byte taken out of its word, converted, - mean, * scale, and two elements rounded by one
# instruction. About 30 are those by which a thread works out its sample's row of the plan, two draws of Philox above
# all, spread over the pixels of its program; the rest finds vectors and compares them with the box. Blocks that a box
# meets read two samples, which is 50 more on average. Pixels that do not lie as they are written, or that may be
# mirrored, are loaded one by one, each with an address and, where it may be shifted, a comparison of its own. Moves
# between registers, which are no machine code, count as well.

COSTS = {  # bounds, views, layouts of images and out, instructions
    "keep": ("keep", PLAIN, 0, 0, 151),
    "cutmix": ("cutmix", PLAIN, 0, 0, 201),
    "cutmix, channels-last": ("cutmix", PLAIN, 1, 1, 202),
    "cutmix into channels-last": ("cutmix", PLAIN, 0, 1, 268),
    "keep with flips and shifts": ("keep", FLIPS_AND_SHIFTS, 0, 0, 283),
    "mixup": ("mixup", PLAIN, 0, 0, 242),
}


@pytest.mark.parametrize(("kind", "how", "layout", "memory_format", "most"), COSTS.values(), ids=COSTS)
def test_costs(executed, tmp_path, kind, how, layout, memory_format, most):
    """Sectors of images are read if some output needs them, those of out written, each once; nothing is spilt, and no
    thread waits for another."""
    images = some_images((4, 3, 224, 224))
    if layout:
        images = images.contiguous(memory_format=torch.channels_last)
    out, _, plan, _ = augment_ops.augment(*arguments_of(images, BOUNDS[kind], how), torch.bfloat16, memory_format)
    ((launch, report),) = executed
    read, written = report.buffers["images"], report.buffers["out"]
    assert (written.bytes_written, written.sectors_written) == (out.nbytes, out.nbytes // SECTOR)
    assert report.matching("st.global.v4")
    spent = report.warp_instructions / (out.numel() / 16 / WARP)
    assert spent <= most, report.hottest()
    if how is PLAIN:
        assert images.nbytes <= read.bytes_read <= 1.03 * images.nbytes, "of mixup, too: a pair is read once"
        needed, _ = image_sectors(call_of("apply", images, None, plan, 0, 0.0, torch.float32), plan)
        assert not (needed & ~read.read).any()
        assert (read.read & ~needed).mean() < 0.03, "vectors that an edge of a box crosses"

    kernel = compiled(launch, ARCHITECTURE)
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    used = resources(cubin)
    assert (used["STACK"], used["LOCAL"], kernel.metadata.shared) == (0, 0, 0)
    assert used["REG"] <= 128
    assert not [code for code in opcodes(cubin) if code.startswith(("LDL", "STL", "LDS", "STS", "BAR", "SHFL"))]
    ptx = kernel.asm["ptx"]
    assert not re.search(r"\bfma\b|\.approx|\.ftz|\.full", ptx)
    assert not re.search(r"\b(?:add|sub|mul)\.f(?:32|64)", ptx), "without .rn ptxas may fuse them"


# ---- Launches


def training_launch(batch: int, seed: int | Tensor = 1, bounds: tuple[float, ...] = ALL_KINDS, **changes) -> Launch:
    """The launch of CUDA tensors of any size: meta tensors have no memory, and sizes are all that matters."""
    parameters = ViewParameters(0.5, 0.3, 0.02, 0.3, 3.3)._asdict()
    choices = ViewChoices(4, 4, 1, 1)._asdict()
    parameters |= {name: value for name, value in changes.items() if name in parameters}
    choices |= {name: value for name, value in changes.items() if name in choices}
    with torch.device("meta"):
        images, labels = torch.empty(batch, 3, 224, 224, dtype=torch.uint8), torch.empty(batch, dtype=torch.int64)
        out, targets = torch.empty_like(images, dtype=torch.bfloat16), torch.empty(batch, 1000)
        plan, views = torch.empty(batch, 8, dtype=torch.int32), torch.empty(batch, 2, 4, dtype=torch.int32)
        quantiles, table = torch.empty(3, 4097), torch.empty(1, 4097)
    seed = seed if isinstance(seed, Tensor) else torch.tensor([seed])
    return augment_launch.augment_launch(
        *(batch, 224, 224, seed, plan, Draw(seed, quantiles, bounds, Sampling(0, 3, 0, 1)), views, False),
        augment_launch.DrawnViews(table, None, list(parameters.values()), list(choices.values())),
        augment_launch.Values(some_values(3).constants, Erasing()),
        (images, out),
        Labels(labels, targets, 0.1),
    )


def test_what_compiles_a_kernel():
    """No batch size, seed, probability or number of pixels to shift by: a training run has one kernel."""
    launches = [training_launch(batch) for batch in (1, 2, 16, 17, 255, 65536, 1 << 20)]
    launches += [training_launch(256, seed) for seed in (0, 1, 16, 2**31, 2**40, -1)]
    launches += [training_launch(256, bounds=(0.3, 1.0, 1.0)), training_launch(256, flip_below=1.0, max_area=1.0)]
    launches += [training_launch(256, translate_y=y, translate_x=y + 1, first_erased=y) for y in (0, 1, 16)]
    assert kernels_of(launches) == 1
    others = [
        training_launch(256, torch.empty(1, dtype=torch.int64, device="meta")),
        training_launch(256, bounds=(1.0, 1.0, 1.0)),
        training_launch(256, flip_below=0.0, translate_y=0, translate_x=0),
    ]
    assert kernels_of([*launches, *others]) == 4


@pytest.mark.parametrize("batch", [1, 65535, 65536, 100_001, 1 << 30])
def test_grid(batch):
    x, y, z = training_launch(batch).grid
    assert x == 5  # 224 * 224 / 8 groups of 3 * 8 elements, of which a program takes 1536
    assert batch <= y * z < batch + z and y <= 65535 and z <= 65535


def test_samples_beyond_32_bits(executed, monkeypatch):
    """The kernel for samples of more than 2^30 groups of vectors, on a small one."""
    monkeypatch.setattr(augment_launch, "MAX_FAST_DIVISION", 0)
    monkeypatch.setattr(augment_launch, "geometry", augment_launch.geometry.__wrapped__)
    arguments = arguments_of(some_images((3, 3, 7, 24)), BOUNDS["cutmix"], DrawnViews(translate=(2, 0)))
    assert_as_reference("augment", *arguments, torch.float32, 0)
    assert executed[0].launch.options["LARGE"]
