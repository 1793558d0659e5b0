"""Settings and fixtures of all tests."""

from __future__ import annotations

import os

import hypothesis
import pytest
import torch

# On CI the same examples at every run; elsewhere new ones.
hypothesis.settings.register_profile("cutmix", deadline=None, print_blob=True, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("cutmix")


@pytest.fixture
def poisoned_memory():
    """torch fills memory that was not initialised with NaN, or the greatest integer, instead of whatever was there."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(before)
