"""Where the 64 random bits of a call come from."""

from __future__ import annotations

import hashlib
import itertools
import numbers
import os
import struct
import threading
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.data import get_worker_info

from . import _validation
from ._ops import LIBRARIES
from ._tensors import is_example, plain

_CPU = torch.device("cpu")


def _check_not_capturing() -> None:
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "a seed drawn on the host would be the same at every replay of the CUDA graph that is being captured; "
            "leave seed and generator None, which draws on the device, and capture in eager mode or give a seed "
            "tensor on the device of the images"
        )


def _draw(draw: int = 0, *, device: torch.device = _CPU) -> Tensor:
    _check_not_capturing()
    return torch.empty(1, dtype=torch.int64, device=device).random_()


_draws_of_graphs = itertools.count()


def _number_of_draw() -> int:
    return next(_draws_of_graphs)


# Called while a graph is traced, and a constant in it: a marker of torch.compiler.assume_constant_result.
_number_of_draw._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def _may_be_recomputed() -> bool:
    """Whether torch.utils.checkpoint may call again what is running.

    With use_reentrant=False it looks after saved tensors by hooks. With use_reentrant=True it is the forward of a
    torch.autograd.Function, in which forward-mode AD is off.
    """
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return hooks is not None or not torch._C._is_fwd_grad_enabled()


_MOST_REMEMBERED = 4096
_drawn: dict[int, Tensor] = {}


def _recomputable(draw: Callable[..., Tensor], *arguments: object) -> Tensor:
    """What draw gives of arguments; again that, without another draw, where activation checkpointing recomputes it.

    Checkpointing puts torch's default generator back to where it was, and nothing else. So in a block that may be
    recomputed a draw has a name, a number of that generator, by which the recomputation finds it again.
    """
    recomputes = _in_backward()
    if not recomputes and not _may_be_recomputed():
        return draw(*arguments)
    name = int(torch.empty(1, dtype=torch.int64, device=_CPU).random_())
    if not recomputes:
        while len(_drawn) >= _MOST_REMEMBERED:
            _drawn.pop(next(iter(_drawn)), None)
        _drawn[name] = draw(*arguments)
    elif name not in _drawn:
        raise RuntimeError(
            "a counted seed or a generator that draws in backward has to have drawn in forward as well, in a block "
            "under torch.utils.checkpoint that preserves the random state (preserve_rng_state=True, the default)"
        )
    return _drawn[name]


# Markers of torch.compiler.disable, which would import torch._dynamo: a graph breaks here, or else says why it cannot.
_recomputable._torchdynamo_disable = True  # type: ignore[attr-defined]
_recomputable._torchdynamo_disable_msg = "generator= does not trace; leave it None, or give a seed"  # type: ignore


def _rank(otherwise: int) -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else otherwise


_counting = threading.Lock()


def _renew_lock() -> None:
    global _counting
    _counting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # another thread may hold it in that moment


def _next(values: np.ndarray) -> Tensor:
    _check_not_capturing()
    with _counting:
        seed, count, rank = values.tolist()
        values[1] = count + 1
    worker = get_worker_info()
    worker_id, worker_seed = (-1, 0) if worker is None else (worker.id, worker.seed)
    fields = struct.pack("<4qQ", seed, count, _rank(rank), worker_id, worker_seed)
    (drawn,) = struct.unpack("<q", hashlib.blake2b(fields, digest_size=8).digest())
    return torch.empty(1, dtype=torch.int64, device=_CPU).fill_(drawn)  # half the time of torch.tensor([drawn])


def _next_in_graph(state: Tensor) -> Tensor:
    if _in_backward():
        raise RuntimeError(
            "a counted seed cannot be recomputed in a compiled graph; mix outside of the block under "
            "torch.utils.checkpoint, leave seed None, or leave the block uncompiled"
        )
    return _next(state.numpy())


# Opaque to torch.compile, whose own random numbers differ from eager mode's: the same torch.manual_seed gives the same
# boxes in both.
LIBRARIES["cutmix_cuda"].impl("draw_seed", _draw, "CompositeExplicitAutograd")

# The count is a tensor, because a number would be a constant of the graph, which each call would have to compile anew.
LIBRARIES["cutmix_cuda"].impl("next_seed", _next_in_graph, "CPU")


