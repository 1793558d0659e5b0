"""For each kind of fault a kernel that commits it, and beside it one that only nearly does."""

from __future__ import annotations

import numpy as np
import pytest

from . import machine
from .faults import Fault, Kind, Unsupported
from .handwritten import kernel, results
from .machine import Buffer, Device

# %d0: the buffer; %d1: this thread's own word of it
OWN_WORD = "ld.param.u64 %d0, [a]; mov.u32 %r15, %tid.x; mad.wide.u32 %d1, %r15, 4, %d0;"
# The same with the thread's place in the grid, in blocks of 32
GLOBAL_WORD = """ld.param.u64 %d0, [a]; mov.u32 %r15, %tid.x; mov.u32 %r14, %ctaid.x; mad.lo.u32 %r15, %r14, 32, %r15;
    mad.wide.u32 %d1, %r15, 4, %d0;"""
SHARED = ".shared .align 4 .b8 words[128];"
SHARED_WORD = "mov.u32 %r15, %tid.x; mov.u32 %r14, words; mad.lo.u32 %r13, %r15, 4, %r14;"


def run(body: str, words: int = 32, threads: int = 32, blocks: int = 1, module: str = "", **buffer) -> Buffer:
    """Launches on one buffer of zeros named a."""
    device = Device()
    a = device.buffer("a", np.zeros(words, np.uint32), **buffer)
    device.launch(kernel(body, "u64 a", module), blocks, threads, [a])
    return a


def fault(body: str, **options) -> Fault:
    with pytest.raises(Fault) as caught:
        run(body, **options)
    return caught.value


def test_out_of_bounds_names_thread_block_instruction_and_address():
    body = GLOBAL_WORD + "\n st.global.u32 [%d1], %r15;"
    run(body, words=128, blocks=4)
    caught = fault(body, words=100, blocks=4)
    assert caught.kind is Kind.OUT_OF_BOUNDS
    assert (caught.thread, caught.block) == ((4, 0, 0), (3, 0, 0))
    assert caught.address is not None and caught.address % 512 == 400
    assert caught.text == "st.global.u32 [%d1], %r15;".rstrip(";")
    assert "byte 400 of a's 400" in caught.detail
    assert str(caught.line) in str(caught) and "(4, 0, 0)" in str(caught)


@pytest.mark.parametrize(
    "access",
    [
        "ld.global.u32 %r0, [%d0+-4];",
        "ld.global.u32 %r0, [%d0+128];",
        "ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%d0+128];",
        "st.global.u8 [%d0+-1], %r15;",
        "mov.u64 %d0, 0; ld.global.u32 %r0, [%d0];",
        "add.u64 %d0, %d0, 68719476736; ld.global.u32 %r0, [%d0];",
        "mov.u32 %r14, words; ld.shared.u32 %r0, [%r14+128];",
        "mov.u32 %r14, words; cvt.u64.u32 %d0, %r14; ld.global.u32 %r0, [%d0];",  # another state space
        "ld.shared.u32 %r0, [%d0];",
    ],
)
def test_out_of_bounds(access):
    assert fault(OWN_WORD + access, threads=1, module=SHARED).kind is Kind.OUT_OF_BOUNDS


def test_the_first_and_the_last_byte_are_in_bounds():
    body = (
        OWN_WORD
        + "ld.global.u8 %r0, [%d0]; ld.global.u8 %r0, [%d0+127]; ld.global.v4.u32 {%r0,%r1,%r2,%r3}, [%d0+112];"
    )
    run(body, threads=1)


@pytest.mark.parametrize(
    ("access", "misalignment", "bad"),
    [
        ("ld.global.u32 %r0, [%d0];", 2, True),
        ("ld.global.u32 %r0, [%d0];", 4, False),
        ("ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%d0];", 8, True),
        ("ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%d0];", 16, False),
        ("ld.global.v2.u32 {%r0, %r1}, [%d0+4];", 0, True),
        ("st.global.u16 [%d0+1], %r15;", 0, True),
        ("ld.global.u8 %r0, [%d0+3];", 0, False),
    ],
)
def test_misaligned(access, misalignment, bad):
    if bad:
        assert fault(OWN_WORD + access, threads=1, misalignment=misalignment).kind is Kind.MISALIGNED
    else:
        run(OWN_WORD + access, threads=1, misalignment=misalignment)


def test_a_write_to_a_read_only_buffer():
    assert fault(OWN_WORD + "st.global.u32 [%d1], %r15;", writable=False).kind is Kind.READ_ONLY


