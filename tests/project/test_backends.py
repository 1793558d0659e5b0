"""Which backend runs: by argument, by environment, and where nothing was compiled."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import cutmix_cuda
from cutmix_cuda import _backends, _build
from cutmix_cuda._info import report

ROOT = Path(__file__).resolve().parents[2]
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


def copy_without_libraries(folder: Path, why: str = "there was no compiler") -> Path:
    """A folder with the package as a build leaves it that compiled nothing."""
    package = folder / "cutmix_cuda"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    record = {"built": [], "left_out": {"cuda": why, "cpu": why}, "settings": {"CUTMIX_CUDA_BUILD": "not set"}}
    (package / "build.json").write_text(json.dumps(record))
    return folder


def test_importing_loads_neither_scipy_nor_triton():
    """They take longer than all the rest, and are loaded when something needs them. Nor does anything warn."""
    code = """
import sys, warnings, torch
warnings.simplefilter("error")
before = {"scipy", "triton"} & set(sys.modules)
import cutmix_cuda
print(sorted({"scipy", "triton", "torch._dynamo"} & set(sys.modules) - before))
transform = cutmix_cuda.CutMix(num_classes=4, alpha=cutmix_cuda.distributions.Uniform())
transform(torch.rand(4, 3, 6, 9), torch.arange(4))
print(sorted({"scipy", "triton"} & set(sys.modules) - before))
cutmix_cuda.sample_plan(4, 6, 9, alpha=0.5)
print("scipy.special" in sys.modules)
"""
    wanted = {} if "cpu" in cutmix_cuda.available_backends() else {"CUTMIX_CUDA_BACKEND": "reference"}
    assert answer(code, **wanted).splitlines() == ["[]", "[]", "True"]


WARNINGS = """
import warnings, torch, cutmix_cuda
images, labels = torch.rand(4, 3, 6, 9), torch.arange(4)
compiled = torch.compile(cutmix_cuda.CutMix(num_classes=4, seed=3), fullgraph=True, backend="aot_eager")
transform = cutmix_cuda.CutMix(num_classes=4, seed=3)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        assert all(map(torch.equal, compiled(images, labels), transform(images, labels)))
print(*[each.message for each in caught if each.category is RuntimeWarning], sep="\\n")
"""


def test_the_reference_that_nobody_asked_for_warns_once(tmp_path):
    """In a compiled graph as well."""
    folder = copy_without_libraries(tmp_path, "the moon is full")
    (warned,) = answer(WARNINGS, folder).splitlines()
    assert warned.startswith("cutmix_cuda mixes cpu tensors by its slow reference")
    assert "_C.so was not built: the moon is full" in warned
    assert "CUTMIX_CUDA_BUILD=cpu pip install --no-cache-dir" in warned
    assert answer(WARNINGS, folder, CUTMIX_CUDA_BACKEND="reference") == ""


def test_a_folder_of_sources_is_recognised(tmp_path):
    """As in the root of a clone: Python finds the sources before the installed package."""
    root = tmp_path / "clone"
    shutil.copytree(ROOT / "cutmix_cuda", root / "cutmix_cuda", ignore=shutil.ignore_patterns("*.so", "build.json"))
    (root / "csrc").mkdir()
    code = """
