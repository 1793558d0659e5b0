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
for options in ({"alpha": 1.0}, {"alpha": cutmix_cuda.distributions.Uniform(0.2, 0.9)}):
    expected = cutmix_cuda.cutmix(images, labels, 9, seed=5, backend="reference", **options)
    assert not torch.equal(expected[0], images)
    for backend in (None, "cpu"):
        mixed = cutmix_cuda.cutmix(images, labels, 9, seed=5, backend=backend, **options)
        assert all(map(torch.equal, mixed, expected)), (options, backend)
print(f"Python {platform.python_version()}, torch {torch.__version__}: {' '.join(backends)} give the same bits")
