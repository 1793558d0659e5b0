"""The device: buffers, and launches that run a kernel's threads in lockstep.

All threads of a chunk of blocks run together. Of all the positions at which threads wait, the lowest runs next, until
it branches or meets other waiting threads; so a loop is left before what follows it begins, and branches join again
without any analysis of the control flow. Since a race is a fault, no other order could give another result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from .faults import Fault, Kind, Unsupported
from .memory import BUFFER_SPACING, WINDOWS, Memory, Region, stamps
from .ops import Program, Step, compile_kernel
from .parse import Kernel
from .report import Count, Report

WARP = 32
CHUNK_THREADS = 1 << 15  # run together: enough to hide Python's own time, few enough for the caches
MAX_STEPS = 5_000_000  # instructions of a chunk, whatever the number of threads, before it counts as endless
LIMITS = {"grid": (2**31 - 1, 65535, 65535), "block": (1024, 1024, 64)}
MAX_BLOCK_THREADS = 1024


class Buffer:
    """Device memory with guard ranges around it; `address` is what a kernel gets as the pointer."""

    def __init__(self, region: Region, shape: tuple[int, ...], dtype: np.dtype):
        self.region = region
        self.shape = shape
        self.dtype = dtype

    @property
    def address(self) -> int:
        return self.region.base

    def numpy(self) -> np.ndarray:
        """A copy of the contents, whether or not all of it was written."""
        return self.region.bytes().copy().view(self.dtype).reshape(self.shape)

    def defined(self) -> bool:
        """Whether every byte was written."""
        region = self.region
        if region.defined is None:
            return True
        flags = np.repeat(region.defined, region.granule)[region.base - region.start :][: region.size]
        return bool(flags.all())


class Device:
    """Holds buffers and launches kernels on them, one after the other."""

    def __init__(self) -> None:
        self.buffers: dict[str, Buffer] = {}

    def buffer(self, name: str, contents: np.ndarray, writable: bool = True, misalignment: int = 0) -> Buffer:
        """A buffer with a copy of `contents`, at an address that is `misalignment` (0..31) modulo 512."""
        contents = np.ascontiguousarray(contents)
        buffer = self._place(name, contents.shape, contents.dtype, writable, misalignment)
        buffer.region.bytes()[:] = contents.reshape(-1).view(np.uint8)
        return buffer

    def empty(self, name: str, shape: int | tuple[int, ...], dtype: np.dtype | type, misalignment: int = 0) -> Buffer:
        """A buffer that was never written: reading a byte of it before writing it is a fault."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        buffer = self._place(name, shape, np.dtype(dtype), True, misalignment)
        buffer.region.bytes()[:] = 0xA5
        buffer.region.undefine()
        return buffer

    def _place(self, name: str, shape: tuple[int, ...], dtype: np.dtype, writable: bool, misalignment: int) -> Buffer:
        if name in self.buffers:
            raise ValueError(f"there is a buffer {name!r} already")
        base = BUFFER_SPACING * (len(self.buffers) + 1) + misalignment
        region = Region(name, "global", base, math.prod(shape) * dtype.itemsize, writable=writable)
        self.buffers[name] = Buffer(region, shape, dtype)
        return self.buffers[name]

    def launch(
        self,
        kernel: Kernel,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[Buffer | int | float | np.generic | bytes],
        shared_bytes: int = 0,
        blocks: range | None = None,
    ) -> Report:
        """Runs a launch, or some `blocks` of one that is too large to run whole, and returns what it did.

        `args` follow the kernel's parameters: a buffer passes its address, a Python int or float takes the
        parameter's type, a numpy scalar or `bytes` (a struct by value: `bytes(ctypes_structure)`) must have its size.
        `shared_bytes` is the dynamic shared memory. Raises `Fault` for what a thread did wrong, `Unsupported` for PTX
        that is not modelled, ValueError for a launch that the hardware would refuse.
        """
        launch = _Launch(self, kernel, _three(grid), _three(block), _pack(kernel, args), shared_bytes)
        with np.errstate(all="ignore"):
            return launch.run(blocks or range(math.prod(launch.grid)))


def _three(size: int | Sequence[int]) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, int) else tuple(int(each) for each in size)
    x, y, z = (*sizes, 1, 1, 1)[:3]
    return x, y, z


