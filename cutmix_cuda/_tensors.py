"""Tensors of subclasses, such as fastai's and torchvision's: plain inside, and images come out as they came in.

An operation on tensors of two classes asks both what to do, and fails where neither knows the other.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")


# Whether a transform of torch.func put it in the place of another, as vmap an example in that of a batch.
is_example = torch._C._functorch.is_functorch_wrapped_tensor


def wraps_another(tensor: Tensor) -> bool:
    """Whether it has no memory of its own, but stands around another tensor, as FakeTensor and DTensor do."""
    return type(tensor) is not Tensor and type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def _is_subclass(value: object) -> bool:
    """Whether it is memory with a class of its own, whose ``__torch_function__`` has a say in what becomes of it."""
    if not isinstance(value, Tensor):
        return False
    # That of nn.Parameter says nothing.
    return type(value).__torch_function__ is not torch._C._disabled_torch_function_impl and not wraps_another(value)


def plain(value: _T) -> _T:
    """The same memory as a torch.Tensor; whatever is no tensor, as it is."""
    if type(value) is Tensor or not _is_subclass(value):
        return value
    return value.as_subclass(Tensor)  # type: ignore[attr-defined]


def of_class(tensor: Tensor, like: Tensor) -> Tensor:
    """The same memory as a tensor of the class of another."""
    return tensor if type(like) is Tensor or not _is_subclass(like) else tensor.as_subclass(type(like))
