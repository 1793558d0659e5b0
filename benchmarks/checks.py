"""Whether an implementation does what it is measured for. Nothing is timed before all have passed."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cutmix_cuda import MixPlan, mix_images, mix_targets

from .grid import Case, random_inputs
from .implementations import Implementation

SEEDS = range(3)


class WrongResult(Exception):
    """An implementation does something other than CutMix."""


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def observed_plan(mixed: Tensor) -> MixPlan:
    """The plan that was followed, read off mixed images whose every pixel was the index of its sample, (B, C, H, W).

    Raises WrongResult where the pixels of a sample do not form a rectangle from one partner.
    """
    source = mixed.cpu().long()
    partners, boxes = [], []
    for index, sample in enumerate(source):
        pasted = sample != index
        partner, box = index, [0, 0, 0, 0]
        if pasted.any():
            partner = int(sample[pasted][0])
            rows, columns = (pasted.any(0).any(across).nonzero().flatten() for across in (1, 0))
            box = [int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1]
            expected = torch.full_like(sample, index)
            expected[:, box[0] : box[2], box[1] : box[3]] = partner
            if not torch.equal(sample, expected):
                raise WrongResult(f"sample {index} is not itself with one box from one other sample")
        partners.append(partner)
        boxes.append(box)
    return MixPlan.from_boxes(torch.tensor(partners), torch.tensor(boxes), *mixed.shape[-2:])


def check_scope(implementation: Implementation, plans: list[MixPlan]) -> None:
    """Raises WrongResult unless boxes were drawn, and as many a batch as the implementation says."""
    boxes = [{tuple(box) for box, lam in zip(plan.boxes.tolist(), plan.lam, strict=True) if lam < 1} for plan in plans]
    most = max(map(len, boxes))
    if most == 0:
        raise WrongResult("it never pasted anything")
    if (most == 1) != (implementation.scope == "batch"):
        raise WrongResult(f"up to {most} boxes in a batch, where lambda should be drawn once a {implementation.scope}")


def check(implementation: Implementation, case: Case, device: torch.device) -> None:
    """Raises WrongResult unless pixels and targets are those of CutMix with the boxes that the implementation drew.

    It runs twice from the same seed: on images whose pixels name their sample, which shows its boxes, and on random
    ones, where its pixels have to be ours for those boxes, and its targets weighted by the areas that were pasted.
    """
    plans = []
    for seed in SEEDS:
        inputs = random_inputs(case, device, seed)
        index = torch.arange(case.batch, device=device).to(case.dtype).reshape(-1, 1, 1, 1)
        coded = inputs._replace(images=torch.zeros_like(inputs.images).add_(index))
        call = implementation.prepare(case)

        seed_everything(seed)
        plans.append(observed_plan(call(coded)[0]))
        plan = plans[-1].to(device)
        labels = inputs.soft_labels if "soft labels" in implementation.includes else inputs.labels
        images = mix_images(inputs.images, plan, backend="reference")
        targets = mix_targets(labels, plan, case.classes, backend="reference")
        before = inputs.images.clone()

        seed_everything(seed)
        mixed, raw = call(inputs)
        if mixed.dtype != case.dtype or not torch.equal(mixed, images):
            raise WrongResult("other pixels than its boxes say")
        if implementation.in_place != (mixed.data_ptr() == inputs.images.data_ptr()):
            raise WrongResult(f"in place should be {implementation.in_place}")
        if not implementation.in_place and not torch.equal(inputs.images, before):
            raise WrongResult("it changed its input")
        error = float((implementation.dense(raw, case.classes) - targets).abs().max())
        if error > (torch.finfo(case.dtype).eps if implementation.rounds_lam else 1e-6):
            raise WrongResult(f"targets off by {error:.2g} from the areas that were pasted")
    check_scope(implementation, plans)


def check_all(implementations: list[Implementation], cases: list[Case], device: torch.device) -> int:
    """Checks each on small batches of every dtype and layout that it will be timed on; returns how many checks."""
    small = {replace(case, batch=16, size=24, classes=10) for case in cases}
    checks = [
        (implementation, case)
        for implementation in implementations
        for case in sorted(small, key=str)
        if implementation.kind != "ceiling" and implementation.fits(case)
    ]
    for implementation, case in checks:
        try:
            check(implementation, case, device)
        except WrongResult as error:
            raise WrongResult(f"{implementation.name} on {case}: {error}") from None
    return len(checks)
