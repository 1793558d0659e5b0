"""CutMix, MixUp, Cutout and nothing in one batch: against the oracle, and each kind against its own definition.

Layouts, dtypes, targets, threads and errors of every kind are in the files of these names.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import Mix, MixPlan
from cutmix_cuda.distributions import Beta, Constant, Distribution, Uniform

from ..api.test_distributions import distance
from ..helpers import (
    KINDS,
    PARTNERS,
    PIXEL_DTYPES,
    PLACEMENTS,
    SCOPES,
    PlannedSample,
    assert_same_bits,
    assert_same_images,
    every_backend,
    generator,
    oracle_images,
    oracle_plan,
    oracle_targets,
    planned,
    random_images,
    random_labels,
)

SEED = 20171025
KEEP, CUTMIX, MIXUP, CUTOUT = range(4)
BLENDED = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
MANY = 1 << 17  # samples, for statistics
RARE = 1e-6  # how often a right sampler fails such a test, over all seeds; the tests' seeds are fixed
SIGMAS = 5.0

# A quarter cut out; of the rest three quarters mixed, half by cutmix. All of it exact in binary.
SHARES: dict[str, Any] = {"cutout": 0.25, "prob": 0.75, "switch_prob": 0.5}
BOUNDS = (0.28125, 0.5625, 0.8125)

# Laws whose tables are exact: lambda of cutmix is uniform on [0, 1] and that of mixup on [1/4, 3/4], cutout's box takes
# at most half of the image.
LAWS: dict[str, Any] = {"cutmix_alpha": 1.0, "mixup_alpha": Uniform(0.25, 0.75), "cutout_area": Uniform(0.0, 0.5)}
KNOTS = np.arange(4097, dtype=np.float32) / 4096
TABLES = np.stack([KNOTS, 0.25 + 0.5 * KNOTS, 0.5 + 0.5 * KNOTS]).astype(np.float32)


def assert_every_way(backend, images: Tensor, labels: Tensor, rows: list[PlannedSample], fill: float, **rules) -> None:
    """Fused out of place, into out and in place, the module's plan, and images and targets by it: all the oracle's."""
    classes = 5
    smooth: dict[str, Any] = {"label_smoothing": 0.1}
    expected = oracle_images(images, rows, fill), oracle_targets(labels, rows, classes, **smooth)
    images, labels = images.to(backend.device), labels.to(backend.device)
    untouched = images.clone()
    with_backend: dict[str, Any] = {"backend": backend.name}

    def check(mixed: Tensor, targets: Tensor) -> None:
        assert_same_images(mixed, expected[0], rows)
        assert mixed.stride() == images.stride()
        assert_same_bits(targets, expected[1])

    how = {**SHARES, **LAWS, **smooth, **rules, "fill": fill, **with_backend}
    *mixed, plan = cutmix_cuda.mix(images, labels, classes, **how, seed=SEED, return_plan=True)
    assert planned(plan) == rows
    check(*mixed)
    out = torch.zeros_like(images)
    assert cutmix_cuda.mix(images, labels, classes, **how, seed=SEED, out=out)[0] is out
    check(out, mixed[1])

    sizes = len(images), *images.shape[-2:]
    plan = Mix(**how).sample_plan(*sizes, seed=SEED, device=backend.device)
    assert planned(plan) == rows
    apply = {"fill": fill, **with_backend}
    check(*cutmix_cuda.apply_plan(images, labels, plan, classes, **smooth, **apply))
    check(
        cutmix_cuda.mix_images(images, plan, **apply),
        cutmix_cuda.mix_targets(labels, plan, classes, **smooth, **with_backend),
    )
    assert_same_bits(images, untouched)

    if rules.get("partner", "mirror") in ("flip", "mirror"):
        own = images.clone()
        in_place = cutmix_cuda.mix_(own, labels, classes, **how, seed=SEED)
        assert in_place[0] is own
        check(*in_place)
        own = images.clone()
        check(*cutmix_cuda.apply_plan_(own, labels, plan, classes, **smooth, **apply))


@every_backend
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("partner", PARTNERS)
@pytest.mark.parametrize("scope", SCOPES)
def test_mixed_batches_are_the_oracles(backend, scope, partner, placement):
    rules = {"scope": scope, "partner": partner, "placement": placement}
    for batch, correct_lam in ((0, True), (1, True), (2, False), (7, True), (16, False)):
        rows = oracle_plan(SEED, TABLES, batch, 6, 9, bounds=BOUNDS, correct_lam=correct_lam, **rules)
        if batch == 16 and scope == "sample":
            assert {row.kind for row in rows} == set(KINDS)
        images = random_images((batch, 3, 6, 9))
        assert_every_way(backend, images, random_labels(batch, 5), rows, 0.5, **rules, correct_lam=correct_lam)


@every_backend
@pytest.mark.parametrize(
    "shape",
    [
        (9, 6, 7),
        (9, 1, 7, 7),
        (9, 2, 3, 5, 6),
        (9, 0, 5, 6),
        (9, 3, 0, 6),
        (9, 3, 5, 0),
        (9, 3, 1, 1),
        (1, 3, 1, 7),
        (9, 3, 7, 1),
        (0, 0, 0),
    ],
    ids=str,
)
def test_every_shape(backend, shape):
    rows = oracle_plan(SEED, TABLES, shape[0], *shape[-2:], bounds=BOUNDS)
    for dtype in (torch.uint8, torch.bfloat16):
        assert_every_way(backend, random_images(shape, dtype), random_labels(shape[0], 5), rows, 3)


@every_backend
@pytest.mark.parametrize("dtype", BLENDED, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_every_blended_dtype(backend, dtype, memory_format):
    rows = oracle_plan(SEED, TABLES, 12, 5, 33, bounds=BOUNDS)
    images = random_images((12, 3, 5, 33), dtype).contiguous(memory_format=memory_format)
    assert_every_way(backend, images, random_labels(12, 5), rows, 7)


@every_backend
def test_a_sample_alone_is_only_cut_out(backend):
    """Whoever has nobody to be mixed with is kept, unless it is cut out, which takes nobody."""
    images, labels = random_images((1, 3, 6, 9)), torch.tensor([2])
    kinds = set()
    for seed in range(40):
        how = {**SHARES, "seed": seed, "fill": 0.5, "backend": backend.name}
        mixed, targets, plan = cutmix_cuda.mix(
            images.to(backend.device), labels.to(backend.device), 5, return_plan=True, **how
        )
        kinds.add(int(plan.kind))
        assert_same_bits(mixed, oracle_images(images, planned(plan), 0.5))
        assert targets.tolist() == [[0, 0, 1, 0, 0]]
    assert kinds == {KEEP, CUTOUT}


@every_backend
def test_pairs_of_different_kinds_in_place(backend):
    """Each of the sixteen pairs of kinds, with boxes that cross: both read each other as they were."""
    pairs = list(itertools.product(range(4), repeat=2))
    kind = torch.tensor([kind for pair in pairs for kind in pair])
    partner = torch.arange(32) ^ 1
    boxes = torch.tensor([[0, 2, 4, 8], [2, 0, 6, 5]] * 16)
    lam = torch.rand(32, generator=generator(0))
    plan = MixPlan.from_boxes(partner, boxes, 6, 9, kind=kind, lam=lam).to(backend.device)
    for dtype in (torch.uint8, torch.float32):
        images = random_images((32, 2, 6, 9), dtype)
        own = images.to(backend.device, copy=True)
        cutmix_cuda.mix_images_(own, plan, fill=9, backend=backend.name)
        assert_same_images(own, oracle_images(images, planned(plan), 9), planned(plan))


@every_backend
def test_nothing_uninitialised_shows_through(backend, poisoned_memory):
    for dtype, partner in itertools.product((torch.float16, torch.uint8), PARTNERS):
        rows = oracle_plan(SEED, TABLES, 7, 7, 9, bounds=BOUNDS, partner=partner)
        images = random_images((7, 3, 7, 9), dtype)
        for view in (images, images.to(memory_format=torch.channels_last)):
            assert_every_way(backend, view, random_labels(7, 5), rows, 0, partner=partner)


@every_backend
@pytest.mark.parametrize("dtype", BLENDED[1:], ids=str)
def test_images_at_odd_addresses(backend, dtype):
    """A buffer from elsewhere, read at an offset that is no multiple of an element."""
    if backend.device != "cpu":
        pytest.skip("buffers are in main memory")
    images = torch.rand(8, 3, 5, 7, generator=generator(0)).to(dtype)
    rows = oracle_plan(SEED, TABLES, 8, 5, 7, bounds=BOUNDS)
    data = bytes(images.view(torch.uint8).flatten().tolist())
    for offset in (1, 3):
        buffer = bytearray(offset) + bytearray(data)
        odd = torch.frombuffer(buffer, dtype=dtype, offset=offset).reshape(images.shape)
        assert odd.data_ptr() % dtype.itemsize != 0
        how = {**SHARES, **LAWS, "seed": SEED, "backend": backend.name}
        assert_same_bits(cutmix_cuda.mix(odd, **how)[0], oracle_images(images, rows))
        assert_same_bits(cutmix_cuda.mix_(odd, **how)[0], oracle_images(images, rows))


# ---- CutMix alone


@every_backend
@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_cutmix_alone_is_cutmix(backend, prob):
    """Switching the other kinds off, by 0, None or shares, leaves the very bits of cutmix."""
    images, labels = random_images((9, 3, 6, 9)).to(backend.device), random_labels(9, 5).to(backend.device)
    how = {"prob": prob, "seed": SEED, "return_plan": True, "backend": backend.name}
    *expected, plan = cutmix_cuda.cutmix(images, labels, 5, alpha=0.4, **how)
    for other in ({"mixup_alpha": 0}, {"mixup_alpha": None}, {"mixup_alpha": 0.0, "switch_prob": 0.0}):
        *mixed, same = cutmix_cuda.mix(images, labels, 5, cutmix_alpha=0.4, cutout=0, **other, **how)
        assert torch.equal(same.packed, plan.packed)
        for one, another in zip(mixed, expected, strict=True):
            assert_same_bits(one, another)


# ---- How often


def kinds_of(count: int = MANY, **how) -> np.ndarray:
    """The kinds of a big batch in which nobody is alone."""
    return Mix(partner="roll", **how).sample_plan(count, 8, 8, seed=SEED).kind.numpy()


def assert_share(drawn: np.ndarray, share: float) -> None:
    assert scipy.stats.binomtest(int(drawn.sum()), len(drawn), share).pvalue > RARE


@pytest.mark.parametrize(
    ("how", "shares"),
    [  # keep, cutmix, mixup, cutout
        ({}, (0, 0.5, 0.5, 0)),
        ({"prob": 0.3}, (0.7, 0.15, 0.15, 0)),
        ({"switch_prob": 0.9}, (0, 0.9, 0.1, 0)),
        ({"cutout": 0.2}, (0, 0.4, 0.4, 0.2)),
        ({"cutout": 0.2, "prob": 0.5, "switch_prob": 0.25}, (0.4, 0.1, 0.3, 0.2)),
        ({"cutout": 0.2, "prob": 0.5, "cutmix_alpha": 0}, (0.4, 0, 0.4, 0.2)),
        ({"cutout": 0.2, "prob": 0.5, "mixup_alpha": None, "switch_prob": 0.1}, (0.4, 0.4, 0, 0.2)),
        ({"cutout": 0.2, "cutmix_alpha": None, "mixup_alpha": 0}, (0.8, 0, 0, 0.2)),
        ({"cutout": 1.0}, (0, 0, 0, 1)),
        ({"prob": 0.0}, (1, 0, 0, 0)),
    ],
    ids=str,
)
def test_every_kind_comes_as_often_as_asked(how, shares):
    kind = kinds_of(**how)
    for number, share in enumerate(shares):
        assert_share(kind == number, share)


@pytest.mark.parametrize("scope", ["pair", "batch"])
def test_who_shares_a_draw_shares_its_kind(scope):
    transform = Mix(scope=scope, partner="mirror", **SHARES)
    for seed in range(30):
        plan = transform.sample_plan(16, 8, 8, seed=seed)
        kind = plan.kind
        assert torch.equal(kind, kind[plan.partner.long()])
        assert scope == "pair" or (kind == kind[0]).all()
    assert len({int(transform.sample_plan(2, 8, 8, seed=seed).kind[0]) for seed in range(60)}) == 4


# ---- With which lambda


def lambdas_of(kind: int, **how) -> np.ndarray:
    plan = Mix(partner="roll", correct_lam=False, **how).sample_plan(MANY, 64, 64, seed=SEED)
    return plan.lam[plan.kind == kind].numpy()


def assert_law(drawn: np.ndarray, law: Beta) -> None:
    """By Kolmogorov and Smirnov; the table is off by less than 1/4096 between its knots."""
    assert distance(law, drawn) < math.sqrt(math.log(2 / RARE) / (2 * len(drawn))) + 1 / 4096


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 8.0])
def test_mixups_lambda_follows_its_law(alpha):
    assert_law(lambdas_of(MIXUP, mixup_alpha=alpha, cutmix_alpha=0), Beta(alpha, alpha))


def test_cutmix_and_mixup_have_each_its_own_alpha():
    """torchvision's references once gave the alpha of mixup to CutMix (vision#8440)."""
    how = {"cutmix_alpha": 4.0, "mixup_alpha": Beta(0.4, 1.0), "cutout": 0.3}
    assert_law(lambdas_of(CUTMIX, **how), Beta(4.0, 4.0))
    assert_law(lambdas_of(MIXUP, **how), Beta(0.4, 1.0))


