"""The plan: the same on every backend, boxes and partners as they should be distributed, and MixPlan itself."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

import cutmix_cuda
from cutmix_cuda import CutMix, Mix, MixPlan, reference, sample_plan
from cutmix_cuda._literals import PartnerName
from cutmix_cuda.distributions import Constant, Uniform, as_distribution, quantiles

from .. import helpers

MANY = 1 << 17  # samples, for statistics

# Statistics are of fixed seeds. A right sampler fails such a test at once in a million seeds, about 5 sigma.
RARE = 1e-6
SIGMAS = 5.0


def plan_as_numpy(count: int, height: int, width: int, **arguments) -> tuple[np.ndarray, ...]:
    """Partner, boxes (transposed: y0, x0, y1, x1), lam and kind of a big batch in which nobody is alone."""
    settings: dict[str, Any] = {"partner": "roll", "seed": 2026} | arguments
    plan = sample_plan(count, height, width, **settings)
    return plan.partner.numpy(), plan.boxes.numpy().T, plan.lam.numpy(), plan.kind.numpy()


# ---- The same plan everywhere

choices = st.fixed_dictionaries(
    {
        "alpha": st.sampled_from([0.01, 0.2, 1.0, 8.0, Uniform(0.1, 0.9), Constant(0.0), Constant(0.5), Constant(1.0)]),
        "prob": st.sampled_from([0.0, 0.3, 1.0]),
        "scope": st.sampled_from(helpers.SCOPES),
        "partner": st.sampled_from(helpers.PARTNERS),
        "placement": st.sampled_from(helpers.PLACEMENTS),
        "correct_lam": st.booleans(),
    }
)
any_seed = st.integers(-(2**63), 2**64 - 1)


@helpers.every_backend
@given(st.integers(0, 9), st.integers(0, 300), st.integers(0, 300), choices, any_seed)
def test_plan_is_the_oracles(backend, batch, height, width, choices, seed):
    plan = sample_plan(batch, height, width, **choices, seed=seed, device=backend.device, backend=backend.name)
    tables = quantiles((as_distribution(choices["alpha"]),), torch.device("cpu")).numpy()
    rules = {name: value for name, value in choices.items() if name not in ("alpha", "prob")}
    expected = helpers.oracle_plan(seed, tables, batch, height, width, bounds=[choices["prob"]] * 3, **rules)
    helpers.assert_same_bits(plan.packed, helpers.packed(expected))
    assert (len(plan), plan.height, plan.width, plan.device.type) == (batch, height, width, backend.device)


@helpers.every_backend
@pytest.mark.parametrize("batch", [1, 2, 255, 256, 257, 1023, 5000])
@pytest.mark.parametrize("extent", [(1, 2**31 - 1), (2**31 - 1, 1), (46340, 46340), (224, 224)], ids=str)
def test_backends_agree_on_every_size(backend, batch, extent):
    for placement in helpers.PLACEMENTS:
        arguments = {"alpha": 0.2, "placement": placement, "scope": "pair", "prob": 0.9, "seed": batch}
        plan = sample_plan(batch, *extent, **arguments, device=backend.device, backend=backend.name)
        expected = sample_plan(batch, *extent, **arguments, backend="reference")
        helpers.assert_same_bits(plan.packed, expected.packed)
        plan.to("cpu").check(in_place=True)


# ---- Lambda and boxes


@pytest.mark.parametrize("placement", helpers.PLACEMENTS)
@pytest.mark.parametrize("extent", [(224, 224), (7, 300), (1, 1), (1, 9), (4096, 4095)], ids=str)
def test_lam_is_the_share_left(placement, extent):
    height, width = extent
    _, (y0, x0, y1, x1), lam, kind = plan_as_numpy(10_000, height, width, placement=placement)
    area = ((y1 - y0) * (x1 - x0)).astype(np.float32)
    np.testing.assert_array_equal(lam, np.float32(1) - area / np.float32(height * width))
    assert lam.dtype == np.float32
    assert (kind == 1).all()
    assert (y0 >= 0).all() and (y0 <= y1).all() and (y1 <= height).all()
    assert (x0 >= 0).all() and (x0 <= x1).all() and (x1 <= width).all()


def test_lam_stays_as_drawn_without_correction():
    corrected, drawn = (plan_as_numpy(1000, 50, 60, correct_lam=correct) for correct in (True, False))
    np.testing.assert_array_equal(corrected[1], drawn[1])
    assert (corrected[2] != drawn[2]).mean() > 0.9
    assert (plan_as_numpy(1000, 50, 60, alpha=Constant(0.3), correct_lam=False)[2] == np.float32(0.3)).all()


def test_a_kept_sample_has_no_box():
    partner, boxes, lam, kind = plan_as_numpy(1000, 50, 60, prob=0.5, correct_lam=False)
    kept = kind == 0
    assert 300 < kept.sum() < 700
    assert (boxes[:, kept] == 0).all() and (lam[kept] == 1).all()
    assert (partner == np.roll(np.arange(1000), 1)).all()


THIN = [(1, 1), (1, 2), (2, 1), (1, 9), (9, 1), (1, 16_000), (300, 1)]


@helpers.every_backend
@pytest.mark.parametrize("placement", helpers.PLACEMENTS)
@pytest.mark.parametrize("extent", THIN, ids=str)
def test_spans_are_the_oracles(backend, placement, extent):
    """Of every kind, with lambda from the span and as it was drawn."""
    mix = Mix(mixup_alpha=1.0, cutout=0.3, prob=0.9, placement=placement)
    tables = quantiles(mix._settings.distributions, torch.device("cpu")).numpy()
    for seed, correct_lam in itertools.product(range(4), (True, False)):
        how = {"placement": placement, "correct_lam": correct_lam}
        drawn = Mix(mixup_alpha=1.0, cutout=0.3, prob=0.9, backend=backend.name, **how)
        plan = drawn.sample_plan(32, *extent, seed=seed, device=backend.device)
        expected = helpers.oracle_plan(seed, tables, 32, *extent, bounds=mix._settings.bounds, **how)
        helpers.assert_same_bits(plan.packed, helpers.packed(expected))


@pytest.mark.parametrize("extent", [(1, 40), (40, 1)], ids=str)
def test_a_span_takes_the_share_of_its_side(extent):
    """A quarter of 40 pixels, anywhere; and all of the side of one pixel."""
    across, along = (0, 1) if extent[0] == 1 else (1, 0)
    for placement in helpers.PLACEMENTS:
        _, boxes, lam, _ = plan_as_numpy(MANY, *extent, placement=placement, alpha=Constant(0.75))
        starts, ends = boxes[:2], boxes[2:]
        assert (starts[across] == 0).all() and (ends[across] == 1).all()
        length = ends[along] - starts[along]
        np.testing.assert_array_equal(lam, np.float32(1) - length.astype(np.float32) / np.float32(40))
        if placement == "inside":
            assert (length == 10).all()
            assert_uniform(starts[along], 40 - 10 + 1)
        else:
            assert_uniform(np.where(starts[along] > 0, starts[along] + 5, ends[along] - 5), 40)
            assert set(length) == set(range(5, 11))


@pytest.mark.parametrize(("placement", "expected"), [("clip", 5 / 12), ("inside", 1 / 2)])
def test_mean_share_of_spans(placement, expected):
    """u = 1 - lambda is uniform and the span's share of its side; clipping takes u^2 / 4 of it on the average."""
    for extent in ((1, 8192), (8192, 1)):
        _, _, lam, _ = plan_as_numpy(MANY, *extent, placement=placement)
        share = 1 - lam.astype(np.float64)
        assert abs(share.mean() - expected) < SIGMAS * share.std() / math.sqrt(MANY) + 2 / 8192


