"""What goes beyond an image and its class: masks and other modalities, tensors of another size, boxes of objects.

The oracle is the image: coded by sample, it tells where each of its pixels came from. Every other tensor's have to come
from there too, and what is left of an object is what can be counted of it.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import Mix, MixedBoxes, MixPlan, PatchPlan, mix_images, mix_targets

from ..helpers import (
    INTEGERS,
    assert_same_bits,
    every_backend,
    generator,
    label_coded_images,
    random_images,
    soft_labels,
)
from ..oracle_patches import BLEND, FILL, KEEP, random_plan

FILLED = -1  # the source of a pixel that was cut out


def sources(plan: MixPlan) -> Tensor:
    """The sample that each pixel of the mixed images comes from, int64 (B, H, W), read from images coded by sample."""
    coded = label_coded_images((len(plan), plan.height, plan.width), torch.int64)
    return mix_images(coded.to(plan.device), plan, fill=FILLED).cpu()


def followed(tensor: Tensor, source: Tensor, fill: float = 0) -> Tensor:
    """A tensor (B, ..., H, W) whose every pixel is taken from where that of the image comes from."""
    batch, height, width = source.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    taken = tensor.movedim((-2, -1), (1, 2))[source.clamp(min=0), y, x]
    taken[source == FILLED] = torch.tensor(fill).to(tensor.dtype)
    return taken.movedim((1, 2), (-2, -1))


def boxed_plan(device: str = "cpu", height: int = 12, width: int = 16) -> MixPlan:
    """Boxes pasted, boxes filled, and samples kept."""
    mix = Mix(mixup_alpha=None, cutout=0.3, prob=0.7)
    plan = mix.sample_plan(16, height, width, seed=1, device=device)
    assert set(plan.kind.tolist()) == {0, 1, 3}
    return plan


# ---- Masks and other modalities


MODALITIES = {
    "mask of classes": ((16, 12, 16), torch.int64, 255),
    "mask of bytes": ((16, 1, 12, 16), torch.uint8, 255),
    "mask of bits": ((16, 5, 12, 16), torch.bool, 0),
    "depth": ((16, 1, 12, 16), torch.float32, 0.0),
    "depth in half precision": ((16, 12, 16), torch.float16, -1.0),
    "second camera": ((16, 3, 12, 16), torch.uint8, 127),
    "spectrogram": ((16, 1, 12, 16), torch.float32, -80.0),
    "complex spectrogram": ((16, 2, 12, 16), torch.complex64, 0.0),
    "video": ((16, 4, 3, 12, 16), torch.float32, 0.5),
    "volume": ((16, 1, 5, 12, 16), torch.int16, -1000),
}


@every_backend
@pytest.mark.parametrize("name", MODALITIES)
def test_every_modality_follows_the_image(backend, name):
    shape, dtype, fill = MODALITIES[name]
    plan = boxed_plan(backend.device)
    tensor = random_images(shape, dtype)
    mixed = mix_images(tensor.to(backend.device), plan, fill=fill, backend=backend.name)
    assert_same_bits(mixed, followed(tensor, sources(plan), fill))
    in_place = tensor.to(backend.device, copy=True)
    assert cutmix_cuda.mix_images_(in_place, plan, fill=fill, backend=backend.name) is in_place
    assert_same_bits(in_place, mixed)


def test_frames_of_another_memory_order_follow_too():
    """A decoder's frames, (B, T, C, H, W) with the channels last."""
    plan = boxed_plan()
    video = random_images((16, 4, 12, 16, 3), torch.uint8).permute(0, 1, 4, 2, 3)
    assert_same_bits(mix_images(video, plan), followed(video, sources(plan)))


def test_a_segmentation_step():
    """Image and mask by one draw: each pixel of the mask is the class of the image's pixel."""
    images = torch.rand(8, 3, 12, 16, generator=generator(0))
    classes = (images.sum(1) * 5).long()  # a class that can be told from the pixel
    mixed, _, plan = cutmix_cuda.cutmix(images, seed=1, return_plan=True)
    assert_same_bits(mix_images(classes, plan), (mixed.sum(1) * 5).long())
    assert not torch.equal(mixed, images)


def test_a_mask_of_classes_cannot_be_blended():
    plan = Mix(cutmix_alpha=None).sample_plan(4, 12, 16, seed=1)
    with pytest.raises(TypeError, match="images must be of dtype .* for mixup, got torch.int64.*labels=True"):
        mix_images(torch.zeros(4, 12, 16, dtype=torch.int64), plan)


LABEL_DTYPES = [*INTEGERS, torch.bool, torch.float16, torch.float32, torch.float64, torch.complex64]


def plan_of_every_kind(device: str = "cpu") -> MixPlan:
    """Of pairs: each kind, and mixup with the larger, the smaller and half of the weight, and neither of its own."""
    kind = torch.tensor([2, 2, 2, 2, 1, 3, 3, 0, 2, 1])
    lam = torch.tensor([0.75, 0.25, 0.5, 0.4999, 0.9, 1.0, 1.0, 1.0, 0.0, 0.2])
    box = torch.tensor([[2, 3, 7, 12]]).expand(10, 4)
    return MixPlan.from_boxes(torch.arange(10) ^ 1, box, 12, 16, lam=lam, kind=kind).to(device)


def labels_after(mask: Tensor, ignore_index: int | None) -> Tensor:
    """What that plan leaves of a mask."""
    mixed = mask.clone()
    for sample in (1, 3, 8):  # the partner's
        mixed[sample] = mask[sample ^ 1]
    for sample in (4, 9):
        mixed[sample, ..., 2:7, 3:12] = mask[sample ^ 1, ..., 2:7, 3:12]
    if ignore_index is not None:
        mixed[5:7, ..., 2:7, 3:12] = torch.tensor(ignore_index).to(mask.dtype)
    return mixed