def test_correct_lam_leaves_mixup_alone():
    plans = [Mix(correct_lam=correct).sample_plan(64, 30, 40, seed=SEED) for correct in (True, False)]
    mixup = plans[0].kind == MIXUP
    assert 10 < mixup.sum() < 54
    assert torch.equal(plans[0].lam[mixup], plans[1].lam[mixup])
    assert (plans[0].boxes[mixup] == 0).all()
    assert not torch.equal(plans[0].lam[~mixup], plans[1].lam[~mixup])


# ---- MixUp by its formula


def mixup_plan(lam: list[float], device: str, kind: int = MIXUP) -> MixPlan:
    """Each sample with the next one."""
    batch = len(lam)
    partner = torch.arange(batch).roll(-1)
    boxes = torch.zeros(batch, 4, dtype=torch.int64)
    kinds = torch.full((batch,), kind)
    return MixPlan.from_boxes(partner, boxes, 5, 7, lam=torch.tensor(lam), kind=kinds).to(device)


@every_backend
@pytest.mark.parametrize("dtype", BLENDED, ids=str)
def test_lambda_of_zero_and_one(backend, dtype):
    """1 is the sample and 0 its partner, of finite pixels to the last bit, a zero's sign aside."""
    images = random_images((6, 3, 5, 7), torch.uint8).to(dtype)
    plan = mixup_plan([1.0, 0.0] * 3, backend.device)
    mixed = cutmix_cuda.mix_images(images.to(backend.device), plan, backend=backend.name).cpu()
    assert torch.equal(mixed[::2], images[::2])
    assert torch.equal(mixed[1::2], images.roll(-1, 0)[1::2])