def test_one_pixel_is_a_span_of_nothing_or_of_all():
    """Whole where lambda is 0 and nothing is clipped, and else as it was, target and all."""
    for placement, alpha, lam in (("clip", 1.0, 1), ("clip", Constant(0.0), 1), ("inside", Constant(0.0), 0)):
        assert (plan_as_numpy(1000, 1, 1, placement=placement, alpha=alpha)[2] == lam).all()
    assert (plan_as_numpy(1000, 1, 1, placement="inside", alpha=Uniform(0.01, 1.0))[2] == 1).all()


@pytest.mark.parametrize(
    ("extent", "placement", "area", "least"),
    [
        ((2, 2), "clip", 0.25, 4),
        ((2, 2), "inside", 0.25, 2),
        ((2, 2), "clip", 0.1, 7),
        ((1, 2), "clip", 0.25, 8),
        ((1, 2), "inside", 0.25, 4),
        ((2, 1), "clip", 0.1, 20),
        ((2, 1), "inside", 0.1, 10),
    ],
)
def test_the_smallest_side_that_cutout_cuts(extent, placement, area, least):
    """2 / sqrt(area) where boxes are clipped, half of it inside; 2 / area and 1 / area where they are spans."""
    for side, cuts in ((least - 1, False), (least, True)):
        size = [side if each > 1 else 1 for each in extent]
        mix = Mix(cutout=1.0, cutout_area=area, placement=placement)
        y0, x0, y1, x1 = mix.sample_plan(1000, *size, seed=0).boxes.unbind(1)
        assert torch.equal((y1 > y0) & (x1 > x0), torch.full((1000,), cuts))


