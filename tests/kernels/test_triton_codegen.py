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
from cutmix_cuda.triton_kernels import launch as launching  # noqa: E402
from cutmix_cuda.triton_kernels import ops  # noqa: E402
from cutmix_cuda.triton_kernels.launch import Labels, Launch, Pixels, mix_launch  # noqa: E402
from cutmix_cuda.triton_kernels.rows import Rows, rows_of  # noqa: E402

from cutmix_cuda import reference  # noqa: E402
from cutmix_cuda._ops import Draw, Kind, Partner, Placement, Sampling, Scope  # noqa: E402

from ..helpers import assert_same_bits, random_images, random_labels  # noqa: E402
from ..ptx.report import Report  # noqa: E402
from .execution import UNIFORM, bounds_of, fill_of  # noqa: E402
from .triton_compile import compiled, execute, kernels_of  # noqa: E402

CLASSES = 10
LAWS = (torch.tensor([1]), UNIFORM ** torch.tensor([[1.0], [2.0], [3.0]]))
RULES = Sampling(Scope.sample.value, Partner.mirror.value, Placement.clip.value, 1)
CUTMIX = bounds_of(Kind.cutmix)
EVERY_KIND = (0.3, 0.6, 0.9)
DRAW = Draw(*LAWS, CUTMIX, RULES)


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
BLENDED = {  # for each way to take words apart into elements
    **{name: CASES[name] for name in ("float32", "uint8", "float64")},
    "bfloat16-odd": CASES["float16-odd"]._replace(dtype=torch.bfloat16),
    "bfloat16-last": CASES["float16-last"]._replace(dtype=torch.bfloat16),
}

every_case = pytest.mark.parametrize(
    ("case", "bounds"),
    [
        *(pytest.param(case, CUTMIX, id=name) for name, case in CASES.items()),
        *(pytest.param(case, EVERY_KIND, id=f"{name}-every-kind") for name, case in BLENDED.items()),
    ],
)
every_place = pytest.mark.parametrize("in_place", [False, True], ids=["out", "in-place"])


@pytest.fixture
def reports(monkeypatch) -> list[Report]:
    """Makes the ops run compiled PTX on CPU tensors; the report of each launch is appended."""
    done: list[Report] = []
    monkeypatch.setattr(Launch, "__call__", lambda launch, device: done.append(execute(launch)))
    return done


@pytest.fixture
def launches(monkeypatch) -> list[Launch]:
    """Makes the ops prepare their launches and not run them."""
    prepared: list[Launch] = []
    monkeypatch.setattr(Launch, "__call__", lambda launch, device: prepared.append(launch))
    return prepared


def assert_same_targets(actual: Tensor, expected: Tensor) -> None:
    """The same bits, but for those of a NaN."""
    assert torch.equal(actual.isnan(), expected.isnan())
    assert_same_bits(actual.nan_to_num(7.0), expected.nan_to_num(7.0))


def assert_as_reference(op: str, images: Tensor, *arguments) -> None:
    """An op gives the reference's images, targets and plan, and changes its images only where it is in place."""
    both: list[dict[str, Any]] = [ops.OPS, reference.OPS]
    ours, theirs = images.clone(), images.clone()
    actual, expected = (of[op](x, *arguments) for of, x in zip(both, (ours, theirs), strict=True))
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
@every_case
def test_machine_code(launches, tmp_path, case, bounds, in_place):
    check_machine_code(launches, tmp_path, case, bounds, in_place, 90)


@every_place
@pytest.mark.parametrize("architecture", [80, 100])
@pytest.mark.parametrize("name", COMMON)
def test_machine_code_of_other_architectures(launches, tmp_path, name, architecture, in_place):
    check_machine_code(launches, tmp_path, CASES[name], CUTMIX, in_place, architecture)


def check_machine_code(launches, folder: Path, case: Case, bounds: tuple, in_place: bool, architecture: int) -> None:
    """No spill, no shared memory, no barrier; whole vectors by one instruction; no product fused with a sum."""
    draw, wanted = DRAW._replace(bounds=bounds), (CLASSES, 0.1, torch.float32)
    ops.OPS["sample_and_apply_" if in_place else "sample_and_apply"](
        case.images(), random_labels(3, CLASSES), *draw, *wanted
    )
    options = launches[0].options
    assert (options["WIDTH"], options["GRANULE"]) == (case.width, min(case.width, case.granule))
    assert options["ROWS"] == launching.ROWS
    kernel = compiled(launches[0], architecture)
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])

    used = resources(cubin)
    assert (used["STACK"], used["LOCAL"], kernel.metadata.shared) == (0, 0, 0)
    assert used["REG"] <= (80 if bounds == CUTMIX else 128), "of 128 threads at least six blocks, four of any kind"
    codes = opcodes(cubin)
    assert len(codes) > 100
    assert not [code for code in codes if code.startswith(("LDL", "STL", "LDS", "STS", "BAR", "SHFL"))]
    if case.width >= 8:
        bits = f".{8 * case.width}"
        # A load of each vector from either sample, of which one does nothing unless an edge of a box crosses it.
        wide = [code for code in codes if code.startswith(("LDG", "STG")) and bits in code]
        loads = sum(code.startswith("LDG") for code in wide) - (2 if bits == ".64" else 0)  # labels are 64 bits, too
        assert loads == 2 * launching.ROWS
        assert sum(code.startswith("STG") for code in wide) == launching.ROWS * (2 if in_place else 1)

    ptx = kernel.asm["ptx"]
    assert "mul.rn.f32" in ptx and "sqrt.rn.f32" in ptx and "div.rn.f32" in ptx
    assert not re.search(r"\bfma\b|\.approx|\.ftz|\.full", ptx)
    assert not re.search(r"\b(?:add|sub|mul)\.f(?:32|64)", ptx), "without .rn ptxas may fuse them"