def _pack(kernel: Kernel, args: Sequence[Buffer | int | float | np.generic | bytes]) -> bytes:
    """The parameter block, laid out as the ABI lays out a struct of the parameters."""
    if len(args) != len(kernel.parameters):
        raise ValueError(f"{kernel.name} takes {len(kernel.parameters)} arguments, got {len(args)}")
    block = b""
    for parameter, arg in zip(kernel.parameters, args, strict=True):
        size = parameter.size or 0
        if isinstance(arg, Buffer):
            arg = arg.address
        if isinstance(arg, bytes | np.generic):
            data = arg if isinstance(arg, bytes) else arg.tobytes()
        elif isinstance(arg, float):
            data = np.array(arg, {"f32": np.float32, "f64": np.float64}[parameter.type]).tobytes()
        else:
            data = int(arg).to_bytes(size, "little", signed=arg < 0)
        if len(data) != size:
            raise ValueError(f"{parameter.name} has {size} bytes, got {len(data)}")
        block += b"\0" * (-len(block) % parameter.align) + data
    return block


class _Launch:
    """One launch under way; `current` is the instruction that executes."""

    def __init__(self, device: Device, kernel: Kernel, grid, block, parameters: bytes, shared_bytes: int):
        self.kernel = kernel
        self.program: Program = compile_kernel(kernel)
        self.grid, self.block = grid, block
        self.block_threads = math.prod(block)
        self._check_limits()
        self.warps_per_block = -(-self.block_threads // WARP)
        self.parameters = parameters
        self.shared_bytes = self.program.shared_bytes + shared_bytes
        module = [_module_region(variable, address) for variable, address in self.program.module_variables]
        self.regions = [buffer.region for buffer in device.buffers.values()] + module
        for region in self.regions:
            region.begin_launch()
        self.memory = Memory(self.block_threads, self.regions)
        block = Region("parameters", "param", WINDOWS["param"], len(parameters), writable=False)
        block.bytes()[:] = np.frombuffer(parameters, np.uint8)
        self.memory.windows["param"] = block
        self.counts = [Count(each.line, each.opcode, each.text) for each in kernel.body]
        self.current = self.counts[0]

    def _check_limits(self) -> None:
        for name, size in (("grid", self.grid), ("block", self.block)):
            if not all(1 <= each <= limit for each, limit in zip(size, LIMITS[name], strict=True)):
                raise ValueError(f"{name} {size} is outside of 1..{LIMITS[name]}")
        most = math.prod(self.kernel.max_threads or (MAX_BLOCK_THREADS,))
        if self.block_threads > most:
            raise ValueError(f"{self.block_threads} threads a block; {self.kernel.name} takes at most {most}")
        needed = self.kernel.required_threads
        if needed and _three(needed) != self.block:
            raise ValueError(f"{self.kernel.name} needs blocks of {_three(needed)}, got {self.block}")

    def run(self, blocks: range) -> Report:
        step = max(1, CHUNK_THREADS // self.block_threads)
        for first in blocks[::step]:
            self._begin_chunk(first, min(step, blocks.stop - first))
            self._run_chunk()
        traffic = {region.name: region.traffic for region in self.regions}
        return Report(self.kernel.name, self.counts, traffic)

    def _begin_chunk(self, first_block: int, blocks: int) -> None:
        self.blocks = blocks
        self.first_block = first_block
        self.steps = 0
        self.epochs = np.zeros(blocks, np.int64)  # barriers passed by each block
        self.specials: dict[str, np.ndarray] = {}
        for space, size, owners in (
            ("shared", self.shared_bytes, blocks),
            ("local", self.program.local_bytes, blocks * self.block_threads),
        ):
            region = Region(f"{space} memory", space, WINDOWS[space], size, owners)
            region.undefine()
            self.memory.windows[space] = region

    def _run_chunk(self) -> None:
        top = Group(self, None, np.arange(self.blocks * self.block_threads))
        waiting: dict[int, np.ndarray] = {0: top.positions}  # threads by the position of their next instruction
        parked: dict[int, np.ndarray] = {}  # threads at a barrier
        while waiting or parked:
            if not waiting:
                waiting, parked = self._open_barrier(top, parked), {}
            at = min(waiting)
            threads = waiting.pop(at)
            group = top if len(threads) == top.size else top.subset(threads)
            self._turn(group, at, waiting, parked)
            group.merge_into_parent()

    def _turn(self, group: Group, at: int, waiting: dict[int, np.ndarray], parked: dict[int, np.ndarray]) -> None:
        """Runs a group until it splits, leaves, waits at a barrier or meets other threads."""
        steps = self.program.steps
        meeting = min(waiting, default=len(steps))
        while at < meeting:
            step = steps[at]
            self.current = self.counts[at]
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise group.fault(Kind.ENDLESS, 0, detail=f"more than {MAX_STEPS} instructions")
            self.current.executed += group.warp_count
            if step.kind == "plain":
                self._execute(step, group)
                at += 1
                continue
            chosen = group.chosen(step)
            if chosen is None and step.kind == "branch":
                at = step.targets[0]
            elif chosen is not None and not chosen.any():
                at += 1
            else:
                self._split(group, at, chosen, waiting, parked)
                return
        _add(waiting, at, group.positions)

    def _split(self, group: Group, at: int, chosen: np.ndarray | None, waiting, parked) -> None:
        """Sends the chosen threads (None: all) where the control instruction says, and the others on."""
        step = self.program.steps[at]
        if chosen is None:
            chosen = np.ones(group.size, bool)
        elif step.uniform:
            group.require_uniform(chosen)
        taken, rest = group.positions[chosen], group.positions[~chosen]
        if len(rest):
            _add(waiting, at + 1, rest)
        if step.kind == "branch":
            _add(waiting, step.targets[0], taken)
        elif step.kind == "table":
            part = group.subset(np.flatnonzero(chosen))
            index = np.broadcast_to(step.selector(part), (part.size,))
            if (index >= len(step.targets)).any():
                raise part.fault(Kind.OUT_OF_BOUNDS, int(np.argmax(index >= len(step.targets))), detail="branch table")
            for each in np.unique(index):
                _add(waiting, step.targets[int(each)], taken[index == each])
        elif step.kind == "barrier":
            if step.one_warp and self.block_threads > WARP:
                raise Unsupported("bar.warp.sync in a block of several warps")
            _add(parked, at, taken)

    def _execute(self, step: Step, group: Group) -> None:
        chosen = group.chosen(step)
        if chosen is None:
            step.run(group)
        elif chosen.any():
            part = group.subset(np.flatnonzero(chosen))
            step.run(part)
            part.merge_into_parent()

    def _open_barrier(self, top: Group, parked: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Lets every block go whose threads all wait at one barrier; anything else is a deadlock."""
        self.current = self.counts[min(parked)]
        barrier = np.full(top.size, -1)
        for at, threads in parked.items():
            barrier[threads] = at
        per_block = barrier.reshape(self.blocks, -1)
        stuck = (per_block >= 0).any(axis=1) & (per_block != per_block[:, :1]).any(axis=1)
        if stuck.any():
            lane = int(np.flatnonzero((per_block >= 0) & stuck[:, None])[0])
            missing = int((per_block[lane // self.block_threads] != barrier[lane]).sum())
            self.current = self.counts[int(barrier[lane])]
            raise top.fault(Kind.DEADLOCK, lane, detail=f"{missing} threads of the block never come")
        self.epochs[per_block[:, 0] >= 0] += 1
        return {at + 1: threads for at, threads in parked.items()}

    def warp_of(self, threads: np.ndarray) -> np.ndarray:
        """The warp of each thread; both counted in the order of blocks."""
        return threads // self.block_threads * self.warps_per_block + threads % self.block_threads // WARP

    def special(self, name: str) -> np.ndarray:
        """A special register, of every thread of the chunk or one element for all."""
        if name not in self.specials:
            self.specials[name] = self._special(name).astype(np.uint32)
        return self.specials[name]

    def _special(self, name: str) -> np.ndarray:
        base, _, axis = name.lstrip("%").partition(".")
        dimension = "xyz".find(axis) if axis else 0
        if base in ("ntid", "nctaid"):
            return np.array([(self.block if base == "ntid" else self.grid)[dimension]])
        linear = np.arange(self.blocks * self.block_threads)
        if base == "tid":
            return _coordinates(linear % self.block_threads, self.block)[dimension]
        if base == "ctaid":
            return _coordinates(linear // self.block_threads + self.first_block, self.grid)[dimension]
        lane = linear % self.block_threads % WARP
        if base == "laneid":
            return lane
        below = (1 << lane) - 1
        above = (1 << WARP) - 1 - below
        masks = {"eq": 1 << lane, "lt": below, "le": below | 1 << lane, "gt": above ^ 1 << lane, "ge": above}
        return masks[base.removeprefix("lanemask_")]


def _module_region(variable, address: int) -> Region:
    region = Region(variable.name, variable.space, address, variable.size or 0, writable=variable.space != "const")
    if variable.contents is not None:
        region.bytes()[:] = np.frombuffer(variable.contents, np.uint8)
    return region


def _coordinates(linear, size: tuple[int, int, int]):
    return linear % size[0], linear // size[0] % size[1], linear // (size[0] * size[1])


def _add(waiting: dict[int, np.ndarray], at: int, threads: np.ndarray) -> None:
    """Threads join those that wait at a position; the positions of a group stay sorted."""
    waiting[at] = np.sort(np.concatenate([waiting[at], threads])) if at in waiting else threads


class Group:
    """Threads that execute an instruction together: the chunk, or some lanes of a larger group.

    Registers are arrays with one element per thread, or a single element shared by all; they are replaced and never
    changed, so instructions may share them. A part copies a register from its parent when it first reads it and hands
    back what it wrote when it ends.
    """

    def __init__(self, machine: _Launch, parent: Group | None, index: np.ndarray):
        self.machine = machine
        self.parent = parent
        self.index = index
        self.size = len(index)
        self.values: dict[str, np.ndarray] = {}
        self.undefined: dict[str, np.ndarray] = {}  # ones for bits of a register that hold nothing; absent: none
        self.written: set[str] = set()

    def subset(self, index: np.ndarray) -> Group:
        return Group(self.machine, self, index)

    @cached_property
    def positions(self) -> np.ndarray:
        """Positions of the threads in the chunk, ascending."""
        return self.index if self.parent is None else self.parent.positions[self.index]

    @cached_property
    def blocks(self) -> np.ndarray:
        return self.positions // self.machine.block_threads

    @cached_property
    def lanes(self) -> np.ndarray:
        return self.positions % self.machine.block_threads % WARP

    @cached_property
    def warps(self) -> np.ndarray:
        return self.machine.warp_of(self.positions)

    @cached_property
    def warp_starts(self) -> np.ndarray:
        """Where in the group each warp begins."""
        return np.flatnonzero(np.diff(self.warps, prepend=-1))

    @cached_property
    def warp_count(self) -> int:
        return len(self.warp_starts)

    @cached_property
    def active(self) -> np.ndarray:
        """For each thread, the bits of its warp's lanes that are in the group."""
        return self.spread(np.bitwise_or.reduceat(np.uint32(1) << self.lanes.astype(np.uint32), self.warp_starts))

    def spread(self, per_warp: np.ndarray) -> np.ndarray:
        """One value a warp -> one value a thread."""
        return np.repeat(per_warp, np.diff(self.warp_starts, append=self.size))

    @property
    def stamps(self) -> np.ndarray:
        """Who accesses memory here, for the race detection; not cached, because a barrier changes it."""
        machine = self.machine
        return stamps(self.positions + machine.first_block * machine.block_threads, machine.epochs[self.blocks])

    def special(self, name: str) -> np.ndarray:
        value = self.machine.special(name)
        return value if len(value) == 1 else value[self.positions]

    def peek(self, name: str) -> np.ndarray | None:
        """A register's bits, defined or not; None when no thread ever wrote it."""
        value = self.values.get(name)
        if value is None and self.parent is not None:
            value = self.parent.peek(name)
            if value is not None:
                self.values[name] = value = value if len(value) == 1 else value[self.index]
                undefined = self.parent.undefined.get(name)
                if undefined is not None and (undefined := undefined[self.index]).any():
                    self.undefined[name] = undefined
        return value

    def read(self, name: str) -> np.ndarray:
        value = self.peek(name)
        if value is None:
            raise self.fault(Kind.UNDEFINED_REGISTER, 0, detail=name)
        if name in self.undefined:
            raise self.fault(Kind.UNDEFINED_REGISTER, int(np.argmax(self.undefined[name] != 0)), detail=name)
        return value

    def write(self, name: str, value: np.ndarray, undefined: np.ndarray | None = None) -> None:
        self.values[name] = value
        self.written.add(name)
        if undefined is not None and undefined.any():
            self.undefined[name] = undefined
        else:
            self.undefined.pop(name, None)

    def merge_into_parent(self) -> None:
        parent = self.parent
        if parent is None:
            return
        for name in self.written:
            value = self.values[name]
            old = parent.peek(name)
            undefined = None
            if old is None:
                merged = np.zeros(parent.size, value.dtype)
                undefined = ~merged
            else:
                merged = old.copy() if len(old) == parent.size else np.repeat(old, parent.size)
                if name in parent.undefined:
                    undefined = parent.undefined[name].copy()
                elif name in self.undefined:
                    undefined = np.zeros(parent.size, value.dtype)
            merged[self.index] = value
            if undefined is not None:
                undefined[self.index] = self.undefined.get(name, 0)
            parent.write(name, merged, undefined)

    def chosen(self, step: Step) -> np.ndarray | None:
        """The lanes for which the guard holds; None: all of them."""
        if step.guard is None:
            return None
        value = self.read(step.guard)
        if step.negated:
            value = ~value
        if value.all():
            return None
        return np.broadcast_to(value, (self.size,))

    def require_uniform(self, chosen: np.ndarray) -> None:
        """Faults where the threads of one warp disagree."""
        expected = self.spread(chosen[self.warp_starts])
        if (chosen != expected).any():
            raise self.fault(Kind.DIVERGENCE, int(np.argmax(chosen != expected)), detail="branch marked uniform")

    def fault(self, kind: Kind, lane: int, address: int | None = None, detail: str = "") -> Fault:
        machine, count = self.machine, self.machine.current
        position = int(self.positions[lane])
        thread = _coordinates(position % machine.block_threads, machine.block)
        block = _coordinates(position // machine.block_threads + machine.first_block, machine.grid)
        return Fault(kind, machine.kernel.name, count.line, count.text, thread, block, address, detail)
