"""Every instruction on operands whose answers were worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from .faults import Approximate, Unsupported
from .handwritten import evaluate, kernel, results, run_on
from .ops import ELEMENTWISE, SPECIAL, compile_kernel

M32 = 0xFFFFFFFF
M64 = 0xFFFFFFFFFFFFFFFF
NAN32 = 0x7FFFFFFF
INF32 = 0x7F800000

# opcode, types of d, a, b, ..., the operands' elements, and the expected elements of d
CASES = [
    # integer arithmetic wraps
    ("add.u32", "u32 u32 u32", [M32, 5], [2, 7], [1, 12]),
    ("add.s32", "s32 s32 s32", [0x7FFFFFFF, -3], [1, 1], [-0x80000000, -2]),
    ("add.s64", "s64 s64 s64", [0x7FFFFFFFFFFFFFFF, -1], [1, 1], [-0x8000000000000000, 0]),
    ("add.u16", "u16 u16 u16", [0xFFFF, 1], [1, 2], [0, 3]),
    ("sub.s32", "s32 s32 s32", [-0x80000000, 3], [1, 5], [0x7FFFFFFF, -2]),
    ("sub.u64", "u64 u64 u64", [0, 9], [1, 4], [M64, 5]),
    ("add.s16x2", "b32 b32 b32", [0x0001FFFF], [0x00020003], [0x00030002]),
    ("mul.lo.u32", "u32 u32 u32", [0x10001, 7], [0x10001, 6], [0x20001, 42]),
    ("mul.lo.s32", "s32 s32 s32", [-766435501, -7], [1, 6], [-766435501, -42]),
    ("mul.lo.s64", "s64 s64 s64", [1 << 62, -3], [4, 5], [0, -15]),
    ("mul.lo.s16", "s16 s16 s16", [300], [300], [24464]),  # 90000 - 65536
    ("mul.hi.u32", "u32 u32 u32", [M32, 0x80000000], [M32, 6], [0xFFFFFFFE, 3]),
    ("mul.hi.s32", "s32 s32 s32", [-1, -0x80000000], [5, -0x80000000], [-1, 0x40000000]),
    ("mul.hi.u16", "u16 u16 u16", [0xFFFF], [0xFFFF], [0xFFFE]),
    ("mul.hi.u64", "u64 u64 u64", [M64, 1 << 63, 1 << 32], [M64, 6, 1 << 33], [M64 - 1, 3, 2]),
    ("mul.hi.s64", "s64 s64 s64", [-1, -(1 << 63), 3], [5, -(1 << 63), 1 << 62], [-1, 1 << 62, 0]),
    ("mul.wide.u32", "u64 u32 u32", [M32], [M32], [0xFFFFFFFE00000001]),
    ("mul.wide.s32", "s64 s32 s32", [-2, -0x80000000], [3, -0x80000000], [-6, 1 << 62]),
    ("mul.wide.u16", "u32 u16 u16", [0xFFFF], [0xFFFF], [0xFFFE0001]),
    ("mul.wide.s16", "s32 s16 s16", [-0x8000], [2], [-0x10000]),
    ("mad.lo.s32", "s32 s32 s32 s32", [3, 0x10000], [-4, 0x10000], [5, 9], [-7, 9]),
    ("mad.hi.u32", "u32 u32 u32 u32", [0x80000000], [6], [10], [13]),
    ("mad.wide.u32", "u64 u32 u32 u64", [M32], [16], [1 << 40], [(1 << 40) + 0xFFFFFFFF0]),
    ("mad.wide.s32", "s64 s32 s32 s64", [-1], [4], [3], [-1]),
    ("dp4a.u32.u32", "u32 u32 u32 u32", [0x01020304, M32, 0], [0x05060708, M32, 7], [9, 0, M32], [79, 260100, M32]),
    ("div.s32", "s32 s32 s32", [-7, 7, -0x80000000, 6], [2, -2, 1, -3], [-3, -3, -0x80000000, -2]),
    ("div.u32", "u32 u32 u32", [M32, 7], [2, 8], [0x7FFFFFFF, 0]),
    ("div.u64", "u64 u64 u64", [M64], [10], [1844674407370955161]),
    ("div.s64", "s64 s64 s64", [-(1 << 63), -9], [1, 2], [-(1 << 63), -4]),
    ("rem.s32", "s32 s32 s32", [-7, 7, -6], [2, -2, 3], [-1, 1, 0]),
    ("rem.u64", "u64 u64 u64", [M64], [10], [5]),
    ("min.s32", "s32 s32 s32", [-1, 4], [1, 3], [-1, 3]),
    ("min.u32", "u32 u32 u32", [M32, 4], [1, 3], [1, 3]),
    ("max.s32", "s32 s32 s32", [-1, 4], [1, 3], [1, 4]),
    ("max.u64", "u64 u64 u64", [M64, 4], [1, 5], [M64, 5]),
    ("max.s16", "s16 s16 s16", [-5], [-6], [-5]),
    ("abs.s32", "s32 s32", [-5, 5, -0x80000000], [5, 5, -0x80000000]),
    ("neg.s64", "s64 s64", [5, -(1 << 63)], [-5, -(1 << 63)]),
    # bits
    ("and.b32", "b32 b32 b32", [0xF0F0], [0xFF00], [0xF000]),
    ("or.b64", "b64 b64 b64", [1 << 63], [1], [(1 << 63) + 1]),
    ("xor.b16", "b16 b16 b16", [0xFF00], [0x0FF0], [0xF0F0]),
    ("not.b32", "b32 b32", [0xF], [0xFFFFFFF0]),
    ("shl.b32", "b32 b32 u32", [1, 1, 1, 3], [31, 32, 1000, 4], [0x80000000, 0, 0, 48]),
    ("shl.b64", "b64 b64 u32", [1, 1], [63, 64], [1 << 63, 0]),
    ("shl.b16", "b16 b16 u32", [3, 3], [15, 16], [0x8000, 0]),
    ("shr.u32", "u32 u32 u32", [0x80000000] * 3, [31, 32, 99], [1, 0, 0]),
    ("shr.s32", "s32 s32 u32", [-8, -8, -8, 8], [1, 32, 99, 99], [-4, -1, -1, 0]),
    ("shr.u64", "u64 u64 u32", [M64, M64], [63, 64], [1, 0]),
    ("shr.b64", "b64 b64 u32", [M64], [60], [15]),
    ("shr.s64", "s64 s64 u32", [-16, -16], [2, 64], [-4, -1]),
    # low word, high word, shift: the 64-bit value is 0x89ABCDEF_01234567
    ("shf.l.wrap.b32", "b32 b32 b32 u32", [0x01234567] * 2, [0x89ABCDEF] * 2, [8, 32], [0xABCDEF01, 0x89ABCDEF]),
    ("shf.r.wrap.b32", "b32 b32 b32 u32", [0x01234567] * 2, [0x89ABCDEF] * 2, [8, 33], [0xEF012345, 0x8091A2B3]),
    ("shf.l.clamp.b32", "b32 b32 b32 u32", [0x01234567] * 2, [0x89ABCDEF] * 2, [40, 0], [0x01234567, 0x89ABCDEF]),
    ("shf.r.clamp.b32", "b32 b32 b32 u32", [0x01234567] * 2, [0x89ABCDEF] * 2, [40, 0], [0x89ABCDEF, 0x01234567]),
    ("popc.b32", "u32 b32", [0, M32, 0x80000001], [0, 32, 2]),
    ("popc.b64", "u32 b64", [M64, 0x8000000000000001], [64, 2]),
    ("clz.b32", "u32 b32", [0, 1, 0x80000000, M32, 0x01FFFFFF], [32, 31, 0, 0, 7]),
    ("clz.b64", "u32 b64", [0, 1, 1 << 32, M64, 0x1FFFFFFFFFFFFF], [64, 63, 31, 0, 11]),
    ("bfind.u32", "u32 u32", [0, 1, 0x00F00000], [M32, 0, 23]),
    ("bfind.s32", "u32 s32", [-1, 0, -2, 5], [M32, M32, 0, 2]),
    ("bfind.u64", "u32 u64", [1 << 40], [40]),
    ("bfind.shiftamt.u32", "u32 u32", [0, 1, 0x00F00000], [M32, 31, 8]),
    ("brev.b32", "b32 b32", [1, 0x12345678], [0x80000000, 0x1E6A2C48]),
    ("brev.b64", "b64 b64", [1, 0x12345678], [1 << 63, 0x1E6A2C48 << 32]),
    ("bfe.u32", "u32 u32 u32 u32", [0x12345678] * 4, [8, 28, 32, 4], [8, 8, 8, 0], [0x56, 0x1, 0, 0]),
    ("bfe.s32", "s32 s32 u32 u32", [0xF80 - 0x1000, 0x780, -1], [7, 7, 40], [5, 4, 3], [-1, -1, -1]),
    ("bfe.s32", "s32 s32 u32 u32", [0x780, 0x780], [7, 7], [5, 0], [15, 0]),
    ("bfe.u64", "u64 u64 u32 u32", [0x0123456789ABCDEF], [32], [16], [0x4567]),
    ("bfi.b32", "b32 b32 b32 u32 u32", [0xAB] * 3, [0x11111111] * 3, [8, 28, 33], [8, 8, 8],
     [0x1111AB11, 0xB1111111, 0x11111111]),
    ("bfi.b64", "b64 b64 b64 u32 u32", [0xAB], [0], [40], [4], [0xB << 40]),
    ("prmt.b32", "b32 b32 b32 b32", [0x33221100] * 4, [0x77665544] * 4, [0x3210, 0x7654, 0x0246, 0x1537],
     [0x33221100, 0x77665544, 0x00224466, 0x11553377]),
    ("prmt.b32", "b32 b32 b32 b32", [0x0000807F], [0], [0x1098], [0x807F0000 | 0xFF00]),  # bit 3 repeats the sign
    ("lop3.b32", "b32 b32 b32 b32 u32", [0xF0F0F0F0] * 4, [0xCCCCCCCC] * 4, [0xAAAAAAAA] * 4,
     [0x80, 0xFE, 0x96, 0xCA], [0x80808080, 0xFEFEFEFE, 0x96969696, 0xCACACACA]),
    ("cvta.to.global.u64", "u64 u64", [1 << 40], [1 << 40]),
    ("cvta.shared.u64", "u64 u64", [1 << 24], [1 << 24]),
    # float32: 1 + 2^-24 is a tie that goes to even; so is 1 + 2^-23 + 2^-24, which goes up
    ("add.rn.f32", "b32 b32 b32", [0x3F800000, 0x3F800001, 0x3F800000], [0x33800000, 0x33800000, 0x33800001],
     [0x3F800000, 0x3F800002, 0x3F800001]),
    ("add.f32", "f32 f32 f32", [1.5, 3e38], [2.25, 3e38], [3.75, math.inf]),
    ("add.rn.f32", "b32 b32 b32", [1, INF32], [1, 0xFF800000], [2, NAN32]),  # subnormal; inf - inf
    ("sub.rn.f32", "f32 f32 f32", [1.0, 0.0], [0.75, 3.0], [0.25, -3.0]),
    ("mul.rn.f32", "b32 b32 b32", [0x3F800001, 0x00800000], [0x3F800001, 0x3F000000], [0x3F800002, 0x00400000]),
    ("mul.rn.f32", "b32 b32 b32", [0, 0x7FC12345], [INF32, 0x3F800000], [NAN32, NAN32]),
    ("div.rn.f32", "b32 b32 b32", [0x3F800000, 0x3F800000, 0], [0x40400000, 0, 0], [0x3EAAAAAB, INF32, NAN32]),
    ("rcp.rn.f32", "b32 b32", [0x40400000, 0x80000000], [0x3EAAAAAB, 0xFF800000]),
    ("sqrt.rn.f32", "b32 b32", [0x40000000, 0xBF800000, 0x80000000, 0x40800000],
     [0x3FB504F3, NAN32, 0x80000000, 0x40000000]),
    # (1 + 2^-12)^2 - (1 + 2^-11) = 2^-24, which two roundings would lose; and a sum whose rounding to float64
    # would make a tie: (1 + 2^-23) 2^-24 (1 - 2^-23) + 1 + 2^-23 lies 2^-70 below it
    ("fma.rn.f32", "b32 b32 b32 b32", [0x3F800800, 0x33800001], [0x3F800800, 0x3F7FFFFE], [0xBF801000, 0x3F800001],
     [0x33800000, 0x3F800001]),
    ("fma.rn.f32", "b32 b32 b32 b32", [0x33800001, 0x7F000000, INF32], [0x3F800001, 0x40800000, 0],
     [0x3F800001, 0x7F000000, 0], [0x3F800002, INF32, NAN32]),
    ("mad.rn.f32", "f32 f32 f32 f32", [3.0], [4.0], [5.0], [17.0]),
    ("min.f32", "b32 b32 b32", [0x80000000, 0, 0x7FC00000, 0x3F800000], [0, 0x80000000, 0x3F800000, 0xBF800000],
     [0x80000000, 0x80000000, 0x3F800000, 0xBF800000]),
    ("max.f32", "b32 b32 b32", [0x80000000, 0, 0x7FC00000, 0x7FC00000], [0, 0x80000000, 0x3F800000, 0x7FC00001],
     [0, 0, 0x3F800000, NAN32]),
    ("max.NaN.f32", "b32 b32 b32", [0x7FC00000, 0x3F800000], [0x3F800000, 0x40000000], [NAN32, 0x40000000]),
    ("min.NaN.f32", "b32 b32 b32", [0x7FC00000, 0x3F800000], [0x3F800000, 0x40000000], [NAN32, 0x3F800000]),
    ("abs.f32", "f32 f32", [-2.5, 2.5], [2.5, 2.5]),
    ("neg.f32", "b32 b32", [0x3F800000, 0], [0xBF800000, 0x80000000]),
    ("copysign.f32", "f32 f32 f32", [-1.0, 1.0], [2.5, -2.5], [-2.5, 2.5]),
    ("copysign.f64", "f64 f64 f64", [-1.0], [2.5], [-2.5]),
    # float64
    ("add.rn.f64", "b64 b64 b64", [0x3FF0000000000000], [0x3CA0000000000000], [0x3FF0000000000000]),  # 1 + 2^-53
    ("add.f64", "f64 f64 f64", [1.5], [0.25], [1.75]),
    ("sub.rn.f64", "f64 f64 f64", [1.0], [2.0 ** -53], [1.0 - 2.0 ** -53]),
    ("mul.rn.f64", "f64 f64 f64", [3.0], [0.5], [1.5]),
    ("div.rn.f64", "b64 b64 b64", [0x3FF0000000000000], [0x4008000000000000], [0x3FD5555555555555]),
    ("sqrt.rn.f64", "b64 b64", [0x4000000000000000], [0x3FF6A09E667F3BCD]),
    ("rcp.rn.f64", "f64 f64", [-4.0], [-0.25]),
    # (1 + 2^-27)^2 - (1 + 2^-26) = 2^-54; -0 * 1 + -0; 3 * -1 + 3; finite product beyond the range plus infinity
    ("fma.rn.f64", "f64 f64 f64 f64", [1 + 2.0**-27, 3.0, 1e300, 1e300], [1 + 2.0**-27, -1.0, 1e300, 1e300],
     [-(1 + 2.0**-26), 3.0, -math.inf, 0.0], [2.0**-54, 0.0, -math.inf, math.inf]),
    ("fma.rn.f64", "b64 b64 b64 b64", [1 << 63, 1 << 63], [0x3FF0000000000000] * 2, [1 << 63, 0], [1 << 63, 0]),
    ("min.f64", "f64 f64 f64", [1.0], [-1.0], [-1.0]),
    ("max.f64", "f64 f64 f64", [1.0], [-1.0], [1.0]),
    ("abs.f64", "f64 f64", [-1.0], [1.0]),
    ("neg.f64", "f64 f64", [-1.0], [1.0]),
    # halves: 2048 + 1 is a tie in float16, 256 + 1 in bfloat16
    ("add.f16", "b16 b16 b16", [0x3C00, 0x6800, 0x6800], [0x4000, 0x3C00, 0x4200], [0x4200, 0x6800, 0x6802]),
    ("add.rn.f16", "b16 b16 b16", [0x7BFF], [0x7BFF], [0x7C00]),
    ("sub.f16", "b16 b16 b16", [0x3C00], [0x3C00], [0]),
    ("mul.rn.f16", "b16 b16 b16", [0x3C01, 0x7E00], [0x3C01, 0x3C00], [0x3C02, 0x7FFF]),
    ("add.rn.bf16", "b16 b16 b16", [0x4380, 0x4380], [0x3F80, 0x4040], [0x4380, 0x4382]),
    ("mul.bf16", "b16 b16 b16", [0x4000], [0xC000], [0xC080]),
    # 1 + 2^-10 squared is 1 + 2^-9 + 2^-20; minus 1 + 2^-9 leaves 2^-20, subnormal in float16: 16 * 2^-24
    ("fma.rn.f16", "b16 b16 b16 b16", [0x3C01], [0x3C01], [0xBC02], [0x0010]),
    ("fma.rn.bf16", "b16 b16 b16 b16", [0x3F81], [0x3F81], [0xBF82], [0x3880]),  # (1 + 2^-7)^2 - (1 + 2^-6) = 2^-14
    ("max.bf16", "b16 b16 b16", [0x3F80], [0x4000], [0x4000]),
    ("neg.f16", "b16 b16", [0x3C00], [0xBC00]),
    ("abs.bf16", "b16 b16", [0xBF80], [0x3F80]),
    # two at once, the first in the low bits
    ("add.rn.f32x2", "b64 b64 b64", [0x3F80000040000000], [0x4000000040400000], [0x4040000040A00000]),
    ("fma.rn.f32x2", "b64 b64 b64 b64", [0x3F80000040000000], [0x4000000040400000], [0x3F8000003F800000],
     [0x4040000040E00000]),
    ("mul.f16x2", "b32 b32 b32", [0x3C004000], [0x42004000], [0x42004400]),
    ("fma.rn.bf16x2", "b32 b32 b32 b32", [0x3F804000], [0x40004000], [0x3F800000], [0x40404080]),
    ("neg.f16x2", "b32 b32", [0x3C00BC00], [0xBC003C00]),
    # integer conversions
    ("cvt.u64.u32", "u64 u32", [M32], [M32]),
    ("cvt.s64.s32", "s64 s32", [-1], [-1]),
    ("cvt.u32.u64", "u32 u64", [0x123456789], [0x23456789]),
    ("cvt.s32.s8", "s32 s8", [-1, 0x7F], [-1, 0x7F]),
    ("cvt.s32.s16", "s32 u32", [0x1FFFF, 0x17FFF], [-1, 0x7FFF]),  # the lower half of a 32-bit register
    ("cvt.u32.u8", "u32 u32", [0x1FF], [0xFF]),
    ("cvt.u16.u64", "u16 u64", [0x12345], [0x2345]),
    ("cvt.s16.s8", "s16 u32", [0x180], [-0x80]),
    ("cvt.u64.s32", "u64 s32", [-1], [M64]),
    ("cvt.sat.u8.s32", "u16 s32", [-5, 300, 7], [0, 255, 7]),
    ("cvt.sat.s32.s64", "s32 s64", [-(1 << 40), 1 << 40, -3], [-0x80000000, 0x7FFFFFFF, -3]),
    # integer to float: 2^24 + 1 and 2^24 + 3 are ties; 2^63 + 2^39 + 1 is just above one
    ("cvt.rn.f32.s32", "f32 s32", [16777217, -16777219, 0], [16777216.0, -16777220.0, 0.0]),
    ("cvt.rn.f32.u32", "b32 u32", [M32, 0xFFFFFF7F], [0x4F800000, 0x4F7FFFFF]),
    ("cvt.rz.f32.u32", "b32 u32", [M32], [0x4F7FFFFF]),
    ("cvt.rp.f32.s32", "f32 s32", [16777217, -16777217], [16777218.0, -16777216.0]),
    ("cvt.rm.f32.s32", "f32 s32", [16777217, -16777217], [16777216.0, -16777218.0]),
    ("cvt.rn.f32.u64", "b32 u64", [0x8000008000000001, 0x8000008000000000, M64], [0x5F000001, 0x5F000000, 0x5F800000]),
    ("cvt.rn.f32.s64", "b32 s64", [-(1 << 63), 0x4000004000000001], [0xDF000000, 0x5E800001]),
    ("cvt.rn.f64.s64", "f64 s64", [(1 << 53) + 1, -5], [2.0**53, -5.0]),
    ("cvt.rn.f64.u64", "f64 u64", [M64], [2.0**64]),
    ("cvt.rn.f64.s32", "f64 s32", [-7], [-7.0]),
    ("cvt.rn.f16.s32", "b16 s32", [2049, 70000, -1], [0x6800, 0x7C00, 0xBC00]),
    ("cvt.rn.bf16.u16", "b16 u16", [257, 259], [0x4380, 0x4382]),
    ("cvt.rn.f32.u8", "f32 u8", [200], [200.0]),
    # float to integer: rounded as asked, saturated, NaN to 0 or, at 64 bits, to the highest bit alone
    ("cvt.rzi.s32.f32", "s32 f32", [-1.9, 1.9, 3e9, -3e9, math.nan], [-1, 1, 0x7FFFFFFF, -0x80000000, 0]),
    ("cvt.rzi.u32.f32", "u32 f32", [-1.0, 4294967040.0, 1e10], [0, 4294967040, M32]),
    ("cvt.rni.s32.f32", "s32 f32", [2.5, 3.5, -2.5], [2, 4, -2]),
    ("cvt.rmi.s32.f32", "s32 f32", [-1.5, 1.5], [-2, 1]),
    ("cvt.rpi.s32.f32", "s32 f32", [-1.5, 1.5], [-1, 2]),
    ("cvt.rzi.s64.f32", "s64 f32", [math.nan, 1e30, -2.5], [-(1 << 63), (1 << 63) - 1, -2]),
    ("cvt.rzi.u64.f64", "u64 f64", [math.nan, 2.0**63, 1e30, -1.0], [1 << 63, 1 << 63, M64, 0]),
    ("cvt.rzi.s32.f64", "s32 f64", [math.nan, 2147483647.5], [-0x80000000, 0x7FFFFFFF]),
    ("cvt.rzi.u8.f32", "u16 f32", [300.0, 7.9, -3.0], [255, 7, 0]),
    ("cvt.rzi.s8.f32", "s16 f32", [-300.0, -7.9], [-128, -7]),
    ("cvt.rni.s32.f16", "s32 b16", [0x4100], [2]),  # 2.5
    # float to float
    ("cvt.f64.f32", "f64 f32", [0.1], [float(np.float32(0.1))]),
    ("cvt.f32.f16", "b32 b16", [0x0001, 0x7C00, 0x3C00], [0x33800000, INF32, 0x3F800000]),
    ("cvt.f32.bf16", "b32 b16", [0x3F81, 0x0001], [0x3F810000, 0x00010000]),
    ("cvt.f64.f16", "f64 b16", [0x3555], [0.333251953125]),
    # 1 + 2^-24 and neighbours, in float64; 1e300 is out of range
    ("cvt.rn.f32.f64", "b32 b64", [0x3FF0000010000000, 0x3FF0000010000001, 0x3FF0000030000000],
     [0x3F800000, 0x3F800001, 0x3F800002]),
    ("cvt.rz.f32.f64", "b32 f64", [1 + 2.0**-24 + 2.0**-25, -1e300, 1.0], [0x3F800000, 0xFF7FFFFF, 0x3F800000]),
    ("cvt.rm.f32.f64", "b32 f64", [1 + 2.0**-25, -(1 + 2.0**-25), 1e300, -1e-300],
     [0x3F800000, 0xBF800001, 0x7F7FFFFF, 0x80000001]),
    ("cvt.rp.f32.f64", "b32 f64", [1 + 2.0**-25, -(1 + 2.0**-25), 1e-300, -1e300],
     [0x3F800001, 0xBF800000, 1, 0xFF7FFFFF]),
    ("cvt.rn.f16.f32", "b16 f32", [2049.0, 2051.0, 65519.0, 65520.0, 2.0**-25, 1.5 * 2.0**-25, math.nan],
     [0x6800, 0x6802, 0x7BFF, 0x7C00, 0, 1, 0x7FFF]),
    ("cvt.rz.f16.f32", "b16 f32", [2051.0, -65520.0], [0x6801, 0xFBFF]),
    # just above the tie 1 + 2^-11: by way of float32 it would fall on the tie
    ("cvt.rn.f16.f64", "b16 f64", [1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-11], [0x3C01, 0x3C00]),
    ("cvt.rn.bf16.f32", "b16 b32", [0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7FC00000, 0x00008001],
     [0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x7FFF, 0x0001]),
    ("cvt.rz.bf16.f32", "b16 b32", [0x3F81FFFF], [0x3F81]),
    ("cvt.rn.bf16.f64", "b16 f64", [1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8], [0x3F81, 0x3F80]),
    ("cvt.rni.f32.f32", "f32 f32", [2.5, -3.5], [2.0, -4.0]),
    ("cvt.rmi.f32.f32", "f32 f32", [2.5, -3.5], [2.0, -4.0]),
    ("cvt.rpi.f32.f32", "f32 f32", [2.5, -3.5], [3.0, -3.0]),
    ("cvt.rzi.f64.f64", "f64 f64", [2.5, -3.5], [2.0, -3.0]),
    ("cvt.rn.f16x2.f32", "b32 f32 f32", [1.0], [2.0], [0x3C004000]),
    ("cvt.rn.bf16x2.f32", "b32 f32 f32", [1.0], [-2.0], [0x3F80C000]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_elementwise(case):
    opcode, types, *operands, expected = case
    result = evaluate(opcode, types, *operands)
    assert result == expected
    # -0.0 == 0.0 for Python: the signs count too
    assert [math.copysign(1, each) for each in result] == [math.copysign(1, each) for each in expected]


def test_every_elementwise_pattern_has_a_case():
    opcodes = [case[0] for case in CASES]
    missing = [pattern.pattern for pattern, _ in ELEMENTWISE if not any(pattern.fullmatch(each) for each in opcodes)]
    assert missing == []


def test_no_opcode_matches_two_patterns():
    for opcode in {case[0] for case in CASES}:
        assert sum(bool(pattern.fullmatch(opcode)) for pattern, _ in [*ELEMENTWISE, *SPECIAL]) == 1, opcode


ORDER = [(1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (math.nan, 2.0), (2.0, math.nan)]


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        ("eq.f32", "01000"), ("ne.f32", "10100"), ("lt.f32", "10000"), ("le.f32", "11000"), ("gt.f32", "00100"),
        ("ge.f32", "01100"), ("equ.f32", "01011"), ("neu.f32", "10111"), ("ltu.f32", "10011"), ("leu.f32", "11011"),
        ("gtu.f32", "00111"), ("geu.f32", "01111"), ("num.f32", "11100"), ("nan.f32", "00011"),
    ],
)  # fmt: skip
def test_setp_of_floats(compare, expected):
    a, b = zip(*ORDER, strict=True)
    assert run_on(f"setp.{compare} %p0, %r1, %r2; selp.u32 %r0, 1, 0, %p0;", "u32 f32 f32", a, b) == digits(expected)


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        ("eq.s32", "010"), ("ne.b32", "101"), ("lt.s32", "100"), ("le.s32", "110"), ("gt.s32", "001"),
        ("ge.s32", "011"), ("lt.u32", "000"), ("ge.u32", "111"), ("lo.u32", "000"), ("ls.u32", "010"),
        ("hi.u32", "101"), ("hs.u32", "111"),
    ],
)  # fmt: skip
def test_setp_of_integers(compare, expected):
    # -1 is the largest unsigned number
    setp = f"setp.{compare} %p0, %r1, %r2; selp.u32 %r0, 1, 0, %p0;"
    assert run_on(setp, "u32 s32 s32", [-1, 2, 3], [2, 2, 2]) == digits(expected)


def digits(text: str) -> list[int]:
    return [int(each) for each in text]


def test_setp_combines_with_a_predicate_and_gives_the_opposite():
    """p = (a < b) op c and q = !(a < b) op c."""
    operands = [1, 1, 9, 9], [5, 5, 5, 5], [1, 0, 1, 0]
    for boolean, first, second in (("and", "1000", "0010"), ("or", "1110", "1011"), ("xor", "0110", "1001")):
        for register, expected in (("%p1", first), ("%p2", second)):
            statements = f"""setp.ne.u32 %p0, %r3, 0; setp.lt.{boolean}.s32 %p1|%p2, %r1, %r2, %p0;
                selp.u32 %r0, 1, 0, {register};"""
            assert run_on(statements, "u32 s32 s32 u32", *operands) == digits(expected), (boolean, register)
    negated = "setp.ne.u32 %p0, %r3, 0; setp.lt.and.s32 %p1, %r1, %r2, !%p0; selp.u32 %r0, 1, 0, %p1;"
    assert run_on(negated, "u32 s32 s32 u32", *operands) == digits("0100")


def test_selp_and_predicates():
    statements = "setp.gt.s32 %p0, %r1, 0; not.pred %p1, %p0; and.pred %p2, %p0, %p1; or.pred %p3, %p0, %p1;"
    for predicate, expected in (("%p0", [7, 8]), ("%p1", [8, 7]), ("%p2", [8, 8]), ("%p3", [7, 7])):
        assert run_on(f"{statements} selp.b32 %r0, 7, 8, {predicate};", "u32 s32", [1, -1]) == expected


def test_mov_packs_and_unpacks():
    assert run_on("mov.b32 {%h1, %h2}, %r1; mov.b32 %r0, {%h2, %h1};", "b32 b32", [0x11112222]) == [0x22221111]
    assert run_on("mov.b64 {%r1, %r2}, %d1; sub.u32 %r0, %r2, %r1;", "b32 b64", [0x500000003]) == [2]
    assert run_on("mov.b64 %d0, {%r1, %r2};", "b64 b32 b32", [0x11], [0x22]) == [0x2200000011]
    assert run_on("mov.b64 {_, %r0}, %d1;", "b32 b64", [0x500000003]) == [5]
    assert run_on("mov.b32 %r0, {0, %h1};", "b32 b16", [0x3F80]) == [0x3F800000]
    quarters = "mov.b64 {%h1, %h2, %h3, %h4}, %d1; mov.b64 %d0, {%h4, %h3, %h2, %h1};"
    assert run_on(quarters, "b64 b64", [0x1111222233334444]) == [0x4444333322221111]


def test_immediates():
    assert results("mov.u32 %r0, -1;", 1) == [M32]
    assert results("mov.b32 %r0, 0x1F;", 1) == [0x1F]
    assert results("mov.f32 %r0, 0f3F800000;", 1) == [0x3F800000]
    assert results("mov.f64 %d0, 0dBFF0000000000000;", 1, "f64") == [-1.0]
    assert results("mov.b16 %h0, 0xFFFF;", 1, "u16") == [0xFFFF]
    assert results("mov.pred %p0, 1; selp.u32 %r0, 3, 4, %p0;", 1) == [3]
    assert results("mov.f32 %r1, 0f40000000; add.rn.f32 %r0, %r1, 0f3F800000;", 1) == [0x40400000]


def test_special_registers():
    assert results("mov.u32 %r0, %tid.x;", 40) == list(range(40))
    assert results("mov.u32 %r0, %laneid;", 40) == [*range(32), *range(8)]
    assert results("mov.u32 %r0, %ntid.x;", 3) == [3, 3, 3]
    assert results("mov.u32 %r0, %lanemask_lt;", 3) == [0, 1, 3]
    assert results("mov.u32 %r0, %lanemask_le;", 3) == [1, 3, 7]
    assert results("mov.u32 %r0, %lanemask_eq;", 3) == [1, 2, 4]
    assert results("mov.u32 %r0, %lanemask_gt;", 2) == [0xFFFFFFFE, 0xFFFFFFFC]
    assert results("mov.u32 %r0, %lanemask_ge;", 2) == [0xFFFFFFFF, 0xFFFFFFFE]


def test_shuffles():
    """32 threads with ten times their lane; a value that would come from outside stays the thread's own."""
    lanes = "mov.u32 %r1, %laneid; mul.lo.u32 %r2, %r1, 10;"
    own = [10 * lane for lane in range(32)]
    cases = {
        "shfl.sync.bfly.b32 %r0, %r2, 1, 31, -1;": [10 * (lane ^ 1) for lane in range(32)],
        "shfl.sync.up.b32 %r0, %r2, 3, 0, -1;": own[:3] + own[:29],
        "shfl.sync.down.b32 %r0, %r2, 30, 31, -1;": [300, 310] + own[2:],
        "shfl.sync.idx.b32 %r0, %r2, 5, 31, -1;": [50] * 32,
        # segments of 8: clamp 31 with the segment mask 0x18 above it
        "shfl.sync.idx.b32 %r0, %r2, 1, 6175, -1;": [10 * (lane // 8 * 8 + 1) for lane in range(32)],
        "shfl.sync.up.b32 %r0, %r2, 1, 6144, -1;": [10 * (lane - (lane % 8 > 0)) for lane in range(32)],
        "shfl.sync.down.b32 %r3|%p0, %r2, 1, 31, -1; selp.u32 %r0, 1, 0, %p0;": [1] * 31 + [0],
    }
    for instruction, expected in cases.items():
        assert results(lanes + instruction, 32) == expected, instruction


def test_votes():
    odd = "mov.u32 %r1, %laneid; and.b32 %r1, %r1, 1; setp.ne.u32 %p0, %r1, 0;"
    true = odd + "setp.lt.u32 %p0, %r1, 9;"
    assert results(odd + "vote.sync.ballot.b32 %r0, %p0, -1;", 32) == [0xAAAAAAAA] * 32
    for text, mode, expected in [(odd, "any", 1), (odd, "all", 0), (odd, "uni", 0), (true, "all", 1), (true, "uni", 1)]:
        assert results(f"{text} vote.sync.{mode}.pred %p1, %p0, -1; selp.u32 %r0, 1, 0, %p1;", 32) == [expected] * 32
    assert results(odd + "vote.sync.any.pred %p1, !%p0, -1; selp.u32 %r0, 1, 0, %p1;", 32) == [1] * 32
    # a second warp of 8 threads
    assert results(odd + "vote.sync.ballot.b32 %r0, %p0, -1;", 40)[32:] == [0xAA] * 8


def test_redux_and_activemask():
    lane = "mov.u32 %r1, %laneid; sub.s32 %r1, %r1, 4;"
    expected = {"add.s32": 368, "min.s32": -4 & M32, "max.s32": 27, "max.u32": M32, "and.b32": 0, "or.b32": M32}
    for operation, value in expected.items():
        assert results(f"{lane} redux.sync.{operation} %r0, %r1, -1;", 32) == [value] * 32, operation
    assert results(f"{lane} redux.sync.xor.b32 %r0, %r1, -1;", 1) == [-4 & M32]
    half = "mov.u32 %r1, %laneid; mov.u32 %r0, 0; setp.lt.u32 %p0, %r1, 3; @%p0 activemask.b32 %r0;"
    assert results(half, 5) == [7, 7, 7, 0, 0]


@pytest.mark.parametrize(
    "instruction",
    [
        "ex2.approx.f32 %r0, %r1;",
        "sqrt.approx.f32 %r0, %r1;",
        "rcp.approx.f32 %r0, %r1;",
        "div.full.f32 %r0, %r1, %r2;",
        "div.approx.f32 %r0, %r1, %r2;",
        "add.ftz.f32 %r0, %r1, %r2;",
        "mul.rn.ftz.f32 %r0, %r1, %r2;",
        "mul.f32 %r0, %r1, %r2; add.f32 %r3, %r0, %r2;",  # ptxas may fuse them
    ],
)
def test_approximate_instructions_are_refused(instruction):
    with pytest.raises(Approximate):
        compile_kernel(kernel(instruction))


@pytest.mark.parametrize(
    "instruction",
    [
        "atom.global.add.u32 %r0, [%d0], 1;",
        "add.rz.f32 %r0, %r1, %r2;",
        "add.sat.s32 %r0, %r1, %r2;",
        "add.u32 %r0, %r1;",  # an operand is missing
        "add.u32 %r0, %d1, %r2;",  # the widths differ
        "add.f32 %r0, %r1, 1;",  # an integer for a float
        "prmt.b32.f4e %r0, %r1, %r2, %r3;",
        "ld.volatile.global.u32 %r0, [%d0];",
        "ld.global.v2.u32 %r0, [%d0];",
        "bar.sync 0, 64;",
        "bra nowhere;",
        "mov.u32 %r0, %clock;",
        "mov.u32 %r0, elsewhere;",
        "setp.lt.b32 %p0, %r0, %r1;",
        "cvt.f16.f32 %h0, %r0;",
    ],
)
def test_what_is_not_modelled_is_refused(instruction):
    with pytest.raises(Unsupported):
        compile_kernel(kernel(instruction))