@every_backend
@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_masks_of_labels(backend, dtype):
    """Whatever their dtype: those of the larger weight, pasted ones, and ignore_index if asked for."""
    mask, plan = random_images((10, 2, 12, 16), dtype), plan_of_every_kind(backend.device)
    there, how = mask.to(backend.device), {"labels": True, "backend": backend.name}
    for ignore_index in (None, 1):
        expected = labels_after(mask, ignore_index)
        mixed = mix_images(there, plan, ignore_index=ignore_index, **how)
        assert_same_bits(mixed, expected)
        assert_same_bits(there, mask)
        out = torch.zeros_like(there)
        assert mix_images(there, plan, ignore_index=ignore_index, out=out, **how) is out
        assert_same_bits(out, expected)
        own = there.clone()
        assert cutmix_cuda.mix_images_(own, plan, ignore_index=ignore_index, **how) is own
        assert_same_bits(own, expected)


@every_backend
def test_a_mask_of_bytes_keeps_its_classes_under_any_plan(backend):
    mask = random_images((64, 12, 16), torch.uint8) % 2 * 20
    plan = Mix(cutout=0.2).sample_plan(64, 12, 16, seed=1, device=backend.device)
    assert set(plan.kind.tolist()) == {1, 2, 3}
    mixed = mix_images(mask.to(backend.device), plan, labels=True, ignore_index=255, backend=backend.name)
    assert set(mixed.unique().tolist()) == {0, 20, 255}
    assert len(mix_images(mask.to(backend.device), plan, backend=backend.name).unique()) > 3, "what was to be shown"


@every_backend
def test_rows_of_labels_that_lead_astray(backend, monkeypatch):
    """As on a GPU, where looking at the plan would make the host wait: the sample keeps its labels."""
    monkeypatch.setattr(cutmix_cuda.functional, "check_plan", lambda *_, **__: None)
    monkeypatch.setattr(cutmix_cuda.images, "check_plan", lambda *_, **__: None)
    good = [1, 0, 0, 12, 16, 0.25, 2]
    wrong = [[0, -1], [0, 9], [1, -1], [3, 13], [4, 17], [5, -0.5], [5, torch.nan], [6, 4]]
    rows = torch.tensor([good] * 9)
    for row, (column, value) in enumerate(wrong, start=1):
        rows[row, column] = value
    packed = torch.cat([rows, torch.zeros(9, 1)], dim=1).to(torch.int32)
    packed[:, 5] = rows[:, 5].view(torch.int32)
    mask = random_images((9, 12, 16), torch.uint8)
    expected = mask.clone()
    expected[0] = mask[1]
    plan = MixPlan(packed, 12, 16).to(backend.device)
    for ignore_index in (None, 255):
        how = {"labels": True, "ignore_index": ignore_index, "backend": backend.name}
        assert_same_bits(mix_images(mask.to(backend.device), plan, **how), expected)


LABEL_PATCHES = random_plan(5, 3, 4 + 3, 12, 16, sources=True, masks=(6, 8), soft=True)
LABEL_PATCHES.masks[:, ::2, ::3] = torch.tensor([torch.nan, 2.0, -1.0])  # count as 0, 1 and 0


