"""What Triton's launches are decided by: the widest vectors that memory allows, and the bits that places need; and when
Triton is asked for a kernel.

Addresses, sizes and strides decide, so that nothing has to be compiled or run.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from cutmix_cuda._ops import FEW_CHANNELS
from cutmix_cuda.distributions import quantiles

pytest.importorskip("triton")

from cutmix_cuda.triton_kernels import augment_launch, launch, ops  # noqa: E402
from cutmix_cuda.triton_kernels.kernel import mix_kernel  # noqa: E402
from cutmix_cuda.triton_kernels.launch import geometry  # noqa: E402
from cutmix_cuda.triton_kernels.rows import Rows  # noqa: E402
from triton.runtime import JITFunction  # noqa: E402


@pytest.mark.parametrize("width", [16, 8, 4, 2, 1])
def test_samples_of_vectors_that_32_bits_are_good_for(width):
    """However far apart their rows are, because addresses have 64 bits anyway."""
    for vectors, large in (((1 << 26) - 1, False), ((1 << 26) + 1, True)):
        for slices, height, row in ((1, 1, vectors), (vectors, 1, 1), (1, vectors, 1)):
            rows = Rows(1, slices, height, row, width, 0, 1 << 40, 1 << 40)
            constants = geometry(rows, rows, 0, False).constants
            assert (constants["WIDTH"], constants["LARGE"]) == (width, large)


@pytest.mark.parametrize("gaps", ["slices", "rows", "none"])
@pytest.mark.parametrize("whose", ["images", "out"])
def test_rows_that_are_evenly_spaced(whose, gaps):
    dense = Rows(2, 3, 4, 32, 1, 3 * 4 * 32, 4 * 32, 32)
    strides = {"slices": {"slice_stride": 4 * 32 + 16}, "rows": {"row_stride": 48, "slice_stride": 4 * 48}, "none": {}}
    pair = (dense._replace(**strides[gaps]), dense)
    pair = pair if whose == "images" else pair[::-1]
    assert geometry(*pair, 0, False).constants["EVEN"] == (gaps != "slices")
    assert geometry(*(each._replace(slices=1) for each in pair), 0, False).constants["EVEN"]


# ---- The batch tail


def test_division_by_multiplication():
    limit = 1 << 30
    for divisor in [*range(1, 300), 2**14 - 1, 2**15 + 1, 37632, 10**6 + 3, limit // 2 + 1, limit - 1]:
        magic, shift = augment_launch.divider(divisor)
        assert 0 < magic < 1 << 31
        for quotient in {0, 1, 2, limit // divisor // 2, (limit - 1) // divisor}:
            for number in (quotient * divisor - 1, quotient * divisor, quotient * divisor + divisor - 1):
                if 0 <= number < limit:
                    assert number * magic >> shift == number // divisor


def addresses_of(images: Tensor) -> np.ndarray:
    """Of each element, in bytes."""
    indices = np.indices(images.shape).reshape(4, -1)
    offsets = np.array(images.stride()) @ indices
    return images.data_ptr() + images.element_size() * offsets.reshape(images.shape)


def holds_vectors(images: Tensor, vector: int, form: str) -> bool:
    """Whether so many elements, from any multiple of them on, lie side by side at a multiple of their bytes.

    The elements are of a row of a channel ("planes"), of all channels of as many pixels ("pixels"), or of channels of
    a pixel ("channels").
    """
    batch, channels, height, width = images.shape
    lines = addresses_of(images)  # with the dimension that vectors lie along at the end
    if form != "planes":
        lines = lines.transpose(0, 2, 3, 1)
    if form == "pixels":
        if width % vector != 0:
            return False
        lines = lines.reshape(batch, height, width // vector, vector * channels)
    if lines.shape[-1] % vector != 0:
        return False
    vectors = lines.reshape(*lines.shape[:-1], -1, vector)
    side_by_side = (np.diff(lines if form == "pixels" else vectors) == images.element_size()).all()
    return bool(side_by_side and (vectors[..., 0] % (vector * images.element_size()) == 0).all())


MARGINS = [0, 1, 2, 4]  # elements between samples, channels or pixels, rows, and in front
SHAPES = [(2, 3, 2, 16), (2, 1, 3, 8), (1, 4, 2, 12), (2, 8, 2, 3), (2, 6, 1, 4), (2, 3, 4, 1)]


def in_memory(shape: tuple[int, ...], dtype: torch.dtype, interleaved: bool, margins: tuple[int, ...]) -> Tensor:
    """Images with margins around them in memory."""
    batch, channels, height, width = shape
    between_samples, between_parts, between_rows, in_front = margins
    if interleaved:
        pixel, channel = channels + between_parts, 1
        row = width * pixel + between_rows
        sample = height * row + between_samples
    else:
        pixel, row = 1, width + between_rows
        channel = height * row + between_parts
        sample = channels * channel + between_samples
    memory = torch.empty(batch * sample + in_front + 64, dtype=dtype)
    return memory.as_strided(shape, (sample, channel, row, pixel), in_front)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("interleaved", [False, True], ids=["planes", "interleaved"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_vectors_are_as_wide_as_memory_allows(dtype, interleaved, shape):
    """Those of out; and images are read in as wide ones only where they lie alike."""
    dense = [in_memory(shape, each, interleaved, (0,) * 4) for each in (torch.uint8, dtype)]
    for margins in itertools.product(MARGINS, repeat=4):
        apart = [in_memory(shape, each, interleaved, margins) for each in (torch.uint8, dtype)]
        for images, out in ((dense[0], apart[1]), (apart[0], dense[1])):
            decided = augment_launch.geometry(shape, *map(augment_launch.Layout.of, (images, out))).constants
            form = "planes" if not decided["INTERLEAVED"] else "pixels" if shape[1] <= FEW_CHANNELS else "channels"
            widths = (16 // dtype.itemsize, 4, 2, 1)
            assert decided["VECTOR"] == next(width for width in widths if holds_vectors(out, width, form))
            alike = decided["VECTOR"] > 1 and holds_vectors(images, decided["VECTOR"], form)
            if form == "channels" and images.stride(3) != shape[1]:
                alike = False  # pixels with gaps between them are read by elements
            assert decided["ALIKE"] == alike


@pytest.mark.parametrize("far", ["channel", "row", "pixel"])
@pytest.mark.parametrize("whose", ["images", "out"])
def test_places_that_32_bits_do_not_count(whose, far):
    """A shift leads as far as an image is large outside of it, but to no other channel."""
    shape = (2, 3, 3, 3)
    number = ("channel", "row", "pixel").index(far)
    near = augment_launch.Layout(1, (27, 9, 3, 1), 0)
    for steps, large in ((4 if far != "channel" else 2, True), (100, False)):
        strides = list(near.strides)
        strides[1 + number] = -(-(2**31) // steps)
        layouts = {"images": near, "out": near, whose: near._replace(strides=tuple(strides))}
        decided = augment_launch.geometry(shape, layouts["images"], layouts["out"]).constants
        assert decided["LARGE"] == large


# ---- Launched


@pytest.fixture
def launched(monkeypatch) -> list[tuple[object, ...]]:
    """What is launched, by Triton when it is asked for a kernel, and by the kernel that it gave."""
    calls: list[tuple[object, ...]] = []

    class Compiled:
        def __getitem__(self, grid):
            return lambda *arguments: calls.append(("compiled", grid, arguments))

    def run(kernel, *arguments, grid, warmup, **options):
        calls.append(("Triton", grid, (*arguments, *(options[name] for name in kernel.arg_names[len(arguments) :]))))
        return Compiled()

    monkeypatch.setattr(JITFunction, "run", run)
    monkeypatch.setattr(launch, "_compiled", {})
    return calls


def test_triton_is_asked_once_for_a_kernel(launched):
    """From then on it is launched with the same arguments, in the order of its parameters, constants included."""
    labels, seed = torch.zeros(4, dtype=torch.int64), torch.tensor([3])
    for images in (torch.zeros(4, 3, 8, 16), torch.zeros(4, 3, 8, 16), torch.zeros(4, 3, 8, 32)):
        out = torch.empty_like(images)
        for wanted in (labels, None):
            draw = seed, quantiles((1.0,), images.device), (1.0, 1.0, 1.0), (0, 3, 0, 1)
            ops.sample_and_apply_out(images, wanted, *draw, 5, 0.0, torch.float32, out)
    by = [name for name, *_ in launched]
    assert by == ["Triton", "Triton", "compiled", "compiled", "Triton", "Triton"]
    for (_, grid, arguments), (_, other_grid, others) in zip(launched[:2], launched[2:4], strict=True):
        assert grid == other_grid
        assert len(arguments) == len(others) == len(mix_kernel.arg_names)
        same = [one == other for one, other in zip(arguments, others, strict=True) if not hasattr(one, "dtype")]
        assert len(same) > 30 and all(same)
