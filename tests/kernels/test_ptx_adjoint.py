"""The compiled kernels of the adjoint, executed with the launches of a user's call, against the reference.

As test_ptx_kernels.py: the interpreter in tests/ptx raises at the first access out of bounds, race, or use of what was
never written. tests/ops/test_adjoint.py holds the reference itself to an oracle.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from cutmix_cuda import reference_adjoint
from cutmix_cuda._ops import Kind, Partner
from cutmix_cuda.reference import has_box, has_partner, reads_own, sample_plan

from ..helpers import assert_same_bits, oracle_partners, packed
from ..ops.test_adjoint import DTYPES, PARTNER_MAPS, SEED, some_gradients, some_plan
from ..ops.test_ops import BAD_ROWS
from ..ptx.machine import WARP
from .adjoint_execution import ADJOINT_SOURCE, Adjoint, adjoint_kernel, execute_adjoint
from .execution import SECTOR, UNIFORM, VECTOR, bounds_of, every_kind, needs_cuda, needs_triton
from .machine_code import machine_kernels, tools
from .test_ptx_kernels import poisoned, surroundings

FLIP = oracle_partners("flip", SEED, 6)


def assert_as_reference(kind: str, gradients: Tensor, plan: Tensor, out: Tensor | None = None, **how) -> Adjoint:
    """A call gives the reference's sums, writes all of them, and nothing around them."""
    if out is None:
        out = torch.empty_like(gradients)
    done = execute_adjoint(kind, gradients, plan, out, **how)
    expected = torch.empty(out.shape, dtype=out.dtype)
    reference_adjoint.apply_adjoint_out(gradients, plan, expected)
    assert_same_bits(done.out, expected)
    assert torch.equal(surroundings(done.out), surroundings(poisoned(out)))
    return done


@every_kind
@pytest.mark.parametrize("partners", PARTNER_MAPS.values(), ids=PARTNER_MAPS.keys())
@pytest.mark.parametrize("shape", [(3, 6, 9), (16, 7, 7), (8, 4, 16)], ids=str)
def test_every_kind_and_partner_map(kind, partners, shape):
    """Rows that are vectors, and rows that vectors lie across."""
    plan = packed(some_plan(partners, *shape[1:]))
    assert_as_reference(kind, some_gradients((9, *shape), torch.float16), plan)


@every_kind
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(6, 2, 5, 16), (6, 3, 5, 3), (6, 8, 7, 7), (6, 5, 1, 1)], ids=str)
def test_every_dtype(kind, dtype, shape):
    assert_as_reference(kind, some_gradients(shape, dtype), packed(some_plan(FLIP, *shape[2:])))


@every_kind
@pytest.mark.parametrize("batch", [1, 2, 31, 32, 33, 129, 257])
def test_takers_are_found_in_every_batch(kind, batch):
    rng = np.random.default_rng(batch)
    for partners in (rng.permutation(batch).tolist(), rng.integers(0, batch, batch).tolist()):
        plan = packed(some_plan(partners, 2, 2, batch))
        done = assert_as_reference(kind, some_gradients((batch, 1, 2, 2)), plan)
        valid = torch.tensor([Kind(each) in (Kind.cutmix, Kind.mixup) for each in plan[:, 6].tolist()])
        first, following = reference_adjoint.sources(plan, valid)
        assert torch.equal(done.links[:, 0].long(), first)
        assert torch.equal(done.links[valid, 1].long(), following[valid])


LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "samples apart": lambda x: torch.stack([x, x, x], 1)[:, 1],
    "in the middle": lambda x: torch.cat([x.new_zeros(1), x.flatten(), x.new_zeros(9)])[1:-9].view(x.shape),
    "volumes": lambda x: x.unflatten(1, (2, -1)),
}


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout(kind, layout, dtype):
    gradients = layout(some_gradients((6, 4, 5, 8), dtype))
    out = torch.empty_strided(gradients.shape, gradients.stride(), dtype=dtype)
    if layout is LAYOUTS["in the middle"]:
        out = torch.empty(gradients.numel() + 10, dtype=dtype)[1:-9].view(gradients.shape)
    assert_as_reference(kind, gradients, packed(some_plan(FLIP, 5, 8)), out)


@every_kind
@pytest.mark.parametrize("architecture", [75, 90, 100])
def test_every_generation_of_gpus(kind, architecture):
    plan = packed(some_plan(PARTNER_MAPS["some of one"], 7, 7))
    for dtype in (torch.float16, torch.bfloat16):
        assert_as_reference(kind, some_gradients((9, 8, 7, 7), dtype), plan, architecture=architecture)


