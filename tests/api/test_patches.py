"""Several patches a sample, as users meet them: transforms, plans made by hand, masks, errors, compiled graphs."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import (
    RICAP,
    CutMix,
    Cutout,
    FMix,
    Mix,
    MixPlan,
    PatchPlan,
    ResizeMix,
    masks,
    mix_by_masks,
    mix_by_masks_,
    paint,
    paint_,
    paint_targets,
    reference_patches,
)
from cutmix_cuda._backends import ops_for
from cutmix_cuda._ops import PATCH_METHODS
from cutmix_cuda.distributions import Uniform, quantiles

from ..helpers import assert_same_bits, every_backend, random_images, random_labels, soft_labels
from ..oracle_patches import FILL, PASTE, in_pairs, only, random_plan

IMAGES, LABELS = random_images((8, 3, 16, 20)), random_labels(8, 5)
ALONE: dict[str, Any] = {
    "ricap": RICAP,
    "resizemix": ResizeMix,
    "holes": lambda **options: Cutout(holes=3, **options),
    "fmix": FMix,
}
SHARES: dict[str, Any] = {"cutout": 0.1, "ricap": 0.2, "resizemix": 0.3, "cutout_holes": 2}
MAKES = ALONE | {"mix": lambda **options: Mix(**SHARES, **options)}
every_transform = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


# ---- Transforms


@every_transform
def test_what_a_transform_gives_is_what_its_plan_says(make):
    transform = make(num_classes=5, label_smoothing=0.1, seed=3)
    for mode in (transform.train(), transform.eval()):
        mixed, targets, plan = mode(IMAGES, LABELS, return_plan=True)
        assert isinstance(plan, PatchPlan)
        again, again_targets = paint(IMAGES, LABELS, plan, 5, label_smoothing=0.1)
        assert_same_bits(mixed, again)
        assert_same_bits(targets, again_targets)
        assert not torch.equal(mixed, IMAGES)
        assert_same_bits(paint_targets(LABELS, plan, 5, label_smoothing=0.1), targets)
    assert transform(IMAGES)[1] is None


@every_transform
def test_seeds_are_counted_and_resumed(make):
    first, second = make(seed=3), make(seed=3)
    one, two = first(IMAGES)[0], first(IMAGES)[0]
    assert not torch.equal(one.nan_to_num(), two.nan_to_num())
    assert_same_bits(second(IMAGES)[0], one)
    resumed = make(seed=99)
    resumed.load_state_dict(second.state_dict())
    assert_same_bits(resumed(IMAGES)[0], two)
    assert_same_bits(copy.deepcopy(second)(IMAGES)[0], two)
    assert_same_bits(pickle.loads(pickle.dumps(second))(IMAGES)[0], two)


@every_transform
def test_draws_from_the_default_generator_or_its_own(make):
    torch.manual_seed(3)
    mixed = make()(IMAGES)[0]
    assert_same_bits(make(generator=torch.Generator().manual_seed(3))(IMAGES)[0], mixed)
    state = torch.get_rng_state()
    make(generator=torch.Generator().manual_seed(3))(IMAGES)
    assert torch.equal(torch.get_rng_state(), state)


@every_transform
def test_a_plan_is_drawn_as_a_batch_is(make):
    _, _, plan = make(seed=3)(IMAGES, return_plan=True)
    drawn = make(seed=3).sample_plan(8, 16, 20)
    assert_same_bits(drawn.rows, plan.rows)
    assert isinstance(drawn, PatchPlan) and len(drawn) == 8


@pytest.mark.parametrize("make", ALONE.values(), ids=ALONE)
def test_prob_zero_changes_nothing(make):
    mixed, targets = make(num_classes=5, prob=0.0)(IMAGES, LABELS)
    assert_same_bits(mixed, IMAGES)
    assert torch.equal(targets, torch.eye(5)[LABELS])


@every_transform
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (0, 3, 8, 8), (3, 3, 0, 8), (5, 8, 8), (3, 2, 3, 8, 8), (2, 1, 1, 1)])
def test_every_shape(make, shape):
    images = torch.rand(shape)
    mixed, targets = make(num_classes=5)(images, random_labels(shape[0], 5))
    assert mixed.shape == images.shape
    assert torch.allclose(targets.sum(dim=1), torch.ones(shape[0]), atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@every_transform
def test_a_compiled_graph_without_a_break(make):
    torch._dynamo.reset()
    eager = make(num_classes=5, seed=3)
    compiled = torch.compile(make(num_classes=5, seed=3), fullgraph=True, backend="aot_eager")
    for _ in range(2):
        (mixed, targets), (expected, expected_targets) = compiled(IMAGES, LABELS), eager(IMAGES, LABELS)
        assert_same_bits(mixed, expected)
        assert_same_bits(targets, expected_targets)
    torch._dynamo.reset()


def test_repr_says_the_arguments():
    options = "beta=1.0, prob=1.0, scope='sample', label_smoothing=0.0, reuse_output=False"
    assert repr(RICAP(beta=1.0)) == f"RICAP(num_classes=None, {options})"
    assert "inplace=True, reuse_output=False" in repr(FMix(inplace=True))
    assert "holes=3" in repr(Cutout(holes=3)) and "inplace=False" in repr(Cutout(holes=3))
    assert "ricap=0.2" in repr(Mix(ricap=0.2)) and "reuse_output=False" in repr(Mix(ricap=0.2))


@pytest.mark.parametrize("make", [MAKES["holes"], MAKES["fmix"]], ids=["holes", "fmix"])
def test_in_place_gives_the_same(make):
    images = IMAGES.clone()
    transform = make(num_classes=5, prob=0.8, seed=3, inplace=True)
    mixed, targets, plan = transform(images, LABELS, return_plan=True)
    assert mixed is images
    expected, expected_targets = make(num_classes=5, prob=0.8, seed=3)(IMAGES, LABELS)
    assert_same_bits(mixed, expected)
    assert_same_bits(targets, expected_targets)
    second = IMAGES.clone()
    assert paint_(second, LABELS, plan, 5)[0] is second
    assert_same_bits(second, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("make", [MAKES["holes"], MAKES["fmix"]], ids=["holes", "fmix"])
def test_in_place_in_a_compiled_graph(make):
    torch._dynamo.reset()
    compiled = torch.compile(make(num_classes=5, seed=3, inplace=True), fullgraph=True, backend="aot_eager")
    eager, images = make(num_classes=5, seed=3), IMAGES.clone()
    mixed, targets = compiled(images, LABELS)
    expected, expected_targets = eager(IMAGES, LABELS)
    assert_same_bits(images, expected)
    assert_same_bits(mixed, expected)
    assert_same_bits(targets, expected_targets)


def test_masks_in_place():
    images, partner = IMAGES.clone(), torch.arange(8).flip(0)
    where, weights = torch.rand(8, 4, 5) < 0.7, torch.rand(8, 2)
    mixed, targets = mix_by_masks_(images, LABELS, where, 5, partner=partner, weights=weights)
    assert mixed is images
    expected = mix_by_masks(IMAGES, LABELS, where, 5, partner=partner, weights=weights)
    assert_same_bits(mixed, expected[0])
    assert_same_bits(targets, expected[1])


def test_autograd_is_told_of_what_is_written():
    images = torch.rand(4, 3, 8, 8)
    weight = torch.rand(4, 3, 8, 8, requires_grad=True)
    loss = (weight * images).sum()
    Cutout(holes=2, inplace=True)(images)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_pairs_of_samples_with_holes():
    _, pairs = Cutout(holes=2, targets="pairs")(IMAGES, LABELS)
    assert torch.equal(pairs.y_a, LABELS) and (pairs.lam == 1).all()


def test_mix_without_others_is_what_it_was():
    """Its plan and its pixels, in place too; and so where nothing is cut out by however many holes."""
    options: dict[str, Any] = {"mixup_alpha": 0.2, "num_classes": 5}
    expected = Mix(**options, seed=3)(IMAGES, LABELS, return_plan=True)
    by_name = Mix(**options, seed=3, ricap=0.0, resizemix=0.0, cutout_holes=3)
    mixed, targets, plan = by_name(IMAGES, LABELS, return_plan=True)
    assert isinstance(plan, MixPlan)
    for actual, wanted in zip((mixed, targets, plan.packed), (*expected[:2], expected[2].packed), strict=True):
        assert_same_bits(actual, wanted)
    assert_same_bits(Mix(**options, seed=3, inplace=True)(IMAGES.clone(), LABELS)[0], mixed)


def test_holes_of_mix_in_place():
    options: dict[str, Any] = {"cutmix_alpha": None, "mixup_alpha": None, "cutout": 0.6, "cutout_holes": 3, "seed": 3}
    own = IMAGES.clone()
    mixed = Mix(**options, inplace=True)(own)[0]
    assert mixed is own
    assert_same_bits(mixed, Mix(**options)(IMAGES)[0])


def test_mix_takes_what_its_methods_do():
    """Pixels of any dtype but where mixup is drawn; pairs of labels but where a sample has four partners; and the
    memory of the last batch."""
    integers = random_images((8, 3, 16, 20), torch.int64)
    assert not torch.equal(Mix(**SHARES, mixup_alpha=None)(integers)[0], integers)
    fails(TypeError, "for mixup", lambda: Mix(**SHARES)(integers))
    fails(ValueError, "targets must be 'dense' for ricap", lambda: Mix(**SHARES, targets="pairs"))
    shares = {**SHARES, "ricap": 0.0}
    _, pairs, plan = Mix(**shares, targets="pairs", seed=1)(IMAGES, LABELS, return_plan=True)
    dense = Mix(**shares, num_classes=5, seed=1)(IMAGES, LABELS)[1]
    assert torch.equal(pairs.y_a, LABELS) and plan.rows.shape[1] == 2
    hot, lam = torch.eye(5), pairs.lam[:, None]
    assert torch.allclose(lam * hot[pairs.y_a] + (1 - lam) * hot[pairs.y_b], dense, atol=1e-6)
    transform = Mix(**SHARES, reuse_output=True)
    first = transform(IMAGES)[0]
    assert transform(IMAGES)[0].data_ptr() == first.data_ptr()


# ---- Plans made by hand


def test_a_plan_survives_pickle_and_devices():
    plan = RICAP(seed=0).sample_plan(3, 8, 8)
    for again in (pickle.loads(pickle.dumps(plan)), plan.to("cpu")):
        assert_same_bits(again.rows, plan.rows)
        assert_same_bits(again.sources, plan.sources)
    assert repr(plan) == "PatchPlan(samples=3, patches=4, height=8, width=8, device='cpu')"


def test_the_batch_beside_the_mixed_one():
    """RegMixup: 2 B samples of B."""
    images, labels = torch.rand(6, 3, 8, 8), random_labels(6, 5)
    plan = cutmix_cuda.MixUp(alpha=20.0, seed=0).sample_plan(6, 8, 8)
    mixed, targets = paint(images, labels, PatchPlan.from_plan(plan, clean=True), 5)
    expected, expected_targets = cutmix_cuda.apply_plan(images, labels, plan, 5)
    assert torch.equal(mixed, torch.cat([images, expected]))
    assert torch.allclose(targets, torch.cat([torch.eye(5)[labels], expected_targets]), atol=1e-6)


def test_half_a_batch_with_partners_of_all():
    plan = CutMix(seed=0).sample_plan(8, 16, 20)
    half, targets = paint(IMAGES, LABELS, PatchPlan.from_plan(plan).head(4), 5)
    whole, whole_targets = cutmix_cuda.apply_plan(IMAGES, LABELS, plan, 5)
    assert_same_bits(half, whole[:4])
    assert torch.allclose(targets, whole_targets[:4], atol=1e-6)


def test_a_partner_of_a_second_batch():
    """Unlabelled images with a teacher's labels, say: as if concatenated."""
    images, others = torch.rand(4, 3, 8, 8), torch.rand(6, 3, 8, 8)
    soft, other_soft = soft_labels(4, 5), soft_labels(6, 5, seed=1)
    plan = PatchPlan.from_masks(torch.rand(4, 8, 8) > 0.5, torch.tensor([9, 4, 2, 7]), 8, 8)
    mixed, targets = paint(images, soft, plan, others=others, other_labels=other_soft)
    expected = paint(torch.cat([images, others]), torch.cat([soft, other_soft]), plan)
    assert torch.equal(mixed, expected[0]) and torch.equal(targets, expected[1])


