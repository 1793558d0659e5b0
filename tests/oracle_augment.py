"""An oracle of the batch tail that owes the package nothing: Python integers, numpy float32 scalars, plain loops.

It follows the text at the top of csrc/views.h, one sample at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .helpers import PlannedSample, oracle_lambda, philox4x32

F32 = np.float32


class DrawnViews(NamedTuple):
    """How views are drawn: numbers as the ops take them."""

    flip: float = 0.0
    erase: float = 0.0
    area: tuple[float, float] = (0.02, 0.33)
    max_aspect: float = 1.0
    translate: tuple[int, int] = (0, 0)
    boxes: tuple[int, int] = (0, 0)
    first_erased: int = 0
    brightness: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    saturation: tuple[float, float] = (1.0, 1.0)
    grey: float = 0.0
    coloured: int = 0

    @property
    def parameters(self) -> list[float]:
        colour = *self.brightness, *self.contrast, *self.saturation, self.grey
        return [self.flip, self.erase, *self.area, self.max_aspect, *colour]

    @property
    def choices(self) -> list[int]:
        return [*self.translate, *self.boxes, self.first_erased, self.coloured]


class View(NamedTuple):
    """What one sample looks like before it is mixed."""

    flip: int = 0
    dy: int = 0
    dx: int = 0
    erased: tuple[tuple[int, ...], ...] = ()
    colour: np.ndarray | None = None  # the matrix, float32 (3, 4)


def words_at(seed: int, sample: int, stream: int, position: int = 0, group: int = 0) -> list[int]:
    seed %= 1 << 64
    return philox4x32((sample, position, stream, group), (seed % (1 << 32), seed >> 32))


def unit(word: int) -> np.float32:
    return F32(word >> 8) * F32(2.0**-24)


def oracle_view(how: DrawnViews, table: np.ndarray, height: int, width: int, seed: int, sample: int) -> View:
    flip, word_y, word_x, _ = words_at(seed, sample, 2)
    offsets = []
    for word, most, length in ((word_y, how.translate[0], height), (word_x, how.translate[1], width)):
        reach = min(most, length)
        offsets.append((word * (2 * reach + 1) >> 32) - reach)
    erase, many, _, _ = words_at(seed, sample, 3)
    least, most = how.boxes
    count = least + (many * (most - least + 1) >> 32)
    if sample < how.first_erased or not unit(erase) < F32(how.erase):
        count = 0
    boxes = [oracle_box(how, table, height, width, seed, sample, number, count) for number in range(most)]
    colour = oracle_colour(how, seed, sample) if how.coloured else None
    return View(int(unit(flip) < F32(how.flip)), offsets[0], offsets[1], tuple(boxes), colour)


def oracle_colour(how: DrawnViews, seed: int, sample: int) -> np.ndarray:
    """Brightness times, then away from mid-grey, then away from the pixel's own grey."""
    *words, word_grey = words_at(seed, sample, 6)
    brightness, contrast, saturation = (
        F32(low) + (F32(high) - F32(low)) * unit(word)
        for (low, high), word in zip((how.brightness, how.contrast, how.saturation), words, strict=True)
    )
    if unit(word_grey) < F32(how.grey):
        saturation = F32(0)
    gain = brightness * contrast
    weights = gain * (F32(1) - saturation) * np.array([0.299, 0.587, 0.114], dtype=F32)
    matrix = np.empty((3, 4), dtype=F32)
    matrix[:, :3] = weights + np.eye(3, dtype=F32) * (gain * saturation)
    matrix[:, 3] = F32(0.5) * (F32(1) - contrast)
    return matrix


def oracle_box(how, table, height, width, seed, sample, number, count) -> tuple[int, ...]:
    if number >= count:
        return 0, 0, 0, 0
    low, high = map(F32, how.area)
    for attempt in range(10):
        word_area, word_aspect, word_y, word_x = words_at(seed, sample, 4, number * 10 + attempt)
        area = (low + (high - low) * unit(word_area)) * (F32(height * width) / F32(count))
        aspect = F32(how.max_aspect) * oracle_lambda(table, word_aspect)
        box_height, box_width = round(float(np.sqrt(area * aspect))), round(float(np.sqrt(area / aspect)))
        if box_height < height and box_width < width:
            y0, x0 = word_y * (height - box_height + 1) >> 32, word_x * (width - box_width + 1) >> 32
            return y0, x0, y0 + box_height, x0 + box_width
    return 0, 0, 0, 0


