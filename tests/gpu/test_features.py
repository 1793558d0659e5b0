"""Mixing inside a network on a GPU: the bits of the reference, two launches for a gradient, no wait, and graphs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import Mix, MixPlan, mix_features, mix_targets

from ..helpers import assert_same_bits, generator, soft_labels
from .on_device import ON_STAND_IN, capture, device_work, profiled, waiting_is_an_error

EVERY_KIND = Mix(mixup_alpha=1.0, cutout=0.2, prob=0.9)
MANY_TO_ONE = torch.randint(0, 32, (32,), generator=generator(3))
SHAPES = [(32, 64, 28, 28), (32, 512, 7, 7), (32, 3, 5, 3), (32, 197, 384)]


def numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed)).to(dtype)


def plan_for(features: Tensor, many_to_one: bool = False) -> MixPlan:
    plan = EVERY_KIND.sample_plan(len(features), *(features.shape[2:] if features.dim() == 4 else (14, 14)), seed=1)
    if many_to_one:
        plan.packed[:, 0] = MANY_TO_ONE
    return plan


def mixed_with_gradient(features: Tensor, gradients: Tensor, plan: MixPlan, backend: str) -> tuple[Tensor, Tensor]:
    leaf = features.detach().requires_grad_()
    mixed = mix_features(leaf, plan, prefix=1 if leaf.dim() == 3 else 0, fill=0.5, backend=backend)  # type: ignore[arg-type]
    return mixed.detach(), torch.autograd.grad(mixed, leaf, gradients)[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("many_to_one", [False, True])
def test_bits_are_the_references(backend, device, shape, dtype, many_to_one):
    features, gradients = numbers(shape, dtype), numbers(shape, dtype, 1)
    for layout in (torch.contiguous_format, torch.channels_last)[: len(shape) - 2]:
        given = [tensor.contiguous(memory_format=layout) for tensor in (features, gradients)]
        plan = plan_for(features, many_to_one)
        expected = mixed_with_gradient(*given, plan, "reference")
        on_device = [tensor.to(device) for tensor in given]
        for result, wanted in zip(mixed_with_gradient(*on_device, plan.to(device), backend), expected, strict=True):
            assert_same_bits(result, wanted)


@pytest.mark.parametrize("batch", [1, 31, 33, 1000, 5000])
def test_takers_are_found_in_every_batch(backend, device, batch):
    partner = torch.randint(0, batch, (batch,), generator=generator(batch))
    plan = EVERY_KIND.sample_plan(batch, 2, 4, seed=2)
    plan.packed[:, 0] = partner
    features = numbers((batch, 1, 2, 4), torch.float32)
    expected = mixed_with_gradient(features, features, plan, "cpu" if batch > 1000 else "reference")
    on_device = features.to(device)
    for result, wanted in zip(
        mixed_with_gradient(on_device, on_device, plan.to(device), backend), expected, strict=True
    ):
        assert_same_bits(result, wanted)


def test_one_launch_and_two_for_the_gradient(backend, device):
    if not device_work(profiled(lambda: torch.ones(8, device=device) + 1)):
        pytest.skip("torch's profiler sees no kernels here")
    features = numbers((8, 16, 14, 14), torch.float16).to(device)
    plan = plan_for(features).to(device)
    leaf = features.clone().requires_grad_()
    for _ in range(2):  # the first time kernels may be compiled
        mixed = mix_features(leaf, plan, backend=backend)
        torch.autograd.grad(mixed, leaf, features, retain_graph=True)
        torch.cuda.synchronize(device)
    assert len(device_work(profiled(lambda: mix_features(leaf, plan, backend=backend)))) == 1
    work = device_work(profiled(lambda: torch.autograd.grad(mixed, leaf, features, retain_graph=True)))
    assert len(work) == (1 if ON_STAND_IN else 2), work  # which counts what torch is asked for


def test_the_host_does_not_wait(backend, device):
    plan = cutmix_cuda.sample_plan(8, 28, 28, seed=1).to(device)
    leaves = [
        numbers(shape, torch.float32).to(device).requires_grad_() for shape in ((8, 4, 7, 7), (8, 197, 4), (8, 4))
    ]
    soft = soft_labels(8, 5).to(device).requires_grad_()

    def everything() -> None:
        for leaf in leaves:
            on_grid = plan.rescaled(14, 14) if leaf.dim() == 3 else plan
            mix_features(leaf, on_grid, prefix=1 if leaf.dim() == 3 else 0, backend=backend).sum().backward()
        mix_targets(soft, plan, backend=backend).sum().backward()

    everything()
    torch.cuda.synchronize(device)
    with waiting_is_an_error():
        everything()


def test_a_graph_follows_the_plan_that_is_there_when_it_is_replayed(backend, device):
    features = numbers((8, 4, 14, 14), torch.float32)
    given = features.to(device)
    plan = plan_for(features).to(device)
    mixed_with_gradient(given, given, plan, backend)
    torch.cuda.synchronize(device)
    graph, results = capture(lambda: mixed_with_gradient(given, given, plan, backend))
    for seed in (5, 6):
        other = EVERY_KIND.sample_plan(8, 14, 14, seed=seed)
        plan.packed.copy_(other.packed)
        graph.replay()
        torch.cuda.synchronize(device)
        expected = mixed_with_gradient(features, features, other, "reference")
        assert_same_bits(results[0], expected[0])
        if not ON_STAND_IN:  # which replays no gradients
            assert_same_bits(results[1], expected[1])
