"""torchvision and timm beside the batch tail: normalised values, flips and shifts, and erased boxes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import scipy.stats
import torch

import cutmix_cuda
from cutmix_cuda import Augment, CutMix, Erase, Views

from ..helpers import assert_same_bits, every_backend, random_images

v2 = pytest.importorskip("torchvision.transforms.v2")
timm_erasing = pytest.importorskip("timm.data.random_erasing")

CONSTANTS = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "CLIP": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "Inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "MNIST": ((0.1307,), (0.3081,)),
}
EVERY_BYTE = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def torchvision_normalized(images: torch.Tensor, mean, std) -> torch.Tensor:
    return v2.functional.normalize(v2.functional.to_dtype(images, torch.float32, scale=True), list(mean), list(std))


def timm_normalized(images: torch.Tensor, mean, std) -> torch.Tensor:
    """As timm's PrefetchLoader: x.float().sub_(255 mean).div_(255 std), in float32."""
    mean, std = (torch.tensor([255 * number for number in numbers]).view(1, -1, 1, 1) for numbers in (mean, std))
    return images.float().sub_(mean).div_(std)


@every_backend
@pytest.mark.parametrize("name", CONSTANTS)
def test_every_byte_is_normalised_as_the_peers_do(backend, name):
    mean, std = CONSTANTS[name]
    images = EVERY_BYTE.expand(1, len(mean), 16, 16)
    ours = cutmix_cuda.normalize_images(images.to(backend.device), mean, std, backend=backend.name).cpu()
    timm, torchvision = timm_normalized(images, mean, std), torchvision_normalized(images, mean, std)
    one_ulp = torch.nextafter(timm.abs(), torch.tensor(torch.inf)) - timm.abs()
    assert ((ours - timm).abs() <= one_ulp).all()
    assert ((ours - torchvision).abs() <= 2.5e-7 / torch.tensor(std).view(1, -1, 1, 1)).all()
    if name in ("ImageNet", "CIFAR-10", "CIFAR-100", "CLIP"):
        halves = cutmix_cuda.normalize_images(
            images.to(backend.device), mean, std, dtype=torch.bfloat16, backend=backend.name
        )
        assert_same_bits(halves.cpu(), timm.bfloat16())
        assert_same_bits(halves.cpu(), torchvision.bfloat16())


@every_backend
def test_flips_and_shifts_are_torchvisions(backend):
    """RandomCrop's padding and crop, then the flip, with the offsets drawn here."""
    height, width, most = 9, 12, 4
    images = random_images((40, 3, height, width), torch.uint8)
    out, _, _, views = cutmix_cuda.augment(
        images.to(backend.device), flip=0.5, translate=most, seed=3, return_plan=True, backend=backend.name
    )
    for i, (flip, (dy, dx)) in enumerate(zip(views.flip.tolist(), views.offset.tolist(), strict=True)):
        padded = v2.functional.pad(images[i], [most] * 4)
        expected = v2.functional.crop(padded, most + dy, most + dx, height, width)
        assert torch.equal(out[i].cpu(), v2.functional.horizontal_flip(expected) if flip else expected)
    assert set(views.offset.flatten().tolist()) == set(range(-most, most + 1))


def test_offsets_and_flips_are_uniform():
    views = cutmix_cuda.sample_views(9000, 30, 40, flip=0.25, translate=(1, 4), seed=5)
    assert scipy.stats.binomtest(int(views.flip.sum()), 9000, 0.25).pvalue > 1e-4
    for offsets, most in zip(views.offset.unbind(1), (1, 4), strict=True):
        counts = np.bincount(offsets.numpy() + most, minlength=2 * most + 1)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4
    table = np.histogram2d(*views.offset.numpy().T, bins=(3, 9))[0]
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-4
    down = np.histogram2d(views.flip.numpy(), views.offset[:, 0].numpy(), bins=(2, 3))[0]
    assert scipy.stats.chi2_contingency(down).pvalue > 1e-4


# ---- Erased boxes


def torchvision_boxes(count: int, height: int, width: int) -> np.ndarray:
    erasing = v2.RandomErasing(p=1.0)
    image = [torch.zeros(3, height, width)]
    drawn = (erasing.make_params(image) for _ in range(count))
    return np.array([[p["i"], p["j"], p["i"] + p["h"], p["j"] + p["w"]] for p in drawn if p["v"] is not None])


def timm_boxes(count: int, height: int, width: int, boxes: int) -> np.ndarray:
    """(count, boxes, 4), recorded where timm erases."""
    recorded = []

    class Canvas:
        def __setitem__(self, place, value):
            _, rows, columns = place
            recorded.append([rows.start, columns.start, rows.stop, columns.stop])

    erasing = timm_erasing.RandomErasing(1.0, min_count=boxes, device="cpu")
    for _ in range(count):
        erasing._erase(Canvas(), 3, height, width, torch.float32)
    return np.array(recorded).reshape(count, boxes, 4)


def features(boxes: np.ndarray) -> dict[str, np.ndarray]:
    y0, x0, y1, x1 = boxes.astype(np.float64).T
    area, aspect = (y1 - y0) * (x1 - x0), (y1 - y0) / (x1 - x0)
    return {"area": area, "aspect": aspect, "top": y0, "left": x0, "bottom": y1, "right": x1}