@every_backend
def test_masks_of_a_model(backend):
    attention = torch.rand(8, 4, 5, device=backend.device)
    images, labels = IMAGES.to(backend.device), LABELS.to(backend.device)
    mixed, targets = mix_by_masks(images, labels, attention < 0.7, 5, backend=backend.name)
    own = (attention < 0.7).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    assert_same_bits(mixed, torch.where(own, images, images.roll(1, 0)))
    share = own.float().mean(dim=(1, 2, 3))[:, None]
    hot = torch.eye(5, device=backend.device)[labels]
    assert torch.allclose(targets, share * hot + (1 - share) * hot.roll(1, 0), atol=1e-6)
    weights = torch.rand(8, 2, device=backend.device)
    _, targets = mix_by_masks(images, labels, attention < 0.7, 5, weights=weights, backend=backend.name)
    assert torch.allclose(targets, weights[:, :1] * hot + weights[:, 1:] * hot.roll(1, 0), atol=1e-6)


def test_partner_weight_is_short_for_two_weights():
    partner, where = torch.tensor([1, 0]), torch.rand(2, 4, 4) > 0.5
    plan = PatchPlan.from_masks(where, partner, 8, 8, partner_weight=torch.tensor([0.25, 1.0]))
    assert plan.shares().tolist() == [[0.75, 0.25], [0.0, 1.0]]


