"""The op of the adjoint of mixing: check, allocate, launch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._validation import FLOAT_DTYPES, MAX_INT32
from .adjoint_kernel import link_kernel, sum_kernel
from .augment_launch import MAX_FAST_DIVISION, divider
from .launch import BLENDED_ELEMENTS, MAX_GRID_Y, MAX_THREADS, Launch, clamp, lowest_bit, next_power_of_2
from .ops import check, check_extent, check_images, checked_plan, copy_into, dense, is_aligned
from .rows import Rows, rows_of, same_order

LINKED_ROWS = 128  # at a time
VECTOR_BYTES = 16
VECTORS_PER_THREAD = 2  # at a time
SPAN_BYTES = 1 << 15
BITS = {2: tl.uint16, 4: tl.uint32, 8: tl.uint64}


@lru_cache(maxsize=1024)  # a training run asks for few, and working one out takes as long as launching it
def geometry(rows: Rows, out_stride: int, addresses: int, element_bytes: int) -> tuple[tuple, dict[str, Any], int]:
    """The kernel's numbers from in_stride on, its constants and the chunks of a sample.

    addresses are the bits below 16 in which an address differs from a multiple of 16.
    """
    row_elements = rows.row_bytes // element_bytes
    elements = rows.slices * rows.height * row_elements
    check(elements <= MAX_INT32 - SPAN_BYTES, "a sample must be of fewer than 2^31 elements")  # with a chunk behind
    strides = (rows.sample_stride, out_stride) if rows.batch > 1 else (0, 0)
    width = lowest_bit(VECTOR_BYTES | addresses | (elements * element_bytes) | strides[0] | strides[1])
    vector = VECTOR_BYTES // element_bytes if width == VECTOR_BYTES else 1
    vectors = elements // vector
    block = clamp(next_power_of_2(vectors), 32, MAX_THREADS * VECTORS_PER_THREAD)
    span = block * clamp(SPAN_BYTES // (block * vector * element_bytes), 1, -(-vectors // block))
    large = elements > MAX_FAST_DIVISION - span * vector  # what is behind the end is divided, too
    constants = {
        "VECTOR": vector,
        "BLOCK": block,
        "SPAN": span,
        "ACROSS": 1 if row_elements % vector == 0 else (vector - 2) // row_elements + 2,
        "LARGE": large,
        "num_warps": clamp(block // VECTORS_PER_THREAD, 32, MAX_THREADS) // 32,
        "num_stages": 1,
        "enable_fp_fusion": False,
    }
    dividers = (0, 0, 0, 0) if large else (*divider(row_elements), *divider(rows.height))
    in_vectors = (stride // (vector * element_bytes) for stride in strides)
    numbers = (*in_vectors, vectors, row_elements, *dividers, rows.pixel_bytes // element_bytes)
    return numbers, constants, -(-vectors // span)


def adjoint_launches(gradients: Tensor, plan: Tensor, out: Tensor, links: Tensor) -> tuple[Launch, Launch]:
    """The launches of a call that is not empty: gradients and out are rows of one shape, without a gap in a sample.

    Looks at addresses, sizes and strides of its tensors alone, so that CPU tensors make the launches that CUDA tensors
    would.
    """
    batch, height, width = gradients.shape[0], *gradients.shape[-2:]
    rows, out_rows = rows_of(gradients), rows_of(out)
    assert rows is not None and out_rows is not None
    element_bytes = gradients.dtype.itemsize
    addresses = (gradients.data_ptr() | out.data_ptr()) % VECTOR_BYTES
    numbers, constants, chunks = geometry(rows, out_rows.sample_stride, addresses, element_bytes)
    sizes = batch, height, width
    link = Launch(
        link_kernel, (batch, 1, 1), (plan, links, *sizes), {"ROWS": LINKED_ROWS, "num_warps": 1, "num_stages": 1}
    )
    grid_z = -(-batch // MAX_GRID_Y)
    tensors = (triton.reinterpret(each, BITS[element_bytes]) for each in (gradients, out))
    arguments = (*tensors, plan, links, *sizes, *numbers)
    options = {"ELEMENT": BLENDED_ELEMENTS[gradients.dtype], **constants}
    return link, Launch(sum_kernel, (chunks, -(-batch // grid_z), grid_z), arguments, options)


def is_dense(rows: Rows) -> bool:
    """Whether a sample is one run of bytes without a gap. Mirrors rows.h::Rows::dense."""
    in_row = rows.height == 1 or rows.row_stride == rows.row_bytes
    return in_row and (rows.slices == 1 or rows.slice_stride == rows.height * rows.row_bytes)


def apply_adjoint_out(gradients: Tensor, plan: Tensor, out: Tensor) -> None:
    check_images(gradients, out)
    batch, height, width = gradients.shape[0], *gradients.shape[-2:]
    check_extent(batch, height, width)
    plan = checked_plan(plan, batch, gradients.device)
    check(
        gradients.dtype in FLOAT_DTYPES and gradients.dtype == out.dtype,
        "gradients and out must be of one dtype: float16, bfloat16, float32 or float64",
    )
    if gradients.numel() == 0:
        return
    source, destination = gradients, out
    rows, out_rows = rows_of(gradients), rows_of(out)
    alike = rows is not None and out_rows is not None and rows.shape == out_rows.shape and same_order(gradients, out)
    whole = alike and all(is_dense(each) for each in (rows, out_rows) if each is not None)
    if not (whole and is_aligned(gradients) and is_aligned(out)):
        source = dense(gradients)
        destination = torch.empty_like(source)
    links = plan.new_empty((batch, 2))
    for launch in adjoint_launches(source, plan, destination, links):
        launch(gradients.device)
    if destination is not out:
        copy_into(out, destination)


OPS = {"apply_adjoint_out": apply_adjoint_out}
