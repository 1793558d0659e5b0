"""Small tensors that follow from numbers: built once for each device, and constants in compiled graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_built: dict[tuple[object, ...], Tensor] = {}


def built_once(key: tuple[object, ...], build: Callable[..., Tensor], *arguments: object) -> Tensor:
    """The tensor of a key, built of the arguments when it is first asked for."""
    # Where a mode (FakeTensorMode, torch.export) or a transform makes tensors of its own, they are for it alone.
    traced = torch._C._len_torch_dispatch_stack() > 0
    tensor = None if traced else _built.get(key)
    if tensor is None:
        with torch.inference_mode(False):  # a graph may save it for its backward
            tensor = build(*arguments)
        if not traced and not torch._is_functional_tensor(tensor):
            _built[key] = tensor
    return tensor


class OfGraphs:
    """The constants of compiled graphs, each under a name, because torch takes two constants of one function for one.

    A function that is marked as a constant (``_dynamo_marked_constant``) gives the name, and the graph reads it here.
    The mark is that of torch.compiler.assume_constant_result, whose import of torch._dynamo would double that of torch.
    """


def name_in_graphs(tensor: Tensor) -> str:
    """The name of a tensor that was built once, in OfGraphs."""
    name = f"constant_{id(tensor)}"
    setattr(OfGraphs, name, tensor)
    tensor._dynamo_static_input_type = "unguarded"  # type: ignore[attr-defined]  # torch._dynamo.mark_static_address
    return name
