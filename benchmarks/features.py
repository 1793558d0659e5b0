"""What mixing features costs, with its gradient: ours, plain PyTorch, and the same through torch.compile.

python benchmarks features            on the GPU if there is one, else on the CPU
python benchmarks features --quick    on tiny maps; the numbers mean nothing

Plain PyTorch is what a manifold mixup is written as, with a box for each sample. A copy of the features, once forward
and once for the gradient, is the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import CutMix, MixPlan, MixUp

from .command_line import make_parser
from .timing import Effort, Stopwatches, time_in_turn

OURS, PLAIN, COMPILED, COPY = "cutmix_cuda", "PyTorch", "PyTorch, compiled", "copy"


class Maps(NamedTuple):
    """Feature maps: those of a ResNet-50's first and last stage."""

    batch: int
    channels: int
    size: int
    dtype: torch.dtype


ON_A_GPU = (Maps(256, 256, 56, torch.bfloat16), Maps(256, 2048, 7, torch.bfloat16))
ON_A_CPU = (Maps(16, 256, 56, torch.float32), Maps(16, 2048, 7, torch.float32))
QUICK = (Maps(4, 3, 8, torch.float32),)


class Inputs(NamedTuple):
    """What a call gets."""

    features: Tensor  # (B, C, H, W), to be differentiated
    gradients: Tensor
    plan: MixPlan


def inputs_of(maps: Maps, kind: str, device: torch.device) -> Inputs:
    draw = torch.Generator(device).manual_seed(0)
    shape = maps.batch, maps.channels, maps.size, maps.size
    features, gradients = (torch.randn(shape, generator=draw, device=device).to(maps.dtype) for _ in range(2))
    mix = {"cutmix": CutMix(), "mixup": MixUp()}[kind]
    plan = mix.sample_plan(maps.batch, maps.size, maps.size, seed=0, device=device)
    return Inputs(features.requires_grad_(), gradients, plan)


def ours(features: Tensor, plan: MixPlan) -> Tensor:
    return cutmix_cuda.mix_features(features, plan)


def plain_cutmix(features: Tensor, plan: MixPlan) -> Tensor:
    y = torch.arange(plan.height, device=features.device)
    x = torch.arange(plan.width, device=features.device)
    y0, x0, y1, x1 = plan.boxes.t()[:, :, None]
    inside = ((y >= y0) & (y < y1))[:, None, :, None] & ((x >= x0) & (x < x1))[:, None, None, :]
    return torch.where(inside, features[plan.partner.long()], features)


def plain_mixup(features: Tensor, plan: MixPlan) -> Tensor:
    lam = plan.lam[:, None, None, None].to(features.dtype)
    return lam * features + (1 - lam) * features[plan.partner.long()]


PLAIN_OF = {"cutmix": plain_cutmix, "mixup": plain_mixup}

Mixing = Callable[[Tensor, MixPlan], Tensor]


def with_gradient(mixing: Mixing) -> Callable[[Inputs], tuple[Tensor, Tensor]]:
    def call(inputs: Inputs) -> tuple[Tensor, Tensor]:
        mixed = mixing(inputs.features, inputs.plan)
        (gradient,) = torch.autograd.grad(mixed, inputs.features, inputs.gradients)
        return mixed.detach(), gradient

    return call


def copied(inputs: Inputs) -> tuple[Tensor, Tensor]:
    return inputs.features.detach().clone(), inputs.gradients.clone()


def check(inputs: Inputs, kind: str) -> None:
    """Raises AssertionError unless ours and plain PyTorch give the same features and gradients, to rounding."""
    rtol, atol = (1.3e-6, 1e-5) if inputs.features.dtype == torch.float32 else (0.02, 0.05)
    for mine, theirs in zip(with_gradient(ours)(inputs), with_gradient(PLAIN_OF[kind])(inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol)


def times(every: Sequence[Maps], device: torch.device, effort: Effort, compiles: bool) -> list[dict]:
    """For each of the maps and kinds the timings of mixing and gradient together, all in turn on one batch."""
    cells = []
    for maps in every:
        for kind, plain in PLAIN_OF.items():
            inputs = inputs_of(maps, kind, device)
            check(inputs, kind)
            mixing: dict[str, Mixing] = {OURS: ours, PLAIN: plain}
            if compiles:
                mixing[COMPILED] = torch.compile(plain)
            calls = {COPY: copied} | {name: with_gradient(function) for name, function in mixing.items()}
            watches = Stopwatches(device).make(calls, [inputs])
            by = {name: timing.as_dict() for name, timing in time_in_turn(watches, effort).items()}
            cells.append({"maps": str(tuple(inputs.features.shape)), "dtype": str(maps.dtype), "kind": kind, "by": by})
    return cells


def table(cells: list[dict]) -> str:
    """Milliseconds, medians with their quartiles."""
    names = list(cells[0]["by"])
    lines = ["| maps | dtype | kind | " + " | ".join(names) + " |", "|" + "---|" * (3 + len(names))]
    for cell in cells:
        spread = (
            f"{1e3 * each['median_s']:.3g} ms ({1e3 * each['q1_s']:.3g} .. {1e3 * each['q3_s']:.3g})"
            for each in cell["by"].values()
        )
        dtype = cell["dtype"].removeprefix("torch.")
        lines.append(f"| {cell['maps']} | {dtype} | {cell['kind']} | " + " | ".join(spread) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny maps, nothing compiled")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row of the table (%(default)s)")
    args = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    every = QUICK if args.quick else ON_A_GPU if device.type == "cuda" else ON_A_CPU
    effort = Effort(0.1, 2, 5) if args.quick else Effort(args.seconds, 5, 100, warm_up=0.3)
    print(table(times(every, device, effort, compiles=not args.quick)))
