"""torchvision's CutMix and MixUp, timm's Mixup and the papers' own formulas, with the boxes that they drew: the same
pixels and targets.

Their lambda is a Python double, ours is float32. Pixels never see it. Targets agree to the last bit on images of 2^k
pixels, where a share of the area and one minus it are exact in both; elsewhere to the rounding of a float32. MixUp is
given a lambda that is a float32: then blended images and targets of float32 agree to the last bit as well.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

import cutmix_cuda
from cutmix_cuda import MixPlan

from ..helpers import assert_same_bits, every_backend, generator, random_images, random_labels, soft_labels

timm_mixup = pytest.importorskip("timm.data.mixup")

EXACT, ROUNDED = (16, 32), (15, 22)  # height and width
SIZES = pytest.mark.parametrize("size", [EXACT, ROUNDED], ids=str)
CLASSES = 10


def plan_of(partner: Tensor, boxes: list[tuple[int, int, int, int]], size: tuple[int, int], device: str) -> MixPlan:
    return MixPlan.from_boxes(partner.to(device), torch.tensor(boxes, device=device), *size)


def assert_agrees(
    backend, size: tuple[int, int], before: Tensor, labels: Tensor, theirs: tuple[Tensor, Tensor], plan, smoothing=0.0
) -> None:
    device = backend.device
    mixed, targets = cutmix_cuda.apply_plan(
        before.to(device), labels.to(device), plan, CLASSES, label_smoothing=smoothing, backend=backend.name
    )
    assert targets is not None
    assert_same_bits(mixed, theirs[0])
    if size == EXACT:
        assert_same_bits(targets, theirs[1])
    else:
        torch.testing.assert_close(targets.cpu(), theirs[1], rtol=0, atol=2.0**-23)


@every_backend
@SIZES
@pytest.mark.parametrize("soft", [False, True])
def test_torchvision(backend, size, soft, monkeypatch):
    transform = v2.CutMix(num_classes=CLASSES)
    drawn = []
    make_params = transform.make_params
    monkeypatch.setattr(transform, "make_params", lambda inputs: drawn.append(make_params(inputs)) or drawn[-1])
    labels = soft_labels(7, CLASSES) if soft else random_labels(7, CLASSES)
    torch.manual_seed(0)
    for seed in range(10):
        images = random_images((7, 3, *size), seed=seed)
        theirs = transform(images, labels)
        x0, y0, x1, y1 = drawn[-1]["box"]
        plan = plan_of(torch.arange(7).roll(1), [(y0, x0, y1, x1)] * 7, size, backend.device)
        assert_agrees(backend, size, images, labels, theirs, plan)
    assert len(drawn) == 10


@every_backend
@SIZES
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_timm(backend, size, mode, smoothing, monkeypatch):
    """timm's three modes are the scopes batch, pair and sample, with flip for a partner."""
    batch = 8
    drawn = []
    bbox_and_lam = timm_mixup.cutmix_bbox_and_lam

    def recorded(*args, **kwargs):
        (y0, y1, x0, x1), lam = bbox_and_lam(*args, **kwargs)
        drawn.append((int(y0), int(x0), int(y1), int(x1)))
        return (y0, y1, x0, x1), lam

    monkeypatch.setattr(timm_mixup, "cutmix_bbox_and_lam", recorded)
    mixup = timm_mixup.Mixup(0.0, 1.0, mode=mode, label_smoothing=smoothing, num_classes=CLASSES)
    np.random.seed(0)
    for seed in range(10):
        images = torch.randn(batch, 3, *size, generator=generator(seed))
        labels = random_labels(batch, CLASSES, seed=seed)
        drawn.clear()
        theirs = mixup(images.clone(), labels)
        boxes = {"batch": drawn * batch, "pair": drawn + drawn[::-1], "elem": drawn}[mode]
        plan = plan_of(torch.arange(batch).flip(0), boxes, size, backend.device)
        assert_agrees(backend, size, images, labels, theirs, plan, smoothing)