# ---- Execution


def moved(images: Tensor, plan: Tensor, in_place: bool) -> tuple[int, int]:
    """The bytes that a plan has to read and to write, each once for a sample that it becomes a part of."""
    changed = torch.zeros(images.shape, dtype=torch.bool)
    own, partner = torch.full_like(changed, not in_place), torch.zeros_like(changed)
    for sample, (other, y0, x0, y1, x1, _, kind, _) in enumerate(plan.tolist()):
        box = slice(None) if kind == Kind.mixup else (..., slice(y0, y1), slice(x0, x1))
        changed[sample][box] = True
        own[sample][box] = kind == Kind.mixup
        partner[other if in_place else sample][box] = kind != Kind.cutout
    read = (own | partner).sum() if in_place else own.sum() + partner.sum()  # in place a pair is read together
    return int(read) * images.element_size(), int(
        changed.sum() if in_place else changed.numel()
    ) * images.element_size()


@every_place
@every_case
def test_pixels(reports, case, bounds, in_place):
    """Bits as the reference; each byte moved once, and in place none but those of vectors that boxes meet."""
    batch = 3 if bounds == CUTMIX else 7
    images, labels = case.images(batch), random_labels(batch, CLASSES)
    if bounds != CUTMIX:
        images = images.nan_to_num()  # which NaN a blend with one gives, a processor chooses
    arguments = (labels, *DRAW._replace(bounds=bounds), CLASSES, 0.1, torch.float32, fill_of(1, case.dtype))
    assert_as_reference("sample_and_apply_" if in_place else "sample_and_apply", images, *arguments)

    (report,) = reports
    plan = reference.OPS["sample_and_apply"](images, *arguments)[-1]
    assert set(plan[:, 6].tolist()) == {Kind.cutmix, Kind.keep} if bounds == CUTMIX else set(Kind)
    read, written = moved(images, plan, in_place)
    rows = sum(y1 - y0 for _, y0, _, y1, *_ in plan.tolist()) * (1 if case.channels_last else case.shape[0])
    straddling = 2 * rows * case.width if case.granule < case.width else 0  # vectors that an edge crosses go whole
    traffic = report.buffers["images"]
    assert 0 < written < images.nbytes or not in_place
    assert read <= traffic.bytes_read <= read + straddling
    if in_place:
        assert written <= traffic.bytes_written <= written + straddling
    else:
        assert (traffic.bytes_written, report.buffers["out"].bytes_written) == (0, written)


@every_place
def test_many_classes(reports, in_place):
    """More chunks of a target than there are of pixels."""
    images, labels = CASES["uint8-by-8"].images(), torch.tensor([0, 2499, 7])
    op = "sample_and_apply_" if in_place else "sample_and_apply"
    assert_as_reference(op, images, labels, *DRAW, 2500, 0.1, torch.float32)
    assert len(reports) == 1


def test_out_of_another_layout(reports):
    """Strides of its own, another order of the slices, or another pixel, for which the images are mixed in a copy."""
    images = random_images((3, 3, 8, 16), torch.int32)
    expected = reference.sample_and_apply(images, None, *DRAW, 0, 0.0, torch.float32)[0]
    storage = torch.zeros(3, 3, 10, 20, dtype=torch.int32)
    outs = [
        storage[:, :, 1:9, 2:18],
        torch.zeros(3, 8, 3, 16, dtype=torch.int32).transpose(1, 2),
        torch.zeros_like(images).contiguous(memory_format=torch.channels_last),
    ]
    for out in outs:
        ops.OPS["sample_and_apply_out"](images, None, *DRAW, 0, 0.0, torch.float32, out)
        assert_same_bits(out, expected)
    assert int((storage != 0).sum()) == int((outs[0] != 0).sum())

    video = random_images((3, 2, 3, 4, 8), torch.int32)
    out = torch.zeros(3, 3, 2, 4, 8, dtype=torch.int32).transpose(1, 2)
    ops.OPS["sample_and_apply_out"](video, None, *DRAW, 0, 0.0, torch.float32, out)
    assert_same_bits(out, reference.sample_and_apply(video, None, *DRAW, 0, 0.0, torch.float32)[0])
    assert len(reports) == 4