def test_reading_memory_that_was_never_written():
    device = Device()
    a = device.empty("a", 32, np.uint32)
    read = kernel(OWN_WORD + "ld.global.u32 %r0, [%d1];", "u64 a")
    half = kernel(OWN_WORD + "st.global.u16 [%d1], %r15;", "u64 a")
    other_half = kernel(OWN_WORD + "st.global.u16 [%d1+2], %r15;", "u64 a")
    device.launch(half, 1, 32, [a])
    with pytest.raises(Fault) as caught:
        device.launch(read, 1, 32, [a])
    assert caught.value.kind is Kind.UNDEFINED_MEMORY
    device.launch(other_half, 1, 31, [a])
    with pytest.raises(Fault) as caught:
        device.launch(read, 1, 32, [a])
    assert caught.value.thread == (31, 0, 0)
    assert not a.defined()
    device.launch(other_half, 1, 32, [a])
    device.launch(read, 1, 32, [a])
    assert a.defined()


def test_shared_memory_starts_uninitialised_in_every_block():
    body = SHARED_WORD + "ld.shared.u32 %r0, [%r13];"
    assert fault(body, module=SHARED).kind is Kind.UNDEFINED_MEMORY
    first_block = (
        SHARED_WORD
        + """mov.u32 %r1, %ctaid.x; setp.eq.u32 %p0, %r1, 0;
        @%p0 st.shared.u32 [%r13], %r15; ld.shared.u32 %r0, [%r13];"""
    )
    assert fault(first_block, module=SHARED, blocks=2).block == (1, 0, 0)


@pytest.mark.parametrize(
    "use",
    [
        "add.u32 %r1, %r0, 1;",
        "setp.eq.u32 %p0, %r0, 0;",
        "st.global.u32 [%d1], %r0;",
        "cvt.u64.u32 %d2, %r0; add.u64 %d2, %d2, %d0; ld.global.u32 %r1, [%d2];",
        "mov.u32 %r1, %r0; add.u32 %r1, %r1, 1;",
        "selp.b32 %r1, %r0, %r15, %p1; st.global.u32 [%d1], %r1;",
        "mov.b64 %d2, {%r0, %r15}; st.global.u64 [%d0], %d2;",
        "@%p2 add.u32 %r1, %r15, 1;",  # a guard
        "selp.b32 %r1, 1, 2, %p2;",
    ],
)
def test_reading_a_register_that_was_never_written(use):
    body = OWN_WORD + "setp.eq.u32 %p1, %r15, 3;" + use
    assert fault(body).kind is Kind.UNDEFINED_REGISTER


def test_a_register_written_by_some_threads():
    body = OWN_WORD + "setp.ne.u32 %p1, %r15, 3; @%p1 mov.u32 %r0, 7;"
    assert fault(body + "st.global.u32 [%d1], %r0;").thread == (3, 0, 0)
    run(body + "@%p1 st.global.u32 [%d1], %r0;")
    assert fault(body + "mov.u32 %r1, %r0; st.global.u32 [%d1], %r1;").thread == (3, 0, 0)
    guarded = "setp.gt.u32 %p2, %r15, 1; mov.u32 %r1, 5; @%p2 mov.u32 %r1, %r0; st.global.u32 [%d1], %r1;"
    assert fault(body + guarded).thread == (3, 0, 0)
    # copies and selections may carry the missing value along, as long as nobody uses it
    a = run(body + "mov.u32 %r1, %r0; selp.b32 %r2, %r1, 9, %p1; st.global.u32 [%d1], %r2;")
    assert a.numpy().tolist() == [7, 7, 7, 9] + [7] * 28


def test_half_of_a_register_that_was_never_written():
    body = OWN_WORD + "mov.b64 %d2, {%r15, %r1}; mov.b64 %d3, %d2; mov.b64 {%r2, %r3}, %d3; st.global.u32 [%d1], "
    assert run(body + "%r2;").numpy().tolist() == list(range(32))
    assert fault(body + "%r3;").kind is Kind.UNDEFINED_REGISTER
    # packing and unpacking lanes of which some are missing
    some = (
        OWN_WORD + "setp.ne.u32 %p1, %r15, 3; @%p1 mov.u32 %r0, 7; mov.b64 %d2, {%r15, %r0}; mov.b64 {%r2, %r3}, %d2;"
    )
    assert run(some + "st.global.u32 [%d1], %r2;").numpy().tolist() == list(range(32))
    assert fault(some + "st.global.u32 [%d1], %r3;").thread == (3, 0, 0)


NEIGHBOUR = "xor.b32 %r1, %r15, 1; mad.wide.u32 %d2, %r1, 4, %d0;"  # %d2: the word of the other thread of a pair


