"""A second import in one process, as by test runners and notebooks that remove modules."""

from __future__ import annotations

import os
import subprocess
import sys

import cutmix_cuda

SCRIPT = """
import gc, io, sys, warnings
warnings.simplefilter("error")
import torch
import cutmix_cuda as first

images, labels = torch.rand(4, 3, 8, 9), torch.tensor([3, 0, 2, 4])
expected = first.cutmix(images, labels, 5, seed=1)
transform = first.CutMix(num_classes=5, seed=1)
for _ in range(2):
    for name in [name for name in sys.modules if name.split(".")[0] == "cutmix_cuda"]:
        del sys.modules[name]
    gc.collect()
    import cutmix_cuda as again
    assert again is not first
    assert again.available_backends() == first.available_backends()
    for backend in (None, *again.available_backends()):
        for actual, tensor in zip(again.cutmix(images, labels, 5, seed=1, backend=backend), expected):
            assert torch.equal(actual, tensor), backend
    again.CutMix(seed=1)(images)
    transform(images, labels)  # of the first import
    file = io.BytesIO()
    torch.save(again.sample_plan(4, 8, 9, seed=1), file)
    file.seek(0)
    assert type(torch.load(file)) is again.MixPlan
import cutmix_cuda._ops as ops
del first, transform
gc.collect()
again.cutmix(images, labels, 5)

library = ops.LIBRARIES["cutmix_cuda"]
try:
    library.define("draw_seed", "(int other) -> Tensor", lambda other: None)
except ImportError as error:
    assert "cutmix_cuda::draw_seed had another schema" in str(error)
else:
    raise AssertionError("another schema")
"""


def test_import_it_again():
    # Warnings are errors there, and the reference warns where nobody asked for it.
    wanted = {} if "cpu" in cutmix_cuda.available_backends() else {"CUTMIX_CUDA_BACKEND": "reference"}
    command = [sys.executable, "-I", "-c", SCRIPT]
    done = subprocess.run(command, env=os.environ | wanted, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
