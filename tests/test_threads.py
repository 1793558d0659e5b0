"""How many threads do the work changes nothing in the result."""

from __future__ import annotations

import pytest
import torch

import cutmix_cuda

from .helpers import (
    BACKENDS,
    assert_same_bits,
    oracle_images,
    oracle_targets,
    planned,
    random_images,
    random_labels,
)


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# The CPU backend cuts a batch into tasks of 32 KiB: odd rows, so that tasks begin and end inside a sample.
@pytest.mark.parametrize("backend", [backend.name for backend in BACKENDS if backend.device == "cpu"])
@pytest.mark.parametrize("shape", [(7, 3, 61, 67), (301, 1, 9, 11), (3, 5, 1, 4099)], ids=str)
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "sliced"])
def test_thread_counts(backend, shape, layout, set_threads):
    classes = 211
    images, labels = random_images(shape), random_labels(shape[0], classes)
    view = {
        "nchw": images,
        "channels_last": images.contiguous(memory_format=torch.channels_last),
        "sliced": torch.nn.functional.pad(images, (1, 2))[..., 1:-2],
    }[layout]
    plan = cutmix_cuda.sample_plan(shape[0], *shape[-2:], seed=5, backend="reference")
    expected = oracle_images(images, planned(plan)), oracle_targets(labels, planned(plan), classes)
    for threads in (1, 2, 3):
        set_threads(threads)
        assert torch.get_num_threads() == threads
        *mixed, drawn = cutmix_cuda.cutmix(view, labels, classes, seed=5, return_plan=True, backend=backend)
        own = view.clone(memory_format=torch.preserve_format)
        in_place = cutmix_cuda.cutmix_(own, labels, classes, seed=5, backend=backend)
        assert torch.equal(drawn.packed, plan.packed)
        for result in (mixed, in_place):
            assert_same_bits(result[0], expected[0])
            assert_same_bits(result[1], expected[1])
