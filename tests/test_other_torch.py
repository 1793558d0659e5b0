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

CALL = """cutmix_cuda.cutmix(
    torch.arange(4 * 3 * 32 * 24, dtype=torch.int32).reshape(4, 3, 32, 24), torch.tensor([3, 0, 2, 1]), 4,
    alpha=0.5, seed=20, backend="cpu", return_plan=True
)"""

MIX = f"""
import json, torch, cutmix_cuda
images, targets, plan = {CALL}
torch.save([images, targets, plan.packed], "mixed.pt")
print(json.dumps([torch.__version__, cutmix_cuda.__file__]))
"""


def python(code: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs `code` with the packages in `site` before those that are installed."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, text=True, capture_output=True)


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
    done = python("import torch", site, tmp_path_factory.mktemp("import"))
    if done.returncode != 0:
        pytest.skip(f"torch {OTHER} cannot be imported here: {done.stderr.strip().splitlines()[-1]}")
    return site


@pytest.mark.skipif("cpu" not in cutmix_cuda.available_backends(), reason="the C++ ops were not compiled")
@pytest.mark.timeout(900)
def test_the_build_for_this_torch_mixes_the_same_under_another(other_torch, tmp_path):
    done = python(MIX, other_torch, tmp_path)
    assert done.returncode == 0, done.stderr
    version, imported = json.loads(done.stdout)
    assert version.split("+")[0] == OTHER != torch.__version__.split("+")[0]
    assert imported == cutmix_cuda.__file__  # the same files, so the same build

    images, targets, packed = torch.load(tmp_path / "mixed.pt")
    expected_images, expected_targets, expected_plan = eval(CALL)
    assert torch.equal(images, expected_images)
    assert torch.equal(targets, expected_targets)
    assert torch.equal(packed, expected_plan.packed)
    assert (packed[:, 6] == 1).any()  # something was mixed at all
