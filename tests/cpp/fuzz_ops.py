"""Calls the CPU ops at random, on tensors of exactly the memory they need, with wrong plans and labels among them.

test_sanitizers.py runs it on a build with the address and undefined-behaviour sanitizers, test_capabilities.py on the
vectors of every processor; every result has to equal the reference's as well. Ops are called directly, past the checks
in Python.
"""

import random
import struct
import sys

import torch

import cutmix_cuda
from cutmix_cuda._ops import PATCH_METHODS
from cutmix_cuda.distributions import Beta, Constant, quantiles

assert cutmix_cuda._backends.status()["cpu"] == "available"
CPU, REFERENCE = torch.ops.cutmix_cuda, torch.ops.cutmix_cuda_reference

BLENDED = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
PIXELS = (*BLENDED, torch.int16, torch.int64, torch.complex128)
LAWS = (Beta(0.2, 0.2), Constant(0.0), Constant(0.7), Constant(1.0), None)
INTEGERS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EXTREMES = (-(2**31), -1, 2**31 - 1)


def any_images() -> torch.Tensor:
    sizes = [random.choice([0, 1, 2, 3, 5, 8]), *(random.choice([1, 1, 2, 3]) for _ in range(random.randrange(4)))]
    sizes += [random.choice([0, 1, 2, 7, 16, 33]) for _ in range(2)]
    if random.random() < 0.05:  # enough for several blocks a sample, and several rows a thread
        sizes = [random.randint(1, 3), random.randint(1, 4), random.randint(100, 200), random.randint(100, 300)]
    images = torch.randint(100, sizes).to(random.choice(PIXELS))
    if random.random() < 0.3:  # channels-last, or no rows at all
        images = images.transpose(1, -1).contiguous().transpose(1, -1)
    if random.random() < 0.3:  # rows of a larger tensor: as far as they go, and not a byte behind the last
        width = images.shape[-1]
        images = torch.cat([torch.zeros_like(images), images], dim=-1)[..., width:]
    # torch's own copies of complex128 take it to be aligned.
    return at_odd_address(images) if random.random() < 0.1 and images.dtype != torch.complex128 else images


