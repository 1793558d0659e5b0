"""How many threads do the work changes nothing in the result."""

from __future__ import annotations

import pytest
import torch

import cutmix_cuda
from cutmix_cuda import MixPlan, PatchPlan
from cutmix_cuda.distributions import Constant

from ..helpers import (
    BACKENDS,
    assert_same_bits,
    assert_same_images,
    generator,
    oracle_images,
    oracle_targets,
    planned,
    random_images,
    random_labels,
)
from ..oracle_patches import oracle_paint, random_plan


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# The CPU backend cuts a batch that is blended into tasks of 32 KiB: odd rows, so that they begin and end in a sample.
@pytest.mark.parametrize("backend", [backend.name for backend in BACKENDS if backend.device == "cpu"])
@pytest.mark.parametrize("shape", [(7, 3, 61, 67), (40, 3, 61, 20), (301, 1, 9, 11), (3, 5, 1, 4099)], ids=str)
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "sliced"])
@pytest.mark.parametrize("scope", ["sample", "pair"])  # two kinds in a pair, or one
def test_thread_counts(backend, shape, layout, scope, set_threads):
    classes = 211
    images, labels = random_images(shape), random_labels(shape[0], classes)
    view = {
        "nchw": images,
        "channels_last": images.contiguous(memory_format=torch.channels_last),
        "sliced": torch.nn.functional.pad(images, (1, 2))[..., 1:-2],
    }[layout]
    how = {"cutout": 0.2, "fill": 0.5, "scope": scope}
    plan = cutmix_cuda.Mix(**how, backend="reference").sample_plan(shape[0], *shape[-2:], seed=5)
    rows = planned(plan)
    expected = oracle_images(images, rows, fill=0.5), oracle_targets(labels, rows, classes)
    for threads in (1, 2, 3):
        set_threads(threads)
        assert torch.get_num_threads() == threads
        how |= {"seed": 5, "return_plan": True, "backend": backend}
        own = view.clone(memory_format=torch.preserve_format)
        for given, call in ((view, cutmix_cuda.mix), (own, cutmix_cuda.mix_)):
            mixed, targets, drawn = call(given, labels, classes, **how)
            assert torch.equal(drawn.packed, plan.packed)
            assert_same_images(mixed, expected[0], rows)
            assert_same_bits(targets, expected[1])


@pytest.fixture
def flush_subnormals():
    """A function after which torch takes subnormal numbers for 0, on this thread and no other, until the test ends."""
    yield lambda: torch.set_flush_denormal(True)
    torch.set_flush_denormal(False)


@pytest.mark.skipif("cpu" not in cutmix_cuda.available_backends(), reason="nothing was compiled")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_subnormals_are_not_flushed(dtype, threads, set_threads, flush_subnormals):
    """Of pixels, labels and lambda: a thread flushes them or not, and no bit may tell which thread it was."""

    def subnormals(*shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator(5), dtype=torch.float64) * torch.finfo(dtype).tiny).to(dtype)

    set_threads(threads)
    images, labels = subnormals(6, 3, 61, 19), subnormals(6, 19)
    how = {"cutmix_alpha": None, "mixup_alpha": Constant(1e-40), "prob": 0.7, "seed": 5, "return_plan": True}
    wanted = {"target_dtype": dtype, "label_smoothing": 0.0}
    plan = cutmix_cuda.mix(images, **how, backend="reference")[2]
    halves = MixPlan.from_boxes(plan.partner, plan.boxes, 61, 19, kind=plan.kind, lam=torch.full((6,), 0.5))
    expected = [
        (oracle_images(images, rows), oracle_targets(labels, rows, 19, 0.0, dtype))
        for rows in (planned(plan), planned(halves))
    ]
    flush_subnormals()
    drawn = cutmix_cuda.mix(images, labels, **how, **wanted, backend="cpu")
    followed = cutmix_cuda.apply_plan(images, labels, halves, **wanted, backend="cpu")
    in_place = cutmix_cuda.apply_plan_(images.clone(), labels, halves, **wanted, backend="cpu")
    for actual, (mixed, targets) in zip((drawn, followed, in_place), (*expected, expected[1]), strict=True):
        assert_same_bits(actual[0], mixed)
        assert_same_bits(actual[1], targets)
    assert_same_bits(drawn[2].packed, plan.packed)


# From 8 MiB on the CPU backend writes past the caches, whole lines at aligned addresses; rows of 2801 bytes have none.
@pytest.mark.parametrize("backend", [backend.name for backend in BACKENDS if backend.device == "cpu"])
@pytest.mark.parametrize("width", [2801, 2816])
@pytest.mark.parametrize("channels_last", [False, True])
def test_outputs_that_no_cache_holds(backend, width, channels_last, set_threads):
    set_threads(2)
    images = random_images((4, 2, 375, width), torch.uint8)
    assert images.numel() >= 1 << 23
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    how = {"cutout": 0.5, "mixup_alpha": None, "fill": 7, "seed": 6, "return_plan": True, "backend": backend}
    mixed, _, plan = cutmix_cuda.mix(images, **how)
    assert set(plan.kind.tolist()) == {1, 3}
    expected = oracle_images(images, planned(plan), fill=7)
    assert_same_bits(mixed, expected)
    for offset in (1, 64):
        memory = torch.full((offset + images.numel() + 64,), 99, dtype=torch.uint8)
        out = memory[offset:].as_strided(images.shape, images.stride())
        cutmix_cuda.mix(images, out=out, **how)
        assert torch.equal(out, expected)
        assert (memory[:offset] == 99).all() and (memory[offset + images.numel() :] == 99).all()


# Of masks of each row's own, of coarse ones, of blended pixels between others, and of partners that are resized.
@pytest.mark.parametrize("backend", [backend.name for backend in BACKENDS if backend.device == "cpu"])
@pytest.mark.parametrize(("masks", "channels_last"), [((1500, 1405), False), ((20, 30), True)])
def test_patches_in_outputs_that_no_cache_holds(backend, masks, channels_last):
    size = 1500, 1405
    images = random_images((2, 2, *size), torch.uint8)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    assert images.numel() >= 1 << 23
    plan = random_plan(2, 4, 2, *size, masks=masks, sources=True)
    memory = torch.full((1 + images.numel() + 64,), 99, dtype=torch.uint8)
    out = memory[1:].as_strided(images.shape, images.stride())
    made = PatchPlan(plan.rows, *size, plan.sources, plan.masks)
    cutmix_cuda.paint(images, None, made, fill=7, out=out, backend=backend)
    assert_same_bits(out, oracle_paint(images, plan, fill=7).images)
    assert memory[0] == 99 and (memory[1 + images.numel() :] == 99).all()
