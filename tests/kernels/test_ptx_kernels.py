"""The compiled kernels, CUDA and Triton, executed with the launches that a user's calls make, against the reference.

The interpreter in tests/ptx raises at the first access out of bounds, race, or use of what was never written, so every
test here is also a test of those. Images are small and chosen to reach every kernel and every path in it:

- every element size, with every vector width that its rows can have, in every layout, from both sources of the plan,
  in place and out of place; the ways of sampling take turns among these, and each is tested on its own as well;
- every dtype of labels with every dtype of targets;
- one test each for what is left: sizes at the edges of the launch geometry, bad plans, seeds on the device.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cutmix_cuda import reference
from cutmix_cuda._ops import BLENDED_DTYPES, INVERSE_OF_THEMSELVES, Draw, Kind, Partner, Placement, Sampling, Scope

from .. import bindings
from ..helpers import assert_same_bits, random_images, random_labels, soft_labels
from ..ptx import Device
from .execution import (
    MAX_INT32,
    POISON,
    UNIFORM,
    VECTOR,
    Call,
    Executed,
    bounds_of,
    call_of,
    cuda_kernel,
    dtype_name,
    every_kind,
    execute,
    needs_cuda,
    needs_triton,
    run_triton,
)

SEED = torch.tensor([20190513])
CUTMIX = bounds_of(Kind.cutmix)
EVERY_KIND = (0.3, 0.6, 0.9)  # bounds: cutmix, mixup, cutout, and the rest is kept
WITHOUT_MIXUP = (0.45, 0.45, 0.9)
CLASSES = 12
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64)

every_place = pytest.mark.parametrize("in_place", [False, True], ids=["out", "in-place"])


def sampling(
    scope=Scope.sample,
    partner=Partner.mirror,
    placement=Placement.clip,
    correct_lam=True,
    bounds=CUTMIX,
    seed=SEED,
) -> Draw:
    """The arguments of every op that samples."""
    return Draw(seed, UNIFORM, bounds, Sampling(scope.value, partner.value, placement.value, int(correct_lam)))


def bounds_for(dtype: torch.dtype) -> tuple[float, float, float]:
    """Of as many kinds as images of a dtype can have."""
    return EVERY_KIND if dtype in BLENDED_DTYPES else WITHOUT_MIXUP


def any_fill(dtype: torch.dtype) -> tuple[int, int]:
    """A fill whose element has no byte twice."""
    low, high = torch.arange(1, dtype.itemsize + 1).byte().repeat(VECTOR // dtype.itemsize).view(torch.int64).tolist()
    return low, high


# ---- Comparison


def expected_results(call: Call) -> tuple[Any, Any, Tensor]:
    """Images, targets and plan of a call, by the reference."""
    plan = call.plan
    if call.draw is not None:
        plan = reference.sample_plan(*call.draw, *call.sizes)
    wanted = None if call.targets is None else (call.targets.shape[1], call.label_smoothing, call.targets.dtype)
    if call.images is None:
        return None, wanted and reference.mix_targets(call.labels, plan, *wanted), plan
    own = call.images.clone()
    op: Any = reference.apply_ if call.in_place else reference.apply
    result = op(own, call.labels, plan, *(wanted or (0, 0.0, torch.float32)), call.fill)
    images, targets = (own, result) if call.in_place else result
    return images, targets if wanted else None, plan


def assert_same_targets(actual: Tensor, expected: Tensor) -> None:
    """The same bits, but for those of a NaN."""
    assert torch.equal(actual.isnan(), expected.isnan())
    assert_same_bits(actual.nan_to_num(7.0), expected.nan_to_num(7.0))


def assert_same_images(actual: Tensor, expected: Tensor, plan: Tensor) -> None:
    """The same bits, but for those of a NaN that was computed: where a sample is blended."""

    def comparable(images: Tensor) -> Tensor:
        if not images.dtype.is_floating_point:
            return images
        blended = (plan[:, 6] == Kind.mixup).reshape(-1, *[1] * (images.dim() - 1))
        return torch.where(blended & images.isnan(), torch.nan, images)

    assert_same_bits(comparable(actual), comparable(expected))


def assert_as_reference(kind: str, op: str, *arguments, architecture: int = 80, seed_on_device=False) -> Executed:
    """A call gives the reference's images, targets and plan, writes all of them, and nothing around the images."""
    call = call_of(op, *arguments)
    images, targets, plan = expected_results(call)
    done = execute(kind, call, architecture, seed_on_device)

    assert_same_bits(done.plan, plan)
    if targets is not None:
        assert_same_targets(done.targets, targets)
    if images is not None:
        assert_same_images(done.out, images, plan)
        assert torch.equal(surroundings(done.out), surroundings(call.out if call.in_place else poisoned(call.out)))
    for result in (call.plan, call.targets):
        if result is not None and result.numel() > 0:
            assert done.memory.buffer(result).defined()
    return done


