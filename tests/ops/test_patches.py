"""Plans of several patches: the reference against an oracle of slices, and every backend against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import PatchPlan, paint, paint_, paint_targets
from cutmix_cuda._backends import ops_for

from ..helpers import (
    PIXEL_DTYPES,
    Backend,
    assert_same_bits,
    every_backend,
    label_coded_images,
    random_images,
    random_labels,
    soft_labels,
    strided,
)
from ..oracle_patches import (
    BLEND,
    FILL,
    KEEP,
    PASTE,
    Plan,
    in_pairs,
    oracle_in_place,
    oracle_paint,
    oracle_painted_targets,
    random_plan,
)

SIZE = 9, 11
CLASSES = 5
REFERENCE = Backend("reference", "cpu")

# What makes each kind of plan, of random_plan's arguments.
PLANS: dict[str, dict[str, Any]] = {
    "paste": {"kinds": (PASTE,)},
    "holes": {"kinds": (FILL,)},
    "sources": {"kinds": (KEEP, PASTE, FILL), "sources": True},
    "coarse masks": {"kinds": (PASTE, FILL), "masks": (3, 4)},
    "fine masks": {"kinds": (PASTE,), "masks": (20, 13), "sources": True},
    "pixel masks": {"kinds": (PASTE,), "masks": SIZE, "weights": True},
    "blend": {"kinds": (KEEP, PASTE, BLEND, FILL)},
    "soft masks": {"masks": (4, 11), "soft": True, "sources": True},
}
BLENDING = ("blend", "soft masks")
every_plan = pytest.mark.parametrize("name", PLANS)


def plan_of(plan: Plan, device: str = "cpu", size: tuple[int, int] = SIZE) -> PatchPlan:
    made = PatchPlan(plan.rows, *size, plan.sources, plan.masks, plan.weights)
    return made.to(device)


def painted_by(backend: Backend, images: Tensor, labels: Any, plan: PatchPlan, **options: Any) -> tuple[Tensor, Any]:
    def there(tensor: Any) -> Any:
        return tensor.to(backend.device) if isinstance(tensor, Tensor) else tensor

    options = {name: there(option) for name, option in options.items()} | {"backend": backend.name}
    mixed, targets = paint(there(images), there(labels), plan.to(backend.device), **options)
    return mixed.cpu(), None if targets is None else targets.cpu()


def test_there_is_an_implementation_of_each_op_in_each_backend():
    from cutmix_cuda import reference_patches

    assert set(reference_patches.OPS) <= set(cutmix_cuda._ops.OPS)


# ---- The reference against the oracle


@every_plan
@pytest.mark.parametrize("dtype", PIXEL_DTYPES, ids=str)
def test_reference_paints_as_slices_do(name, dtype):
    if name in BLENDING and dtype not in cutmix_cuda._ops.BLENDED_DTYPES:
        pytest.skip("nothing to blend")
    images = random_images((6, 2, *SIZE), dtype)
    if dtype.is_floating_point:
        images = torch.rand(images.shape, dtype=torch.float64).to(dtype)  # a blended NaN may be any
    for patches in (1, 3):
        plan = random_plan(6, patches, 6, *SIZE, seed=patches, **PLANS[name])
        labels = random_labels(6, CLASSES)
        mixed, targets = paint(images, labels, plan_of(plan), CLASSES, fill=1, label_smoothing=0.1, backend="reference")
        expected = oracle_paint(images, plan, fill=1)
        assert_same_bits(mixed, expected.images)
        shares = expected.shares if plan.weights is None else plan.weights.double().numpy()
        np.testing.assert_allclose(
            targets.double().numpy(), oracle_painted_targets(labels, plan, shares, CLASSES, 0.1), atol=2e-6
        )


@pytest.mark.parametrize("name", [name for name in PLANS if name not in BLENDING and name != "pixel masks"])
def test_targets_are_exact_shares_of_pixels(name):
    """Of label-coded images: the share of a class is the number of pixels that are it, over all, once rounded."""
    images = label_coded_images((5, 1, *SIZE))
    plan = random_plan(5, 3, 5, *SIZE, **PLANS[name])
    # What is filled keeps what lies below, as far as the target is concerned.
    seen = plan._replace(rows=torch.where(plan.rows[..., 6:7] == FILL, torch.zeros_like(plan.rows), plan.rows))
    mixed, _ = paint(images, None, plan_of(seen), backend="reference")
    _, targets = paint(images, torch.arange(5), plan_of(plan), 5, target_dtype=torch.float64, backend="reference")
    counts = torch.stack([(mixed == label).sum(dim=(1, 2, 3)) for label in range(5)], dim=1)
    assert torch.allclose(targets, counts.double() / (SIZE[0] * SIZE[1]), atol=1e-7, rtol=0)
    assert torch.allclose(targets.sum(dim=1), torch.ones(5, dtype=torch.float64), atol=2e-7)
    single = random_plan(5, 1, 5, *SIZE, **PLANS[name])
    shares = plan_of(single).shares()
    pixels = np.float32(SIZE[0] * SIZE[1])
    exact = oracle_paint(images, single).shares * pixels
    assert_same_bits(shares, torch.from_numpy(np.rint(exact).astype(np.float32) / pixels))


# ---- Every backend against the reference


def assert_as_reference(backend: Backend, images: Tensor, labels: Any, plan: PatchPlan, **options: Any) -> None:
    expected = painted_by(REFERENCE, images, labels, plan, **options)
    mixed, targets = painted_by(backend, images, labels, plan, **options)
    assert mixed.stride() == expected[0].stride()
    assert_same_bits(mixed, expected[0])
    if labels is not None:
        assert_same_bits(targets.nan_to_num(nan=-1), expected[1].nan_to_num(nan=-1))


@every_backend
@every_plan
@pytest.mark.parametrize("dtype", PIXEL_DTYPES, ids=str)
def test_every_dtype(backend, name, dtype):
    if name in BLENDING and dtype not in cutmix_cuda._ops.BLENDED_DTYPES:
        pytest.skip("nothing to blend")
    images = random_images((6, 3, *SIZE), dtype)
    if name in BLENDING and dtype.is_floating_point:
        images = torch.rand(images.shape, dtype=torch.float64).to(dtype)
    plan = plan_of(random_plan(6, 3, 6, *SIZE, **PLANS[name]))
    assert_as_reference(backend, images, random_labels(6, CLASSES), plan, num_classes=CLASSES, fill=1)


SHAPES = [(6, *SIZE), (6, 3, *SIZE), (6, 2, 3, *SIZE), (6, 2, 3, 2, *SIZE), (1, 1, 1, 1), (3, 1, 1, 40), (3, 1, 40, 1)]


@every_backend
@every_plan
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(backend, name, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    plan = plan_of(random_plan(shape[0], 2, shape[0], *shape[-2:], **PLANS[name]), size=shape[-2:])
    labels = soft_labels(shape[0], CLASSES)
    assert_as_reference(backend, images, labels, plan)
    assert_as_reference(backend, strided(images), labels, plan)


@every_backend
@every_plan
@pytest.mark.parametrize("width", [16, 32, 20])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32], ids=str)
def test_rows_of_whole_vectors(backend, name, width, dtype):
    """And their layouts: what is aligned goes other ways."""
    images = (255 * torch.rand(5, 3, 7, width, generator=torch.Generator().manual_seed(0))).to(dtype)
    for layout in (torch.contiguous_format, torch.channels_last):
        plan = plan_of(random_plan(5, 4, 5, 7, width, **PLANS[name]), size=(7, width))
        assert_as_reference(backend, images.contiguous(memory_format=layout), random_labels(5, 4), plan, num_classes=4)


@every_backend
@pytest.mark.parametrize("samples", [0, 3, 5, 10, 13])
@pytest.mark.parametrize("name", ["paste", "soft masks"])
def test_other_numbers_of_samples_and_a_second_batch(backend, samples, name):
    images, others = torch.rand(5, 3, *SIZE), torch.rand(4, 3, *SIZE)
    labels, other_labels = random_labels(5, CLASSES), random_labels(4, CLASSES, seed=1)
    options = {"num_classes": CLASSES, "others": others, "other_labels": other_labels}
    plan = random_plan(samples, 2, 9, *SIZE, **PLANS[name])
    expected = oracle_paint(images, plan, others)
    mixed, targets = painted_by(backend, images, labels, plan_of(plan), **options)
    assert_same_bits(mixed, expected.images)
    assert_as_reference(backend, images, labels, plan_of(plan), **options)
    assert targets.shape == (samples, CLASSES)
    few = random_plan(samples, 2, 5, *SIZE, **PLANS[name])
    assert_as_reference(backend, images, soft_labels(5, CLASSES), plan_of(few))


@every_backend
@pytest.mark.parametrize(
    "labels_dtype", [torch.uint8, torch.int32, torch.uint64, torch.bfloat16, torch.float64], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_target(backend, labels_dtype, dtype):
    images = torch.rand(6, 1, *SIZE)
    soft = labels_dtype.is_floating_point
    labels = soft_labels(6, CLASSES, labels_dtype) if soft else random_labels(6, CLASSES, labels_dtype)
    for name in ("paste", "coarse masks", "soft masks", "pixel masks"):
        plan = plan_of(random_plan(6, 3, 6, *SIZE, **PLANS[name]))
        options = {"num_classes": CLASSES, "label_smoothing": 0.1, "target_dtype": dtype}
        assert_as_reference(backend, images, labels, plan, **options)
        device = backend.device
        alone = paint_targets(labels.to(device), plan.to(device), **options, backend=backend.name)
        assert_same_bits(alone.cpu(), painted_by(REFERENCE, images, labels, plan, **options)[1])


@every_backend
def test_many_patches_and_classes(backend):
    images = torch.rand(3, 2, 40, 70)
    plan = plan_of(random_plan(3, 64, 3, 40, 70, kinds=(PASTE, FILL, KEEP), masks=(7, 9)), size=(40, 70))
    assert_as_reference(backend, images, random_labels(3, 1500), plan, num_classes=1500)


@every_backend
def test_out(backend):
    images = torch.rand(5, 3, *SIZE, device=backend.device)
    plan = plan_of(random_plan(7, 2, 5, *SIZE), backend.device)
    expected, _ = paint(images, None, plan, backend=backend.name)
    out = torch.full((7, 3, *SIZE), 3.0, device=backend.device)
    assert paint(images, None, plan, out=out, backend=backend.name)[0] is out
    assert_same_bits(out, expected)
    wide = torch.full((7, 3, *SIZE, 2), 3.0, device=backend.device)
    paint(images, None, plan, out=wide[..., 1], backend=backend.name)
    assert_same_bits(wide[..., 1], expected)
    assert (wide[..., 0] == 3).all()


# ---- In place


def painted_in_place(backend: Any, images: Tensor, labels: Any, plan: PatchPlan, **options: Any) -> tuple[Any, Any]:
    there = images.to(backend.device, memory_format=torch.preserve_format).clone()
    labels = labels if labels is None else labels.to(backend.device)
    mixed, targets = paint_(there, labels, plan.to(backend.device), **options, backend=backend.name)
    assert mixed is there
    return there.cpu(), None if targets is None else targets.cpu()


@every_backend
@every_plan
@pytest.mark.parametrize("dtype", PIXEL_DTYPES, ids=str)
def test_in_place_is_as_out_of_place(backend, name, dtype):
    if name in BLENDING and dtype not in cutmix_cuda._ops.BLENDED_DTYPES:
        pytest.skip("nothing to blend")
    images = random_images((7, 2, *SIZE), dtype)
    if dtype.is_floating_point:
        images = torch.rand(images.shape, dtype=torch.float64).to(dtype)
    labels = random_labels(7, CLASSES)
    for patches in (1, 3):
        plan = in_pairs(random_plan(7, patches, 7, *SIZE, seed=patches, **PLANS[name]), seed=patches)
        options = {"num_classes": CLASSES, "fill": 1, "label_smoothing": 0.1}
        mixed, targets = painted_in_place(backend, images, labels, plan_of(plan), **options)
        assert_same_bits(mixed, oracle_paint(images, plan, fill=1).images)
        assert_same_bits(targets, painted_by(REFERENCE, images, labels, plan_of(plan), **options)[1])


@every_backend
@every_plan
@pytest.mark.parametrize("shape", [*SHAPES, (5, 3, 7, 32)], ids=str)
def test_every_shape_and_layout_in_place(backend, name, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    plan = in_pairs(random_plan(shape[0], 2, shape[0], *shape[-2:], **PLANS[name]))
    layouts = [images, strided(images), images[..., : shape[-1] - 1]]
    if len(shape) == 4:
        layouts.append(images.contiguous(memory_format=torch.channels_last))
    for each in layouts:
        width = each.shape[-1]
        clipped = plan if width == shape[-1] else in_pairs(random_plan(shape[0], 2, shape[0], shape[-2], width))
        if width == 0:
            continue
        mixed, _ = painted_in_place(backend, each, None, plan_of(clipped, size=tuple(each.shape[-2:])))
        assert_same_bits(mixed, oracle_paint(each, clipped).images)


@every_backend
def test_only_the_images_of_a_view_are_written(backend):
    """Bytes around the images, and between their rows, are left."""
    images, plan = torch.rand(5, 3, *SIZE), in_pairs(random_plan(5, 2, 5, *SIZE, kinds=(PASTE, FILL, BLEND)))
    wide = torch.full((5, 3, SIZE[0], 20), 3.0, device=backend.device)
    wide[..., 4 : 4 + SIZE[1]] = images
    paint_(wide[..., 4 : 4 + SIZE[1]], None, plan_of(plan, backend.device), backend=backend.name)
    assert_same_bits(wide[..., 4 : 4 + SIZE[1]].cpu(), oracle_paint(images, plan).images)
    assert (wide[..., :4] == 3).all() and (wide[..., 4 + SIZE[1] :] == 3).all()


@every_backend
@pytest.mark.parametrize("sources", [False, True])
def test_samples_that_do_not_exchange_in_pairs_are_left(backend, sources):
    """And their targets are NaN; others are painted. By the ops, because on the CPU the functions raise."""
    seen = set()
    for seed in range(40):
        batch, patches = 6, 1 + seed % 3
        plan = random_plan(batch, patches, batch, *SIZE, kinds=(KEEP, PASTE, BLEND, FILL)[seed % 2 :], seed=seed)
        rows = in_pairs(plan, seed).rows
        astray = torch.rand(batch, patches, generator=torch.Generator().manual_seed(seed)) < 0.15
        rows[..., 0] = torch.where(astray, plan.rows[..., 0], rows[..., 0])
        plan = Plan(rows, rows[..., 1:5].clone() if sources else None)
        if sources:
            plan.sources[seed % batch, 0, 0:3:2] += 1 if plan.sources[seed % batch, 0, 2] < SIZE[0] else 0
        followed = torch.tensor(oracle_in_place(plan))
        seen |= set(followed.tolist())
        images, labels = torch.rand(batch, 2, *SIZE), random_labels(batch, CLASSES)
        expected = oracle_paint(images, plan).images
        expected[~followed] = images[~followed]
        there = images.to(backend.device).clone()
        ops = ops_for(backend.name, torch.device(backend.device))
        parts = tuple(None if part is None else part.to(backend.device) for part in plan)
        targets = ops.paint_(there, labels.to(backend.device), *parts, CLASSES, 0.0, torch.float32)
        assert_same_bits(there.cpu(), expected)
        assert targets.isnan().all(dim=1).cpu().tolist() == (~followed).tolist()
    assert seen == {False, True}


@every_backend
def test_holes_in_place_need_no_partner(backend):
    images = torch.rand(6, 3, *SIZE)
    plan = random_plan(6, 4, 6, *SIZE, kinds=(KEEP, FILL), masks=(4, 11), soft=True)
    mixed, _ = painted_in_place(backend, images, None, plan_of(plan), fill=0.5)
    assert_same_bits(mixed, oracle_paint(images, plan, fill=0.5).images)


@every_backend
def test_many_patches_in_place(backend):
    images = torch.rand(3, 2, 40, 70)
    plan = in_pairs(random_plan(3, 64, 3, 40, 70, kinds=(PASTE, FILL, KEEP, BLEND), masks=(7, 9)))
    mixed, _ = painted_in_place(backend, images, None, plan_of(plan, size=(40, 70)))
    assert_same_bits(mixed, oracle_paint(images, plan).images)


# ---- Masks of each channel

OF_CHANNELS: dict[str, dict[str, Any]] = {
    "bool": {"kinds": (PASTE, FILL), "masks": (3, 4, 5)},
    "pixels": {"kinds": (PASTE,), "masks": (3, *SIZE), "sources": True},
    "soft": {"kinds": (KEEP, PASTE, BLEND, FILL), "masks": (3, 4, 11), "soft": True},
}
LAYOUTS: dict[
    str, tuple[tuple[int, ...], tuple[int, ...]]
] = {  # sizes, and dimensions from the outermost to the innermost
    "nchw": ((5, 3, *SIZE), (0, 1, 2, 3)),
    "channels last": ((5, 3, *SIZE), (0, 2, 3, 1)),
    "wide": ((5, 3, 7, 32), (0, 1, 2, 3)),
    "wide channels last": ((5, 3, 7, 32), (0, 2, 3, 1)),
    "video": ((5, 3, 2, *SIZE), (0, 1, 2, 3, 4)),
    "frames outside": ((5, 3, 2, *SIZE), (0, 2, 1, 3, 4)),
    "channels last 3d": ((5, 3, 2, *SIZE), (0, 2, 3, 4, 1)),
    "frames in the pixel": ((5, 3, 2, *SIZE), (0, 3, 4, 1, 2)),
    "both in the pixel": ((5, 3, 2, *SIZE), (0, 3, 4, 2, 1)),
    "one channel in the pixel": ((5, 3, 2, *SIZE), (0, 1, 3, 4, 2)),
    "many dimensions": ((5, 3, 2, 1, 2, *SIZE), (0, 2, 1, 3, 4, 5, 6)),
}


def laid_out(images: Tensor, order: tuple[int, ...]) -> Tensor:
    """The images with their dimensions in this order in memory."""
    inverse = [order.index(dim) for dim in range(len(order))]
    return images.permute(order).contiguous().permute(inverse)


@every_backend
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OF_CHANNELS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int16, torch.complex128], ids=str)
def test_masks_of_each_channel(backend, layout, name, dtype):
    if name == "soft" and dtype not in cutmix_cuda._ops.BLENDED_DTYPES:
        pytest.skip("nothing to blend")
    shape, order = LAYOUTS[layout]
    images, labels = random_images(shape, torch.uint8).to(dtype), random_labels(5, CLASSES)
    plan = random_plan(5, 3, 5, *shape[-2:], **OF_CHANNELS[name])
    made = plan_of(plan, size=shape[-2:])
    options = {"num_classes": CLASSES, "fill": 1, "label_smoothing": 0.1}
    expected = oracle_paint(images, plan, fill=1)
    mixed, targets = painted_by(backend, laid_out(images, order), labels, made, **options)
    assert_same_bits(mixed, expected.images)
    wanted = oracle_painted_targets(labels, plan, expected.shares, CLASSES, 0.1)
    np.testing.assert_allclose(targets.double().numpy(), wanted, atol=2e-6)
    assert_as_reference(backend, laid_out(images, order), labels, made, **options)
    paired = in_pairs(plan)
    mixed, targets = painted_in_place(
        backend, laid_out(images, order), labels, plan_of(paired, size=shape[-2:]), **options
    )
    assert_same_bits(mixed, oracle_paint(images, paired, fill=1).images)
    assert_same_bits(targets, painted_by(REFERENCE, images, labels, plan_of(paired, size=shape[-2:]), **options)[1])


@every_backend
def test_masks_alike_in_all_channels_are_one_mask(backend):
    images, labels = torch.rand(5, 3, *SIZE), random_labels(5, CLASSES)
    plan = plan_of(random_plan(5, 3, 5, *SIZE, masks=(4, 11), soft=True))
    repeated = plan_of(
        random_plan(5, 3, 5, *SIZE, masks=(4, 11), soft=True)._replace(masks=plan.masks[:, None].repeat(1, 3, 1, 1))
    )
    expected = painted_by(backend, images, labels, plan, num_classes=CLASSES)
    mixed, targets = painted_by(backend, images, labels, repeated, num_classes=CLASSES)
    assert_same_bits(mixed, expected[0])
    assert torch.allclose(targets, expected[1], atol=1e-6)
    one = painted_by(
        backend, images[:, :1], labels, PatchPlan(plan.rows, *SIZE, None, plan.masks[:, None]), num_classes=CLASSES
    )
    assert_same_bits(one[0], expected[0][:, :1])
    assert_same_bits(one[1], expected[1])


@every_backend
def test_targets_alone_of_masks_of_each_channel(backend):
    """Exact: of a mask for each of 512 channels, as of features, the mean over all of their cells."""
    masks = torch.rand(4, 512, 3, 5) < 0.3
    plan = PatchPlan.from_masks(masks, torch.tensor([1, 2, 3, 0]), 9, 10).to(backend.device)
    labels = torch.arange(4, device=backend.device)
    targets = paint_targets(labels, plan, 4, backend=backend.name).cpu()
    own = masks.double().mean(dim=(1, 2, 3)).float()
    assert torch.equal(targets.diagonal(), own)
    assert_same_bits(plan.shares()[:, 0].cpu(), own)
