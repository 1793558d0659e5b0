"""The loops of the CPU by the vectors of every processor that this one can stand in for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cutmix_cuda

ROOT = Path(__file__).resolve().parents[2]


every_capability = pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])


def run(capability: str, *command: object) -> None:
    if cutmix_cuda._backends.status()["cpu"] != "available":
        pytest.skip("nothing was compiled")
    if capability == "avx512" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("not a processor with AVX-512")
    done = subprocess.run(
        list(map(str, command)),
        env=os.environ | {"ATEN_CPU_CAPABILITY": capability},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout


@every_capability
@pytest.mark.parametrize("program", ["fuzz_ops.py", "fuzz_augment.py"])
def test_ops(program, capability):
    run(capability, sys.executable, ROOT / "tests" / "cpp" / program, 40)


@every_capability
def test_outputs_that_no_cache_holds(capability):
    """By pytest's own program: ``python -m pytest`` would put the sources, which have no C++, before the package."""
    if capability.upper() == torch.backends.cpu.get_cpu_capability():
        pytest.skip("by this processor's own vectors the tests run anyway")
    pytest_program = Path(sys.executable).with_name("pytest")
    selection = "no_cache_holds and not reference"  # which has no vectors of ours
    run(capability, pytest_program, "-q", "-n0", ROOT / "tests" / "ops" / "test_threads.py", "-k", selection)
