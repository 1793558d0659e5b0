"""Divergence, loops, tables, barriers, calls and grids, with results worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from . import machine
from .faults import Unsupported
from .handwritten import kernel, results
from .machine import Device
from .parse import parse

COLLATZ = """
    mov.u32 %r15, %tid.x; add.u32 %r1, %r15, 1; mov.u32 %r0, 0;
again:
    setp.eq.u32 %p0, %r1, 1; @%p0 bra done;
    add.u32 %r0, %r0, 1;
    and.b32 %r2, %r1, 1; setp.eq.u32 %p1, %r2, 0; @%p1 bra even;
    mad.lo.u32 %r1, %r1, 3, 1; bra again;
even:
    shr.u32 %r1, %r1, 1; bra again;
done:
"""
COLLATZ_STEPS = [0, 1, 7, 2, 5, 8, 16, 3, 19, 6, 14, 9, 9, 17, 17, 4]  # of 1, 2, ..., 16


def test_a_loop_that_threads_leave_at_different_times():
    assert results(COLLATZ, 16) == COLLATZ_STEPS


def test_nested_branches_join_again():
    body = """
        mov.u32 %r15, %tid.x; and.b32 %r1, %r15, 1; and.b32 %r2, %r15, 2; mov.u32 %r0, 100;
        setp.eq.u32 %p0, %r1, 0; setp.eq.u32 %p1, %r2, 0;
        @%p0 bra even;
        @!%p1 bra high;
        add.u32 %r0, %r0, 1; bra join;
    high:
        add.u32 %r0, %r0, 2; bra join;
    even:
        add.u32 %r0, %r0, 3;
    join:
        add.u32 %r0, %r0, 10; activemask.b32 %r3; and.b32 %r3, %r3, 15; add.u32 %r0, %r0, %r3;
    """
    # all four are together again after the join: the active mask adds 15
    assert results(body, 4) == [128, 126, 128, 127]


def test_guarded_instructions_leave_the_other_threads_alone():
    body = """mov.u32 %r15, %tid.x; mov.u32 %r0, 5; setp.lt.u32 %p0, %r15, 2;
        @%p0 add.u32 %r0, %r0, %r15; @!%p0 mul.lo.u32 %r0, %r0, 10;"""
    assert results(body, 4) == [5, 6, 50, 50]


def test_a_guarded_exit():
    device = Device()
    a = device.buffer("a", np.zeros(8, np.uint32))
    body = """ld.param.u64 %d0, [a]; mov.u32 %r15, %tid.x; mad.wide.u32 %d1, %r15, 4, %d0;
        setp.gt.u32 %p0, %r15, 4; @%p0 exit; st.global.u32 [%d1], 1;"""
    device.launch(kernel(body, "u64 a"), 1, 8, [a])
    assert a.numpy().tolist() == [1] * 5 + [0] * 3


def test_a_branch_table():
    body = """mov.u32 %r15, %tid.x; and.b32 %r1, %r15, 3; setp.eq.u32 %p0, %r15, 7; mov.u32 %r0, 9;
        @!%p0 brx.idx %r1, targets;
        bra end;
    zero: mov.u32 %r0, 10; bra end;
    one: mov.u32 %r0, 11; bra end;
    two: mov.u32 %r0, 12;
    end:
    targets: .branchtargets zero, one, two, zero;
    """
    assert results(body, 8) == [10, 11, 12, 10, 10, 11, 12, 9]


def test_a_barrier_in_a_loop_with_shared_memory():
    """A running sum over the block by doubling distances; every round needs two barriers."""
    module = ".shared .align 4 .b8 words[256];"
    body = """
        mov.u32 %r15, %tid.x; mov.u32 %r14, words; mad.lo.u32 %r13, %r15, 4, %r14;
        add.u32 %r0, %r15, 1; mov.u32 %r1, 1;
    again:
        st.shared.u32 [%r13], %r0;
        bar.sync 0;
        setp.ge.u32 %p0, %r15, %r1; mul.lo.u32 %r2, %r1, 4; sub.u32 %r3, %r13, %r2; mov.u32 %r4, 0;
        @%p0 ld.shared.u32 %r4, [%r3];
        add.u32 %r0, %r0, %r4;
        bar.sync 0;
        shl.b32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 64; @%p1 bra again;
    """
    assert results(body, 64, module=module) == [n * (n + 1) // 2 for n in range(1, 65)]


@pytest.mark.parametrize("chunk", [1, 24, 1 << 15])
def test_grid_and_block_coordinates(monkeypatch, chunk):
    """Threads write their coordinates as digits; the blocks run one, some, or all at a time."""
    monkeypatch.setattr(machine, "CHUNK_THREADS", chunk)
    body = """
        mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z;
        mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ctaid.y; mov.u32 %r5, %ctaid.z;
        mad.lo.u32 %r6, %r5, 10, %r4; mad.lo.u32 %r6, %r6, 10, %r3; mad.lo.u32 %r6, %r6, 10, %r2;
        mad.lo.u32 %r6, %r6, 10, %r1; mad.lo.u32 %r6, %r6, 10, %r0;
        mov.u32 %r7, %nctaid.x; mov.u32 %r8, %nctaid.y;
        mov.u32 %r9, %ntid.x; mov.u32 %r10, %ntid.y; mov.u32 %r11, %ntid.z;
        mad.lo.u32 %r12, %r5, %r8, %r4; mad.lo.u32 %r12, %r12, %r7, %r3; mad.lo.u32 %r12, %r12, %r11, %r2;
        mad.lo.u32 %r12, %r12, %r10, %r1; mad.lo.u32 %r12, %r12, %r9, %r0;
        ld.param.u64 %d0, [out]; mad.wide.u32 %d0, %r12, 4, %d0; st.global.u32 [%d0], %r6;
    """
    device = Device()
    out = device.empty("out", 3 * 2 * 2 * 2 * 3 * 2, np.uint32)
    device.launch(kernel(body, "u64 out"), (3, 2, 2), (2, 3, 2), [out])
    order = itertools.product(range(2), range(2), range(3), range(2), range(3), range(2))  # x runs fastest
    expected = [int("".join(map(str, coordinates))) for coordinates in order]
    assert out.numpy().tolist() == expected


def test_a_struct_by_value_scalars_and_padding():
    body = """
        ld.param.u8 %h1, [s]; cvt.u32.u8 %r1, %h1; ld.param.v2.u32 {%r2, %r3}, [s+8]; ld.param.s32 %r4, [n];
        ld.param.f32 %r5, [x]; cvt.rzi.s32.f32 %r5, %r5; ld.param.u64 %d0, [out];
        st.global.u32 [%d0], %r1; st.global.u32 [%d0+4], %r2; st.global.u32 [%d0+8], %r3; st.global.u32 [%d0+12], %r4;
        st.global.u32 [%d0+16], %r5;
        mov.u64 %d1, s; ld.param.u32 %r6, [%d1+12]; st.global.u32 [%d0+20], %r6;
    """
    device = Device()
    out = device.empty("out", 6, np.int32)
    struct = np.array([7], np.uint64).tobytes() + np.array([20, 30], np.uint32).tobytes()
    device.launch(kernel(body, "align 8 .b8 s[16], s32 n, f32 x, u64 out"), 1, 1, [struct, -5, 2.5, out])
    assert out.numpy().tolist() == [7, 20, 30, -5, 2, 30]


def test_vectors_of_bytes_halves_and_words_with_cache_hints():
    body = """
        ld.param.u64 %d0, [a]; ld.param.u64 %d1, [out];
        ld.global.v4.u8 {%h0, %h1, %h2, %h3}, [%d0]; st.global.v4.u8 [%d1], {%h3, %h2, %h1, %h0};
        ld.global.nc.L1::no_allocate.L2::128B.v2.b16 {%h0, %h1}, [%d0+4]; st.global.cs.v2.b16 [%d1+4], {%h1, %h0};
        createpolicy.fractional.L2::evict_first.b64 %d2, 1.0;
        ld.global.L1::evict_last.L2::cache_hint.v2.b32 {%r0, %r1}, [%d0+8], %d2;
        st.global.L1::no_allocate.v2.b32 [%d1+8], {%r1, %r0};
        ld.global.cg.v2.b64 {%d3, %d4}, [%d0+16]; st.global.wt.v2.b64 [%d1+16], {%d4, %d3};
        ld.global.s8 %r0, [%d0]; st.global.u32 [%d1+32], %r0;
        ld.global.u8 %r0, [%d0]; st.global.u8 [%d1+36], %r0;
        ld.s16 %r0, [%d0]; st.v2.u16 [%d1+40], {%r0, %h0};
    """
    device = Device()
    data = np.arange(32, dtype=np.uint8)
    data[:2] = 0xFE, 0xFF
    a, out = device.buffer("a", data, writable=False), device.buffer("out", np.zeros(44, np.uint8))
    device.launch(kernel(body, "u64 a, u64 out"), 1, 1, [a, out])
    result = out.numpy()
    assert result[:8].tolist() == [3, 2, 0xFF, 0xFE, 6, 7, 4, 5]
    assert result[8:16].view(np.uint32).tolist() == data[8:16].view(np.uint32)[::-1].tolist()
    assert result[16:32].view(np.uint64).tolist() == data[16:32].view(np.uint64)[::-1].tolist()
    assert result[32:36].view(np.int32).tolist() == [-2]
    assert result[36] == 0xFE
    assert result[40:44].view(np.uint16).tolist() == [0xFFFE, 0x0504]


def test_one_instruction_may_reach_several_buffers():
    body = """
        mov.u32 %r15, %tid.x; and.b32 %r1, %r15, 1; setp.eq.u32 %p0, %r1, 0; ld.param.u64 %d0, [a];
        ld.param.u64 %d1, [b]; selp.b64 %d2, %d0, %d1, %p0; mad.wide.u32 %d2, %r15, 4, %d2; ld.u32 %r0, [%d2];
        st.u32 [%d2], 99;
        ld.param.u64 %d3, [out]; mad.wide.u32 %d3, %r15, 4, %d3; st.global.u32 [%d3], %r0;
    """
    device = Device()
    a, b = (device.buffer(name, np.arange(4, dtype=np.uint32) + start) for name, start in (("a", 10), ("b", 20)))
    out = device.empty("out", 4, np.uint32)
    report = device.launch(kernel(body, "u64 a, u64 b, u64 out"), 1, 4, [a, b, out])
    assert out.numpy().tolist() == [10, 21, 12, 23]
    assert (a.numpy().tolist(), b.numpy().tolist()) == ([99, 11, 99, 13], [20, 99, 22, 99])
    assert report.buffers["a"].bytes_read == report.buffers["b"].bytes_written == 8


def test_generic_addresses_reach_shared_memory():
    module = ".shared .align 4 .b8 words[64];"
    body = """mov.u32 %r15, %tid.x; mov.u32 %r1, words; mad.lo.u32 %r1, %r15, 4, %r1; cvt.u64.u32 %d0, %r1;
        cvta.shared.u64 %d0, %d0; st.u32 [%d0], %r15; bar.sync 0; xor.b32 %r2, %r1, 4; ld.shared.u32 %r0, [%r2];"""
    assert results(body, 16, module=module) == [lane ^ 1 for lane in range(16)]


def test_static_and_dynamic_shared_memory_do_not_overlap():
    module = ".extern .shared .align 16 .b8 dynamic[]; .shared .align 4 .b8 fixed[20];"
    body = """mov.u32 %r1, dynamic; mov.u32 %r2, fixed; sub.u32 %r0, %r1, %r2;
        st.shared.u32 [%r1+60], 1; st.shared.u32 [%r2+16], 1;"""
    assert results(body, 1, module=module, shared_bytes=64 + 12) == [32]


def test_module_scope_arrays():
    module = """.const .align 4 .u32 squares[4] = {0, 1, 4, 9};
        .global .align 4 .f32 half[1] = {0f3F000000};
        .visible .global .align 4 .b8 zeros[8];"""
    body = """mov.u32 %r15, %tid.x; mov.u64 %d0, squares; mad.wide.u32 %d0, %r15, 4, %d0; ld.const.u32 %r0, [%d0];
        ld.global.u32 %r1, [half]; shr.u32 %r1, %r1, 24; add.u32 %r0, %r0, %r1; ld.global.u32 %r1, [zeros+4];
        add.u32 %r0, %r0, %r1;"""
    assert results(body, 4, module=module) == [0x3F, 0x40, 0x43, 0x48]


CALLEE = """
    .func (.param .b32 result) add_or_double(.param .b32 a, .param .b64 b)
    {
        .reg .pred %p<2>;
        .reg .b32 %r<4>;
        .reg .b64 %d<2>;
        .local .align 4 .b8 depot[4];
        ld.param.u32 %r1, [a]; ld.param.u64 %d1, [b]; cvt.u32.u64 %r2, %d1;
        setp.lt.u32 %p1, %r1, 2; @%p1 bra small;
        st.param.b32 [result], %r2; st.local.u32 [depot], %r2; ret;
    small:
        add.u32 %r3, %r1, %r2; st.param.b32 [result+0], %r3;
        ret;
    }
