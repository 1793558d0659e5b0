"""Calls the batch tail's CPU ops at random, as fuzz_ops.py does those of mixing: tensors of exactly the memory they
need, rows below and above the length of vectors, wrong plans, views and labels, every result equal to the
reference's."""

import random
import sys

import torch
from fuzz_ops import CPU, EXTREMES, FLOATS, LAWS, REFERENCE, any_labels, any_plan, same  # type: ignore[import-not-found]

from cutmix_cuda.distributions import quantiles

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


def any_images(dtype: torch.dtype, sizes: list[int]) -> torch.Tensor:
    """Contiguous, channels-last, rows or pixels of a larger tensor as far as they go, or of no such order."""
    images = torch.randint(200, sizes).to(dtype)
    order = random.choice(["contiguous", "channels last", "rows", "pixels", "columns"])
    if order == "channels last":
        return images.to(memory_format=torch.channels_last)
    if order == "rows":
        return torch.cat([torch.zeros_like(images), images], dim=3)[..., sizes[3] :]
    if order == "pixels":
        deep = torch.cat([torch.zeros_like(images), images], dim=1).to(memory_format=torch.channels_last)
        return deep[:, sizes[1] :]
    if order == "columns":
        return images.transpose(2, 3).contiguous().transpose(2, 3)
    return images


def any_colours(batch: int) -> torch.Tensor:
    """Colour matrices, some of them with entries that are no finite numbers."""
    colours = torch.randn(batch, 3, 4)
    colours[torch.rand(colours.shape) < 0.05] = random.choice([torch.inf, -torch.inf, torch.nan, 1e38])
    return colours


def any_views(batch: int, height: int, width: int) -> torch.Tensor:
    """Views that mostly make sense, half of them of images as they lie."""
    boxes = random.randrange(4)
    views = torch.zeros(batch, 1 + boxes, 4, dtype=torch.int32)
    for view in views:
        if random.random() < 0.5:
            view[0, :3] = torch.tensor(
                [random.randrange(2), random.randint(-height, height), random.randint(-width, width)]
            )
        for box in view[1:]:
            (y0, y1), (x0, x1) = (sorted(random.randint(0, length) for _ in range(2)) for length in (height, width))
            box.copy_(torch.tensor([y0, x0, y1, x1]))
        if random.random() < 0.1:
            wrong = random.choice([*EXTREMES, height + 1, width + 1, 2])
            view[random.randrange(1 + boxes), random.randrange(3)] = wrong
    return views


def step() -> None:
    dtype = random.choice(DTYPES)
    sizes = [random.choice([0, 1, 2, 3, 6]), random.choice([1, 1, 3, 3, 4, 5, 17])]
    sizes += [random.choice([0, 1, 2, 7, 16, 33]), random.choice([0, 1, 2, 7, 16, 33, random.randint(34, 200)])]
    images = any_images(dtype, sizes)
    batch, channels, height, width = sizes
    classes = random.choice([1, 5, 17])
    labels = any_labels(batch, classes)
    targets = classes, random.choice([0.0, 0.1, 1.0]), random.choice(FLOATS)
    out_dtype = random.choice(DTYPES if dtype == torch.uint8 else DTYPES[1:])
    if out_dtype == torch.uint8:
        constants = torch.tensor([0.0, 1.0, 7.0, 255.0])[:, None].repeat(1, channels)
        erasing = [0, random.randrange(2)]
    else:
        constants, erasing = torch.rand(4, channels) * 2 - 0.5, [random.randrange(3), random.randrange(2)]
        if random.random() < 0.2:  # subnormal or not finite when they are stored
            constants *= random.choice([1e-42, 1e30, float("inf")])
    seed = torch.tensor([random.getrandbits(64) - 2**63])
    least, most = sorted(random.randrange(4) for _ in range(2))
    low, high = sorted(random.choice([0.0, 0.02, 0.4, 1.0]) for _ in range(2))
    tables = torch.rand(1, 4097)
    flip, erase = random.choice([0.0, 0.0, 0.5, 1.0]), random.choice([0.0, 0.7, 1.0])
    coloured = channels == 3 and random.random() < 0.5
    colours = any_colours(batch) if coloured and random.random() < 0.5 else None
    factors = [factor for _ in range(3) for factor in sorted(random.choice([0.0, 0.5, 1.0, 3.0]) for _ in range(2))]
    parameters = flip, erase, low, high, random.choice([0.0, 1.0, 4.0]), *factors, random.choice([0.0, 0.5, 1.0])
    shifts = random.choice([(0, 0), (0, 0), (3, 1), (0, 4), (2**31 - 1, 2)])
    choices = *shifts, least, most, random.randrange(3), int(coloured)
    bounds = sorted(random.choice([0.0, 0.3, 0.6, 1.0]) for _ in range(3))
    sampling = [random.randrange(3), random.randrange(4), random.randrange(2), random.randrange(2)]
    drawn_by = seed, quantiles(tuple(random.choices(LAWS, k=3)), images.device), bounds, sampling
    views_by = tables, colours, parameters, choices
    views = any_views(batch, height, width)
    if coloured:
        views = torch.cat([views, any_colours(batch).view(torch.int32)], dim=1)
    ways = {
        "augment": (labels, *drawn_by, *views_by, *targets, constants, erasing),
        "apply_views": (
            labels, any_plan(batch, height, width), views, coloured, seed, *targets, constants, erasing
        ),
    }  # fmt: skip
    for op, arguments in ways.items():
        memory_format = random.randrange(2)
        augmented, *others = getattr(REFERENCE, op)(images, *arguments, out_dtype, memory_format)
        mine = getattr(CPU, op)(images, *arguments, out_dtype, memory_format)
        for tensor, wanted in zip(mine, (augmented, *others), strict=True):
            assert tensor.stride() == wanted.stride()
            same(tensor, wanted)
        out = any_images(out_dtype, sizes)
        getattr(CPU, f"{op}_out")(images, *arguments, out)
        same(out, augmented)
    views, wanted = (ops.sample_views(seed, batch, height, width, *views_by) for ops in (CPU, REFERENCE))
    same(views, wanted)


if __name__ == "__main__":
    random.seed(2026)
    torch.manual_seed(2026)
    torch.set_num_threads(2)
    for _ in range(int(sys.argv[1])):
        step()