class CountedSeed(nn.Module):
    """A new seed for each call, decided by one seed and the number of calls before.

    A drawn seed is the BLAKE2b hash of 8 bytes of five integers of 64 bits, little-endian: the seed, the count, the
    rank in torch.distributed (0 without), and the id and seed of the ``DataLoader`` worker (-1 and 0 outside of one).
    So ranks, workers and epochs of workers draw apart, and so do the steps of neighbouring seeds.

    The seed and the count are the module's state, wherever it stands in a ``state_dict``. A copy counts on by itself.
    What activation checkpointing recomputes sees the same seed again and does not count.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._set_state(seed, 0, 0)

    def _set_state(self, seed: int, count: int, rank: int) -> None:
        with torch.inference_mode(False), _disable_current_modes():  # it will be written to outside of them
            self._state = torch.tensor([seed, count, rank], dtype=torch.int64, device=_CPU)
            self._values = self._state.numpy()  # the same memory, as no mode of a call sees it

    def next(self) -> Tensor:
        """One int64 on the CPU.

        RuntimeError while a CUDA graph is being captured, whose replays count nothing, and where a compiled graph would
        recompute it.
        """
        if torch.compiler.is_compiling():
            return torch.ops.cutmix_cuda.next_seed(self._state)
        return _recomputable(_next, self._values)

    def get_extra_state(self) -> Tensor:
        return self._state[:2].clone()

    def set_extra_state(self, state: Tensor) -> None:
        if not isinstance(state, Tensor) or state.dtype != torch.int64 or tuple(state.shape) != (2,):
            raise ValueError(f"the state of a counted seed must be int64 of shape (2,), seed and count, got {state!r}")
        self._values[:2] = state.tolist()

    # Numbers, for a tensor sent to another process would be memory shared with it. A worker that is not forked knows no
    # torch.distributed: its copy goes by the rank of the process that it was sent from.

    def __getstate__(self) -> dict[str, object]:
        seed, count, rank = self._values.tolist()
        others = {name: value for name, value in self.__dict__.items() if name != "_values"}
        return {**others, "_state": (seed, count, _rank(rank))}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._set_state(*state["_state"])

    def extra_repr(self) -> str:
        seed, count, _ = self._values.tolist()
        return f"seed={seed}, count={count}"


def check_generator(generator: torch.Generator | None) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")


def _check_tensor(seed: Tensor, device: torch.device) -> None:
    _validation.check_dense("seed", seed)
    if seed.dtype != torch.int64 or seed.numel() != 1:
        raise ValueError(f"seed must be one int64, got {seed.dtype} of shape {tuple(seed.shape)}")
    if seed.device not in (device, _CPU):
        raise ValueError(f"seed must be on the CPU or on the device of the images, {device}, got {seed.device}")


def _signed(seed: int) -> int:
    """64 bits as a number of int64."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed must be an int, a tensor of one int64, or None, got {seed!r}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be in -2**63..2**64-1, got {seed}")
    return int(seed) - 2**64 if seed >= 2**63 else int(seed)


def _check_no_generator(generator: torch.Generator | None) -> None:
    if generator is not None:
        raise ValueError("generator must be None where a seed is given: nothing but the seed decides")


def counted_seed(seed: int | Tensor | None, generator: torch.Generator | None) -> CountedSeed | None:
    """What draws the seeds of a transform; None where they are drawn from a generator."""
    check_generator(generator)
    if seed is None:
        return None
    _check_no_generator(generator)
    if not isinstance(seed, Tensor):
        return CountedSeed(_signed(seed))
    _check_tensor(seed, _CPU)
    with _disable_current_modes():  # FakeTensorMode would hide the value
        return CountedSeed(int(seed))


def _random_seed(device: torch.device, generator: torch.Generator | None = None, like: Tensor | None = None) -> Tensor:
    if like is not None and is_example(like):  # torch.vmap(randomness="different") draws one for each of them
        return like.new_empty(1, dtype=torch.int64, device=device).random_(generator=generator)
    return torch.empty(1, dtype=torch.int64, device=device).random_(generator=generator)


def _is_capturing(device: torch.device) -> bool:
    return device != _CPU and device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def seed_tensor(
    seed: int | Tensor | None, generator: torch.Generator | None, device: torch.device, like: Tensor | None = None
) -> Tensor:
    """The seed as one int64, on the CPU or on the device of the images, which like may be.

    Given, it is used as it is. Otherwise it is drawn, on the CPU, from the generator or torch's default one, so that
    ``torch.manual_seed`` gives the same boxes whatever the device; while a CUDA graph is being captured, on the device,
    so that each replay draws anew.
    """
    if seed is None:
        if generator is not None:
            check_generator(generator)
            if device.type == "cuda" and generator.device.type == "cpu":
                _check_not_capturing()
            return _recomputable(_random_seed, generator.device, generator, like)
        if torch.compiler.is_compiling():
            return torch.ops.cutmix_cuda.draw_seed(_number_of_draw(), device=_CPU)
        return _random_seed(device if _is_capturing(device) else _CPU, like=like)
    _check_no_generator(generator)
    if isinstance(seed, Tensor):
        _check_tensor(seed, device)
        return plain(seed)
    return torch.tensor([_signed(seed)], device=_CPU)


def is_drawn_by_op(seed: int | Tensor | None, generator: torch.Generator | None, device: torch.device) -> bool:
    """Whether an op that runs at once and is given no seed draws what :func:`seed_tensor` would."""
    return seed is None and generator is None and not _is_capturing(device)


def seed_of_call(seed: Tensor | None, labels: Tensor | None, num_classes: int, check_labels: bool) -> Tensor:
    """The seed that a call of an op goes by, drawn if none was given, after a look at the labels if asked for."""
    if check_labels and labels is not None and not labels.is_floating_point():
        _validation.check_range("labels", labels, num_classes)
    return _random_seed(_CPU) if seed is None else seed
