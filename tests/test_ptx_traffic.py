"""What a launch on a training batch costs: memory that is moved, and instructions, counted by executing the kernels.

Traffic with DRAM is counted in sectors of 32 bytes, each once, as a cache large enough for a block's neighbours leaves
it; requests to the cache are counted sector by sector each time. Nothing here is a time.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .kernels import (
    SECTOR,
    VECTOR,
    Executed,
    box_edges,
    execute,
    image_sectors,
    needs_cuda,
    needs_triton,
    training_call,
    vectors_written,
)

DTYPES = (torch.uint8, torch.float16, torch.float32, torch.float64)
LAYOUTS = {"channels-first": False, "channels-last": True}
ARCHITECTURE = 90
INSTRUCTIONS_OUT_OF_PLACE, INSTRUCTIONS_IN_PLACE = 64, 96  # a warp, for each 16 bytes that a lane writes

CASES = [
    *(
        pytest.param("cuda", dtype, last, id=f"cuda-{str(dtype)[6:]}-{layout}", marks=needs_cuda)
        for dtype in DTYPES
        for layout, last in LAYOUTS.items()
    ),
    *(
        pytest.param("triton", dtype, False, id=f"triton-{str(dtype)[6:]}-channels-first", marks=needs_triton)
        for dtype in (torch.uint8, torch.float32)
    ),
]
every_case = pytest.mark.parametrize(("kind", "dtype", "channels_last"), CASES)


def requested_sectors(done: Executed, opcode: str) -> int:
    """Sectors of all requests of a launch."""
    return sum(count.sectors for count in done.report.matching(opcode))


def assert_small_traffic(done: Executed) -> None:
    """Plan, targets and labels: written once and whole, and read no more than their sectors."""
    buffers = done.report.buffers
    for name, tensor in (("plan", done.plan), ("targets", done.targets)):
        assert buffers[name].bytes_written == tensor.nbytes
        assert buffers[name].sectors_written * SECTOR <= 1.05 * tensor.nbytes
        assert buffers[name].sectors_read == 0
    assert buffers["labels"].sectors_read * SECTOR <= 1.05 * done.plan.shape[0] * 8
    assert buffers["seed"].sectors_read == 0, "a seed on the host comes by value"


@every_case
def test_out_of_place(kind, dtype, channels_last):
    call = training_call("cutmix", dtype, channels_last)
    done = execute(kind, call, ARCHITECTURE)
    images, out = done.report.buffers["images"], done.report.buffers["out"]
    edges, nbytes = box_edges(call, done.plan), call.images.nbytes
    assert edges > 0

    needed, _ = image_sectors(call, done.plan)
    assert not (needed & ~images.read).any()
    assert np.count_nonzero(images.read & ~needed) <= edges
    # Whoever owns a vector, it is loaded once; where an edge crosses it, from both.
    assert nbytes <= images.bytes_read <= nbytes + VECTOR * edges
    assert (out.bytes_written, out.sectors_written) == (nbytes, nbytes // SECTOR)
    assert out.sectors_read == 0 and images.sectors_written == 0
    assert_small_traffic(done)

    # Requests find whole sectors, and nobody asks twice.
    assert requested_sectors(done, "ld.global") <= 1.05 * nbytes / SECTOR + edges
    assert requested_sectors(done, "st.global") <= 1.01 * (nbytes + done.targets.nbytes + done.plan.nbytes) / SECTOR
    stores = done.report.matching("st.global.v4")
    lanes = sum(count.bytes for count in stores) / VECTOR / sum(count.requests for count in stores)
    assert lanes >= 24, "of 32 lanes that could store 16 bytes each"
    if kind == "cuda":
        spent = done.report.warp_instructions / vectors_written(call, done.report)
        assert spent <= INSTRUCTIONS_OUT_OF_PLACE, done.report.hottest()


@every_case
def test_in_place(kind, dtype, channels_last):
    call = training_call("cutmix_", dtype, channels_last)
    done = execute(kind, call, ARCHITECTURE)
    images, edges = done.report.buffers["images"], box_edges(call, done.plan)

    read, written = image_sectors(call, done.plan)
    assert 0 < np.count_nonzero(written) < len(written)
    assert np.array_equal(images.written, written)
    # Beside the pixels that are pasted, no more than the vectors on an edge, whose outside is kept.
    assert not (read & ~images.read).any()
    assert not (images.read & ~(read | written)).any()
    assert np.count_nonzero(images.read & ~read) <= edges
    assert_small_traffic(done)
    if kind == "cuda":
        spent = done.report.warp_instructions / vectors_written(call, done.report)
        assert spent <= INSTRUCTIONS_IN_PLACE, done.report.hottest()