@functools.cache
def sources_of_labels(cut_out: bool) -> Tensor:
    """Whose label those patches leave at each pixel of a batch of four and a second of three, int64 (5, 12, 16, 3): the
    sample, its row and its column; FILLED where it is cut out."""
    rows, masks = LABEL_PATCHES.rows.tolist(), LABEL_PATCHES.masks.tolist()
    left = torch.empty(5, 12, 16, 3, dtype=torch.int64)
    for i, y, x in itertools.product(*map(range, left.shape[:3])):
        owner = i % 4, y, x
        for patch, source in zip(rows[i], LABEL_PATCHES.sources[i].tolist(), strict=True):
            partner, y0, x0, y1, x1, lam, kind, number = patch
            if kind == KEEP or not (y0 <= y < y1 and x0 <= x < x1) or (kind == FILL and not cut_out):
                continue
            below = float(np.int32(lam).view(np.float32)) if kind == BLEND else 0.0
            if number > 0:
                weight = masks[number - 1][y * 6 // 12][x * 8 // 16]
                weight = min(weight, 1.0) if weight > 0.0 else 0.0
                below = weight + (1 - weight) * below
            if below < 0.5 and kind == FILL:
                owner = FILLED, FILLED, FILLED
            elif below < 0.5:
                sy0, sx0, sy1, sx1 = source
                owner = partner, sy0 + (y - y0) * (sy1 - sy0) // (y1 - y0), sx0 + (x - x0) * (sx1 - sx0) // (x1 - x0)
        left[i, y, x] = torch.tensor(owner)
    return left


@every_backend
@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_masks_of_labels_under_patches(backend, dtype):
    """Patch by patch and pixel by pixel: the label of the larger weight, the one below at a half."""
    masks, others = random_images((4, 12, 16), dtype), random_images((3, 12, 16), dtype, seed=1)
    plan = PatchPlan(LABEL_PATCHES.rows, 12, 16, *LABEL_PATCHES[1:]).to(backend.device)
    there, second = masks.to(backend.device), others.to(backend.device)
    for ignore_index in (None, 1):
        ignored = torch.full((1, 12, 16), ignore_index or 0).to(dtype)  # the last one, which FILLED is the index of
        expected = torch.cat([masks, others, ignored])[sources_of_labels(ignore_index is not None).unbind(3)]
        how = {"labels": True, "ignore_index": ignore_index, "others": second, "backend": backend.name}
        mixed = mix_images(there, plan, **how)
        assert_same_bits(mixed, expected)
        out = torch.zeros_like(mixed)
        assert mix_images(there, plan, out=out, **how) is out
        assert_same_bits(out, expected)
    assert_same_bits(there, masks)


@every_backend
def test_a_plan_of_one_box_leaves_the_same_labels_as_patches(backend):
    """In place too; and by masks of the same weight instead of lam."""
    mask, plan = random_images((10, 12, 16), torch.uint8), plan_of_every_kind()
    patches = PatchPlan.from_plan(plan)
    weights = torch.where(plan.kind == 2, plan.lam, 1.0)[:, None, None]
    soft = PatchPlan.from_masks(weights, plan.partner.long(), 12, 16)
    there, how = mask.to(backend.device), {"labels": True, "backend": backend.name}
    for ignore_index in (None, 255):
        expected = labels_after(mask, ignore_index)
        for each in (plan.to(backend.device), patches.to(backend.device)):
            assert_same_bits(mix_images(there, each, ignore_index=ignore_index, **how), expected)
            own = there.clone()
            assert cutmix_cuda.mix_images_(own, each, ignore_index=ignore_index, **how) is own
            assert_same_bits(own, expected)
    expected = torch.where((plan.kind == 2)[:, None, None], labels_after(mask, None), mask)
    assert_same_bits(mix_images(there, soft.to(backend.device), **how), expected)


def test_torchvisions_masks_are_never_blended_by_patches():
    mask = torchvisions_mask(torch.uint8)
    soft = PatchPlan.from_masks(torch.rand(16, 4, 4, generator=generator(1)), torch.arange(16).flip(0), 12, 16)
    mixed = mix_images(mask, soft)
    assert type(mixed) is type(mask)
    expected = mix_images(mask.as_subclass(Tensor), soft, labels=True)
    assert_same_bits(mixed.as_subclass(Tensor), expected)
    assert set(expected.unique().tolist()) == {0, 10}
    with pytest.raises(TypeError, match="masks of labels follow it by mix_images with labels=True"):
        cutmix_cuda.paint(mask, None, soft)


@every_backend
def test_patches_of_labels_that_lead_astray(backend, monkeypatch):
    """As on a GPU: a sample with a patch that may not be followed keeps its labels, whatever its others are."""
    monkeypatch.setattr(PatchPlan, "check", lambda *_, **__: None)
    wrong = [(0, -1), (0, 9), (1, -1), (3, 13), (5, 0x7FC00000), (6, 4), (7, 3)]  # of the second of two patches
    good = [[1, 0, 0, 12, 16, 0, 1, 1], [1, 0, 0, 12, 16, 0, 2, 2]]
    rows = torch.tensor([good] * (2 + len(wrong)), dtype=torch.int32)
    sources = rows[:, :, 1:5].clone()
    for sample, (column, value) in enumerate(wrong, start=1):
        rows[sample, 1, column] = value
    sources[-1, 1] = 0  # nothing, for a box that is something
    rows[-1, 1, 5] = torch.tensor(0.75).view(torch.int32)  # so that it would be kept
    mask = random_images((len(rows), 12, 16), torch.uint8)
    expected = mask.clone()
    expected[0] = mask[1]
    plan = PatchPlan(rows, 12, 16, sources, torch.zeros(2, 1, 1)).to(backend.device)
    assert_same_bits(mix_images(mask.to(backend.device), plan, labels=True, backend=backend.name), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
def test_masks_of_labels_in_a_compiled_graph():
    def step(images, masks):
        plan = Mix(cutout=0.3).sample_plan(len(images), *images.shape[-2:], seed=3)
        how = {"labels": True, "ignore_index": 255}
        soft = PatchPlan.from_masks(images[:, 0], plan.partner.long(), 12, 16)
        mixed = cutmix_cuda.apply_plan(images, None, plan)[0]
        return mixed, mix_images(masks, plan, **how), mix_images(masks, soft, **how)

    images, masks = torch.rand(16, 3, 12, 16), random_images((16, 12, 16), torch.uint8)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(compiled(images, masks), step(images, masks), strict=True):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"labels": torch.zeros(10).long()}, TypeError, "^labels must be True or False, .* got Tensor$"),
        ({"labels": None}, TypeError, "^labels must be True or False, .* got NoneType$"),
        ({"ignore_index": 255}, ValueError, "^ignore_index must be None without labels=True, got 255; see fill$"),
        ({"labels": True, "ignore_index": 256}, ValueError, "^ignore_index must be a value of .*uint8, got 256$"),
        ({"labels": True, "ignore_index": -100}, ValueError, "^ignore_index must be a value of .*uint8, got -100$"),
        ({"labels": True, "ignore_index": "x"}, TypeError, "^ignore_index must be a number, got 'x'$"),
        ({"labels": True, "fill": 255}, ValueError, "^fill must be left out of masks .* got 255; see ignore_index$"),
    ],
    ids=str,
)
def test_errors_of_masks_of_labels(arguments, error, says):
    mask = torch.zeros(10, 12, 16, dtype=torch.uint8)
    for function in (mix_images, cutmix_cuda.mix_images_):
        with pytest.raises(error, match=says):
            function(mask, plan_of_every_kind(), **arguments)
    with pytest.raises(ValueError, match="^plan must be for the 4 samples"):
        mix_images(mask[:4], plan_of_every_kind(), labels=True)
    with pytest.raises(TypeError, match="^images must be a tensor"):
        mix_images([mask], plan_of_every_kind(), labels=True)
    with pytest.raises(ValueError, match="^others must be None but for a PatchPlan"):
        mix_images(mask, plan_of_every_kind(), others=mask)
    with pytest.raises(ValueError, match="^plan must have partners in 0..3"):
        mix_images(mask[:4], PatchPlan.from_plan(plan_of_every_kind()), labels=True)


MASK_DTYPES = [torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64]


def torchvisions_mask(dtype: torch.dtype) -> Tensor:
    """Of the classes 0 and 10."""
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    return tv_tensors.Mask(10 * torch.randint(2, (16, 12, 16), generator=generator(0)).to(dtype))


