"""Where the tests of this folder run: on a GPU, with every backend that runs there."""

from __future__ import annotations

import pytest
import torch

import cutmix_cuda
from cutmix_cuda import MixPlan, _backends, _validation

from .on_device import BACKENDS


@pytest.fixture(scope="session")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(params=BACKENDS)
def backend(request, device) -> str:
    """Each backend of the device by name."""
    name = request.param
    if name not in cutmix_cuda.available_backends():
        pytest.skip(f"no backend {name!r}: {_backends.status()[name]}")
    return name


@pytest.fixture
def nobody_looks(monkeypatch):
    """The values of labels and plans are not looked at: on the CPU, for the reference, as little as on a GPU."""
    monkeypatch.setattr(_validation, "check_range", lambda name, labels, num_classes: None)
    monkeypatch.setattr(MixPlan, "check", lambda plan, in_place=False: None)
