"""Where the 64 random bits of a call come from."""

from __future__ import annotations

import numbers

import torch
from torch import Tensor

from ._ops import LIBRARIES


def _draw() -> Tensor:
    return torch.empty(1, dtype=torch.int64).random_()


# Opaque to torch.compile, whose own random numbers differ from eager mode's: the same torch.manual_seed gives the same
# boxes in both. The tag keeps two draws in one graph apart.
LIBRARIES["cutmix_cuda"].define("draw_seed() -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
LIBRARIES["cutmix_cuda"].impl("draw_seed", _draw, "CompositeExplicitAutograd")
torch.library.register_fake("cutmix_cuda::draw_seed", lambda: torch.empty(1, dtype=torch.int64))


def check_generator(generator: torch.Generator | None) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")


def seed_tensor(seed: int | Tensor | None, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """The seed as one int64, on the CPU or on the device of the images.

    Given, it is used as it is. Otherwise it is drawn, on the CPU, from the generator or torch's default one, so that
    ``torch.manual_seed`` gives the same boxes whatever the device; while a CUDA graph is being captured, on the device,
    so that each replay draws anew.
    """
    if seed is None:
        if generator is not None:
            check_generator(generator)
            return torch.empty(1, dtype=torch.int64, device=generator.device).random_(generator=generator)
        if torch.compiler.is_compiling():
            return torch.ops.cutmix_cuda.draw_seed()
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return torch.empty(1, dtype=torch.int64, device=device).random_()
        return torch.empty(1, dtype=torch.int64).random_()
    if generator is not None:
        raise ValueError("generator must be None where a seed is given: the seed alone decides")
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.numel() != 1:
            raise ValueError(f"seed must be one int64, got {seed.dtype} of shape {tuple(seed.shape)}")
        if seed.device not in (device, torch.device("cpu")):
            raise ValueError(f"seed must be on the CPU or on the device of the images, {device}, got {seed.device}")
        return seed
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed must be an int, a tensor of one int64, or None, got {seed!r}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be in -2**63..2**64-1, got {seed}")
    value = int(seed)
    return torch.tensor([value - 2**64 if value >= 2**63 else value])