@every_backend
@pytest.mark.parametrize("dtype", MASK_DTYPES, ids=str)
def test_torchvisions_masks_are_of_classes_whatever_their_dtype(backend, dtype):
    """They follow boxes that are pasted and filled without being told to be labels, and are never blended."""
    mask, plan = torchvisions_mask(dtype).to(backend.device), boxed_plan(backend.device)
    expected = followed(mask.cpu().as_subclass(Tensor), sources(plan), 10)
    out = torch.empty_like(mask)
    for mixed in (
        mix_images(mask, plan, ignore_index=10, backend=backend.name),
        mix_images(mask, plan, ignore_index=10, out=out, backend=backend.name),
        cutmix_cuda.mix_images_(mask.clone(), plan, ignore_index=10, backend=backend.name),
        cutmix_cuda.apply_plan(mask, None, plan, fill=10, backend=backend.name)[0],
    ):
        assert_same_bits(mixed.as_subclass(Tensor), expected)
    before = mask.clone()
    blended = Mix(cutmix_alpha=None).sample_plan(16, 12, 16, seed=1, device=backend.device)
    plain = mix_images(mask.as_subclass(Tensor), blended, labels=True, backend=backend.name)
    assert_same_bits(mix_images(mask, blended, backend=backend.name).as_subclass(Tensor), plain)
    # Where a GPU's plan is not looked at, the sample stays as it is: the next test.
    for function in (cutmix_cuda.apply_plan, cutmix_cuda.apply_plan_) if backend.device == "cpu" else ():
        with pytest.raises(TypeError, match=r"^images must (not be a tv_tensors.Mask|be of dtype .*) for mixup"):
            function(mask, None, blended, backend=backend.name)
    with pytest.raises(TypeError, match=r"^images must (not be a tv_tensors.Mask|be of dtype .*) for mixup"):
        cutmix_cuda.mix(mask, backend=backend.name)
    assert torch.equal(mask, before)


@every_backend
@pytest.mark.parametrize("dtype", MASK_DTYPES, ids=str)
def test_torchvisions_masks_are_kept_where_nobody_looks(backend, dtype, monkeypatch):
    """As on a GPU, where looking at the plan would make the host wait: a sample to be blended stays as it is."""
    monkeypatch.setattr(cutmix_cuda.functional, "check_plan", lambda *_, **__: None)
    mask, plan = torchvisions_mask(dtype).to(backend.device), Mix().sample_plan(16, 12, 16, seed=1)
    blends = plan.kind == 2
    assert set(plan.kind.tolist()) == {1, 2}
    boxes = torch.where(blends[:, None], 0, plan.boxes)
    expected = followed(mask.cpu().as_subclass(Tensor), sources(MixPlan.from_boxes(plan.partner, boxes, 12, 16)))
    how = {"targets": "pairs", "backend": backend.name}
    for apply in (cutmix_cuda.apply_plan, cutmix_cuda.apply_plan_):
        labels = torch.arange(16, device=backend.device)
        mixed, pairs = apply(mask.clone(), labels, plan.to(backend.device), **how)
        assert_same_bits(mixed.as_subclass(Tensor), expected)
        assert torch.equal(pairs.lam.isnan().cpu(), blends)


@every_backend
def test_a_teachers_probabilities(backend):
    """Mixed by the share of each image that is there; the plan's weight is that of the image's pixels."""
    plan = boxed_plan(backend.device)
    teacher = soft_labels(16, 10, torch.float64)
    mixed = mix_targets(teacher.to(backend.device), plan, target_dtype=torch.float64, backend=backend.name).cpu()
    for i, source in enumerate(sources(plan)):
        here = source[source != FILLED]  # a sample that is cut out keeps its target
        weights = torch.bincount(here, minlength=16).double() / (source.numel() if FILLED not in source else len(here))
        torch.testing.assert_close(mixed[i], weights @ teacher, rtol=0, atol=1e-7)
    torch.testing.assert_close(mixed.sum(1), torch.ones(16, dtype=torch.float64))


# ---- Tensors of another height and width


@st.composite
def plans(draw, kinds=(0, 1, 3)) -> MixPlan:
    """Any plan of these kinds, of small images."""
    batch, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9))

    def edges(size: int) -> list[int]:
        return sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))

    rows = []
    for _ in range(batch):
        (y0, y1), (x0, x1) = edges(height), edges(width)
        rows.append([y0, x0, y1, x1])
    partner = draw(st.lists(st.integers(0, batch - 1), min_size=batch, max_size=batch))
    kind = draw(st.lists(st.sampled_from(kinds), min_size=batch, max_size=batch))
    return MixPlan.from_boxes(
        torch.tensor(partner), torch.tensor(rows), height, width, kind=torch.tensor(kind, dtype=torch.int64)
    )


sizes = st.integers(0, 40)


@given(plans(), sizes, sizes)
def test_edges_go_to_the_nearest_of_the_new_grid(plan, height, width):
    rescaled = plan.rescaled(height, width)
    extents = ((plan.height, height), (plan.width, width)) * 2
    expected = [
        [floor(Fraction(edge * new, old) + Fraction(1, 2)) for edge, (old, new) in zip(box, extents, strict=True)]
        for box in plan.boxes.tolist()
    ]
    assert rescaled.boxes.tolist() == expected
    assert (rescaled.height, rescaled.width) == (height, width)
    rescaled.check()
    for part in ("partner", "lam", "kind"):
        assert_same_bits(getattr(rescaled, part), getattr(plan, part))


@given(plans(), st.integers(1, 4), st.integers(1, 4))
def test_a_finer_grid_is_exact(plan, down, across):
    """A mask of a multiple of the size, mixed, is the multiple of the mask that was mixed."""

    def enlarged(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(down, dim=-2).repeat_interleave(across, dim=-1)

    mask = random_images((len(plan), plan.height, plan.width), torch.uint8)
    finer = plan.rescaled(plan.height * down, plan.width * across)
    assert_same_bits(mix_images(enlarged(mask), finer, fill=7), enlarged(mix_images(mask, plan, fill=7)))
    assert_same_bits(finer.rescaled(plan.height, plan.width).packed, plan.packed)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), sizes)
