"""Every call on a GPU gives the bits of the reference on the CPU, and leaves every other byte as it was."""

from __future__ import annotations

import itertools

import pytest
import torch

import cutmix_cuda
from cutmix_cuda import MixPlan
from cutmix_cuda._ops import BLENDED_DTYPES
from cutmix_cuda.distributions import Constant, Uniform

from ..helpers import PARTNERS, PLACEMENTS, SCOPES, assert_same_bits, random_images, random_labels, soft_labels
from ..ops.test_layouts import DTYPES, LAYOUTS_4D, lay_out
from ..ops.test_ops import BAD_ROWS
from ..ops.test_targets import FLOATS, INTEGERS
from .on_device import CALLS, ON_STAND_IN, OWN_INVERSE, calls_for, check, make_batch

ELEMENTS = (torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.complex128)  # 1, 2, 4, 8 and 16 bytes


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("partner", PARTNERS)
@pytest.mark.parametrize("scope", SCOPES)
def test_every_way_to_draw(backend, device, scope, partner, placement):
    how = {"scope": scope, "partner": partner, "placement": placement}
    for size, correct_lam in itertools.product((1, 5) if ON_STAND_IN else (0, 1, 2, 5, 64, 257), (True, False)):
        images = random_images((size, 3, 10, 12), torch.bfloat16)
        batch = make_batch(images, **how, prob=0.7, alpha=0.4, correct_lam=correct_lam)
        check(batch, backend, device)
        check(batch._replace(seed=batch.seed.to(device)), backend, device, ["cutmix", "sample_plan"])


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0, Uniform(0.25, 0.5), Constant(0.0), Constant(1.0)], ids=str)
def test_every_law_of_lambda(backend, device, alpha):
    for seed in (0, -1, 2**63 - 1, 2**32):
        batch = make_batch(random_images((9, 2, 11, 8)), alpha=alpha, seed=seed)
        check(batch, backend, device, ["cutmix", "cutmix_", "sample_plan"])
        check(batch._replace(seed=batch.seed.to(device)), backend, device, ["cutmix", "cutmix_", "sample_plan"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(backend, device, dtype):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        images = random_images((4, 3, 6, 16), dtype).contiguous(memory_format=memory_format)
        check(make_batch(images), backend, device)


@pytest.mark.parametrize("layout", LAYOUTS_4D.values(), ids=LAYOUTS_4D.keys())
def test_every_layout(backend, device, layout):
    """Into a result, into out of the same layout, and in place, in storage that is all sentinels around the view."""
    elements, channels_of = (ELEMENTS[1:2], (3,)) if ON_STAND_IN else (ELEMENTS, (1, 3, 4))
    for dtype, channels in itertools.product(elements, channels_of):
        images = lay_out(random_images((4, channels, 6, 17), dtype), **layout)[1]
        out = lay_out(random_images(images.shape, dtype, seed=3), **layout)[1]
        check(make_batch(images, out=out), backend, device)


@pytest.mark.parametrize("order", [(0, *inner) for inner in itertools.permutations((1, 2, 3, 4))], ids=str)
def test_every_order_of_video(backend, device, order):
    """Frames in any order of dimensions, into out of another one."""
    video = random_images((3, 2, 3, 5, 8))
    out = lay_out(random_images(video.shape, seed=3), (0, 2, 1, 3, 4), margins=(0, 1, 0, 1, 0))[1]
    check(make_batch(lay_out(video, order)[1], out=out), backend, device)


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels last"])
@pytest.mark.parametrize("width", [33, 64])
@pytest.mark.parametrize("dtype", ELEMENTS[:3], ids=str)
def test_every_alignment(backend, device, dtype, width, channels_last):
    """Rows that begin at any address, in storage that is all sentinels around them."""
    shape = (2, 3, 4, width)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    strides = torch.empty(shape, memory_format=memory_format).stride()
    elements = 2 * 3 * 4 * width + 64
    for start, out_start in itertools.product(range(0, 16 // dtype.itemsize, 3 if ON_STAND_IN else 1), (0, 1, 3)):
        images, out = (
            random_images([elements], dtype, seed=at).as_strided(shape, strides, at) for at in (start, out_start)
        )
        check(make_batch(images, out=out), backend, device, ["mix_images", "mix_images out", "mix_images_", "cutmix_"])


LARGE = [
    (64, 3, 224, 224),
    (17, 3, 223, 225),
    (50, 3, 112, 112),
    (300, 1, 28, 28),
    (8, 3, 16, 56, 56),
    (6, 512, 640),
    (2, 3, 2160, 3840),
    (3, 1, 3, 100_000),
    (3, 1, 100_000, 3),
    (70_000, 1, 2, 3),
    (66_000, 2, 3),
]


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_batches(backend, device, shape, channels_last):
    """As in training; more chunks than one a sample, and more samples than a dimension of a grid takes."""
    if ON_STAND_IN:
        shape = tuple(min(size, 9) for size in shape)
    if channels_last and len(shape) < 4:
        pytest.skip("masks have no channels")
    for dtype in (torch.bfloat16,) if ON_STAND_IN else (torch.uint8, torch.bfloat16, torch.float32):
        images = random_images(shape, dtype)
        if channels_last:
            images = images.movedim(1, -1).contiguous().movedim(-1, 1)
        batch = make_batch(images, classes=1000 if shape[0] < 1000 else 3)
        check(batch, backend, device, reference_on=device)  # on the CPU it would take minutes


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("labels_dtype", INTEGERS + FLOATS, ids=str)
def test_every_label_and_target(backend, device, labels_dtype, dtype):
    calls = ["cutmix", "cutmix_", "apply_plan", "mix_targets"]
    for classes, smoothing in itertools.product((10,) if ON_STAND_IN else (1, 10, 127, 1000, 21841), (0.0, 0.1)):
        if labels_dtype in FLOATS:
            labels = soft_labels(6, classes, labels_dtype)
        else:
            labels = random_labels(6, min(classes, torch.iinfo(labels_dtype).max), labels_dtype)
        images = random_images((6, 3, 5, 8), torch.uint8)
        how = {"label_smoothing": smoothing, "target_dtype": dtype, "prob": 0.8}
        check(make_batch(images, labels, classes, **how), backend, device, calls)


def test_labels_and_plans_of_any_stride(backend, device):
    images, soft = random_images((6, 3, 5, 8)), soft_labels(12, 7)
    for labels in (
        soft[::2],
        soft[6:],
        soft[:6].t().contiguous().t(),
        soft[:1].expand(6, 7),
        random_labels(12, 7)[::2],
    ):
        batch = make_batch(images, labels, 7)
        shifted = torch.empty(50, dtype=torch.int32)[1:49].view(6, 8).copy_(batch.plan.packed)
        for plan in (shifted, batch.plan.packed.t().contiguous().t()):
            # The device gets the view as it is: its first row lies 4 bytes past a multiple of 16, or its columns apart.
            view = torch.empty(50, dtype=torch.int32, device=device)[1:49].as_strided((6, 8), plan.stride(), 1)
            view.copy_(plan)
            given = batch.on(device)._replace(plan=MixPlan(view, 5, 8))
            like = batch.on("cpu")
            for call in ("apply_plan", "apply_plan_", "mix_targets"):
                for result, wanted in zip(CALLS[call](given, backend), CALLS[call](like, "reference"), strict=True):
                    assert_same_bits(result, wanted)


# ---- Every kind


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels last"])
@pytest.mark.parametrize("width", [64, 67])
@pytest.mark.parametrize("dtype", BLENDED_DTYPES, ids=str)
def test_every_kind(backend, device, dtype, width, channels_last):
    """Drawn and given, out of place and in place. Values are finite: the bits of a NaN that is blended are anyone's."""
    how = {"cutout": 0.25, "fill": 3.0, "prob": 0.9, "mixup_alpha": 0.4, "label_smoothing": 0.1, "return_plan": True}
    for size, partner in itertools.product((1, 5) if ON_STAND_IN else (1, 5, 64), PARTNERS):
        images, labels = (torch.randn(size, 3, 9, width) * 99).to(dtype), random_labels(size, 10)
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        for inplace in {False, partner in OWN_INVERSE}:
            rules = {"partner": partner, **how}
            mix = cutmix_cuda.mix_ if inplace else cutmix_cuda.mix
            mixed, targets, plan = mix(
                images.clone(), labels, 10, seed=torch.tensor([size]), backend="reference", **rules
            )
            for seed_device in {"cpu", str(device)}:
                seed = torch.tensor([size], device=seed_device)
                arguments = images.to(device, copy=True), labels.to(device), 10
                results = mix(*arguments, seed=seed, backend=backend, **rules)
                for result, expected in zip(results[:2], (mixed, targets), strict=True):
                    assert_same_bits(result, expected)
                assert_same_bits(results[2].packed, plan.packed)
            follow = cutmix_cuda.mix_images_ if inplace else cutmix_cuda.mix_images
            followed = follow(images.to(device, copy=True), plan.to(device), fill=how["fill"], backend=backend)
            assert_same_bits(followed, mixed)


# ---- What nobody looks at, because that would make the host wait


@pytest.mark.parametrize("call", ["cutmix", "cutmix_", "apply_plan", "apply_plan_", "mix_targets"])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_a_label_outside_gives_a_row_of_nan(backend, device, nobody_looks, dtype, call):
    """Whoever uses it gets NaN, nobody else, and the pixels are what they would be."""
    batch = make_batch(random_images((6, 3, 5, 8)), random_labels(6, 5, dtype), 5, seed=7)
    partner = batch.plan.partner.tolist()
    for value in {5, torch.iinfo(dtype).max, torch.iinfo(dtype).min} - {0}:
        labels = [value if i == 2 else label for i, label in enumerate(batch.labels.tolist())]
        given = batch._replace(labels=torch.tensor(labels, dtype=dtype)).on(device)
        like = batch.on("cpu")
        expected = CALLS[call](like, "reference")
        *results, targets = (result for result in CALLS[call](given, backend) if result.dtype == torch.float32)
        *others, wanted = (result for result in expected if result.dtype == torch.float32)
        uses = [i for i in range(6) if 2 in (i, partner[i])]
        assert targets.isnan().all(1).nonzero().flatten().tolist() == uses
        rest = [i for i in range(6) if i not in uses]
        assert_same_bits(targets.cpu()[rest], wanted[rest])
        for result, other in zip([*results, given.images], [*others, like.images], strict=True):
            assert_same_bits(result, other)


@pytest.mark.parametrize("call", ["apply_plan", "apply_plan out", "apply_plan_"])
@pytest.mark.parametrize("edit", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_of_a_plan_leaves_its_sample_alone(backend, device, nobody_looks, edit, call):
    """In place its partner stays as well, if the row does not lead to it; every other sample is mixed."""
    batch = make_batch(random_images((6, 3, 6, 9)), partner="flip", scope="batch", seed=3)
    rows = batch.plan.packed.clone()
    for column, value in edit.items():
        rows[2, column] = value
    bad = [2, 3] if call == "apply_plan_" and 0 in edit else [2]
    good = [i for i in range(6) if i not in bad]

    like = batch.on("cpu")
    *_, wanted = CALLS["apply_plan"](like, "reference")
    expected = cutmix_cuda.mix_images(batch.images, batch.plan, backend="reference")
    expected[bad] = batch.images[bad]

    given = batch.on(device)._replace(plan=MixPlan(rows.to(device), 6, 9))
    *mixed, targets = CALLS[call](given, backend)
    result = {"apply_plan": lambda: mixed[0], "apply_plan out": lambda: given.out, "apply_plan_": lambda: given.images}
    assert_same_bits(result[call](), expected)
    assert targets.isnan().all(1).nonzero().flatten().tolist() == bad
    assert_same_bits(targets.cpu()[good], wanted[good])


def test_plans_made_by_hand_on_the_device(backend, device, nobody_looks):
    """Built from tensors on the device; in place, a sample whose partner has another one stays as it is."""
    images = random_images((4, 3, 6, 9))
    boxes = torch.tensor([(1, 2, 5, 8), (0, 0, 6, 9), (0, 0, 3, 5), (5, 8, 6, 9)])
    for partner in ((1, 0, 3, 2), (3, 2, 1, 0), (1, 2, 3, 0), (1, 1, 1, 1), (0, 1, 2, 3), (1, 0, 1, 3)):
        plan = MixPlan.from_boxes(torch.tensor(partner), boxes, 6, 9)
        on_device = MixPlan.from_boxes(torch.tensor(partner, device=device), boxes.to(device), 6, 9)
        assert_same_bits(on_device.packed, plan.packed)
        batch = make_batch(images)._replace(plan=plan)
        check(batch, backend, device, ["apply_plan", "mix_images out", "mix_images_"])
        alone = [i for i in range(4) if partner[partner[i]] != i]
        given = batch.on(device)
        (targets,) = CALLS["apply_plan_"](given, backend)
        assert targets.isnan().all(1).nonzero().flatten().tolist() == alone
        assert_same_bits(given.images[alone], images[alone])


def test_every_call_is_checked():
    batch = make_batch(random_images((2, 3, 4, 5)))
    assert calls_for(batch) == list(CALLS)
    assert all(not call.endswith("_") for call in calls_for(make_batch(batch.images, partner="roll")))
