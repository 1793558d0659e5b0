"""The Triton backend on CPU tensors against the reference. Needs TRITON_INTERPRET=1 from the start: test_triton.py runs
it in a process of its own. The interpreter takes about 50 ms a program, so everything here is small, and each choice is
made at least once: test_ptx_kernels.py goes through the combinations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import MixPlan
from cutmix_cuda._ops import BLENDED_DTYPES, Kind

from ..helpers import (
    PARTNERS,
    PLACEMENTS,
    SCOPES,
    Backend,
    assert_same_bits,
    packed,
    random_images,
    random_labels,
    soft_labels,
    strided,
)
from ..ops.test_adjoint import some_gradients, some_plan
from ..ops.test_augment import ALL_KINDS, EVERYTHING, EVERYTHING_COLOURED, check_augment, some_images, some_values
from .execution import UNIFORM, bounds_of, fill_of

CLASSES = 5
SEED = torch.tensor([1])
QUANTILES = UNIFORM ** torch.tensor([[1.0], [2.0], [3.0]])  # a law for each kind


def assert_same_values(actual: Tensor, expected: Tensor) -> None:
    """The same bits, but for those of a NaN."""
    assert torch.equal(actual.isnan(), expected.isnan())
    assert_same_bits(actual.nan_to_num(7.0), expected.nan_to_num(7.0))


def assert_same_everywhere(images: Tensor, labels: Tensor | None, *, in_place: bool = False, **options) -> None:
    function: Any = cutmix_cuda.cutmix_ if in_place else cutmix_cuda.cutmix
    classes = CLASSES if labels is not None else None
    results = []
    for backend in ("triton", "reference"):
        own = images.clone() if in_place else images
        mixed, targets, plan = function(own, labels, classes, return_plan=True, backend=backend, **options)
        assert (mixed is own) == in_place
        results.append((mixed, targets, plan.packed))
    (mixed, targets, plan), (expected, expected_targets, expected_plan) = results
    assert_same_bits(mixed, expected)
    assert mixed.stride() == expected.stride()
    assert_same_bits(plan, expected_plan)
    if labels is not None:
        assert_same_values(targets, expected_targets)


def assert_same_by_ops(op: str, images: Tensor, *arguments) -> tuple[Tensor, ...]:
    """An op gives the images, targets and plan of the reference, which are returned; in place the images come first."""
    results = []
    for namespace in (torch.ops.cutmix_cuda_triton, torch.ops.cutmix_cuda_reference):
        own = images.clone()
        result = getattr(namespace, op)(own, *arguments)
        result = result if isinstance(result, tuple) else (result,)
        results.append((own, *result) if op.endswith("_") else result)
    for actual, expected in zip(*results, strict=True):
        assert actual.stride() == expected.stride()
        assert_same_values(actual, expected) if actual.is_floating_point() else assert_same_bits(actual, expected)
    return results[1]


def test_it_is_interpreted():
    assert "triton" in cutmix_cuda.available_backends()


@pytest.mark.parametrize(
    ("scope", "partner", "placement"),
    list(zip(2 * SCOPES, 2 * PARTNERS, 3 * PLACEMENTS, strict=False)),
)
def test_every_way_to_mix(scope, partner, placement):
    how = {"scope": scope, "partner": partner, "placement": placement, "prob": 0.8}
    images = random_images((3, 1, 5, 8), torch.uint8)
    assert_same_everywhere(images, random_labels(3, CLASSES), seed=3, correct_lam=scope != "pair", **how)
    if partner in ("flip", "mirror"):
        assert_same_everywhere(random_images((2, 1, 5, 8)), None, in_place=True, seed=-5, **how)


@pytest.mark.parametrize(
    ("width", "channels_last", "in_place"),
    [(16, False, True), (7, True, False)],
    ids=["NCHW-in-place", "channels-last-out"],
)
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.int64, torch.complex128, torch.bool], ids=str
)
def test_pixels(dtype, width, channels_last, in_place):
    images = random_images((2, 3, 5, width), dtype)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    assert_same_everywhere(images, None, in_place=in_place, seed=11)


def plan_of(rows: list[tuple]) -> Tensor:
    """The packed plan of rows (partner, box, lam, kind)."""
    bits = (torch.tensor(lam).view(torch.int32).item() for _, _, lam, _ in rows)
    packed = [(partner, *box, lam, kind, 0) for (partner, box, _, kind), lam in zip(rows, bits, strict=True)]
    return torch.tensor(packed, dtype=torch.int32)


@pytest.mark.parametrize(
    ("width", "channels_last", "in_place"),
    [(16, False, False), (5, True, True)],
    ids=["NCHW-out", "channels-last-in-place"],
)
@pytest.mark.parametrize("dtype", [*BLENDED_DTYPES, torch.int64], ids=str)
def test_kinds(dtype, width, channels_last, in_place):
    """Each beside the others in a pair, and by itself. A row of mixup is invalid for a dtype that cannot be blended."""
    partners = (1, 0, 3, 2, 5, 4, 7, 6, 8, 9, 10)
    kinds = [Kind.cutmix, Kind.mixup, Kind.mixup, Kind.mixup, Kind.cutout, Kind.mixup, Kind.cutout, Kind.cutmix]
    kinds += [Kind.cutmix, Kind.mixup, Kind.cutout]
    rows = [
        (p, (i % 2, 1, 3, 4 + i % 2), 0.07 * i, kind) for i, (p, kind) in enumerate(zip(partners, kinds, strict=True))
    ]
    images, labels = random_images((len(rows), 3, 4, width), dtype), random_labels(len(rows), CLASSES)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    arguments = (labels, plan_of(rows), CLASSES, 0.1, torch.float32, fill_of(3, dtype))
    mixed, targets = assert_same_by_ops("apply_" if in_place else "apply", images, *arguments)
    valid = [dtype in BLENDED_DTYPES or kind != Kind.mixup for kind in kinds]
    assert (~targets.isnan().any(1)).tolist() == valid
    assert (mixed[10, :, 0:3, 1:4] == 3).all()


@pytest.mark.parametrize(
    ("op", "scope"), [("sample_and_apply", "sample"), ("sample_and_apply_", "pair"), ("sample_and_apply", "batch")]
)
def test_kinds_sampled(op, scope):
    """An odd batch, so that a sample is its own partner, which only cutout changes."""
    images, labels = random_images((7, 2, 4, 8), torch.uint8), soft_labels(7, CLASSES)
    how = SEED, QUANTILES, (0.3, 0.6, 0.9), (SCOPES.index(scope), PARTNERS.index("mirror"), 0, 1)
    plan = assert_same_by_ops(op, images, labels, *how, CLASSES, 0.1, torch.float32, fill_of(7, torch.uint8))[-1]
    kinds = set(plan[:, 6].tolist())
    assert kinds == set(Kind) if scope == "sample" else Kind.keep in kinds


# A box of the whole image, for every sample.
CUT_ALL_OUT = SEED, torch.zeros(3, 4097), bounds_of(Kind.cutout), (0, PARTNERS.index("mirror"), 1, 1)


@pytest.mark.parametrize("width", [1024, 1025])
def test_a_sample_cut_out_in_several_chunks(width):
    """In place a sample that is its own partner has both halves of its positions to itself."""
    images = random_images((1, 10, width), torch.uint8)
    how = *CUT_ALL_OUT, 0, 0.0, torch.float32, fill_of(7, torch.uint8)
    mixed = assert_same_by_ops("sample_and_apply_", images, None, *how)[0]
    assert (mixed == 7).all()


def test_images_that_begin_within_an_element():
    """Those that mixup could blend are mixed in a copy; vectors of others are filled with their part of an element."""
    ops = torch.ops.cutmix_cuda_triton
    for dtype in (torch.float32, torch.complex128):
        how = *CUT_ALL_OUT, 0, 0.0, torch.float32, fill_of(7, dtype)
        images = torch.frombuffer(bytearray(range(200)), dtype=dtype, offset=2, count=8).view(2, 1, 2, 2)
        assert images.data_ptr() % dtype.itemsize != 0
        assert (ops.sample_and_apply(images, None, *how)[0] == 7).all()
        assert not (images == 7).any()
        ops.sample_and_apply_(images, None, *how)
        assert (images == 7).all()


@pytest.mark.parametrize("shape", [(2, 6, 7), (2, 2, 3, 4, 5), (1, 3, 4, 5), (0, 3, 4, 5), (2, 3, 0, 5), (2, 1, 1, 1)])
def test_shapes(shape):
    assert_same_everywhere(random_images(shape), random_labels(shape[0], CLASSES), seed=2)


def test_several_chunks():
    """More pixels than a program moves, at each width, and rows as long as a group."""
    for width in (1024, 1025):
        assert_same_everywhere(random_images((2, 10, width), torch.uint8), None, seed=4)
        assert_same_everywhere(random_images((2, 10, width), torch.uint8), None, seed=4, in_place=True)


@pytest.mark.parametrize("slices", ["unaligned", "steps", "columns", "transposed", "expanded"])
def test_views(slices):
    storage = random_images((3, 4, 9, 12), torch.int16)
    view = {
        "unaligned": storage[1:, :3, 1:8, 3:11],
        "steps": storage[::2, ::2, ::3],
        "columns": storage[..., ::2],
        "transposed": storage.transpose(2, 3),
        "expanded": storage[:1].expand(3, 4, 9, 12),
    }[slices]
    assert_same_everywhere(view, None, seed=7)
    if slices != "expanded":
        targets, before = {}, storage.clone()
        for backend in ("triton", "reference"):
            storage.copy_(before)
            cutmix_cuda.cutmix_(view, seed=7, backend=backend)
            targets[backend] = storage.clone()
        assert_same_bits(targets["triton"], targets["reference"])


FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
INTEGERS = [torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64]


@pytest.mark.parametrize(("labels_dtype", "dtype"), list(zip([*INTEGERS, *FLOATS], 3 * FLOATS, strict=True)), ids=str)
def test_targets(labels_dtype, dtype):
    labels = (soft_labels if labels_dtype.is_floating_point else random_labels)(2, CLASSES, labels_dtype)
    if labels_dtype.is_floating_point:
        labels[0] *= torch.finfo(labels_dtype).tiny  # subnormal
    plan = cutmix_cuda.sample_plan(2, 9, 8, seed=1)
    options = {"label_smoothing": 0.1, "target_dtype": dtype}
    actual = cutmix_cuda.mix_targets(labels, plan, CLASSES, backend="triton", **options)
    assert_same_bits(actual, cutmix_cuda.mix_targets(labels, plan, CLASSES, backend="reference", **options))


@pytest.mark.parametrize("labels", [random_labels(4, CLASSES), soft_labels(4, CLASSES)], ids=["indices", "soft"])
def test_plans_and_labels_of_any_strides(labels):
    images, box = random_images((4, 1, 6, 10), torch.uint8), (1, 2, 5, 9)
    plan = plan_of([(k ^ 1, box, 0.25 + 0.1 * k, Kind.cutmix) for k in range(4)])
    assert not strided(plan).is_contiguous() and not strided(labels).is_contiguous()
    rest = CLASSES, 0.1, torch.float32
    expected = torch.ops.cutmix_cuda_reference.apply(images, labels, plan, *rest)
    for op in ("apply", "apply_"):
        mixed, targets = assert_same_by_ops(op, images, strided(labels), strided(plan), *rest)[:2]
        assert_same_bits(mixed, expected[0])
        assert_same_bits(targets, expected[1])
    targets = torch.ops.cutmix_cuda_triton.mix_targets(strided(labels), strided(plan), *rest)
    assert_same_bits(targets, expected[1])


@pytest.mark.parametrize("in_place", [False, True], ids=["out", "in-place"])
def test_bad_rows_and_labels_by_the_ops(in_place):
    """What the functions refuse on a CPU and a GPU meets without looking: NaN targets, and pixels left alone."""
    box = (1, 2, 5, 9)
    rows = [(1, box, 0.5, 1), (0, box, 0.5, 1), (3, box, 0.5, 1), (2, (0, 0, 7, 11), 0.5, 1), (0, box, 0.5, 1)]
    rows += [(-1, box, 0.5, 1), (6, (3, 3, 2, 9), 0.5, 1), (7, box, 0.5, 4)]
    rows += [(8 + i, box, lam, kind) for i, (lam, kind) in enumerate([(-0.1, 1), (1.1, 2), (float("nan"), 3)])]
    labels = torch.tensor([0, 4, 5, 1, -1, 2, 3, 0, 1, 1, 1])
    images = random_images((len(rows), 1, 6, 10), torch.uint8)
    op = "apply_" if in_place else "apply"
    targets = assert_same_by_ops(op, images, labels, plan_of(rows), CLASSES, 0.1, torch.float32)[1]
    assert (~targets.isnan().any(1)).nonzero().flatten().tolist() == [0, 1]  # of 4 the label is no class


def test_plans_and_their_parts():
    images, labels = random_images((3, 2, 5, 8)), random_labels(3, CLASSES)
    plan = MixPlan(cutmix_cuda.sample_plan(3, 5, 8, seed=9, backend="triton").packed, 5, 8)
    expected = cutmix_cuda.cutmix(images, labels, CLASSES, seed=9, backend="reference")
    for actual in (
        cutmix_cuda.apply_plan(images, labels, plan, CLASSES, backend="triton"),
        cutmix_cuda.apply_plan(images, labels, plan, CLASSES, out=torch.empty_like(images), backend="triton"),
        cutmix_cuda.apply_plan_(images.clone(), labels, plan, CLASSES, backend="triton"),
    ):
        assert_same_bits(actual[0], expected[0])
        assert_same_bits(actual[1], expected[1])


def test_direct_calls_are_checked():
    ops = torch.ops.cutmix_cuda_triton
    images, labels, plan = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), torch.zeros(2, 8, dtype=torch.int32)
    for arguments, message in (
        ((images, labels, plan[:1], CLASSES, 0.0, torch.float32), "plan must be"),
        ((images, labels, plan.long(), CLASSES, 0.0, torch.float32), "plan must be"),
        ((images, labels[:1], plan, CLASSES, 0.0, torch.float32), "labels must be"),
        ((images, labels.bool(), plan, CLASSES, 0.0, torch.float32), "labels and targets must be"),
        ((images, labels, plan, CLASSES, 0.0, torch.int32), "labels and targets must be"),
        ((images[0, 0], labels, plan, CLASSES, 0.0, torch.float32), "images must be"),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.apply(*arguments)
    seed, bounds, roll = torch.tensor([1]), (0.5, 1.0, 1.0), (0, PARTNERS.index("roll"), 0, 1)
    with pytest.raises(RuntimeError, match="flip or mirror"):
        ops.sample_and_apply_(images, labels, seed, UNIFORM, bounds, roll, CLASSES, 0.0, torch.float32)
    with pytest.raises(RuntimeError, match="mixup blends"):
        ops.sample_and_apply(images.int(), labels, seed, UNIFORM, bounds, roll, CLASSES, 0.0, torch.float32)
    for draw, message in (
        ((UNIFORM[0], bounds, roll), "a row of 4097"),
        ((UNIFORM, bounds[:2], roll), "bounds must be"),
        ((UNIFORM, bounds, (0, 4, 0, 1)), "sampling must be"),
        ((UNIFORM, bounds, roll[:3]), "sampling must be"),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.sample_plan(seed, *draw, 2, 4, 4)


@pytest.mark.parametrize(
    ("shape", "last", "dtype", "erase", "how"),
    [
        ((4, 3, 3, 8), True, torch.bfloat16, ("pixel", "before"), EVERYTHING),
        ((3, 6, 3, 4), False, torch.float16, ("channel", "after"), EVERYTHING),
        ((3, 1, 5, 5), False, torch.float32, ("constant", "before"), EVERYTHING),
        ((3, 3, 3, 4), False, torch.float32, ("constant", "after"), EVERYTHING_COLOURED),
    ],
)
def test_batch_tail(shape, last, dtype, erase, how):
    """All of it at once; test_triton_augment.py executes what is compiled of it."""
    images = some_images(shape)
    layout = torch.channels_last if last else torch.contiguous_format
    values = some_values(shape[1], *erase)
    check_augment(Backend("triton", "cpu"), images, ALL_KINDS, how, values, dtype, layout)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_adjoint(dtype):
    """All of it at once; test_ptx_adjoint.py executes what is compiled of it."""
    gradients = some_gradients((5, 2, 3, 4), dtype)
    plan = packed(some_plan([2, 2, 0, 3, 2], 3, 4))
    plan[4, 3] = 9  # leads outside
    for given in (gradients, gradients.contiguous(memory_format=torch.channels_last), strided(gradients)):
        results = []
        for namespace in (torch.ops.cutmix_cuda_triton, torch.ops.cutmix_cuda_reference):
            out = torch.full_like(gradients, 7.0)
            namespace.apply_adjoint_out(given, plan, out)
            results.append(out)
        assert_same_bits(*results)
