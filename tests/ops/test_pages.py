"""Large outputs in new memory are asked to lie in huge pages, where the system has them."""

from __future__ import annotations

import math
import mmap
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import Cutout, cutmix, normalize_images, paint

MAPPINGS = Path("/proc/self/smaps")
SHAPE = (12, 1, 1024, 1024)

if cutmix_cuda._backends.status()["cpu"] != "available":
    pytest.skip("nothing was compiled", allow_module_level=True)
if not Path("/sys/kernel/mm/transparent_hugepage").exists() or "VmFlags" not in MAPPINGS.read_text():
    pytest.skip("a system without huge pages, or that does not say where they are", allow_module_level=True)


def new_memory(dtype: torch.dtype) -> Tensor:
    """Of a mapping of its own, whose pages are not there yet."""
    memory = mmap.mmap(-1, math.prod(SHAPE) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=dtype).view(SHAPE)


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


def mix_into(out: Tensor, images: Tensor) -> None:
    cutmix(images, out=out, backend="cpu")


def paint_into(out: Tensor, images: Tensor) -> None:
    paint(images, None, Cutout(holes=2).sample_plan(len(images), *images.shape[2:]), out=out, backend="cpu")


def normalize_into(out: Tensor, images: Tensor) -> None:
    normalize_images(images, 0.5, 0.25, dtype=torch.float16, out=out, backend="cpu")


@pytest.mark.parametrize("write", [mix_into, paint_into, normalize_into])
def test_large_outputs(write):
    images = torch.zeros(SHAPE, dtype=torch.uint8)
    dtype = torch.float16 if write is normalize_into else torch.uint8
    out = new_memory(dtype)
    assert not asks_for_huge_pages(out)
    write(out, images)
    assert asks_for_huge_pages(out)
    there_already = new_memory(dtype).fill_(1)
    write(there_already, images)
    assert not asks_for_huge_pages(there_already)