def at_odd_address(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, where no element is aligned."""
    memory = torch.empty(tensor.numel() * tensor.itemsize + 1, dtype=torch.uint8)
    strides = torch.empty(tensor.shape, device="meta").stride()
    moved = torch.empty(0, dtype=tensor.dtype).set_(memory.untyped_storage()[1:], 0, tensor.shape, strides)
    return moved.copy_(tensor)


def any_plan(batch: int, height: int, width: int) -> torch.Tensor:
    """Rows that mostly make sense."""
    rows = []
    for _ in range(batch):
        y, x = (sorted(random.randint(0, length) for _ in range(2)) for length in (height, width))
        row = [random.randrange(batch), y[0], x[0], y[1], x[1], 0, random.choice([0, 1, 1, 2, 2, 3]), 0]
        if random.random() < 0.2:
            row[random.choice([0, 1, 2, 3, 4, 6])] = random.choice([*EXTREMES, batch, height + 1, width + 1, 4])
        rows.append(row)
    plan = torch.tensor(rows, dtype=torch.int32).reshape(batch, 8)
    lam = torch.rand(batch)
    lam[torch.rand(batch) < 0.1] = random.choice([0.0, 1.0, -0.5, 1.5, float("nan")])
    plan[:, 5] = lam.view(torch.int32)
    if random.random() < 0.5:  # pairs, for mixing in place
        plan[:, 0] = torch.arange(batch - 1, -1, -1)
    return plan


def any_bounds(images: torch.Tensor) -> tuple[float, float, float]:
    """Of cutmix, mixup and cutout; no room for mixup where pixels cannot be blended."""
    cutmix, mixup, cutout = sorted(random.choice([0.0, 0.3, 0.6, 1.0]) for _ in range(3))
    return cutmix, mixup if images.dtype in BLENDED else cutmix, cutout


def any_labels(batch: int, classes: int) -> torch.Tensor | None:
    if random.random() < 0.1:
        return None
    if random.random() < 0.3:
        return torch.rand(batch, classes).to(random.choice(FLOATS))
    labels = torch.tensor([random.randint(-1, classes) if random.random() < 0.3 else 0 for _ in range(batch)])
    return labels.reshape(batch).to(random.choice(INTEGERS))


def same(mine: torch.Tensor, reference: torch.Tensor) -> None:
    torch.testing.assert_close(mine, reference, rtol=0, atol=0, equal_nan=True)


def step() -> None:
    images = any_images()
    batch, height, width = images.shape[0], *images.shape[-2:]
    classes = random.choice([1, 2, 5, 17])
    labels = any_labels(batch, classes)
    if labels is not None and random.random() < 0.1:
        labels = at_odd_address(labels)
    targets = classes, random.choice([0.0, 0.1, 1.0]), random.choice(FLOATS)
    draw = (
        torch.tensor([random.getrandbits(64) - 2**63]),
        quantiles(tuple(random.choices(LAWS, k=3)), images.device),
        any_bounds(images),
        # flip and mirror work in place as well
        (random.randrange(3), random.choice([1, 3]), random.randrange(2), random.randrange(2)),
    )
    plan = any_plan(batch, height, width)
    fill = struct.unpack("<2q", random.randbytes(images.itemsize) * (16 // images.itemsize))
    ways = {"apply": (labels, plan, *targets), "sample_and_apply": (labels, *draw, *targets)}
    for op, arguments in ways.items():
        mixed, *others = getattr(REFERENCE, op)(images, *arguments, fill)
        for mine, wanted in zip(getattr(CPU, op)(images, *arguments, fill), (mixed, *others), strict=True):
            same(mine, wanted)
        out = torch.empty_strided(
            images.shape, random.choice([images, images.contiguous()]).stride(), dtype=images.dtype
        )
        getattr(CPU, f"{op}_out")(images, *arguments, out, fill)
        same(out, mixed)
        mine, wanted = images.clone(), images.clone()
        getattr(CPU, f"{op}_")(mine, *arguments, fill)
        getattr(REFERENCE, f"{op}_")(wanted, *arguments, fill)
        same(mine, wanted)
    same(CPU.sample_plan(*draw, batch, height, width), others[-1])
    if images.dtype in FLOATS:
        for out in (torch.empty_like(images), torch.empty(images.shape, dtype=images.dtype)):
            CPU.apply_adjoint_out(images, plan, out)
            wanted = torch.empty_like(out)
            REFERENCE.apply_adjoint_out(images, plan, wanted)
            same(out, wanted)
    if labels is not None:
        same(CPU.mix_targets(labels, plan, *targets), REFERENCE.mix_targets(labels, plan, *targets))


def any_rectangles(count: tuple[int, ...], height: int, width: int) -> torch.Tensor:
    """Inside an image, but for some."""
    edges = []
    for _ in range(count[0] * count[1]):
        (y0, y1), (x0, x1) = (sorted(random.randint(0, length) for _ in range(2)) for length in (height, width))
        edge = [y0, x0, y1, x1]
        if random.random() < 0.01:
            edge[random.randrange(4)] = random.choice([*EXTREMES, height + 1, width + 1])
        edges.append(edge)
    return torch.tensor(edges, dtype=torch.int32).reshape(*count, 4)


def channels_of(images: torch.Tensor) -> int:
    """That masks can tell apart."""
    return images.shape[1] if images.dim() >= 4 else 0


def any_patches(
    partners: int, height: int, width: int, channels: int, samples: int | None = None
) -> tuple[torch.Tensor | None, ...]:
    """Rows, sources, masks and weights that mostly make sense."""
    if samples is None:
        samples = random.choice([0, 1, 2, 5]) if partners > 0 else 0
    count = samples, random.choice([1, 2, 4, 64])
    masks = None
    if random.random() < 0.6:
        cells: tuple[int, ...] = random.choice([1, 3, max(height, 1)]), random.choice([1, 4, max(width, 1), 40])
        if channels > 0 and random.random() < 0.3:
            cells = channels, *cells
        masks = torch.rand(random.choice([0, 1, 3]), *cells)
        masks = masks - 0.2 if random.random() < 0.5 else masks < 0.5
    numbers = 0 if masks is None else len(masks)
    rows = torch.zeros(*count, 8, dtype=torch.int32)
    rows[..., 0] = torch.randint(max(partners, 1), count)
    rows[..., 1:5] = any_rectangles(count, height, width)
    rows[..., 5] = torch.rand(count).view(torch.int32)
    rows[..., 6] = torch.tensor(random.choice([[1], [1, 3], [0, 1, 2, 3]]))[torch.randint(1, count)]
    rows[..., 7] = torch.randint(numbers + 1, count)
    if random.random() < 0.2 and rows.numel() > 0:
        rows.view(-1)[random.randrange(rows.numel())] = random.choice([*EXTREMES, partners, 4, numbers + 1])
    sources = any_rectangles(count, height, width) if random.random() < 0.5 else None
    weights = torch.rand(count[0], count[1] + 1) if random.random() < 0.3 else None
    return rows, sources, masks, weights


def step_of_patches_in_place(images: torch.Tensor, labels, targets, fill) -> None:
    batch, height, width = images.shape[0], *images.shape[-2:]
    rows, sources, masks, weights = any_patches(batch, height, width, channels_of(images), batch)
    assert rows is not None
    if random.random() < 0.8:  # pairs
        rows[..., 0] = torch.arange(batch - 1, -1, -1)[:, None]
    if sources is not None and random.random() < 0.8:
        sources = rows[..., 1:5].clone()
    mine, wanted = images.clone(), images.clone()
    arguments = labels, rows, sources, masks, weights, *targets, fill
    same(CPU.paint_(mine, *arguments), REFERENCE.paint_(wanted, *arguments))
    same(mine, wanted)
    tables = quantiles([None, None, random.choice(LAWS[:4])], images.device, PATCH_METHODS)
    draw = torch.tensor([random.getrandbits(64) - 2**63]), tables, (0.0, 0.0, 0.8, 0.8, 0.8)
    sampling = random.randrange(3), random.randrange(4), random.randrange(2), random.choice([1, 3]), 3
    arguments = labels, *draw, sampling, *targets, fill
    for here, there in zip(
        CPU.sample_and_paint_(mine, *arguments), REFERENCE.sample_and_paint_(wanted, *arguments), strict=True
    ):
        same(here, there)
    same(mine, wanted)


def step_of_patches() -> None:
    images = any_images()
    (batch, *inner), (height, width) = images.shape, images.shape[-2:]
    others = torch.randint(100, (random.choice([0, 1, 3]), *inner)).to(images.dtype) if random.random() < 0.4 else None
    classes = random.choice([1, 2, 5, 17])
    labels = any_labels(batch, classes)
    other_labels = None
    if labels is not None and others is not None and len(others) > 0:
        shape = (len(others), classes)[: labels.dim()]
        other_labels = torch.rand(shape) if labels.is_floating_point() else torch.zeros(shape)
        other_labels = other_labels.to(labels.dtype)
    elif others is not None and len(others) == 0:
        others = None
    targets = classes, random.choice([0.0, 0.1, 1.0]), random.choice(FLOATS)
    fill = struct.unpack("<2q", random.randbytes(images.itemsize) * (16 // images.itemsize))
    plan = any_patches(
        batch if batch == 0 or others is None else batch + len(others), height, width, channels_of(images)
    )
    given = images, others, labels, other_labels, *plan, *targets
    painted = REFERENCE.paint(*given, fill)
    for mine, wanted in zip(CPU.paint(*given, fill), painted, strict=True):
        same(mine, wanted)
    out = torch.full_like(painted[0], 3)
    CPU.paint_out(*given, out, fill)
    same(out, painted[0])
    step_of_patches_in_place(images, labels, targets, fill)
    if labels is not None:
        parts = labels, other_labels, plan[0], *plan[2:], height, width, *targets
        same(CPU.paint_targets(*parts), REFERENCE.paint_targets(*parts))
    holes = random.choice([1, 3])
    sampling = random.randrange(3), random.randrange(4), random.randrange(2), holes, random.choice([4, 6])
    bounds = [random.random() for _ in range(PATCH_METHODS)]
    if images.dtype not in BLENDED:
        bounds[1] = bounds[0]  # no mixup
    tables = quantiles([random.choice(LAWS[:4]) for _ in bounds], images.device, PATCH_METHODS)
    draw = torch.tensor([random.getrandbits(64) - 2**63]), tables, bounds
    arguments = images, labels, *draw, sampling, *targets, fill
    for mine, wanted in zip(CPU.sample_and_paint(*arguments), REFERENCE.sample_and_paint(*arguments), strict=True):
        same(mine, wanted)


if __name__ == "__main__":
    random.seed(2026)
    torch.manual_seed(2026)
    torch.set_num_threads(2)
    for _ in range(int(sys.argv[1])):
        step()
        if "--no-patches" not in sys.argv:  # of a build without them, for which the reference would stand in
            step_of_patches()