@pytest.mark.parametrize(
    "body",
    [
        "st.global.u32 [%d0], %r15;",  # all write one word
        "st.global.u32 [%d1], %r15; ld.global.u32 %r2, [%d2];",  # written, then read by another
        "ld.global.u32 %r2, [%d2]; st.global.u32 [%d1], %r15;",  # read, then written by another
        "ld.global.u32 %r2, [%d0]; st.global.u32 [%d1], %r15;",  # read by all
        "st.global.u32 [%d1], %r15; st.global.u32 [%d2], %r15;",
        "ld.global.u32 %r2, [%d1]; ld.global.u32 %r2, [%d2]; st.global.u32 [%d1], %r15;",  # by several
        # by all in one instruction, then written by the last of them
        "ld.global.u32 %r2, [%d0]; setp.eq.u32 %p0, %r15, 31; @%p0 st.global.u32 [%d0], %r15;",
        "st.global.u8 [%d1+1], %r15; ld.global.u32 %r2, [%d2];",  # a byte of a word
        "st.global.u32 [%d1], %r15; bar.sync 0; ld.global.u32 %r2, [%d2]; st.global.u32 [%d1], %r2;",
    ],
)
def test_races_within_a_block(body):
    assert fault(OWN_WORD + NEIGHBOUR + body).kind is Kind.RACE


@pytest.mark.parametrize(
    "body",
    [
        "ld.global.u32 %r2, [%d1]; st.global.u32 [%d1], %r15; ld.global.u32 %r2, [%d1]; st.global.u32 [%d1], %r2;",
        "ld.global.u32 %r2, [%d0]; ld.global.u32 %r2, [%d2];",
        "st.global.u32 [%d1], %r15; bar.sync 0; ld.global.u32 %r2, [%d2]; bar.sync 0; st.global.u32 [%d1], %r2;",
        "ld.global.u32 %r2, [%d0]; bar.sync 0; st.global.u32 [%d1], %r15;",
        "st.global.u8 [%d1+1], %r15; ld.global.u8 %r2, [%d2]; st.global.u16 [%d1+2], %r15;",
    ],
)
def test_no_race_within_a_block(body):
    run(OWN_WORD + NEIGHBOUR + body)


def test_a_barrier_orders_nothing_between_blocks():
    other_block = "xor.b32 %r1, %r15, 32; mad.wide.u32 %d2, %r1, 4, %d0;"
    for body in (
        "st.global.u32 [%d1], %r15; bar.sync 0; ld.global.u32 %r2, [%d2];",
        "ld.global.u32 %r2, [%d2]; bar.sync 0; st.global.u32 [%d1], %r15;",
        "ld.global.u32 %r2, [%d1]; ld.global.u32 %r2, [%d2]; bar.sync 0; st.global.u32 [%d1], %r15;",
        "ld.global.u32 %r2, [%d2]; bar.sync 0; ld.global.u32 %r2, [%d1]; bar.sync 0; st.global.u32 [%d1], %r15;",
        # read by both blocks in one instruction, then written by the last thread of the last
        "ld.global.u32 %r2, [%d0]; bar.sync 0; setp.eq.u32 %p0, %r15, 63; @%p0 st.global.u32 [%d0], %r15;",
    ):
        assert fault(GLOBAL_WORD + other_block + body, words=64, blocks=2).kind is Kind.RACE, body


def test_a_race_between_blocks_that_do_not_run_together(monkeypatch):
    monkeypatch.setattr(machine, "CHUNK_THREADS", 32)
    caught = fault(
        GLOBAL_WORD + "and.b32 %r1, %r15, 31; mad.wide.u32 %d2, %r1, 4, %d0; st.global.u32 [%d2], %r1;", blocks=3
    )
    assert (caught.kind, caught.block) == (Kind.RACE, (1, 0, 0))
    assert "linear thread 0 of linear block 0" in caught.detail