@pytest.mark.parametrize(
    ("placement", "extent", "boxes"),
    [
        ("clip", (32, 32), [[0, 19, 12, 32], [8, 20, 22, 32], [0, 0, 0, 0]]),
        ("clip", (2, 40), [[0, 24, 0, 40], [0, 25, 0, 40], [0, 0, 0, 0]]),
        ("clip", (40, 2), [[0, 1, 15, 1], [10, 1, 28, 1], [0, 0, 0, 0]]),
        ("inside", (32, 32), [[0, 10, 22, 32], [9, 16, 23, 30], [0, 0, 0, 0]]),
        ("inside", (2, 40), [[0, 13, 1, 40], [1, 19, 1, 37], [0, 0, 0, 0]]),
        ("inside", (40, 2), [[0, 1, 27, 2], [11, 2, 29, 2], [0, 0, 0, 0]]),
    ],
)
def test_images_of_two_rows_have_the_boxes_they_had(placement, extent, boxes):
    """What this seed drew before there were spans."""
    assert sample_plan(3, *extent, placement=placement, seed=0).boxes.tolist() == boxes


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        # u = 1 - lambda is uniform and the side sqrt(u) of the image's; clipping takes side^2 / 4 of it on the average:
        # E (sqrt(u) - u / 4)^2 = 1/2 - 1/5 + 1/48
        ("clip", 77 / 240),
        ("inside", 1 / 2),
    ],
)
def test_mean_pasted_share(placement, expected):
    _, _, lam, _ = plan_as_numpy(MANY, 8192, 8192, placement=placement)
    share = 1 - lam.astype(np.float64)
    truncation = 2 / 8192  # a side loses less than two pixels
    assert abs(share.mean() - expected) < SIGMAS * share.std() / math.sqrt(MANY) + truncation


def test_mean_pasted_share_of_a_usual_image():
    _, _, lam, _ = plan_as_numpy(MANY, 224, 224)
    assert (1 - lam).mean() == pytest.approx(0.318, abs=0.004)


def assert_uniform(values: np.ndarray, count: int) -> None:
    """values are uniform on 0..count-1, both ends reached."""
    histogram = np.bincount(values, minlength=count)
    assert len(histogram) == count
    assert histogram[0] > 0 and histogram[-1] > 0
    assert scipy.stats.chisquare(histogram).pvalue > RARE


