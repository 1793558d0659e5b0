"""What a launch on a training batch costs: memory that is moved, and instructions, counted by executing the kernels.

Traffic with DRAM is counted in sectors of 32 bytes, each once, as a cache large enough for a block's neighbours leaves
it; requests to the cache are counted sector by sector each time. Nothing here is a time.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cutmix_cuda import reference
from cutmix_cuda._ops import Kind, Partner, Sampling

from ..ptx.machine import WARP
from .execution import (
    SECTOR,
    UNIFORM,
    VECTOR,
    Executed,
    bounds_of,
    box_edges,
    call_of,
    every_kind,
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
# Instructions of a warp, for each 16 bytes that a lane writes: of PTX, whose moves between registers, a sixth of all,
# are no machine code. While memory moves a vector in and one out, an H100 issues about 280; out of place mixup reads
# two, and has 420. launch_geometry.h says why so many of these are spent on sampling in CUDA. In Triton every thread
# draws the row of the plan for itself, and a masked load is four moves more.
INSTRUCTIONS_OUT_OF_PLACE = {"cuda": 84, "triton": 100}
INSTRUCTIONS_IN_PLACE = {"cuda": 205, "triton": 170}
INSTRUCTIONS_OF_CUTOUT_OUT_OF_PLACE = {"cuda": 84, "triton": 105}
INSTRUCTIONS_OF_CUTOUT_IN_PLACE = {"cuda": 205, "triton": 230}
# The same of mixup, which works on elements.
INSTRUCTIONS_OF_MIXUP = {
    "cuda": {torch.uint8: 335, torch.float16: 165, torch.bfloat16: 200, torch.float32: 122, torch.float64: 115},
    "triton": {torch.uint8: 315, torch.float16: 215, torch.bfloat16: 195, torch.float32: 120, torch.float64: 140},
}
INSTRUCTIONS_OF_A_DEVICE_SEED = 15

CASES = [
    *(
        pytest.param("cuda", dtype, last, id=f"cuda-{str(dtype)[6:]}-{layout}", marks=needs_cuda)
        for dtype in DTYPES
        for layout, last in LAYOUTS.items()
    ),
    *(
        pytest.param("triton", dtype, False, id=f"triton-{str(dtype)[6:]}-channels-first", marks=needs_triton)
        for dtype in (torch.uint8, torch.float16, torch.float32)
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


def batch_of(dtype: torch.dtype) -> int:
    """Samples in as many bytes as a batch of 64 has in uint8."""
    return 64 // dtype.itemsize


@every_case
def test_out_of_place(kind, dtype, channels_last):
    call = training_call("sample_and_apply", dtype, channels_last, batch=batch_of(dtype))
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
    spent = done.report.warp_instructions / vectors_written(call, done.report)
    assert spent <= INSTRUCTIONS_OUT_OF_PLACE[kind], done.report.hottest()


@every_case
def test_in_place(kind, dtype, channels_last):
    call = training_call("sample_and_apply_", dtype, channels_last, batch=batch_of(dtype))
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
    spent = done.report.warp_instructions / vectors_written(call, done.report)
    assert spent <= INSTRUCTIONS_IN_PLACE[kind], done.report.hottest()


@needs_cuda
@pytest.mark.parametrize(
    ("op", "budgets"), [("sample_and_apply", INSTRUCTIONS_OUT_OF_PLACE), ("sample_and_apply_", INSTRUCTIONS_IN_PLACE)]
)
def test_a_seed_on_the_device(op, budgets):
    """Drawing the partners in the kernel costs little even where there are the fewest vectors to share it."""
    call = training_call(op, torch.uint8, channels_last=True)
    done = execute("cuda", call, ARCHITECTURE, seed_on_device=True)
    assert done.report.buffers["seed"].sectors_read == 1
    spent = done.report.warp_instructions / vectors_written(call, done.report)
    assert spent <= budgets["cuda"] + INSTRUCTIONS_OF_A_DEVICE_SEED, done.report.hottest()


# ---- Other kinds than cutmix

every_dtype = pytest.mark.parametrize("dtype", INSTRUCTIONS_OF_MIXUP["cuda"], ids=str)


@every_kind
@every_dtype
def test_mixup_out_of_place(kind, dtype):
    """Own and partner are read once each, and the result is written once."""
    call = training_call("sample_and_apply", dtype, channels_last=False, batch=batch_of(dtype), kind=Kind.mixup)
    done = execute(kind, call, ARCHITECTURE)
    images, out, nbytes = done.report.buffers["images"], done.report.buffers["out"], call.images.nbytes
    assert (images.bytes_read, images.sectors_read) == (2 * nbytes, nbytes // SECTOR)
    assert (out.bytes_written, out.sectors_written) == (nbytes, nbytes // SECTOR)
    assert out.sectors_read == 0 and images.sectors_written == 0
    assert_small_traffic(done)
    spent = done.report.warp_instructions / vectors_written(call, done.report)
    assert spent <= INSTRUCTIONS_OF_MIXUP[kind][dtype], done.report.hottest()


@every_kind
@every_dtype
def test_mixup_in_place(kind, dtype):
    """Each sample is read once, for itself and for its partner, and written once."""
    call = training_call("sample_and_apply_", dtype, channels_last=False, batch=batch_of(dtype), kind=Kind.mixup)
    done = execute(kind, call, ARCHITECTURE)
    images, nbytes = done.report.buffers["images"], call.images.nbytes
    assert (images.bytes_read, images.sectors_read) == (nbytes, nbytes // SECTOR)
    assert (images.bytes_written, images.sectors_written) == (nbytes, nbytes // SECTOR)
    assert_small_traffic(done)
    spent = done.report.warp_instructions / vectors_written(call, done.report)
    assert spent <= INSTRUCTIONS_OF_MIXUP[kind][dtype], done.report.hottest()


@every_kind
@pytest.mark.parametrize("channels_last", LAYOUTS.values(), ids=LAYOUTS)
def test_cutout_out_of_place(kind, channels_last):
    """The inside of a box is read from nobody."""
    call = training_call("sample_and_apply", torch.uint8, channels_last, kind=Kind.cutout)
    done = execute(kind, call, ARCHITECTURE)
    images, out, nbytes = done.report.buffers["images"], done.report.buffers["out"], call.images.nbytes
    needed, cut = image_sectors(call, done.plan)
    assert not (needed & ~images.read).any()
    assert np.array_equal(images.read | cut, np.ones_like(cut))
    assert np.count_nonzero(images.read & ~needed) <= box_edges(call, done.plan)
    inside = sum(3 * (y1 - y0) * (x1 - x0) for _, y0, x0, y1, x1, *_ in done.plan.tolist())
    assert inside > nbytes / 8
    assert images.bytes_read <= nbytes - inside + VECTOR * box_edges(call, done.plan)
    assert (out.bytes_written, out.sectors_written) == (nbytes, nbytes // SECTOR)
    assert_small_traffic(done)
    spent = done.report.warp_instructions / vectors_written(call, done.report)
    assert spent <= INSTRUCTIONS_OF_CUTOUT_OUT_OF_PLACE[kind], done.report.hottest()


@every_kind
@pytest.mark.parametrize("channels_last", LAYOUTS.values(), ids=LAYOUTS)
def test_cutout_in_place(kind, channels_last):
    """Nothing is written but the box, and nothing is read but the vectors on its edges."""
    call = training_call("sample_and_apply_", torch.uint8, channels_last, kind=Kind.cutout)
    done = execute(kind, call, ARCHITECTURE)
    images, edges = done.report.buffers["images"], box_edges(call, done.plan)
    read, cut = image_sectors(call, done.plan)
    assert 0 < np.count_nonzero(cut) < len(cut)
    assert not read.any()
    assert np.array_equal(images.written, cut)
    assert not (images.read & ~cut).any()
    assert images.bytes_read <= VECTOR * edges
    assert_small_traffic(done)
    spent = done.report.warp_instructions / vectors_written(call, done.report)
    assert spent <= INSTRUCTIONS_OF_CUTOUT_IN_PLACE[kind], done.report.hottest()


# ---- Targets

CLASSES = 1000
INSTRUCTIONS_OF_SOFT_LABELS = 330  # a warp, with its plan, for 128 columns


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_soft_labels(dtype):
    """Own and partner are read once each, by warps that load no column after another."""
    plan = reference.sample_plan(
        torch.tensor([20190513]), UNIFORM, bounds_of(Kind.cutmix), Sampling(0, Partner.mirror.value, 0, 1), 64, 224, 224
    )
    labels = torch.rand(64, CLASSES).to(dtype)
    done = execute("cuda", call_of("mix_targets", labels, plan, CLASSES, 0.1, torch.float32), ARCHITECTURE)
    read, written, nbytes = done.report.buffers["labels"], done.report.buffers["targets"], labels.nbytes
    assert (read.bytes_read, read.sectors_read) == (2 * nbytes, nbytes // SECTOR)
    assert (written.bytes_written, written.sectors_written) == (done.targets.nbytes, done.targets.nbytes // SECTOR)
    warps = done.launch["grid"] * done.launch["block"] // WARP
    assert max(count.executed for count in done.report.instructions) <= warps, done.report.hottest()
    assert done.report.warp_instructions / warps <= INSTRUCTIONS_OF_SOFT_LABELS, done.report.hottest()
