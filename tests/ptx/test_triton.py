"""Small Triton kernels, for each architecture, against numpy and known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from .machine import Device
from .philox import KNOWN_ANSWERS, philox
from .toolchain import compile_triton

pytest.importorskip("triton")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

every_architecture = pytest.mark.parametrize("architecture", [80, 90, 100])


@triton.jit
def triton_philox(seed, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    words = tl.philox(tl.load(seed), i, i * 0, i * 0 + 1, i * 0)
    for n in tl.static_range(4):
        tl.store(out + n * BLOCK + i, words[n])


@triton.jit
def triton_mix(own, other, out, size, low, high, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (i >= low) & (i < high)
    x = tl.load(own + i, mask=i < size)
    y = tl.load(other + i, mask=(i < size) & inside, other=0)
    tl.store(out + i, tl.where(inside, y, x), mask=i < size)


@triton.jit
def triton_targets(labels, out, classes, off, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    k = tl.arange(0, BLOCK)
    label = tl.load(labels + row)
    on = tl.sqrt_rn(tl.div_rn(off + 0.0 * k, off * 0.0 + 3.0))
    value = tl.where(k == label, on, off)
    value = tl.where((label < 0) | (label >= classes), float("nan"), value)
    tl.store(out + row * classes + k, value.to(out.dtype.element_ty), mask=k < classes)


@triton.jit
def triton_sum(x, out, size, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out, tl.sum(tl.load(x + i, mask=i < size, other=0)))


@every_architecture
def test_triton_philox(architecture):
    signature = {"seed": "*i64", "out": "*i32", "BLOCK": "constexpr"}
    kernel = compile_triton(triton_philox, signature, {"BLOCK": 256}, architecture)
    device = Device()
    out = device.empty("out", (4, 256), np.uint32)
    kernel.launch(device, 1, [device.buffer("seed", np.array([0x123456789], np.int64), writable=False), out])
    words = out.numpy()
    for i in (0, 1, 255):
        assert tuple(words[:, i].tolist()) == philox((0x23456789, 1), (i, 0, 1, 0))


def test_the_oracle_gives_the_known_answers():
    assert [philox(key, counter) for key, counter, _ in KNOWN_ANSWERS] == [answer for *_, answer in KNOWN_ANSWERS]


@every_architecture
@pytest.mark.parametrize(("size", "aligned"), [(4096, True), (5003, False)])
def test_triton_masked_vectors(architecture, size, aligned):
    signature = dict.fromkeys(("own", "other", "out"), "*i32") | dict.fromkeys(("size", "low", "high"), "i32")
    even = ("own", "other", "out", "size") if aligned else ()
    kernel = compile_triton(
        triton_mix, {**signature, "BLOCK": "constexpr"}, {"BLOCK": 1024}, architecture, even, num_warps=4
    )
    device = Device()
    own, other = np.arange(size, dtype=np.int32), -np.arange(size, dtype=np.int32)
    buffers = [device.buffer(name, data, writable=False) for name, data in (("own", own), ("other", other))]
    out = device.empty("out", size, np.int32)
    report = kernel.launch(device, math.ceil(size / 1024), [*buffers, out, size, 1001, 2005])
    expected = own.copy()
    expected[1001:2005] *= -1
    assert np.array_equal(out.numpy(), expected)
    assert bool(report.matching("st.global.v4")) == aligned
    assert report.buffers["out"].sectors_written == math.ceil(size / 8)


@every_architecture
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", "fp64"])
def test_triton_targets(architecture, dtype):
    signature = {"labels": "*i64", "out": f"*{dtype}", "classes": "i32", "off": "fp32", "BLOCK": "constexpr"}
    kernel = compile_triton(triton_targets, signature, {"BLOCK": 1024}, architecture, enable_fp_fusion=False)
    device = Device()
    labels = device.buffer("labels", np.array([3, -1, 999, 1000], np.int64), writable=False)
    numpy_dtype = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16, "fp64": np.float64}[dtype]
    out = device.empty("out", (4, 1000), numpy_dtype)
    kernel.launch(device, 4, [labels, out, 1000, np.float32(0.1)])
    # 0.1 is 0x3DCCCCCD, sqrt(0.1 / 3) is 0x3E3AF4BA; bfloat16 keeps the upper half, rounded
    off, on = np.float32(0.1), np.sqrt(np.float32(0.1) / np.float32(3))
    rows = np.full((4, 1000), off)
    rows[0, 3] = rows[2, 999] = on
    rows[1] = rows[3] = np.nan
    if dtype == "bf16":
        rows = np.where(rows == off, 0x3DCD, np.where(rows == on, 0x3E3B, 0x7FC0))
        assert np.array_equal(as_float32(out.numpy()), as_float32(rows), equal_nan=True)
    else:
        assert np.array_equal(out.numpy(), rows.astype(numpy_dtype), equal_nan=True)


def as_float32(bfloat16: np.ndarray) -> np.ndarray:
    return (bfloat16.astype(np.uint32) << 16).view(np.float32)


@every_architecture
def test_triton_reduction(architecture):
    """Shuffles, shared memory and a barrier."""
    signature = {"x": "*i32", "out": "*i32", "size": "i32", "BLOCK": "constexpr"}
    kernel = compile_triton(triton_sum, signature, {"BLOCK": 1024}, architecture)
    device = Device()
    x = np.arange(1000, dtype=np.int32)
    out = device.empty("out", 1, np.int32)
    kernel.launch(device, 1, [device.buffer("x", x, writable=False), out, 1000])
    assert out.numpy().tolist() == [999 * 1000 // 2]