def assert_independent(a: np.ndarray, b: np.ndarray) -> None:
    """Two series of small integers tell nothing of each other."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    assert scipy.stats.chi2_contingency(table[np.ix_(table.any(1), table.any(0))]).pvalue > RARE


def test_inside_boxes_start_anywhere_they_fit():
    # A quarter of the area: 8 x 12 pixels of 16 x 24, never clipped.
    _, (y0, x0, y1, x1), _, _ = plan_as_numpy(MANY, 16, 24, placement="inside", alpha=Constant(0.75))
    assert set(y1 - y0) == {8} and set(x1 - x0) == {12}
    assert_uniform(y0, 16 - 8 + 1)
    assert_uniform(x0, 24 - 12 + 1)
    assert_independent(y0, x0)
    for series in (y0, x0):
        assert_independent(series[:-1], series[1:])  # of one sample and the next


def test_inside_box_of_everything():
    _, boxes, lam, _ = plan_as_numpy(100, 16, 24, placement="inside", alpha=Constant(0.0))
    assert (boxes.T == [0, 0, 16, 24]).all() and (lam == 0).all()


def test_clipped_boxes_are_centred_anywhere():
    # Half sides of 4 and 6 pixels of 16 x 24; the centre is the pixel after them.
    _, (y0, x0, y1, x1), _, _ = plan_as_numpy(MANY, 16, 24, alpha=Constant(0.75))
    y, x = np.where(y0 > 0, y0 + 4, y1 - 4), np.where(x0 > 0, x0 + 6, x1 - 6)
    for low, high, centre, half, length in ((y0, y1, y, 4, 16), (x0, x1, x, 6, 24)):
        assert_uniform(centre, length)
        np.testing.assert_array_equal(low, np.maximum(centre - half, 0))
        np.testing.assert_array_equal(high, np.minimum(centre + half, length))
        assert_independent(centre[:-1], centre[1:])
    assert_independent(y, x)


def test_words_of_draws_are_independent():
    """Lambda, both centres, the kind and the next sample's draw: no two of these words are related."""
    index = torch.arange(MANY + 1)
    words = [(word >> 28).numpy() for word in reference.philox(torch.tensor([7]), index, 1)]
    series = [*(word[:-1] for word in words), *(word[1:] for word in words)]
    for one in series[:4]:
        assert_uniform(one, 16)
    for a, b in itertools.combinations(series, 2):
        assert_independent(a, b)


def test_neighbouring_seeds_are_independent():
    plans = [sample_plan(2, 16, 24, placement="inside", alpha=Constant(0.75), seed=seed) for seed in range(1 << 13)]
    y0, x0, _, _ = torch.stack([plan.boxes[0] for plan in plans], dim=1).numpy()
    for series, count in ((y0, 9), (x0, 13)):
        assert_uniform(series, count)
        assert_independent(series[:-1], series[1:])


# ---- Which samples are mixed, and who shares a draw


@pytest.mark.parametrize("scope", ["sample", "pair"])
@pytest.mark.parametrize("prob", [0.01, 0.5, 0.9])
def test_share_of_mixed_samples_is_prob(prob, scope):
    _, _, _, kind = plan_as_numpy(MANY, 8, 8, prob=prob, scope=scope, partner="flip")
    draws = MANY if scope == "sample" else MANY // 2
    assert abs(kind.mean() - prob) < SIGMAS * math.sqrt(prob * (1 - prob) / draws)


@pytest.mark.parametrize("prob", [0.1, 0.7])
def test_share_of_mixed_batches_is_prob(prob):
    calls = 4000
    kinds = [sample_plan(4, 8, 8, prob=prob, scope="batch", seed=seed).kind for seed in range(calls)]
    assert all((kind == kind[0]).all() for kind in kinds)
    mixed = sum(int(kind[0]) for kind in kinds) / calls
    assert abs(mixed - prob) < SIGMAS * math.sqrt(prob * (1 - prob) / calls)


@pytest.mark.parametrize(("prob", "kind"), [(0.0, 0), (1.0, 1)])
def test_prob_of_nothing_and_of_everything(prob, kind):
    assert (plan_as_numpy(MANY, 8, 8, prob=prob)[3] == kind).all()


def different_draws(plan: MixPlan) -> int:
    """How many different boxes and lambdas the mixed samples have."""
    return len(plan.packed[plan.kind == 1][:, 1:6].unique(dim=0))


@pytest.mark.parametrize("partner", helpers.PARTNERS)
def test_who_shares_a_draw(partner):
    plans = {scope: sample_plan(64, 1000, 1000, scope=scope, partner=partner, seed=5) for scope in helpers.SCOPES}
    assert different_draws(plans["sample"]) == 64
    assert different_draws(plans["batch"]) == 1
    if partner in ("flip", "mirror"):
        pairs = plans["pair"]
        assert different_draws(pairs) == 32
        torch.testing.assert_close(pairs.packed[:, 1:7], pairs.packed[pairs.partner.long(), 1:7], rtol=0, atol=0)


