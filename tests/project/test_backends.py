"""Which backend runs: by argument, by environment, and where nothing was compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cutmix_cuda
from cutmix_cuda import _backends

PACKAGE = Path(cutmix_cuda.__file__).parent
needs_cpu = pytest.mark.skipif("cpu" not in cutmix_cuda.available_backends(), reason="nothing was compiled")


def run_python(code: str, path: Path = PACKAGE.parent, **environment: str) -> subprocess.CompletedProcess:
    """A fresh interpreter that imports the package from a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CUTMIX_CUDA", "TRITON"))}
    return subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", code],
        env={**kept, "PYTHONPATH": str(path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def answer(code: str, path: Path = PACKAGE.parent, **environment: str) -> str:
    """What it prints."""
    result = run_python(code, path, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_every_backend_is_told():
    status = _backends.status()
    assert list(status) == ["cuda", "triton", "cpu", "reference"]
    assert status["reference"] == "available"
    available = cutmix_cuda.available_backends()
    assert "reference" in available
    assert all(status[name] == "available" for name in available)
    if not torch.cuda.is_available():
        assert "cuda" not in available


def test_the_reference_can_be_asked_for_by_environment():
    code = """
import torch, cutmix_cuda
from cutmix_cuda import _backends
print(_backends.ops_for(None, torch.device("cpu")).sample_and_apply)
images = torch.rand(4, 3, 6, 9)
expected = cutmix_cuda.cutmix(images, seed=1, backend="reference")[0]
print(torch.equal(cutmix_cuda.cutmix(images, seed=1)[0], expected))
"""
    assert answer(code, CUTMIX_CUDA_BACKEND="reference").split() == [
        "cutmix_cuda_reference.sample_and_apply.default",
        "True",
    ]
    assert answer(code, CUTMIX_CUDA_BACKEND="").split() == ["cutmix_cuda.sample_and_apply.default", "True"]


@pytest.mark.parametrize(
    "name, says", [("fastest", "one of cuda, triton, cpu, reference"), ("cuda", "CUTMIX_CUDA_BACKEND 'cuda'")]
)
def test_an_environment_that_asks_for_what_is_not_there(name, says):
    result = run_python(
        "import torch, cutmix_cuda; cutmix_cuda.cutmix(torch.rand(4, 3, 6, 9))", CUTMIX_CUDA_BACKEND=name
    )
    assert result.returncode != 0
    assert says in result.stderr
    assert repr(name) in result.stderr


def copy_without_libraries(folder: Path) -> Path:
    shutil.copytree(PACKAGE, folder / "cutmix_cuda", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return folder


def test_without_compiled_libraries(tmp_path):
    """The package falls back on the reference, says so, gives the same, and tells how to get more."""
    folder = copy_without_libraries(tmp_path)
    code = """
import torch, cutmix_cuda
print(cutmix_cuda.__file__)
print(*cutmix_cuda.available_backends())
images, labels = torch.arange(4 * 3 * 6 * 9).reshape(4, 3, 6, 9), torch.arange(4)
mixed, targets = cutmix_cuda.cutmix(images, labels, 4, seed=1)
print(int((mixed * torch.arange(mixed.numel()).view_as(mixed)).sum()), targets.tolist())
own = images.clone()
cutmix_cuda.cutmix_(own, labels, 4, seed=1)
print(torch.equal(own, mixed))
try:
    cutmix_cuda.cutmix(images, backend="cpu")
except RuntimeError as error:
    print(error)
"""
    where, available, values, same, error = answer(code, folder).splitlines()
    assert Path(where).is_relative_to(folder)
    assert "reference" in available.split()
    assert "cpu" not in available.split()
    images, labels = torch.arange(4 * 3 * 6 * 9).reshape(4, 3, 6, 9), torch.arange(4)
    mixed, targets = cutmix_cuda.cutmix(images, labels, 4, seed=1)
    assert targets is not None
    assert values == f"{int((mixed * torch.arange(mixed.numel()).view_as(mixed)).sum())} {targets.tolist()}"
    assert same == "True"
    assert "_C.so was not built" in error
    assert "CUTMIX_CUDA_BUILD=cpu" in error


def test_a_library_that_does_not_load(tmp_path):
    folder = copy_without_libraries(tmp_path)
    (folder / "cutmix_cuda" / "_C.so").write_bytes(b"not a library")
    code = """
import cutmix_cuda
from cutmix_cuda import _backends
print(*cutmix_cuda.available_backends())
print(_backends.status()["cpu"])
"""
    available, why = answer(code, folder).splitlines()
    assert "cpu" not in available.split()
    assert "does not load" in why


@needs_cpu
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc fills memory on demand")
def test_freshly_allocated_memory_does_not_show():
    """As torch's own filling, for memory that torch does not know to be fresh: targets and plans, small enough to come
    from malloc."""
    code = """
import torch, cutmix_cuda
fresh = torch.empty(4096, dtype=torch.uint8)
assert (fresh == 90).all(), "malloc did not fill"
images, labels = torch.rand(7, 3, 6, 9), torch.arange(7)
for seed in range(20):
    how = {"seed": seed, "prob": 0.7, "return_plan": True}
    *mixed, plan = cutmix_cuda.cutmix(images, labels, 9, **how, backend="cpu")
    *expected, expected_plan = cutmix_cuda.cutmix(images, labels, 9, **how, backend="reference")
    assert torch.equal(mixed[0], expected[0])
    assert torch.equal(mixed[1], expected[1])
    assert torch.equal(plan.packed, expected_plan.packed)
print("same")
"""
    assert answer(code, MALLOC_PERTURB_="165", GLIBC_TUNABLES="glibc.malloc.perturb=165") == "same"
