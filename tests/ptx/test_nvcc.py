"""Small CUDA kernels through nvcc, for each architecture, against numpy and known answers."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from .faults import Approximate, Fault, Kind
from .machine import Device
from .parse import Module
from .philox import KNOWN_ANSWERS
from .toolchain import compile_cuda, nvcc

needs_nvcc = pytest.mark.skipif(nvcc() is None, reason="nvcc was not found (CUDA_HOME, PATH, /usr/local/cuda)")
every_architecture = pytest.mark.parametrize("architecture", [80, 90, 100])

CUDA = r"""
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" __global__ void philox(const uint2 key, const uint4* counters, uint4* words) {
    uint4 c = counters[threadIdx.x];
    uint2 k = key;
    for (int round = 0; round < 10; ++round) {
        const uint32_t high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
        const uint32_t high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
        c = make_uint4(high1 ^ c.y ^ k.x, low1, high0 ^ c.w ^ k.y, low0);
        k.x += 0x9E3779B9u;
        k.y += 0xBB67AE85u;
    }
    words[threadIdx.x] = c;
}

struct Copy {
    const uint8_t* from;
    uint8_t* to;
    int64_t bytes;
};

// 16 bytes a thread, the tail byte by byte.
extern "C" __global__ void copy(const Copy c) {
    const int64_t vectors = c.bytes / 16, stride = int64_t(gridDim.x) * blockDim.x;
    const int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (int64_t i = first; i < vectors; i += stride)
        __stcs(reinterpret_cast<uint4*>(c.to) + i, __ldg(reinterpret_cast<const uint4*>(c.from) + i));
    const int64_t i = 16 * vectors + first;
    if (i < c.bytes) c.to[i] = c.from[i];
}

extern "C" __global__ void collatz(int* steps) {
    unsigned n = blockIdx.x * blockDim.x + threadIdx.x + 1;
    int count = 0;
    for (; n != 1; ++count) n = n % 2 ? 3 * n + 1 : n / 2;
    steps[blockIdx.x * blockDim.x + threadIdx.x] = count;
}

extern "C" __global__ void reverse(const int* in, int* out) {
    __shared__ int words[256];
    words[threadIdx.x] = in[blockIdx.x * 256 + threadIdx.x];
    __syncthreads();
    out[blockIdx.x * 256 + threadIdx.x] = words[255 - threadIdx.x];
}

extern "C" __global__ void divide(const int* a, int* out, int n) {
    const int x = a[threadIdx.x];
    const unsigned u = x;
    int* o = out + 8 * threadIdx.x;
    o[0] = x / 7;
    o[1] = x % 13;
    o[2] = u / 224;
    o[3] = u % 1000;
    o[4] = x / n;
    o[5] = u % unsigned(n);
    o[6] = int(int64_t(x) * 1000003 / n);
    o[7] = int(uint64_t(u) * 40503 % 65537);
}

extern "C" __global__ void floats(const float* x, const double* d, float* y, double* e, __half* h, __nv_bfloat16* b) {
    const int t = threadIdx.x;
    const float p = x[2 * t], q = x[2 * t + 1];
    float* o = y + 10 * t;
    o[0] = __fdiv_rn(p, q);
    o[1] = __fsqrt_rn(p);
    o[2] = __fadd_rn(__fmul_rn(p, q), 1.5f);
    o[3] = __fmaf_rn(p, q, -1.25f);
    o[4] = floorf(p) + ceilf(q);
    o[5] = rintf(p);
    o[6] = truncf(q);
    o[7] = float(int(p));
    o[8] = fminf(p, q);
    o[9] = float(d[t]);
    e[3 * t] = __ddiv_rn(d[t], 3.0);
    e[3 * t + 1] = __dsqrt_rn(d[t]);
    e[3 * t + 2] = __dadd_rn(__dmul_rn(d[t], double(p)), 0.1);
    h[2 * t] = __float2half_rn(p);
    h[2 * t + 1] = __double2half(d[t]);
    b[2 * t] = __float2bfloat16_rn(p);
    b[2 * t + 1] = __double2bfloat16(d[t]);
}

extern "C" __global__ void contracted(const float* x, float* y) {
    const float product = x[0] * x[1];
    y[0] = product;
    y[1] = product + x[2];
    y[2] = x[1] + x[3];
}

