"""Soft targets: every kind of label, smoothing and target dtype, and labels that are none."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

import cutmix_cuda
from cutmix_cuda import MixPlan
from cutmix_cuda._backends import ops_for

from ..helpers import (
    INTEGERS,
    assert_same_bits,
    every_backend,
    generator,
    oracle_targets,
    planned,
    random_labels,
    soft_labels,
)

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SMOOTHINGS = (0.0, 0.1, 1.0)
SEED = 3


KEEP, CUTMIX, MIXUP, CUTOUT = range(4)


def sample(batch: int, device: str) -> MixPlan:
    """A plan of every kind."""
    plan = cutmix_cuda.Mix(prob=0.7, cutout=0.2).sample_plan(batch, 7, 9, seed=SEED, device=device)
    assert set(plan.kind.tolist()) == {KEEP, CUTMIX, MIXUP, CUTOUT}
    return plan


def is_mixed(plan: MixPlan) -> torch.Tensor:
    """Whose target is their partner's as well: not those that are kept or cut out."""
    return (plan.kind == CUTMIX) | (plan.kind == MIXUP)


def assert_targets(backend, labels, plan, classes, smoothing, dtype):
    labels = labels.to(backend.device)
    expected = oracle_targets(labels.cpu(), planned(plan), classes, smoothing, dtype)
    how = {"label_smoothing": smoothing, "backend": backend.name}
    assert_same_bits(cutmix_cuda.mix_targets(labels, plan, classes, target_dtype=dtype, **how), expected)
    images = torch.zeros(len(plan), 1, 7, 9, device=backend.device)
    assert_same_bits(cutmix_cuda.apply_plan(images, labels, plan, classes, target_dtype=dtype, **how)[1], expected)


@every_backend
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("labels_dtype", INTEGERS, ids=str)
def test_class_indices(backend, labels_dtype, dtype):
    plan = sample(12, backend.device)
    for classes, smoothing in itertools.product((1, 3, 127), SMOOTHINGS):
        assert_targets(backend, random_labels(12, classes, labels_dtype), plan, classes, smoothing, dtype)


@every_backend
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("labels_dtype", FLOATS, ids=str)
def test_soft_labels(backend, labels_dtype, dtype):
    """Rows need not sum to 1 (multi-hot labels do not), and what a dtype cannot hold is rounded to nearest even."""
    plan = sample(12, backend.device)
    for classes, smoothing in itertools.product((1, 3, 130), SMOOTHINGS):
        probabilities = soft_labels(12, classes, labels_dtype)
        multi_hot = torch.randint(2, (12, classes), generator=generator(0)).to(labels_dtype)
        tiny = (torch.randn(12, classes, generator=generator(1)) * 2.0**-22).to(labels_dtype)
        limit = min(torch.finfo(labels_dtype).max, 2.0**20)
        huge = (torch.randn(12, classes, generator=generator(2)) * 2.0**15).clamp(-limit, limit).to(labels_dtype)
        for labels in (probabilities, multi_hot, tiny, huge):
            assert_targets(backend, labels, plan, classes, smoothing, dtype)


@every_backend
def test_labels_of_any_stride(backend):
    plan = sample(12, backend.device)
    classes = 5
    soft = soft_labels(24, classes)
    for labels in (
        random_labels(24, classes)[::2],
        random_labels(1, classes).expand(12),
        torch.stack([random_labels(12, classes)] * 3, dim=1)[:, 1],
        soft[::2],
        soft[:12].t().contiguous().t(),
        soft[:1].expand(12, classes),
        soft_labels(12, 2 * classes)[:, 1::2],
        torch.complex(soft[:12], soft[12:]).conj().imag,  # a lazy negative
    ):
        assert_targets(backend, labels, plan, classes, 0.1, torch.float32)


