"""RICAP, ResizeMix, FMix, holes, jigsaws and transplants beside the public codes, pixels and targets.

python benchmarks family            on this machine's CPU
python benchmarks family --quick    on tiny images; the numbers mean nothing

The loops are those that the papers describe, written here from their formulas: most of them draw once for a whole
batch, where ours draw for each sample. kornia's are called as they are. All are checked for meaning before they are
timed.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cutmix_cuda import RICAP, CutMix, Cutout, FMix, PatchPlan, ResizeMix, masks, paint
from cutmix_cuda.distributions import Constant

from . import tables
from .command_line import make_parser
from .machine import RESULTS, ROOT, describe
from .timing import Effort, Stopwatches, time_in_turn

OURS = "cutmix_cuda"
A_BATCH, A_SAMPLE = "a batch", "a sample"
GRID = 4  # cells a side of a jigsaw, and patches that the side of a patch is of
HOLES = 4
LABELS = 5  # of a segmentation
BETA, DECAY = 0.3, 3.0  # RICAP's and FMix's, as published


class Inputs(NamedTuple):
    """What a call gets."""

    images: Tensor  # float32 (B, 3, H, W)
    labels: Tensor  # int64 (B,)
    num_classes: int
    segmentation: Tensor  # int64 (B, H, W), in 0..LABELS-1


class Contender(NamedTuple):
    """One that does a job, with draws of its own for each sample or one for the batch."""

    name: str
    draws: str
    call: Callable[[Inputs], Any]


class Job(NamedTuple):
    name: str
    check: Callable[[Contender, Inputs], None]  # raises AssertionError
    contenders: list[Contender]  # ours first


def random_inputs(batch: int, side: int, num_classes: int) -> Inputs:
    draw = torch.Generator().manual_seed(0)
    cells = torch.randint(LABELS, (batch, 1, 4, 4), generator=draw).float()
    return Inputs(
        torch.rand(batch, 3, side, side, generator=draw),
        torch.randint(num_classes, (batch,), generator=draw),
        num_classes,
        F.interpolate(cells, size=(side, side), mode="nearest")[:, 0].long(),
    )


# ---- The papers' loops


def _soft(inputs: Inputs) -> Tensor:
    return F.one_hot(inputs.labels, inputs.num_classes).float()


def ricap_loop(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Takahashi et al. 2018: four random crops of four permutations around one corner."""
    batch, _, height, width = inputs.images.shape
    up, left = (round(side * float(np.random.beta(BETA, BETA))) for side in (height, width))
    soft, targets, crops = _soft(inputs), torch.zeros(batch, inputs.num_classes), []
    for rows, columns in ((up, left), (up, width - left), (height - up, left), (height - up, width - left)):
        index = torch.randperm(batch)
        y, x = np.random.randint(height - rows + 1), np.random.randint(width - columns + 1)
        crops.append(inputs.images[index][:, :, y : y + rows, x : x + columns])
        targets += rows * columns / (height * width) * soft[index]
    return torch.cat([torch.cat(crops[:2], dim=3), torch.cat(crops[2:], dim=3)], dim=2), targets