@every_backend
@SIZES
def test_the_papers_formula(backend, size):
    """Yun et al., ICCV 2019: x = M * x_a + (1 - M) * x_b, and the losses of both labels, lam and 1 - lam of each."""
    height, width = size
    images, labels = random_images((7, 3, *size)), random_labels(7, CLASSES)
    logits = torch.randn(7, CLASSES, dtype=torch.float64, generator=generator(1))
    order = torch.randperm(7, generator=generator(2))
    for y0, x0, y1, x1 in [(2, 3, 9, 20), (0, 0, 15, 1), (0, 0, *size), (4, 4, 4, 9)]:
        theirs = images.clone()
        theirs[:, :, y0:y1, x0:x1] = images[order, :, y0:y1, x0:x1]
        lam = 1 - (y1 - y0) * (x1 - x0) / (height * width)
        loss = lam * F.cross_entropy(logits, labels) + (1 - lam) * F.cross_entropy(logits, labels[order])

        plan = plan_of(order, [(y0, x0, y1, x1)] * 7, size, backend.device)
        device = backend.device
        mixed, targets = cutmix_cuda.apply_plan(
            images.to(device), labels.to(device), plan, CLASSES, target_dtype=torch.float64, backend=backend.name
        )
        assert_same_bits(mixed, theirs)
        torch.testing.assert_close(F.cross_entropy(logits, targets.cpu()), loss, rtol=1e-7, atol=0)


LAMBDAS = [float(np.float32(lam)) for lam in (0.0, 1e-6, 0.1, 1 / 3, 0.5, 0.7, 0.999999, 1.0)]


def mixup_plan(partner: Tensor, lam: list[float], device: str) -> MixPlan:
    batch = len(lam)
    boxes, kind = torch.zeros(batch, 4, dtype=torch.int64), torch.full((batch,), 2)
    return MixPlan.from_boxes(partner, boxes, *ROUNDED, lam=torch.tensor(lam), kind=kind).to(device)


def assert_blends_alike(backend, images: Tensor, labels: Tensor, theirs: tuple[Tensor, Tensor], plan, smoothing=0.0):
    mixed, targets = cutmix_cuda.apply_plan(
        images.to(backend.device),
        labels.to(backend.device),
        plan,
        CLASSES,
        label_smoothing=smoothing,
        backend=backend.name,
    )
    assert targets is not None
    assert torch.equal(mixed.cpu(), theirs[0])
    assert torch.equal(targets.cpu(), theirs[1])


@every_backend
@pytest.mark.parametrize("soft", [False, True])
def test_torchvisions_mixup(backend, soft, monkeypatch):
    transform = v2.MixUp(num_classes=CLASSES)
    labels = soft_labels(7, CLASSES) if soft else random_labels(7, CLASSES)
    for lam in LAMBDAS:
        monkeypatch.setattr(transform, "make_params", lambda inputs, lam=lam: {"lam": lam})
        images = torch.randn(7, 3, *ROUNDED, generator=generator(0))
        theirs = transform(images, labels)
        plan = mixup_plan(torch.arange(7).roll(1), [lam] * 7, backend.device)
        assert_blends_alike(backend, images, labels, theirs, plan)


@every_backend
@pytest.mark.parametrize("mode", ["batch", "elem"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_timms_mixup(backend, mode, smoothing, monkeypatch):
    mixup = timm_mixup.Mixup(1.0, 0.0, mode=mode, label_smoothing=smoothing, num_classes=CLASSES)
    images, labels = torch.randn(8, 3, *ROUNDED, generator=generator(0)), random_labels(8, CLASSES)
    for lams in [[lam] * 8 for lam in LAMBDAS] if mode == "batch" else [LAMBDAS]:
        no_cutmix = np.zeros(8, dtype=bool)
        each = np.array(lams, dtype=np.float32)
        monkeypatch.setattr(mixup, "_params_per_batch", lambda lam=lams[0]: (lam, False))
        monkeypatch.setattr(mixup, "_params_per_elem", lambda count, each=each, none=no_cutmix: (each, none))
        theirs = mixup(images.clone(), labels)
        plan = mixup_plan(torch.arange(8).flip(0), lams, backend.device)
        assert_blends_alike(backend, images, labels, theirs, plan, smoothing)


@every_backend
def test_the_formula_of_mixup(backend):
    """Zhang et al., ICLR 2018: x = lam * x_i + (1 - lam) * x_j, and y alike."""
    images, labels = torch.randn(8, 3, *ROUNDED, generator=generator(0)), soft_labels(8, CLASSES)
    order = torch.randperm(8, generator=generator(2))
    lam = torch.tensor(LAMBDAS)
    pixels, rows = lam.reshape(8, 1, 1, 1), lam.reshape(8, 1)
    theirs = (
        pixels * images + (1 - pixels) * images[order],
        rows * labels + (1 - rows) * labels[order],
    )
    assert_blends_alike(backend, images, labels, theirs, mixup_plan(order, LAMBDAS, backend.device))
