"""Each counter, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from . import machine
from .handwritten import kernel
from .machine import Device
from .report import Report


def launch(body: str, threads: int = 64, blocks: int = 1, words: int = 4096, **buffer) -> Report:
    device = Device()
    a = device.buffer("a", np.zeros(words, np.uint32), **buffer)
    return device.launch(kernel(body, "u64 a"), blocks, threads, [a])


def word(multiplier: int) -> str:
    """%d1: the buffer plus `multiplier` bytes a thread."""
    return f"""ld.param.u64 %d0, [a]; mov.u32 %r15, %ctaid.x; mov.u32 %r14, %ntid.x; mov.u32 %r13, %tid.x;
        mad.lo.u32 %r15, %r15, %r14, %r13; mad.wide.u32 %d1, %r15, {multiplier}, %d0;"""


@pytest.mark.parametrize(
    ("stride", "access", "sectors"),
    [
        # of one request of a full warp
        (4, "ld.global.u32 %r0, [%d1];", 4),  # 128 bytes
        (16, "ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%d1];", 16),  # 512 bytes
        (1, "ld.global.u8 %h0, [%d1];", 1),
        (0, "ld.global.u32 %r0, [%d1];", 1),  # all the same
        (32, "ld.global.u32 %r0, [%d1];", 32),
        (64, "ld.global.u32 %r0, [%d1];", 32),
        (8, "ld.global.u32 %r0, [%d1];", 8),
        (4, "ld.global.u32 %r0, [%d1+16];", 5),  # across the edge of a fifth
    ],
)
def test_sectors_of_a_warp_request(stride, access, sectors):
    (count,) = launch(word(stride) + access, threads=64).matching("ld.global")
    assert (count.requests, count.sectors) == (2, 2 * sectors)


def test_misalignment_costs_a_sector():
    (count,) = launch(word(4) + "ld.global.u32 %r0, [%d1];", misalignment=4).matching("ld.global")
    assert count.sectors == 2 * 5


def test_lanes_in_any_order_share_a_request():
    """Thread t reads word t ^ 16, and word (5 t) % 32: still the four sectors of the warp's 32 words."""
    for shuffled in ("xor.b32 %r0, %r13, 16;", "mul.lo.u32 %r0, %r13, 5; and.b32 %r0, %r0, 31;"):
        body = word(4) + shuffled + "mad.wide.u32 %d1, %r0, 4, %d0; ld.global.u32 %r1, [%d1];"
        (count,) = launch(body, threads=32).matching("ld.global")
        assert (count.requests, count.sectors, count.bytes) == (1, 4, 128)


def test_guards_count_for_requests_and_bytes_but_not_for_instructions():
    """Two warps; the guard holds for 8 threads of the first: 32 bytes, one sector, one request."""
    body = word(4) + "setp.lt.u32 %p0, %r13, 8; @%p0 st.global.u32 [%d1], 1;"
    report = launch(body, threads=64)
    (count,) = report.matching("st.global")
    assert (count.executed, count.requests, count.sectors, count.bytes) == (2, 1, 1, 32)
    assert (report.buffers["a"].sectors_written, report.buffers["a"].bytes_written) == (1, 32)


def test_buffer_traffic_is_distinct_sectors():
    """Every thread reads the same two words, writes its own of 128: 16 sectors."""
    body = word(4) + "ld.global.nc.u32 %r0, [%d0+1024]; ld.global.nc.u32 %r0, [%d0+1056]; st.global.u32 [%d1], 1;"
    report = launch(body, threads=32, blocks=4)
    traffic = report.buffers["a"]
    assert (traffic.sectors_read, traffic.bytes_read) == (2, 4 * 32 * 2 * 4)
    assert np.flatnonzero(traffic.read).tolist() == [32, 33]
    assert (traffic.sectors_written, traffic.bytes_written) == (16, 512)
    assert np.flatnonzero(traffic.written).tolist() == list(range(16))


def test_sectors_of_a_misaligned_buffer_are_those_of_the_address_space():
    """128 bytes from address 16 touch five sectors."""
    report = launch(word(4) + "st.global.u32 [%d1], 1;", threads=32, words=32, misalignment=16)
    assert report.buffers["a"].sectors_written == 5
    assert report.buffers["a"].start % 32 == 0


def test_warp_instructions_of_a_divergent_branch():
    """70 threads are three warps. The branch splits the first only, so both sides run once and the rest goes around."""
    body = """mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 10; @%p0 bra few;
        add.u32 %r0, %r0, 1; bra join;
    few:
        sub.u32 %r0, %r0, 1;
    join:
        mov.u32 %r1, 0;"""
    report = launch(body, threads=70)
    executed = {count.opcode: count.executed for count in report.instructions}
    assert executed == {"mov.u32": 3, "setp.lt.u32": 3, "bra": 3, "add.u32": 3, "sub.u32": 1, "ret": 3}
    assert report.warp_instructions == 3 + 3 + 3 + 3 + 3 + 1 + 3 + 3


def test_warp_instructions_of_a_loop():
    """Thread t goes round t + 1 times: a warp as often as its last thread, 32 and 64 times."""
    body = """mov.u32 %r0, %tid.x; again: sub.s32 %r0, %r0, 1; setp.ge.s32 %p0, %r0, 0; @%p0 bra again;"""
    (count,) = launch(body, threads=64).matching("sub.s32")
    assert count.executed == 32 + 64


@pytest.mark.parametrize("chunk", [64, 1 << 15])
def test_counts_do_not_depend_on_how_many_blocks_run_together(monkeypatch, chunk):
    monkeypatch.setattr(machine, "CHUNK_THREADS", chunk)
    report = launch(word(16) + "ld.global.v2.u64 {%d2, %d3}, [%d1];", threads=48, blocks=7)
    (count,) = report.matching("ld.global")
    # 48 threads are a warp and a half: 16 + 8 sectors
    assert (count.executed, count.requests, count.sectors, count.bytes) == (14, 14, 7 * 24, 7 * 48 * 16)
    assert report.buffers["a"].sectors_read == 7 * 24
    assert report.warp_instructions == 14 * 8


def test_shared_memory_counts_requests_and_no_sectors():
    module = ".shared .align 4 .b8 words[256];"
    device = Device()
    body = "mov.u32 %r0, %tid.x; mov.u32 %r1, words; mad.lo.u32 %r1, %r0, 4, %r1; st.shared.u32 [%r1], %r0;"
    report = device.launch(kernel(body, module=module), 2, 64, [])
    (count,) = report.matching("st.shared")
    assert (count.requests, count.sectors, count.bytes) == (4, 0, 512)


def test_the_hottest_instructions_come_first():
    report = launch("mov.u32 %r0, %tid.x; again: sub.s32 %r0, %r0, 1; setp.ge.s32 %p0, %r0, 0; @%p0 bra again;")
    first, *_ = report.hottest(1).splitlines()
    assert first.split() == ["96", "line", str(report.instructions[1].line), "sub.s32", "%r0,", "%r0,", "1"]
