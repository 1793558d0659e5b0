"""The instructions: each opcode that the interpreter knows, as a pattern of its full name and what it does.

A pattern spells every modifier that is allowed, so that a modifier nobody thought of is an error and not ignored.
`compile_kernel` turns the instructions of a kernel into `Step`s once; running a step needs no more decoding.

Registers without a value: `mov`, `selp` and packing carry the state of the operand that they pick along, as compilers
emit them for values that are not used later; every other reader of such a register commits a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from .faults import Approximate, Kind, Unsupported
from .memory import BUFFER_SPACING, WINDOWS
from .parse import (
    Address,
    Immediate,
    Instruction,
    Kernel,
    Not,
    Operand,
    Pair,
    Register,
    Sink,
    Special,
    Symbol,
    Variable,
    Vector,
)
from .values import (
    INTEGER_ROUNDING,
    SIGNED,
    UNSIGNED,
    Type,
    float_to_integer,
    fused_multiply_add,
    maximum,
    minimum,
    multiply_high,
    round_float,
    trunc_divide,
)

if TYPE_CHECKING:
    from .machine import Group

Array = np.ndarray
Source = Callable[["Group"], Array]
Run = Callable[["Group"], None]
MODULE_SLOTS = 1 << 10  # buffers of a test come below, module-scope variables from here on, in units of BUFFER_SPACING


def _nothing(group: Group) -> None:
    pass


def _no_selector(group: Group) -> Array:
    raise NotImplementedError


@dataclass
class Step:
    """One instruction, ready to run. `kind` is plain, branch, table, exit or barrier."""

    kind: str
    guard: str | None = None
    negated: bool = False
    run: Run = _nothing
    targets: tuple[int, ...] = ()
    uniform: bool = False  # the branch promises that the threads of a warp agree
    selector: Source = _no_selector  # of a table
    one_warp: bool = False  # a barrier for the threads of a warp


@dataclass
class Program:
    steps: list[Step]
    shared_bytes: int
    local_bytes: int
    module_variables: list[tuple[Variable, int]]  # with their addresses


class WrongLanes(Exception):
    """Raised by an elementwise function for the lanes that commit a fault."""

    def __init__(self, kind: Kind, lanes: Array):
        self.kind = kind
        self.lanes = lanes


@cache
def _type(name: str) -> Type:
    return Type(name)


# Elementwise instructions: pattern -> (result type, operand types, function of decoded operands).
Elementwise = tuple[str, tuple[str, ...], Callable[..., Array]]
ELEMENTWISE: list[tuple[re.Pattern[str], Callable[[re.Match[str]], Elementwise]]] = []
# The others: pattern -> function of (compiler, instruction, match) that returns a Step or what a plain step runs.
SPECIAL: list[tuple[re.Pattern[str], Callable[..., Step | Run]]] = []

INT = "([us](?:16|32|64))"
BITS = "(pred|b(?:16|32|64))"
FLOAT = "(f16|bf16|f32|f64|f16x2|bf16x2|f32x2)"
SPACE = r"(?:\.(param|global|shared|local|const)(?:::(?:entry|cta))?)?"
HINTS = r"(?:\.L1::(?:evict_\w+|no_allocate))?(?:\.L2::evict_\w+)?(\.L2::cache_hint)?(?:\.L2::(?:64|128|256)B)?"
ELEMENTS = r"(?:\.v([248]))?\.([busf](?:8|16|32|64))"
COMPARE = "(eq|ne|lt|le|gt|ge|lo|ls|hi|hs|equ|neu|ltu|leu|gtu|geu|num|nan)"


def elementwise(pattern: str):
    def register(function):
        ELEMENTWISE.append((re.compile(pattern), function))
        return function

    return register


def special(pattern: str):
    def register(function):
        SPECIAL.append((re.compile(pattern), function))
        return function

    return register


# ---- Integers


@elementwise(rf"(add|sub)\.{INT}")
def _(m):
    return m[2], (m[2], m[2]), np.add if m[1] == "add" else np.subtract


@elementwise(r"add\.[us]16x2")
def _(m):
    def add(a: Array, b: Array) -> Array:
        halves = a.astype(np.uint32).view(np.uint16) + b.astype(np.uint32).view(np.uint16)
        return halves.view(np.uint32)

    return "b32", ("b32", "b32"), add


@elementwise(rf"mul\.(lo|hi)\.{INT}")
def _(m):
    return m[2], (m[2], m[2]), np.multiply if m[1] == "lo" else multiply_high


@elementwise(rf"mad\.(lo|hi)\.{INT}")
def _(m):
    product = np.multiply if m[1] == "lo" else multiply_high
    return m[2], (m[2],) * 3, lambda a, b, c: product(a, b) + c


@elementwise(r"(mul|mad)\.wide\.([us])(16|32)")
def _(m):
    narrow, wide = m[2] + m[3], m[2] + str(2 * int(m[3]))
    dtype = (SIGNED if m[2] == "s" else UNSIGNED)[2 * int(m[3])]
    if m[1] == "mul":
        return wide, (narrow, narrow), lambda a, b: a.astype(dtype) * b.astype(dtype)
    return wide, (narrow, narrow, wide), lambda a, b, c: a.astype(dtype) * b.astype(dtype) + c


@elementwise(r"dp4a\.u32\.u32")
def _(m):
    def dot(a: Array, b: Array, c: Array) -> Array:
        for place in range(0, 32, 8):
            c = c + (a >> np.uint32(place) & np.uint32(0xFF)) * (b >> np.uint32(place) & np.uint32(0xFF))
        return c

    return "u32", ("u32",) * 3, dot


@elementwise(rf"(div|rem)\.{INT}")
def _(m):
    def divide(a: Array, b: Array) -> Array:
        if (b == 0).any():
            raise WrongLanes(Kind.DIVISION_BY_ZERO, b == 0)
        quotient = trunc_divide(a, b)
        return quotient if m[1] == "div" else a - quotient * b

    return m[2], (m[2], m[2]), divide


@elementwise(rf"(min|max)\.{INT}")
def _(m):
    return m[2], (m[2], m[2]), np.minimum if m[1] == "min" else np.maximum


@elementwise(r"(abs|neg)\.(s(?:16|32|64))")
def _(m):
    return m[2], (m[2],), np.abs if m[1] == "abs" else np.negative


@elementwise(rf"(and|or|xor)\.{BITS}")
def _(m):
    return m[2], (m[2], m[2]), {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[m[1]]


@elementwise(rf"not\.{BITS}")
def _(m):
    return m[1], (m[1],), np.invert


def _shift_left(a: Array, by: Array) -> Array:
    """a << by, where nothing is left of a shift by the width or more."""
    bits = 8 * a.dtype.itemsize
    return np.where(by < bits, a << np.minimum(by, np.uint32(bits - 1)).astype(a.dtype), a.dtype.type(0))


def _shift_right(a: Array, by: Array) -> Array:
    """a >> by; copies of the sign come in where a is signed."""
    bits = 8 * a.dtype.itemsize
    shifted = a >> np.minimum(by, np.uint32(bits - 1)).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(by < bits, shifted, a.dtype.type(0))


def _low_bits(count: Array, dtype: np.dtype) -> Array:
    """Words with the lowest `count` bits set."""
    return ~_shift_left(np.array([-1]).astype(dtype), count)


@elementwise(r"(shl\.b|shr\.[bus])(16|32|64)")
def _(m):
    type_name = m[1][-1] + m[2]
    return type_name, (type_name, "u32"), _shift_left if m[1] == "shl.b" else _shift_right


@elementwise(r"shf\.([lr])\.(wrap|clamp)\.b32")
def _(m):
    def funnel(low: Array, high: Array, by: Array) -> Array:
        amount = (by & np.uint32(31) if m[2] == "wrap" else np.minimum(by, np.uint32(32))).astype(np.uint64)
        both = high.astype(np.uint64) << np.uint64(32) | low
        return (both << amount >> np.uint64(32) if m[1] == "l" else both >> amount).astype(np.uint32)

    return "b32", ("b32", "b32", "u32"), funnel


@elementwise(r"popc\.b(32|64)")
def _(m):
    return "u32", ("b" + m[1],), lambda a: np.bitwise_count(a).astype(np.uint32)


def _bit_length(a: Array) -> Array:
    high = a >> a.dtype.type(8 * a.dtype.itemsize - 32)
    if a.dtype.itemsize == 8:
        low = np.frexp((a & np.uint64(0xFFFFFFFF)).astype(np.float64))[1]
        return np.where(high != 0, 32 + np.frexp(high.astype(np.float64))[1], low).astype(np.uint32)
    return np.frexp(high.astype(np.float64))[1].astype(np.uint32)


@elementwise(r"clz\.b(32|64)")
def _(m):
    return "u32", ("b" + m[1],), lambda a: np.uint32(int(m[1])) - _bit_length(a)


@elementwise(r"bfind(\.shiftamt)?\.([us])(32|64)")
def _(m):
    def find(a: Array) -> Array:
        magnitude = (np.where(a < 0, ~a, a) if m[2] == "s" else a).astype(UNSIGNED[int(m[3])])
        position = _bit_length(magnitude) - np.uint32(1)  # 0xFFFFFFFF where there is none
        return np.where(magnitude == 0, position, np.uint32(int(m[3]) - 1) - position) if m[1] else position

    return "u32", (m[2] + m[3],), find


@elementwise(r"brev\.b(32|64)")
def _(m):
    bits = int(m[1])

    def reverse(a: Array) -> Array:
        swapped = np.unpackbits(np.ascontiguousarray(a).view(np.uint8).reshape(-1, bits // 8)[:, ::-1], axis=1)
        return np.packbits(swapped[:, ::-1], axis=1).view(a.dtype.newbyteorder(">")).astype(a.dtype).reshape(-1)

    return "b" + m[1], ("b" + m[1],), reverse


@elementwise(r"bfe\.([us])(32|64)")
def _(m):
    bits = int(m[2])

    def extract(a: Array, start: Array, length: Array) -> Array:
        start, length = start & np.uint32(0xFF), length & np.uint32(0xFF)
        there = np.where(start < bits, np.uint32(bits) - start, np.uint32(0))
        mask = _low_bits(np.minimum(length, there), a.dtype)
        field = _shift_right(a, start) & mask
        if m[1] == "u":
            return field
        top = np.minimum(start + length - np.uint32(1), np.uint32(bits - 1))
        sign = (_shift_right(a, top) & a.dtype.type(1) != 0) & (length != 0)
        return np.where(sign, field | ~mask, field)

    return "b" + m[2], ("b" + m[2], "u32", "u32"), extract


@elementwise(r"bfi\.b(32|64)")
def _(m):
    def insert(a: Array, b: Array, start: Array, length: Array) -> Array:
        start, length = start & np.uint32(0xFF), length & np.uint32(0xFF)
        mask = _shift_left(_low_bits(length, a.dtype), start)
        return b & ~mask | _shift_left(a, start) & mask

    return "b" + m[1], ("b" + m[1], "b" + m[1], "u32", "u32"), insert


@elementwise(r"prmt\.b32")
def _(m):
    def permute(a: Array, b: Array, selector: Array) -> Array:
        both = b.astype(np.uint64) << np.uint64(32) | a
        result = np.zeros(1, np.uint32)
        for place in range(0, 32, 8):
            nibble = selector >> np.uint32(place // 2)
            shift = (nibble & np.uint32(7)).astype(np.uint64) * np.uint64(8)
            byte = (both >> shift & np.uint64(0xFF)).astype(np.uint32)
            sign = np.where(byte & np.uint32(0x80), np.uint32(0xFF), np.uint32(0))
            result = result | np.where(nibble & np.uint32(8), sign, byte) << np.uint32(place)
        return result

    return "b32", ("b32", "b32", "b32"), permute


@elementwise(r"lop3\.b32")
def _(m):
    def combine(a: Array, b: Array, c: Array, table: Array) -> Array:
        result = np.zeros_like(a)
        for row in range(8):
            term = (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
            result = result | term * (table >> np.uint32(row) & np.uint32(1))
        return result

    return "b32", ("b32", "b32", "b32", "u32"), combine


@elementwise(r"cvta(?:\.to)?\.(?:global|shared|local|const|param)\.u64")
def _(m):
    return "u64", ("u64",), lambda a: a  # one number for an address in all state spaces


# ---- Floats: what IEEE 754 fixes, and nothing else


@elementwise(rf"(add|sub|mul)(?:\.rn)?\.{FLOAT}")
def _(m):
    return m[2], (m[2], m[2]), {"add": np.add, "sub": np.subtract, "mul": np.multiply}[m[1]]


@elementwise(r"div\.rn\.(f32|f64)")
def _(m):
    return m[1], (m[1], m[1]), np.divide


@elementwise(r"rcp\.rn\.(f32|f64)")
def _(m):
    return m[1], (m[1],), lambda a: a.dtype.type(1) / a


@elementwise(r"sqrt\.rn\.(f32|f64)")
def _(m):
    return m[1], (m[1],), np.sqrt


@elementwise(rf"(?:fma|mad)\.rn\.{FLOAT}")
def _(m):
    return m[1], (m[1],) * 3, lambda a, b, c: fused_multiply_add(_type(m[1]), a, b, c)


@elementwise(rf"(min|max)(\.NaN)?\.{FLOAT}")
def _(m):
    function = minimum if m[1] == "min" else maximum
    return m[3], (m[3], m[3]), lambda a, b: function(a, b, nan=bool(m[2]))


@elementwise(rf"(abs|neg)\.{FLOAT}")
def _(m):
    kind = _type(m[2])
    dtype = UNSIGNED[kind.bits].type
    sign = dtype(sum(1 << place for place in range(kind.lane_bits - 1, kind.bits, kind.lane_bits)))
    return f"b{kind.bits}", (f"b{kind.bits}",), lambda a: a & ~sign if m[1] == "abs" else a ^ sign


@elementwise(r"copysign\.f(32|64)")
def _(m):
    bits = "b" + m[1]
    sign = UNSIGNED[int(m[1])].type(1 << (int(m[1]) - 1))
    return bits, (bits, bits), lambda a, b: a & sign | b & ~sign


# ---- Conversions: the register may be wider than the type, see _Compiler.source and _Compiler.result


@elementwise(r"cvt\.(sat\.)?([us](?:8|16|32|64))\.([us](?:8|16|32|64))")
def _(m):
    dtype = _integer_dtype(m[2])

    def convert(a: Array) -> Array:
        if m[1]:
            old, new = np.iinfo(a.dtype), np.iinfo(dtype)
            a = np.clip(a, max(old.min, new.min), min(old.max, new.max))
        return a.astype(dtype)

    return m[2], (m[3],), convert


def _integer_dtype(name: str) -> np.dtype:
    return (SIGNED if name[0] == "s" else UNSIGNED)[int(name[1:])]


@elementwise(r"cvt\.(rni|rzi|rmi|rpi)(?:\.sat)?\.([us](?:8|16|32|64))\.(f16|bf16|f32|f64)")
def _(m):
    return m[2], (m[3],), lambda a: float_to_integer(a, _type(m[3]), _type(m[2]), m[1])


@elementwise(r"cvt\.(rn|rz|rm|rp)\.(f16|bf16|f32|f64)\.([us](?:8|16|32|64))")
def _(m):
    wide = m[3].endswith("64")
    if m[2] == "f64" and (m[1] == "rn" or not wide):
        return m[2], (m[3],), lambda a: a.astype(np.float64)
    if m[2] == "f32" and m[1] == "rn":
        return m[2], (m[3],), lambda a: a.astype(np.float32)
    if wide:
        raise Unsupported("a 64-bit integer rounded to a half, or directed")
    return "b" + m[2].lstrip("bf"), (m[3],), lambda a: round_float(a, m[2], m[1])


@elementwise(r"cvt(?:\.(rn|rz|rm|rp|rni|rzi|rmi|rpi))?\.(f16|bf16|f32|f64)\.(f16|bf16|f32|f64)")
def _(m):
    mode, target, source = m[1], m[2], m[3]
    if mode in INTEGER_ROUNDING and target == source:
        return target, (source,), INTEGER_ROUNDING[mode]
    widens = target == source or target == "f64" or (target == "f32" and source != "f64")
    if widens and mode is None:
        return target, (source,), lambda a: a.astype(np.float64 if target == "f64" else np.float32)
    if widens or mode is None or mode in INTEGER_ROUNDING:
        raise Unsupported("rounding")
    return "b" + target.lstrip("bf"), (source,), lambda a: round_float(a, target, mode)


@elementwise(r"cvt\.(rn|rz)\.(f16|bf16)x2\.f32")
def _(m):
    def pack(high: Array, low: Array) -> Array:
        high, low = (round_float(each, m[2], m[1]).astype(np.uint32) for each in (high, low))
        return high << np.uint32(16) | low

    return "b32", ("f32", "f32"), pack


# ---- Instructions with several results, with a state of their own or across lanes


@special(rf"setp\.{COMPARE}(?:\.(and|or|xor))?\.([busf](?:16|32|64)|bf16)")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    compare = _comparison(m[1], _type(m[3]))
    targets, *operands = instruction.operands
    a, b = (compiler.source(each, m[3]) for each in operands[:2])
    with_ = compiler.source(operands[2], "pred") if m[2] else None
    combine = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}.get(m[2])
    pair = (targets.first, targets.second) if isinstance(targets, Pair) else (targets,)
    writers = [compiler.target(each, "pred") for each in pair]

    def run(group: Group) -> None:
        result = compare(a(group), b(group))
        for writer, value in zip(writers, (result, ~result), strict=False):
            writer(group, combine(value, with_(group)) if combine and with_ else value)

    return run


def _comparison(name: str, kind: Type) -> Callable[[Array, Array], Array]:
    functions: dict[str, Callable[[Array, Array], Array]] = {"eq": np.equal, "ne": np.not_equal}
    functions |= {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    unsigned = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
    if not kind.is_float:
        if kind.kind == "b" and name not in ("eq", "ne") or (name in unsigned) and kind.kind != "u":
            raise Unsupported(f"{name} of {kind.name}")
        return functions[unsigned.get(name, name)]
    if name in ("num", "nan"):
        return lambda a, b: (np.isnan(a) | np.isnan(b)) == (name == "nan")
    if name.endswith("u"):  # true where either is NaN
        return lambda a, b: functions[name[:-1]](a, b) | np.isnan(a) | np.isnan(b)
    return lambda a, b: functions[name](a, b) & ~(np.isnan(a) | np.isnan(b))


@special(r"selp\.([busf](?:16|32|64))")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    kind = "b" + m[1][1:]
    target, a, b, condition = instruction.operands
    first, second = compiler.carrier(a, kind), compiler.carrier(b, kind)
    choose = compiler.source(condition, "pred")
    writer = compiler.target(target, kind)

    def run(group: Group) -> None:
        chosen = choose(group)
        (x, x_undefined), (y, y_undefined) = first(group), second(group)
        undefined = None
        if x_undefined is not None or y_undefined is not None:
            undefined = np.where(chosen, _flags(x_undefined), _flags(y_undefined))
            undefined = np.broadcast_to(undefined, (group.size,))
        writer(group, np.where(chosen, x, y), undefined)

    return run


def _flags(undefined: Array | None) -> Array:
    return np.zeros(1, bool) if undefined is None else undefined


@special(r"mov\.(pred|[busf](?:16|32|64))")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    kind = _type("pred" if m[1] == "pred" else "b" + m[1][1:])
    target, value = instruction.operands
    if isinstance(target, Vector):
        return _unpack(compiler, kind, target, value)
    writer = compiler.target(target, kind.name)
    if isinstance(value, Vector):
        part = f"b{kind.bits // len(value.items)}"
        parts = [compiler.carrier(each, part) for each in value.items]

        def pack(group: Group) -> None:
            carried = [each(group) for each in parts]
            whole = np.stack(np.broadcast_arrays(*(bits for bits, _ in carried)), axis=1)
            undefined = None
            if any(missing is not None for _, missing in carried):
                nothing = np.zeros(1, UNSIGNED[_type(part).bits])
                missing = [nothing if missing is None else missing for _, missing in carried]
                undefined = np.stack(np.broadcast_arrays(*missing), axis=1).view(UNSIGNED[kind.bits]).reshape(-1)
            writer(group, whole.view(UNSIGNED[kind.bits]).reshape(-1), undefined)

        return pack
    carrier = compiler.carrier(value, kind.name)
    return lambda group: writer(group, *carrier(group))


def _unpack(compiler: _Compiler, kind: Type, target: Vector, value: Operand) -> Run:
    part = kind.bits // len(target.items)
    writers = [compiler.target(each, f"b{part}") for each in target.items]
    carrier = compiler.carrier(value, kind.name)

    def column(bits: Array, number: int) -> Array:
        return np.ascontiguousarray(bits.reshape(-1, 1).view(UNSIGNED[part])[:, number])

    def run(group: Group) -> None:
        bits, undefined = carrier(group)
        for number, writer in enumerate(writers):
            writer(group, column(bits, number), None if undefined is None else column(undefined, number))

    return run


@special(rf"ld(?:\.weak)?{SPACE}(?:\.(?:ca|cg|cs|lu|cv))?(\.nc)?{HINTS}{ELEMENTS}")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    space, incoherent, hint, width, kind = m.groups()
    width = int(width or 1)
    target, address = compiler.memory_operands(instruction, hint, width)
    bits = _type(kind).bits
    writers = [compiler.target(each, kind, loose=True) for each in target]
    fixed = compiler.parameter(address) if space == "param" else None
    if isinstance(fixed, int):  # a kernel parameter: one value for all threads
        dtype = UNSIGNED[bits]

        def load_parameter(group: Group) -> None:
            values = np.frombuffer(group.machine.parameters, dtype, width, fixed)
            for writer, value in zip(writers, values, strict=True):
                writer(group, np.array([value]))

        return load_parameter
    if isinstance(fixed, str):  # a parameter of an inlined call: a register of its own
        sources = [compiler.source(each, f"b{bits}") for each in compiler.call_parameters(fixed, address, bits, width)]

        def pass_on(group: Group) -> None:
            for writer, source in zip(writers, sources, strict=True):
                writer(group, source(group))

        return pass_on
    where = compiler.address(address)

    def load(group: Group) -> None:
        values = group.machine.memory.load(group, where(group), bits, width, space or "generic", not incoherent)
        for writer, column in zip(writers, values.T, strict=True):
            writer(group, np.ascontiguousarray(column))

    return load


@special(rf"st(?:\.weak)?{SPACE}(?:\.(?:wb|cg|cs|wt))?{HINTS}{ELEMENTS}")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    space, hint, width, kind = m.groups()
    width = int(width or 1)
    bits = _type(kind).bits
    values, address = compiler.memory_operands(instruction, hint, width, store=True)
    sources = [compiler.source(each, f"b{bits}", loose=True) for each in values]
    if space == "param":
        name = compiler.parameter(address)
        if not isinstance(name, str):
            raise Unsupported("a store to a kernel parameter")
        writers = [compiler.target(each, f"b{bits}") for each in compiler.call_parameters(name, address, bits, width)]

        def pass_on(group: Group) -> None:
            for writer, source in zip(writers, sources, strict=True):
                writer(group, source(group))

        return pass_on
    where = compiler.address(address)

    def store(group: Group) -> None:
        columns = [np.broadcast_to(source(group), (group.size,)) for source in sources]
        group.machine.memory.store(group, where(group), np.stack(columns, axis=1), space or "generic")

    return store


@special(r"createpolicy\.fractional\.L2::evict_\w+(?:\.L2::evict_\w+)?\.b64")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    writer = compiler.target(instruction.operands[0], "b64")
    return lambda group: writer(group, np.zeros(1, np.uint64))  # a hint, opaque to the program


def _require_members(group: Group, mask: Array) -> None:
    """Faults unless every thread named by its member mask, itself included, executes with it."""
    machine = group.machine
    lanes = group.lanes.astype(np.uint32)
    first = group.positions % machine.block_threads - group.lanes
    existing = _low_bits(np.minimum(machine.block_threads - first, 32).astype(np.uint32), np.dtype(np.uint32))
    wrong = (mask & existing & ~group.active != 0) | (mask >> lanes & np.uint32(1) == 0)
    if wrong.any():
        raise group.fault(Kind.DIVERGENCE, int(np.argmax(wrong)), detail="not every thread of the member mask is here")


@special(r"shfl\.sync\.(up|down|bfly|idx)\.b32")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    target = instruction.operands[0]
    pair = (target.first, target.second) if isinstance(target, Pair) else (target, Sink())
    writer, predicate = compiler.target(pair[0], "b32"), compiler.target(pair[1], "pred")
    value, by, clamp, mask = (compiler.source(each, "b32") for each in instruction.operands[1:])

    def run(group: Group) -> None:
        _require_members(group, mask(group))
        lane = group.lanes.astype(np.int64)
        offset, limits = by(group).astype(np.int64) & 31, clamp(group).astype(np.int64)
        segment = limits >> 8 & 31
        last = (lane & segment) | (limits & 31 & ~segment)
        source = {
            "up": lane - offset,
            "down": lane + offset,
            "bfly": lane ^ offset,
            "idx": (lane & segment) | (offset & ~segment),
        }[m[1]]
        inside = source >= last if m[1] == "up" else source <= last
        source = np.where(inside, source, lane)
        # Threads of a warp are neighbours in the group, in the order of their lanes.
        place = np.full((group.warp_count, 32), -1)
        warp = np.repeat(np.arange(group.warp_count), np.diff(group.warp_starts, append=group.size))
        place[warp, lane] = np.arange(group.size)
        position = place[warp, source & 31]
        if (position < 0).any():
            raise group.fault(Kind.DIVERGENCE, int(np.argmax(position < 0)), detail="its source lane is not here")
        writer(group, np.broadcast_to(value(group), (group.size,))[position])
        predicate(group, inside)

    return run


@special(r"(?:vote\.sync\.(?:(any|all|uni)\.pred|(ballot)\.b32))")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    writer = compiler.target(instruction.operands[0], "b32" if m[2] else "pred")
    source, mask = compiler.source(instruction.operands[1], "pred"), compiler.source(instruction.operands[2], "b32")

    def run(group: Group) -> None:
        members = mask(group)
        _require_members(group, members)
        own = np.broadcast_to(source(group), (group.size,)).astype(np.uint32) << group.lanes.astype(np.uint32)
        yes = group.spread(np.bitwise_or.reduceat(own, group.warp_starts)) & members
        everyone = group.active & members
        results = {"any": yes != 0, "all": yes == everyone, "uni": (yes == 0) | (yes == everyone)}
        writer(group, yes if m[2] else results[m[1]])

    return run


@special(r"redux\.sync\.(add|min|max|and|or|xor)\.([bus]32)")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    functions: dict[str, np.ufunc] = {"add": np.add, "min": np.minimum, "max": np.maximum}
    functions |= {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
    writer = compiler.target(instruction.operands[0], m[2])
    source, mask = compiler.source(instruction.operands[1], m[2]), compiler.source(instruction.operands[2], "b32")

    def run(group: Group) -> None:
        members = mask(group)
        _require_members(group, members)
        if (members & group.active != group.active).any():
            raise Unsupported("redux.sync by a part of the threads that execute it")
        own = np.broadcast_to(source(group), (group.size,))
        total = functions[m[1]].reduceat(own, group.warp_starts, dtype=own.dtype)
        writer(group, group.spread(_type(m[2]).encode(total)))

    return run


@special(r"activemask\.b32")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    writer = compiler.target(instruction.operands[0], "b32")
    return lambda group: writer(group, group.active)


@special(r"trap")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Run:
    def run(group: Group) -> None:
        raise group.fault(Kind.TRAP, 0)

    return run


# ---- Control


@special(r"bra(\.uni)?")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Step:
    return Step("branch", targets=(compiler.label(instruction.operands[0]),), uniform=bool(m[1]))


@special(r"brx\.idx(?:\.uni)?")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Step:
    index, table = instruction.operands
    assert isinstance(table, Symbol)
    targets = tuple(compiler.label(Symbol(name)) for name in compiler.kernel.tables[table.name])
    return Step("table", targets=targets, selector=compiler.source(index, "u32"))


@special(r"(?:ret|exit)(?:\.uni)?")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Step:
    return Step("exit")


@special(r"(?:bar|barrier)(?:\.cta)?\.sync(?:\.aligned)?(?:\.all)?|bar\.(warp)\.sync")
def _(compiler: _Compiler, instruction: Instruction, m: re.Match[str]) -> Step:
    if len(instruction.operands) != 1 or not isinstance(instruction.operands[0], Immediate):
        raise Unsupported("a barrier for a part of the block")
    if m[1] and instruction.operands[0].value & 0xFFFFFFFF != 0xFFFFFFFF:
        raise Unsupported("a barrier for a part of the warp")
    return Step("barrier", one_warp=bool(m[1]))


# ---- From operands to arrays


@cache
def _find(opcode: str):
    """The function of an opcode in one of the two tables, and the match of its pattern."""
    for pattern, compile_special in SPECIAL:
        if match := pattern.fullmatch(opcode):
            return compile_special, None, match
    for pattern, meaning in ELEMENTWISE:
        if match := pattern.fullmatch(opcode):
            return None, meaning, match
    doubtful = re.search(r"\.(approx|full|ftz)\b", opcode)
    raise (Approximate if doubtful else Unsupported)(f"unknown instruction {opcode}")


class _Compiler:
    """Turns the instructions of one kernel into steps."""

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.addresses: dict[str, int] = {}
        self.offsets: dict[str, tuple[int, int]] = {}  # of the kernel's parameters: (offset, size)
        sizes = {"shared": 0, "local": 0}
        self.module_variables: list[tuple[Variable, int]] = []
        # Dynamic shared memory, which has no size of its own, follows all that has.
        for variable in sorted(kernel.variables.values(), key=lambda each: each.size is None):
            space = variable.space
            if space in sizes:
                place = -(-sizes[space] // variable.align) * variable.align
                self.addresses[variable.name] = WINDOWS[space] + place
                sizes[space] = place + (variable.size or 0)
            elif space != "param":
                address = (MODULE_SLOTS + len(self.module_variables)) * BUFFER_SPACING
                self.addresses[variable.name] = address
                self.module_variables.append((variable, address))
        self.shared_bytes, self.local_bytes = sizes["shared"], sizes["local"]
        end = 0
        for parameter in kernel.parameters:
            start = -(-end // parameter.align) * parameter.align
            end = start + (parameter.size or 0)
            self.offsets[parameter.name] = (start, parameter.size or 0)
            self.addresses[parameter.name] = WINDOWS["param"] + start

    def step(self, instruction: Instruction) -> Step:
        compile_special, meaning, match = _find(instruction.opcode)
        run = (
            compile_special(self, instruction, match)
            if compile_special
            else self.elementwise(instruction, meaning(match))
        )
        step = run if isinstance(run, Step) else Step("plain", run=run)
        step.guard = instruction.guard.name if instruction.guard else None
        step.negated = instruction.negated
        return step

    def elementwise(self, instruction: Instruction, meaning: Elementwise) -> Run:
        result, types, function = meaning
        loose = instruction.opcode.startswith("cvt")
        target, *operands = instruction.operands
        sources = [self.source(each, kind, loose) for each, kind in zip(operands, types, strict=True)]
        writer = self.target(target, result, loose)
        encode = _type(result).encode

        def run(group: Group) -> None:
            try:
                value = function(*(source(group) for source in sources))
            except WrongLanes as wrong:
                raise group.fault(wrong.kind, int(np.argmax(np.broadcast_to(wrong.lanes, (group.size,))))) from None
            writer(group, encode(value))

        return run

    def carrier(self, operand: Operand, type_name: str) -> Callable[[Group], tuple[Array, Array | None]]:
        """The bits of an operand, and ones for those of them that hold no value (None: all do)."""
        if isinstance(operand, Register):
            name = operand.name
            _require_width(operand, _type(type_name).bits, False)
            empty = np.zeros(1, UNSIGNED[operand.bits])

            def carry(group: Group) -> tuple[Array, Array | None]:
                value = group.peek(name)
                if value is None:
                    return empty, ~np.zeros(group.size, empty.dtype)
                return value, group.undefined.get(name)

            return carry
        source = self.source(operand, type_name)
        return lambda group: (source(group), None)

    def source(self, operand: Operand, type_name: str, loose: bool = False) -> Source:
        """The numbers that an operand holds; `loose` lets a wider register give its lower bits."""
        kind = _type(type_name)
        if isinstance(operand, Not):
            inner = self.source(operand.register, type_name)
            return lambda group: ~inner(group)
        if isinstance(operand, Register):
            name, decode = operand.name, kind.decode
            _require_width(operand, kind.bits, loose)
            if operand.bits == kind.bits:
                return lambda group: decode(group.read(name))
            dtype = UNSIGNED[kind.bits]
            return lambda group: decode(group.read(name).astype(dtype))
        if isinstance(operand, Special):
            name = operand.name
            return lambda group: group.special(name).astype(UNSIGNED[kind.bits])
        if isinstance(operand, Symbol):
            if operand.name not in self.addresses:
                raise Unsupported(f"unknown name {operand.name}")
            operand = Immediate(self.addresses[operand.name] + operand.offset)
        if isinstance(operand, Immediate):
            wanted = None if kind.kind in ("b", "u", "s") and operand.bits != 64 else kind.lane_bits
            if operand.bits not in (None, wanted) and not (kind.kind == "b" and operand.bits == kind.bits):
                raise Unsupported(f"a float immediate of {operand.bits} bits as {kind.name}")
            if operand.bits is None and kind.lane_name in ("f32", "f64") and not kind.packed:
                raise Unsupported(f"an integer immediate as {kind.name}")
            value = kind.decode(np.array([operand.value & ((1 << kind.bits) - 1)]).astype(UNSIGNED[kind.bits]))
            return lambda group: value
        raise Unsupported(f"operand {operand}")

    def target(self, operand: Operand, type_name: str, loose: bool = False) -> Callable[..., None]:
        """Writes the bits of a result; `loose` extends them to a wider register, by sign where the type has one."""
        if isinstance(operand, Sink):
            return lambda group, bits, undefined=None: None
        if not isinstance(operand, Register):
            raise Unsupported(f"result {operand}")
        kind, name = _type(type_name), operand.name
        _require_width(operand, kind.bits, loose)
        if operand.bits == kind.bits:
            return lambda group, bits, undefined=None: group.write(name, bits, undefined)
        wide = (SIGNED if kind.kind == "s" else UNSIGNED)[operand.bits]
        unsigned = UNSIGNED[operand.bits]
        decode = kind.decode if kind.kind == "s" else lambda bits: bits

        def extend(group: Group, bits: Array, undefined: Array | None = None) -> None:
            group.write(name, decode(bits).astype(wide).view(unsigned), undefined)

        return extend

    def memory_operands(
        self, instruction: Instruction, hint: str | None, width: int, store: bool = False
    ) -> tuple[tuple[Operand, ...], Address]:
        """The registers and the address of a load or store; a cache policy must be there exactly where announced."""
        operands = instruction.operands[:2] if hint else instruction.operands
        if len(instruction.operands) != (3 if hint else 2):
            raise Unsupported("operands")
        address, registers = operands if store else operands[::-1]
        items = registers.items if isinstance(registers, Vector) else (registers,)
        if not isinstance(address, Address) or len(items) != width:
            raise Unsupported("operands")
        return items, address

    def address(self, address: Address) -> Source:
        base, offset = address.base, np.uint64(address.offset & (1 << 64) - 1)
        width = base.bits if isinstance(base, Register) else 64
        source = self.source(base, f"u{width}")
        return lambda group: source(group).astype(np.uint64) + offset

    def parameter(self, address: Address) -> int | str | None:
        """Where a `.param` address leads: an offset in the kernel's parameters, a call's parameter by name, or, with
        a computed address, None."""
        base = address.base
        if not isinstance(base, Symbol):
            return None
        if base.name in self.offsets:
            start, size = self.offsets[base.name]
            offset = base.offset + address.offset
            if not 0 <= offset < size:
                raise Unsupported(f"byte {offset} of a parameter of {size}")
            return start + offset
        if base.name not in self.kernel.variables:
            raise Unsupported(f"unknown parameter {base.name}")
        return base.name

    def call_parameters(self, name: str, address: Address, bits: int, width: int) -> list[Register]:
        return [Register(f"{name}+{address.offset + i * bits // 8}.{bits}", bits) for i in range(width)]

    def label(self, operand: Operand) -> int:
        end = len(self.kernel.body)
        position = self.kernel.labels.get(operand.name, end) if isinstance(operand, Symbol) else end
        if position == end:
            raise Unsupported(f"branch to {operand}")
        return position


def _require_width(register: Register, bits: int, loose: bool) -> None:
    if register.bits != bits and not (loose and register.bits > bits > 1):
        raise Unsupported(f"{register.name} has {register.bits} bits where {bits} are needed")


_programs: WeakKeyDictionary[Kernel, Program] = WeakKeyDictionary()  # of some ten objects an instruction


def compile_kernel(kernel: Kernel) -> Program:
    """Decodes a kernel once; raises `Unsupported` or `Approximate` with the line of the instruction."""
    if kernel not in _programs:
        _programs[kernel] = _compile(kernel)
    return _programs[kernel]


def _compile(kernel: Kernel) -> Program:
    compiler = _Compiler(kernel)
    steps = []
    for instruction in kernel.body:
        try:
            steps.append(compiler.step(instruction))
        except (Unsupported, ValueError, KeyError, AssertionError) as error:
            kind = type(error) if isinstance(error, Unsupported) else Unsupported
            raise kind(f"{kernel.name} line {instruction.line}: {instruction.text}: {error}") from error
    if not steps or steps[-1].guard or steps[-1].kind not in ("exit", "branch"):
        raise Unsupported(f"{kernel.name} does not end with ret")
    for name in ("f16", "bf16", "f32", "f64"):
        opcodes = {each.opcode for each in kernel.body}
        if f"mul.{name}" in opcodes and opcodes & {f"add.{name}", f"sub.{name}"}:
            raise Approximate(f"{kernel.name}: mul.{name} and add.{name} without .rn may be fused or not")
    return Program(steps, compiler.shared_bytes, compiler.local_bytes, compiler.module_variables)
