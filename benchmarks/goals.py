"""What was promised, as ratios within one run on the CPU at 128 x 3 x 224 x 224, and whether it was met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from . import chains
from .chains import ERASE_AND_MIX, TailCase
from .grid import CENTRE, Case
from .implementations import (
    BOX_COPY,
    CLONE,
    COPY,
    KORNIA,
    OURS,
    OURS_IN_PLACE,
    OURS_OUT,
    SNIPPET_MEAN_BOX,
    TIMM_ELEM,
    TORCHVISION,
)
from .timing import Timing


@dataclass(frozen=True)
class Target:
    """At least `least` times faster than another."""

    ours: str
    other: str
    least: float
    case: Case = CENTRE


UINT8 = replace(CENTRE, dtype=torch.uint8)

SPEED_UPS = [
    Target(OURS, TORCHVISION, 2.0),
    Target(OURS_IN_PLACE, TORCHVISION, 8.0),
    Target(OURS, TORCHVISION, 4.0, UINT8),
    Target(OURS_IN_PLACE, TORCHVISION, 5.0, UINT8),
    Target(OURS_IN_PLACE, TIMM_ELEM, 5.0),
    Target(OURS, KORNIA, 100.0),
    Target(OURS_IN_PLACE, BOX_COPY, 0.5),
]

NEAR_THE_CEILING = [
    Target(ours, other, least, replace(CENTRE, dtype=dtype, channels_last=channels_last))
    for channels_last in (False, True)
    for dtype in (torch.uint8, torch.bfloat16, torch.float32)
    for ours, other, least in (
        (OURS, CLONE, 1 / 1.1),
        (OURS_OUT, COPY, 1 / 1.1),
        (OURS_IN_PLACE, SNIPPET_MEAN_BOX, 1.7),
    )
]

OF_THE_TAIL = [
    Target(chains.OURS, chains.TORCHVISION, 30.0, TailCase(to_channels_last=True)),
    Target(chains.OURS, chains.TORCHVISION, 45.0, TailCase()),
    Target(chains.OURS, chains.TIMM_BATCH, 20.0, TailCase(job=ERASE_AND_MIX, to_channels_last=True)),
    Target(chains.OURS, chains.COMPILED, 6.0, TailCase(to_channels_last=True)),
    Target(chains.OURS, chains.COMPILED, 6.0, TailCase()),
    Target(chains.OURS_OUT, COPY, 1 / 1.3, TailCase()),
]

MOST_OVERHEAD = 25e-6  # seconds a call at B = 1, plan and targets included


def judge(
    timings: Mapping[Case, dict[str, Timing]], targets: Iterable[Target] = (*SPEED_UPS, *NEAR_THE_CEILING)
) -> list[dict]:
    """A row for each target whose two sides were measured: the ratio of their medians, and whether it is met."""
    rows = []
    for target in targets:
        measured = timings.get(target.case, {})
        if target.ours in measured and target.other in measured:
            ratio = measured[target.other].median / measured[target.ours].median
            rows.append(
                {
                    "what": f"{target.ours} against {target.other}",
                    "where": target.case.kind,
                    "target": f"at least {target.least:.3g}x",
                    "measured": f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x",
                    "met": ratio >= target.least,
                }
            )
    return rows


def judge_overhead(overhead: dict[str, dict]) -> list[dict]:
    """The rows for the cost of a call."""
    return [
        {
            "what": f"a call of {name}",
            "where": "B = 1, 3x32x32",
            "target": f"less than {MOST_OVERHEAD * 1e6:.0f} us",
            "measured": f"{overhead[name]['median_s'] * 1e6:.1f} us",
            "met": overhead[name]["median_s"] < MOST_OVERHEAD,
        }
        for name in (OURS, OURS_IN_PLACE)
        if name in overhead
    ]
