"""Whether a chain of the batch tail does its job. Only those that do are timed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .chains import GREY, JITTER, MEAN, STD, Job, TailCase
from .checks import SEEDS, WrongResult, check_scope, observed_plan, seed_everything
from .grid import Inputs, random_inputs
from .implementations import Implementation, weighted
from .machine import describe_error

STEP = 15  # between the bytes that numbers are coded by: so many that bfloat16 tells them apart
ERASED = -1
SMALL = 16  # samples, rows and columns: at most as many as there are codes
ROUNDING = 2.0**-8 + 1e-6  # of bfloat16, relative, and of float32 before it
LEAST_CALM, CALM = 112, 32  # the least and the number of bytes that no factors of the job bring to black or white


def small_case(job: Job, to_channels_last: bool) -> TailCase:
    return TailCase(batch=SMALL, size=SMALL, classes=10, job=job, to_channels_last=to_channels_last)


class Source(NamedTuple):
    """Of each output element (B, C, H, W), whose it is; ERASED where nobody's."""

    sample: Tensor
    row: Tensor
    column: Tensor


def normalized(images: Tensor) -> Tensor:
    """Raw values (B, 3, H, W) in 0 .. 255, in float64."""
    mean, std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (MEAN, STD))
    return (images.cpu().double() / 255 - mean) / std


