"""The Triton backend as a user meets it: under its interpreter, while torch.compile traces, and where Triton is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import cutmix_cuda

triton = pytest.importorskip("triton")

TESTS = Path(__file__).parent


def release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


needs_loops_of_the_interpreter = pytest.mark.skipif(
    release(triton.__version__) < (3, 7) and release(np.__version__) >= (2, 4),
    reason="Triton 3.6 interprets no loop up to a tensor with numpy 2.4, which converts no array to a number",
)


def run(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Python in a process of its own, that finds the package where this one does and not in the working directory."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.mark.long
@needs_loops_of_the_interpreter
def test_interpreted_kernels_equal_the_reference(tmp_path):
    """TRITON_INTERPRET has to be set before Triton is imported."""
    file = str(TESTS / "triton_interpreted.py")
    options = ["-q", "-x", "--import-mode=importlib", "-p", "no:cacheprovider", "--rootdir", str(TESTS.parents[1])]
    done = run(["-m", "pytest", *options, file], tmp_path, TRITON_INTERPRET="1", CUTMIX_CUDA_BACKEND="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("inplace", [False, True])
def test_torch_compile_traces_through_the_op_with_cuda_tensors(inplace):
    """One opaque node in the graph; shapes, dtypes and devices come out as a GPU would give them."""
    graphs = []

    def keep_graph(graph, _):
        graphs.append(graph)
        return graph.forward

    ops = torch.ops.cutmix_cuda_triton
    op = ops.sample_and_apply_.default if inplace else ops.sample_and_apply.default

    def step(images, labels, quantiles, seed):
        arguments = (images, labels, seed, quantiles, (0.5, 0.8, 1.0), (0, 3, 0, 1), 10, 0.1, torch.float16)
        return (images, *op(*arguments)) if inplace else op(*arguments)

    with FakeTensorMode():
        images = torch.empty(4, 3, 8, 8, device="cuda").contiguous(memory_format=torch.channels_last)
        labels, quantiles = torch.empty(4, dtype=torch.int64, device="cuda"), torch.empty(3, 4097, device="cuda")
        compiled = torch.compile(step, fullgraph=True, backend=keep_graph)
        mixed, targets, plan = compiled(images, labels, quantiles, torch.empty(1, dtype=torch.int64))
    assert (mixed.shape, mixed.stride(), mixed.dtype) == (images.shape, images.stride(), images.dtype)
    assert (targets.shape, targets.dtype) == ((4, 10), torch.float16)
    assert (plan.shape, plan.dtype) == ((4, 8), torch.int32)
    assert {tensor.device.type for tensor in (mixed, targets, plan)} == {"cuda"}
    (graph,) = graphs
    assert [node.target for node in graph.graph.nodes if node.op == "call_function"][0] == op


WITHOUT_TRITON = """
import sys, types
sys.modules["triton"] = {stand_in}
import cutmix_cuda
assert "triton" not in cutmix_cuda.available_backends()
import torch
cutmix_cuda.cutmix(torch.zeros(2, 1, 4, 4), seed=1)
try:
    cutmix_cuda.cutmix(torch.zeros(2, 1, 4, 4), seed=1, backend="triton")
except RuntimeError as error:
    assert "pip install triton" in str(error), error
else:
    raise AssertionError("no error")
"""


@pytest.mark.parametrize("stand_in", ["None", "types.ModuleType('triton')"], ids=["missing", "broken"])
def test_without_triton_the_next_backend_runs(tmp_path, stand_in):
    """Silently, unless it is asked for by name."""
    done = run(["-c", WITHOUT_TRITON.format(stand_in=stand_in)], tmp_path, CUTMIX_CUDA_BACKEND="")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_bare_name_is_refused(tmp_path):
    """`triton_kernels` is another project's name."""
    folder = Path(cutmix_cuda.__file__).parent / "triton_kernels"
    (tmp_path / "triton_kernels").symlink_to(folder.resolve(), target_is_directory=True)
    done = run(["-c", "import triton_kernels"], tmp_path)
    assert done.returncode != 0
    assert "ImportError: these kernels are a part of cutmix_cuda" in done.stderr
