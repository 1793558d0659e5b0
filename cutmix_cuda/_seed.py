"""Where the 64 random bits of a call come from."""

from __future__ import annotations

import hashlib
import numbers
import struct

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from ._ops import LIBRARIES

_CPU = torch.device("cpu")


def _check_not_capturing() -> None:
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "a seed drawn on the host would be the same at every replay of the CUDA graph that is being captured; "
            "leave seed and generator None, which draws on the device, and capture in eager mode or give a seed "
            "tensor on the device of the images"
        )


def _draw() -> Tensor:
    _check_not_capturing()
    return torch.empty(1, dtype=torch.int64, device=_CPU).random_()


def _rank(otherwise: int) -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else otherwise


def _next(state: Tensor) -> Tensor:
    _check_not_capturing()
    values = state.numpy()
    seed, count, rank = values.tolist()
    values[1] = count + 1
    worker = get_worker_info()
    worker_id, worker_seed = (-1, 0) if worker is None else (worker.id, worker.seed)
    fields = struct.pack("<4qQ", seed, count, _rank(rank), worker_id, worker_seed)
    (drawn,) = struct.unpack("<q", hashlib.blake2b(fields, digest_size=8).digest())
    return torch.empty(1, dtype=torch.int64, device=_CPU).fill_(drawn)  # half the time of torch.tensor([drawn])


# Opaque to torch.compile, whose own random numbers differ from eager mode's: the same torch.manual_seed gives the same
# boxes in both.
LIBRARIES["cutmix_cuda"].impl("draw_seed", _draw, "CompositeExplicitAutograd")

# The count is a tensor, for a number would be a constant of the graph, which each call would have to compile anew.
LIBRARIES["cutmix_cuda"].impl("next_seed", _next, "CPU")


class CountedSeed(nn.Module):
    """A new seed for each call, decided by one seed and the number of calls before.

    A drawn seed is the BLAKE2b hash of 8 bytes of five integers of 64 bits, little-endian: the seed, the count, the
    rank in torch.distributed (0 without), and the id and seed of the ``DataLoader`` worker (-1 and 0 outside of one).
    So ranks, workers and epochs of workers draw apart, and so do the steps of neighbouring seeds.

    The seed and the count are the module's state, wherever it stands in a ``state_dict``. A copy counts on by itself.
    """

    def __init__(self, seed: Tensor) -> None:
        super().__init__()
        self._state = self._state_of(int(seed), 0, 0)

    @staticmethod
    def _state_of(seed: int, count: int, rank: int) -> Tensor:
        return torch.tensor([seed, count, rank], dtype=torch.int64, device=_CPU)

    def next(self) -> Tensor:
        """One int64 on the CPU. RuntimeError while a CUDA graph is being captured, whose replays count nothing."""
        if torch.compiler.is_compiling():
            return torch.ops.cutmix_cuda.next_seed(self._state)
        return _next(self._state)

    def get_extra_state(self) -> Tensor:
        return self._state[:2].clone()

    def set_extra_state(self, state: Tensor) -> None:
        if not isinstance(state, Tensor) or state.dtype != torch.int64 or tuple(state.shape) != (2,):
            raise ValueError(f"the state of a counted seed must be int64 of shape (2,), seed and count, got {state!r}")
        self._state.numpy()[:2] = state.tolist()

    # Numbers, for a tensor sent to another process would be memory shared with it. A worker that is not forked knows no
    # torch.distributed: its copy goes by the rank of the process that it was sent from.

    def __getstate__(self) -> dict[str, object]:
        seed, count, rank = self._state.tolist()
        return {**self.__dict__, "_state": (seed, count, _rank(rank))}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__({**state, "_state": self._state_of(*state["_state"])})

    def extra_repr(self) -> str:
        seed, count, _ = self._state.tolist()
        return f"seed={seed}, count={count}"


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
            if device.type == "cuda" and generator.device.type == "cpu":
                _check_not_capturing()
            return torch.empty(1, dtype=torch.int64, device=generator.device).random_(generator=generator)
        if torch.compiler.is_compiling():
            return torch.ops.cutmix_cuda.draw_seed()
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return torch.empty(1, dtype=torch.int64, device=device).random_()
        return torch.empty(1, dtype=torch.int64, device=_CPU).random_()
    if generator is not None:
        raise ValueError("generator must be None where a seed is given: the seed alone decides")
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.numel() != 1:
            raise ValueError(f"seed must be one int64, got {seed.dtype} of shape {tuple(seed.shape)}")
        if seed.device not in (device, _CPU):
            raise ValueError(f"seed must be on the CPU or on the device of the images, {device}, got {seed.device}")
        return seed
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed must be an int, a tensor of one int64, or None, got {seed!r}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be in -2**63..2**64-1, got {seed}")
    value = int(seed)
    return torch.tensor([value - 2**64 if value >= 2**63 else value], device=_CPU)
