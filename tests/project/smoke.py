"""What a wheel has to do wherever it is installed: `python -I smoke.py`. Needs no more than the package needs."""

import json
import platform
from pathlib import Path

import torch

import cutmix_cuda

built = json.loads(Path(cutmix_cuda.__file__).with_name("build.json").read_text())["built"]
backends = cutmix_cuda.available_backends()
assert built and set(built) - {"cuda"} <= set(backends), (built, backends)

images, labels = torch.randint(256, (7, 3, 33, 47), dtype=torch.uint8), torch.arange(7)
for kinds in ({"alpha": 1.0}, {"alpha": cutmix_cuda.distributions.Uniform(0.2, 0.9)}):
    expected = cutmix_cuda.cutmix(images, labels, 9, seed=5, backend="reference", **kinds)
    assert not torch.equal(expected[0], images)
    for backend in (None, "cpu"):
        for actual, tensor in zip(cutmix_cuda.cutmix(images, labels, 9, seed=5, backend=backend, **kinds), expected):
            assert torch.equal(actual, tensor), (kinds, backend)
print(f"Python {platform.python_version()}, torch {torch.__version__}: {' '.join(backends)} give the same bits")
