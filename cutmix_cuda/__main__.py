"""``python -m cutmix_cuda info``, ``demo`` and ``gallery``."""

from __future__ import annotations

import argparse
import math
import sys
from importlib import import_module
from pathlib import Path

from ._backends import BACKENDS
from ._info import report


def positive_int(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise ValueError
    return value


def positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


positive_int.__name__, positive_float.__name__ = "positive int", "positive number"  # as argparse's errors call them


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m cutmix_cuda", description="CutMix in one kernel launch.")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="what was found on this machine, and why the rest was not")
    demo = commands.add_parser("demo", help="mix real photographs, draw the result and time it")
    for option, kind, default, meaning in (
        ("--batch", positive_int, 8, "photographs to mix"),
        ("--size", positive_int, 224, "their height and width in pixels"),
        ("--alpha", positive_float, 1.0, "lambda ~ Beta(alpha, alpha)"),
        ("--seed", int, 23, "of the boxes and partners"),
        ("--output", Path, Path("demo.png"), "the picture to write"),
    ):
        demo.add_argument(option, type=kind, default=default, help=f"{meaning} (%(default)s)")
    demo.add_argument("--backend", choices=BACKENDS, help="how to mix (the best there is for the device)")
    demo.add_argument("--no-timing", dest="timing", action="store_false", help="leave out the images per second")
    gallery = commands.add_parser("gallery", help="draw the same photographs under every method")
    gallery.add_argument(
        "--size", type=positive_int, default=128, help="their height and width in pixels (%(default)s)"
    )
    gallery.add_argument("--seed", type=int, default=25, help="of the boxes, masks and partners (%(default)s)")
    gallery.add_argument("--output", type=Path, default=Path("gallery.png"), help="the picture to write (%(default)s)")
    return top


def main(arguments: list[str] | None = None) -> str | None:
    """Runs a command; returns what went wrong, or None."""
    args = parser().parse_args(arguments)
    if args.command == "info":
        print(report())
        return None
    try:
        module = import_module(f".{args.command}", __package__)
    except ModuleNotFoundError as error:
        return (
            f"The {args.command} needs {error.name}, which is not installed. Install the extra cutmix_cuda[demo], "
            "in a clone of the repository with: pip install '.[demo]'"
        )
    try:
        module.run(args)
    except (OSError, RuntimeError, ValueError) as error:
        return f"The {args.command} stopped: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