def test_a_mask_of_classes_keeps_its_classes():
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    classes = tv_tensors.Mask(torch.randint(5, (8, 16, 20), dtype=torch.uint8))
    plan = ResizeMix(seed=0).sample_plan(8, 16, 20)
    mixed = paint(classes, None, plan)[0]
    assert isinstance(mixed, tv_tensors.Mask) and mixed.dtype == torch.uint8
    assert torch.equal(mixed.as_subclass(torch.Tensor), paint(classes.as_subclass(torch.Tensor), None, plan)[0])
    soft = PatchPlan.from_masks(torch.rand(8, 4, 4), torch.arange(8), 16, 20)
    with pytest.raises(TypeError, match="masks of floats"):
        paint(classes, None, soft)


@every_backend
def test_a_mask_of_each_channel_changes_colours(backend):
    """Red of the partner, the rest of the sample's own; a third of the label."""
    images, labels = IMAGES.to(backend.device), LABELS.to(backend.device)
    own = torch.tensor([False, True, True], device=backend.device)[None, :, None, None].expand(8, 3, 1, 1)
    mixed, targets = mix_by_masks(images, labels, own, 5, backend=backend.name)
    assert_same_bits(mixed, torch.cat([images.roll(1, 0)[:, :1], images[:, 1:]], dim=1))
    hot = torch.eye(5, device=backend.device)[labels]
    assert torch.allclose(targets, hot * 2 / 3 + hot.roll(1, 0) / 3, atol=1e-6)


