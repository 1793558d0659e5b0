"""What the command lines of several benchmarks have in common."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path


def make_parser(description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def parse_no_arguments(arguments: Sequence[str], description: str | None) -> None:
    """The command line of a command that takes none but --help."""
    make_parser(description).parse_args(arguments)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """The options of a command that has to be done in time, and that may be killed when it is not."""
    parser.add_argument("--seconds", type=float, default=math.inf, help="leave out what would take longer")
    parser.add_argument("--lines", type=Path, help="file to add each result to as soon as it is there, a line of JSON")


def lines_to(path: Path | None) -> Callable[[dict], None]:
    """What adds results to the file of --lines."""

    def tell(result: dict) -> None:
        if path is not None:
            with path.open("a") as lines:
                lines.write(json.dumps(result) + "\n")

    return tell