# ---- Partners


def partners(rule: PartnerName, batch: int, seed: int = 0) -> np.ndarray:
    return sample_plan(batch, 8, 8, partner=rule, seed=seed).partner.numpy()


@pytest.mark.parametrize("rule", helpers.PARTNERS)
@pytest.mark.parametrize("batch", range(1, 12))
def test_partners_are_a_permutation(rule, batch):
    index = np.arange(batch)
    for seed in range(20):
        partner = partners(rule, batch, seed)
        np.testing.assert_array_equal(np.sort(partner), index)
        alone = int((partner == index).sum())
        if rule in ("flip", "mirror"):
            np.testing.assert_array_equal(partner[partner], index)
            assert alone == batch % 2
        elif batch > 1:
            assert alone == 0


def test_roll_is_torchvisions_and_flip_is_timms():
    np.testing.assert_array_equal(partners("roll", 9), np.roll(np.arange(9), 1))
    np.testing.assert_array_equal(partners("flip", 9), np.arange(9)[::-1])


@pytest.mark.parametrize(
    ("rule", "batch", "pairings"),
    [("shift", 8, 7), ("shift", 7, 6), ("mirror", 8, 7), ("mirror", 7, 7), ("roll", 8, 1), ("flip", 8, 1)],
)
def test_every_pairing_comes_equally_often(rule, batch, pairings):
    of_first = np.array([partners(rule, batch, seed)[0] for seed in range(3000)])
    _, histogram = np.unique(of_first, return_counts=True)
    assert len(histogram) == pairings
    if pairings > 1:
        assert scipy.stats.chisquare(histogram).pvalue > RARE


@pytest.mark.parametrize("rule", helpers.PARTNERS)
def test_a_sample_alone_is_kept(rule):
    for batch in (1, 5):
        plan = sample_plan(batch, 8, 8, partner=rule, seed=3)
        alone = plan.partner == torch.arange(batch)
        assert torch.equal(plan.kind == 0, alone)
        assert (plan.boxes[alone] == 0).all() and (plan.lam[alone] == 1).all()


# ---- Seeds


def test_seed_in_every_form():
    wanted = sample_plan(8, 30, 40, seed=-5).packed
    for seed in (2**64 - 5, np.int64(-5), torch.tensor(-5), torch.tensor([-5]), torch.tensor([[-5]])):
        assert torch.equal(sample_plan(8, 30, 40, seed=seed).packed, wanted)
    assert not torch.equal(sample_plan(8, 30, 40, seed=5).packed, wanted)


def test_all_64_bits_of_a_seed_count():
    plans = [sample_plan(8, 300, 400, seed=1 << bit).packed for bit in range(64)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(plans, 2))