@every_backend
def test_own_partner_and_nobody_else(backend):
    """lam is the sample's own share: its class gets lam, the partner's 1 - lam, all others 0."""
    plan = sample(8, backend.device)
    labels = torch.arange(8, device=backend.device)
    targets = cutmix_cuda.mix_targets(labels, plan, 8, backend=backend.name)
    partner = plan.partner.long()
    assert torch.equal(targets[labels, labels], plan.lam)
    mixed = is_mixed(plan)
    assert torch.equal(targets[labels, partner][mixed], (1 - plan.lam)[mixed])
    assert torch.equal((targets != 0).sum(1), torch.where(mixed & (plan.lam > 0) & (plan.lam < 1), 2, 1))
    assert torch.equal(targets[~mixed], torch.eye(8, device=backend.device)[~mixed])


@every_backend
def test_two_samples_of_one_class(backend):
    """lam + (1 - lam) in one place: 1, since 1 - lam is off by a quarter of the last bit of 1 at most."""
    plan = sample(64, backend.device)
    labels = torch.full((64,), 2, device=backend.device)
    targets = cutmix_cuda.mix_targets(labels, plan, 5, backend=backend.name)
    assert torch.equal(targets, F.one_hot(labels, 5).float())


@every_backend
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_an_unmixed_sample_owes_nothing_to_its_partner(backend, bad):
    """0 * NaN is NaN: the target of a sample that is kept or cut out is its own, not lam = 1 of a mixture."""
    plan = sample(12, backend.device)
    unmixed = ~is_mixed(plan)
    labels = soft_labels(12, 5).to(backend.device)
    labels[plan.partner.long()[unmixed]] = bad
    labels[unmixed] = 0.2
    targets = cutmix_cuda.mix_targets(labels, plan, 5, backend=backend.name)
    assert torch.equal(targets[unmixed], labels[unmixed])


@every_backend
@pytest.mark.parametrize(
    "dtype, outside",
    [
        (torch.int64, [-1, 5, -100, 2**40, 2**63 - 1, -(2**63), 2**32]),
        (torch.int32, [-1, 5, 2**31 - 1, -(2**31)]),
        (torch.int16, [-1, 5, -(2**15)]),
        (torch.int8, [-1, 5, 127, -128]),
        (torch.uint8, [5, 255]),
        (torch.uint16, [5, 65535]),
        (torch.uint32, [5, 2**32 - 1, 2**31]),
        (torch.uint64, [5, 2**63, 2**64 - 1, 2**32]),
    ],
    ids=str,
)
def test_a_label_outside_gives_nan(backend, dtype, outside):
    """Through the op, where nobody looked before: NaN for whoever uses the label, and nothing else."""
    ops = ops_for(backend.name, torch.device(backend.device))
    plan = sample(12, backend.device)
    good = random_labels(12, 5, dtype).to(backend.device)
    images = torch.zeros(12, 1, 7, 9, device=backend.device)
    for value in outside:
        labels = torch.tensor([value if i == 4 else int(good[i]) for i in range(12)], dtype=dtype).to(backend.device)
        uses = (plan.partner == 4) & is_mixed(plan)
        uses[4] = True
        expected = oracle_targets(good.cpu(), planned(plan), 5).to(backend.device)
        for targets in (
            ops.mix_targets(labels, plan.packed, 5, 0.0, torch.float32),
            ops.apply(images, labels, plan.packed, 5, 0.0, torch.float32)[1],
        ):
            assert torch.equal(targets.isnan(), uses[:, None].expand(12, 5))
            assert torch.equal(targets[~uses], expected[~uses])


@every_backend
def test_loss_of_the_soft_target_is_the_mixed_loss(backend):
    """Cross entropy is linear in the target: one loss of the mixture is the mixture of two losses."""
    plan = sample(12, backend.device)
    labels = random_labels(12, 10).to(backend.device)
    logits = torch.randn(12, 10, dtype=torch.float64, generator=generator(0)).to(backend.device)
    targets = cutmix_cuda.mix_targets(labels, plan, 10, target_dtype=torch.float64, backend=backend.name)
    lam = plan.lam.double()
    own, partner = (F.cross_entropy(logits, y, reduction="none") for y in (labels, labels[plan.partner.long()]))
    mixed = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(mixed, lam * own + (1 - lam) * partner, rtol=1e-14, atol=0)