def test_more_samples_than_a_grid_is_high(reports, monkeypatch):
    monkeypatch.setattr(launching, "MAX_GRID_Y", 2)
    assert_as_reference("sample_and_apply_", CASES["uint8"].images(5), None, *DRAW, 0, 0.0, torch.float32)


@every_place
def test_samples_beyond_32_bits(reports, monkeypatch, in_place):
    """The kernel for samples of more vectors than 32 bits are good for, on a small one."""
    monkeypatch.setattr(launching, "MAX_FAST_POSITIONS", 0)
    monkeypatch.setattr(launching, "geometry", launching.geometry.__wrapped__)
    images = random_images((7, 3, 7, 24), torch.uint8)
    op = "sample_and_apply_" if in_place else "sample_and_apply"
    assert_as_reference(op, images, None, *DRAW._replace(bounds=EVERY_KIND), 0, 0.0, torch.float32)


# ---- Launches


def training_launch(
    batch: int,
    seed: int | Tensor = 1,
    dtype: torch.dtype = torch.float32,
    fill: int = 0,
    bounds: tuple[float, ...] = CUTMIX,
    **changes: int,
) -> Launch:
    """The launch of cutmix on CUDA tensors of any size: meta tensors have no memory, and sizes are all that matters."""
    with torch.device("meta"):
        images, labels = torch.empty(batch, 3, 224, 224, dtype=dtype), torch.empty(batch, dtype=torch.int64)
        out, targets = torch.empty_like(images), torch.empty(batch, 1000)
        plan, quantiles = torch.empty(batch, 8, dtype=torch.int32), torch.empty(3, 4097)
    seed = seed if isinstance(seed, Tensor) else torch.tensor([seed])
    draw = Draw(seed, quantiles, bounds, RULES._replace(**changes))
    rows = rows_of(images)
    assert rows is not None
    pixels = Pixels(images, out, rows, rows)
    wanted = Labels(labels, targets, 0.1)
    return mix_launch(batch, 224, 224, plan, draw, pixels, wanted, dtype=dtype, fill=(fill, fill))


def test_what_compiles_a_kernel():
    """No batch size, seed or option of sampling: a training run has one kernel, or two if it captures CUDA graphs."""
    launches = [training_launch(batch) for batch in (1, 2, 16, 17, 255, 256, 65536, 1 << 20)]
    launches += [training_launch(256, seed) for seed in (0, 1, 16, 2**31, 2**40, -1)]
    launches += [training_launch(256, scope=1, partner=1, placement=1, correct_lam=0, bounds=(0.5, 0.5, 0.5))]
    launches += [training_launch(256, dtype=torch.int32)]
    assert kernels_of(launches) == 1
    on_device = training_launch(256, seed=torch.empty(1, dtype=torch.int64, device="meta"))
    assert kernels_of([*launches, on_device]) == 2


def test_what_compiles_a_kernel_for_every_kind():
    """The dtype, if mixup can blend it; neither the bounds of the kinds nor the fill."""
    every_bounds = [(0.3, 0.6, 1.0), (0.0, 1.0, 1.0), (0.9, 0.0, 1.0)]
    launches = [
        training_launch(256, fill=fill, bounds=bounds) for fill in (0, 1, 16, -1, 2**40) for bounds in every_bounds
    ]
    assert kernels_of(launches) == 1
    dtypes = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
    launches = [training_launch(256, dtype=dtype, bounds=(0.5, 1.0, 1.0)) for dtype in dtypes]
    assert kernels_of(launches) == len(dtypes)
    whole = [training_launch(256, dtype=dtype, bounds=(0.5, 0.5, 1.0)) for dtype in (torch.int32, torch.uint32)]
    assert kernels_of(whole) == 1


@pytest.mark.parametrize("batch", [1, 7, 65535, 65536, 100_001, 1 << 20, 1 << 30])
def test_grid(batch):
    x, y, z = training_launch(batch).grid
    # 672 lines of 56 vectors are 336 times the two that 128 threads stand on. A program goes on for 16 times, or for as
    # many as leave work for 297 programs, but not for less than 2.
    assert x == {1: 168, 7: 43}.get(batch, 21)
    assert batch <= y * z < batch + z and y <= 65535 and z <= 65535


@every_place
def test_how_a_row_is_cut(in_place):
    """Chunks cover a row, and on whole lines of them at most a quarter of the lanes stays idle."""
    for vectors in range(1, 2000):
        row = 16 * vectors
        rows = Rows(64, 3, 224, row, 1, 3 * 224 * row, 224 * row, row)
        seen = launching.geometry(rows, rows, 0, in_place)
        _, row_vectors, columns, parts, _ = seen.numbers[6:]
        chunks = seen.chunks // parts
        assert seen.chunks == chunks * parts and (chunks - 1) * columns < row_vectors == vectors <= chunks * columns
        busy = seen.constants["LANES"] // columns * vectors / chunks
        assert busy >= 0.75 * seen.constants["LANES"], vectors
