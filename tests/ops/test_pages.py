"""Large outputs in new memory are asked to lie in huge pages, where the system has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import CutMix, Cutout, normalize_images

MAPPINGS = Path("/proc/self/smaps")
# 40 MB, which glibc, whatever was freed before, takes new from the system.
SHAPE = (40, 1, 1024, 1024)

if cutmix_cuda._backends.status()["cpu"] != "available":
    pytest.skip("nothing was compiled", allow_module_level=True)
if not Path("/sys/kernel/mm/transparent_hugepage").exists() or "VmFlags" not in MAPPINGS.read_text():
    pytest.skip("a system without huge pages, or that does not say where they are", allow_module_level=True)


def asks_for_huge_pages(tensor: Tensor) -> bool:
    """Whether the mapping that holds the middle of a tensor has the flag of MADV_HUGEPAGE."""
    address = tensor.data_ptr() + tensor.nbytes // 2
    begin = end = 0
    for line in MAPPINGS.read_text().splitlines():
        if mapping := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            begin, end = (int(each, 16) for each in mapping.groups())
        elif line.startswith("VmFlags:") and begin <= address < end:
            return "hg" in line.split()
    raise AssertionError("no mapping holds the tensor")


def mixed(images: Tensor) -> Tensor:
    return CutMix(backend="cpu")(images)[0]


def painted(images: Tensor) -> Tensor:
    return Cutout(holes=2, backend="cpu")(images)[0]


def normalized(images: Tensor) -> Tensor:
    return normalize_images(images, 0.5, 0.25, dtype=torch.float32, backend="cpu")


@pytest.mark.parametrize("call", [mixed, painted, normalized])
def test_large_outputs(call):
    images = torch.zeros(SHAPE, dtype=torch.uint8)
    out = call(images)
    assert not asks_for_huge_pages(images)
    assert asks_for_huge_pages(out)
    assert out.data_ptr() != images.data_ptr()
