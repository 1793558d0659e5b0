"""The C++ and CUDA sources keep to what every torch from the oldest on has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ..ptx.toolchain import nvcc
from .test_packaging import ROOT, setup

OLDEST = "2.10.0"
VERSIONS = (OLDEST, "2.12.0")

# What the sources take from torch, all of it in the headers of the oldest.
MACROS = {"STABLE_TORCH_LIBRARY_IMPL", "STD_TORCH_CHECK", "TORCH_ABI_VERSION", "TORCH_BOX", "TORCH_ERROR_CODE_CHECK"}
SHIM = {
    "aoti_torch_create_tensor_from_blob",
    "aoti_torch_device_type_cpu",
    "aoti_torch_dtype_bfloat16",
    "aoti_torch_dtype_float16",
    "aoti_torch_dtype_float32",
    "aoti_torch_dtype_float64",
    "aoti_torch_dtype_int64",
    "aoti_torch_dtype_uint8",
    "aoti_torch_empty_strided",
    "aoti_torch_get_current_cuda_stream",
    "aoti_torch_get_device_type",
    "aoti_torch_get_dtype",
    "torch_call_dispatcher",
}
CLASSES_AND_FUNCTIONS = {
    "torch::headeronly::ScalarType",
    "torch::stable::Tensor",
    "torch::stable::accelerator::DeviceGuard",
    "torch::stable::accelerator::DeviceIndex",
    "torch::stable::clone",
    "torch::stable::contiguous",
    "torch::stable::copy_",
    "torch::stable::detail::StableLibrary",
    "torch::stable::detail::from",
    "torch::stable::detail::to",
    "torch::stable::empty_like",
    "torch::stable::new_empty",
    "torch::stable::parallel_for",
}
NAMES = MACROS | SHIM | CLASSES_AND_FUNCTIONS


def names_of_torch() -> set[str]:
    """The names of torch in csrc."""
    sources = "".join(path.read_text() for path in (ROOT / "csrc").rglob("*.*") if path.suffix != ".md")
    names = re.findall(r"\b(?:aoti_torch_\w+|torch_\w+|(?:[A-Z]+_)?TORCH_\w+|torch(?:::\w+)+)", sources)
    return {name for name in names if not name.startswith("CUTMIX_")}


def test_only_names_of_the_oldest_torch():
    """Of a new name, look into the headers of the oldest torch, and add it above; the test below does so too."""
    assert setup.release(OLDEST) == setup.MINIMUM_TORCH
    assert names_of_torch() == NAMES


@pytest.fixture(scope="module", params=VERSIONS)
def headers(request) -> Path:
    """The include folder of a torch, kept from run to run in pytest's cache.

    From the wheel for macOS, which has the same headers as the others and a tenth of their bytes.
    """
    folder = request.config.cache.mkdir(f"torch-headers-{request.param}")
    if not (folder / "torch").exists():
        new = folder / "incomplete"
        platforms = (f"--platform=macosx_{version}_0_arm64" for version in (11, 12, 13, 14, 15))
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", new]
        command = [*pip, *platforms, "--python-version=3.12", f"torch=={request.param}"]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"pip cannot download torch {request.param}: {done.stderr.strip().splitlines()[-1]}")
        (wheel,) = new.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(new, [name for name in packed.namelist() if name.startswith("torch/include/")])
        (new / "torch").rename(folder / "torch")  # complete, or not there at all
        shutil.rmtree(new)
    return folder / "torch" / "include"


def test_names_are_in_the_headers(headers):
    text = "".join(path.read_text() for path in (headers / "torch").rglob("*.h"))
    words = set(re.findall(r"\w+", text))
    assert {name for name in NAMES if name.rpartition("::")[2] not in words} == set()


def compiles(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("source", ["mix_cpu.cpp", "augment_cpu.cpp", "adjoint_cpu.cpp", "patches_cpu.cpp"])
def test_the_cpu_ops_compile(headers, source):
    compiler = os.environ.get("CXX", "c++").split()
    if shutil.which(compiler[-1]) is None:
        pytest.skip("needs a C++ compiler")
    flags = setup.ops_flags(setup.Torch(headers.parent, "", None))
    compiles(*compiler, *setup.CXX_FLAGS, *flags, "-fsyntax-only", f"csrc/cpu/{source}")


@pytest.mark.long
@pytest.mark.parametrize(
    ("headers", "source"),
    [*((OLDEST, source) for source in ("mix_cuda", "augment_cuda", "adjoint_cuda")), ("2.12.0", "mix_cuda")],
    indirect=["headers"],
)
def test_the_cuda_ops_compile(headers, source, tmp_path):
    compiler = nvcc()
    if compiler is None:
        pytest.skip("needs nvcc")
    flags = [*setup.ops_flags(setup.Torch(headers.parent, "", None)), "-DUSE_CUDA", "-arch=compute_80"]
    unoptimized = ["-O0", "-Xcicc", "-O0", "-Xptxas", "-O0"]
    compiles(compiler, "-std=c++20", *unoptimized, *flags, "-c", f"csrc/cuda/{source}.cu", "-o", tmp_path / "ops.o")