def packed_views(views: Sequence[View], boxes: int) -> Tensor:
    """Views of so many erased boxes in their packed form, int32 (batch, 1 + boxes, 4), or three more with colour."""
    rows = [[[view.flip, view.dy, view.dx, 0], *view.erased] for view in views]
    packed = torch.tensor(rows, dtype=torch.int32).reshape(len(views), 1 + boxes, 4)
    colours = [torch.from_numpy(view.colour).view(torch.int32) for view in views if view.colour is not None]
    return torch.cat([packed, torch.stack(colours)], dim=1) if colours else packed


def oracle_noise(seed: int, sample: int, position: int, channel: int) -> np.float32:
    word = words_at(seed, sample, 5, position, channel >> 2)[channel & 3]
    return F32(sum(word.to_bytes(4, "little")) - 510) * F32(1 / np.sqrt(21845))


class Values(NamedTuple):
    """What becomes of values."""

    mean: Sequence[float]  # as the ops take them, of each channel
    scale: Sequence[float]
    erase: Sequence[float]
    fill: Sequence[float]
    erase_value: str = "constant"
    erase_order: str = "before"

    @property
    def constants(self) -> Tensor:
        return torch.tensor([self.mean, self.scale, self.erase, self.fill], dtype=torch.float32)

    @property
    def erasing(self) -> list[int]:
        return [("constant", "channel", "pixel").index(self.erase_value), ("before", "after").index(self.erase_order)]


def _erase(image: np.ndarray, view: View, values: Values, seed: int, sample: int) -> None:
    _, _, width = image.shape
    for number, (y0, x0, y1, x1) in enumerate(view.erased):
        for channel in range(image.shape[0]):
            if values.erase_value == "pixel":
                for y in range(y0, y1):
                    for x in range(x0, x1):
                        image[channel, y, x] = oracle_noise(seed, sample, y * width + x, channel)
            elif values.erase_value == "channel":
                image[channel, y0:y1, x0:x1] = oracle_noise(seed, sample, number, channel)
            else:
                image[channel, y0:y1, x0:x1] = F32(values.erase[channel])


def _per_channel(numbers: Sequence[float]) -> np.ndarray:
    return np.array(numbers, dtype=F32)[:, None, None]


def oracle_coloured(raw: np.ndarray, matrix: np.ndarray, white: float) -> np.ndarray:
    """Raw values (3, ...), float32, through a matrix, one rounding after the other."""
    out = np.empty_like(raw)
    for channel, (red, green, blue, offset) in enumerate(matrix):
        value = red * raw[0] + green * raw[1] + blue * raw[2] + offset * F32(white)
        out[channel] = np.where(value > 0, np.minimum(value, F32(white)), F32(0))
    return out


def _normalized(raw: np.ndarray, values: Values) -> np.ndarray:
    return (raw - _per_channel(values.mean)) * _per_channel(values.scale)


def oracle_augmented(
    images: Tensor, plan: Sequence[PlannedSample], views: Sequence[View], values: Values, seed: int, dtype: torch.dtype
) -> Tensor:
    """The augmented images, contiguous."""
    raw = images.to(torch.float32).numpy()
    batch, _, height, width = raw.shape
    seen = []
    for i in range(batch):
        view = views[i]
        canvas = np.zeros((raw.shape[1], 3 * height, 3 * width), dtype=F32)
        canvas[:, height : 2 * height, width : 2 * width] = raw[i]
        top, left = height + view.dy, width + view.dx
        crop = canvas[:, top : top + height, left : left + width]
        crop = crop[:, :, ::-1] if view.flip else crop
        if view.colour is not None:
            crop = oracle_coloured(crop, view.colour, 255 if images.dtype == torch.uint8 else 1)
        image = _normalized(crop, values)
        if values.erase_order == "before":
            _erase(image, view, values, seed, i)
        seen.append(image)
    out = np.empty_like(raw)
    for i, sample in enumerate(plan):
        y0, x0, y1, x1 = sample.box
        image = seen[i].copy()
        if sample.kind == "cutmix":
            image[:, y0:y1, x0:x1] = seen[sample.partner][:, y0:y1, x0:x1]
        elif sample.kind == "mixup":
            image = sample.lam * image + (F32(1) - sample.lam) * seen[sample.partner]
        elif sample.kind == "cutout":
            image[:, y0:y1, x0:x1] = _per_channel(values.fill)
        if values.erase_order == "after":
            _erase(image, views[i], values, seed, i)
        out[i] = image
    if dtype == torch.uint8:
        return torch.from_numpy(np.rint(out)).to(torch.uint8)
    return torch.from_numpy(out).to(dtype)