def test_manual_seed_reproduces():
    torch.manual_seed(3)
    first, second = (sample_plan(8, 300, 400).packed for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(sample_plan(8, 300, 400).packed, first)
    assert torch.equal(sample_plan(8, 300, 400).packed, second)


def test_generator_replaces_the_default_one():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (sample_plan(8, 300, 400, generator=helpers.generator(9)).packed for _ in range(2))
    assert torch.equal(first, second)
    one = helpers.generator(9)
    assert torch.equal(sample_plan(8, 300, 400, generator=one).packed, first)
    assert not torch.equal(sample_plan(8, 300, 400, generator=one).packed, first)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_given_seed_leaves_the_default_generator_alone():
    before = torch.get_rng_state()
    sample_plan(8, 30, 40, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    sample_plan(8, 30, 40)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("seed", "error"),
    [
        (2**64, ValueError),
        (-(2**63) - 1, ValueError),
        (1.0, TypeError),
        (True, TypeError),
        ("1", TypeError),
        (torch.tensor([1, 2]), ValueError),
        (torch.tensor([1], dtype=torch.int32), ValueError),
        (torch.tensor([], dtype=torch.int64), ValueError),
    ],
    ids=str,
)
def test_wrong_seed(seed, error):
    with pytest.raises(error, match="^seed must be"):
        sample_plan(8, 30, 40, seed=seed)


def test_seed_and_generator_exclude_each_other():
    with pytest.raises(ValueError, match="generator must be None where a seed is given"):
        sample_plan(8, 30, 40, seed=1, generator=helpers.generator(0))
    with pytest.raises(TypeError, match="generator must be a torch.Generator"):
        sample_plan(8, 30, 40, generator=3)


# ---- MixPlan


@pytest.mark.parametrize("transform", [CutMix(num_classes=5, seed=2), Mix(num_classes=5, cutout=0.3, seed=2)])
def test_a_transform_returns_its_plan(transform):
    images, labels = helpers.random_images((6, 3, 8, 9)), torch.arange(6) % 5
    mixed, targets, plan = transform(images, labels, return_plan=True)
    helpers.assert_same_bits(cutmix_cuda.mix_images(images, plan), mixed)
    helpers.assert_same_bits(cutmix_cuda.mix_targets(labels, plan, 5), targets)
    assert not torch.equal(transform(images, labels, return_plan=True)[2].packed, plan.packed)


def test_names_are_views_of_packed():
    plan = sample_plan(6, 30, 40, seed=1)
    rows = helpers.planned(plan)
    assert plan.partner.tolist() == [row.partner for row in rows]
    assert plan.boxes.tolist() == [list(row.box) for row in rows]
    assert plan.lam.tolist() == [row.lam for row in rows]
    assert plan.kind.tolist() == [helpers.KINDS.index(row.kind) for row in rows]
    assert (plan.packed[:, 7] == 0).all()
    plan.lam[2] = 0.5
    plan.boxes[3, 0] = 7
    assert plan.packed[2, 5] == np.float32(0.5).view(np.int32)
    assert plan.packed[3, 1] == 7


def test_repr_and_len():
    plan = sample_plan(6, 30, 40, seed=1)
    assert repr(plan) == "MixPlan(batch=6, height=30, width=40, device='cpu')"
    assert len(plan) == 6


def test_to_keeps_the_plan():
    plan = sample_plan(6, 30, 40, seed=1)
    moved = plan.to("meta")
    assert (moved.device.type, moved.packed.shape, moved.height, moved.width) == ("meta", (6, 8), 30, 40)
    assert torch.equal(plan.to("cpu").packed, plan.packed)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_from_boxes(dtype):
    partner = torch.tensor([1, 2, 0], dtype=dtype)
    boxes = torch.tensor([[0, 0, 30, 40], [5, 6, 5, 9], [1, 2, 4, 10]], dtype=dtype)
    plan = MixPlan.from_boxes(partner, boxes, 30, 40)
    lam = [np.float32(1) - np.float32(area) / np.float32(30 * 40) for area in (1200, 0, 3 * 8)]
    rows = zip(partner.tolist(), boxes.tolist(), lam, strict=True)
    expected = [helpers.PlannedSample(other, tuple(box), share, "cutmix") for other, box, share in rows]
    helpers.assert_same_bits(plan.packed, helpers.packed(expected))
    assert (plan.height, plan.width) == (30, 40)


def test_from_boxes_rebuilds_a_sampled_plan():
    sampled = sample_plan(32, 30, 40, seed=1)
    rebuilt = MixPlan.from_boxes(sampled.partner, sampled.boxes, 30, 40)
    helpers.assert_same_bits(rebuilt.packed, sampled.packed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_from_boxes_with_lam(dtype):
    lam = torch.tensor([0.25, 1.0], dtype=dtype)
    plan = MixPlan.from_boxes(torch.tensor([1, 0]), torch.zeros(2, 4, dtype=torch.int64), 3, 4, lam=lam)
    assert plan.lam.tolist() == [0.25, 1.0]


def test_from_boxes_of_every_kind():
    """By default a pasted box is weighed by its area; whatever is not mixed, or all of it, weighs 1."""
    boxes = torch.tensor([[1, 2, 4, 10]] * 4)
    partner, kind = torch.tensor([1, 0, 3, 2]), torch.tensor([0, 1, 2, 3], dtype=torch.uint8)
    plan = MixPlan.from_boxes(partner, boxes, 30, 40, kind=kind)
    left = np.float32(1) - np.float32(3 * 8) / np.float32(30 * 40)
    assert plan.kind.tolist() == [0, 1, 2, 3]
    assert plan.lam.tolist() == [1, left, 1, 1]
    lam = torch.tensor([1.0, 0.5, 0.25, 1.0])
    assert MixPlan.from_boxes(partner, boxes, 30, 40, kind=kind, lam=lam).lam.tolist() == lam.tolist()


@pytest.mark.parametrize("batch", [0, 2])
def test_from_boxes_of_nothing(batch):
    partner, boxes = torch.arange(batch), torch.zeros(batch, 4, dtype=torch.int64)
    plan = MixPlan.from_boxes(partner, boxes, 0, 7)
    assert plan.packed.shape == (batch, 8)
    assert (plan.lam == 1).all()


GOOD = {"partner": torch.tensor([1, 0]), "boxes": torch.tensor([[0, 0, 3, 4], [1, 1, 2, 2]]), "height": 3, "width": 4}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"partner": [1, 0]}, TypeError, "partner must be a tensor, got list"),
        ({"boxes": None}, TypeError, "boxes must be a tensor, got NoneType"),
        ({"partner": torch.tensor([1.0, 0.0])}, TypeError, "partner must be of an integer dtype"),
        ({"boxes": torch.zeros(2, 4, dtype=torch.bool)}, TypeError, "boxes must be of an integer dtype"),
        ({"partner": torch.tensor([[1, 0]])}, ValueError, r"partner must be of shape \(batch,\), got \(1, 2\)"),
        ({"boxes": torch.zeros(3, 4, dtype=torch.int64)}, ValueError, r"boxes must be of shape \(2, 4\), got \(3, 4\)"),
        ({"boxes": torch.zeros(2, 5, dtype=torch.int64)}, ValueError, r"boxes must be of shape \(2, 4\), got \(2, 5\)"),
        ({"height": -1}, ValueError, "height must not be negative, got -1"),
        ({"height": 2}, ValueError, r"0 <= y0 <= y1 <= 2.*row 0 has .*box \[0, 0, 3, 4\]"),
        ({"width": 3}, ValueError, r"0 <= x0 <= x1 <= 3"),
        ({"partner": torch.tensor([1, 2])}, ValueError, r"partners in 0..1.*row 1 has partner 2"),
        ({"partner": torch.tensor([-1, 0])}, ValueError, "row 0 has partner -1"),
        ({"partner": torch.tensor([2**32, 0])}, ValueError, "row 0 has partner"),
        ({"boxes": torch.tensor([[0, 0, 3, 4], [2, 1, 1, 2]])}, ValueError, r"row 1 has .*box \[2, 1, 1, 2\]"),
        ({"boxes": torch.tensor([[-1, 0, 3, 4], [0] * 4])}, ValueError, r"row 0 has .*box \[-1, 0, 3, 4\]"),
        ({"boxes": torch.tensor([[0, 0, 2**32 + 3, 4], [0] * 4])}, ValueError, "row 0 has"),
        ({"lam": torch.tensor([0.5])}, ValueError, r"lam must be a float tensor of shape \(2,\)"),
        ({"lam": torch.tensor([1, 0])}, ValueError, "lam must be a float tensor"),
        ({"lam": 0.5}, ValueError, "lam must be a float tensor"),
        ({"lam": torch.tensor([0.5, 1.5])}, ValueError, r"lam in \[0, 1\].*row 1 has .*lam 1.5"),
        ({"lam": torch.tensor([0.5, math.nan])}, ValueError, "row 1 has .*lam nan"),
        ({"kind": [1, 1]}, TypeError, "kind must be a tensor, got list"),
        ({"kind": torch.tensor([1.0, 2.0])}, TypeError, "kind must be of an integer dtype, got torch.float32"),
        ({"kind": torch.tensor([1])}, ValueError, r"kind must be of shape \(2,\), got \(1,\)"),
        ({"kind": torch.tensor([1, 4])}, ValueError, "kind in 0..3; row 1 has .*kind 4"),
        ({"kind": torch.tensor([-1, 1])}, ValueError, "row 0 has .*kind -1"),
        ({"kind": torch.tensor([1, 2**32 + 1])}, ValueError, "row 1 has .*kind"),
        ({"kind": torch.tensor([1, 1]).to("meta")}, ValueError, "kind must be on the device of partner, cpu, got meta"),
    ],
)
def test_from_boxes_says_what_is_wrong(change, error, message):
    MixPlan.from_boxes(**GOOD)
    with pytest.raises(error, match=message):
        MixPlan.from_boxes(**GOOD | change)