@every_backend
def test_every_pair_of_bytes_is_blended_to_the_nearest(backend):
    """All 65536 pairs: within half a unit of the exact mean, and at ties the even one."""
    own, partner = torch.arange(256).repeat(256), torch.arange(256).repeat_interleave(256)
    images = torch.stack([own, partner]).to(torch.uint8).reshape(2, 256, 256)
    for lam in (0.5, 0.25, 0.3, 1 / 3, 2.0**-24):
        lam = float(np.float32(lam))
        plan = MixPlan.from_boxes(
            *(torch.tensor([1, 0]), torch.zeros(2, 4, dtype=torch.int64), 256, 256),
            lam=torch.full((2,), lam),
            kind=torch.full((2,), MIXUP),
        )
        mixed = cutmix_cuda.mix_images(images.to(backend.device), plan.to(backend.device), backend=backend.name)
        # Two products of 8 and 24 bits, exact in float64; the float32 in between is off by less than 2^-15.
        exact = lam * own.double() + (1 - lam) * partner.double()
        error = (mixed[0].cpu().double().flatten() - exact).abs()
        assert error.max() <= 0.5 + 2.0**-15
        if lam in (0.5, 0.25):  # exact in float32 as well
            assert torch.equal(mixed[0].cpu().flatten(), exact.round().to(torch.uint8))
            assert (error == 0.5).any()