from cutmix_cuda._info import report
print(report())
import torch, cutmix_cuda
cutmix_cuda.cutmix(torch.rand(4, 3, 6, 9))
"""
    done = run_python(code, root)
    assert done.returncode == 0, done.stderr
    for name in ("cuda", "triton", "cpu"):
        assert re.search(rf"^  {name} +not available: .*is a folder of sources", done.stdout, re.MULTILINE), done.stdout
    assert "circular" not in done.stdout + done.stderr
    assert "is a folder of sources" in done.stderr


CUDA_LIBRARY = 'extern "C" const char* cutmix_cuda_build_info() { return "version: 1\\nCUDA: 13000"; }'
DRIVER = 'extern "C" int cuDriverGetVersion(int* version) { *version = CUDA; return 0; }'


def library(path: Path, source: str, *options: str) -> None:
    command = [os.environ.get("CXX", "c++").split()[-1], "-shared", "-fPIC", *options, "-x", "c++", "-", "-o", path]
    subprocess.run(list(map(str, command)), input=source, text=True, check=True)


@pytest.mark.parametrize(
    "built_with, driver, reason",
    [
        (13000, None, None),  # there is no driver: torch sees no device either
        (13000, 13000, None),
        (13020, 13000, None),  # a driver serves the other minor versions of its major one
        (12080, 13000, None),
        (13000, 12080, "_cuda.so was built with CUDA 13.0, and the driver serves CUDA 12.8 at most"),
        (12080, 11040, "_cuda.so was built with CUDA 12.8, and the driver serves CUDA 11.4 at most"),
    ],
)
def test_driver_obstacle(built_with, driver, reason, monkeypatch):
    monkeypatch.setattr(_build, "library_info", lambda library: {"CUDA": str(built_with)})
    monkeypatch.setattr(_build, "driver_cuda", lambda: driver)
    assert _build.driver_obstacle("_cuda") == reason


@pytest.mark.parametrize(
    "compiled, runs, does_not",
    [
        ("8.0", [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0), (12, 0)]),
        ("8.6+PTX", [(8, 6), (8, 9), (9, 0), (10, 3), (12, 0)], [(8, 0), (7, 5)]),
        ("9.0a", [(9, 0)], [(8, 9), (10, 0)]),
        ("9.0a+PTX", [(9, 0)], [(10, 0)]),
        ("10.0f", [(10, 0)], [(9, 0), (12, 0)]),
        ("7.5 12.0", [(7, 5), (12, 0), (12, 1)], [(7, 0), (8, 0), (10, 0)]),
        ("", [(8, 0)], []),  # the build left no record of it
    ],
)
def test_device_obstacle(compiled, runs, does_not, monkeypatch):
    monkeypatch.setattr(_build, "record", lambda: _build.Record(settings={"GPU architectures": compiled}))
    assert [_build.device_obstacle("_cuda", capability) for capability in runs] == [None] * len(runs)
    for major, minor in does_not:
        reason = f"_cuda.so was compiled for {compiled}, and the GPU has compute capability {major}.{minor}"
        assert _build.device_obstacle("_cuda", (major, minor)) == reason


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs, of which the CUDA library was compiled for the first."""
    monkeypatch.setattr(_backends, "_missing", {})
    monkeypatch.setattr(_build, "record", lambda: _build.Record(settings={"GPU architectures": "9.0"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: ((9, 0), (8, 0))[index or 0])
    monkeypatch.setattr(_backends, "_device_obstacles", {})
    monkeypatch.setattr(_backends, "_warned", set())


def test_triton_takes_over_on_a_gpu_without_code(gpus, monkeypatch):
    first, second = (torch.device("cuda", index) for index in range(2))
    monkeypatch.setattr(_backends, "_DEFAULT", None)
    assert _backends.ops_for(None, first) is _backends._OPS[None]
    assert _backends.ops_for("cuda", first) is _backends._OPS["cuda"]
    assert _backends.ops_for(None, second) is _backends._OPS["triton"]
    with pytest.raises(RuntimeError, match="backend 'cuda' is not available on cuda:1: .* compiled for 9.0, .* 8.0"):
        _backends.ops_for("cuda", second)
    assert _backends.ops_for("triton", second) is _backends._OPS["triton"]
    monkeypatch.setitem(_backends._missing, "triton", "not installed")
    with pytest.warns(RuntimeWarning, match="slow reference.*cuda: .* compiled for 9.0.*triton: not installed"):
        assert _backends.ops_for(None, second) is _backends._OPS["reference"]
    assert _backends.ops_for(None, torch.device("cpu")) is _backends._OPS[None]


def test_torch_compile_calls_what_chooses_the_backend(gpus, monkeypatch):
    """And does not trace it, because it reads files and warns."""
    monkeypatch.setattr(_backends, "_DEFAULT", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # torch.compile would ask more of a GPU

    def step(number):
        for index in range(2):
            _backends.ops_for(None, torch.device("cuda", index))
        return number + 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.compile(step, fullgraph=True, backend="eager")(torch.tensor(1)) == 2
    monkeypatch.setitem(_backends._missing, "triton", "not installed")
    torch.compiler.reset()
    with pytest.warns(RuntimeWarning, match="slow reference"):
        torch.compile(step, fullgraph=True, backend="eager")(torch.tensor(1))


def test_a_gpu_without_code_is_told(gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert _backends.backend_for(None, "cuda") == "triton"
    reason = "_cuda.so was compiled for 9.0, and the GPU has compute capability 8.0"
    assert re.search(rf"^  cuda +not available: {reason}$", report(), re.MULTILINE)
    assert re.search(r"^  CUDA tensors +triton$", report(), re.MULTILINE)


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++").split()[-1]) is None, reason="needs a C++ compiler")
@pytest.mark.skipif(torch.version.cuda is None, reason="a torch without CUDA loads no CUDA library")
def test_triton_takes_over_where_the_driver_is_too_old(tmp_path):
    """By a stand-in of the driver, and one of the library where that was not compiled."""
    folder = copy_without_libraries(tmp_path)
    compiled = PACKAGE / "_cuda.so"
    if compiled.exists():
        shutil.copy(compiled, folder / "cutmix_cuda")
    else:
        library(folder / "cutmix_cuda" / "_cuda.so", CUDA_LIBRARY)
    library(tmp_path / "libcuda.so.1", DRIVER, "-DCUDA=11080")
    code = """
import torch
from cutmix_cuda import _backends
print(_backends.status()["cuda"])
print(_backends.backend_for(None, "cuda"))
kernels = torch._C._dispatch_dump("cutmix_cuda::sample_plan").splitlines()
print(next(kernel for kernel in kernels if kernel.startswith("CUDA")))
"""
    status, chosen, kernel = answer(code, folder, LD_LIBRARY_PATH=str(tmp_path)).splitlines()
    assert status.endswith("and the driver serves CUDA 11.8 at most")
    assert chosen == ("triton" if importlib.util.find_spec("triton") else "reference")
    assert "_library.py" in kernel  # registered by Python, and so not from the library


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
    assert "_C.so was not built: there was no compiler" in error
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