def poisoned(tensor: Tensor) -> Tensor:
    """Alike in a storage alike, all of it as fresh memory."""
    storage = torch.full((tensor.untyped_storage().nbytes(),), POISON, dtype=torch.uint8)
    contents = torch.empty(0, dtype=tensor.dtype).set_(storage.untyped_storage())
    return contents.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def surroundings(tensor: Tensor) -> Tensor:
    """The bytes of a tensor's storage, those of the tensor itself as zeros."""
    storage = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).clone()
    own = torch.empty(0, dtype=tensor.dtype).set_(storage.untyped_storage())
    own.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).zero_()
    return storage


# ---- Pixels

ELEMENT_SIZES = {
    1: (torch.uint8,),
    2: (torch.float16, torch.bfloat16),
    4: (torch.float32,),
    8: (torch.float64, torch.int64, torch.complex64),
    16: (torch.complex128,),
}
WIDTHS = [(size, width) for width in (16, 8, 4, 2, 1) for size in ELEMENT_SIZES if size <= width]
LAYOUTS = {  # each with another whose rows follow each other in the same order, for out
    "channels-first": "rows with gaps",
    "channels-last": "channels-last",
    "rows with gaps": "channels-first",
}
VECTORS = 5  # in a row: odd, so that no wider vector fits


def laid_out(shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int = 0) -> Tensor:
    """Random images; rows with gaps are a window into larger images, as aligned as its rows are long."""
    if layout != "rows with gaps":
        images = random_images(shape, dtype, seed)
        return images.contiguous(memory_format=torch.channels_last) if layout == "channels-last" else images
    batch, channels, height, width = shape
    margin = width // VECTORS
    larger = random_images((batch + 1, channels + 1, height + 2, width + 2 * margin), dtype, seed)
    return larger[1:, 1:, 1:-1, margin:-margin]


def every_way() -> list[dict]:
    """Every way to sample, those in a row as unlike each other as can be."""
    ways = itertools.product([True, False], Placement, Scope, Partner)
    names = ("correct_lam", "placement", "scope", "partner")
    return [dict(zip(names, way, strict=True)) for way in ways]


