"""Masks to mix by, a new one for each sample, in a few torch operations on any device, by any seed.

Each function takes lam, the fraction of a sample's own pixels, for each sample, and returns bool (N, height, width),
True where the sample is left as it is, as :func:`cutmix_cuda.mix_by_masks` takes it. A mask has the fraction lam of its
cells True, rounded up or down by a random number so that lam is its mean. It may be smaller than the images: a mask of
56 x 56 for images of 224 x 224 says as much of low frequencies and costs a sixteenth.

The same seed gives the same mask on every device but for the rounding of Fourier transforms, by which cells whose noise
is almost the same may change places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from . import _validation, reference
from ._seed import seed_tensor
from .erasing import check_two_numbers
from .reference import mulhi, unit_float

_PER_MASK, _PER_NOISE = 10, 11  # streams of random words, behind those of patches.h
_MOST_LOG_AMPLITUDE = 80.0  # with which sums of normal noise are within float32


def _per_sample(
    lam: Tensor, height: int, width: int, seed: int | Tensor | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """The seed on the device of lam, and the samples' indices, after a check of everything."""
    if not isinstance(lam, Tensor) or not lam.is_floating_point():
        raise TypeError(f"lam must be a float tensor, got {lam!r}")
    if lam.dim() != 1:
        raise ValueError(f"lam must be of shape (samples,), got {tuple(lam.shape)}")
    for name, side in (("height", height), ("width", width)):
        if _validation.check_size(name, side, 1 << 15) == 0:
            raise ValueError(f"{name} must be positive, got 0")
    drawn = seed_tensor(seed, generator, lam.device).to(lam.device).reshape(1)
    return drawn, torch.arange(lam.shape[0], device=lam.device)


def _words(seed: Tensor, index: Tensor, count: int) -> tuple[Tensor, ...]:
    """At least so many random words, in four parts of which a row takes one each in turn: int64 (N, count / 4)."""
    position = torch.arange(-(-count // 4), device=index.device)
    return reference.philox(seed, index[:, None], _PER_NOISE, position)


def _in_turn(parts: Iterable[Tensor], count: int) -> Tensor:
    return torch.stack(tuple(parts), dim=2).flatten(1)[:, :count]


def _noise(seed: Tensor, index: Tensor, count: int) -> Tensor:
    """Random words, float64 (N, count)."""
    return _in_turn(_words(seed, index, count), count).double()


def _normal(seed: Tensor, index: Tensor, count: int) -> Tensor:
    """Random normal numbers, float32 (N, count), an even number of them, by Box and Muller's formula."""
    first, second = _in_turn(map(unit_float, _words(seed, index, count)), count).chunk(2, dim=1)
    radius, angle = (-2.0 * torch.log(1.0 - first)).sqrt(), (2.0 * math.pi) * second
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)


def _count(lam: Tensor, cells: int | Tensor, number: Tensor) -> Tensor:
    """How many of the cells are the fraction lam of them, rounded up where the number is below what is left over, and
    none of a NaN; float64 (N,)."""
    share = lam.to(torch.float64).nan_to_num(nan=0.0).clamp(0.0, 1.0) * cells
    return (share + number.to(torch.float64)).floor()


def _largest(values: Tensor, count: Tensor) -> Tensor:
    """True for so many of each sample's values, the largest, and of equal ones the first; of floats (N, cells) and
    counts (N,)."""
    cells = values.shape[1]
    # With as many values more, some above all and some below, the least of the upper half is the last one that counts,
    # in every sample: finding it takes no sorting.
    above = torch.arange(cells, device=values.device) < cells - count[:, None]
    more = torch.where(above, math.inf, -math.inf).to(values.dtype)
    upper = torch.cat([values, more], dim=1).topk(cells, dim=1, sorted=False).values
    last = upper.amin(dim=1, keepdim=True)
    equal, wanted = values == last, (upper == last).sum(dim=1, keepdim=True, dtype=torch.int32)
    return (values > last) | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= wanted))


def _frequencies(height: int, width: int, device: torch.device) -> Tensor:
    """Of the real Fourier transform, in cycles a pixel, (height, width // 2 + 1)."""
    y = torch.fft.fftfreq(height, device=device)[:, None]
    return (y * y + torch.fft.rfftfreq(width, device=device) ** 2).sqrt()


def _smooth_noise(seed: Tensor, index: Tensor, height: int, width: int, amplitude: Tensor) -> Tensor:
    """Normal noise whose frequencies have an amplitude, (N, height * width)."""
    half = width // 2 + 1
    if len(index) == 0:  # of which the transform says that it cannot
        return amplitude.new_empty((0, height * width))
    parts = _normal(seed, index, 2 * height * half).unflatten(1, (height, half, 2))
    return torch.fft.irfft2(amplitude * torch.view_as_complex(parts.contiguous()), s=(height, width)).flatten(1)