def test_boxes_that_tile_an_image_still_do(edges, size):
    lines = sorted({0, 20, *edges})
    spans = list(itertools.pairwise(lines))
    rows = torch.tensor([[y0, x0, y1, x1] for (y0, y1), (x0, x1) in itertools.product(spans, spans)])
    tiles = MixPlan.from_boxes(torch.zeros(len(rows)).long(), rows, 20, 20).rescaled(size, 2 * size)
    ones, zeros = torch.ones(1, size, 2 * size).long(), torch.zeros(len(rows), size, 2 * size).long()
    plan = MixPlan.from_boxes(torch.full((len(rows) + 1,), len(rows)), tiles_of(tiles), size, 2 * size)
    covered = mix_images(torch.cat([zeros, ones]), plan)[:-1].sum(0)
    assert (covered == 1).all()


def tiles_of(plan: MixPlan) -> Tensor:
    """The boxes of a plan, and an empty one."""
    return torch.cat([plan.boxes, torch.zeros(1, 4, dtype=torch.int32)])


def test_lam_is_the_images_or_of_the_new_grid():
    boxes = torch.tensor([[0, 0, 5, 8], [0, 0, 5, 8], [0, 0, 5, 8], [1, 1, 2, 2]])
    lam = torch.tensor([0.25, 0.25, 1.0, 0.25])
    plan = MixPlan.from_boxes(torch.tensor([3, 2, 1, 0]), boxes, 10, 16, lam=lam, kind=torch.tensor([1, 2, 3, 1]))
    assert plan.rescaled(2, 2).lam.tolist() == [0.25, 0.25, 1.0, 0.25]
    # Half of 2 rows is 1, rounded up from 5/10 * 2; half of 2 columns is 1. The last box is empty there.
    assert plan.rescaled(2, 2, correct_lam=True).lam.tolist() == [0.75, 0.25, 1.0, 1.0]
    assert plan.rescaled(0, 2, correct_lam=True).lam.tolist() == [0.25, 0.25, 1.0, 0.25]


def test_sizes_of_which_no_product_fits_int32():
    most = 2**31 - 1
    plan = MixPlan.from_boxes(torch.tensor([0]), torch.tensor([[0, most - 1, 1, most]]), 1, most)
    assert plan.rescaled(1, most).boxes.tolist() == [[0, most - 1, 1, most]]
    assert plan.rescaled(2, most // 2).boxes.tolist() == [[0, most // 2, 2, most // 2]]
    assert MixPlan.from_boxes(torch.tensor([0]), torch.zeros(1, 4).long(), 0, 0).rescaled(5, 5).boxes.tolist() == [
        [0, 0, 0, 0]
    ]


def test_a_row_that_leads_outside_still_does(monkeypatch):
    monkeypatch.setattr(MixPlan, "check", lambda self, **_: None)  # as on a GPU, where nobody looks
    packed = boxed_plan().packed.clone()
    for row, (column, value) in enumerate([(0, 16), (1, -1), (3, 13), (4, 17), (6, 4)]):
        packed[row, column] = value
    plan = MixPlan(packed, 12, 16)
    for other in (plan.rescaled(3, 4), plan.rescaled(12, 16), plan.rescaled(1, 1)):
        images = random_images((16, other.height, other.width))
        mixed, targets = cutmix_cuda.apply_plan(images, torch.arange(16), other, 16)
        assert targets.isnan().all(1).nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
        assert_same_bits(mixed[:5], images[:5])


@every_backend
def test_tokens_of_a_grid_of_patches(backend):
    """A transformer's tokens (B, N, D): the patches that the boxes cover, as pixels of a small image of D channels."""
    plan = boxed_plan(backend.device, 224, 224)
    height = width = 14
    tokens = torch.randn(16, height * width, 8, generator=generator(0))
    grid = tokens.to(backend.device).transpose(1, 2).unflatten(2, (height, width))
    mixed = mix_images(grid, plan.rescaled(height, width), backend=backend.name).flatten(2).transpose(1, 2).cpu()
    expected = tokens.clone()
    for i, (partner, box, kind) in enumerate(
        zip(plan.partner.tolist(), plan.boxes.tolist(), plan.kind.tolist(), strict=True)
    ):
        y0, x0, y1, x1 = (floor(Fraction(edge, 16) + Fraction(1, 2)) for edge in box)
        for y, x in itertools.product(range(y0, y1), range(x0, x1)):
            expected[i, y * width + x] = tokens[partner, y * width + x] if kind == 1 else 0
    assert_same_bits(mixed, expected)
    assert not torch.equal(mixed, tokens)


def test_a_graph_of_several_sizes():
    torch._dynamo.reset()

    def step(images, masks, features):
        mixed, _, plan = cutmix_cuda.cutmix(images, seed=1, return_plan=True)
        small = plan.rescaled(*features.shape[-2:], correct_lam=True)
        by_hand = MixPlan.from_boxes(plan.partner, plan.boxes, 12, 16)
        return mixed, mix_images(masks, plan), mix_images(features, small), small.lam, by_hand.packed

    given = torch.rand(8, 3, 12, 16), torch.randint(9, (8, 12, 16)), torch.rand(8, 5, 3, 4)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(*given)
    for one, other in zip(compiled, step(*given), strict=True):
        assert_same_bits(one, other)


def test_another_size_is_refused_with_the_way_out():
    plan = boxed_plan()
    with pytest.raises(ValueError, match=re.escape("plan must be for images of height 6 and width 8")) as caught:
        mix_images(torch.zeros(16, 6, 8), plan)
    assert "plan.rescaled(6, 8)" in str(caught.value)
    mix_images(torch.zeros(16, 6, 8), plan.rescaled(6, 8))
    for size, error, message in (
        ((-1, 3), ValueError, "height must not be negative, got -1"),
        ((6.0, 8), TypeError, "height must be an int, got 6.0"),
        ((6, True), TypeError, "width must be an int, got True"),
        ((2**16, 2**15), ValueError, "height * width must be at most 2147483647, got 2147483648"),
    ):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            plan.rescaled(*size)
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            MixPlan(plan.packed, *size)


# ---- Boxes of objects


class Seen(NamedTuple):
    """What is left of an object in a mixed image."""

    box: tuple[float, ...]  # x0, y0, x1, y1
    label: int
    visible: float


def seen_in(source: np.ndarray, sample: int, boxes: list[list[float]], labels: list[int]) -> list[Seen]:
    """The objects of a sample that show in a mixed image, by counting the pixels that came from it."""
    found = []
    for box, label in zip(boxes, labels, strict=True):
        x0, y0, x1, y1 = map(int, box)
        object_pixels = np.zeros_like(source, dtype=bool)
        object_pixels[y0:y1, x0:x1] = True
        y, x = np.nonzero(object_pixels & (source == sample))
        if len(y) > 0:
            bounds = float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)
            found.append(Seen(bounds, label, len(y) / object_pixels.sum()))
    return found


