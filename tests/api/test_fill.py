"""What Cutout fills with is the very value that was given, of the images' dtype."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

import cutmix_cuda
from cutmix_cuda._literals import BackendName

from ..helpers import every_backend

EXACT = [
    (torch.uint64, 2**64 - 1),
    (torch.uint64, 2**53 + 1),
    (torch.int64, 2**53 + 1),
    (torch.int64, -(2**63)),
    (torch.int64, 2.0**53),
    (torch.int64, np.int64(2**53 + 1)),
    (torch.uint32, 2**32 - 1),
    (torch.int8, -128),
    (torch.uint8, np.uint8(255)),
    (torch.uint8, Fraction(6, 2)),
    (torch.bool, True),
    (torch.bool, 1),
    (torch.uint8, True),
]


def filled(dtype: torch.dtype, fill, backend: BackendName | None = None, device: str = "cpu") -> bytes:
    """The bytes of an element in the box of a sample that is cut out whole."""
    images = torch.zeros(1, 3, 5, dtype=torch.uint8).to(dtype).to(device)
    box = torch.tensor([[0, 0, 3, 5]], device=device)
    plan = cutmix_cuda.MixPlan.from_boxes(box[:, 0], box, 3, 5, kind=torch.tensor([3], device=device))
    mixed = cutmix_cuda.mix_images(images, plan, fill=fill, backend=backend).cpu().flatten()
    assert (mixed.view(torch.uint8).view(15, -1) == mixed[:1].view(torch.uint8)).all()
    return bytes(mixed[:1].view(torch.uint8).tolist())


@every_backend
@pytest.mark.parametrize(("dtype", "fill"), EXACT, ids=str)
def test_integers_are_exact(backend, dtype, fill):
    given = filled(dtype, fill, backend.name, backend.device)
    assert given == int(fill).to_bytes(dtype.itemsize, "little", signed=int(fill) < 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_floats_reach_from_end_to_end(dtype):
    """The greatest number, infinity if it is asked for, and integers rounded."""
    limits = torch.finfo(dtype)
    for fill in (limits.max, limits.min, float("inf"), True, 1001, Fraction(1, 3)):
        expected = torch.tensor([float(fill)], dtype=torch.float64).to(dtype)
        assert filled(dtype, fill) == bytes(expected.view(torch.uint8).tolist())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
@pytest.mark.parametrize("dynamic", [False, True])
def test_integers_are_exact_in_a_graph(dynamic):
    torch._dynamo.reset()

    def mix(images, fill):
        return cutmix_cuda.mix(images, mixup_alpha=0, cutout=1.0, fill=fill, seed=1)[0]

    images = torch.zeros(4, 8, 9, dtype=torch.int64)
    compiled = torch.compile(mix, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for fill in (2**53 + 1, 2**53 + 3, -7):
        assert set(compiled(images, fill).unique().tolist()) == {0, fill}
