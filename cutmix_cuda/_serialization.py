"""Makes records of tensors known to torch: to torch.load, to torch.export, and to whatever maps over nested tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree


def _allow(cls: type) -> None:
    """Adds a class to those that torch.load makes, in the place of its namesake of an earlier import."""
    allowed = torch.serialization.get_safe_globals()
    others = [
        each
        for each in allowed
        if (getattr(each, "__module__", None), getattr(each, "__qualname__", None))
        != (cls.__module__, cls.__qualname__)
    ]
    if len(others) < len(allowed):
        torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*others, cls])


def register(cls: type, fields: Sequence[str], make: Callable[..., Any] | None = None) -> None:
    """Lets the default torch.load read a record that torch.save wrote, and functions that are exported or transformed
    by torch.func take and return it.

    Args:
        cls: a dataclass or a NamedTuple, importable under its name.
        fields: its parts, in the order of its constructor's arguments.
        make: makes a record of its parts unchecked, because tracers put placeholders in their places; by
            default cls itself.
    """
    _allow(cls)
    make = cls if make is None else make

    def flatten(record: Any) -> tuple[list[Any], None]:
        return [getattr(record, field) for field in fields], None

    def flatten_with_keys(record: Any) -> tuple[list[Any], None]:
        return [(_pytree.GetAttrKey(field), getattr(record, field)) for field in fields], None

    # What torch.export.register_dataclass comes to, which makes records by their checking constructor.
    # _pytree.register_pytree_node would tell optree as well, which knows named tuples already, and warns.
    _pytree._private_register_pytree_node(
        cls,
        flatten,
        lambda parts, _: make(*parts),
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=flatten_with_keys,
    )