def resizemix_loop(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Qin et al. 2020: the partner, made smaller by 0.1 to 0.8, pasted somewhere."""
    batch, _, height, width = inputs.images.shape
    scale, index, soft = np.random.uniform(0.1, 0.8), torch.randperm(batch), _soft(inputs)
    rows, columns = int(scale * height), int(scale * width)
    y, x = np.random.randint(height - rows + 1), np.random.randint(width - columns + 1)
    mixed = inputs.images.clone()
    mixed[:, :, y : y + rows, x : x + columns] = F.interpolate(inputs.images[index], size=(rows, columns))
    share = rows * columns / (height * width)
    return mixed, (1 - share) * soft + share * soft[index]


def fmix_mask(lam: float, height: int, width: int) -> np.ndarray:
    """Harris et al. 2020: True where noise of low frequencies is largest, for the fraction lam of the cells."""
    frequency = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width) ** 2)
    amplitude = 1 / np.maximum(frequency, 1 / max(height, width)) ** DECAY
    real, imaginary = np.random.randn(2, *frequency.shape)
    noise = np.fft.irfft2(amplitude * (real + 1j * imaginary), (height, width)).ravel()
    mask = np.zeros(height * width, dtype=bool)
    mask[noise.argsort()[::-1][: round(lam * height * width)]] = True
    return mask.reshape(height, width)


def fmix_loop(inputs: Inputs) -> tuple[Tensor, Tensor]:
    lam, index, soft = float(np.random.beta(1.0, 1.0)), torch.randperm(len(inputs.images)), _soft(inputs)
    mask = torch.from_numpy(fmix_mask(lam, *inputs.images.shape[-2:])).float()
    mixed = mask * inputs.images + (1 - mask) * inputs.images[index]
    return mixed, lam * soft + (1 - lam) * soft[index]


def holes_loop(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """DeVries and Taylor 2017: squares around random pixels, image by image, as their transform does it."""
    batch, _, height, width = inputs.images.shape
    half = height // GRID // 2
    kept = np.ones((batch, 1, height, width), dtype=np.float32)
    for mask in kept:
        for y, x in zip(np.random.randint(height, size=HOLES), np.random.randint(width, size=HOLES), strict=True):
            mask[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0
    return inputs.images * torch.from_numpy(kept), _soft(inputs)


# ---- Ours, where it is no transform


def jigsaw(inputs: Inputs) -> Tensor:
    """The cells of each image in an order of its own."""
    batch, _, height, width = inputs.images.shape
    rows, columns = height // GRID, width // GRID
    y, x = (torch.arange(GRID) * size for size in (rows, columns))
    corners = torch.stack([y.repeat_interleave(GRID), x.repeat(GRID)], dim=1)
    boxes = torch.cat([corners, corners + torch.tensor([rows, columns])], dim=1)
    order = torch.rand(batch, GRID * GRID).argsort(dim=1)
    own = torch.arange(batch)[:, None].expand(order.shape)
    plan = PatchPlan.from_boxes(own, boxes.expand(batch, -1, -1), height, width, sources=boxes[order])
    return paint(inputs.images, None, plan)[0]


def transplant(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """All pixels of one label of the sample before, and their labels."""
    batch, height, width = inputs.segmentation.shape
    donors = inputs.segmentation.roll(1, 0)
    there = torch.zeros(batch, LABELS).scatter_(1, donors.flatten(1), 1.0)
    left = donors != there.multinomial(1)[:, :, None]
    plan = PatchPlan.from_masks(left, torch.arange(batch).roll(1), height, width)
    return paint(inputs.images, None, plan)[0], paint(inputs.segmentation, None, plan)[0]


def a_mask_a_sample(inputs: Inputs) -> Tensor:
    lam = torch.rand(len(inputs.images))
    return masks.fmix(lam, *inputs.images.shape[-2:], decay=DECAY)


# ---- What a result has to be


def check_targets(contender: Contender, inputs: Inputs) -> None:
    """Each label has the weight of the pixels that come from its sample."""
    batch, _, height, width = inputs.images.shape
    labels = torch.arange(batch)
    coded = labels.float().view(-1, 1, 1, 1).expand(inputs.images.shape).contiguous()
    mixed, targets = contender.call(Inputs(coded, labels, batch, inputs.segmentation))
    shares = torch.stack([(mixed[:, 0] == label).float().mean(dim=(1, 2)) for label in range(batch)], dim=1)
    torch.testing.assert_close(targets, shares, rtol=0, atol=2 / (height * width))  # a mask's lambda is not rounded
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(batch))


def check_holes(contender: Contender, inputs: Inputs) -> None:
    """Pixels are left or 0, in all channels, in up to so many squares; targets are the samples' own."""
    images = inputs.images + 1
    mixed, targets = contender.call(inputs._replace(images=images))
    cut = mixed == 0
    assert torch.equal(mixed, torch.where(cut, 0.0, images))
    assert torch.equal(cut, cut[:, :1].expand_as(cut))
    count, most = cut[:, 0].flatten(1).sum(dim=1), HOLES * (images.shape[-1] // GRID) ** 2
    assert count.min() > 0 and count.max() <= most
    assert torch.equal(targets, _soft(inputs))


def check_patch(contender: Contender, inputs: Inputs) -> None:
    """A square of one sample."""
    batch, _, height, width = inputs.images.shape
    mixed = _images_of(contender.call(inputs))
    square = (height // GRID) * (width // GRID)
    for i in range(batch):
        fits = [((mixed[i] == inputs.images[j]).all(dim=0)).sum() for j in range(batch)]
        assert fits[i] in (height * width, height * width - square)
        assert sum(fits) in (height * width, 2 * height * width - square), "a sample may be its own partner"


def _cells(images: Tensor) -> Tensor:
    """(B, cells, pixels), sorted by each cell's first pixel."""
    rows, columns = images.shape[-2] // GRID, images.shape[-1] // GRID
    cells = images.unfold(2, rows, rows).unfold(3, columns, columns).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    order = cells[:, :, 0].argsort(dim=1)
    return cells.gather(1, order[:, :, None].expand_as(cells))


def check_jigsaw(contender: Contender, inputs: Inputs) -> None:
    """The same cells, in another order."""
    mixed = contender.call(inputs)
    assert not torch.equal(mixed, inputs.images)
    assert torch.equal(_cells(mixed), _cells(inputs.images))


def check_transplant(contender: Contender, inputs: Inputs) -> None:
    """All pixels of one label that the sample before has, in image and segmentation alike."""
    mixed, segmentation = contender.call(inputs)
    donors, labels = inputs.images.roll(1, 0), inputs.segmentation.roll(1, 0)
    for i in range(len(mixed)):
        moved = (mixed[i] != inputs.images[i]).any(dim=0)
        (label,) = labels[i][moved].unique()
        assert torch.equal(moved, labels[i] == label)
        assert torch.equal(mixed[i], torch.where(moved, donors[i], inputs.images[i]))
        assert torch.equal(segmentation[i], torch.where(moved, label, inputs.segmentation[i]))


def check_masks(contender: Contender, inputs: Inputs) -> None:
    """Of neighbours most are alike, and masks and samples differ."""
    found = contender.call(inputs)
    assert found.dtype == torch.bool and found.shape[1:] == inputs.images.shape[-2:]
    changes = (found[:, :, 1:] ^ found[:, :, :-1]).float().mean()
    assert 0 < changes < 0.2, changes
    assert len(found) == 1 or len(found.float().mean(dim=(1, 2)).unique()) > 1


def _images_of(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


# ---- Who does what


def _kornia(side: int) -> dict[str, Contender]:
    """kornia's, by job; none where it is not installed."""
    try:
        from kornia import augmentation as ka
    except ImportError:
        return {}
    jig, patch = ka.RandomJigsaw((GRID, GRID), p=1.0), ka.PatchMix(patch_size=side // GRID, p=1.0)
    transplantation = ka.RandomTransplantation(p=1.0)
    calls = {
        "jigsaw": ("RandomJigsaw", lambda inputs: jig(inputs.images)),
        "a square of a partner": ("PatchMix", lambda inputs: patch(inputs.images)),
        "transplant": ("RandomTransplantation", lambda inputs: transplantation(inputs.images, inputs.segmentation)),
    }
    return {job: Contender(f"kornia {name}", A_SAMPLE, call) for job, (name, call) in calls.items()}


def jobs(side: int, num_classes: int) -> list[Job]:
    """num_classes: of the timed calls; checks have others."""

    def transform(make: Callable[..., Any], **options: Any) -> Callable[[Inputs], Any]:
        by_classes: dict[int, Any] = {}

        def call(inputs: Inputs) -> Any:
            if inputs.num_classes not in by_classes:
                by_classes[inputs.num_classes] = make(num_classes=inputs.num_classes, **options)
            return by_classes[inputs.num_classes](inputs.images, inputs.labels)

        return call

    share = GRID**-2.0
    square = CutMix(alpha=Constant(1 - share), placement="inside", correct_lam=True)
    holes = transform(Cutout, area=share, holes=HOLES)
    numpy_masks = [
        Contender("numpy, one mask", A_BATCH, lambda inputs: _numpy_masks(inputs, 1)),
        Contender("numpy, in a loop", A_SAMPLE, lambda inputs: _numpy_masks(inputs, len(inputs.images))),
    ]
    found = [
        Job("RICAP", check_targets, [_ours(transform(RICAP, beta=BETA)), Contender("paper", A_BATCH, ricap_loop)]),
        Job("ResizeMix", check_targets, [_ours(transform(ResizeMix)), Contender("paper", A_BATCH, resizemix_loop)]),
        Job("FMix", check_targets, [_ours(transform(FMix, decay=DECAY)), Contender("paper", A_BATCH, fmix_loop)]),
        Job("masks of FMix", check_masks, [_ours(a_mask_a_sample), *numpy_masks]),
        Job(f"{HOLES} holes", check_holes, [_ours(holes), Contender("paper", A_SAMPLE, holes_loop)]),
        Job("a square of a partner", check_patch, [_ours(lambda inputs: square(inputs.images)[0])]),
        Job("jigsaw", check_jigsaw, [_ours(jigsaw)]),
        Job("transplant", check_transplant, [_ours(transplant)]),
    ]
    for name, contender in _kornia(side).items():
        next(job for job in found if job.name == name).contenders.append(contender)
    return found


def _ours(call: Callable[[Inputs], Any]) -> Contender:
    return Contender(OURS, A_SAMPLE, call)


def _numpy_masks(inputs: Inputs, count: int) -> Tensor:
    lams = np.random.rand(count)
    return torch.from_numpy(np.stack([fmix_mask(lam, *inputs.images.shape[-2:]) for lam in lams]))


# ---- Times


def measure(batch: int, side: int, num_classes: int, effort: Effort) -> list[dict]:
    """For each job the timings of all that do it, in turn on one batch, after all of them were checked."""
    inputs = random_inputs(batch, side, num_classes)
    small = random_inputs(min(batch, 8), side, num_classes)
    cells = []
    for job in jobs(side, num_classes):
        for contender in job.contenders:
            job.check(contender, small)
        calls = {contender.name: contender.call for contender in job.contenders}
        timings = time_in_turn(Stopwatches(inputs.images.device).make(calls, [inputs]), effort)
        by = [
            {"name": each.name, "draws": each.draws, "timing": timings[each.name].as_dict()} for each in job.contenders
        ]
        cells.append({"job": job.name, "by": by})
    return cells


def report(results: dict) -> str:
    rows = []
    for cell in results["jobs"]:
        ours = cell["by"][0]["timing"]["median_s"]
        for each in cell["by"]:
            timing = each["timing"]
            ratio = f"{tables.three_digits(timing['median_s'] / ours)}x"
            rows.append((cell["job"], each["name"], each["draws"], tables.spread(timing), ratio))
    header = ("job", "by", "a draw for", "median (quartiles)", "of ours")
    return "\n".join(
        [
            "# Several patches, and masks",
            "",
            tables.machine_line(results["machine"]),
            "",
            f"{results['images']}, float32, NCHW, {results['num_classes']} classes. To draw once for a batch, as most "
            "of the papers' loops do, is less work than for each sample. *Of ours*: how many times as long as ours it "
            "takes.",
            "",
            tables.table(header, rows, numbers_from=3),
            "",
        ]
    )


def main(arguments: Sequence[str]) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny images; writes to build/benchmarks")
    parser.add_argument("--output", type=Path, help="folder for the results")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each job (%(default)s)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    batch, side, num_classes = (6, 32, 10) if args.quick else (128, 224, 1000)
    effort = Effort(0.1, 2, 5) if args.quick else Effort(args.seconds, 5, 200)
    folder = args.output or (ROOT / "build" / "benchmarks" if args.quick else RESULTS)
    torch.manual_seed(0)
    np.random.seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="kornia")
        cells = measure(batch, side, num_classes, effort)
    results = {
        "machine": describe(torch.device("cpu")),
        "images": f"{batch} x 3 x {side} x {side}",
        "num_classes": num_classes,
        "jobs": cells,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "family_cpu.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "family_cpu.md").write_text(report(results))
    print(report(results))
    print(f"The results are in {os.path.relpath(folder)}: family_cpu.json and family_cpu.md.")
