"""Which pixels are pasted, from whom and with which weight: every way to mix, against the oracle."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import MixPlan
from cutmix_cuda._backends import ops_for

from ..helpers import (
    PARTNERS,
    PLACEMENTS,
    SCOPES,
    Backend,
    PlannedSample,
    assert_same_bits,
    assert_same_images,
    every_backend,
    fill_words,
    label_coded_images,
    oracle_images,
    oracle_plan,
    oracle_targets,
    packed,
    planned,
    random_images,
    random_labels,
    share_left,
)

UNIFORM_QUANTILES = np.tile(np.arange(4097, dtype=np.float32) / 4096, (3, 1))  # alpha = 1, of every kind
OWN_INVERSE = ("flip", "mirror")
SEED = 20190513


def assert_mixed(images: Tensor, targets: Tensor | None, expected_images: Tensor, expected_targets: Tensor) -> None:
    assert_same_bits(images, expected_images)
    assert targets is not None
    assert_same_bits(targets, expected_targets)


@every_backend
@pytest.mark.parametrize("correct_lam", [True, False])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("partner", PARTNERS)
@pytest.mark.parametrize("scope", SCOPES)
def test_every_way_to_mix_is_the_oracle(backend, scope, partner, placement, correct_lam):
    """One fused call, a plan and its parts, in place, and into out: all the same images, targets and plan."""
    height, width, classes = 6, 9, 5
    rules = {"scope": scope, "partner": partner, "placement": placement, "correct_lam": correct_lam}
    how = {"prob": 0.75, **rules, "seed": SEED, "backend": backend.name}
    for batch in (0, 1, 2, 3, 7, 8):
        images = random_images((batch, 3, height, width)).to(backend.device)
        labels = random_labels(batch, classes).to(backend.device)
        smooth = {"label_smoothing": 0.1}
        expected_plan = oracle_plan(SEED, UNIFORM_QUANTILES, batch, height, width, bounds=(0.75,) * 3, **rules)
        expected = (
            oracle_images(images.cpu(), expected_plan),
            oracle_targets(labels.cpu(), expected_plan, classes, **smooth),
        )
        untouched = images.clone()

        *mixed, plan = cutmix_cuda.cutmix(images, labels, classes, **how, **smooth, return_plan=True)
        assert planned(plan) == expected_plan
        assert_mixed(*mixed, *expected)
        out = torch.zeros_like(images)
        mixed = cutmix_cuda.cutmix(images, labels, classes, **how, **smooth, out=out)
        assert mixed[0] is out
        assert_mixed(*mixed, *expected)

        plan = cutmix_cuda.sample_plan(batch, height, width, **how, device=backend.device)
        assert planned(plan) == expected_plan
        with_backend = {"backend": backend.name}
        assert_mixed(
            cutmix_cuda.mix_images(images, plan, **with_backend),
            cutmix_cuda.mix_targets(labels, plan, classes, **smooth, **with_backend),
            *expected,
        )
        assert_mixed(*cutmix_cuda.apply_plan(images, labels, plan, classes, **smooth, **with_backend), *expected)
        out = torch.zeros_like(images)
        mixed = cutmix_cuda.apply_plan(images, labels, plan, classes, **smooth, **with_backend, out=out)
        assert mixed[0] is out
        assert_mixed(*mixed, *expected)
        assert_same_bits(images, untouched)

        if partner in OWN_INVERSE:
            own = images.clone()
            *mixed, plan = cutmix_cuda.cutmix_(own, labels, classes, **how, **smooth, return_plan=True)
            assert mixed[0] is own
            assert planned(plan) == expected_plan
            assert_mixed(*mixed, *expected)
            own = images.clone()
            mixed = cutmix_cuda.apply_plan_(own, labels, plan, classes, **smooth, **with_backend)
            assert mixed[0] is own
            assert_mixed(*mixed, *expected)
            own = images.clone()
            assert cutmix_cuda.mix_images_(own, plan, **with_backend) is own
            assert_same_bits(own, expected[0])


@every_backend
@pytest.mark.parametrize("prob", [0.0, 0.6, 1.0])
def test_prob_is_the_share_that_is_mixed(backend, prob):
    images, labels = random_images((8, 3, 6, 9)).to(backend.device), random_labels(8, 5).to(backend.device)
    expected_plan = oracle_plan(SEED, UNIFORM_QUANTILES, 8, 6, 9, bounds=(prob,) * 3)
    drawn = {sample.kind for sample in expected_plan}
    assert drawn == {0.0: {"keep"}, 0.6: {"keep", "cutmix"}, 1.0: {"cutmix"}}[prob]
    mixed = cutmix_cuda.cutmix(images, labels, 5, prob=prob, seed=SEED, backend=backend.name)
    assert_mixed(*mixed, oracle_images(images.cpu(), expected_plan), oracle_targets(labels.cpu(), expected_plan, 5))


@every_backend
@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_lambda_of_zero_and_one(backend, lam):
    """Lambda 1 leaves the sample alone; lambda 0 with a box inside is the partner altogether."""
    images, labels = random_images((6, 3, 5, 7)).to(backend.device), torch.arange(6, device=backend.device)
    mixed, targets, plan = cutmix_cuda.cutmix(
        images,
        labels,
        6,
        alpha=cutmix_cuda.distributions.Constant(lam),
        placement="inside",
        seed=SEED,
        return_plan=True,
        backend=backend.name,
    )
    source = torch.arange(6, device=backend.device) if lam == 1.0 else plan.partner.long()
    assert_same_bits(mixed, images[source])
    assert torch.equal(targets, torch.eye(6, device=backend.device)[source])
    assert torch.equal(plan.lam, torch.full((6,), lam, device=backend.device))


@every_backend
@pytest.mark.parametrize(
    "shape",
    [
        (4, 5, 7),
        (4, 1, 5, 7),
        (4, 2, 5, 7),
        (4, 4, 5, 7),
        (3, 7, 5, 6),
        (3, 2, 3, 5, 7),
        (2, 2, 3, 2, 5, 7),
        (2, 2, 1, 3, 2, 3, 5),
        (2, 1, 2, 2, 1, 3, 4, 5),
        (5, 0, 4, 6),
        (5, 3, 0, 6),
        (5, 3, 4, 0),
        (5, 2, 0, 4, 6),
        (0, 3, 4, 6),
        (0, 0, 0),
        (5, 3, 1, 9),
        (5, 3, 9, 1),
        (5, 3, 1, 1),
        (2, 1, 64, 3),
    ],
    ids=str,
)
def test_every_shape(backend, shape):
    """Masks, images, video and volumes, of a sample with one box in all slices; and of none at all."""
    images, labels = random_images(shape).to(backend.device), random_labels(shape[0], 4).to(backend.device)
    expected_plan = oracle_plan(SEED, UNIFORM_QUANTILES, shape[0], *shape[-2:])
    expected = oracle_images(images.cpu(), expected_plan), oracle_targets(labels.cpu(), expected_plan, 4)
    assert_mixed(*cutmix_cuda.cutmix(images, labels, 4, seed=SEED, backend=backend.name), *expected)
    out = torch.zeros_like(images)
    assert_mixed(*cutmix_cuda.cutmix(images, labels, 4, seed=SEED, out=out, backend=backend.name), *expected)
    assert_mixed(*cutmix_cuda.cutmix_(images, labels, 4, seed=SEED, backend=backend.name), *expected)


@every_backend
@pytest.mark.parametrize("scope", SCOPES)
def test_pasted_pixels_and_weights_agree(backend, scope):
    """Every pixel carries its sample's index: who pasted is the partner whose label is in the target, and the count of
    its pixels is (1 - lam) * H * W, exactly."""
    batch, height, width = 8, 12, 16  # lam is a multiple of 1/192, and times 192 within 1e-5 of a whole number
    images = label_coded_images((batch, 3, height, width), torch.uint8).to(backend.device)
    labels = torch.arange(batch, device=backend.device)
    for seed in range(20):
        mixed, targets, plan = cutmix_cuda.cutmix(
            images, labels, batch, scope=scope, seed=seed, return_plan=True, backend=backend.name
        )
        pasted = mixed != images
        assert torch.equal(mixed[pasted], plan.partner.to(torch.uint8).view(-1, 1, 1, 1).expand_as(mixed)[pasted])
        count = pasted.flatten(2).sum(2)
        weight = targets[labels, plan.partner.long()]
        assert torch.equal((weight * height * width).round().long().unsqueeze(1).expand_as(count), count)
        assert ((weight * height * width).round() - weight * height * width).abs().max() < 1e-4
        assert torch.equal(targets[labels, labels], plan.lam)
        assert torch.equal((targets != 0).sum(1) <= 2, torch.ones(batch, dtype=torch.bool, device=backend.device))


@every_backend
def test_images_masks_and_labels_share_a_plan(backend):
    """A segmentation mask of class indices, mixed by the images' plan, keeps dtype and classes, and takes the same
    pixels."""
    images = random_images((6, 3, 9, 7)).to(backend.device)
    mask = torch.randint(1000, (6, 9, 7)).to(backend.device)
    mixed, _, plan = cutmix_cuda.cutmix(images, seed=SEED, return_plan=True, backend=backend.name)
    mixed_mask = cutmix_cuda.mix_images(mask, plan, backend=backend.name)
    assert_same_bits(mixed_mask, oracle_images(mask.cpu(), planned(plan)))
    assert_same_bits(mixed, oracle_images(images.cpu(), planned(plan)))


@every_backend
def test_without_labels_there_are_no_targets(backend):
    images = random_images((6, 3, 9, 7)).to(backend.device)
    with_labels = cutmix_cuda.cutmix(images, random_labels(6, 3).to(backend.device), 3, seed=1, backend=backend.name)
    alone = cutmix_cuda.cutmix(images, seed=1, backend=backend.name)
    assert alone[1] is None
    assert_same_bits(alone[0], with_labels[0])
    images_too, targets = cutmix_cuda.cutmix_(images, None, seed=1, backend=backend.name)
    assert targets is None
    assert_same_bits(images_too, with_labels[0])


@every_backend
def test_mixes_twice(backend):
    """The soft targets of one call are labels for the next."""
    images, labels = random_images((6, 3, 8, 8)).to(backend.device), random_labels(6, 4).to(backend.device)
    once = cutmix_cuda.cutmix(images, labels, 4, seed=1, backend=backend.name)
    twice = cutmix_cuda.cutmix(*once, seed=2, backend=backend.name)
    first, second = (oracle_plan(seed, UNIFORM_QUANTILES, 6, 8, 8) for seed in (1, 2))
    expected_images, expected_targets = oracle_images(images.cpu(), first), oracle_targets(labels.cpu(), first, 4)
    assert_mixed(*twice, oracle_images(expected_images, second), oracle_targets(expected_targets, second, 4))


# ---- Plans made by hand


def hand_made(samples: list[tuple[int, tuple[int, int, int, int]]], height: int, width: int) -> list[PlannedSample]:
    return [PlannedSample(partner, box, share_left(box, height, width), "cutmix") for partner, box in samples]


def keep(sample: PlannedSample) -> PlannedSample:
    """What becomes of a sample whose row is not followed."""
    return sample._replace(kind="keep")


EDGE_BOXES = {
    "nothing": [(2, 3, 2, 3), (0, 0, 0, 0), (6, 9, 6, 9), (2, 0, 2, 9)],
    "everything": [(0, 0, 6, 9)] * 4,
    "one pixel": [(0, 0, 1, 1), (5, 8, 6, 9), (0, 8, 1, 9), (5, 0, 6, 1)],
    "one row or column": [(0, 0, 1, 9), (5, 0, 6, 9), (0, 0, 6, 1), (0, 8, 6, 9)],
    "crossing": [(1, 0, 3, 9), (0, 2, 6, 4), (0, 0, 3, 5), (2, 3, 6, 9)],
    "one in the other": [(0, 0, 6, 9), (2, 3, 4, 6), (1, 2, 5, 8), (1, 2, 5, 8)],
}


@every_backend
@pytest.mark.parametrize("partners", [(1, 0, 3, 2), (3, 2, 1, 0), (1, 2, 3, 0), (0, 1, 2, 3), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("boxes", EDGE_BOXES.values(), ids=EDGE_BOXES.keys())
@pytest.mark.parametrize("channels_last", [False, True])
def test_boxes_made_by_hand(backend, boxes, partners, channels_last):
    images = random_images((4, 3, 6, 9)).to(backend.device)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = random_labels(4, 5).to(backend.device)
    expected_plan = hand_made(list(zip(partners, boxes, strict=True)), 6, 9)
    expected = oracle_images(images.cpu(), expected_plan), oracle_targets(labels.cpu(), expected_plan, 5)
    to = {"device": backend.device}
    plan = MixPlan.from_boxes(torch.tensor(partners, **to), torch.tensor(boxes, **to), 6, 9)
    assert torch.equal(plan.packed.cpu(), packed(expected_plan))
    assert_mixed(*cutmix_cuda.apply_plan(images, labels, plan, 5, backend=backend.name), *expected)
    if all(partners[partners[i]] == i for i in range(4)):
        assert_mixed(*cutmix_cuda.apply_plan_(images, labels, plan, 5, backend=backend.name), *expected)


@every_backend
def test_a_plan_may_be_any_view(backend):
    """Rows are read as vectors: a plan need not be aligned for that, nor dense."""
    images, labels = random_images((4, 3, 6, 9)).to(backend.device), random_labels(4, 5).to(backend.device)
    plan = cutmix_cuda.sample_plan(4, 6, 9, seed=SEED, device=backend.device, backend=backend.name)
    expected = cutmix_cuda.apply_plan(images, labels, plan, 5, backend=backend.name)
    for offset in range(4):
        storage = torch.full((4 * 8 + 4,), -1, dtype=torch.int32, device=backend.device)
        shifted = storage[offset : offset + 32].view(4, 8)
        shifted.copy_(plan.packed)
        mixed = cutmix_cuda.apply_plan(images, labels, MixPlan(shifted, 6, 9), 5, backend=backend.name)
        assert_mixed(*mixed, *expected)
    for view in (plan.packed.t().contiguous().t(), plan.packed.repeat_interleave(2, 0)[::2]):
        mixed = cutmix_cuda.apply_plan(images, labels, MixPlan(view, 6, 9), 5, backend=backend.name)
        assert_mixed(*mixed, *expected)


def bits_of(lam: float) -> int:
    return int(np.float32(lam).view(np.int32))


# What a row of an op's plan may say that leads outside the batch, the image or [0, 1]: {column: value} of row 2.
# Of 6 samples of 6 x 9 pixels, paired as flip does: 2 with 3.
BAD_ROWS = {
    "partner below": {0: -1},
    "partner above": {0: 6},
    "partner far above": {0: 2**31 - 1},
    "partner far below": {0: -(2**31)},
    "y0 below": {1: -1},
    "y0 past y1": {1: 5, 3: 4},
    "y1 above": {3: 7},
    "y1 far above": {3: 2**31 - 1},
    "x0 below": {2: -1},
    "x0 past x1": {2: 8, 4: 7},
    "x1 above": {4: 10},
    "lam below": {5: bits_of(-(2.0**-149))},
    "lam above": {5: bits_of(1 + 2.0**-23)},
    "lam is no number": {5: bits_of(np.nan)},
    "lam is infinite": {5: bits_of(np.inf)},
    "unknown kind": {6: 4},
    "negative kind": {6: -1},
}


@every_backend
@pytest.mark.parametrize("op", ["apply", "apply_out", "apply_"])
@pytest.mark.parametrize("edit", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_leaves_its_sample_alone(backend, op, edit):
    """An op given a plan that nobody has checked follows no bad row: the sample stays, its target is NaN, and the
    others are mixed. In place, whoever was to exchange with a partner that is not its own stays as well."""
    images, labels = random_images((6, 3, 6, 9)), random_labels(6, 4)
    plan = hand_made([(5 - i, (1, 2, 5, 8)) for i in range(6)], 6, 9)
    rows = packed(plan)
    for column, value in edit.items():
        rows[2, column] = value
    bad = {2, 3} if op == "apply_" and 0 in edit else {2}
    followed = [keep(sample) if i in bad else sample for i, sample in enumerate(plan)]
    expected_images, expected_targets = oracle_images(images, followed), oracle_targets(labels, followed, 4)
    expected_targets[list(bad)] = torch.nan

    mixed, targets = run_apply(backend, op, images, labels, rows)
    assert_same_bits(mixed, expected_images)
    targets = targets.cpu()
    assert torch.equal(targets.isnan(), expected_targets.isnan())
    assert torch.equal(targets.nan_to_num(), expected_targets.nan_to_num())


def run_apply(
    backend: Backend, op: str, images: Tensor, labels: Tensor, rows: Tensor, fill: tuple[int, int] = (0, 0)
) -> tuple[Tensor, Tensor]:
    """An op by itself, without the checks of the functions above it, on copies of its arguments."""
    ops = ops_for(backend.name, torch.device(backend.device))
    images, labels, rows = (tensor.to(backend.device).clone() for tensor in (images, labels, rows))
    arguments = images, labels, rows, 4, 0.0, torch.float32
    if op == "apply":
        return ops.apply(*arguments, fill)
    if op == "apply_":
        return images, ops.apply_(*arguments, fill)
    out = torch.zeros_like(images)
    return out, ops.apply_out(*arguments, out, fill)


@every_backend
@pytest.mark.parametrize("partners", [(1, 2, 0, 3), (1, 2, 3, 0), (1, 0, 1, 3), (2, 2, 2, 2)], ids=str)
def test_in_place_exchanges_only_in_pairs(backend, partners):
    """Partners that are not their own inverse would be read after they were overwritten: such samples stay."""
    images, labels = random_images((4, 3, 6, 9)), random_labels(4, 4)
    plan = hand_made([(partner, (1, 2, 5, 8)) for partner in partners], 6, 9)
    alone = [i for i in range(4) if partners[partners[i]] != i]
    followed = [keep(sample) if i in alone else sample for i, sample in enumerate(plan)]
    mixed, targets = run_apply(backend, "apply_", images, labels, packed(plan))
    assert_same_bits(mixed, oracle_images(images, followed))
    assert targets.isnan().all(1).nonzero().flatten().tolist() == alone


@every_backend
def test_bad_rows_give_no_targets(backend):
    """Of a plan without images only partners, and boxes that are boxes nowhere, can be told to be wrong."""
    ops = ops_for(backend.name, torch.device(backend.device))
    labels = random_labels(6, 4)
    plan = hand_made([(5 - i, (1, 2, 5, 8)) for i in range(6)], 6, 9)
    for edit in BAD_ROWS.values():
        if edit in ({3: 7}, {3: 2**31 - 1}, {4: 10}):
            continue
        rows = packed(plan)
        for column, value in edit.items():
            rows[2, column] = value
        targets = ops.mix_targets(labels.to(backend.device), rows.to(backend.device), 4, 0.0, torch.float32).cpu()
        assert targets.isnan().all(1).tolist() == [i == 2 for i in range(6)]
        others = [i for i in range(6) if i != 2]
        assert torch.equal(targets[others], oracle_targets(labels, plan, 4)[others])


# ---- Any plan at all


@st.composite
def plans(draw, batch: int, height: int, width: int) -> Tensor:
    """A packed plan whose rows may say anything, sense more often than nonsense."""
    edge = st.integers(-1, max(height, width) + 1)
    lams = st.floats(0, 1, width=32) | st.sampled_from([-0.5, 1.5, np.nan])
    row = st.tuples(st.integers(-1, batch), edge, edge, edge, edge, lams, st.integers(-1, 4))
    rows = []
    for index in range(batch):
        partner, *box, lam, kind = draw(row)
        if draw(st.sampled_from([True, True, False])):
            (y0, y1), (x0, x1) = (
                sorted(min(max(a, 0), top) for a in pair)
                for pair, top in zip((box[::2], box[1::2]), (height, width), strict=True)
            )
            partner, box, kind = draw(st.sampled_from([batch - 1 - index, partner % batch])), [y0, x0, y1, x1], kind % 4
        rows.append([partner, *box, bits_of(lam), kind, 0])
    return torch.tensor(rows, dtype=torch.int32)


def makes_sense(row: list[int], batch: int, height: int, width: int, blends: bool) -> bool:
    partner, y0, x0, y1, x1, lam, kind, _ = row
    return (
        0 <= partner < batch
        and 0 <= y0 <= y1 <= height
        and 0 <= x0 <= x1 <= width
        and bool(0 <= np.int32(lam).view(np.float32) <= 1)
        and kind in (0, 1, 2, 3)
        and (blends or kind != 2)
    )


@every_backend
@given(st.data())
def test_any_plan(backend, data):
    """A row that makes sense is followed, in place where its partner's partner is the sample; any other is not."""
    batch, height, width = (
        data.draw(st.integers(1, high), name) for name, high in (("batch", 6), ("height", 7), ("width", 9))
    )
    rows = data.draw(plans(batch, height, width), "plan")
    dtype = data.draw(st.sampled_from([torch.uint8, torch.float16, torch.float64, torch.int16]))
    images, labels = random_images((batch, 2, height, width), dtype), random_labels(batch, 4)
    sense = [makes_sense(row, batch, height, width, dtype != torch.int16) for row in rows.tolist()]
    for op in ("apply", "apply_out", "apply_"):
        valid = [
            good and (op != "apply_" or int(rows[partner, 0]) == i)
            for i, (good, partner) in enumerate(zip(sense, rows[:, 0].tolist(), strict=True))
        ]
        sound = torch.where(torch.tensor(valid)[:, None], rows, 0)  # kept
        followed = planned(MixPlan(sound, height, width))
        mixed, targets = run_apply(backend, op, images, labels, rows, fill_words(7, dtype))
        assert_same_images(mixed, oracle_images(images, followed, fill=7), followed)
        assert targets.isnan().any(1).tolist() == [not ok for ok in valid]
        assert torch.equal(targets[valid].cpu(), oracle_targets(labels, followed, 4)[valid])


