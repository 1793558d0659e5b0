"""The commands of the benchmarks, each with a --help of its own.

python benchmarks cpu            beside the peers on this machine's CPU; gpu: on its GPU
python benchmarks tail           the batch tail alone, on the CPU
python benchmarks loader         mixing in the workers of a loader
python benchmarks vectors        without AVX-512, and without AVX2, on small and large images
python benchmarks kernels        every kernel beside a copy of as many bytes, on a GPU
python benchmarks features       feature maps and their gradient, beside plain and compiled PyTorch
python benchmarks family         RICAP, ResizeMix, FMix, holes and jigsaws beside the public codes, on the CPU
python benchmarks launches       a few launches for a profiler to look at, on a GPU; or what it saw
python benchmarks train          what mixing does to a small network; data: gets the images for it
python benchmarks cuda-report    what nvcc makes of the CUDA kernels; ptx-report: what the PTX of both costs, executed
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = {
    "cpu": "suite",
    "gpu": "suite",
    "tail": "suite",
    "loader": "loader",
    "vectors": "vectors",
    "kernels": "kernels",
    "features": "features",
    "family": "family",
    "launches": "launches",
    "train": "train",
    "data": "train.data",
    "cuda-report": "cuda_report",
    "ptx-report": "ptx_report",
}
DEVICES = {"cpu": "cpu", "gpu": "cuda", "tail": "cpu"}
# Not the loader's: its workers are forked, and would copy each page that was kept before they write to it.
KEEP_FREED_MEMORY = ("cpu", "tail", "vectors", "family")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python benchmarks",
        usage="%(prog)s COMMAND [--help | ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=MODULES, help=argparse.SUPPRESS)
    command = parser.parse_args(sys.argv[1:2]).command
    if command in KEEP_FREED_MEMORY:
        import_module("benchmarks.machine").keep_freed_memory()
    run = import_module(f"benchmarks.{MODULES[command]}").main
    if command in DEVICES:
        run = partial(run, DEVICES[command], tail_alone=command == "tail")
    run(sys.argv[2:])


if __name__ == "__main__":
    # Python put this folder first. The repository goes last: its sources would hide the installed package.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE] + [str(HERE.parent)]
    main()