@every_kind
@every_place
@pytest.mark.parametrize(("size", "width"), WIDTHS)
def test_pixels(kind, size, width, in_place):
    """One kernel, or two with Triton: for a sampled and for a given plan."""
    ways = [way for way in every_way() if way["partner"] in INVERSE_OF_THEMSELVES or not in_place]
    turns = itertools.count(6 * WIDTHS.index((size, width)))
    for layout, given in itertools.product(LAYOUTS, [False, True]):
        turn = next(turns)
        dtype = ELEMENT_SIZES[size][turn % len(ELEMENT_SIZES[size])]
        shape = ((5, 2, 6, 3)[turn % 4], 3, 6, VECTORS * width // size)
        images = laid_out(shape, dtype, layout, seed=turn)
        how = sampling(**ways[turn * 5 % len(ways)], bounds=bounds_for(dtype), seed=SEED + turn)
        plan = (reference.sample_plan(*how, shape[0], *shape[2:]),) if given else how
        labels = random_labels(shape[0], CLASSES, seed=turn)
        op = "apply" if given else "sample_and_apply"
        out: tuple = ()
        if in_place:
            op += "_"
        elif turn % 3 == 0:
            op, out = f"{op}_out", (laid_out(shape, dtype, LAYOUTS[layout]),)
        rest = CLASSES, 0.1, torch.float32, *out, any_fill(dtype)
        done = assert_as_reference(kind, op, images, labels, *plan, *rest)
        if kind == "cuda":
            assert done.launch["kernel"] == f"mix_{'in' if in_place else 'out_of'}_place<{width}>"
        elif not in_place:
            assert done.launch.options["WIDTH"] == width


# ---- Kinds


def plan_rows(*rows: tuple) -> Tensor:
    """A plan of rows (partner, (y0, x0, y1, x1), kind), with a lambda behind it or one quarter."""
    columns = [(partner, *box, 0, kind, 0) for partner, box, kind, *_ in rows]
    lam = torch.tensor([row[3] if len(row) > 3 else 0.25 for row in rows])
    plan = torch.tensor(columns, dtype=torch.int32)
    plan[:, 5] = lam.view(torch.int32)
    return plan


def every_pair_of_kinds(dtype: torch.dtype, height: int, width: int) -> Tensor:
    """Pairs of any two kinds and, last, each kind alone with itself; boxes that overlap, lambdas that differ."""
    kinds = [kind for kind in Kind if kind != Kind.mixup or dtype in BLENDED_DTYPES]
    whole = (0, 0, height, width)
    boxes = itertools.cycle([(1, 2, 5, width - 3), (0, width // 3, height, width), (2, 0, 3, width // 2), whole])
    rows: list[tuple] = []
    for one, other in itertools.combinations_with_replacement(kinds, 2):
        for kind in (one, other):
            partner = len(rows) ^ 1
            rows.append((partner, (0,) * 4 if kind == Kind.mixup else next(boxes), kind, 0.1 + 0.04 * len(rows)))
    rows += [(len(rows) + k, (0,) * 4 if kind == Kind.mixup else whole, kind, 0.7) for k, kind in enumerate(kinds)]
    return plan_rows(*rows)


@every_kind
@every_place
@pytest.mark.parametrize("width", [16, 19])
@pytest.mark.parametrize("dtype", [*BLENDED_DTYPES, torch.int64, torch.complex128], ids=str)
def test_every_pair_of_kinds(kind, dtype, width, in_place):
    """Rows of whole vectors, with edges inside of them, and rows of an odd number of elements."""
    plan = every_pair_of_kinds(dtype, 6, width)
    labels = random_labels(len(plan), CLASSES)
    for layout in ("channels-first", "channels-last"):
        images = laid_out((len(plan), 3, 6, width), dtype, layout)
        rest = CLASSES, 0.1, torch.float32, any_fill(dtype)
        assert_as_reference(kind, "apply_" if in_place else "apply", images, labels, plan, *rest)


@every_kind
@every_place
def test_blends_of_every_byte(kind, in_place):
    """Lambdas that make ties, which go to the even byte, for all pairs of values."""
    own, partner = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    images = torch.stack([own, partner]).byte().unsqueeze(1)
    for lam in (0.5, 0.25, 0.7):
        plan = plan_rows((1, (0,) * 4, Kind.mixup, lam), (0, (0,) * 4, Kind.mixup, 1 - lam))
        assert_as_reference(kind, "apply_" if in_place else "apply", images, None, plan, 0, 0.0, torch.float32)


# Of these sizes a division of the rows among blocks, rounded up, has once led behind the last row.
@every_kind
@every_place
@pytest.mark.parametrize("shape", [(2, 3, 160, 161), (3, 4, 155, 287), (1, 3, 299, 299)], ids=str)
def test_several_blocks_for_a_sample(kind, shape, in_place):
    """And several rows for a thread."""
    how = sampling(bounds=(0.8, 0.8, 1.0))
    op = "sample_and_apply_" if in_place else "sample_and_apply"
    images = laid_out(shape, torch.uint8, "channels-first")
    assert_as_reference(kind, op, images, None, *how, 0, 0.0, torch.float32, any_fill(torch.uint8))


@every_kind
@every_place
def test_fill_of_elements_wider_than_vectors(kind, in_place):
    """Each half of an element gets its half of the fill."""
    memory = torch.zeros(4 * 5 * 7 * 16 + 8, dtype=torch.uint8)
    images = torch.frombuffer(memory.numpy(), dtype=torch.complex128, offset=8).view(4, 1, 5, 7)
    assert images.data_ptr() % 16 == 8
    how = sampling(bounds=bounds_of(Kind.cutout), placement=Placement.inside)
    rest = 0, 0.0, torch.float32, any_fill(torch.complex128)
    assert_as_reference(kind, "sample_and_apply_" if in_place else "sample_and_apply", images, None, *how, *rest)


@needs_cuda
def test_elements_that_no_vector_holds():
    """An address that is no multiple of an element would be blended wrongly: an error."""
    images = 4098, (1, 1, 1, 4), (4, 4, 4, 1)
    call = {"batch": 1, "height": 1, "width": 4, "plan": 4096, "images": images, "out": images, "element_bytes": 4}
    assert bindings.load().fits_launch(images, images, 4, "int32")
    assert bindings.load().launch_geometry(**call, dtype="int32")["kernel"] == "mix_out_of_place<2>"
    assert not bindings.load().fits_launch(images, images, 4, "float32"), "such images are copied first"
    with pytest.raises(ValueError, match="as aligned as their elements"):
        bindings.load().launch_geometry(**call, dtype="float32")


@needs_cuda
def test_more_slices_than_blocks():
    """Of those with gaps between them each takes a block; without gaps, into which they are copied, a sample does."""
    shape = 2**30, 3, 1, 1
    gaps, dense = ((4096, shape, strides) for strides in ((6, 2, 1, 1), (3, 1, 1, 1)))
    assert bindings.load().fits_launch(dense, dense, 1, "uint8")
    call = {"batch": shape[0], "height": 1, "width": 1, "plan": 4096}
    assert bindings.load().launch_geometry(**call, images=dense, out=dense)["grid"] == 2**30
    for images, out in ((gaps, dense), (dense, gaps)):
        assert not bindings.load().fits_launch(images, out, 1, "uint8")
        with pytest.raises(ValueError, match="all blocks"):
            bindings.load().launch_geometry(**call, images=images, out=out)
    few = [(address, (2**26, *shape[1:]), strides) for address, _, strides in (gaps, dense)]
    assert bindings.load().fits_launch(*few, 1, "uint8")


# ---- The plan


@every_kind
@pytest.mark.parametrize("placement", list(Placement), ids=lambda placement: placement.name)
@pytest.mark.parametrize("partner", list(Partner), ids=lambda partner: partner.name)
@pytest.mark.parametrize("scope", list(Scope), ids=lambda scope: scope.name)
def test_every_way_to_sample(kind, scope, partner, placement):
    """At odd and even batches, with draws that keep their sample, by a seed of the host and of the device."""
    seeds = (0, -1, 2**31 + 5, -(2**62), 7)
    for seed, batch, correct_lam in zip(seeds, (1, 2, 5, 6, 300), (True, False, True, False, True), strict=True):
        how = sampling(scope, partner, placement, correct_lam, (0.3, 0.5, 0.7), torch.tensor([seed]))
        assert_as_reference(kind, "sample_plan", *how, batch, 33, 17, seed_on_device=batch % 2 == 1)


@every_kind
@pytest.mark.parametrize("placement", list(Placement), ids=lambda placement: placement.name)
@pytest.mark.parametrize("extent", [(1, 1), (1, 48), (48, 1)], ids=str)
def test_spans(kind, placement, extent):
    """Drawn alone, and with signals and their labels, out of place and in place."""
    images, labels = random_images((6, 2, *extent), torch.uint8), random_labels(6, CLASSES)
    for bounds, correct_lam in ((EVERY_KIND, True), (CUTMIX, False)):
        how = sampling(placement=placement, correct_lam=correct_lam, bounds=bounds)
        assert_as_reference(kind, "sample_plan", *how, 64, *extent)
        for op in ("sample_and_apply", "sample_and_apply_"):
            assert_as_reference(kind, op, images, labels, *how, CLASSES, 0.0, torch.float32)


@every_kind
@every_place
def test_a_seed_on_the_device(kind, in_place):
    """With pixels, too; in place both samples of a pair have to find the same one."""
    images, labels = random_images((5, 3, 6, 20), torch.uint8), random_labels(5, CLASSES)
    op = "sample_and_apply_" if in_place else "sample_and_apply"
    for partner in INVERSE_OF_THEMSELVES:
        how = sampling(partner=partner, bounds=EVERY_KIND)
        assert_as_reference(kind, op, images, labels, *how, CLASSES, 0.0, torch.float32, seed_on_device=True)


@every_kind
@pytest.mark.parametrize("batch", [2, 7, 8])
def test_every_pairing_in_place(kind, batch):
    """Each pair has one owner, whatever the shift: also that of the last sample of an even batch."""
    images, labels = random_images((batch, 1, 2, 16), torch.uint8), random_labels(batch, CLASSES)
    pairings = {}
    for seed in map(torch.tensor, itertools.count()):
        if len(pairings) == (batch if batch % 2 == 1 else batch - 1):
            break
        _, shift = reference.partner_map(Partner.mirror, seed, batch)
        pairings[int(shift)] = sampling(scope=Scope.pair, placement=Placement.inside, seed=seed.reshape(1))
    for how in pairings.values():
        assert_as_reference(kind, "sample_and_apply_", images, labels, *how, CLASSES, 0.0, torch.float32)


@every_kind
@pytest.mark.parametrize("drawn", list(Kind), ids=lambda drawn: drawn.name)
@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_lambda_of_zero_and_one(kind, lam, drawn):
    """Boxes of the whole image, and empty ones."""
    how = sampling(placement=Placement.inside, bounds=bounds_of(drawn))._replace(quantiles=torch.full((3, 4097), lam))
    images, labels = random_images((4, 3, 6, 20), torch.uint8), random_labels(4, CLASSES)
    for op in ("sample_and_apply", "sample_and_apply_"):
        assert_as_reference(kind, op, images, labels, *how, CLASSES, 0.0, torch.float32)


@every_kind
@every_place
def test_plans_that_lead_astray(kind, in_place):
    """A bad row leaves its sample as it was, with a NaN target; its neighbours are mixed nevertheless."""
    height, width = 7, 20
    box, most, least = (1, 2, 6, 17), 2**31 - 1, -(2**31)
    bad = [
        *((partner, box, 1) for partner in (-1, 27, most, least)),
        *((1, edges, 1) for edges in ((-1, 2, 6, 17), (1, -1, 6, 17), (1, 2, height + 1, 17), (1, 2, 6, width + 1))),
        *((1, edges, 1) for edges in ((6, 2, 1, 17), (1, 17, 6, 2), (least, 2, most, 17), (1, least, 6, most))),
        *((1, box, kind_of_mixing) for kind_of_mixing in (4, -1, most)),
        *((1, box, 1, lam) for lam in (-0.1, 1.1, math.inf, math.nan)),
    ]
    good = [
        (1, box, 1),
        (0, (0, 0, 7, 20), 1),
        (3, box, 1),
        (2, (3, 3, 3, 9), 1),
        (4, box, 1),
        (4, box, 1),
        (7, box, 0),
    ]
    plan = plan_rows(*good, *bad, (6, box, 1))
    batch = len(plan)
    assert batch == 27, "the batch that a partner above is just outside of"
    labels = torch.arange(batch) % CLASSES
    for images in (random_images((batch, 2, height, width), torch.uint8), random_images((batch, 1, height, width))):
        op = "apply_" if in_place else "apply"
        done = assert_as_reference(kind, op, images, labels, plan, CLASSES, 0.1, torch.float32)
        invalid = done.targets.isnan().any(1).tolist()
        assert invalid[7:26] == [True] * 19
        # 5's partner is kept for itself and 6 and 26 have others: each its own inverse in place, and out of place not.
        assert invalid[:7] + invalid[26:] == [False] * 5 + [in_place] * 2 + [in_place]


@every_kind
@every_place
def test_mixup_of_what_cannot_be_blended(kind, in_place):
    """Left alone, with a NaN target."""
    images, labels = random_images((4, 3, 5, 20), torch.int16), random_labels(4, CLASSES)
    plan = plan_rows(*((k ^ 1, (0,) * 4, Kind.mixup if k < 2 else Kind.keep) for k in range(4)))
    done = assert_as_reference(
        kind, "apply_" if in_place else "apply", images, labels, plan, CLASSES, 0.0, torch.float32
    )
    assert torch.equal(done.out, images)
    assert done.targets.isnan().all(1).tolist() == [True, True, False, False]


@every_kind
def test_partners_that_several_share(kind):
    """Out of place any partner will do."""
    images = random_images((6, 3, 5, 20), torch.int16)
    box = (1, 3, 4, 18)
    for partners in ((0, 0, 0, 0, 0, 0), (1, 2, 3, 4, 5, 0), (5, 5, 1, 1, 2, 2)):
        assert_as_reference(
            kind, "apply", images, None, plan_rows(*((p, box, 1) for p in partners)), 0, 0.0, torch.float32
        )


@every_kind
def test_partners_that_are_not_their_own_inverse_in_place(kind):
    """Nothing of the images is written, and every target is NaN."""
    images, labels = random_images((6, 3, 5, 20), torch.int16), random_labels(6, CLASSES)
    plan = plan_rows(*((p, (1, 3, 4, 18), 1) for p in (1, 2, 3, 4, 5, 0)))
    done = assert_as_reference(kind, "apply_", images, labels, plan, CLASSES, 0.0, torch.float32)
    assert done.targets.isnan().all()
    assert done.report.buffers["images"].sectors_written == 0


# ---- Targets


@every_kind
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("labels_dtype", (*INTEGERS, *FLOATS), ids=str)
def test_targets(kind, labels_dtype, dtype):
    """Rounded as the reference rounds; a label that is no class, and a bad row of the plan, give a row of NaN."""
    soft = labels_dtype.is_floating_point
    plan = reference.sample_plan(*sampling(bounds=EVERY_KIND, seed=SEED + 3), 9, 33, 17)
    assert set(plan[:, 6].tolist()) == set(Kind)
    plan[2, 0] = 9
    for classes, smoothing in ((5, 0.0), (CLASSES, 0.1)):
        if soft:
            labels = soft_labels(9, classes, labels_dtype)
        else:  # 4 to 6 are no classes; what -1 becomes in an unsigned dtype is none either
            labels = torch.tensor([0, classes - 1, 3, 3, classes, 100, -1, 1, 2]).to(labels_dtype)
        done = assert_as_reference(kind, "mix_targets", labels, plan, classes, smoothing, dtype)
        rows = done.targets.isnan().all(1)
        assert torch.equal(rows, done.targets.isnan().any(1))
        assert rows[2]
        assert rows.sum() == 1 if soft else rows[4:7].all() and not rows.all()


@every_kind
@every_place
@pytest.mark.parametrize("what", [Kind.keep, Kind.cutout], ids=lambda what: what.name)
def test_a_label_that_only_the_partner_has(kind, what, in_place):
    """Who keeps the own target does not look at the partner's label, which may be none."""
    images, labels = random_images((4, 1, 3, 16), torch.uint8), torch.tensor([0, CLASSES, -1, 2])
    plan = plan_rows(*((k ^ 1, (0, 0, 2, 5), what if labels[k] in (0, 2) else Kind.cutmix) for k in range(4)))
    rest = plan, CLASSES, 0.1, torch.float32
    done = assert_as_reference(kind, "apply_" if in_place else "apply", images, labels, *rest)
    assert done.targets.isnan().all(1).tolist() == done.targets.isnan().any(1).tolist() == [False, True, True, False]


@every_kind
@pytest.mark.parametrize("classes", [0, 1, 3, 129, 1000, 1023, 2500])
def test_numbers_of_classes(kind, classes):
    """None, and more than a warp or a program writes; rows of targets that 16 bytes divide, and others."""
    images = random_images((3, 1, 4, 8))
    for dtype in (torch.float32, torch.float16):
        labels = soft_labels(3, classes) if classes in (0, 3, 129, 2500) else random_labels(3, classes)
        assert_as_reference(kind, "sample_and_apply", images, labels, *sampling(), classes, 0.1, dtype)


@every_kind
@pytest.mark.parametrize("classes", [2**31 - 1, 2**31 - 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_the_last_columns_of_the_most_classes(kind, classes, dtype):
    """The last 8192 columns of a row, of which there is no more memory than that."""
    columns = 1 + (classes - 1) % 8192
    plan, labels = plan_rows((0, (0, 0, 0, 0), Kind.keep)), torch.tensor([classes - 1])
    targets = torch.empty(1, classes, dtype=dtype, device="meta")
    device = Device()
    end = device.empty("targets", columns * dtype.itemsize, np.uint8)
    addresses = {
        "plan": device.buffer("plan", plan.numpy(), writable=False).address,
        "labels": device.buffer("labels", labels.numpy(), writable=False).address,
        "targets": end.address - (classes - columns) * dtype.itemsize,
    }
    if kind == "cuda":
        sizes = {"batch": 1, "height": MAX_INT32, "width": MAX_INT32, "num_classes": classes}
        typed = {"labels": (addresses["labels"], "int64"), "targets": (addresses["targets"], dtype_name(targets))}
        launch = bindings.load().launch_geometry(**sizes, plan=addresses["plan"], **typed)
        kernel, grid, last = (
            cuda_kernel(launch["kernel"], 80),
            launch["grid"],
            range(launch["grid"] - 1, launch["grid"]),
        )
        device.launch(kernel, grid, launch["block"], [launch["params"]], blocks=last)
    else:
        from cutmix_cuda.triton_kernels.launch import Labels, mix_launch

        names = {id(plan): "plan", id(labels): "labels", id(targets): "targets"}
        launch = mix_launch(1, MAX_INT32, MAX_INT32, plan, targets=Labels(labels, targets, 0.0))
        programs = launch.grid[0]
        larger = launch._replace(grid=(2 * programs, 1, 1))  # as where there are pixels for so many programs
        run_triton(larger, device, lambda tensor: addresses[names[id(tensor)]], 80, range(programs - 8, programs + 8))
    expected = torch.zeros(columns, dtype=dtype)
    expected[-1] = 1
    assert torch.equal(torch.from_numpy(end.numpy()).view(dtype), expected)
    assert end.defined()


# ---- Sizes

SIZES = {
    "one row": ((4, 3, 1, 40), torch.uint8),
    "one column": ((4, 3, 40, 1), torch.uint8),
    "one pixel": ((4, 3, 1, 1), torch.float32),
    "one sample": ((1, 3, 8, 8), torch.float32),
    "no pixels": ((3, 2, 0, 5), torch.float32),
    "no channels": ((3, 0, 4, 5), torch.float32),
    "masks": ((4, 9, 24), torch.uint8),
    "video": ((4, 2, 3, 5, 12), torch.int16),
    "many samples": ((301, 1, 2, 4), torch.float32),
    "rows longer than a block": ((2, 1, 5, 4112), torch.uint8),
    "rows of many narrow vectors": ((2, 1, 3, 601), torch.uint8),
    "several blocks a sample": ((2, 3, 64, 96), torch.float32),
    "several blocks a sample, narrow": ((3, 3, 70, 75), torch.uint8),
}


@every_kind
@every_place
@pytest.mark.parametrize(("shape", "dtype"), SIZES.values(), ids=SIZES)
def test_sizes(kind, shape, dtype, in_place):
    labels = random_labels(shape[0], CLASSES)
    how = sampling(placement=Placement.inside, bounds=bounds_for(dtype))
    op, rest = "sample_and_apply_" if in_place else "sample_and_apply", (CLASSES, 0.0, torch.float32, any_fill(dtype))
    assert_as_reference(kind, op, random_images(shape, dtype), labels, *how, *rest)


@every_kind
@every_place
@pytest.mark.parametrize("offset", [1, 2, 4, 8])
def test_images_that_begin_anywhere(kind, in_place, offset):
    """Rows of whole vectors, at an address that is not one."""
    storage = random_images((4 * 3 * 5 * 32 + 16,), torch.uint8)
    images = storage[offset : offset - 16].view(4, 3, 5, 32)
    op = "sample_and_apply_" if in_place else "sample_and_apply"
    how = sampling(bounds=EVERY_KIND)
    done = assert_as_reference(kind, op, images, None, *how, 0, 0.0, torch.float32, any_fill(torch.uint8))
    if kind == "cuda":
        assert done.launch["kernel"].endswith(f"<{offset}>")


# Views of 8 rows of 32 bytes, of which one stride alone is odd, or two: no vector is wider than a byte. With 16 slices
# the stride of a sample says nothing of the odd one of a slice.
ODD_STRIDES = {
    "row": lambda batch: random_images((batch, 16, 8, 33), torch.uint8)[..., :-1],
    "slice": lambda batch: random_images((batch, 16, 8 * 32 + 1), torch.uint8)[..., :-1].unflatten(-1, (8, 32)),
    "sample": lambda batch: random_images((batch, 16 * 8 * 32 + 1), torch.uint8)[:, :-1].unflatten(1, (16, 8, 32)),
    "none": lambda batch: random_images((batch, 16, 8, 32), torch.uint8),
}


@every_kind
@pytest.mark.parametrize(
    ("strides", "out_strides"),
    [("row", "none"), ("slice", "none"), ("sample", "none"), *(("none", odd) for odd in ("row", "slice", "sample"))],
)
def test_every_stride_counts_for_the_width_of_vectors(kind, strides, out_strides):
    images, out = ODD_STRIDES[strides](3), ODD_STRIDES[out_strides](3)
    how = sampling(placement=Placement.inside)
    done = assert_as_reference(kind, "sample_and_apply_out", images, None, *how, 0, 0.0, torch.float32, out)
    assert (done.launch["kernel"] == "mix_out_of_place<1>") if kind == "cuda" else (done.launch.options["WIDTH"] == 1)
    if out_strides == "none":
        assert_as_reference(kind, "sample_and_apply_", images, None, *how, 0, 0.0, torch.float32)


# ---- Other architectures


@every_kind
@pytest.mark.parametrize("architecture", [90, 100])
def test_architectures(kind, architecture):
    for op, dtype in (
        ("sample_and_apply", torch.uint8),
        ("sample_and_apply_", torch.bfloat16),
        ("sample_and_apply", torch.float16),
    ):
        images, labels = random_images((7, 3, 6, 48), dtype), random_labels(7, CLASSES)
        arguments = (labels, *sampling(bounds=EVERY_KIND), CLASSES, 0.1, torch.float32)
        assert_as_reference(kind, op, images, *arguments, architecture=architecture)


# ---- One launch a call


@needs_triton
def test_one_launch_a_call(monkeypatch):
    """The wrapper of the CUDA kernels is held to it where it runs without a GPU: tests/cpp/cuda_on_host.cpp."""
    from cutmix_cuda.triton_kernels.launch import Launch
    from cutmix_cuda.triton_kernels.ops import OPS

    launches: list[Launch] = []
    monkeypatch.setattr(Launch, "__call__", lambda launch, device: launches.append(launch))
    images, labels = random_images((4, 3, 6, 20)), random_labels(4, CLASSES)
    plan = reference.sample_plan(*sampling(), 4, 6, 20)
    wanted = (CLASSES, 0.1, torch.float32)
    calls = {
        "sample_plan": (*sampling(), 4, 6, 20),
        "mix_targets": (labels, plan, *wanted),
        "apply": (images, labels, plan, *wanted),
        "apply_out": (images, labels, plan, *wanted, images.clone()),
        "apply_": (images, labels, plan, *wanted),
        "sample_and_apply": (images, labels, *sampling(), *wanted),
        "sample_and_apply_out": (images, labels, *sampling(), *wanted, images.clone()),
        "sample_and_apply_": (images, labels, *sampling(), *wanted),
    }
    assert calls.keys() == OPS.keys()
    for number, (op, arguments) in enumerate(calls.items(), start=1):
        OPS[op](*arguments)
        assert len(launches) == number, op