# ---- Memory, autograd, and where things run


@every_backend
def test_nothing_uninitialised_shows_through(backend, poisoned_memory):
    assert torch.empty(3, device=backend.device).isnan().all()
    assert (torch.empty(3, dtype=torch.uint8, device=backend.device) == 255).all()
    for dtype, partner in itertools.product((torch.float32, torch.uint8), PARTNERS):
        images = random_images((5, 3, 7, 9), dtype).to(backend.device)
        labels = random_labels(5, 4).to(backend.device)
        expected_plan = oracle_plan(SEED, UNIFORM_QUANTILES, 5, 7, 9, bounds=(0.6,) * 3, partner=partner)
        expected = oracle_images(images.cpu(), expected_plan), oracle_targets(labels.cpu(), expected_plan, 4)
        for view in (images, images.to(memory_format=torch.channels_last), images.mT.contiguous().mT):
            how = {"prob": 0.6, "partner": partner, "seed": SEED, "backend": backend.name, "return_plan": True}
            *mixed, plan = cutmix_cuda.cutmix(view, labels, 4, **how)
            assert_mixed(*mixed, *expected)
            assert torch.equal(plan.packed.cpu(), packed(expected_plan))
            *mixed, _ = cutmix_cuda.cutmix(view, labels, 4, **how, out=torch.empty_like(view))
            assert_mixed(*mixed, *expected)