@every_backend
@pytest.mark.parametrize("dtype", BLENDED[1:4], ids=str)
def test_is_rounded_once(backend, dtype):
    """In float32 throughout: within half a unit in the last place of the float64 formula, where rounding each step
    to the dtype would be off by more."""
    lam = 0.7001953125
    images = torch.randn(64, 3, 5, 7, generator=generator(1)).to(dtype)
    mixed = cutmix_cuda.mix_images(
        images.to(backend.device), mixup_plan([lam] * 64, backend.device), backend=backend.name
    )
    wide = images.double()
    exact = lam * wide + (1 - lam) * wide.roll(-1, 0)
    if dtype != torch.float32:
        assert_same_bits(mixed, exact.float().to(dtype))
        stepwise = lam * images + (1 - lam) * images.roll(-1, 0)
        assert not torch.equal(stepwise, mixed.cpu())
    else:
        scale = (lam * wide).abs() + ((1 - lam) * wide.roll(-1, 0)).abs()
        assert ((mixed.cpu().double() - exact).abs() <= scale * 2.0**-23).all()


@every_backend
def test_float64_is_blended_in_float64(backend):
    images = torch.randn(6, 3, 5, 7, dtype=torch.float64, generator=generator(2))
    lam = [float(np.float32(x)) for x in (0.1, 0.3, 0.7, 0.9, 0.5, 0.2)]
    mixed = cutmix_cuda.mix_images(images.to(backend.device), mixup_plan(lam, backend.device), backend=backend.name)
    weight = torch.tensor(lam, dtype=torch.float64).reshape(6, 1, 1, 1)
    assert torch.equal(mixed.cpu(), weight * images + (1 - weight) * images.roll(-1, 0))
    assert not torch.equal(mixed.cpu(), mixed.cpu().float().double())