def as_seen(mixed: MixedBoxes, sample: int) -> list[Seen]:
    assert mixed.labels is not None
    parts = mixed.boxes[sample].tolist(), mixed.labels[sample].tolist(), mixed.visible[sample].tolist()
    return [Seen(tuple(box), label, visible) for box, label, visible in zip(*parts, strict=True)]


@st.composite
def plans_and_objects(draw) -> tuple[MixPlan, list[Tensor], list[Tensor]]:
    plan = draw(plans())
    count = itertools.count()
    boxes = []
    for _ in range(len(plan)):
        across, down = (st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted) for n in (plan.width, plan.height))
        corners = draw(st.lists(st.tuples(across, down), max_size=4))
        boxes.append(torch.tensor([[x0, y0, x1, y1] for (x0, x1), (y0, y1) in corners]).reshape(-1, 4).float())
    labels = [torch.tensor([next(count) for _ in each], dtype=torch.int64) for each in boxes]
    return plan, boxes, labels


@given(plans_and_objects(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_objects_are_what_can_be_counted_of_them(case, min_visible):
    """Integer boxes: bounds and shares of the pixels that come from the object's image, its own objects first."""
    plan, boxes, labels = case
    mixed = plan.mix_boxes(boxes, labels, min_visible=min_visible)
    for i, source in enumerate(sources(plan).numpy()):
        expected = []
        for sample in dict.fromkeys([i, int(plan.partner[i])]):
            expected += seen_in(source, sample, boxes[sample].tolist(), labels[sample].tolist())
        expected = [each for each in expected if each.visible >= min_visible]
        actual = as_seen(mixed, i)
        assert [each[:2] for each in actual] == [each[:2] for each in expected]
        np.testing.assert_allclose([each.visible for each in actual], [each.visible for each in expected], rtol=1e-6)
        assert mixed.weight[i].tolist() == [1.0] * len(expected)


@given(plans_and_objects(), st.integers(1, 8))
def test_fractions_of_pixels(case, scale):
    """Boxes need not be integers: the picture may as well be larger."""
    plan, boxes, labels = case
    finer = [each.double() / scale for each in boxes]
    larger = plan.rescaled(plan.height * scale, plan.width * scale)
    small, large = plan.mix_boxes(finer, labels), larger.mix_boxes([each * scale for each in finer], labels)
    for i in range(len(plan)):
        torch.testing.assert_close(small.boxes[i] * scale, large.boxes[i])
        torch.testing.assert_close(small.visible[i], large.visible[i])


def one_patch(*patch: int, kind: int = 1, lam: float | None = None) -> MixPlan:
    """Of two images of 10 x 10 the first takes y0, x0, y1, x1 from the second, which is kept."""
    rows, kinds = torch.tensor([patch, (0, 0, 0, 0)]), torch.tensor([kind, 0])
    lams = None if lam is None else torch.tensor([lam, 1.0])
    return MixPlan.from_boxes(torch.tensor([1, 0]), rows, 10, 10, lam=lams, kind=kinds)


@pytest.mark.parametrize(
    ("patch", "rest"),
    [
        ((0, 0, 10, 4), (4, 2, 8, 8)),  # the left side
        ((0, 4, 10, 9), (2, 2, 4, 8)),  # the right side
        ((1, 2, 5, 8), (2, 5, 8, 8)),  # the upper side
        ((5, 0, 8, 10), (2, 2, 8, 5)),  # the lower side
        ((0, 4, 10, 6), (2, 2, 8, 8)),  # a band across the middle
        ((4, 0, 10, 4), (2, 2, 8, 8)),  # a corner
        ((3, 3, 7, 7), (2, 2, 8, 8)),  # a hole
        ((0, 0, 10, 2), (2, 2, 8, 8)),  # beside it
        ((2, 2, 8, 8), None),  # all of it
    ],
    ids=str,
)
def test_what_a_patch_leaves(patch, rest):
    own, others = torch.tensor([[2.0, 2.0, 8.0, 8.0]]), torch.zeros(0, 4)
    for kind in (1, 3):
        left = one_patch(*patch, kind=kind).mix_boxes([own, others]).boxes[0]
        assert left.tolist() == ([] if rest is None else [list(map(float, rest))])


def test_what_a_patch_brings():
    others = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.5, 2.0, 2.0, 9.0], [5.0, 5.0, 9.0, 9.0]])
    labels = [torch.zeros(0), torch.tensor([7.0, 8.0, 9.0])]
    mixed = one_patch(2, 1, 6, 3).mix_boxes([torch.zeros(0, 4), others], labels)
    assert mixed.boxes[0].tolist() == [[1.0, 2.0, 3.0, 4.0], [1.5, 2.0, 2.0, 6.0]]
    assert mixed.labels is not None and mixed.labels[0].tolist() == [7.0, 8.0]
    torch.testing.assert_close(mixed.visible[0], torch.tensor([4 / 16, 4 / 7]))
    assert_same_bits(mixed.boxes[1], others)


