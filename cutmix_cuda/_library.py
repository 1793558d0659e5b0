"""A library of ops that may be made again: a second import in one process finds the ops of the first."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch


class Library:
    """Defines and implements the ops of a namespace.

    Test runners and notebooks remove modules and import them again, where torch.library.Library refuses to define an op
    twice. Here an op that is defined already stays, and gets the new implementation.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._new: set[str] = set()  # ops that no import before this one defined
        self._library = torch.library.Library(namespace, "FRAGMENT")
        torch.library._keep_alive.append(self._library)  # because an op goes with the library that defined it

    def define(self, name: str, schema: str, fake: Callable[..., object], *tags: torch.Tag) -> None:
        """Defines an op; fake makes its outputs where there are no values."""
        qualified = f"{self._namespace}::{name}"
        defined = getattr(getattr(torch.ops, self._namespace), name, None)
        if defined is None:
            self._library.define(name + schema, tags=tags)
            self._new.add(name)
        elif defined.default._schema != torch._C.parse_schema(qualified + schema):
            raise ImportError(f"{qualified} had another schema at the first import in this process; start Python again")
        torch.library.register_fake(qualified, fake, lib=self._library, allow_override=True)

    def impl(self, name: str, function: Callable[..., object], key: str) -> None:
        """Implements an op for a dispatch key."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")
            self._library.impl(name, function, key, allow_override=True)

    def autograd(self, name: str, backward: Callable[..., object], setup_context: Callable[..., object]) -> None:
        """Gives an op its autograd formula, unless the first import did: torch takes no second one."""
        if name in self._new:
            qualified = f"{self._namespace}::{name}"
            torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=self._library)