def test_objects_below_a_mask_of_each_channel():
    """Are as visible as the mean over the channels says."""
    plan = PatchPlan.from_masks(torch.tensor([True, True, False])[None, :, None, None], torch.tensor([0]), 8, 8)
    mixed = plan.mix_boxes([torch.tensor([[0.0, 0.0, 4.0, 4.0]])])
    assert mixed.weight[0].tolist() == pytest.approx([2 / 3, 1 / 3])


# ---- Masks

LAM = torch.tensor([0.0, 0.25, 0.5, 0.8125, 1.0])
MASKS = {"fmix": masks.fmix, "cow": masks.cow, "grid": masks.grid, "blocks": masks.blocks}
every_mask = pytest.mark.parametrize("make", MASKS.values(), ids=MASKS)


@every_mask
def test_a_mask_has_lam_of_its_cells(make):
    cells = make(LAM, 16, 24, seed=1)
    assert (cells.shape, cells.dtype) == ((5, 16, 24), torch.bool)
    mean = cells.float().mean(dim=(1, 2))
    if make is masks.grid:
        many = make(torch.full((4000,), 0.4), 12, 12, cells=(2, 4), seed=1).float().mean(dim=(1, 2))
        assert abs(float(many.mean()) - 0.4) < 0.01
        assert (mean[[0, -1]] == torch.tensor([0.0, 1.0])).all()
    else:
        assert torch.equal(mean, LAM)


@every_mask
def test_every_sample_and_seed_has_its_own_mask(make):
    cells = make(torch.full((64,), 0.5), 12, 12, seed=1)
    assert len({tuple(mask.flatten().tolist()) for mask in cells}) > 50
    assert not torch.equal(cells, make(torch.full((64,), 0.5), 12, 12, seed=2))
    assert torch.equal(cells, make(torch.full((64,), 0.5), 12, 12, seed=1))
    assert abs(float(cells.float().mean()) - 0.5) < 0.02
    everywhere = make(torch.full((2000,), 0.5), 4, 4, seed=1).float().mean(dim=0)
    assert ((everywhere - 0.5).abs() < 0.06).all()  # no place is preferred


def test_masks_are_as_smooth_as_they_are_said_to_be():
    """The fraction of neighbours that differ."""

    def edges(cells: Tensor) -> float:
        return float((cells[:, 1:] != cells[:, :-1]).float().mean())

    half = torch.full((200,), 0.5)
    rough, smooth = (edges(masks.fmix(half, 32, 32, decay=decay, seed=1)) for decay in (1.0, 3.0))
    assert smooth < 0.08 < rough < edges(masks.blocks(half, 32, 32, seed=1)) / 1.5
    narrow, wide = (edges(masks.cow(half, 32, 32, sigma=(s, s), seed=1)) for s in (0.05, 0.25))
    assert wide < narrow / 2


