"""Hand-written PTX for the interpreter's own tests: a frame around a body, and one instruction on given operands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .machine import Device
from .parse import Kernel, parse

DTYPES = {
    **{f"{kind}{bits}": np.dtype(f"u{bits // 8}") for kind in "ub" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (32, 64)},
}
LETTERS = {16: "%h", 32: "%r", 64: "%d"}


def kernel(body: str, parameters: str = "", module: str = "", name: str = "test") -> Kernel:
    """A kernel with the registers %p0.. (predicates), %h0.. (16 bits), %r0.. (32), %d0.. (64), and `ret` at its end.

    `parameters` is a list such as "u64 a, u32 n"; `module` stands before the kernel.
    """
    listed = ",\n".join(f".param .{each.strip()}" for each in parameters.split(",") if each.strip())
    text = f"""
        .version 8.0
        .target sm_80
        .address_size 64
        {module}
        .visible .entry {name}({listed})
        {{
            .reg .pred %p<16>;
            .reg .b16 %h<16>;
            .reg .b32 %r<16>;
            .reg .b64 %d<16>;
            {body}
            ret;
        }}
    """
    return parse(text)[name]


def register(kind: str, number: int) -> str:
    """The register that holds an operand of a type; 8 bits lie in 16-bit registers."""
    return f"{LETTERS[max(16, 8 * DTYPES[kind].itemsize)]}{number}"


def evaluate(opcode: str, types: str, *operands: Sequence[float]) -> list:
    """Runs `opcode d, a, b, ...;` with one thread for each element of the operands; returns every thread's d.

    `types` names d, a, b, ...: "u32 u32 u32".
    """
    names = [register(kind, number) for number, kind in enumerate(types.split())]
    return run_on(f"{opcode} {', '.join(names)};", types, *operands)


def run_on(statements: str, types: str, *operands: Sequence[float]) -> list:
    """As `evaluate`, for statements that read the operands in registers numbered from 1 and leave d in number 0."""
    result, *sources = types.split()
    device = Device()
    body = "mov.u32 %r15, %tid.x;"
    for number, (kind, values) in enumerate(zip(sources, operands, strict=True), start=1):
        dtype = DTYPES[kind]
        device.buffer(f"operand {number}", np.array(values, dtype))
        body += f"ld.param.u64 %d15, [in{number}]; mad.wide.u32 %d15, %r15, {dtype.itemsize}, %d15;"
        body += f"ld.global.{kind} {register(kind, number)}, [%d15];"
    size = DTYPES[result].itemsize
    body += f"{statements} ld.param.u64 %d15, [out]; mad.wide.u32 %d15, %r15, {size}, %d15;"
    body += f"st.global.{result} [%d15], {register(result, 0)};"
    out = device.empty("out", len(operands[0]), DTYPES[result])
    parameters = ", ".join([*(f"u64 in{number}" for number in range(1, len(types.split()))), "u64 out"])
    device.launch(kernel(body, parameters), 1, len(operands[0]), [*device.buffers.values()])
    return out.numpy().tolist()


def results(statements: str, threads: int, kind: str = "u32", module: str = "", shared_bytes: int = 0) -> list:
    """Runs statements in one block and returns what each thread leaves in the register number 0 of the type."""
    device = Device()
    out = device.empty("out", threads, DTYPES[kind])
    size = DTYPES[kind].itemsize
    body = f"""{statements}
        mov.u32 %r15, %tid.x; ld.param.u64 %d15, [out]; mad.wide.u32 %d15, %r15, {size}, %d15;
        st.global.{kind} [%d15], {register(kind, 0)};"""
    device.launch(kernel(body, "u64 out", module), 1, threads, [out], shared_bytes)
    return out.numpy().tolist()
