"""Memory that judges and counts its accesses.

A `Region` is one buffer, or the shared or local memory of every block or thread that runs together. Beside the bytes
it keeps, per granule, whether they were ever written and who touched them in this launch. A granule is the smallest
access met so far (at most a 32-byte sector), so that 16-byte vectors are followed one by one and not byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .faults import Fault, Kind, Unsupported
from .report import Count, Traffic

if TYPE_CHECKING:
    from .machine import Group

SECTOR = 32  # bytes: the unit in which a GPU moves data between its L2 cache and DRAM
# Global buffers lie 64 GiB apart, further than any index error of a test reaches; the windows of the other state
# spaces lie below, within 32 bits. A generic address is the same number in every state space.
BUFFER_SPACING = 1 << 36
WINDOW_SPACING = 1 << 24
WINDOWS = {"shared": 1 * WINDOW_SPACING, "local": 2 * WINDOW_SPACING, "param": 3 * WINDOW_SPACING}

# A stamp says who touched a granule last: thread + 1 in the low bits, above it how many barriers the thread's block
# had passed, and two flags for readers. 0 is nobody.
_THREAD = (1 << 40) - 1
_EPOCH_SHIFT = 40
_EVERYONE = 1 << 61  # threads of several blocks, or a non-coherent load: nobody may write
_MANY = 1 << 62  # several threads of that block since its last barrier


def stamps(threads: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    return (epochs << _EPOCH_SHIFT) | (threads + 1)


class Region:
    """`size` bytes from address `base`, once for each of `owners` (blocks of shared, threads of local memory)."""

    def __init__(self, name: str, space: str, base: int, size: int, owners: int = 1, writable: bool = True):
        self.name = name
        self.space = space
        self.base = base
        self.size = size
        self.writable = writable
        self.start = base - base % SECTOR
        self.stride = -(-(base - self.start + size) // SECTOR) * SECTOR
        self.data = np.zeros(self.stride * owners, np.uint8)
        self.granule = SECTOR
        self.defined: np.ndarray | None = None  # per granule; None: all of it
        self.begin_launch()

    def begin_launch(self) -> None:
        """Everything done before a launch is ordered before it."""
        self.writer: np.ndarray | None = None  # stamps per granule; None: nobody anywhere
        self.reader: np.ndarray | None = None
        sectors = self.stride // SECTOR
        self.traffic = Traffic(self.start, np.zeros(sectors, bool), np.zeros(sectors, bool))

    def undefine(self) -> None:
        self.defined = np.zeros(len(self.data) // self.granule, bool)

    def bytes(self) -> np.ndarray:
        """The buffer's own bytes, as a view."""
        return self.data[self.base - self.start :][: self.size]

    def refine(self, size: int) -> None:
        """Makes granules small enough for an access of `size` bytes."""
        if size < self.granule:
            for name in ("defined", "writer", "reader"):
                if (table := getattr(self, name)) is not None:
                    setattr(self, name, np.repeat(table, self.granule // size))
            self.granule = size

    def rows(self, table: np.ndarray, size: int) -> np.ndarray:
        """A per-granule table with one row per aligned `size` bytes."""
        return table.reshape(-1, size // self.granule)


@dataclass
class Access:
    """What the threads of `group` do to one region: each its `row` of `size` bytes, at its address."""

    group: Group
    lanes: np.ndarray | None  # positions in the group that executes; None: all of it
    region: Region
    address: np.ndarray
    size: int
    row: np.ndarray

    def fault(self, kind: Kind, wrong: np.ndarray, detail: str = "") -> Fault:
        """The fault of the first thread for which `wrong`, (threads,) or (threads, granules), holds."""
        lane = int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
        region = self.region
        place = f"{self.size} bytes at byte {int(self.address[lane]) - region.base} of {region.name}'s {region.size}"
        detail = f"{detail}; {place}" if detail else place
        return self.group.fault(kind, lane, int(self.address[lane]), detail)


class Memory:
    """Every region that a launch can reach."""

    def __init__(self, block_threads: int, regions: list[Region]):
        self.block_threads = block_threads
        self.regions = {region.base // BUFFER_SPACING: region for region in regions}
        self.windows: dict[str, Region] = {}

    def load(self, group: Group, address: np.ndarray, bits: int, width: int, space: str, coherent: bool) -> np.ndarray:
        """(threads, width) unsigned elements of `bits` bits from each thread's address."""
        size = width * bits // 8
        values = np.zeros((0, width), f"u{bits // 8}")
        for access in self._accesses(group, address, size, space):
            region = access.region
            if region.defined is not None:
                unknown = ~region.rows(region.defined, size)[access.row]
                if unknown.any():
                    raise access.fault(Kind.UNDEFINED_MEMORY, unknown)
            if region.writable and region.space != "local":
                self._judge_read(access, coherent)
            region.traffic.read[access.address - np.uint64(region.start) >> np.uint64(5)] = True
            region.traffic.bytes_read += size * access.group.size
            part = region.data.view(values.dtype).reshape(-1, width)[access.row]
            if access.lanes is None:
                return part
            if not len(values):
                values = np.zeros((group.size, width), values.dtype)
            values[access.lanes] = part
        return values

    def store(self, group: Group, address: np.ndarray, values: np.ndarray, space: str) -> None:
        """Writes (threads, width) unsigned elements."""
        width = values.shape[1]
        size = width * values.dtype.itemsize
        for access in self._accesses(group, address, size, space):
            region = access.region
            if not region.writable:
                raise access.fault(Kind.READ_ONLY, np.ones(access.group.size, bool))
            if region.space != "local":
                self._judge_write(access)
            if region.defined is not None:
                region.rows(region.defined, size)[access.row] = True
            region.traffic.written[access.address - np.uint64(region.start) >> np.uint64(5)] = True
            region.traffic.bytes_written += size * access.group.size
            part = values if access.lanes is None else values[access.lanes]
            region.data.view(values.dtype).reshape(-1, width)[access.row] = part
            if region.space != "local":
                self._judge_collisions(access, part)

    def _accesses(self, group: Group, address: np.ndarray, size: int, space: str) -> Iterator[Access]:
        """Counts what the group does, and yields it region by region, in bounds and aligned."""
        address = np.broadcast_to(address.astype(np.uint64, copy=False), (group.size,))
        misaligned = address & np.uint64(size - 1) != 0
        if misaligned.any():
            lane = int(np.argmax(misaligned))
            raise group.fault(Kind.MISALIGNED, lane, int(address[lane]), f"{size} bytes")
        _count(group, address, size, space)
        for region, lanes in self._resolve(address, space):
            part = group if lanes is None else group.subset(lanes)
            own = address if lanes is None else address[lanes]
            if region is None:
                raise part.fault(Kind.OUT_OF_BOUNDS, 0, int(own[0]), f"no {space} memory there")
            offset = own - np.uint64(region.start)
            access = Access(part, lanes, region, own, size, offset)
            outside = own - np.uint64(region.base) > np.uint64(max(region.size - size, 0))
            if region.size < size or outside.any():
                raise access.fault(Kind.OUT_OF_BOUNDS, outside | (region.size < size))
            if region.space in ("shared", "local"):
                owner = part.blocks if region.space == "shared" else part.positions
                offset = offset + owner.astype(np.uint64) * np.uint64(region.stride)
            region.refine(size)
            access.row = offset // np.uint64(size)
            yield access

    def _resolve(self, address: np.ndarray, space: str) -> list[tuple[Region | None, np.ndarray | None]]:
        """The regions that the addresses point into, each with its lanes (None: all)."""
        if space in WINDOWS:
            return [(self.windows.get(space), None)]
        slots = address // np.uint64(BUFFER_SPACING)
        if (slots == slots[0]).all():
            groups: list[tuple[int, np.ndarray | None]] = [(int(slots[0]), None)]
        else:
            groups = [(int(slot), np.flatnonzero(slots == slot)) for slot in np.unique(slots)]
        found: list[tuple[Region | None, np.ndarray | None]] = []
        for slot, lanes in groups:
            region = self.regions.get(slot)
            if space == "generic" and slot == 0:
                windows = np.unique((address if lanes is None else address[lanes]) // np.uint64(WINDOW_SPACING))
                if len(windows) > 1:
                    raise Unsupported("a generic access to several state spaces below 4 GiB in one instruction")
                region = {each.base // WINDOW_SPACING: each for each in self.windows.values()}.get(int(windows[0]))
            elif region is not None and space not in ("generic", region.space):
                region = None
            found.append((region, lanes))
        return found

    def _conflicts(self, stamp: np.ndarray, mine: np.ndarray) -> np.ndarray:
        """Where `stamp` is another thread's and no barrier lies between it and this access."""
        thread, me = (stamp & _THREAD) - 1, (mine & _THREAD) - 1
        other = (stamp != 0) & ((thread != me) | (stamp >= _EVERYONE))
        if not other.any():
            return other
        epoch = (stamp & (_EVERYONE - 1)) >> _EPOCH_SHIFT
        same_block = thread // self.block_threads == me // self.block_threads
        ordered = same_block & (epoch < (mine & (_EVERYONE - 1)) >> _EPOCH_SHIFT) & (stamp & _EVERYONE == 0)
        return other & ~ordered

    def _race(self, access: Access, conflict: np.ndarray, stamp: np.ndarray, what: str) -> Fault:
        lane, column = np.argwhere(conflict)[0]
        thread = (int(stamp[lane, column]) & _THREAD) - 1
        other = f"linear thread {thread % self.block_threads} of linear block {thread // self.block_threads}"
        return access.fault(Kind.RACE, conflict, f"{what} by {other}")

    def _judge_read(self, access: Access, coherent: bool) -> None:
        region, size, row = access.region, access.size, access.row
        mine = access.group.stamps[:, None]
        if region.writer is not None:
            written = region.rows(region.writer, size)[row]
            conflict = self._conflicts(written, mine) if coherent else written != 0
            if conflict.any():
                what = "reads what was written" if coherent else "non-coherent load of what the launch wrote,"
                raise self._race(access, conflict, written, what)
        if region.reader is None:
            region.reader = np.zeros(len(region.data) // region.granule, np.int64)
        table = region.rows(region.reader, size)
        mine = np.broadcast_to(mine if coherent else mine | _EVERYONE, (len(mine), table.shape[1]))
        before = table[row]
        shared = self._conflicts(before, mine)
        table[row] = np.where(shared, self._joined(before, mine), mine) if shared.any() else mine
        # Several lanes of this very instruction may have read one granule: the last is in the table, the others join.
        after = table[row]
        lost = self._conflicts(after, mine)
        if lost.any():
            joined = self._joined(after, mine)
            for flag in (_MANY, _EVERYONE):
                lane, column = np.nonzero(lost & (joined & flag != 0))
                table[row[lane], column] |= flag

    def _joined(self, stamp: np.ndarray, mine: np.ndarray) -> np.ndarray:
        """The stamp of the readers so far and of this one, which no barrier separates."""
        same_block = ((stamp & _THREAD) - 1) // self.block_threads == ((mine & _THREAD) - 1) // self.block_threads
        return stamp | np.where(same_block, _MANY, _EVERYONE) | (mine & _EVERYONE)

    def _judge_write(self, access: Access) -> None:
        region, size, row = access.region, access.size, access.row
        mine = access.group.stamps[:, None]
        if region.reader is not None:
            read = region.rows(region.reader, size)[row]
            if (conflict := self._conflicts(read, mine)).any():
                raise self._race(access, conflict, read, "writes what was read")
        if region.writer is None:
            region.writer = np.zeros(len(region.data) // region.granule, np.int64)
        table = region.rows(region.writer, size)
        written = table[row]
        if (conflict := self._conflicts(written, mine)).any():
            raise self._race(access, conflict, written, "writes what was written")
        table[row] = mine

    def _judge_collisions(self, access: Access, values: np.ndarray) -> None:
        """Two threads that wrote the same bytes in this very instruction. One case is well defined and common in
        reductions by Triton: the threads of a warp store one value to one word of shared memory."""
        region, size, group = access.region, access.size, access.group
        assert region.writer is not None
        written = region.rows(region.writer, size)[access.row]
        lost = written != group.stamps[:, None]
        if not lost.any():
            return
        conflict = lost
        if region.space == "shared":
            stored = region.data.view(values.dtype).reshape(-1, values.shape[1])[access.row]
            warps = (group.machine.warp_of((stamp & _THREAD) - 1) for stamp in (written, group.stamps[:, None]))
            same = (stored == values).all(axis=1, keepdims=True) & np.equal(*warps)
            conflict = lost & ~same
        if conflict.any():
            raise self._race(access, conflict, written, "writes what was written")


def _count(group: Group, address: np.ndarray, size: int, space: str) -> None:
    """Adds the warp requests, the bytes, and the distinct sectors of each warp request."""
    count: Count = group.machine.current
    count.requests += group.warp_count
    count.bytes += size * group.size
    if space in WINDOWS:
        return
    sectors = (address // np.uint64(SECTOR)).astype(np.int64)
    step, same_warp = np.diff(sectors), np.diff(group.warps) == 0
    if ((step < 0) & same_warp).any():
        order = np.lexsort((sectors, group.warps))
        step = np.diff(sectors[order])
    count.sectors += 1 + int(np.count_nonzero((step != 0) | ~same_warp))