# ---- Cutout


FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu)
INTEGERS = (torch.int8, torch.uint16, torch.int32, torch.uint32, torch.uint64)


@every_backend
@pytest.mark.parametrize("dtype", [*PIXEL_DTYPES, *FLOAT8, *INTEGERS], ids=str)
def test_cutout_fills_its_box_and_nothing_else(backend, dtype):
    images, labels = random_images((6, 3, 5, 7), dtype), random_labels(6, 4)
    fills = [1] if dtype == torch.bool else [1, 2, 64]
    if dtype.is_floating_point and dtype.itemsize > 1 or dtype.is_complex:
        fills += [0.1, -2.5, math.nan, math.inf]
    if dtype in (torch.int16, torch.int64, torch.int32, torch.int8):
        fills += [-3]
    how = {"mixup_alpha": None, "cutmix_alpha": None, "cutout": 0.7, "seed": 1, "backend": backend.name}
    for fill in fills:
        given = images.to(backend.device)
        mixed, targets, plan = cutmix_cuda.mix(given, labels.to(backend.device), 4, fill=fill, return_plan=True, **how)
        assert set(plan.kind.tolist()) == {KEEP, CUTOUT}
        assert (plan.lam == 1).all()
        y, x = torch.arange(5)[:, None], torch.arange(7)
        y0, x0, y1, x1 = plan.boxes.cpu()[:, :, None, None].unbind(1)
        inside = ((y >= y0) & (y < y1) & (x >= x0) & (x < x1))[:, None].expand(images.shape)
        assert 0 < inside.sum() < inside.numel()
        assert (inside.flatten(1).any(1) <= (plan.kind.cpu() == CUTOUT)).all()
        element = torch.tensor(fill, dtype=torch.float64).to(dtype).reshape(1).view(torch.uint8)
        expected = torch.where(inside[..., None], element, bytes_of(images))
        assert torch.equal(bytes_of(mixed.cpu()), expected)
        assert torch.equal(targets.cpu(), torch.nn.functional.one_hot(labels, 4).float())
        own = cutmix_cuda.mix_(given, fill=fill, **how)[0]
        assert torch.equal(bytes_of(own.cpu()), expected)


