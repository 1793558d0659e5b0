"""What Triton makes of the kernel: which kernels there are, their machine code, and how many bytes their PTX moves.

That their PTX gives the reference's bits whatever the arguments is the business of test_ptx_kernels.py.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

import triton  # noqa: E402
from cutmix_cuda.triton_kernels import mix  # noqa: E402

from cutmix_cuda import reference  # noqa: E402
from cutmix_cuda._ops import Partner, Placement, Scope  # noqa: E402

from .helpers import assert_same_bits, random_images, random_labels  # noqa: E402
from .ptx.report import Report  # noqa: E402
from .triton_compile import compiled, execute, specialization  # noqa: E402

CLASSES = 10
QUANTILES = torch.arange(4097) / 4096  # alpha = 1
SEED = torch.tensor([20190513])
SAMPLING = (SEED, QUANTILES, 1.0, Scope.sample.value, Partner.mirror.value, Placement.clip.value, True)


class Case(NamedTuple):
    """Images that need a kernel of their own: large enough for the blocks of full-size images, and no larger."""

    shape: tuple[int, int, int]
    dtype: torch.dtype
    width: int  # bytes in a vector
    granule: int  # bytes that are always of one sample
    channels_last: bool = False

    def images(self, batch: int = 3) -> Tensor:
        images = random_images((batch, *self.shape), self.dtype)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


CASES = {
    "float32": Case((3, 48, 32), torch.float32, 16, 4),
    "float16": Case((3, 96, 32), torch.float16, 16, 2),
    "uint8": Case((3, 96, 64), torch.uint8, 16, 1),
    "float64": Case((3, 48, 16), torch.float64, 16, 4),
    "complex128": Case((3, 48, 8), torch.complex128, 16, 16),
    "float32-last": Case((3, 48, 32), torch.float32, 16, 4, True),
    "float16-last": Case((3, 96, 32), torch.float16, 16, 2, True),
    "uint8-last": Case((3, 96, 64), torch.uint8, 16, 1, True),
    "uint8-by-8": Case((3, 96, 24), torch.uint8, 8, 1),
    "uint8-by-4": Case((3, 70, 28), torch.uint8, 4, 1),
    "float32-odd": Case((3, 5, 225), torch.float32, 4, 4),
    "float16-odd": Case((3, 5, 225), torch.float16, 2, 2),
    "uint8-by-2": Case((3, 5, 226), torch.uint8, 2, 1),
    "uint8-odd": Case((3, 5, 225), torch.uint8, 1, 1),
    "uint8-odd-last": Case((3, 5, 75), torch.uint8, 1, 1, True),
}
COMMON = ("float32", "uint8")

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_place = pytest.mark.parametrize("in_place", [False, True], ids=["out", "in-place"])


@pytest.fixture
def reports(monkeypatch) -> list[Report]:
    """Makes the ops run compiled PTX on CPU tensors; the report of each launch is appended."""
    done: list[Report] = []
    monkeypatch.setattr(mix.Launch, "__call__", lambda launch, device: done.append(execute(launch)))
    return done


@pytest.fixture
def launches(monkeypatch) -> list[mix.Launch]:
    """Makes the ops prepare their launches and not run them."""
    prepared: list[mix.Launch] = []
    monkeypatch.setattr(mix.Launch, "__call__", lambda launch, device: prepared.append(launch))
    return prepared


def assert_same_targets(actual: Tensor, expected: Tensor) -> None:
    """The same bits, but for those of a NaN."""
    assert torch.equal(actual.isnan(), expected.isnan())
    assert_same_bits(actual.nan_to_num(7.0), expected.nan_to_num(7.0))


def assert_as_reference(op: str, images: Tensor, *arguments) -> None:
    """An op gives the reference's images, targets and plan, and changes its images only where it is in place."""
    ops: list[dict[str, Any]] = [mix.OPS, reference.OPS]
    ours, theirs = images.clone(), images.clone()
    actual, expected = (of[op](x, *arguments) for of, x in zip(ops, (ours, theirs), strict=True))
    actual, expected = ((x,) if isinstance(x, Tensor) else x for x in (actual, expected))
    assert_same_bits(ours, theirs)
    for ours, theirs in zip(actual, expected, strict=True):
        if ours.dtype.is_floating_point and ours.dim() == 2:
            assert_same_targets(ours, theirs)
        else:
            assert_same_bits(ours, theirs)
            assert ours.stride() == theirs.stride()