def decoded(values: Tensor) -> Tensor:
    """The numbers that were coded in normalised values (B, 3, H, W). Raises WrongResult where one is none."""
    codes = normalized((STEP * torch.arange(256 // STEP, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(-1, 3, 1, 1))
    values = values.cpu().double()
    distance, number = (values[..., None] - codes.movedim(0, -1)).abs().min(-1)
    if bool((distance > values.abs() * ROUNDING + ROUNDING / 2**8)[values != 0].any()):
        raise WrongResult("values that are neither normalised nor erased")
    return torch.where(values == 0, ERASED, number)


def observed_source(one: Implementation, case: TailCase, device: torch.device, seed: int) -> Source:
    """Where each element of the output comes from, by calls on images that show their sample, row and column."""
    inputs, call = random_inputs(case, device, seed), one.prepare(case)
    index = torch.arange(SMALL, dtype=torch.uint8, device=device) * STEP
    maps = []
    for shape in ((-1, 1, 1, 1), (1, 1, -1, 1), (1, 1, 1, -1)):
        seed_everything(seed)
        coded = index.view(shape).expand(case.shape).contiguous()
        maps.append(decoded(call(inputs._replace(images=coded))[0]))
    return Source(*maps)


def check_places(job: Job, sources: list[Source]) -> None:
    """Raises WrongResult unless samples are flipped, erased and mixed, each by itself, just as the job has it."""
    flips, erased, mixed = set(), 0, 0
    for source in sources:
        seen = source.sample != ERASED
        index = torch.arange(SMALL)
        own = source.sample == index[:, None, None, None]
        straight, mirrored = (source.column == order for order in (index, index.flip(0)))
        if not bool(((source.row == index[:, None]) | ~seen).all()):
            raise WrongResult("pixels of other rows")
        for sample in range(len(seen)):
            whole = [bool((each | ~seen)[sample].all()) for each in (straight, mirrored)]
            if not any(whole):
                raise WrongResult(f"sample {sample} is neither as it was nor mirrored")
            flips.add(whole.index(True))
        erased += int((~seen).flatten(1).any(1).sum())
        mixed += int((seen & ~own).flatten(1).any(1).sum())
    for what, wanted, found in (
        ("flips", job.flips, len(flips) == 2),
        ("erases", job.erases, 0 < erased < SMALL * len(sources)),
        ("mixes", job.mixes, mixed > 0),
    ):
        if wanted != found:
            raise WrongResult(f"that it {what} some samples should be {wanted}, and is {found}")


def check(one: Implementation, case: TailCase, device: torch.device) -> None:
    """Raises WrongResult unless pixels and targets are those of the job, for what the chain drew."""
    (check_colours if case.job.colours else check_origins)(one, case, device)


def result(one: Implementation, case: TailCase, inputs: Inputs, seed: int) -> tuple[Tensor, Any]:
    """Images and targets of a call, which have to be of the dtype and layout asked for, and the input as it was."""
    before = inputs.images.clone()
    seed_everything(seed)
    images, targets = one.prepare(case)(inputs)
    if images.dtype != case.out_dtype or not images.is_contiguous(memory_format=case.out_format):
        raise WrongResult(f"{images.dtype} of strides {images.stride()}")
    if not torch.equal(inputs.images, before):
        raise WrongResult("it changed its input")
    return images.cpu().double(), targets


def check_origins(one: Implementation, case: TailCase, device: torch.device) -> None:
    """Of a job that leaves values as they are.

    The chain runs from the same seed on coded images, which show where every element comes from, and on random ones,
    whose values have to be the normalised ones from there, rounded once.
    """
    sources = []
    for seed in SEEDS:
        sources.append(source := observed_source(one, case, device, seed))
        inputs = random_inputs(case, device, seed)
        images, targets = result(one, case, inputs, seed)
        channel = torch.arange(3)[:, None, None]
        expected = normalized(inputs.images)[source.sample, channel, source.row, source.column]
        expected = torch.where(source.sample == ERASED, 0.0, expected)
        if not torch.allclose(images, expected, rtol=ROUNDING, atol=2e-6):
            raise WrongResult("other values than normalised ones, rounded once")
        if case.job.mixes:
            check_targets(one, case, one.dense(targets, case.classes).cpu(), inputs.labels.cpu(), source)
    check_places(case.job, sources)
    if case.job.mixes and not case.job.erases:
        check_scope(one, [observed_plan(source.sample) for source in sources])


class Factors(NamedTuple):
    """Of brightness, contrast and saturation, each (B,)."""

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor


def check_colours(one: Implementation, case: TailCase, device: torch.device) -> None:
    """Of a job that colours and flips, and no more.

    Packages differ in the order of brightness, contrast and saturation and in the grey that contrast is around.
    Whatever these are, where nothing is clamped a value is ``scale * (saturation * x + (1 - saturation) * grey) +
    offset``, with numbers of the sample's own. They are fitted, and the fit has to be exact but for rounding to
    bfloat16; the factors follow from them.
    """
    flips, found = [], []
    for seed in SEEDS:
        inputs = random_inputs(case, device, seed)
        inputs = inputs._replace(images=LEAST_CALM + inputs.images % CALM)
        images, _ = result(one, case, inputs, seed)
        own = inputs.images.cpu().double()
        fits = [fitted(images, each) for each in (own, own.flip(3))]
        off = torch.stack([error for _, error in fits])
        if bool((off.amin(0) > ROUNDING * images.abs().amax((1, 2, 3))).any()):
            raise WrongResult("values that are neither those of the sample, coloured and normalised, nor mirrored")
        flips.append(off.argmin(0))
        numbers = torch.where(flips[-1][:, None] == 0, fits[0][0], fits[1][0])
        found.append(possible_factors(numbers, own))
    if torch.cat(flips).unique().numel() != 2:
        raise WrongResult("it flips all samples or none")
    mid_grey, mean_grey = (Factors(*map(torch.cat, zip(*each, strict=True))) for each in zip(*found, strict=True))
    if not (are_drawn(mid_grey) or are_drawn(mean_grey)):
        raise WrongResult(f"factors are {mid_grey} or, with contrast around an image's mean, {mean_grey}")


def fitted(images: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """What brings raw values and their greys nearest to a chain's output, and how far off it is, normalised, at most.

    Both (B, 3, H, W); returns three numbers a sample (B, 3), the factors of either and the offset, and errors (B,).
    """
    mean, std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (MEAN, STD))
    grey = (own * torch.tensor(GREY, dtype=torch.float64).view(3, 1, 1)).sum(1, keepdim=True).expand_as(own)
    terms = torch.stack([each.flatten(1) for each in (own, grey, torch.ones_like(own))], 2)
    numbers = torch.linalg.lstsq(terms, ((images * std + mean) * 255).flatten(1).unsqueeze(2)).solution
    fit = normalized((terms @ numbers).view_as(own))
    return numbers.squeeze(2), (fit - images).abs().amax((1, 2, 3))


def possible_factors(numbers: Tensor, own: Tensor) -> tuple[Factors, Factors]:
    """The factors that such numbers mean if contrast is around mid-grey, and if it is around an image's mean grey."""
    of_value, of_grey, offset = numbers.unbind(1)
    scale = of_value + of_grey  # brightness times contrast
    around_mid_grey = 1 - offset / 127.5
    brightness = scale + offset / (own.mean((2, 3)) @ torch.tensor(GREY, dtype=torch.float64))
    saturation = of_value / scale
    return (
        Factors(scale / around_mid_grey, around_mid_grey, saturation),
        Factors(brightness, scale / brightness, saturation),
    )


def are_drawn(factors: Factors) -> bool:
    """Whether each is between the bounds of the job, and spread over most of what is between them."""
    return all(
        float(each.min()) > 1 - reach - 0.01
        and float(each.max()) < 1 + reach + 0.01
        and float(each.max() - each.min()) > 1.4 * reach
        for each, reach in zip(factors, JITTER.values(), strict=True)
    )


def check_targets(one: Implementation, case: TailCase, targets: Tensor, labels: Tensor, source: Source) -> None:
    """Weights by the areas that were pasted, as far as no box is erased."""
    if case.job.erases:
        wrong = not torch.allclose(targets.sum(1), torch.ones(case.batch))
    else:
        plan = observed_plan(source.sample)
        wrong = not torch.allclose(
            targets, weighted(labels, labels[plan.partner.long()], plan.lam, case.classes), atol=1e-6
        )
    if wrong:
        raise WrongResult("targets off from the areas that were pasted")


def check_all(found: list[Implementation], job: Job, device: torch.device) -> tuple[int, dict[str, str]]:
    """Checks each in both layouts. Returns how many checks there were, and what was wrong with whom."""
    checks = 0
    wrong: dict[str, str] = {}
    for one in found:
        for case in (small_case(job, to_channels_last) for to_channels_last in (False, True)):
            if one.kind == "ceiling" or one.name in wrong:
                continue
            checks += 1
            try:
                check(one, case, device)
            except Exception as error:  # whatever a peer raises on this machine, the others can be measured
                wrong[one.name] = f"on {case}: {describe_error(error)}"
    return checks, wrong