"""
CALL = """{ .param .b32 x; .param .b64 y; .param .b32 z; st.param.b32 [x], %r1; st.param.b64 [y+0], %d1;
    call.uni (z), add_or_double, (x, y); ld.param.b32 %r1, [z+0]; }"""


def test_calls():
    """Twice the same function, which branches inside: f(t) = t + 7 below 2 and 7 otherwise; f(f(t)) = 7."""
    start = "mov.u32 %r1, %tid.x; mov.u64 %d1, 7;"
    assert results(f"{start} {CALL} mov.u32 %r0, %r1;", 4, module=CALLEE) == [7, 8, 7, 7]
    assert results(f"{start} {CALL} {CALL} mov.u32 %r0, %r1;", 4, module=CALLEE) == [7, 7, 7, 7]


def test_calls_that_are_not_modelled():
    with pytest.raises(Unsupported, match="recursion"):
        kernel("call.uni f;", module=".func f() { call.uni f; ret; }")
    with pytest.raises(Unsupported):
        kernel("call.uni vprintf;", module=".extern .func vprintf();")


def test_registers_declared_in_a_scope_shadow():
    body = """mov.u32 %r0, 1;
        { .reg .b32 %r<2>; .reg .pred q; mov.u32 %r0, 5; setp.eq.u32 q, %r0, 5; @q mov.u32 %r1, 9; }
        add.u32 %r0, %r0, 1;"""
    assert results(body, 1) == [2]


def test_comments_positions_and_debug_sections_are_left_out():
    text = """
        // comment with ; and {
        .version 8.8
        .target sm_90a
        .address_size 64
        /* .entry
           no */
        .visible .entry k(.param .u64 .ptr .global .align 16 out)
        .reqntid 2, 1, 1
        .minnctapersm 2
        {
            .reg .b32 %r<2>; .reg .b64 %rd<2>;
            .loc 1 2 3
        $L__tmp0:
            .loc 1 20 26, function_name $L__info_string0, inlined_at 1 10 22 // a.py:20
            .pragma "nounroll";
            ld.param.b64 %rd1, [out];
            mov.u32 %r1, %tid.x;
            st.global.b8 [%rd1], 1;
            ret;
        }
        .file 1 "/a;{b.py"
        .section .debug_str
        {
            .b8 99 // ; c
        }
    """
    module = parse(text)
    assert module.target == "sm_90a"
    assert [each.line for each in module["k"].body] == [17, 18, 19, 20]
    assert module["k"].required_threads == (2, 1, 1)
    device = Device()
    with pytest.raises(ValueError, match="needs blocks of"):
        device.launch(module["k"], 1, 3, [device.empty("out", 1, np.uint8)])
    with pytest.raises(KeyError, match="the module has"):
        module["other"]


@pytest.mark.parametrize(
    "text",
    [
        "add.u32 %r0, %r77, 1;",  # a register that was not declared
        "@%r0 bra end; end:",  # no predicate
        "twice: twice:",
        "ld.global.u32 %r0, [%d0+%d1];",
        "mov.u32 %r0, 0b12;",
        ".surprise 3;",
        "mov.u32 %r0, 017;",
    ],
)
def test_text_that_is_not_understood(text):
    with pytest.raises(Unsupported):
        kernel(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".version 8.0\n.target sm_80\n.address_size 64\n.entry k() { ret;",
        ".version 8.0\n.target sm_80\n.address_size 32",
    ],
)
def test_modules_that_are_not_understood(text):
    with pytest.raises(Unsupported):
        parse(text)


def test_a_directive_that_is_not_understood():
    with pytest.raises(Unsupported, match="explicitcluster"):
        parse(".version 8.0\n.target sm_90\n.address_size 64\n.entry k() .explicitcluster { ret; }")
