"""Patches drawn in the launch: every backend against an oracle, the published formulas, and the distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import RICAP, Cutout, FMix, Mix, PatchPlan, ResizeMix, distributions, paint
from cutmix_cuda._backends import ops_for
from cutmix_cuda._ops import KINDS, PATCH_METHODS
from cutmix_cuda.distributions import quantiles

from ..helpers import assert_same_bits, every_backend, label_coded_images, random_images, random_labels
from ..oracle_patches import Plan, only, oracle_paint, oracle_patches

DISTRIBUTIONS = 1.0, 0.2, distributions.Beta(2.0, 5.0), distributions.Uniform(0.1, 0.8), 0.3
TABLES = quantiles(DISTRIBUTIONS, torch.device("cpu"), PATCH_METHODS)
EVERY = 0.15, 0.3, 0.45, 0.65, 0.9  # bounds that leave room for all methods, and for samples that are kept

Sampling = tuple[tuple[float, ...], tuple[int, ...]]  # bounds, and the integers of the op
SAMPLINGS: dict[str, Sampling] = {
    "holes": (only("cutout", 0.7), (0, 3, 0, 3, 3)),
    "holes inside": (only("cutout", 0.7), (0, 3, 1, 2, 2)),
    "holes of pairs": (only("cutout", 0.7), (1, 1, 0, 64, 64)),
    "a hole of a batch": (only("cutout", 0.7), (2, 2, 1, 1, 1)),
    "resizemix": (only("resizemix", 0.7), (0, 3, 0, 1, 1)),
    "resizemix of pairs": (only("resizemix", 0.7), (1, 1, 0, 1, 1)),
    "resizemix of rolled": (only("resizemix", 0.7), (2, 0, 0, 1, 1)),
    "ricap": (only("ricap", 0.7), (0, 3, 0, 1, 4)),
    "ricap of a batch": (only("ricap", 0.7), (2, 3, 0, 1, 4)),
    "every method": (EVERY, (0, 3, 0, 1, 4)),
    "every method, inside": (EVERY, (0, 2, 1, 6, 6)),
    "all but ricap, of pairs": ((0.2, 0.4, 0.6, 0.9, 0.9), (1, 3, 0, 2, 3)),
    "one method, of a batch": (EVERY, (2, 1, 0, 2, 4)),
}
SIZES = [(7, 13, 9), (8, 32, 48), (1, 5, 5), (3, 1, 1), (4, 1, 20), (4, 20, 1), (2, 0, 4), (0, 4, 4)]
every_sampling = pytest.mark.parametrize("name", SAMPLINGS)


@every_backend
@every_sampling
@pytest.mark.parametrize("seed", [0, -1, 20180408])
def test_every_backend_draws_as_the_oracle(backend, name, seed):
    bounds, sampling = SAMPLINGS[name]
    for batch, height, width in SIZES:
        expected = oracle_patches(seed, TABLES.numpy(), bounds, sampling, batch, height, width)
        draw = torch.tensor([seed]), TABLES.to(backend.device), bounds, list(sampling)
        drawn = ops_for(backend.name, torch.device(backend.device)).sample_patches(*draw, batch, height, width)
        for actual, wanted in zip(drawn, expected, strict=True):
            assert_same_bits(actual.cpu(), wanted)
        if batch == 0:
            continue
        images, labels = random_images((batch, 2, height, width), torch.uint8), random_labels(batch, 5)
        there = images.to(backend.device), labels.to(backend.device)
        mixed, targets, *plan = ops_for(backend.name, torch.device(backend.device)).sample_and_paint(
            *there, *draw, 5, 0.1, torch.float32
        )
        for actual, wanted in zip(plan, expected, strict=True):
            assert_same_bits(actual.cpu(), wanted)
        if images.numel() > 0:
            assert_same_bits(mixed.cpu(), oracle_paint(images, Plan(*expected)).images)
        follow = paint(*there, PatchPlan(plan[0], height, width, plan[1]), 5, label_smoothing=0.1, backend=backend.name)
        assert_same_bits(mixed.cpu(), follow[0].cpu())
        assert_same_bits(targets.cpu(), follow[1].cpu())


KINDS_ALONE = (0.3, 0.6, 0.8)


@every_backend
@pytest.mark.parametrize("sampling", [(0, 3, 0), (0, 2, 1), (1, 3, 1), (2, 1, 0)])
def test_what_is_drawn_as_one_of_the_kinds_is_what_mix_draws(backend, sampling):
    """Beside other methods, a sample whose random number says a kind has the very row that it has without them; and
    where no other method has a share, so have all of them, and their pixels are the same."""
    device, batch, size = torch.device(backend.device), 64, (24, 20)
    ops, seed, tables = ops_for(backend.name, device), torch.tensor([2019]), TABLES.to(device)
    plain = ops.sample_plan(seed, tables[:KINDS], KINDS_ALONE, (*sampling, 1), batch, *size)
    for others in ((0.8, 0.8), (0.9, 1.0)):
        draw = seed, tables, (*KINDS_ALONE, *others), (*sampling, 1, 4)
        rows, sources = ops.sample_patches(*draw, batch, *size)
        mixed = plain[:, 6] != 0
        expected = PatchPlan.from_plan(cutmix_cuda.MixPlan(plain, *size)).rows[:, 0]  # a blend's box is the image
        assert_same_bits(rows[mixed, 0], expected[mixed])
        assert_same_bits(sources[mixed, 0], expected[mixed, 1:5])
        assert (rows[mixed, 1:, 6] == 0).all()
        assert ((rows[~mixed, :, 6] != 0).any(dim=1) == (others[1] > 0.8)).all()
    images, labels = torch.rand(batch, 2, *size).to(device), torch.arange(batch).to(device)
    draw = seed, tables, (*KINDS_ALONE, 0.8, 0.8), (*sampling, 1, 1)
    targets = batch, 0.1, torch.float32
    painted = ops.sample_and_paint(images, labels, *draw, *targets)
    wanted = ops.sample_and_apply(images, labels, seed, tables[:KINDS], KINDS_ALONE, (*sampling, 1), *targets)
    assert_same_bits(painted[0], wanted[0])
    assert torch.allclose(painted[1], wanted[1], atol=1e-6)


@every_backend
def test_a_direct_call_says_what_is_wrong(backend):
    device = torch.device(backend.device)
    ops, seed, tables = ops_for(backend.name, device), torch.tensor([3]), TABLES.to(device)
    if backend.name == "reference":
        pytest.skip("the reference takes what it is given")
    for sampling in ((3, 3, 0, 1, 4), (0, 3, 0, 0, 4), (0, 3, 0, 1, 3), (0, 3, 0, 5, 4), (0, 3, 0, 1, 65), (0, 3)):
        with pytest.raises(RuntimeError, match="patch_sampling must be a known scope"):
            ops.sample_patches(seed, tables, EVERY, sampling, 4, 8, 8)
    with pytest.raises(RuntimeError, match="bounds must be a number for each method"):
        ops.sample_patches(seed, tables, EVERY[:3], (0, 3, 0, 1, 4), 4, 8, 8)
    with pytest.raises(RuntimeError, match="quantiles must be a contiguous float32 tensor of a row"):
        ops.sample_patches(seed, tables[:3].contiguous(), EVERY, (0, 3, 0, 1, 4), 4, 8, 8)
    with pytest.raises(RuntimeError, match="mixup blends images of dtype"):
        images = torch.zeros(4, 3, 8, 8, dtype=torch.int64, device=device)
        ops.sample_and_paint(images, None, seed, tables, EVERY, (0, 3, 0, 1, 4), 0, 0.0, torch.float32)


# ---- The published formulas, given their draws


def test_ricap_is_the_published_one():
    """Four crops put together by torch.cat, and labels weighted by their areas, as in the code of the paper."""
    images, labels = torch.rand(6, 3, 24, 40), torch.arange(6)
    mixed, targets, plan = RICAP(num_classes=6, seed=3)(images, labels, return_plan=True)
    for i in range(6):
        crops, expected = [], torch.zeros(6)
        for k in range(4):
            y, x, y1, x1 = plan.sources[i, k].tolist()
            partner = int(plan.partner[i, k])
            crops.append(images[partner, :, y:y1, x:x1])
            expected[partner] += (y1 - y) * (x1 - x) / (24 * 40)
        upper, lower = torch.cat(crops[:2], dim=2), torch.cat(crops[2:], dim=2)
        assert torch.equal(mixed[i], torch.cat([upper, lower], dim=1))
        assert torch.allclose(targets[i], expected, atol=1e-6)


@pytest.mark.parametrize("size", [(24, 40), (1, 40), (40, 1)], ids=str)
def test_resizemix_is_the_published_one(size):
    """The partner by F.interpolate, pasted where the box is; in one dimension a span of 0.1 to 0.8 of the length."""
    images, labels = torch.rand(32, 3, *size), torch.arange(32)
    mixed, targets, plan = ResizeMix(num_classes=32, seed=3)(images, labels, return_plan=True)
    for i in range(32):
        y0, x0, y1, x1 = plan.boxes[i, 0].tolist()
        if 1 in size:
            assert min(y1 - y0, x1 - x0) == 1 and 4 <= max(y1 - y0, x1 - x0) <= 32
        partner, expected = int(plan.partner[i, 0]), images[i].clone()
        small = torch.nn.functional.interpolate(images[partner][None], size=(y1 - y0, x1 - x0), mode="nearest")[0]
        expected[:, y0:y1, x0:x1] = small
        assert torch.equal(mixed[i], expected)
        share = (y1 - y0) * (x1 - x0) / (size[0] * size[1])
        assert float(targets[i, partner]) == pytest.approx(share, abs=1e-6)


def test_nearest_sizes_of_torch_and_ours():
    """The same source pixel for all but the sizes at which torch's float scale is off: few, and by one."""
    differing = 0
    for size in range(1, 129):
        ours = torch.tensor([y * 128 // size for y in range(size)])
        rows = torch.arange(128.0)[None, None]
        theirs = torch.nn.functional.interpolate(rows, size=size, mode="nearest").long()[0, 0]
        differing += int(not torch.equal(ours, theirs))
        assert (ours - theirs).abs().max() <= 1
    assert differing <= 8


def test_holes_are_filled_and_keep_the_target():
    images, labels = torch.rand(6, 3, 24, 40), torch.arange(6)
    mixed, targets, plan = Cutout(num_classes=6, holes=3, fill=7.0, seed=3)(images, labels, return_plan=True)
    expected = images.clone()
    for i in range(6):
        for y0, x0, y1, x1 in plan.boxes[i].tolist():
            expected[i, :, y0:y1, x0:x1] = 7
    assert torch.equal(mixed, expected)
    assert torch.equal(targets, torch.eye(6))


# ---- Distributions

MANY = 1 << 14
LEAST_P = 1e-4  # of a test that fails by chance; the seeds are fixed


def drawn(transform: Any, height: int = 64, width: int = 96) -> PatchPlan:
    return transform.sample_plan(MANY, height, width, seed=7)


def uniform_p(values: Tensor, count: int) -> float:
    observed = torch.bincount(values.long().flatten(), minlength=count).double().numpy()
    return float(stats.chisquare(observed).pvalue)


def test_corners_of_ricap_are_beta():
    boxes = drawn(RICAP(), 4096, 4096).boxes[:, 0]
    for corner in (boxes[:, 2], boxes[:, 3]):
        # Half of the mass is within a hundredth of an end, so the pixels there tell by how much it is apart.
        for fraction in (1 / 64, 1 / 8, 1 / 2, 7 / 8, 63 / 64):
            below = int((corner < fraction * 4096).sum())
            expected = float(stats.beta(0.3, 0.3).cdf(fraction - 0.5 / 4096))
            assert stats.binomtest(below, MANY, expected).pvalue > LEAST_P
    assert abs(np.corrcoef(boxes[:, 2].numpy(), boxes[:, 3].numpy())[0, 1]) < 0.03


def test_crops_of_ricap_reach_both_ends_evenly():
    plan = drawn(RICAP(beta=distributions.Constant(0.5)), 16, 16)
    assert plan.sources is not None
    for k in range(4):
        for column in (0, 1):
            assert uniform_p(plan.sources[:, k, column], 9) > LEAST_P
    first, second = plan.sources[:, 0, 0].double(), plan.sources[:, 1, 0].double()
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.03


def test_partners_of_ricap_are_uniform_and_apart():
    """Over calls, of each corner; those of two corners are independent."""
    transform = RICAP(seed=5)
    partners = torch.stack([transform.sample_plan(8, 8, 8).partner[3] for _ in range(2000)])
    for k in range(4):
        assert uniform_p(partners[:, k], 8) > LEAST_P
    assert uniform_p(partners[:, 0] * 8 + partners[:, 1], 64) > LEAST_P


def test_scales_of_resizemix_are_uniform_and_boxes_inside():
    plan = drawn(ResizeMix(), 1000, 2000)
    y0, x0, y1, x1 = plan.boxes[:, 0].unbind(1)
    scale = (y1 - y0).numpy() / 1000
    dithered = scale + np.random.default_rng(0).uniform(0, 1, MANY) / 1000
    assert stats.kstest(dithered, stats.uniform(0.1, 0.7).cdf).pvalue > LEAST_P
    assert ((x1 - x0).float() / (y1 - y0) - 2).abs().max() < 0.03
    assert (y0 >= 0).all() and (x0 >= 0).all() and (y1 <= 1000).all() and (x1 <= 2000).all()
    small = drawn(ResizeMix(scale=0.75), 16, 16).boxes[:, 0]
    assert uniform_p(small[:, 0], 5) > LEAST_P
    assert uniform_p(small[:, 1], 5) > LEAST_P


def test_holes_have_the_area_of_cutout():
    """Each of them, and independent places."""
    plan, one = drawn(Cutout(holes=3)), drawn(Cutout())
    areas = (plan.boxes[..., 2] - plan.boxes[..., 0]) * (plan.boxes[..., 3] - plan.boxes[..., 1])
    alone = (one.boxes[:, 2] - one.boxes[:, 0]) * (one.boxes[:, 3] - one.boxes[:, 1])
    for k in range(3):
        assert stats.ks_2samp(areas[:, k].numpy(), alone.numpy()).pvalue > LEAST_P
    assert abs(np.corrcoef(areas[:, 0].numpy(), areas[:, 1].numpy())[0, 1]) < 0.03


@pytest.mark.parametrize("make", [RICAP, ResizeMix, lambda **options: Cutout(holes=2, **options)])
def test_prob_is_that_of_a_sample(make):
    plan = drawn(make(prob=0.3))
    mixed = (plan.kind != 0).all(dim=1)
    assert torch.equal(mixed, (plan.kind != 0).any(dim=1))
    assert stats.binomtest(int(mixed.sum()), MANY, 0.3).pvalue > LEAST_P
    assert (drawn(make(prob=0.0)).kind == 0).all()


def method_of(plan: PatchPlan) -> Tensor:
    """By which method each sample was mixed, as its patches tell."""
    assert plan.sources is not None
    several, first, kind = (plan.kind != 0).sum(dim=1) > 1, plan.kind[:, 0], plan.kind
    resized = (plan.sources[:, 0] != plan.boxes[:, 0]).any(dim=1)
    pasted = torch.where(several, 5, torch.where(resized, 4, 1))
    assert (kind[several] != 2).all()
    return torch.where(first == 1, pasted, first)


SHARES = {"cutout": 0.1, "ricap": 0.15, "resizemix": 0.2, "prob": 0.8, "switch_prob": 0.25}


@pytest.mark.parametrize("holes", [1, 3])
def test_probabilities_of_the_methods_of_mix(holes):
    """Of all samples: what is cut out, and mixed by ricap and resizemix; of the others prob, of these switch_prob."""
    plan = drawn(Mix(**SHARES, cutout_holes=holes, resizemix_scale=0.7), 65, 97)
    observed = torch.bincount(method_of(plan), minlength=6).double().numpy()
    mixed = 0.55 * 0.8
    expected = np.array([0.55 - mixed, mixed * 0.25, mixed * 0.75, 0.1, 0.2, 0.15]) * MANY
    assert stats.chisquare(observed, expected).pvalue > LEAST_P
    cut = plan.kind == 3
    assert torch.equal(cut.sum(dim=1), torch.where(cut[:, 0], holes, 0))


@pytest.mark.parametrize("scope", ["pair", "batch"])
def test_a_draw_in_common_is_one_method(scope):
    """Of a pair, or of the batch; over the batches the methods have their probabilities."""
    options = {**SHARES, "ricap": 0.0} if scope == "pair" else SHARES
    transform, seen = Mix(**options, scope=scope, resizemix_scale=0.7, seed=1), []
    for _ in range(300):
        plan = transform.sample_plan(6, 65, 97)
        method = method_of(plan)
        first = plan.partner[:, 0].long()
        assert torch.equal(method, method[first] if scope == "pair" else method[:1].expand(6))
        seen.append(method[:1])
    counts = torch.bincount(torch.cat(seen), minlength=6).double().numpy()
    left = 1 - sum(options[name] for name in ("cutout", "ricap", "resizemix"))
    expected = np.array([0.2 * left, 0.2 * left, 0.6 * left, 0.1, 0.2, options["ricap"]]) * 300
    assert stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue > LEAST_P


def test_label_is_the_share_of_pixels_that_are_coded_with_it():
    images = label_coded_images((12, 1, 24, 40))
    pasting = Mix(num_classes=12, mixup_alpha=None, ricap=0.3, resizemix=0.3, seed=1)
    for transform in (*(method(num_classes=12, seed=1) for method in (RICAP, ResizeMix, FMix)), pasting):
        mixed, targets = transform(images, torch.arange(12))
        counts = torch.stack([(mixed == label).sum(dim=(1, 2, 3)) for label in range(12)], dim=1)
        assert torch.allclose(targets, counts / (24 * 40), atol=1e-6)


def test_targets_of_mix_are_lam_where_blended_and_their_own_where_cut_out():
    transform = Mix(num_classes=400, mixup_alpha=0.7, **SHARES, cutout_holes=2, seed=1)
    _, targets, plan = transform(torch.rand(400, 1, 24, 40), torch.arange(400), return_plan=True)
    method, own, partner = method_of(plan), targets.diagonal(), plan.partner[:, 0].long()
    blended = method == 2
    assert blended.sum() > 100
    assert torch.allclose(own[blended], plan.lam[blended, 0], atol=1e-6)
    theirs = targets[torch.arange(400), partner]
    assert torch.allclose(theirs[blended], 1 - plan.lam[blended, 0], atol=1e-6)
    same = (method == 0) | (method == 3)
    assert (own[same] == 1).all() and (targets.sum(dim=1) - 1).abs().max() < 1e-6


def test_old_seeds_keep_their_boxes():
    """Streams of patches are their own: what a seed drew before there were any, it draws still."""
    plan = cutmix_cuda.sample_plan(3, 32, 32, seed=0)
    assert plan.boxes.tolist() == [[0, 19, 12, 32], [8, 20, 22, 32], [0, 0, 0, 0]]
    one = Cutout(seed=0).sample_plan(2, 32, 32, seed=0)
    assert one.boxes.tolist() == [[0, 22, 9, 32], [7, 19, 23, 32]]
