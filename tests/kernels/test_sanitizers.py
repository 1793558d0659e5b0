"""The C++ under the address and undefined-behaviour sanitizers, which end the process at the first error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cutmix_cuda

ROOT = Path(__file__).resolve().parents[2]
CXX = os.environ.get("CXX", "g++")
FLAGS = [
    "-std=c++20",
    "-O0",  # compiles in half the time of -O1 and drops no access; what runs is PyTorch for the most part
    "-g1",
    "-ffp-contract=off",
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
]


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=os.environ | variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture(scope="module")
def sanitizers(tmp_path_factory) -> None:
    """Skips where there is no compiler with sanitizers."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.cpp").write_text("int main() {}")
    try:
        probe = run(CXX, *FLAGS, folder / "probe.cpp", "-o", folder / "probe")
    except OSError as error:
        pytest.skip(f"no C++ compiler: {error}")
    if probe.returncode != 0 or run(folder / "probe").returncode != 0:
        pytest.skip(f"{CXX} has no sanitizers: {probe.stdout}")


@pytest.fixture(scope="module")
def driver(sanitizers, tmp_path_factory) -> Path:
    program = tmp_path_factory.mktemp("driver") / "fuzz_headers"
    compiled = run(CXX, *FLAGS, f"-I{ROOT / 'csrc'}", ROOT / "tests" / "cpp" / "fuzz_headers.cpp", "-o", program)
    assert compiled.returncode == 0, compiled.stdout
    return program


def test_headers(driver):
    done = run(driver)
    assert done.returncode == 0, done.stdout


def test_sanitizers_see_an_overrun(driver):
    done = run(driver, "overrun")
    assert done.returncode != 0
    assert "runtime error" in done.stdout or "AddressSanitizer" in done.stdout


CPU = [f"csrc/cpu/{part}_cpu.cpp" for part in ("mix", "augment", "patches", "adjoint")]
PROGRAMS = [["fuzz_ops.py", "120"], ["fuzz_augment.py", "120"]]  # fewer rounds do not take every branch that more do
# What is compiled, the CPU's own loops or CUDA kernels with blocks and threads as loops, and what runs it.
BUILDS = {
    "cpu": (CPU, PROGRAMS),
    "cpu without intrinsics": ([*CPU, "-DCUTMIX_PORTABLE"], PROGRAMS),
    "cuda on the host": (["tests/cpp/cuda_on_host.cpp"], [["fuzz_ops.py", "120", "--no-patches"]]),
}


@pytest.fixture(scope="module", params=BUILDS)
def sanitized(request, sanitizers, tmp_path_factory) -> tuple[Path, list[list[str]]]:
    """A folder with cutmix_cuda in it, the installed Python files around a sanitized _C.so; and what runs it."""
    sources, programs = BUILDS[request.param]
    installed = Path(cutmix_cuda.__file__).parent
    if not (installed / "_C.so").exists():
        pytest.skip("nothing was compiled")
    package = tmp_path_factory.mktemp("sanitized") / "cutmix_cuda"
    package.mkdir()
    for source in installed.glob("*.py"):
        (package / source.name).symlink_to(source)
    torch_root = Path(torch.__file__).parent
    compiled = run(
        CXX,
        *FLAGS,
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
        f"-I{ROOT / 'csrc'}",
        *("-isystem", torch_root / "include"),
        *sources,
        f"-L{torch_root / 'lib'}",
        "-ltorch_cpu",
        *("-o", package / "_C.so"),
    )
    assert compiled.returncode == 0, compiled.stdout
    return package.parent, programs


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD")
def test_ops(sanitized):
    folder, programs = sanitized
    # The address sanitizer has to be in the process before Python, and libstdc++ before that it can watch exceptions.
    libraries = [run(CXX, f"-print-file-name={name}").stdout.strip() for name in ("libasan.so", "libstdc++.so.6")]
    for program, *arguments in programs:  # in one process of pytest, which compiles what they call
        done = run(
            *(sys.executable, ROOT / "tests" / "cpp" / program, *arguments),
            LD_PRELOAD=" ".join(libraries),
            ASAN_OPTIONS="detect_leaks=0",  # Python itself leaves memory behind
            PYTHONPATH=str(folder),
        )
        assert done.returncode == 0, done.stdout