@pytest.mark.parametrize(("lam", "weights"), [(0.25, [0.25, 0.75, 0.75]), (1.0, [1.0]), (0.0, [1.0, 1.0])])
def test_blended_images_show_both(lam, weights):
    own, others = torch.tensor([[2.0, 2.0, 8.0, 8.0]]), torch.tensor([[0.0, 0.0, 4.0, 4.0], [5.0, 5.0, 9.0, 9.0]])
    mixed = one_patch(3, 3, 5, 5, kind=2, lam=lam).mix_boxes([own, others])
    there = torch.cat([own, others])[[lam > 0, lam < 1, lam < 1]]
    assert_same_bits(mixed.boxes[0], there)
    assert mixed.weight[0].tolist() == weights
    assert mixed.visible[0].tolist() == [1.0] * len(weights)
    assert mixed.weight[1].tolist() == [1.0, 1.0]


def test_slivers_are_dropped_below_a_share():
    own = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    plan = one_patch(0, 0, 10, 8)
    for min_visible, count in ((0.0, 1), (0.2, 1), (0.21, 0)):
        mixed = plan.mix_boxes([own, torch.zeros(0, 4)], min_visible=min_visible)
        assert len(mixed.boxes[0]) == len(mixed.visible[0]) == len(mixed.weight[0]) == count
    assert plan.mix_boxes([own, own], min_visible=1.0).boxes[1].tolist() == own.tolist()


def test_boxes_without_an_area_show_nothing():
    flat = torch.tensor([[3.0, 1.0, 3.0, 9.0], [5.0, 5.0, 5.0, 5.0]])
    for kind in range(4):
        assert [len(each) for each in one_patch(0, 0, 6, 6, kind=kind).mix_boxes([flat, flat]).boxes] == [0, 0]


@pytest.mark.parametrize("kind", range(4))
def test_what_sticks_out_of_the_image_counts_for_nothing(kind):
    """As if the boxes had been clipped before (torchvision's ClampBoundingBoxes), whatever becomes of the image."""
    own = torch.tensor([[-1e-6, 2.0, 8.0, 10.0 + 1e-5], [-3.0, -3.0, 13.0, 13.0], [10.5, 2.0, 12.0, 4.0]])
    others = torch.tensor([[7.0, -2.0, 14.0, 6.0], [2.0, -5.0, 4.0, -1.0]])
    plan = one_patch(0, 4, 7, 10, kind=kind, lam=0.5)
    mixed = plan.mix_boxes([own, others], [torch.arange(3), torch.arange(3, 5)])
    inside = [each.clamp(0, 10) for each in (own, others)]
    assert_same_bits(mixed.boxes[1], torch.tensor([[7.0, 0.0, 10.0, 6.0]]))
    for actual, expected in zip(mixed, plan.mix_boxes(inside, [torch.arange(3), torch.arange(3, 5)]), strict=True):
        for one, other in zip(actual, expected, strict=True):
            assert_same_bits(one, other)
    visible = {0: [1, 1], 1: [(64 - 4 * 5) / 64, (100 - 42) / 100, 1], 2: [1, 1, 1], 3: [(64 - 4 * 5) / 64, 0.58]}
    torch.testing.assert_close(mixed.visible[0], torch.tensor(visible[kind], dtype=torch.float32))


def test_new_tensors_of_the_given_dtypes():
    own, others = torch.tensor([[2.0, 2.0, 8.0, 8.0]]).half(), torch.tensor([[0.0, 0.0, 4.0, 4.0]]).half()
    labels = [torch.tensor([3], dtype=torch.int16)] * 2
    before = own.clone(), others.clone()
    mixed = one_patch(0, 0, 10, 4).mix_boxes((own, others), labels)
    assert {each.dtype for each in mixed.boxes} == {torch.float16}
    assert {each.dtype for each in mixed.labels or []} == {torch.int16}
    assert {each.dtype for each in (*mixed.visible, *mixed.weight)} == {torch.float32}
    for each in mixed.boxes:
        each.zero_()
    assert torch.equal(own, before[0]) and torch.equal(others, before[1])
    assert one_patch(0, 0, 10, 4).mix_boxes([own, others]).labels is None


FORMATS = ("XYXY", "XYWH", "CXCYWH")


def marked(boxes: Tensor, form: str, canvas_size: tuple[int, int]) -> Tensor:
    """Corners as torchvision's boxes of a format."""
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    x0, y0, x1, y1 = boxes.unbind(1)
    numbers = {
        "XYXY": (x0, y0, x1, y1),
        "XYWH": (x0, y0, x1 - x0, y1 - y0),
        "CXCYWH": ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0),
    }
    return tv_tensors.BoundingBoxes(torch.stack(numbers[form], dim=1), format=form, canvas_size=canvas_size)


@pytest.mark.parametrize("form", FORMATS)
@given(case=plans_and_objects())
def test_torchvisions_boxes_say_what_their_numbers_are(form, case):
    """Plain corners come back, whatever was given; a sample may be given plain ones among the others."""
    plan, boxes, labels = case
    given = [marked(each, form, (plan.height, plan.width)) for each in boxes[1:]]
    mixed, expected = plan.mix_boxes([*boxes[:1], *given], labels), plan.mix_boxes(boxes, labels)
    for parts, others in zip(mixed, expected, strict=True):
        for part, other in zip(parts, others, strict=True):
            assert type(part) is Tensor
            assert_same_bits(part, other)


