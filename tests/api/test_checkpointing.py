"""Activation checkpointing: what is recomputed in backward sees the draw of the forward again, and draws no other.

Each transform's output is weighted by a parameter of its own that is 1, so that its gradient is its part of the loss.
Pixels are whole numbers in float64, whose sums are exact.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cutmix_cuda import CutMix, Mix, cutmix

from ..helpers import generator

IMAGES = torch.arange(6 * 3 * 9 * 8, dtype=torch.float64).reshape(6, 3, 9, 8)
PLACES = torch.randperm(IMAGES.numel(), generator=torch.Generator().manual_seed(0)).view_as(IMAGES).double()

DRAWS: dict[str, Callable[[], nn.Module]] = {
    "counted": lambda: CutMix(seed=1),
    "counted, of each kind": lambda: Mix(seed=1, cutout=0.3, prob=0.8),
    "generator": lambda: CutMix(generator=generator(1)),
    "unseeded": lambda: CutMix(),
}
every_draw = pytest.mark.parametrize("draw", DRAWS)
both_ways = pytest.mark.parametrize("use_reentrant", [False, True])


def ones(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.float64, requires_grad=True)


def block(transform: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of images and two parameters, which draws twice: the parts of the loss, (2,)."""

    def parts(images: Tensor, weights: Tensor) -> Tensor:
        mixed = [transform(images)[0] for _ in range(2)]
        return torch.stack([(each * PLACES * weight).sum() for each, weight in zip(mixed, weights, strict=True)])

    return parts


def expected_parts(draw: str, blocks: int) -> Tensor:
    """Without checkpointing, (blocks, 2)."""
    torch.manual_seed(7)
    parts = block(DRAWS[draw]())
    return torch.stack([parts(IMAGES, ones(2)).detach() for _ in range(blocks)])


def count_of(transform: nn.Module) -> int:
    return int(transform.state_dict()["seeds._extra_state"][1])


@every_draw
@both_ways
def test_gradients_are_of_what_was_drawn(draw, use_reentrant):
    """Two blocks, of which the second is recomputed first."""
    torch.manual_seed(7)
    transform = DRAWS[draw]()
    weights = [ones(2), ones(2)]
    parts = torch.stack(
        [checkpoint(block(transform), IMAGES, weight, use_reentrant=use_reentrant) for weight in weights]
    )
    parts.sum().backward()
    gradients = torch.stack([weight.grad for weight in weights])
    assert torch.equal(gradients, parts)
    assert len(parts.unique()) == 4, "each of its own draw"
    if draw.startswith("counted"):
        assert torch.equal(parts, expected_parts(draw, 2))
        assert count_of(transform) == 4
    if draw == "generator":
        same = generator(1)
        cutmix(IMAGES, generator=same)
        expected = cutmix(IMAGES, generator=same)[0]
        assert parts[0, 1] == (expected * PLACES).sum()
        for _ in range(2):
            cutmix(IMAGES, generator=same)
        assert torch.equal(transform.generator.get_state(), same.get_state())


@every_draw
def test_gradients_are_accumulated_and_asked_for_twice(draw):
    """Three forwards before the first backward, whose graphs are kept and gone through in another order."""
    transform, weight = DRAWS[draw](), ones(2)
    torch.manual_seed(7)
    parts = [checkpoint(block(transform), IMAGES, weight, use_reentrant=False) for _ in range(3)]
    for which in (1, 0, 2, 1):
        (gradient,) = torch.autograd.grad(parts[which].sum(), weight, retain_graph=True)
        assert torch.equal(gradient, parts[which])


@every_draw
def test_generators_that_start_alike_in_each_step(draw):
    transform = DRAWS[draw]()
    losses = []
    for _ in range(3):
        torch.manual_seed(7)
        weight = ones(2)
        parts = checkpoint(block(transform), IMAGES, weight, use_reentrant=False)
        parts.sum().backward()
        assert torch.equal(weight.grad, parts)
        losses.append(parts.sum().item())
    assert len(set(losses)) == (1 if draw == "unseeded" else 3)


@every_draw
@both_ways
def test_a_block_in_a_block(draw, use_reentrant):
    transform, weights = DRAWS[draw](), ones(4)

    def outer(images, weights):
        inner = checkpoint(block(transform), images, weights[:2], use_reentrant=use_reentrant)
        return torch.cat([inner, block(transform)(images, weights[2:])])

    parts = checkpoint(outer, IMAGES, weights, use_reentrant=use_reentrant)
    parts.sum().backward()
    assert torch.equal(weights.grad, parts)
    if draw.startswith("counted"):
        assert count_of(transform) == 4


@both_ways
@pytest.mark.parametrize("draw", ["counted", "generator"])
def test_what_cannot_be_found_again_is_refused(draw, use_reentrant):
    weight = ones(2)
    how = {"use_reentrant": use_reentrant, "preserve_rng_state": False}
    parts = checkpoint(block(DRAWS[draw]()), IMAGES, weight, **how)
    with pytest.raises(RuntimeError, match="preserve_rng_state=True"):
        parts.sum().backward()


def test_the_oldest_draws_are_forgotten(monkeypatch):
    monkeypatch.setattr("cutmix_cuda._seed._MOST_REMEMBERED", 4)
    monkeypatch.setattr("cutmix_cuda._seed._drawn", {})
    transform, weights = CutMix(seed=1), [ones(2) for _ in range(3)]
    parts = [checkpoint(block(transform), IMAGES, weight, use_reentrant=False) for weight in weights]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        part.sum().backward()
        assert torch.equal(weight.grad, part)
    with pytest.raises(RuntimeError, match="in backward"):
        parts[0].sum().backward()


# ---- Compiled

compiler = pytest.mark.parametrize(
    "compiler",
    [
        "aot_eager",
        pytest.param(
            "inductor", marks=pytest.mark.skipif(not shutil.which("g++"), reason="inductor wants a C++ compiler")
        ),
    ],
)


def compiled_block(draw: str, compiler: str, use_reentrant: bool) -> Callable[[Tensor, Tensor], Tensor]:
    torch._dynamo.reset()
    parts = block(DRAWS[draw]())

    @torch.compile(fullgraph=True, backend=compiler)
    def step(images, weights):
        return checkpoint(parts, images, weights, use_reentrant=use_reentrant)

    return step


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
@compiler
@both_ways
def test_a_compiled_block_draws_again_what_it_drew(compiler, use_reentrant):
    step, weight = compiled_block("unseeded", compiler, use_reentrant), ones(2)
    torch.manual_seed(7)
    parts = [step(IMAGES, weight) for _ in range(2)]
    assert torch.equal(torch.stack(parts), expected_parts("unseeded", 2))
    for part in parts:
        (gradient,) = torch.autograd.grad(part.sum(), weight)
        assert torch.equal(gradient, part)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
@compiler
@both_ways
def test_a_compiled_block_does_not_count_again(compiler, use_reentrant):
    parts = compiled_block("counted", compiler, use_reentrant)(IMAGES, ones(2))
    assert torch.equal(parts, expected_parts("counted", 1)[0])
    with pytest.raises(RuntimeError, match="a counted seed cannot be recomputed in a compiled graph"):
        parts.sum().backward()