def test_fmix_is_the_published_one():
    """Harris et al. 2020, given the noise: divided by powers of its frequencies, transformed back, and the largest."""
    cells, noise = masks.fmix(LAM, 16, 24, decay=2.5, seed=1), masks._normal(torch.tensor([1]), torch.arange(5), 416)
    frequency = np.hypot(np.fft.fftfreq(16)[:, None], np.fft.rfftfreq(24)).clip(1 / 24)
    for mask, lam, parts in zip(cells.numpy(), LAM.tolist(), noise.double().numpy().reshape(5, 16, 13, 2), strict=True):
        picture = np.fft.irfft2((parts[..., 0] + 1j * parts[..., 1]) / frequency**2.5, (16, 24)).ravel()
        largest = np.argsort(-picture)[: round(lam * 16 * 24)]
        assert set(np.flatnonzero(mask)) == set(largest)


@pytest.mark.parametrize("values", [1, 4, 1000])
def test_of_equal_values_the_first_are_the_largest(values):
    """As a stable sort has them, whatever number of them is wanted."""
    noise = np.random.default_rng(0).integers(values, size=(62, 61)).astype(np.float32) - 1
    noise[noise == 0] *= np.random.default_rng(1).choice([-1, 1], size=(noise == 0).sum())  # a zero of either sign
    found = masks._largest(torch.from_numpy(noise), torch.arange(62, dtype=torch.float64))
    for count, row in enumerate(noise):
        largest = np.argsort(-row, kind="stable")[:count]
        assert set(np.flatnonzero(found[count].numpy())) == set(largest)


@every_mask
def test_no_samples_have_no_masks_and_no_share_is_none(make):
    assert make(torch.empty(0), 5, 7, seed=1).shape == (0, 5, 7)
    assert not make(torch.tensor([float("nan"), -1.0]), 5, 7, seed=1).any()


def test_grids_are_of_cells():
    cells = masks.grid(torch.full((200,), 0.5), 12, 12, cells=(3, 3), seed=1)
    blocks = cells.unflatten(2, (3, 4)).unflatten(1, (3, 4))
    assert (blocks == blocks[:, :, :1, :, :1]).all()


def test_lam_of_fmix_is_that_of_its_distribution():
    plan = FMix(alpha=Uniform(0.5, 0.75), seed=1).sample_plan(500, 16, 16)
    assert plan.masks is not None
    lam = plan.masks.float().mean(dim=(1, 2))[plan.kind[:, 0] == 1]
    assert 0.49 < float(lam.min()) < 0.53 and 0.72 < float(lam.max()) < 0.76


# ---- Errors


def fails(kind: type[Exception], words: str, call: Any) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        call()


def test_errors_name_the_argument():
    x = torch.rand(4, 3, 8, 8)
    partner, boxes = torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, 2, 4, dtype=torch.int64)
    plan = PatchPlan.from_boxes(partner, boxes, 8, 8)
    fails(TypeError, "plan must be a PatchPlan, got MixPlan", lambda: paint(x, None, CutMix().sample_plan(4, 8, 8)))
    fails(TypeError, "follow it with cutmix_cuda.paint", lambda: cutmix_cuda.apply_plan(x, None, plan))
    fails(ValueError, "plan must be for images of height 9", lambda: paint(torch.rand(4, 3, 9, 8), None, plan))
    fails(ValueError, "others must be samples like images", lambda: paint(x, None, plan, others=x[:, :2]))
    fails(ValueError, "others must have the dtype", lambda: paint(x, None, plan, others=x.half()))
    fails(ValueError, "other_labels must be given", lambda: paint(x, LABELS[:4], plan, 5, others=x))
    fails(ValueError, "others must be given", lambda: paint(x, LABELS[:4], plan, 5, other_labels=LABELS))
    fails(ValueError, "other_labels must be of the dtype of labels", lambda: paint(
        x, LABELS[:4], plan, 5, others=x, other_labels=LABELS[:4].int()))  # fmt: skip
    fails(ValueError, "other_labels must be in 0..4", lambda: paint(
        x, LABELS[:4], plan, 5, others=x, other_labels=torch.full((4,), 7)))  # fmt: skip
    fails(ValueError, "out must have the shape", lambda: paint(x, None, plan, out=torch.rand(3, 3, 8, 8)))
    fails(ValueError, "out must not overlap images", lambda: paint(x, None, plan, out=x))
    fails(ValueError, "out must not overlap others", lambda: paint(x.clone(), None, plan, others=x, out=x))
    fails(ValueError, "images must not be empty", lambda: paint(x[:0], None, plan))
    outside = PatchPlan.from_boxes(partner + 4, boxes, 8, 8)
    fails(ValueError, "partners in 0..3", lambda: paint(x, None, outside))
    fails(ValueError, "sample 0 has partners [4, 4]", lambda: paint(x, None, outside))
    blend = PatchPlan.from_boxes(partner, boxes, 8, 8, kind=partner + 2, lam=torch.rand(4, 2))
    fails(TypeError, "images must be of a dtype that mixup blends", lambda: paint(x.long(), None, blend))