def assert_same_distribution(ours: np.ndarray, theirs: np.ndarray) -> None:
    for name, mine in features(ours).items():
        assert scipy.stats.ks_2samp(mine, features(theirs)[name]).pvalue > 1e-3, name


@pytest.mark.parametrize("extent", [(64, 48), (17, 90)])
def test_erased_boxes_are_distributed_as_torchvisions(extent):
    torch.manual_seed(0)
    ours = cutmix_cuda.sample_views(4000, *extent, erase=Erase(1.0), seed=1).erased[:, 0].numpy()
    found = ours[:, 2] > ours[:, 0]
    theirs = torchvision_boxes(4000, *extent)
    assert abs(found.mean() - len(theirs) / 4000) < 0.01
    assert_same_distribution(ours[found], theirs)


@pytest.mark.parametrize("boxes", [1, 3])
def test_erased_boxes_are_distributed_as_timms(boxes):
    random.seed(0)
    erase = Erase.as_in_timm(1.0, min_count=boxes)
    ours = cutmix_cuda.sample_views(3000, 64, 48, erase=erase, seed=1).erased.numpy()
    theirs = timm_boxes(3000, 64, 48, boxes)
    for number in range(boxes):
        assert_same_distribution(ours[:, number], theirs[:, number])


def test_both_ends_of_an_erased_boxes_place_are_reached():
    boxes = cutmix_cuda.sample_views(4000, 5, 6, erase=Erase(1.0, scale=(0.2, 0.4)), seed=2).erased[:, 0]
    for height, width in ((2, 3), (3, 2), (2, 4)):
        placed = boxes[(boxes[:, 2] - boxes[:, 0] == height) & (boxes[:, 3] - boxes[:, 1] == width)]
        assert set(placed[:, 0].tolist()) == set(range(5 - height + 1))
        assert set(placed[:, 1].tolist()) == set(range(6 - width + 1))
    assert ((boxes[:, 2:] - boxes[:, :2]) < torch.tensor([5, 6])).all()


def test_how_many_are_erased():
    boxes = cutmix_cuda.sample_views(6000, 40, 40, erase=Erase(0.25, count=(1, 3)), seed=4).erased
    counts = (boxes[..., 2] > boxes[..., 0]).sum(1)
    assert scipy.stats.binomtest(int((counts > 0).sum()), 6000, 0.25).pvalue > 1e-4
    assert scipy.stats.chisquare(np.bincount(counts[counts > 0])[1:]).pvalue > 1e-4


@every_backend
def test_given_torchvisions_boxes_the_pixels_are_torchvisions(backend):
    torch.manual_seed(3)
    images = random_images((12, 3, 32, 24), torch.uint8)
    mean, std = CONSTANTS["ImageNet"]
    erasing = v2.RandomErasing(p=1.0, value=(0.5, -1.0, 2.0))
    boxes, expected = [], []
    for image in torchvision_normalized(images, mean, std):
        params = erasing.make_params([image])
        boxes.append([params["i"], params["j"], params["i"] + params["h"], params["j"] + params["w"]])
        expected.append(erasing.transform(image, params))
    views = Views.make(12, 32, 24, erased=torch.tensor(boxes)[:, None]).to(backend.device)
    augment = Augment(
        mean=mean, std=std, erase=Erase(value=(0.5, -1.0, 2.0)), dtype=torch.bfloat16, backend=backend.name
    )
    ours = augment.apply_plan(images.to(backend.device), views=views)[0]
    assert_same_bits(ours, torch.stack(expected).bfloat16())


@every_backend
@pytest.mark.parametrize("order", ["before", "after"])
def test_given_timms_boxes_the_pixels_are_timms(backend, order):
    """Erased before mixing, as in datasets, or after it, as by timm's prefetcher; mixed from normalised floats."""
    random.seed(5)
    images = random_images((8, 3, 32, 24), torch.uint8)
    mean, std = CONSTANTS["ImageNet"]
    boxes = torch.from_numpy(timm_boxes(8, 32, 24, 2))

    def erased(batch: torch.Tensor) -> torch.Tensor:
        batch = batch.clone()
        for i, sample in enumerate(boxes.tolist()):
            for y0, x0, y1, x1 in sample:
                batch[i, :, y0:y1, x0:x1] = 0
        return batch

    plan = CutMix().sample_plan(8, 32, 24, seed=1)
    normalized = timm_normalized(images, mean, std)
    if order == "before":
        expected = cutmix_cuda.mix_images(erased(normalized), plan)
    else:
        expected = erased(cutmix_cuda.mix_images(normalized, plan))
    views = Views.make(8, 32, 24, erased=boxes).to(backend.device)
    augment = Augment(mean=mean, std=std, erase=Erase(order=order), dtype=torch.bfloat16, backend=backend.name)
    ours = augment.apply_plan(images.to(backend.device), None, plan.to(backend.device), views)[0]
    assert_same_bits(ours, expected.bfloat16())
