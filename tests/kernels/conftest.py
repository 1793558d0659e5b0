"""What the tests of the kernels and their maths share."""

from __future__ import annotations

from types import ModuleType

import pytest

from .. import bindings


@pytest.fixture(scope="session")
def cxx() -> ModuleType:
    """The shared C++ maths as functions on numpy arrays."""
    if not bindings.available:
        pytest.skip(bindings.NEEDS)
    return bindings.load()
