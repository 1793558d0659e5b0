"""timm's loader with its tail on a side stream, one batch ahead of the loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda.compat.timm import FastCollateMixup

from ..helpers import assert_same_bits, random_images, random_labels
from .on_device import device_work, profiled, waiting_is_an_error

CLASSES, COUNT = 10, 6


class Batches(list):
    """A loader whose batches are there already."""

    def __init__(self, mode: str) -> None:
        images = (random_images((8, 3, 32, 48), torch.uint8, seed) for seed in range(COUNT))
        super().__init__((each, random_labels(8, CLASSES, seed=seed)) for seed, each in enumerate(images))
        self.collate_fn = FastCollateMixup(0.8, 1.0, mode=mode, num_classes=CLASSES)


def loader_of(mode: str, device: torch.device | str, backend: str):
    compat = pytest.importorskip("cutmix_cuda.compat.timm.loader", exc_type=ImportError)
    if backend not in cutmix_cuda.available_backends():
        pytest.skip(f"no backend {backend!r}")
    how = {"re_prob": 0.5, "re_mode": "pixel", "img_dtype": torch.bfloat16, "memory_format": torch.channels_last}
    return compat.PrefetchLoader(Batches(mode), device=device, **how, seed=3, backend=backend)


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_batches_of_a_slow_loop(device, mode):
    """They are complete where the loop reads them, and no later batch is written to them while it still does."""
    taken: list[tuple[Tensor, Tensor]] = []
    for images, targets in loader_of(mode, device, "cuda"):
        torch.cuda._sleep(10**7)  # cycles: about 5 ms
        taken.append((images.clone(), targets.clone()))
        images.fill_(torch.nan)
    for mine, expected in zip(taken, loader_of(mode, "cpu", "reference"), strict=True):
        assert_same_bits(mine[0], expected[0])
        assert_same_bits(mine[1], expected[1])


def test_the_host_never_waits(device):
    loader = loader_of("elem", device, "cuda")
    list(loader)  # what is made once
    torch.cuda.synchronize(device)
    with waiting_is_an_error():
        for _ in loader:
            pass


def test_one_launch_a_batch(device):
    """Behind the two copies that bring images and labels to the device."""
    if not device_work(profiled(lambda: torch.ones(8, device=device) + 1)):
        pytest.skip("torch's profiler sees no kernels here")
    loader = loader_of("elem", device, "cuda")
    list(loader)
    work = device_work(profiled(lambda: list(loader)))
    assert len(work) == 3 * COUNT, work
