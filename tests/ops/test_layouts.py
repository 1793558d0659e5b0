"""Layouts and dtypes: any view may come in, any view may be written to, and no byte outside it changes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torchvision import tv_tensors

import cutmix_cuda
from cutmix_cuda import MixPlan
from cutmix_cuda._literals import BackendName

from ..helpers import (
    BACKENDS,
    assert_same_bits,
    assert_same_images,
    at_odd_address,
    bytes_on_cpu,
    every_backend,
    every_compiled_backend,
    oracle_images,
    oracle_targets,
    planned,
    random_images,
    soft_labels,
)

SEED = 7
FILL = 1  # a value of every dtype
BLENDED = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)

DTYPES = [
    torch.uint8,
    torch.int8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    torch.float16,
    torch.bfloat16,
    torch.int16,
    torch.uint16,
    torch.float32,
    torch.int32,
    torch.uint32,
    torch.float64,
    torch.int64,
    torch.uint64,
    torch.complex64,
    torch.complex128,
]


def lay_out(
    images: Tensor, order: Sequence[int], margins: Sequence[int] | None = None, steps: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """The same values as a view into a larger storage: (storage, view).

    Args:
        order: the dimensions of images from the outermost in memory to the innermost.
        margins: for each dimension of images, the elements of storage before and after it.
        steps: for each dimension of images, the elements of storage from one to the next.
    """
    margins, steps = margins or [0] * images.dim(), steps or [1] * images.dim()
    sizes = [2 * margins[dim] + steps[dim] * images.shape[dim] for dim in order]
    storage = random_images(sizes, images.dtype, seed=1)
    window = [slice(margins[dim], margins[dim] + steps[dim] * images.shape[dim], steps[dim]) for dim in order]
    view = storage[tuple(window)].permute([order.index(dim) for dim in range(images.dim())])
    view.copy_(images)
    return storage, view


def alone(view: Tensor) -> Tensor:
    """A copy of a view together with all of the storage around it."""
    storage = torch.empty(0, dtype=view.dtype).set_(view.untyped_storage().clone())
    return storage.as_strided(view.shape, view.stride(), view.storage_offset())


def storage_of(view: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(view.untyped_storage())


def sample(images: Tensor, seed: int = SEED, device: str = "cpu") -> MixPlan:
    """A plan of every kind that their dtype allows."""
    mixup_alpha = 1.0 if images.dtype in BLENDED else None
    transform = cutmix_cuda.Mix(mixup_alpha=mixup_alpha, cutout=0.3, prob=0.8)
    return transform.sample_plan(len(images), *images.shape[-2:], seed=seed, device=device)


def expected_of(images: Tensor, plan: MixPlan) -> Tensor:
    return oracle_images(images, planned(plan), fill=FILL)


def assert_written(view: Tensor, before: Tensor, expected: Tensor, plan: MixPlan) -> None:
    """The view holds the expected values, and every other byte of its storage is as before."""
    assert_same_images(view, expected, planned(plan))
    wanted = alone(before)
    wanted.copy_(view)
    assert torch.equal(storage_of(view), storage_of(wanted)), "bytes outside the view were written to"


def check_view(images: Tensor, view: Tensor, plan: MixPlan, backend: BackendName) -> None:
    """A view mixed out of place and in place."""
    expected = expected_of(images, plan)
    before = alone(view)
    mixed = cutmix_cuda.mix_images(view, plan, fill=FILL, backend=backend)
    assert_same_images(mixed, expected, planned(plan))
    assert mixed.stride() == torch.empty_like(view).stride()
    assert torch.equal(storage_of(view), storage_of(before)), "the images were written to"
    cutmix_cuda.mix_images_(view, plan, fill=FILL, backend=backend)
    assert_written(view, before, expected, plan)


CPU_BACKENDS = [backend.name for backend in BACKENDS if backend.device == "cpu"]
every_cpu_backend = pytest.mark.parametrize("backend", CPU_BACKENDS)

NCHW, NHWC, NCWH, CNHW = (0, 1, 2, 3), (0, 2, 3, 1), (0, 1, 3, 2), (1, 0, 2, 3)

LAYOUTS_4D = {
    "nchw": {"order": NCHW},
    "channels last": {"order": NHWC},
    "transposed images": {"order": NCWH},
    "channels outermost": {"order": CNHW},
    "batch innermost": {"order": (1, 2, 3, 0)},
    "nchw, slice of columns": {"order": NCHW, "margins": (0, 0, 0, 3)},
    "nchw, slice of rows": {"order": NCHW, "margins": (0, 0, 2, 0)},
    "nchw, slice of channels": {"order": NCHW, "margins": (0, 1, 0, 0)},
    "nchw, slice of all": {"order": NCHW, "margins": (1, 2, 3, 1)},
    "nchw, every other column": {"order": NCHW, "steps": (1, 1, 1, 2)},
    "nchw, every other row": {"order": NCHW, "steps": (1, 1, 2, 1)},
    "nchw, every other channel": {"order": NCHW, "steps": (1, 2, 1, 1)},
    "nchw, every other sample": {"order": NCHW, "steps": (2, 1, 1, 1)},
    "channels last, slice of columns": {"order": NHWC, "margins": (0, 0, 0, 3)},
    "channels last, slice of rows": {"order": NHWC, "margins": (0, 0, 2, 0)},
    "channels last, slice of channels": {"order": NHWC, "margins": (0, 1, 0, 0)},
    "channels last, every other column": {"order": NHWC, "steps": (1, 1, 1, 2)},
    "channels last, every other row": {"order": NHWC, "steps": (1, 1, 2, 1)},
}


@every_cpu_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS_4D.values(), ids=LAYOUTS_4D.keys())
def test_every_layout(backend, dtype, layout):
    for channels, (height, width) in itertools.product((1, 2, 3, 4, 7), ((9, 14), (5, 33))):
        images = random_images((4, channels, height, width), dtype)
        check_view(images, lay_out(images, **layout)[1], sample(images), backend)


@every_cpu_backend
@pytest.mark.parametrize("order", [(0, *inner) for inner in itertools.permutations((1, 2, 3, 4))], ids=str)
def test_every_order_of_video(backend, order):
    """(batch, time, channels, height, width), channels_last_3d and channels-last frames among them."""
    images = random_images((3, 2, 3, 5, 6))
    check_view(images, lay_out(images, order)[1], sample(images), backend)


@every_cpu_backend
@pytest.mark.parametrize("steps", [2, 3])
def test_out_of_another_layout(backend, steps):
    """Two views of one shape need not be alike in memory: with two dimensions of one size, the wrong ones may match."""
    images = random_images((3, 3, 3, 4, 5))
    plan = sample(images)
    expected = expected_of(images, plan)
    orders = [(0, *inner) for inner in itertools.permutations((1, 2, 3, 4))][::steps]
    for order, out_order in itertools.product(orders, orders):
        out = lay_out(random_images(images.shape, seed=3), out_order, margins=(0, 1, 0, 1, 0))[1]
        before = alone(out)
        assert cutmix_cuda.mix_images(lay_out(images, order)[1], plan, fill=FILL, out=out, backend=backend) is out
        assert_written(out, before, expected, plan)


@every_backend
@pytest.mark.parametrize("shape", [(2, 3, 2, 4, 0), (2, 3, 2, 0, 4), (2, 3, 0, 2, 4), (0, 3, 2, 2, 4)], ids=str)
def test_no_pixels_into_an_out_of_another_layout(backend, shape):
    """The targets are mixed all the same."""
    images = torch.empty(shape, device=backend.device).transpose(1, 2)
    out = torch.empty(images.shape, device=backend.device)
    assert images.stride() != out.stride()
    labels = torch.tensor([2, 1], device=backend.device)[: shape[0]]
    how = {"out": out, "backend": backend.name}
    mixed, targets, plan = cutmix_cuda.cutmix(images, labels, 3, seed=SEED, return_plan=True, **how)
    assert mixed is out
    assert_same_bits(targets.cpu(), oracle_targets(labels.cpu(), planned(plan), 3))
    assert cutmix_cuda.mix_images(images, plan, **how) is out


def test_where_a_view_ends():
    """An out may begin right behind the last element of the images, or end before the first, and no nearer."""
    memory, shape = torch.zeros(300), (2, 3, 4, 5)
    count, strides = 120, (70, 22, 5, 1)  # with gaps, so that no tensor is contiguous
    reach = 70 + 2 * 22 + 3 * 5 + 4  # from the first element to the last
    first = memory.as_strided(shape, strides, 0)
    for behind in (memory.as_strided(shape, strides, reach), memory[reach:][:count].view(shape)):
        for images, out in ((first, behind), (behind, first)):
            with pytest.raises(ValueError, match="out must not overlap images"):
                cutmix_cuda.cutmix(images, out=out, seed=SEED)
    for behind in (memory.as_strided(shape, strides, reach + 1), memory[reach + 1 :][:count].view(shape)):
        for images, out in ((first, behind), (behind, first)):
            assert cutmix_cuda.cutmix(images, out=out, seed=SEED)[0] is out


@every_compiled_backend
@pytest.mark.parametrize("dtype", BLENDED, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_that_elements_are_not_aligned_in(backend, dtype, memory_format):
    images = random_images((8, 3, 6, 7), dtype).contiguous(memory_format=memory_format).to(backend.device)
    plan, labels = sample(images, device=backend.device), soft_labels(8, 3, torch.float64).to(backend.device)
    expected, expected_targets = cutmix_cuda.apply_plan(images, labels, plan, fill=FILL, backend="reference")
    how = {"fill": FILL, "backend": backend.name}
    out, own = (at_odd_address(tensor) for tensor in (torch.zeros_like(images), images))
    for view, into in ((own, None), (images, out), (own, out)):
        mixed, targets = cutmix_cuda.apply_plan(view, at_odd_address(labels), plan, out=into, **how)
        assert into is None or mixed is into
        assert_same_images(bytes_on_cpu(mixed), expected, planned(plan))
        assert_same_bits(targets, expected_targets)
    assert cutmix_cuda.mix_images_(own, plan, **how) is own
    assert_same_images(bytes_on_cpu(own), expected, planned(plan))


@every_cpu_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_alignment(backend, dtype, channels_last):
    """Rows of odd length that begin anywhere, in memory that is all sentinels around them."""
    shape = (4, 3, 5, 33)
    images = random_images(shape, dtype)
    plan = sample(images)
    expected = expected_of(images, plan)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    strides = torch.empty(shape, memory_format=memory_format).stride()
    for offset, out_offset in itertools.product(range(16 // dtype.itemsize), (0, 1, 3)):
        view, out = (
            random_images([images.numel() + 64], dtype, seed=start).as_strided(shape, strides, start)
            for start in (offset, out_offset)
        )
        view.copy_(images)
        before = alone(out)
        cutmix_cuda.mix_images(view, plan, fill=FILL, out=out, backend=backend)
        assert_written(out, before, expected, plan)
        check_view(images, view, plan, backend)


@every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(backend, dtype):
    """Unless they are blended pixels are bytes: NaNs of every kind, negative zeros and subnormals pass unchanged."""
    images = random_images((8, 3, 6, 7), dtype)
    plan = sample(images, device=backend.device)
    assert set(plan.kind.tolist()) == ({0, 1, 2, 3} if dtype in BLENDED else {0, 1, 3})
    expected = expected_of(images, plan)
    labels = torch.tensor([999, 256, 257, 0, 511, 1, 2, 998], device=backend.device)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        view = images.to(backend.device).contiguous(memory_format=memory_format)
        out = torch.zeros_like(view)
        how = {"fill": FILL, "backend": backend.name}
        mixed, targets = cutmix_cuda.apply_plan(view, labels, plan, 1000, **how)
        cutmix_cuda.mix_images(view, plan, out=out, **how)
        own = cutmix_cuda.mix_images_(view.clone(), plan, **how)
        for result in (mixed, out, own):
            assert_same_images(result, expected, planned(plan))
            assert result.stride() == view.stride()
            assert result.is_contiguous(memory_format=memory_format)
        # Targets never pass through the dtype of the images, where class 999 may not exist.
        assert targets.dtype == torch.float32
        assert torch.equal(targets[torch.arange(8), labels], plan.lam)


@every_backend
def test_expanded_images(backend):
    """Images that share memory can be read; what comes out has memory of its own."""
    plan = sample(torch.zeros(4, 3, 6, 9), device=backend.device)
    for small in ((4, 1, 6, 9), (1, 3, 6, 9), (4, 3, 1, 9), (4, 3, 6, 1), (1, 1, 1, 1)):
        images = random_images(small).to(backend.device).expand(4, 3, 6, 9)
        mixed = cutmix_cuda.mix_images(images, plan, fill=FILL, backend=backend.name)
        assert_same_images(mixed, expected_of(images.cpu(), plan), planned(plan))
        assert mixed.is_contiguous()
    video = random_images((4, 1, 1, 6, 9)).to(backend.device).expand(4, 2, 3, 6, 9)
    for out in (torch.zeros(4, 2, 3, 6, 9), torch.zeros(4, 3, 2, 6, 9).transpose(1, 2)):
        out = out.to(backend.device)
        cutmix_cuda.mix_images(video, plan, fill=FILL, out=out, backend=backend.name)
        assert_same_images(out, expected_of(video.cpu(), plan), planned(plan))


@every_backend
def test_windows_that_share_pixels(backend):
    """Overlapping windows of one strip, as unfold gives them."""
    images = torch.arange(100.0, device=backend.device).unfold(0, 60, 10).reshape(5, 1, 6, 10)
    windows = images.as_strided((5, 1, 6, 10), (10, 60, 10, 1))
    plan = sample(windows, device=backend.device)
    mixed = cutmix_cuda.mix_images(windows, plan, fill=FILL, backend=backend.name)
    assert_same_images(mixed, expected_of(windows.cpu().contiguous(), plan), planned(plan))


@every_backend
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_lazy_conjugates_and_negatives(backend, dtype):
    """Views that torch has not computed yet are read as the values that they stand for."""
    images = torch.randn(5, 3, 6, 7, dtype=dtype, generator=torch.Generator().manual_seed(SEED)).to(backend.device)
    for lazy in (images.conj(), images.conj().imag, images.conj().imag.mT):
        values = lazy.resolve_conj().resolve_neg().contiguous()
        plan = cutmix_cuda.sample_plan(5, *values.shape[-2:], seed=SEED, device=backend.device)
        expected = oracle_images(values.cpu(), planned(plan))
        mixed = cutmix_cuda.mix_images(lazy, plan, backend=backend.name)
        assert_same_bits(mixed.resolve_conj().resolve_neg(), expected)
        out = torch.zeros_like(values)
        cutmix_cuda.mix_images(lazy, plan, out=out, backend=backend.name)
        assert_same_bits(out, expected)


@every_backend
def test_tensor_subclasses(backend):
    images = torch.rand(4, 3, 6, 9, device=backend.device)
    expected = cutmix_cuda.cutmix(images, seed=SEED, backend=backend.name)[0]
    for wrapped in (tv_tensors.Image(images), torch.nn.Parameter(images, requires_grad=False)):
        mixed = cutmix_cuda.cutmix(wrapped, seed=SEED, backend=backend.name)[0]
        assert torch.equal(mixed, expected)


@st.composite
def _laid_out(draw, shape: Sequence[int]) -> dict[str, Sequence[int]]:
    few = st.sampled_from([0, 0, 0, 1, 2])
    return {
        "order": draw(st.permutations(range(len(shape)))),
        "margins": [draw(few) for _ in shape],
        "steps": [draw(st.sampled_from([1, 1, 1, 2])) for _ in shape],
    }


@every_cpu_backend
@given(st.data())
def test_any_view_into_any_view(backend, data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=3, max_size=6), "shape")
    shape[-2:] = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 9)), "height, width")
    dtype = data.draw(st.sampled_from([torch.uint8, torch.int16, torch.float32, torch.float64, torch.complex128]))
    images = random_images(shape, dtype)
    plan = sample(images, data.draw(st.integers(0, 2**32), "seed"))
    view = lay_out(images, **data.draw(_laid_out(shape), "images"))[1]
    out = lay_out(random_images(shape, dtype, seed=3), **data.draw(_laid_out(shape), "out"))[1]
    before = alone(out)
    cutmix_cuda.mix_images(view, plan, fill=FILL, out=out, backend=backend)
    assert_written(out, before, expected_of(images, plan), plan)
    check_view(images, view, plan, backend)