def bytes_of(images: Tensor) -> Tensor:
    """(B, C, H, W, bytes of an element)."""
    return images.contiguous().reshape(-1, 1).view(torch.uint8).reshape(*images.shape, -1)


def test_fill_is_zero_by_default():
    for dtype in (torch.uint8, torch.float32, torch.int64):
        cut = cutmix_cuda.mix(torch.ones(4, 3, 8, 8, dtype=dtype), mixup_alpha=0, cutout=1.0, seed=SEED)[0]
        assert set(cut.unique().tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("area", "mean"),
    [(0.25, 0.25), (0.0, 0.0), (1.0, 1.0), (Uniform(0.1, 0.5), 0.3), (Beta(2.0, 6.0), 0.25), (Constant(0.5), 0.5)],
    ids=str,
)
def test_cutout_covers_the_area_asked_for(area, mean):
    """A number is that share of the image, a distribution is the share's, where the box lies inside the image."""
    side = 4096
    plan = Mix(cutout=1.0, cutout_area=area, placement="inside").sample_plan(1 << 14, side, side, seed=SEED)
    assert (plan.kind == CUTOUT).all() and (plan.lam == 1).all()
    y0, x0, y1, x1 = plan.boxes.double().unbind(1)
    share = ((y1 - y0) * (x1 - x0) / side**2).numpy()
    truncation = 2 / side  # a side loses less than a pixel
    assert abs(share.mean() - mean) <= SIGMAS * share.std() / math.sqrt(len(share)) + truncation
    if isinstance(area, Beta):
        law = scipy.stats.beta(area.a, area.b)
        distance = scipy.stats.kstest(share, law.cdf).statistic
        assert distance < math.sqrt(math.log(2 / RARE) / (2 * len(share))) + 1 / 4096 + 3 * truncation
    if not isinstance(area, Distribution):
        assert np.abs(share - area).max() <= truncation


def test_the_papers_cutout():
    """DeVries and Taylor: 16 of 32 pixels, centred anywhere and clipped at the border."""
    plan = Mix(cutout=1.0).sample_plan(MANY, 32, 32, seed=SEED)
    y0, x0, y1, x1 = plan.boxes.numpy().T
    for low, high in ((y0, y1), (x0, x1)):
        centre = np.where(low > 0, low + 8, high - 8)
        assert scipy.stats.chisquare(np.bincount(centre, minlength=32)).pvalue > RARE
        np.testing.assert_array_equal(low, np.maximum(centre - 8, 0))
        np.testing.assert_array_equal(high, np.minimum(centre + 8, 32))
