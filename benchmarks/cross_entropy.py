"""What the loss of mixed labels costs, with its gradient: dense soft targets against two class indices and a weight.

That dense targets slow a training step down was reported in pytorch/pytorch#141177, on eight A100: not measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import MixPlan, PairTargets

from .timing import Effort, Stopwatches, time_in_turn

NOT_MIXED = "class indices, not mixed"
SOFT = "soft targets"
PAIRS = "pairs"


class Sizes(NamedTuple):
    batch: int
    classes: int


FULL_SIZES = (Sizes(1024, 1000), Sizes(256, 21841))
QUICK_SIZES = (Sizes(8, 10), Sizes(4, 100))


class Inputs(NamedTuple):
    """What a call gets."""

    logits: Tensor  # float32 (B, K), to be differentiated
    labels: Tensor  # int64 (B,)
    plan: MixPlan
    soft: Tensor  # float32 (B, K)
    pairs: PairTargets


def random_inputs(sizes: Sizes, device: torch.device) -> Inputs:
    draw = torch.Generator(device).manual_seed(0)
    logits = torch.randn(*sizes, generator=draw, device=device).requires_grad_()
    labels = torch.randint(sizes.classes, (sizes.batch,), generator=draw, device=device)
    plan = cutmix_cuda.sample_plan(sizes.batch, 224, 224, seed=0, device=device)
    soft = cutmix_cuda.mix_targets(labels, plan, sizes.classes)
    return Inputs(logits, labels, plan, soft, cutmix_cuda.mix_targets(labels, plan, targets="pairs"))


def _made_soft(inputs: Inputs) -> Tensor:
    return cutmix_cuda.mix_targets(inputs.labels, inputs.plan, inputs.logits.shape[1])


def _made_pairs(inputs: Inputs) -> PairTargets:
    return cutmix_cuda.mix_targets(inputs.labels, inputs.plan, targets="pairs")


# Smoothing costs soft targets nothing, because they are made smooth; of pairs it is up to the loss.
LOSSES: dict[str, Callable[[Inputs], Tensor]] = {
    NOT_MIXED: lambda inputs: F.cross_entropy(inputs.logits, inputs.labels),
    SOFT: lambda inputs: F.cross_entropy(inputs.logits, inputs.soft),
    f"{SOFT}, made first": lambda inputs: F.cross_entropy(inputs.logits, _made_soft(inputs)),
    PAIRS: lambda inputs: cutmix_cuda.cross_entropy(inputs.logits, inputs.pairs),
    f"{PAIRS}, made first": lambda inputs: cutmix_cuda.cross_entropy(inputs.logits, _made_pairs(inputs)),
    f"{PAIRS}, smoothed": lambda inputs: cutmix_cuda.cross_entropy(inputs.logits, inputs.pairs, label_smoothing=0.1),
}


def with_gradient(loss: Callable[[Inputs], Tensor]) -> Callable[[Inputs], tuple[Tensor, Tensor]]:
    def call(inputs: Inputs) -> tuple[Tensor, Tensor]:
        value = loss(inputs)
        (gradient,) = torch.autograd.grad(value, inputs.logits)
        return value.detach(), gradient

    return call


def check_losses(inputs: Inputs) -> None:
    """Raises AssertionError unless pairs give the loss and the gradient of soft targets."""
    soft, pairs = (with_gradient(LOSSES[name])(inputs) for name in (SOFT, PAIRS))
    for ours, theirs in zip(pairs, soft, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def loss_times(
    every_size: tuple[Sizes, ...], device: torch.device, effort: Effort, stopwatches: Stopwatches
) -> list[dict]:
    """For each size the timings by loss, of its value and gradient together, all in turn on one batch."""
    cells = []
    for sizes in every_size:
        inputs = random_inputs(sizes, device)
        check_losses(inputs)
        watches = stopwatches.make({name: with_gradient(loss) for name, loss in LOSSES.items()}, [inputs])
        by = {name: timing.as_dict() for name, timing in time_in_turn(watches, effort).items()}
        cells.append({**sizes._asdict(), "by": by})
    return cells