@pytest.mark.parametrize(
    "packed", [torch.zeros(2, 8), torch.zeros(2, 7, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)]
)
def test_packed_has_eight_int32_columns(packed):
    with pytest.raises(ValueError, match=r"packed must be int32 of shape \(batch, 8\)"):
        MixPlan(packed, 3, 4)


def test_packed_is_a_tensor():
    with pytest.raises(TypeError, match="packed must be a tensor, got list"):
        MixPlan([[0] * 8], 3, 4)


@pytest.mark.parametrize(("column", "value"), [(6, 4), (6, -1), (0, 6), (4, 41)])
def test_check_finds_a_spoilt_row(column, value):
    plan = sample_plan(6, 30, 40, seed=1)
    plan.check()
    plan.packed[4, column] = value
    with pytest.raises(ValueError, match="row 4 has"):
        plan.check()


@pytest.mark.parametrize("box", [(2, 3, 4, 6), (0, 0, 5, 7), (5, 7, 5, 7)])
@pytest.mark.parametrize("lam", [0.0, -0.0, 0.5, 1.0, 1.0000001, -1e-45, math.nan, math.inf])
def test_check_refuses_what_no_kernel_would_follow(box, lam):
    """Of images of 5 x 7, with any one value of a row in a wrong place or not."""
    row = [1, *box, int(np.float32(lam).view(np.int32)), 1, 0]
    for column, value in itertools.product((0, 1, 2, 3, 4, 6), range(-1, 9)):
        spoilt = row[:column] + [value] + row[column + 1 :]
        plan = MixPlan(torch.tensor([[0, 0, 0, 0, 0, 0, 0, 0], spoilt], dtype=torch.int32), 5, 7)
        partner, y0, x0, y1, x1, _, kind, _ = spoilt
        in_range = 0 <= partner < 2 and 0 <= lam <= 1 and 0 <= kind <= 3
        if in_range and 0 <= y0 <= y1 <= 5 and 0 <= x0 <= x1 <= 7:
            plan.check()
        else:
            with pytest.raises(ValueError, match="row 1 has"):
                plan.check()