@pytest.mark.parametrize("seed", range(60))
def test_races_of_random_programs(seed):
    """Four threads in two blocks access 16 bytes at random, with barriers; every pair of accesses is compared."""
    generator = np.random.default_rng(seed)
    threads, words = 4, 16
    body = GLOBAL_WORD.replace("mad.lo.u32 %r15, %r14, 32", "mad.lo.u32 %r15, %r14, 2") + "ld.param.u64 %d2, [where];"
    offsets = []  # of each step, per thread; 99 where the thread does nothing
    accesses: list[tuple[int, int, int, range, bool]] = []  # thread, block, barriers passed, bytes, writes
    barriers = 0
    for step in range(generator.integers(2, 8)):
        if generator.random() < 0.3:
            barriers += 1
            body += "bar.sync 0;"
            continue
        size, writes = int(2 ** generator.integers(0, 4)), bool(generator.random() < 0.4)
        offset = generator.integers(0, words // size, threads) * size
        offset[generator.random(threads) < 0.5] = 99
        body += f"""mad.wide.u32 %d3, %r15, 4, %d2; ld.global.u32 %r1, [%d3+{16 * len(offsets)}];
            setp.ne.u32 %p0, %r1, 99; cvt.u64.u32 %d4, %r1; add.u64 %d4, %d4, %d0;"""
        body += f"mov.u64 %d5, {step}; @%p0 " + (
            f"st.global.u{8 * size} [%d4], %d5;" if writes else f"ld.global.u{8 * size} %d5, [%d4];"
        )
        offsets.append(offset)
        for thread, at in enumerate(offset.tolist()):
            if at != 99:
                accesses.append((thread, thread // 2, barriers, range(at, at + size), writes))
    expected = any(
        a[0] != b[0] and (a[4] or b[4]) and set(a[3]) & set(b[3]) and not (a[1] == b[1] and a[2] != b[2])
        for i, a in enumerate(accesses)
        for b in accesses[:i]
    )
    device = Device()
    buffers = [device.buffer("a", np.zeros(words, np.uint8))]
    buffers.append(device.buffer("where", np.array(offsets, np.uint32).reshape(-1), writable=False))
    program = kernel(body, "u64 a, u64 where")
    if not expected:
        device.launch(program, 2, 2, buffers)
        return
    with pytest.raises(Fault) as caught:
        device.launch(program, 2, 2, buffers)
    assert caught.value.kind is Kind.RACE


def test_launches_are_ordered():
    device = Device()
    a = device.buffer("a", np.zeros(32, np.uint32))
    write = kernel(OWN_WORD + "st.global.u32 [%d1], %r15;", "u64 a")
    read = kernel(OWN_WORD + NEIGHBOUR + "ld.global.u32 %r2, [%d2];", "u64 a")
    device.launch(write, 1, 32, [a])
    device.launch(read, 1, 32, [a])
    device.launch(write, 1, 32, [a])


def test_races_in_shared_memory():
    other = "xor.b32 %r1, %r15, 1; mad.lo.u32 %r2, %r1, 4, %r14;"
    write = "st.shared.u32 [%r13], %r15;"
    read = "ld.shared.u32 %r0, [%r2];"
    assert fault(SHARED_WORD + other + write + read, module=SHARED).kind is Kind.RACE
    assert fault(SHARED_WORD + "st.shared.u32 [%r14], %r15;", module=SHARED).kind is Kind.RACE
    run(SHARED_WORD + other + write + "bar.sync 0;" + read, module=SHARED, blocks=3)


def test_the_threads_of_a_warp_may_store_one_value_to_one_shared_word():
    store = SHARED_WORD + "st.shared.u32 [%r14], 5;"
    run(store, module=SHARED)
    assert fault(store, module=SHARED, threads=64).kind is Kind.RACE  # two warps
    assert fault(OWN_WORD + "st.global.u32 [%d0], 5;").kind is Kind.RACE  # global memory


def test_a_non_coherent_load_needs_memory_that_the_launch_never_writes():
    load, store = "ld.global.nc.u32 %r2, [%d1];", "st.global.u32 [%d1], %r15;"
    run(OWN_WORD + load)
    assert fault(OWN_WORD + load + store).kind is Kind.RACE
    assert fault(OWN_WORD + store + load).kind is Kind.RACE


@pytest.mark.parametrize("opcode", ["div.s32", "div.u32", "rem.s32", "rem.u32"])
def test_division_by_zero(opcode):
    body = OWN_WORD + f"sub.u32 %r1, %r15, 3; {opcode} %r2, 7, %r1;"
    caught = fault(body)
    assert (caught.kind, caught.thread) == (Kind.DIVISION_BY_ZERO, (3, 0, 0))
    run(OWN_WORD + f"sub.u32 %r1, %r15, 3; setp.ne.u32 %p0, %r1, 0; @%p0 {opcode} %r2, 7, %r1;")


def test_a_barrier_that_some_threads_never_reach():
    body = OWN_WORD + "setp.eq.u32 %p0, %r15, 40; @%p0 ret; bar.sync 0;"
    assert fault(body, threads=64).kind is Kind.DEADLOCK
    run(body, threads=32)


def test_threads_at_two_different_barriers():
    body = OWN_WORD + "setp.lt.u32 %p0, %r15, 32; @%p0 bra low; bar.sync 0; bra end; low: bar.sync 0; end:"
    assert fault(body, threads=64).kind is Kind.DEADLOCK


def test_a_barrier_under_a_guard():
    assert fault(OWN_WORD + "setp.lt.u32 %p0, %r15, 5; @%p0 bar.sync 0;").kind is Kind.DEADLOCK
    run(OWN_WORD + "setp.lt.u32 %p0, %r15, 32; @%p0 bar.sync 0; @!%p0 bar.sync 0;")


def test_a_warp_barrier_serves_blocks_of_one_warp_only():
    run(OWN_WORD + NEIGHBOUR + "st.global.u32 [%d1], 1; bar.warp.sync -1; ld.global.u32 %r2, [%d2];")
    with pytest.raises(Unsupported):
        run(OWN_WORD + "bar.warp.sync -1;", threads=64)


@pytest.mark.parametrize(
    "operation",
    [
        "shfl.sync.bfly.b32 %r1, %r15, 1, 31, -1;",
        "vote.sync.any.pred %p1, %p0, -1;",
        "redux.sync.add.s32 %r1, %r15, -1;",
        "shfl.sync.bfly.b32 %r1, %r15, 1, 31, 1;",  # the mask leaves most of them out
    ],
)
def test_warp_operations_need_all_their_lanes(operation):
    body = OWN_WORD + f"setp.lt.u32 %p0, %r15, 7; @%p0 bra skip; {operation} skip:"
    assert fault(body).kind is Kind.DIVERGENCE


def test_a_shuffle_from_a_lane_outside_of_the_member_mask():
    half = OWN_WORD + "setp.lt.u32 %p0, %r15, 16; @%p0 shfl.sync.bfly.b32 %r1, %r15, {}, 31, 0xFFFF;"
    run(half.format(8))
    assert fault(half.format(16)).kind is Kind.DIVERGENCE


def test_a_branch_marked_uniform_that_is_not():
    body = OWN_WORD + "setp.lt.u32 %p0, %r15, {}; @%p0 bra.uni end; end:"
    assert fault(body.format(5), threads=64).kind is Kind.DIVERGENCE
    run(body.format(32), threads=64)  # the warps differ, the threads of each agree


def test_a_branch_table_that_is_left():
    body = OWN_WORD + "brx.idx %r15, targets; one: two: ret; targets: .branchtargets one, two;"
    run(body, threads=2)
    assert fault(body, threads=3).kind is Kind.OUT_OF_BOUNDS


def test_trap():
    caught = fault(OWN_WORD + "setp.eq.u32 %p0, %r15, 6; @%p0 trap;")
    assert (caught.kind, caught.thread) == (Kind.TRAP, (6, 0, 0))
    run(OWN_WORD + "setp.eq.u32 %p0, %r15, 60; @%p0 trap;")


def test_an_endless_loop(monkeypatch):
    monkeypatch.setattr(machine, "MAX_STEPS", 1000)
    assert fault("again: bra again;").kind is Kind.ENDLESS


def test_local_memory_is_private_and_starts_uninitialised():
    depot = ".local .align 4 .b8 depot[16];"
    body = "mov.u32 %r1, %tid.x; mov.u64 %d0, depot; st.local.u32 [%d0+4], %r1; ld.local.u32 %r0, [%d0+4];"
    assert results(depot + body, 64) == list(range(64))
    with pytest.raises(Fault, match="uninitialised memory"):
        results(depot + body.replace("r0, [%d0+4]", "r0, [%d0+8]"), 64)
    with pytest.raises(Fault, match="out-of-bounds"):
        results(depot + body.replace("st.local.u32 [%d0+4]", "st.local.u32 [%d0+16]"), 64)


def test_launches_that_the_hardware_would_refuse():
    device = Device()
    a = device.buffer("a", np.zeros(4, np.uint32))
    plain = kernel("", "u64 a, u32 n")
    for grid, block, args in (
        (1, 1025, [a, 1]),
        (1, (32, 64, 1), [a, 1]),
        ((1, 65536), 1, [a, 1]),
        (0, 1, [a, 1]),
        (1, 1, [a]),
        (1, 1, [a, np.int64(1)]),
        (1, 1, [a, b"123"]),
    ):
        with pytest.raises(ValueError):
            device.launch(plain, grid, block, args)
    with pytest.raises(OverflowError):
        device.launch(plain, 1, 1, [a, 1 << 32])
