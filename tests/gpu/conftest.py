"""Where the tests of this folder run: on a GPU, with every backend that runs there.

``CUTMIX_CUDA_GPU_TESTS=cpu`` runs their bodies on CPU tensors instead, with the C++ ops and, under
``TRITON_INTERPRET=1``, with Triton's; tests that ask CUDA itself are skipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cutmix_cuda
from cutmix_cuda import MixPlan, _backends, _validation

from .on_device import BACKENDS, ON_CPU


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """On CPU tensors a test's cases are those with a choice that no case before had. That shows whether the bodies are
    right; the ops that they call have tests of their own there, with every combination."""
    if not ON_CPU:
        return
    seen = set()
    dropped = []
    for item in [each for each in items if each.path.parent == Path(__file__).parent and hasattr(each, "callspec")]:
        choices = {(item.path, item.originalname, name, repr(value)) for name, value in item.callspec.params.items()}
        if choices <= seen:
            items.remove(item)
            dropped.append(item)
        seen |= choices
    config.hook.pytest_deselected(items=dropped)


@pytest.fixture(scope="session")
def device() -> torch.device:
    if ON_CPU:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(params=BACKENDS)
def backend(request, device) -> str:
    """Each backend of the device by name."""
    name = request.param
    if name not in cutmix_cuda.available_backends():
        why = _backends.status()[name]
        pytest.skip(f"no backend {name!r}: {'it runs on no CPU tensors' if why == 'available' else why}")
    return name


@pytest.fixture
def nobody_looks(monkeypatch):
    """The values of labels and plans are not looked at: on the CPU, for the reference, as little as on a GPU."""
    monkeypatch.setattr(_validation, "check_range", lambda name, labels, num_classes: None)
    monkeypatch.setattr(MixPlan, "check", lambda plan, in_place=False: None)