def test_check_in_place_wants_pairs():
    plan = sample_plan(6, 30, 40, partner="roll", seed=2)
    plan.check()
    with pytest.raises(ValueError, match=r"partner\[partner\[i\]\] == i.*row 0"):
        plan.check(in_place=True)


# ---- Wrong arguments


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch_size": -1}, ValueError, "batch_size must not be negative, got -1"),
        ({"height": 2.0}, TypeError, "height must be an int, got 2.0"),
        ({"width": True}, TypeError, "width must be an int, got True"),
        ({"alpha": 0.0}, ValueError, "alpha must be positive and finite, got 0.0"),
        ({"alpha": "1"}, TypeError, "alpha must be a positive, finite number, got '1'"),
        ({"prob": 1.01}, ValueError, r"prob must be in \[0, 1\], got 1.01"),
        ({"prob": math.nan}, ValueError, r"prob must be in \[0, 1\], got nan"),
        ({"prob": None}, TypeError, r"prob must be a number in \[0, 1\], got None"),
        ({"scope": "all"}, ValueError, "scope must be one of 'sample', 'pair', 'batch', got 'all'"),
        ({"partner": "next"}, ValueError, "partner must be one of 'roll', 'flip', 'shift', 'mirror', got 'next'"),
        ({"placement": "out"}, ValueError, "placement must be one of 'clip', 'inside', got 'out'"),
        ({"backend": "metal"}, ValueError, "backend must be one of cuda, triton, cpu, reference or None"),
    ],
)
def test_sample_plan_says_what_is_wrong(change, error, message):
    arguments = {"batch_size": 4, "height": 5, "width": 6, "seed": 0} | change
    with pytest.raises(error, match=message):
        sample_plan(**arguments)