# ---- Machine code

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def resources(cubin: Path) -> dict[str, int]:
    """What ptxas gave the kernel: registers, and bytes of stack, shared and local memory."""
    text = subprocess.run([TOOLS / "cuobjdump", "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}


def opcodes(cubin: Path) -> list[str]:
    """The opcodes of the machine code, in order."""
    text = subprocess.run([TOOLS / "nvdisasm", "-c", cubin], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", text, re.MULTILINE)


@every_place
@pytest.mark.parametrize(
    ("name", "architecture"),
    [*((name, 90) for name in CASES), *((name, arch) for arch in (80, 100) for name in COMMON)],
)
def test_machine_code(launches, tmp_path, name, architecture, in_place):
    """No spill, no shared memory, no barrier; whole vectors by one instruction; no product fused with a sum."""
    case = CASES[name]
    labels = random_labels(3, CLASSES)
    mix.OPS["cutmix_" if in_place else "cutmix"](case.images(), labels, *SAMPLING, CLASSES, 0.1, torch.float32)
    width = min(case.width, case.granule) if in_place and case.width < 8 else case.width
    assert launches[0].options["WIDTH"] == width
    assert launches[0].options["GRANULE"] == min(width, case.granule)
    kernel = compiled(launches[0], architecture)
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])

    used = resources(cubin)
    assert (used["STACK"], used["LOCAL"], kernel.metadata.shared) == (0, 0, 0)
    assert used["REG"] <= 128, "at least four blocks of 128 threads on a multiprocessor"
    codes = opcodes(cubin)
    assert len(codes) > 100
    assert not [code for code in codes if code.startswith(("LDL", "STL", "LDS", "STS", "BAR", "SHFL"))]
    if case.width >= 8:
        bits = f".{8 * case.width}"
        # A load of each vector from either sample, of which one does nothing unless an edge of a box crosses it.
        per_thread = mix.WIDE_PER_THREAD
        wide = [code for code in codes if code.startswith(("LDG", "STG")) and bits in code]
        loads = sum(code.startswith("LDG") for code in wide) - (2 if bits == ".64" else 0)  # labels are 64 bits, too
        assert loads == 2 * per_thread
        assert sum(code.startswith("STG") for code in wide) == per_thread * (2 if in_place else 1)

    ptx = kernel.asm["ptx"]
    assert "mul.rn.f32" in ptx and "sqrt.rn.f32" in ptx and "div.rn.f32" in ptx
    assert not re.search(r"\bfma\b|\.approx|\.ftz|\.full", ptx)
    assert not re.search(r"\b(?:add|sub|mul)\.f(?:32|64)", ptx), "without .rn ptxas may fuse them"


# ---- Execution


def pasted(images: Tensor, plan: Tensor) -> Tensor:
    """bool, like images: what a plan pastes."""
    own = torch.zeros_like(images, dtype=torch.uint8)
    for sample, (_, y0, x0, y1, x1, *_) in enumerate(plan.tolist()):
        own[sample, ..., y0:y1, x0:x1] = 1
    return own.bool()


@every_place
@every_case
def test_pixels(reports, case, in_place):
    """Bits as the reference; each byte moved once, and in place none but those of the boxes."""
    images, labels = case.images(), random_labels(3, CLASSES)
    arguments = (labels, *SAMPLING, CLASSES, 0.1, torch.float32)
    assert_as_reference("cutmix_" if in_place else "cutmix", images, *arguments)

    (report,) = reports
    plan = reference.OPS["cutmix"](images, *arguments)[-1]
    boxes = int(pasted(images, plan).sum()) * images.element_size()
    assert 0 < boxes < images.nbytes
    rows = sum(y1 - y0 for _, y0, _, y1, *_ in plan.tolist()) * (1 if case.channels_last else case.shape[0])
    straddling = 2 * rows * case.width if case.granule < case.width else 0
    traffic = report.buffers["images"]
    if in_place:
        assert traffic.bytes_written == boxes
        assert boxes <= traffic.bytes_read <= boxes + straddling  # vectors that an edge crosses are read whole
    else:
        assert (report.buffers["out"].bytes_written, traffic.bytes_written) == (images.nbytes, 0)
        assert images.nbytes <= traffic.bytes_read <= images.nbytes + straddling


@every_place
def test_many_classes(reports, in_place):
    """More chunks of a target than there are of pixels."""
    images, labels = CASES["uint8-by-8"].images(), torch.tensor([0, 2499, 7])
    op = "cutmix_" if in_place else "cutmix"
    assert_as_reference(op, images, labels, *SAMPLING, 2500, 0.1, torch.float32)
    assert len(reports) == 1


def test_out_of_another_layout(reports):
    """Strides of its own, another order of the slices, or another pixel, for which the images are mixed in a copy."""
    images = random_images((3, 3, 8, 16), torch.int32)
    expected = reference.cutmix(images, None, *SAMPLING, 0, 0.0, torch.float32)[0]
    storage = torch.zeros(3, 3, 10, 20, dtype=torch.int32)
    outs = [
        storage[:, :, 1:9, 2:18],
        torch.zeros(3, 8, 3, 16, dtype=torch.int32).transpose(1, 2),
        torch.zeros_like(images).contiguous(memory_format=torch.channels_last),
    ]
    for out in outs:
        mix.OPS["cutmix_out"](images, None, *SAMPLING, 0, 0.0, torch.float32, out)
        assert_same_bits(out, expected)
    assert int((storage != 0).sum()) == int((outs[0] != 0).sum())

    video = random_images((3, 2, 3, 4, 8), torch.int32)
    out = torch.zeros(3, 3, 2, 4, 8, dtype=torch.int32).transpose(1, 2)
    mix.OPS["cutmix_out"](video, None, *SAMPLING, 0, 0.0, torch.float32, out)
    assert_same_bits(out, reference.cutmix(video, None, *SAMPLING, 0, 0.0, torch.float32)[0])
    assert len(reports) == 4


def test_more_samples_than_a_grid_is_high(reports, monkeypatch):
    monkeypatch.setattr(mix, "MAX_GRID_Y", 2)
    assert_as_reference("cutmix_", CASES["uint8"].images(5), None, *SAMPLING, 0, 0.0, torch.float32)


@every_place
def test_samples_beyond_32_bits(reports, monkeypatch, in_place):
    """The kernel for samples of more than 2^30 groups of vectors, on a small one."""
    monkeypatch.setattr(mix, "MAX_FAST_DIVISION", 0)
    monkeypatch.setattr(mix, "geometry", mix.geometry.__wrapped__)
    images = random_images((3, 3, 7, 24), torch.uint8)
    op = "cutmix_" if in_place else "cutmix"
    assert_as_reference(op, images, None, *SAMPLING, 0, 0.0, torch.float32)


# ---- Launches


def test_division_by_multiplication():
    limit = 1 << 30
    for divisor in [*range(1, 300), 2**14 - 1, 2**15 + 1, 37632, 10**6 + 3, limit // 2 + 1, limit - 1]:
        magic, shift = mix.divider(divisor)
        assert 0 < magic < 1 << 31
        for quotient in {0, 1, 2, limit // divisor // 2, (limit - 1) // divisor}:
            for number in (quotient * divisor - 1, quotient * divisor, quotient * divisor + divisor - 1):
                if 0 <= number < limit:
                    assert number * magic >> shift == number // divisor


def training_launch(batch: int, seed: int | Tensor = 1, **changes) -> mix.Launch:
    """The launch of cutmix on CUDA tensors of any size: meta tensors have no memory, and sizes are all that matters."""
    with torch.device("meta"):
        images, labels = torch.empty(batch, 3, 224, 224), torch.empty(batch, dtype=torch.int64)
        out, targets = torch.empty_like(images), torch.empty(batch, 1000)
        plan, quantiles = torch.empty(batch, 8, dtype=torch.int32), torch.empty(4097)
    seed = seed if isinstance(seed, Tensor) else torch.tensor([seed])
    sampling = mix.Sampling(seed, quantiles, 1.0, 0, 3, 0, True)._replace(**changes)
    rows = mix.rows_of(images)
    assert rows is not None
    pixels = mix.Pixels(images, out, rows, rows)
    return mix.mix_launch(batch, 224, 224, plan, sampling, pixels, mix.Labels(labels, targets, 0.1))


def test_what_compiles_a_kernel():
    """No batch size, seed or option of sampling: a training run has one kernel, or two if it captures CUDA graphs."""
    launches = [training_launch(batch) for batch in (1, 2, 16, 17, 255, 256, 65536, 1 << 20)]
    launches += [training_launch(256, seed) for seed in (0, 1, 16, 2**31, 2**40, -1)]
    launches += [training_launch(256, prob=0.5, scope=1, partner=1, placement=1, correct_lam=False)]
    assert len({specialization(launch) for launch in launches}) == 1
    on_device = training_launch(256, seed=torch.empty(1, dtype=torch.int64, device="meta"))
    assert len({specialization(launch) for launch in (*launches, on_device)}) == 2


@pytest.mark.parametrize("batch", [1, 7, 65535, 65536, 100_001, 1 << 20, 1 << 30])
def test_grid(batch):
    x, y, z = training_launch(batch).grid
    assert x == 37  # 3 * 224 * 224 * 4 / 16384 = 36.75
    assert batch <= y * z < batch + z and y <= 65535 and z <= 65535