def test_errors_of_masks_of_each_channel():
    x, partner = torch.rand(4, 3, 8, 8), torch.tensor([1, 2, 3, 0])
    plan = PatchPlan.from_masks(torch.rand(4, 2, 4, 4), partner, 8, 8)
    fails(ValueError, "(B, channels, ..., H, W), got (4, 2, 4, 4) for (4, 3, 8, 8)", lambda: paint(x, None, plan))
    fails(ValueError, "must be of the channels of images", lambda: paint(torch.rand(4, 8, 8), None, plan))
    fails(ValueError, "masks must be of shape (masks, h, w) or (masks, channels, h, w)", lambda: mix_by_masks(
        x, None, torch.rand(4, 2, 3, 4, 4)))  # fmt: skip
    fails(ValueError, "for at most 274877906944 pixels of all channels", lambda: PatchPlan.from_masks(
        torch.rand(1, 257, 1, 1), partner[-1:], 1 << 15, 1 << 15))  # fmt: skip


def test_errors_in_place():
    x = torch.rand(4, 3, 8, 8)
    box = torch.tensor([0, 0, 4, 4]).expand(4, 1, 4)
    roll, flip = torch.tensor([[3], [0], [1], [2]]), torch.tensor([[3], [2], [1], [0]])
    made = PatchPlan.from_boxes
    fails(ValueError, "in place, plan must have patches that are filled", lambda: paint_(
        x, None, made(roll, box, 8, 8)))  # fmt: skip
    fails(ValueError, "sample 0 has partners [3], boxes [[0, 0, 4, 4]] and sources [[4, 4, 8, 8]]", lambda: paint_(
        x, None, made(flip, box, 8, 8, sources=box + 4)))  # fmt: skip
    fails(ValueError, "plan must be of the 4 samples", lambda: paint_(x, None, made(flip, box, 8, 8).head(2)))
    fails(ValueError, "images must not overlap themselves", lambda: paint_(
        x[:1].expand(4, 3, 8, 8), None, made(flip, box, 8, 8)))  # fmt: skip
    fails(ValueError, "images must not overlap masks", lambda: paint_(
        x, None, PatchPlan.from_masks(x[:, 0], flip[:, 0], 8, 8)))  # fmt: skip
    fails(ValueError, "out must not overlap masks", lambda: paint(
        x.clone(), None, PatchPlan.from_masks(x[:, 0], flip[:, 0], 8, 8), out=x))  # fmt: skip
    assert torch.equal(x, x.clone())


def test_errors_of_plans():
    partner, boxes = torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, 2, 4, dtype=torch.int64)
    made = PatchPlan.from_boxes
    fails(ValueError, "partner must be of shape", lambda: made(partner[0], boxes, 8, 8))
    fails(ValueError, "boxes must be of shape", lambda: made(partner, boxes[:, :1], 8, 8))
    fails(TypeError, "boxes must be of an integer dtype", lambda: made(partner, boxes.float(), 8, 8))
    fails(ValueError, "plan must have partners", lambda: made(partner, boxes + 9, 8, 8))
    fails(ValueError, "sources must be of shape", lambda: made(partner, boxes, 8, 8, sources=boxes[:3]))
    fails(ValueError, "lam must be given", lambda: made(partner, boxes, 8, 8, kind=partner + 2))
    fails(TypeError, "lam must be a float", lambda: made(partner, boxes, 8, 8, lam=partner))
    fails(ValueError, "mask must be given", lambda: made(partner, boxes, 8, 8, masks=torch.rand(3, 2, 2)))
    fails(TypeError, "masks must be bool or floats", lambda: made(partner, boxes, 8, 8, masks=boxes))
    fails(ValueError, "masks must be given with mask", lambda: made(partner, boxes, 8, 8, mask=partner))
    fails(ValueError, "weights must be of shape", lambda: made(partner, boxes, 8, 8, weights=torch.rand(4, 2)))
    fails(ValueError, "height must be at most 32768", lambda: made(partner, boxes, 40000, 8))
    fails(ValueError, "rows must be of shape", lambda: PatchPlan(torch.zeros(4, 65, 8, dtype=torch.int32), 8, 8))
    fails(
        ValueError, "masks must be one a sample", lambda: PatchPlan.from_masks(torch.rand(3, 2, 2), partner[:, 0], 8, 8)
    )
    fails(TypeError, "plan must be a MixPlan", lambda: PatchPlan.from_plan(made(partner, boxes, 8, 8)))