__constant__ int table[8] = {3, 1, 4, 1, 5, 9, 2, 6};
__device__ __noinline__ int called(int a, int b) { return a * b + table[a & 7]; }
extern "C" __global__ void calls(const int* x, int* y) {
    int local[8];
    for (int i = 0; i < 8; ++i) local[i] = called(x[i], i);
    y[threadIdx.x] = local[x[threadIdx.x] & 7] + __popc(threadIdx.x) + __clz(x[threadIdx.x]) + __ffs(threadIdx.x);
}

extern "C" __global__ void choose(const int* x, int* y) {
    const int t = threadIdx.x;
    switch (x[t]) {
        case 0: y[t] = x[t + 1] / 3; break;
        case 1: y[t] = 5 + x[t + 1]; break;
        case 2: y[t] = x[t + 1] * x[t + 1]; break;
        case 3: y[t] = -x[t + 1]; break;
        case 4: y[t] = x[t + 1] ^ 0x55; break;
        default: y[t] = __shfl_sync(__activemask(), 10 * t, 5); break;
    }
}
"""


def module(architecture: int) -> Module:
    return compile_cuda(CUDA, architecture)


@needs_nvcc
@every_architecture
def test_philox(architecture):
    for key, counter, answer in KNOWN_ANSWERS:
        device = Device()
        counters = device.buffer("counters", np.array([counter], np.uint32), writable=False)
        words = device.empty("words", 4, np.uint32)
        report = device.launch(
            module(architecture)["philox"], 1, 1, [np.array(key, np.uint32).tobytes(), counters, words]
        )
        assert tuple(words.numpy().tolist()) == answer
        (store,) = report.matching("st.global.v4")
        assert (store.requests, store.bytes) == (1, 16)


@needs_nvcc
@every_architecture
@pytest.mark.parametrize("size", [0, 5, 16, 4096, 10007])
def test_copy_with_a_tail(architecture, size):
    class Copy(ctypes.Structure):
        _fields_ = [("source", ctypes.c_uint64), ("target", ctypes.c_uint64), ("bytes", ctypes.c_int64)]

    device = Device()
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    source = device.buffer("source", data, writable=False)
    target = device.empty("target", size, np.uint8)
    report = device.launch(module(architecture)["copy"], 3, 64, [bytes(Copy(source.address, target.address, size))])
    assert np.array_equal(target.numpy(), data)
    assert target.defined()
    sectors = math.ceil(size / 32)
    assert (report.buffers["source"].sectors_read, report.buffers["target"].sectors_written) == (sectors, sectors)
    if size == 4096:  # 8 full warps
        assert sum(count.requests for count in report.matching("ld.global.nc.v4")) == 8


@needs_nvcc
def test_a_copy_of_a_view_that_is_not_aligned_is_a_fault():
    device = Device()
    source = device.buffer("source", np.zeros(64, np.uint8), misalignment=4)
    target = device.empty("target", 64, np.uint8)
    arguments = np.array([source.address, target.address, 64], np.uint64).tobytes()
    with pytest.raises(Fault) as caught:
        device.launch(module(80)["copy"], 1, 32, [arguments])
    assert caught.value.kind is Kind.MISALIGNED


@needs_nvcc
@every_architecture
def test_a_divergent_loop(architecture):
    def steps(n: int) -> int:
        return 0 if n == 1 else 1 + steps(3 * n + 1 if n % 2 else n // 2)

    device = Device()
    out = device.empty("out", 300, np.int32)
    device.launch(module(architecture)["collatz"], 3, 100, [out])
    assert out.numpy().tolist() == [steps(n) for n in range(1, 301)]


@needs_nvcc
@every_architecture
def test_a_reversal_in_shared_memory(architecture):
    device = Device()
    data = np.random.default_rng(0).integers(-(2**31), 2**31, (5, 256), dtype=np.int32)
    out = device.empty("out", data.shape, np.int32)
    device.launch(module(architecture)["reverse"], 5, 256, [device.buffer("in", data, writable=False), out])
    assert np.array_equal(out.numpy(), data[:, ::-1])


@needs_nvcc
@every_architecture
@pytest.mark.parametrize("n", [1, -3, 1000, 2**31 - 1])
def test_divisions(architecture, n):
    x = np.array([0, 1, -1, 6, 7, -7, 223, 224, 2**31 - 1, -(2**31), 12345678, -98765432], np.int32)
    device = Device()
    out = device.empty("out", (len(x), 8), np.int32)
    device.launch(module(architecture)["divide"], 1, len(x), [device.buffer("a", x, writable=False), out, n])

    def truncated(a: int, b: int) -> int:
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)

    def row(a: int) -> list[int]:
        u = a % 2**32
        quotients = [truncated(a, 7), a - truncated(a, 13) * 13, u // 224, u % 1000, truncated(a, n)]
        return [*quotients, u % (n % 2**32), truncated(a * 1000003, n), u * 40503 % 65537]

    expected = np.array([[(each + 2**31) % 2**32 - 2**31 for each in row(a)] for a in x.tolist()], np.int32)
    assert np.array_equal(out.numpy(), expected)


@needs_nvcc
@every_architecture
def test_floats(architecture):
    generator = np.random.default_rng(1)
    count = 500
    x = (generator.standard_normal((count, 2)) * 10.0 ** generator.integers(-9, 9, (count, 2))).astype(np.float32)
    d = generator.standard_normal(count) * 10.0 ** generator.integers(-9, 9, count)
    special = [0.0, -0.0, 1e-40, 65504.0, 65520.0, 3.4e38, 0.5, 1.5, 2.5, math.inf, -math.inf]
    x[: len(special), 0], d[: len(special)] = special, special
    device = Device()
    y, e = device.empty("y", (count, 10), np.float32), device.empty("e", (count, 3), np.float64)
    h, b = device.empty("h", (count, 2), np.float16), device.empty("b", (count, 2), np.uint16)
    inputs = [device.buffer(name, array, writable=False) for name, array in (("x", x), ("d", d))]
    device.launch(module(architecture)["floats"], 1, count, [*inputs, y, e, h, b])
    p, q = x.T
    with np.errstate(all="ignore"):
        product = p.astype(np.longdouble) * q - np.longdouble(1.25)  # 64 digits: rounded to 24 once more, rarely twice
        whole = np.clip(np.trunc(p.astype(np.float64)), -(2**31), 2**31 - 1).astype(np.int32)
        expected = [
            p / q,
            np.sqrt(p),
            p * q + np.float32(1.5),
            product.astype(np.float32),
            np.floor(p) + np.ceil(q),
            np.rint(p),
            np.trunc(q),
            whole.astype(np.float32),
            np.fmin(p, q),
            d.astype(np.float32),
        ]
        for column, values in enumerate(expected):
            assert np.array_equal(y.numpy()[:, column], values, equal_nan=True), column
        for column, doubles in enumerate([d / 3.0, np.sqrt(d), d * p.astype(np.float64) + 0.1]):
            assert np.array_equal(e.numpy()[:, column], doubles, equal_nan=True), column
        assert np.array_equal(h.numpy(), np.stack([p.astype(np.float16), d.astype(np.float16)], 1), equal_nan=True)
    torch = pytest.importorskip("torch")
    rounded = torch.from_numpy(p.copy()).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(b.numpy()[:, 0], rounded)


@needs_nvcc
def test_arithmetic_that_may_be_contracted_is_refused():
    device = Device()
    x, y = device.buffer("x", np.ones(4, np.float32)), device.empty("y", 3, np.float32)
    with pytest.raises(Approximate, match="fused"):
        device.launch(module(80)["contracted"], 1, 1, [x, y])


@needs_nvcc
@every_architecture
def test_calls_tables_and_local_memory(architecture):
    x = np.array([5, 0, 3, 7, 2, 2, 1, 6, 4, 9], np.int32)
    device = Device()
    y = device.empty("y", 8, np.int32)
    device.launch(module(architecture)["calls"], 1, 8, [device.buffer("x", x, writable=False), y])
    table = [3, 1, 4, 1, 5, 9, 2, 6]
    local = [int(x[i]) * i + table[x[i] & 7] for i in range(8)]

    def expected(t: int) -> int:
        first_set = (t & -t).bit_length()
        return local[x[t] & 7] + t.bit_count() + 32 - int(x[t]).bit_length() + first_set

    assert y.numpy().tolist() == [expected(t) for t in range(8)]


@needs_nvcc
@every_architecture
def test_a_switch(architecture):
    x = np.array([3, 0, 1, 2, 4, 9, 8, 1, 100], np.int32)
    device = Device()
    y = device.empty("y", 8, np.int32)
    device.launch(module(architecture)["choose"], 1, 8, [device.buffer("x", x, writable=False), y])
    # threads 5 and 6 take the default together and read from thread 5
    assert y.numpy().tolist() == [0, 0, 7, 16, 9 ^ 0x55, 50, 50, 5 + 100]