@pytest.mark.skipif("cpu" not in cutmix_cuda.available_backends(), reason="the reference would read 3 GiB")
def test_offsets_past_31_bits():
    """In place only the boxes' bytes are touched, so a batch of 3 GiB costs a few pages."""
    images = torch.empty((3, 1, 2**15, 2**15), dtype=torch.uint8)
    box = (2**15 - 2, 2**15 - 3, 2**15, 2**15)
    pasted = (slice(None), slice(box[0], box[2]), slice(box[1], box[3]))
    first, last = images[0][pasted].random_().clone(), images[2][pasted].random_().clone()
    plan = MixPlan.from_boxes(torch.tensor([2, 1, 0]), torch.tensor([box] * 3), 2**15, 2**15)
    cutmix_cuda.mix_images_(images, plan, backend="cpu")
    assert torch.equal(images[0][pasted], last)
    assert torch.equal(images[2][pasted], first)


@every_backend
@pytest.mark.parametrize("write", ["cutmix_", "cutmix out", "apply_plan_", "apply_plan out"])
def test_autograd_sees_what_was_written(backend, write):
    """Backward through a saved tensor that was mixed since raises, as after torch's own in-place operations."""
    images = torch.rand(4, 3, 6, 9, device=backend.device)
    weight = torch.rand(4, 3, 6, 9, device=backend.device, requires_grad=True)
    loss = (images * weight).sum()
    plan = cutmix_cuda.sample_plan(4, 6, 9, seed=SEED, device=backend.device)
    source = torch.rand_like(images)
    if write == "cutmix_":
        cutmix_cuda.cutmix_(images, seed=SEED, backend=backend.name)
    elif write == "cutmix out":
        cutmix_cuda.cutmix(source, seed=SEED, out=images, backend=backend.name)
    elif write == "apply_plan_":
        cutmix_cuda.mix_images_(images, plan, backend=backend.name)
    else:
        cutmix_cuda.mix_images(source, plan, out=images, backend=backend.name)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@every_backend
@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_contexts_change_nothing(backend, context):
    images, labels = torch.rand(4, 3, 6, 9, device=backend.device), random_labels(4, 4).to(backend.device)
    expected = cutmix_cuda.cutmix(images, labels, 4, seed=SEED, backend=backend.name)
    with context():
        assert_mixed(*cutmix_cuda.cutmix(images, labels, 4, seed=SEED, backend=backend.name), *expected)
        own = images.clone()
        assert_mixed(*cutmix_cuda.cutmix_(own, labels, 4, seed=SEED, backend=backend.name), *expected)