def test_errors_of_transforms_and_masks():
    fails(ValueError, "scope must be 'sample' or 'batch'", lambda: RICAP(scope="pair"))
    fails(ValueError, "scope must be 'sample' or 'batch'", lambda: Mix(ricap=0.1, scope="pair"))
    fails(ValueError, "correct_lam must be True", lambda: Mix(resizemix=0.1, correct_lam=False))
    fails(ValueError, "must be at most 1 together", lambda: Mix(ricap=0.5, resizemix=0.3, cutout=0.3))
    fails(ValueError, "ricap must be in [0, 1]", lambda: Mix(ricap=1.5))
    fails(ValueError, "ricap_beta must be positive", lambda: Mix(ricap_beta=0.0))
    fails(ValueError, "resizemix_scale must be in [0, 1]", lambda: Mix(resizemix_scale=2.0))
    fails(ValueError, "cutout_holes must be 1 or more", lambda: Mix(cutout_holes=0))
    fails(ValueError, "inplace must be False", lambda: Mix(resizemix=0.1, inplace=True))
    fails(TypeError, "give it what Augment returns", lambda: cutmix_cuda.Augment(Mix(ricap=0.1)))
    fails(TypeError, "unexpected keyword argument 'ricap'", lambda: cutmix_cuda.mix(IMAGES, ricap=0.1))
    Mix(cutout=0.1, ricap=0.2, resizemix=0.7)  # 1 together, but for the rounding of a sum
    fails(ValueError, "scale must be in [0, 1]", lambda: ResizeMix(scale=1.5))
    fails(ValueError, "holes must be 1 or more", lambda: Cutout(holes=0))
    fails(ValueError, "holes must be at most 64", lambda: Cutout(holes=65))
    fails(TypeError, "holes must be an int", lambda: Cutout(holes=1.5))
    fails(ValueError, "partner must be its own inverse", lambda: FMix(partner="roll", inplace=True))
    fails(ValueError, "reuse_output must be False with inplace", lambda: FMix(reuse_output=True, inplace=True))
    fails(TypeError, "mix must be of one box a sample", lambda: cutmix_cuda.Augment(RICAP()))
    fails(ValueError, "decay must be positive", lambda: FMix(decay=0.0))
    fails(ValueError, "decay must be at most 14.7 for 100 x 224 cells", lambda: masks.fmix(LAM, 100, 224, decay=15.0))
    fails(TypeError, "lam must be a float tensor", lambda: masks.fmix(torch.tensor([1]), 4, 4))
    fails(ValueError, "lam must be of shape", lambda: masks.cow(torch.rand(2, 2), 4, 4))
    fails(ValueError, "height must be positive", lambda: masks.blocks(LAM, 0, 4))
    fails(ValueError, "sigma must be", lambda: masks.cow(LAM, 4, 4, sigma=(0.5, 0.1)))
    fails(ValueError, "cells must be", lambda: masks.grid(LAM, 4, 4, cells=(3, 2)))


# ---- opcheck


