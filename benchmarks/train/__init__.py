"""Does mixing regularise? A small ResNet on Fashion-MNIST, with and without it, over several seeds.

python benchmarks train               all runs that results/train.jsonl lacks, then tables and pictures
python benchmarks train --validate    tests on the images that network and settings were chosen on
python benchmarks train --quick       does everything once on a few digits, hardly training; the numbers mean nothing

The first takes about an hour on two cores, from nothing. Method and limits: README.md in the folder above.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ..command_line import make_parser
from ..machine import RESULTS, ROOT, describe
from ..tables import put_between_markers
from .data import DIGITS, FASHION_MNIST, FOLDER, missing_files
from .report import draw_overview, draw_reliability, everything, overview
from .study import FULL, QUICK, complete, definitions


def find_data(folder: Path | None) -> tuple[str, Path]:
    """Which data set there is, and the folder of its files.

    Args:
        folder: where Fashion-MNIST has to be; None: it is in data, or the digits take its place.

    Raises:
        SystemExit: it is not in the folder.
    """
    missing = missing_files(folder or FOLDER)
    if not missing:
        return FASHION_MNIST, folder or FOLDER
    if folder is not None:
        raise SystemExit(f"--data: {folder} has to hold {FASHION_MNIST} as torchvision does; there is no {missing[0]}")
    print(f"{FASHION_MNIST} is not in {FOLDER}: the {DIGITS} take its place. `make data` gets it; --data says where.")
    return DIGITS, FOLDER


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, help="the folder that torchvision's FashionMNIST calls root; data")
    parser.add_argument("--output", type=Path, help="folder of the results; results for the study, else one in build")
    parser.add_argument("--seeds", type=int, help="how many, at least 2; 5")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time; %(default)s")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--validate", action="store_true", help="test on the validation images")
    how.add_argument("--quick", action="store_true", help="hardly train, to see that everything works")
    args = parser.parse_args(arguments)
    if args.seeds is not None and args.seeds < 2:
        parser.error(f"--seeds: a standard deviation takes at least 2, not {args.seeds}")
    return args


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    data, folder = (DIGITS, FOLDER) if args.quick else find_data(args.data)
    effort = QUICK if args.quick else FULL[data]
    if args.seeds is not None:
        effort = effort._replace(seeds=args.seeds)
    tested_on = "validation" if args.validate else "test"
    published = (data, tested_on) == (FASHION_MNIST, "test")
    output = args.output or (RESULTS if published else ROOT / "build" / f"train-{data}")
    output.mkdir(parents=True, exist_ok=True)

    described = describe(torch.device("cpu"))
    machine = {key: described[key] for key in ("processor", "versions", "commit", "date")}
    runs = complete(
        output / "train.jsonl", definitions(data, folder, tested_on, effort), folder, args.processes, machine
    )
    text = overview(runs)
    print(text)
    (output / "train.md").write_text(everything(runs))
    draw_overview(runs, output / "train.png")
    draw_reliability(runs, output / "train_reliability.png")
    print(f"\nAll measures and the pictures are in {output}.")
    if published and output == RESULTS:
        put_between_markers(ROOT / "README.md", "train", text)
