"""The README's tables, from the results that are kept: times of CutMix and of the batch tail, each on a CPU and on a
GPU, and what the tail costs on a GPU, counted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from . import chains
from . import implementations as one_op
from .chains import TailCase
from .machine import RESULTS, ROOT
from .tables import centre_cell, counted_chains_text, duration, put_between_markers, spread, table, three_digits

# Who stands in a row: its title, its name in the results of CutMix and in those of the batch tail.
OURS = "ours", one_op.OURS, chains.OURS
OTHERS = (
    ("ours, in place", one_op.OURS_IN_PLACE, None),
    ("ours, by Triton", f"{one_op.OURS} [triton]", f"{chains.OURS} [triton]"),
    ("torch's `copy_`", one_op.COPY, one_op.COPY),
    ("the two-line snippet, a box a batch", one_op.SNIPPET, None),
    ("torch.compile of the same pixels", one_op.COMPILED_SAMPLE, chains.COMPILED),
    ("timm, a box a batch", one_op.TIMM_BATCH, chains.TIMM_BATCH),
    ("timm, a box a sample", one_op.TIMM_ELEM, chains.TIMM_ELEM),
    ("torchvision, a box a batch", one_op.TORCHVISION, chains.TORCHVISION),
    ("kornia", one_op.KORNIA, chains.KORNIA),
)


class Column(NamedTuple):
    """What was timed of one job on one machine."""

    file: str  # of the results, without its extension
    job: str
    machine: dict
    timings: dict[str, dict]
    of_chains: bool  # whether names are those of the batch tail

    def of(self, row: tuple[str, str | None, str | None]) -> dict | None:
        name = row[2 if self.of_chains else 1]
        return None if name is None else self.timings.get(name)


def columns(folder: Path) -> list[Column]:
    """Those that there are results of."""
    found = []
    for device in ("cpu", "cuda"):
        for file in (device, f"tail_{device}"):
            path = folder / f"{file}.json"
            results = json.loads(path.read_text()) if path.exists() else {"cells": []}
            of_chains = file.startswith("tail")
            cell = mixing_cell(results["cells"]) if of_chains else centre_cell(results) if results["cells"] else None
            if cell is not None:
                job = "uint8 to bfloat16, channels-last: normalise, CutMix" if of_chains else "float32: CutMix"
                found.append(Column(file, job, results["machine"], cell["timings"], of_chains))
    return found


def mixing_cell(cells: list[dict]) -> dict | None:
    """Of the batch tail the large images that are normalised, mixed and laid out in channels-last."""
    wanted = TailCase(job=chains.MIX, to_channels_last=True).as_dict()
    return next((cell for cell in cells if cell["case"] == wanted), None)


def headline(found: list[Column]) -> str:
    """The table, and what its numbers are."""
    header = ["", *(f"{column.job}; {_where(column)}" for column in found)]
    ours = [column.of(OURS) for column in found]
    rows = [[OURS[0], *(spread(timing) if timing else "-" for timing in ours)]]
    for row in OTHERS:
        cells = [_ratio(column.of(row), own) for column, own in zip(found, ours, strict=True)]
        if any(cell != "-" for cell in cells):
            rows.append([row[0], *cells])
    every_date = sorted(column.machine["date"].split()[0] for column in found)
    dates = " to ".join(dict.fromkeys((every_date[0], every_date[-1])))
    lines = [
        "128 x 3 x 224 x 224 images, NCHW. Ours: medians (quartiles); the others: how many times as long, by medians "
        f"(by opposite quartiles); {dates}.",
        table(header, rows),
    ]
    if any("*" in cell for row in rows for cell in row):
        lines.append("\\* Timed by CUDA events, because a CUDA graph, by whose replays the others are, cannot hold it.")
    return "\n\n".join(lines)


def _where(column: Column) -> str:
    processor = column.machine["processor"].replace("(R)", "")
    return f"[{processor}](benchmarks/results/{column.file}.md)"


def _ratio(theirs: dict | None, ours: dict | None) -> str:
    if theirs is None or ours is None:
        return "-"
    if theirs["method"] != ours["method"]:
        return f"{duration(theirs['median_s'])}\\*"
    low, high = theirs["q1_s"] / ours["q3_s"], theirs["q3_s"] / ours["q1_s"]
    median, low, high = map(three_digits, (theirs["median_s"] / ours["median_s"], low, high))
    return f"{median}x ({low} .. {high})"


def sections(folder: Path) -> dict[str, str]:
    """What the README shows between the markers of each name; nothing of what was not measured."""
    shown = {}
    found = columns(folder)
    if found:
        shown["speed"] = headline(found)
    counted = folder / "tail_cpu.json"
    if counted.exists():
        shown["tail"] = counted_chains_text(json.loads(counted.read_text())["counted"], [chains.ERASE_AND_MIX.name])
    return shown


def update_readme() -> None:
    for name, text in sections(RESULTS).items():
        put_between_markers(ROOT / "README.md", name, text)
