"""Instead of timm's RandomErasing: how much of a batch is erased, where, and with what."""

from __future__ import annotations

import copy
import inspect
import random

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import Erase
from cutmix_cuda.compat.timm import RandomErasing

from ..api.test_seed import oracle as counted_seed
from ..helpers import assert_same_bits, every_backend, generator

timm_erasing = pytest.importorskip("timm.data.random_erasing")

SHAPE = (12, 3, 24, 20)
IMAGES = torch.rand(SHAPE, generator=generator(1)) + 100  # of no value that is erased to


def erased_pixels(images: Tensor, erased: Tensor) -> np.ndarray:
    """bool (B, H, W)."""
    return (images != erased).any(1).numpy()


def features(erased: np.ndarray) -> dict[str, np.ndarray]:
    """Of each sample: how much is erased, and of how many rows and columns something is and between which."""
    rows, columns = np.any(erased, 2), np.any(erased, 1)
    return {
        "area": erased.sum((1, 2)),
        "rows": rows.sum(1),
        "columns": columns.sum(1),
        "top": rows.argmax(1),
        "left": columns.argmax(1),
        "bottom": rows[:, ::-1].argmax(1),
        "right": columns[:, ::-1].argmax(1),
    }


DRAWN = {
    "default": {},
    "always": {"probability": 1.0},
    "large and flat": {"probability": 0.9, "min_area": 0.2, "max_area": 0.9, "min_aspect": 0.1, "max_aspect": 0.4},
    "one to four": {"probability": 1.0, "max_count": 4},
    "two to three": {"probability": 0.8, "min_count": 2, "max_count": 3},
    "clean split": {"probability": 1.0, "num_splits": 3},
}


@pytest.mark.parametrize("drawn", DRAWN.values(), ids=DRAWN)
def test_erases_as_much_and_where_timm_does(drawn):
    """By Kolmogorov-Smirnov tests of two samples, which are conservative where numbers are whole."""
    random.seed(0)
    torch.manual_seed(0)
    images = torch.ones(2000, 1, 40, 28)
    ours = features(erased_pixels(images, RandomErasing(**drawn)(images)))
    theirs = features(erased_pixels(images, timm_erasing.RandomErasing(**drawn, device="cpu")(images.clone())))
    for name, numbers in ours.items():
        assert scipy.stats.ks_2samp(numbers, theirs[name], method="asymp").pvalue > 1e-3, name


@every_backend
@pytest.mark.parametrize(("mode", "value"), [("const", 0.0), ("rand", "channel"), ("pixel", "pixel"), ("", 0.0)])
def test_is_the_function_with_timms_boxes(backend, mode, value):
    """As the prefetcher's next seed draws them, in one call for the whole batch."""
    erasing = RandomErasing(0.7, mode=mode.upper(), max_count=3, num_splits=4, seed=5, backend=backend.name)
    images = IMAGES.to(backend.device)
    erase = Erase(0.7, (0.02, 1 / 3), (0.3, 1 / 0.3), value, (1, 3), num_splits=4)
    for count in range(2):
        expected = cutmix_cuda.augment(IMAGES, erase=erase, seed=counted_seed(5, count), backend="reference")[0]
        erased = erasing(images)
        assert_same_bits(erased, expected)
        assert_same_bits(erased[:3], IMAGES[:3])
    assert_same_bits(images, IMAGES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_what_is_not_erased_keeps_its_bits(dtype, memory_format):
    images = IMAGES.to(dtype).contiguous(memory_format=memory_format)
    torch.manual_seed(0)
    erased = RandomErasing(0.6)(images)
    assert erased.dtype == dtype and erased.stride() == images.stride()
    where = torch.from_numpy(erased_pixels(images, erased))
    assert 0 < where.any(2).any(1).sum() < len(images)
    assert_same_bits(erased, torch.where(where[:, None], 0, images).to(dtype))


def test_noise():
    """One normal number a box and channel, or one a pixel and channel."""
    torch.manual_seed(0)
    images = torch.full((400, 3, 20, 20), 100.0)
    for mode in ("rand", "pixel"):
        erased = RandomErasing(1.0, mode=mode)(images)
        colours = [sample[:, where] for sample, where in zip(erased, (erased != 100).all(1), strict=True)]
        uniform = [bool((colour == colour[:, :1]).all()) for colour in colours if colour.shape[1] > 1]
        assert len(uniform) > 350 and set(uniform) == {mode == "rand"}
        numbers = torch.cat([colour[:, :1] if mode == "rand" else colour for colour in colours], dim=1)
        assert scipy.stats.ttest_1samp(numbers.flatten().numpy(), 0.0).pvalue > 1e-3
        assert abs(numbers.std() - 1.0) < 4 / (2 * numbers.numel()) ** 0.5
        correlated = np.corrcoef(numbers.numpy()) - np.eye(3)
        assert (np.abs(correlated) < 4 / numbers.shape[1] ** 0.5).all()  # each channel has numbers of its own


def test_one_image():
    """As in the transforms of a dataset, whatever the splits of batches."""
    image = IMAGES[0]
    for erasing in (RandomErasing(1.0, seed=1), RandomErasing(1.0, seed=1, num_splits=2)):
        erased = erasing(image)
        assert erased.shape == image.shape
        assert 0 < erased_pixels(image[None], erased[None]).mean() < 0.5


def test_random_numbers():
    erasing = RandomErasing()
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        drawn.append(torch.stack([erasing(IMAGES) for _ in range(2)]))
    assert torch.equal(*drawn) and not torch.equal(*drawn[0])
    state = torch.get_rng_state()
    assert torch.equal(RandomErasing(generator=generator(0))(IMAGES), drawn[0][0])
    counted = RandomErasing(seed=3)
    counted(IMAGES)
    resumed = RandomErasing(seed=4)
    resumed.load_state_dict(counted.state_dict())
    for again in (resumed, copy.deepcopy(counted)):
        assert_same_bits(again(IMAGES), cutmix_cuda.augment(IMAGES, erase=counted.erase, seed=counted_seed(3, 1))[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_has_the_arguments_of_timms():
    own = list(inspect.signature(RandomErasing).parameters.values())
    peer = inspect.signature(timm_erasing.RandomErasing).parameters.values()
    assert [(each.name, each.default) for each in peer] == [(each.name, each.default) for each in own[: len(peer)]]
    assert [each.name for each in own[len(peer) :]] == ["seed", "generator", "backend"]


def test_arguments_that_are_wrong():
    with pytest.raises(ValueError, match="^mode must be one of 'const', 'rand', 'pixel', got 'blur'"):
        RandomErasing(mode="blur")
    with pytest.raises(ValueError, match=r"^probability must be in \[0, 1\], got 1.5"):
        RandomErasing(1.5)
    with pytest.raises(TypeError, match="^num_splits must be an int, got 0.5"):
        RandomErasing(num_splits=0.5)
    with pytest.raises(ValueError, match="^value of erase must be a number for images that stay uint8, got 'pixel'"):
        RandomErasing(1.0, mode="pixel")(IMAGES.to(torch.uint8))