@every_kind
@pytest.mark.parametrize("edit", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_leads_nowhere(kind, edit):
    rows = packed(some_plan(FLIP, 6, 9))
    rows[2] = torch.tensor([3, 1, 2, 5, 8, 0, Kind.cutmix, 0])
    for column, value in edit.items():
        rows[2, column] = value
    assert_as_reference(kind, some_gradients((6, 3, 6, 9)), rows)


# ---- Costs


def drawn(kind: Kind, batch: int, size: int, scope: int = 0) -> Tensor:
    seed = torch.tensor([SEED])
    return sample_plan(seed, UNIFORM, bounds_of(kind), (scope, Partner.mirror, 0, 1), batch, size, size)


def vectors_given(gradients: Tensor, plan: Tensor) -> int:
    """The vectors of 16 bytes of which somebody takes anything, counted once for each who does."""
    height, width = gradients.shape[-2:]
    given = 0
    for _, y0, x0, y1, x1, _, kind, _ in plan.tolist():
        changed = torch.zeros(height, width, dtype=torch.bool)
        changed[(slice(y0, y1), slice(x0, x1)) if has_box(kind) else ()] = kind != Kind.keep
        for there in (~changed | reads_own(kind), changed & has_partner(kind)):
            in_memory = torch.empty_like(gradients[:1], dtype=torch.bool).copy_(there).flatten()
            if gradients.is_contiguous(memory_format=torch.channels_last):
                in_memory = there.repeat_interleave(gradients.shape[1])
            given += int(in_memory.view(-1, 16 // gradients.itemsize).any(1).sum())
    return given


@every_kind
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [7, 16, 32])
@pytest.mark.parametrize("each", [Kind.cutmix, Kind.mixup, Kind.cutout])
def test_what_is_given_is_read_once(kind, size, channels_last, each):
    """Of CutMix each gradient goes to one sample: a read and a write, but that vectors on the edges of boxes go to two.
    Of MixUp all go to two."""
    gradients = torch.zeros(8, 32, size, size, dtype=torch.float16)
    if channels_last:
        gradients = gradients.contiguous(memory_format=torch.channels_last)
    plan = drawn(each, 8, size)
    adding = assert_as_reference(kind, gradients, plan).adding.buffers
    assert adding["out"].bytes_written == gradients.nbytes
    assert adding["gradients"].bytes_read == 16 * vectors_given(gradients, plan)
    assert adding["gradients"].sectors_read <= gradients.nbytes // SECTOR
    passes = adding["gradients"].bytes_read / gradients.nbytes
    if each == Kind.mixup:
        assert passes == 2
    elif channels_last:
        assert passes == 1 if each == Kind.cutmix else passes < 1


INSTRUCTIONS = {  # of a warp for each 512 bytes of gradients, of which memory takes as long as 280 a pass and a half
    ("cuda", torch.float16): {Kind.keep: 90, Kind.cutmix: 310, Kind.mixup: 210},
    ("cuda", torch.float32): {Kind.keep: 90, Kind.cutmix: 215, Kind.mixup: 170},
    ("triton", torch.float16): {Kind.keep: 125, Kind.cutmix: 260, Kind.mixup: 260},
    ("triton", torch.float32): {Kind.keep: 75, Kind.cutmix: 160, Kind.mixup: 160},
}


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_instructions_leave_memory_the_limit(kind, dtype):
    gradients = torch.zeros(16, 64, 56, 56, dtype=dtype)
    for each, most in INSTRUCTIONS[kind, dtype].items():
        report = execute_adjoint(kind, gradients, drawn(each, 16, 56), torch.empty_like(gradients), 90).adding
        assert report.warp_instructions / (gradients.nbytes / (VECTOR * WARP)) <= most, report.hottest()
        assert report.matching("st.global.v4")


@needs_triton
def test_samples_and_batches_beyond_what_tests_can_hold(monkeypatch):
    """The code for more samples than a grid is high, and for more elements than the fast division takes, on few."""
    from cutmix_cuda.triton_kernels import adjoint_ops

    monkeypatch.setattr(adjoint_ops, "MAX_GRID_Y", 4)
    monkeypatch.setattr(adjoint_ops, "MAX_FAST_DIVISION", 0)
    monkeypatch.setattr(adjoint_ops, "geometry", adjoint_ops.geometry.__wrapped__)
    for shape in ((9, 8, 7, 7), (9, 3, 4, 16)):
        plan = packed(some_plan(PARTNER_MAPS["some of one"], *shape[2:]))
        assert_as_reference("triton", some_gradients(shape, torch.float16), plan)


@needs_cuda
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.skipif(tools() is None, reason="cuobjdump was not found in Triton's wheel")
def test_registers_and_memory(architecture):
    """No spill, stack, shared memory, barrier or atomic, and a full multiprocessor of 2048 threads is half full."""
    kernels = machine_kernels(architecture, ADJOINT_SOURCE)
    assert len(kernels) == 9
    for kernel in kernels.values():
        used = kernel.resources
        assert (used["STACK"], used["LOCAL"], used["SHARED"]) == (0, 0, 0)
        assert not kernel.matching("LDL", "STL", "LDS", "STS", "BAR", "ATOM", "RED")
        assert used["REG"] <= 64


@needs_cuda
def test_no_product_is_fused_with_a_sum():
    for element, width in itertools.product(("F16", "BF16", "F32", "F64"), (16, None)):
        width = width or {"F32": 4, "F64": 8}.get(element, 2)
        opcodes = [each.opcode for each in adjoint_kernel(f"sum_takers<Element{element},{width}>", 90).body]
        assert not [each for each in opcodes if re.match(r"fma|.*\.(approx|ftz|full)|(add|sub|mul)\.f(32|64)", each)]
