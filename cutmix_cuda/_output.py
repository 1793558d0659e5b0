"""The memory that a transform with ``reuse_output=True`` writes to at each call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ._tensors import of_class, plain
from ._validation import check_images, has_memory, overlap


class ReusedOutput:
    """Hands out what the last call wrote to, where a batch is like the last one. A copy of a transform has its own."""

    def __init__(self) -> None:
        self._made_for: tuple[object, ...] = ()
        self._memory: Tensor | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return ReusedOutput, ()

    def memory_for(self, images: Tensor, *settings: object) -> Tensor | None:
        """Where to write what becomes of images by some settings; None for new memory, which is to be kept."""
        if get_worker_info() is not None:
            raise RuntimeError(
                "reuse_output must be False in a DataLoader worker: the next batch would overwrite one that the main "
                "process has not read yet"
            )
        check_images(images)
        memory = self._memory
        if memory is None or not has_memory(images) or self._made_for != self._key(images, settings):
            return None
        return None if overlap(memory, plain(images)) else memory

    def keep(self, output: Tensor, images: Tensor, *settings: object) -> Tensor:
        """Keeps the memory of an output for batches like these images. The output, as a tensor of the images' class."""
        if has_memory(images):
            self._made_for = self._key(images, settings)
            self._memory = plain(output)
        return of_class(plain(output).detach(), images)  # of which the caller may change what it likes

    def _key(self, images: Tensor, settings: tuple[object, ...]) -> tuple[object, ...]:
        # What is made in inference mode is of no use for autograd outside of it.
        made_in = torch.is_inference_mode_enabled()
        return images.shape, images.stride(), images.dtype, images.device, made_in, settings


# As of _seed._recomputable: a graph breaks here, or else says why it cannot.
_methods: tuple[Any, ...] = (ReusedOutput.memory_for, ReusedOutput.keep)
for _method in _methods:
    _method._torchdynamo_disable = True
    _method._torchdynamo_disable_msg = "reuse_output=True does not trace; leave it False, or give out"


def check_reuse(reuse_output: bool, inplace: bool = False) -> ReusedOutput | None:
    """The memory of a transform, if it is to keep any."""
    if reuse_output and inplace:
        raise ValueError("reuse_output must be False with inplace=True, which writes to the images and makes no output")
    return ReusedOutput() if reuse_output else None