def op_arguments(op: str, images: Tensor, labels: Tensor) -> tuple[Any, ...]:
    batch, (height, width) = len(images), images.shape[-2:]
    plan = random_plan(batch + 1, 2, batch, height, width, kinds=(PASTE, FILL), masks=(3, 3), sources=True)
    parts = tuple(None if part is None else part.to(images.device) for part in plan)
    paired = in_pairs(random_plan(batch, 2, batch, height, width, kinds=(PASTE, FILL), masks=(images.shape[1], 3, 3)))
    pairs = tuple(None if part is None else part.to(images.device) for part in paired)
    tables = quantiles((1.0, 0.2, 0.25, 0.5, 0.3), images.device, PATCH_METHODS)
    draw = torch.tensor([3]), tables, (0.2, 0.4, 0.6, 0.7, 0.9), (0, 3, 0, 2, 4)
    holes = torch.tensor([3]), tables, only("cutout", 0.8), (0, 3, 0, 4, 4)
    targets = 5, 0.1, torch.float32
    given = images, None, labels, None, *parts
    return {
        "paint": (*given, *targets, (0, 0)),
        "paint_out": (*given, *targets, images.new_zeros(batch + 1, *images.shape[1:]), (0, 0)),
        "paint_": (images.clone(), labels, *pairs, *targets, (0, 0)),
        "paint_targets": (labels, None, parts[0], parts[2], None, height, width, *targets),
        "sample_patches": (*draw, batch, height, width),
        "sample_and_paint": (images, labels, *draw, *targets, (0, 0)),
        "sample_and_paint_": (images.clone(), labels, *holes, *targets, (0, 0)),
        "sample_and_paint_out": (images, labels, *draw, *targets, torch.zeros_like(images), (0, 0)),
    }[op]


@every_backend
@pytest.mark.parametrize("op", reference_patches.OPS)
def test_opcheck(backend, op):
    overload = getattr(ops_for(backend.name, torch.device(backend.device)), op)
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.rand(4, 3, 6, 9).contiguous(memory_format=layout).to(backend.device)
        for labels in (random_labels(4, 5), soft_labels(4, 5)):
            torch.library.opcheck(overload, op_arguments(op, images, labels.to(backend.device)))


# ---- Boxes of objects


def some_objects(batch: int, height: int, width: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    boxes = []
    for i in range(batch):
        corners = torch.rand(4, 2, 2, generator=torch.Generator().manual_seed(seed + i)) * torch.tensor([width, height])
        boxes.append(torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1))
    return boxes, [torch.arange(4) + 10 * i for i in range(batch)]


def test_objects_of_one_box_are_those_of_its_plan():
    boxes, classes = some_objects(6, 16, 20)
    for seed in range(4):
        plan = cutmix_cuda.Mix(cutout=0.3, seed=seed).sample_plan(6, 16, 20)
        expected = plan.mix_boxes(boxes, classes, min_visible=0.1)
        mixed = PatchPlan.from_plan(plan).mix_boxes(boxes, classes, min_visible=0.1)
        assert mixed.labels is not None and expected.labels is not None
        for i in range(6):
            assert torch.equal(mixed.labels[i], expected.labels[i])
            for actual, wanted in zip(mixed, expected, strict=True):
                assert torch.allclose(actual[i].float(), wanted[i].float(), atol=1e-4)


def test_objects_follow_sources_and_hide_below_later_patches():
    """An object painted as pixels is seen where its box is said to be."""
    plan = RICAP(seed=2).sample_plan(5, 40, 48)
    boxes = [torch.tensor([[10.0, 8.0, 30.0, 30.0]])] * 5
    images = torch.zeros(5, 5, 40, 48)
    for i in range(5):
        images[i, i, 8:30, 10:30] = 1
    mixed = plan.mix_boxes(boxes, [torch.tensor([i]) for i in range(5)])
    painted = paint(images, None, plan)[0]
    assert mixed.labels is not None
    for i in range(5):
        for box, label, visible in zip(mixed.boxes[i], mixed.labels[i].tolist(), mixed.visible[i], strict=True):
            x0, y0, x1, y1 = box.long().tolist()
            assert torch.equal(box, box.round())
            assert painted[i, label, y0:y1, x0:x1].all()
            assert float(visible) == pytest.approx((x1 - x0) * (y1 - y0) / (22 * 20), abs=1e-6)
        shown = sum(int((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in mixed.boxes[i].tolist())
        assert shown == int(painted[i].sum())


def test_objects_of_a_resized_partner_and_of_a_second_batch():
    boxes = [torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([[0.0, 8.0, 8.0, 16.0]])]
    whole, small = torch.tensor([[[0, 0, 16, 16]]]), torch.tensor([[[4, 8, 12, 16]]])
    plan = PatchPlan.from_boxes(torch.tensor([[1]]), small, 16, 16, sources=whole)
    mixed = plan.mix_boxes(boxes, others=1)
    assert mixed.boxes[0].tolist() == [[0.0, 0.0, 16.0, 16.0], [8.0, 8.0, 12.0, 12.0]]
    assert mixed.visible[0].tolist() == [0.75, 1.0]
    fails(ValueError, "partners in 0..0", lambda: plan.mix_boxes(boxes[:1]))
