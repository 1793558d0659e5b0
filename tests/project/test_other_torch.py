"""One build of the C++ ops serves more than the torch that it was compiled with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cutmix_cuda

OTHER = "2.13.0"

MIX = """
import json, torch, cutmix_cuda
images = torch.arange(4 * 3 * 32 * 24, dtype=torch.int32).reshape(4, 3, 32, 24)
arguments = {"alpha": 0.5, "seed": 20, "backend": "cpu", "return_plan": True}
images, targets, plan = cutmix_cuda.cutmix(images, torch.tensor([3, 0, 2, 1]), 4, **arguments)
torch.save([images, targets, plan.packed], "mixed.pt")
print(json.dumps([torch.__version__, cutmix_cuda.__file__]))
"""


def python(code: str, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `code` with the packages in `site` before those that are installed."""
    environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, text=True, capture_output=True)


def mix(cwd: Path, site: Path | None = None) -> tuple[str, str, list[torch.Tensor]]:
    """The version of torch, the file of cutmix_cuda, and the images, the targets and the plan that they give."""
    done = python(MIX, cwd, site)
    assert done.returncode == 0, done.stderr
    version, file = json.loads(done.stdout)
    return version.split("+")[0], file, torch.load(cwd / "mixed.pt")


@pytest.fixture(scope="module")
def other_torch(request, tmp_path_factory) -> Path:
    """A folder with the other torch alone, kept from run to run in pytest's cache.

    What torch needs beside itself is imported from the installed packages.
    """
    cache = request.config.cache.mkdir(f"torch-{OTHER}-{sys.implementation.cache_tag}")
    site = cache / "site"
    if not site.exists():
        new = cache / "incomplete"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", new]
        done = subprocess.run([*pip, f"torch=={OTHER}"], text=True, capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"pip cannot install torch {OTHER}: {done.stderr.strip().splitlines()[-1]}")
        new.rename(site)  # complete, or not there at all
    done = python("import torch", tmp_path_factory.mktemp("import"), site)
    if done.returncode != 0:
        pytest.skip(f"torch {OTHER} cannot be imported here: {done.stderr.strip().splitlines()[-1]}")
    return site


@pytest.mark.skipif("cpu" not in cutmix_cuda.available_backends(), reason="the C++ ops were not compiled")
@pytest.mark.timeout(900)
def test_the_build_for_this_torch_mixes_the_same_under_another(other_torch, tmp_path):
    version, file, mixed = mix(tmp_path, other_torch)
    this_version, this_file, expected = mix(tmp_path)
    assert version == OTHER != this_version
    assert file == this_file  # the same files, so the same build
    for tensor, expected_tensor in zip(mixed, expected, strict=True):
        assert torch.equal(tensor, expected_tensor)
    assert (mixed[-1][:, 6] == 1).any()  # something was mixed at all