def fmix(
    lam: Tensor,
    height: int,
    width: int,
    *,
    decay: float = 3.0,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """FMix (Harris et al., 2020): where noise of low frequencies is largest.

    >>> masks.fmix(torch.tensor([0.25, 0.5]), 16, 16).float().mean(dim=(1, 2))
    tensor([0.2500, 0.5000])

    Args:
        lam: floats (N,) in [0, 1], the fraction of a sample's own pixels.
        height: cells.
        width: cells.
        decay: the noise of a frequency f is divided by f to this power; the greater, the smoother. At most one by which
            the noise stays within float32: 14.7 for sides of 224.
        seed: an int, or a tensor of one int64. None: drawn from the generator.
        generator: a CPU generator, instead of torch's default one.

    Returns:
        bool (N, height, width), True where a sample is left as it is; on the device of lam.

    Raises:
        TypeError, ValueError: an argument is wrong.
    """
    _validation.check_positive("decay", decay)
    drawn, index = _per_sample(lam, height, width, seed, generator)
    if decay * math.log(max(height, width)) > _MOST_LOG_AMPLITUDE:
        most = math.floor(10 * _MOST_LOG_AMPLITUDE / math.log(max(height, width))) / 10
        raise ValueError(f"decay must be at most {most} for {height} x {width} cells, got {decay!r}")
    least = 1.0 / max(height, width)
    amplitude = _frequencies(height, width, lam.device).clamp(min=least) ** -decay
    values = _smooth_noise(drawn, index, height, width, amplitude)
    number = unit_float(reference.philox(drawn, index, _PER_MASK)[0])
    return _largest(values, _count(lam, height * width, number)).unflatten(1, (height, width))


def cow(
    lam: Tensor,
    height: int,
    width: int,
    *,
    sigma: tuple[float, float] = (0.125, 0.5),
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """CowMask (French et al., 2020): where noise that was blurred is largest.

    Args:
        sigma: the least and greatest standard deviation of the blur, log-uniform between, as fractions of the shorter
            side; those of the paper, 4 and 16 of 32 pixels.
        lam, height, width, seed, generator: as for :func:`fmix`.

    Returns:
        bool (N, height, width), as :func:`fmix`.

    Raises:
        TypeError, ValueError: an argument is wrong.
    """
    low, high = check_two_numbers("sigma", sigma)
    if not 0.0 < low <= high < math.inf:
        raise ValueError(f"sigma must be two positive numbers, low <= high, got {sigma!r}")
    drawn, index = _per_sample(lam, height, width, seed, generator)
    word_number, word_sigma, *_ = reference.philox(drawn, index, _PER_MASK)
    blur = low * (high / low) ** unit_float(word_sigma) * min(height, width)
    exponent = blur[:, None, None] * math.pi * _frequencies(height, width, lam.device)
    values = _smooth_noise(drawn, index, height, width, torch.exp(-2.0 * exponent * exponent))
    count = _count(lam, height * width, unit_float(word_number))
    return _largest(values, count).unflatten(1, (height, width))


def grid(
    lam: Tensor,
    height: int,
    width: int,
    *,
    cells: tuple[int, int] = (2, 6),
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """GridMix (Baek et al., 2021): cells of a grid of n x n, with an n of its own for each sample.

    Args:
        cells: the least and greatest n, at most 64.
        lam, height, width, seed, generator: as for :func:`fmix`.

    Returns:
        bool (N, height, width), as :func:`fmix`.

    Raises:
        TypeError, ValueError: an argument is wrong.
    """
    if not isinstance(cells, (tuple, list)) or len(cells) != 2:
        raise TypeError(f"cells must be two ints, got {cells!r}")
    low, high = (_validation.check_size("cells", each, 64) for each in cells)
    if not 1 <= low <= high:
        raise ValueError(f"cells must be two ints, 1 <= low <= high, got {cells!r}")
    drawn, index = _per_sample(lam, height, width, seed, generator)
    word_number, word_cells, *_ = reference.philox(drawn, index, _PER_MASK)
    side = low + mulhi(word_cells, high - low + 1)
    place = torch.arange(high * high, device=lam.device)
    there = place < (side * side)[:, None]
    values = torch.where(there, _noise(drawn, index, high * high), -1.0)
    chosen = _largest(values, _count(lam, side * side, unit_float(word_number)))
    y = torch.arange(height, device=lam.device)[:, None] * side[:, None, None] // height
    x = torch.arange(width, device=lam.device) * side[:, None, None] // width
    return chosen.gather(1, (y * side[:, None, None] + x).flatten(1)).unflatten(1, (height, width))


def blocks(
    lam: Tensor,
    height: int,
    width: int,
    *,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cells that are chosen one by one: of height x width patches of a transformer, say.

    Args:
        lam, height, width, seed, generator: as for :func:`fmix`.

    Returns:
        bool (N, height, width), as :func:`fmix`.

    Raises:
        TypeError, ValueError: an argument is wrong.
    """
    drawn, index = _per_sample(lam, height, width, seed, generator)
    number = unit_float(reference.philox(drawn, index, _PER_MASK)[0])
    values, count = _noise(drawn, index, height * width), _count(lam, height * width, number)
    return _largest(values, count).unflatten(1, (height, width))