def test_torchvisions_boxes_in_half_precision():
    """A box of half a pixel around 1000, whose corners are no float16."""
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    numbers = torch.tensor([[1000.0, 2.0, 0.5, 2.0]], dtype=torch.float16)
    boxes = tv_tensors.BoundingBoxes(numbers, format="CXCYWH", canvas_size=(10, 2000))
    plan = MixPlan.from_boxes(torch.tensor([0]), torch.tensor([[0, 1000, 10, 2000]]), 10, 2000, kind=torch.tensor([3]))
    mixed = plan.mix_boxes([boxes])
    assert mixed.visible[0].tolist() == [0.5]
    assert mixed.boxes[0].dtype == torch.float16


def test_torchvisions_boxes_are_no_boxes_of_a_plan():
    """Those say x first, these y."""
    boxes = marked(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), "XYXY", (10, 10)).long()
    assert MixPlan.from_boxes(torch.tensor([0]), boxes, 10, 10).boxes.tolist() == [[1, 2, 3, 4]], "long() unmarks them"
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(10, 10))
    with pytest.raises(TypeError, match="^boxes must be a plain tensor of y0, x0, y1, x1, got .*BoundingBoxes"):
        MixPlan.from_boxes(torch.tensor([0]), boxes, 10, 10)


class Wrong(NamedTuple):
    call: Callable[[Any], Any]  # of a plan
    error: type[Exception]
    says: tuple[str, ...]


BOX = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def rotated(form: str, numbers: int) -> Tensor:
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    return tv_tensors.BoundingBoxes(torch.ones(1, numbers), format=form, canvas_size=(10, 10))


WRONG = {
    "boxes: a tensor": Wrong(lambda p: p.mix_boxes(torch.zeros(2, 1, 4)), TypeError, ("boxes", "list", "Tensor")),
    "boxes: a number": Wrong(lambda p: p.mix_boxes(5), TypeError, ("boxes", "list", "int")),
    "boxes: of lists": Wrong(lambda p: p.mix_boxes([BOX, [1.0]]), TypeError, ("boxes", "tensors", "list", "sample 1")),
    "boxes: too few": Wrong(lambda p: p.mix_boxes([BOX]), ValueError, ("boxes", "2 samples", "1")),
    "boxes: integers": Wrong(lambda p: p.mix_boxes([BOX, BOX.long()]), TypeError, ("boxes", "int64", "sample 1")),
    "boxes: one": Wrong(lambda p: p.mix_boxes([BOX, BOX[0]]), ValueError, ("boxes", "(n, 4)", "(4,)", "sample 1")),
    "boxes: none": Wrong(lambda p: p.mix_boxes([torch.zeros(0), BOX]), ValueError, ("boxes", "(0,)", "sample 0")),
    "boxes: reversed": Wrong(
        lambda p: p.mix_boxes([BOX, BOX.flip(1)]), ValueError, ("boxes", "x0 <= x1", "[[1.0, 1.0, 0.0, 0.0]]", "1")
    ),
    "boxes: NaN": Wrong(lambda p: p.mix_boxes([BOX * torch.nan, BOX]), ValueError, ("boxes", "finite", "nan")),
    "boxes: rotated": Wrong(
        lambda p: p.mix_boxes([BOX, rotated("CXCYWHR", 5)]),
        ValueError,
        ("boxes", "format XYXY, XYWH, CXCYWH", "got CXCYWHR for sample 1"),
    ),
    "boxes: rotated corners": Wrong(
        lambda p: p.mix_boxes([rotated("XYXYXYXY", 8), BOX]),
        ValueError,
        ("boxes", "format XYXY, XYWH, CXCYWH", "got XYXYXYXY for sample 0"),
    ),
    "boxes: of another image": Wrong(
        lambda p: p.mix_boxes([BOX, marked(BOX, "XYWH", (10, 20))]),
        ValueError,
        ("boxes", "canvas_size (10, 10)", "(10, 20) for sample 1", "plan.rescaled"),
    ),
    "boxes: of negative width": Wrong(
        lambda p: p.mix_boxes([BOX, marked(BOX.flip(1), "XYWH", (10, 10))]),
        ValueError,
        ("boxes", "x0 <= x1", "[[1.0, 1.0, -1.0, -1.0]]", "1"),
    ),
    "labels: too many": Wrong(
        lambda p: p.mix_boxes([BOX] * 2, [torch.zeros(1)] * 3), ValueError, ("labels", "2 samples", "3")
    ),
    "labels: numbers": Wrong(
        lambda p: p.mix_boxes([BOX] * 2, [1, 2]), TypeError, ("labels", "tensors", "int", "sample 0")
    ),
    "labels: of other boxes": Wrong(
        lambda p: p.mix_boxes([BOX] * 2, [torch.zeros(1), torch.zeros(2)]),
        ValueError,
        ("labels", "(1,)", "(2,)", "sample 1"),
    ),
    "min_visible": Wrong(
        lambda p: p.mix_boxes([BOX] * 2, min_visible=1.5), ValueError, ("min_visible", "[0, 1]", "1.5")
    ),
    "min_visible: a word": Wrong(
        lambda p: p.mix_boxes([BOX] * 2, min_visible="half"), TypeError, ("min_visible", "number", "'half'")
    ),
    "min_visible: none": Wrong(
        lambda p: p.mix_boxes([BOX] * 2, min_visible=None), TypeError, ("min_visible", "number", "None")
    ),
    "plan": Wrong(
        lambda p: MixPlan(p.packed + 1, 10, 10).mix_boxes([BOX] * 2), ValueError, ("plan", "partners in 0..1", "row 0")
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_argument_and_what_came(name):
    call, error, says = WRONG[name]
    with pytest.raises(error) as caught:
        call(one_patch(0, 0, 10, 4))
    message = str(caught.value)
    assert message.startswith(says[0])
    assert all(part in message for part in says), message
