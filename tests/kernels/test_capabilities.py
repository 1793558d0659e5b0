"""The loops of the CPU by the vectors of every processor that this one can stand in for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cutmix_cuda

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(cutmix_cuda._backends.status()["cpu"] != "available", reason="nothing was compiled")
@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
@pytest.mark.parametrize("program", ["fuzz_ops.py", "fuzz_augment.py"])
def test_ops(program, capability):
    if capability == "avx512" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("not a processor with AVX-512")
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "cpp" / program, "60"],
        env=os.environ | {"ATEN_CPU_CAPABILITY": capability},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
