"""Instead of torchvision's CutMix and MixUp: the same samples go through both, with the same box and lambda."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import subprocess
import sys
from typing import Any

import pytest
import scipy.stats
import torch
from PIL import Image as PILImage
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

import cutmix_cuda
from cutmix_cuda import MixPlan
from cutmix_cuda.compat import torchvision as compat

from ..api.test_seed import oracle as counted_seed
from ..helpers import assert_same_bits, every_backend, generator, random_images, random_labels, soft_labels

BATCH, CLASSES, SIZE = 5, 7, (15, 22)
PAIRS = [(compat.CutMix, v2.CutMix), (compat.MixUp, v2.MixUp)]
both = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["CutMix", "MixUp"])


def pixels(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Images of the range of uint8, so that the same can be had of each dtype."""
    values = torch.randn(shape, generator=generator(seed)) * 60 + 128
    return values.clamp(0, 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def plans(monkeypatch) -> list[MixPlan]:
    """The plans that the transforms draw, as they draw them."""
    drawn: list[MixPlan] = []
    run = compat.run

    def recorded(images, *args, **kwargs):
        mixed, targets, packed = run(images, *args, **kwargs)
        drawn.append(MixPlan(packed, *images.shape[-2:]))
        return mixed, targets, packed

    monkeypatch.setattr(compat, "run", recorded)
    return drawn


def drawing(transform: v2.Transform, plan: MixPlan) -> v2.Transform:
    """A transform of torchvision that draws what a plan of one box for all says."""
    y0, x0, y1, x1 = plan.boxes[0].tolist()
    lam = float(plan.lam[0])
    transform.make_params = lambda flat_inputs: {"box": (x0, y0, x1, y1), "lam_adjusted": lam, "lam": lam}
    return transform


def assert_same_trees(actual: Any, expected: Any) -> None:
    """The same structure, types and bits; everything that is no tensor is the same object."""
    leaves, structure = tree_flatten(actual)
    expected_leaves, expected_structure = tree_flatten(expected)
    assert structure == expected_structure
    for leaf, other in zip(leaves, expected_leaves, strict=True):
        assert type(leaf) is type(other)
        if isinstance(leaf, Tensor):
            assert_same_bits(leaf.as_subclass(Tensor), other.as_subclass(Tensor))
        else:
            assert leaf is other


# ---- Values


@every_backend
@pytest.mark.parametrize("size", [SIZE, (1, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8], ids=str)
@pytest.mark.parametrize("soft", [None, torch.float32, torch.float64], ids=str)
@both
def test_mixes_as_torchvision(backend, size, dtype, soft, ours, theirs, plans):
    images = pixels(BATCH, 3, *size, dtype=dtype)
    labels = random_labels(BATCH, CLASSES) if soft is None else soft_labels(BATCH, CLASSES, soft)
    mix = ours(num_classes=CLASSES, backend=backend.name)
    for _ in range(4):
        mixed, targets = mix(images.to(backend.device), labels.to(backend.device))
        peer = drawing(theirs(num_classes=CLASSES), plans[-1])
        if ours is compat.MixUp and dtype == torch.uint8:  # torchvision's raises; in float32 it is what it would round
            expected, expected_targets = peer(images.float(), labels)
            expected = expected.round().to(torch.uint8)
        else:
            expected, expected_targets = peer(images, labels)
        assert_same_bits(mixed, expected)
        assert_same_bits(targets, expected_targets)


@both
def test_mixes_by_what_torchvision_drew(ours, theirs, monkeypatch):
    """On 2^k pixels, where the double that is torchvision's lambda of CutMix is a float32."""
    images, labels = pixels(BATCH, 3, 16, 32), random_labels(BATCH, CLASSES)
    peer = theirs(num_classes=CLASSES)
    make_params = peer.make_params
    drawn = []
    monkeypatch.setattr(peer, "make_params", lambda inputs: drawn.append(make_params(inputs)) or drawn[-1])

    def follow(images, labels, num_classes, settings, *, backend, **_):
        x0, y0, x1, y1 = drawn[-1].get("box", (0, 0, 0, 0))
        lam = drawn[-1].get("lam", drawn[-1].get("lam_adjusted"))
        assert float(torch.tensor(lam)) == lam
        plan = MixPlan.from_boxes(
            torch.arange(BATCH).roll(1),
            torch.tensor([[y0, x0, y1, x1]]).expand(BATCH, 4),
            16,
            32,
            lam=torch.tensor(lam).expand(BATCH),
            kind=torch.full((BATCH,), 1 if ours is compat.CutMix else 2),
        )
        return *cutmix_cuda.apply_plan(images, labels, plan, num_classes, backend=backend), plan.packed

    monkeypatch.setattr(compat, "run", follow)
    for _ in range(10):
        expected = peer(images, labels)
        assert_same_trees(ours(num_classes=CLASSES)(images, labels), expected)
    assert len(drawn) == 10


def test_draws_from_the_distribution_of_torchvision(plans):
    """Lambda, and where a box begins and ends, of 600 draws of each."""
    images, labels = torch.zeros(2, 1, 40, 60), torch.zeros(2, dtype=torch.int64)
    peer, cutmix = v2.CutMix(num_classes=2, alpha=0.7), compat.CutMix(num_classes=2, alpha=0.7)
    theirs = []
    for _ in range(600):
        params = peer.make_params([images])
        theirs.append((params["lam_adjusted"], *params["box"]))
        cutmix(images, labels)
    ours = [(float(plan.lam[0]), *plan.boxes[0, [1, 0, 3, 2]].tolist()) for plan in plans]
    for mine, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        assert scipy.stats.ks_2samp(mine, other).pvalue > 1e-3


@every_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16], ids=str)
def test_mixup_rounds_once(backend, dtype, plans):
    """The formula in float32: two exact roundings of each product and of their sum, and one to the dtype."""
    images, labels = pixels(BATCH, 3, *SIZE, dtype=dtype), random_labels(BATCH, CLASSES)
    mix = compat.MixUp(num_classes=CLASSES, backend=backend.name)
    mixed, targets = mix(images.to(backend.device), labels.to(backend.device))
    lam = plans[0].lam[0].cpu()
    exact = lam * images.float() + (1 - lam) * images.float().roll(1, 0)
    assert_same_bits(mixed, (exact.round() if dtype == torch.uint8 else exact).to(dtype))
    assert targets.dtype == torch.float32
    one_hot = torch.eye(CLASSES)[labels]
    assert_same_bits(targets, lam * one_hot + (1 - lam) * one_hot.roll(1, 0))


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_soft_labels_keep_their_dtype(ours, theirs, dtype, plans):
    """torchvision rounds half precision three times; ours is rounded once."""
    images, labels = pixels(BATCH, 3, *SIZE), soft_labels(BATCH, CLASSES, dtype)
    targets = ours()(images, labels)[1]
    lam = plans[0].lam[0]
    assert targets.dtype == drawing(theirs(), plans[0])(images, labels)[1].dtype
    assert_same_bits(targets, (lam * labels.float() + (1 - lam) * labels.float().roll(1, 0)).to(dtype))


@both
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool], ids=str)
def test_one_hot_labels_of_other_dtypes(ours, theirs, dtype, plans):
    images, labels = pixels(BATCH, 3, *SIZE), torch.eye(CLASSES)[random_labels(BATCH, CLASSES)].to(dtype)
    targets = ours(num_classes=CLASSES)(images, labels)[1]
    assert_same_bits(targets, drawing(theirs(), plans[0])(images, labels)[1])


@both
def test_class_indices_of_any_integer_dtype(ours, theirs):
    images, labels = pixels(BATCH, 3, *SIZE), random_labels(BATCH, CLASSES)
    mix = ours(num_classes=CLASSES)
    torch.manual_seed(0)
    expected = mix(images, labels)
    for dtype in (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.uint64):
        torch.manual_seed(0)
        assert_same_trees(mix(images, labels.to(dtype)), expected)


@both
@pytest.mark.parametrize("batch", [0, 1])
def test_hardly_a_batch(ours, theirs, batch):
    """A single sample is its own partner."""
    images, labels = pixels(batch, 3, *SIZE), random_labels(batch, CLASSES)
    one_hot = torch.eye(CLASSES)[labels]
    assert_same_trees(ours(num_classes=CLASSES)(images, labels), (images, one_hot))


@both
def test_keeps_the_memory_format(ours, theirs, plans):
    images = pixels(BATCH, 3, *SIZE).to(memory_format=torch.channels_last)
    labels = random_labels(BATCH, CLASSES)
    mixed, targets = ours(num_classes=CLASSES)(tv_tensors.Image(images), labels)
    assert mixed.stride() == images.stride()
    expected = drawing(theirs(num_classes=CLASSES), plans[0])(tv_tensors.Image(images), labels)
    assert_same_trees((mixed, targets), expected)


# ---- Samples

LABELS, SOFT = random_labels(BATCH, CLASSES), soft_labels(BATCH, CLASSES)
IMAGES, OTHERS = pixels(BATCH, 3, *SIZE), pixels(BATCH, 1, *SIZE, seed=1)
IMAGE, OTHER = tv_tensors.Image(IMAGES), tv_tensors.Image(OTHERS)
VIDEO = tv_tensors.Video(pixels(BATCH, 2, 3, *SIZE, seed=2))


class Custom(tv_tensors.TVTensor):
    """A type that torchvision knows nothing of."""


SAMPLES = {
    "pair": (IMAGES, LABELS),
    "list": [IMAGES, LABELS],
    "soft": (IMAGES, SOFT),
    "image": (IMAGE, LABELS),
    "video": (VIDEO, LABELS),
    "dict": {"images": IMAGES, "LABELS": LABELS},
    "dict of similar names": {"images": IMAGE, "a_Label_too": LABELS, "other label": OTHERS},
    "dict of both names": {"images": IMAGE, "label": OTHERS, "Labels": LABELS},
    "dict second": (IMAGES, {"labels": LABELS, "boxes": None, "path": ["a", "b"]}),
    "more than two": (IMAGE, LABELS, "name", {"a": 3.5}),
    "only the first unmarked": ([IMAGES, OTHERS], LABELS, OTHERS),
    "unmarked beside marked": ({"x": IMAGES, "image": IMAGE}, LABELS),
    "all that are marked": ({"image": IMAGE, "video": VIDEO, "other": OTHER}, LABELS),
    "nested": ([[{"deep": (IMAGE,)}, None]], {"label": LABELS, "ids": LABELS.clone()}),
    "labels before marked": {"labels": LABELS, "image": IMAGE},
    "custom type": (IMAGES, LABELS, Custom(torch.zeros(BATCH, 3))),
}


@both
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_samples_go_in_and_out_as_torchvisions(sample, ours, theirs, plans):
    mixed = ours(num_classes=CLASSES)(sample)
    expected = drawing(theirs(num_classes=CLASSES), plans[0])(sample)
    assert_same_trees(mixed, expected)
    before, after = tree_flatten(sample)[0], tree_flatten(mixed)[0]
    passed = [leaf is own for leaf, own in zip(after, before, strict=True)]
    assert passed == [leaf is own for leaf, own in zip(tree_flatten(expected)[0], before, strict=True)]
    assert not all(passed)
    if isinstance(sample, tuple):  # as arguments of their own
        assert type(ours(num_classes=CLASSES)(*sample)) is type(theirs(num_classes=CLASSES)(*sample))


def deep_labels(sample):
    return sample["deep"][1]


@both
def test_labels_getter(ours, theirs, plans):
    sample = {"labels": OTHERS.clone(), "deep": [IMAGE, LABELS]}
    mixed = ours(num_classes=CLASSES, labels_getter=deep_labels)(sample)
    assert mixed["labels"] is sample["labels"]
    expected = drawing(theirs(num_classes=CLASSES, labels_getter=deep_labels), plans[0])(sample)
    assert_same_trees(mixed, expected)


@both
def test_labels_are_never_taken_for_the_images(ours, theirs, plans):
    """torchvision's mixes the first tensor as it comes: labels that stand before the images, and no image."""
    images, targets = ours()(IMAGES, SOFT)
    for sample in ({"labels": SOFT, "images": IMAGES}, {"labels": LABELS, "images": IMAGES}):
        mixed = ours(num_classes=CLASSES)(sample)
        expected = drawing(theirs(num_classes=CLASSES), plans[-1])((IMAGES, sample["labels"]))
        assert_same_trees((mixed["images"], mixed["labels"]), expected)


MASK_DTYPES = [torch.uint8, torch.bool, torch.int64, torch.float32]


@every_backend
@pytest.mark.parametrize("dtype", MASK_DTYPES, ids=str)
@pytest.mark.parametrize("scope", ["batch", "sample"])
def test_cutmix_of_masks(backend, dtype, scope, plans):
    """Masks are cut by the boxes of their images: pasted pixels are the partner's, of whatever number of classes."""
    device = backend.device
    masks = [random_images((BATCH, *dims, *SIZE), dtype, seed=3).to(device) for dims in [(), (1,), (2, 3)]]
    cutmix = compat.CutMix(num_classes=CLASSES, scope=scope, backend=backend.name)
    sample = IMAGES.to(device), LABELS.to(device), *(tv_tensors.Mask(mask) for mask in masks)
    mixed, targets, *mixed_masks = cutmix(sample)
    if scope == "batch":
        expected = drawing(v2.CutMix(num_classes=CLASSES), plans[0])(IMAGES, LABELS)
        assert_same_trees((mixed.cpu(), targets.cpu()), expected)
    boxes = plans[0].boxes.tolist()
    assert len(set(map(tuple, boxes))) == (1 if scope == "batch" else BATCH)
    for mask, result in zip(masks, mixed_masks, strict=True):
        assert type(result) is tv_tensors.Mask
        expected = mask.clone()
        for i, (y0, x0, y1, x1) in enumerate(boxes):
            expected[i, ..., y0:y1, x0:x1] = mask[i - 1, ..., y0:y1, x0:x1]
        assert_same_bits(result.as_subclass(Tensor), expected)


def test_the_backend_asked_for_mixes_everything(monkeypatch):
    used = []
    for name in ("run", "mix_images"):
        function = getattr(compat, name)
        monkeypatch.setattr(
            compat,
            name,
            lambda *args, backend, function=function, **how: (
                used.append(backend) or function(*args, backend=backend, **how)
            ),
        )
    compat.CutMix(num_classes=CLASSES, backend="reference")([IMAGE, OTHER], LABELS)
    assert used == ["reference", "reference"]


def test_cutmix_of_masks_alone(plans):
    """A mask is mixed where the sample has no image."""
    mask = tv_tensors.Mask(torch.arange(BATCH).reshape(BATCH, 1, 1).expand(BATCH, *SIZE))
    mixed, targets = compat.CutMix(num_classes=CLASSES, labels_getter=lambda sample: sample[1])(mask, SOFT)
    height, width = SIZE
    share = (mixed == mask).double().mean(dim=(1, 2))
    torch.testing.assert_close(share, plans[0].lam.double(), rtol=0, atol=1e-6)
    assert_same_bits(targets, drawing(v2.CutMix(), plans[0])(torch.zeros(BATCH, 1, *SIZE), SOFT)[1])


def test_segmentation_has_no_labels(plans):
    """Images and masks, and nothing to call labels: torchvision finds none, and asked for none it fails."""
    mask = tv_tensors.Mask(random_images((BATCH, *SIZE), torch.uint8))
    cutmix = compat.CutMix(scope="sample", labels_getter=None)
    for sample in ((IMAGE, mask), (IMAGES, mask), {"images": IMAGES, "masks": mask}):
        mixed = tree_flatten(cutmix(sample))[0]
        assert len(mixed) == 2
        for after, before in zip(mixed, (IMAGES, mask), strict=True):
            assert_same_bits(after.as_subclass(Tensor), cutmix_cuda.mix_images(before.as_subclass(Tensor), plans[-1]))
    assert len(plans) == 3
    with pytest.raises(ValueError, match="^plan must be for the 4 samples of images, got one for 5$"):
        cutmix(IMAGES, tv_tensors.Mask(mask[1:]))


def test_mixup_of_images_of_other_sizes(plans):
    """There is no box to fit."""
    sample = ([IMAGE, tv_tensors.Image(pixels(BATCH, 3, 4, 9))], LABELS)
    mixed = compat.MixUp(num_classes=CLASSES)(sample)
    assert_same_trees(mixed, drawing(v2.MixUp(num_classes=CLASSES), plans[0])(sample))


# ---- Beyond torchvision's arguments


@pytest.mark.parametrize("scope", ["batch", "sample", "pair"])
@pytest.mark.parametrize("partner", ["roll", "mirror"])
@pytest.mark.parametrize("kind", ["CutMix", "MixUp"])
def test_is_the_function_of_the_package(scope, partner, kind):
    how = {"scope": scope, "partner": partner, "label_smoothing": 0.1}
    only = {"cutmix_alpha": 0.4, "mixup_alpha": 0} if kind == "CutMix" else {"cutmix_alpha": 0, "mixup_alpha": 0.4}
    expected = cutmix_cuda.mix(IMAGES, LABELS, CLASSES, generator=generator(3), **only, **how)
    mix = getattr(compat, kind)(alpha=0.4, num_classes=CLASSES, generator=generator(3), **how)
    assert_same_trees(mix(IMAGES, LABELS), expected)
    assert mix.scope == scope


@both
def test_random_numbers(ours, theirs):
    """torch.manual_seed reproduces them; a generator leaves torch's own alone."""
    mix = ours(num_classes=CLASSES)
    torch.manual_seed(5)
    first, second = mix(IMAGES, LABELS), mix(IMAGES, LABELS)
    assert not torch.equal(first[0], second[0])
    torch.manual_seed(5)
    assert_same_trees(mix(IMAGES, LABELS), first)
    state = torch.get_rng_state()
    assert_same_trees(ours(num_classes=CLASSES, generator=generator(5))(IMAGES, LABELS), first)
    assert torch.equal(torch.get_rng_state(), state)


@both
def test_alpha_may_be_an_int(ours, theirs):
    """torchvision builds a distribution of integers of it."""
    results = []
    for alpha in (1, 1.0):
        torch.manual_seed(5)
        results.append(ours(alpha=alpha, num_classes=CLASSES)(IMAGES, LABELS))
    assert_same_trees(*results)


@both
def test_a_counted_seed(ours, theirs):
    """Each call is the function with the next seed; the count is saved; torch's own generator is left alone."""
    mix = ours(num_classes=CLASSES, seed=3)
    only = {"cutmix_alpha" if ours is compat.MixUp else "mixup_alpha": None}
    state = torch.get_rng_state()
    for count in range(3):
        expected = cutmix_cuda.mix(
            IMAGES, LABELS, CLASSES, seed=counted_seed(3, count), scope="batch", partner="roll", **only
        )
        assert_same_trees(mix(IMAGES, LABELS), expected)
    assert torch.equal(torch.get_rng_state(), state)
    resumed = ours(num_classes=CLASSES, seed=4)
    resumed.load_state_dict(mix.state_dict())
    assert_same_trees(resumed(IMAGES, LABELS), mix(IMAGES, LABELS))
    assert ours().state_dict() == {}


@both
def test_ranks_draw_apart_by_a_seed(ours, theirs, monkeypatch):
    """And alike without, if they were seeded alike, as torchvision's."""
    for seed, apart in ((3, True), (None, False)):
        drawn = []
        for rank in range(2):
            monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            torch.manual_seed(0)
            mix = ours(num_classes=CLASSES, seed=seed)
            drawn.append(torch.stack([mix(IMAGES, LABELS)[0] for _ in range(3)]))
        assert torch.equal(*drawn) == (not apart)


# ---- torchvision's hooks


class SetParams:
    """A box and lambda of one's own. On 2^k pixels they are float32."""

    def make_params(self, flat_inputs):
        self.seen = flat_inputs
        return {"box": (3, 2, 9, 11), "lam_adjusted": 0.25, "lam": 0.625}


class LessOfOwn:
    """What torchvision draws, with half of its lambda."""

    def make_params(self, flat_inputs):
        params = super().make_params(flat_inputs)
        return {name: value / 2 if name.startswith("lam") else value for name, value in params.items()}


class SetTransform(SetParams):
    """Leaves labels alone and shows what it is called with."""

    def transform(self, inpt, params):
        self.called_with = [*getattr(self, "called_with", []), (inpt, sorted(params), params["batch_size"])]
        return inpt if inpt is params["labels"] else super().transform(inpt, params) + 1


def hooked(hooks: type, base: type, **how: Any) -> Any:
    return type("Hooked", (hooks, base), {})(num_classes=CLASSES, **how)


HOOKED_SAMPLES = {
    "pair": (pixels(BATCH, 3, 16, 32), LABELS),
    "soft": (pixels(BATCH, 3, 16, 32), SOFT),
    "dict": {"images": tv_tensors.Image(pixels(BATCH, 3, 16, 32)), "labels": LABELS, "other": OTHERS},
    "types": (
        tv_tensors.Image(pixels(BATCH, 3, 16, 32)),
        tv_tensors.Video(pixels(BATCH, 2, 3, 16, 32)),
        LABELS,
        Custom(torch.zeros(BATCH, 3)),
    ),
    "one": (pixels(1, 3, 16, 32), LABELS[:1]),
    "none": (pixels(0, 3, 16, 32), LABELS[:0]),
}


@every_backend
@both
@pytest.mark.parametrize("hooks", [SetParams, SetTransform])
@pytest.mark.parametrize("sample", HOOKED_SAMPLES.values(), ids=HOOKED_SAMPLES)
def test_overridden_hooks_do_what_they_do_in_torchvision(backend, sample, hooks, ours, theirs):
    """They are given the same, and what they return is followed."""
    labels_getter = (lambda sample: sample[2]) if len(sample) == 4 else "default"
    sample = tree_map(lambda leaf: leaf.to(backend.device), sample)
    mine = hooked(hooks, ours, labels_getter=labels_getter, backend=backend.name)
    peer = hooked(hooks, theirs, labels_getter=labels_getter)
    assert_same_trees(tree_map(Tensor.cpu, mine(sample)), tree_map(Tensor.cpu, peer(sample)))
    assert_same_trees(mine.seen, [leaf for leaf in peer.seen if type(leaf) is not Custom])
    if hooks is SetTransform:
        assert_same_trees(mine.called_with, peer.called_with)


@both
@pytest.mark.parametrize("seed", [None, 3])
def test_a_hook_may_ask_for_what_is_drawn(ours, theirs, seed, plans):
    """It is what would have been drawn without it."""
    images = pixels(BATCH, 3, 16, 32)
    plain, mine = ours(num_classes=CLASSES, seed=seed), hooked(LessOfOwn, ours, seed=seed)
    for call in range(10):
        torch.manual_seed(call)
        plain(images, LABELS)
        torch.manual_seed(call)
        mixed = mine(images, LABELS)
        drawn = drawing(theirs(), plans[-1]).make_params([])
        peer = theirs(num_classes=CLASSES)
        halves = {name: value if name == "box" else value / 2 for name, value in drawn.items()}
        peer.make_params = lambda _, halves=halves: halves
        assert_same_trees(mixed, peer(images, LABELS))
    assert len(plans) == 10


@both
def test_hooks_of_an_instance_count_too(ours, theirs):
    images = pixels(BATCH, 3, 16, 32)
    mine, peer = ours(num_classes=CLASSES), theirs(num_classes=CLASSES)
    mine.make_params = peer.make_params = SetParams().make_params
    assert_same_trees(mine(images, LABELS), peer(images, LABELS))
    del mine.make_params
    assert not torch.equal(mine(images, LABELS)[0], peer(images, LABELS)[0])


def test_hooks_are_of_one_box_for_all():
    """And what they return has to fit."""
    for how in ({"scope": "sample"}, {"partner": "mirror"}):
        with pytest.raises(
            ValueError, match="^scope must be 'batch' and partner 'roll' where make_params or transform"
        ):
            hooked(SetParams, compat.CutMix, **how)(IMAGES, LABELS)
    for params in ({"box": (0, 0, 23, 3), "lam_adjusted": 0.5}, {"box": (0, 0, 2, 3), "lam_adjusted": 1.5}):
        mix = compat.CutMix(num_classes=CLASSES)
        mix.make_params = lambda _, params=params: params
        with pytest.raises(ValueError, match="^plan must have"):
            mix(IMAGES, LABELS)


@both
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("hooks", [None, SetParams])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
def test_in_one_graph(ours, theirs, seed, hooks):
    torch._dynamo.reset()
    results = []
    for compiler in (lambda mix: mix, torch.compile(fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        mix = compiler(ours(num_classes=CLASSES, seed=seed) if hooks is None else hooked(hooks, ours, seed=seed))
        results.append([mix(IMAGES, LABELS) for _ in range(3)])
    torch.testing.assert_close(*results, rtol=0, atol=0)


# ---- In a training script


@both
def test_is_a_transform_of_torchvision(ours, theirs):
    signature, peer = inspect.signature(ours), inspect.signature(theirs)
    for name, parameter in peer.parameters.items():
        assert (signature.parameters[name].kind, signature.parameters[name].default) == (
            parameter.kind,
            parameter.default,
        )
    assert all(parameter.kind == parameter.KEYWORD_ONLY for parameter in signature.parameters.values())
    mix = ours(alpha=2, num_classes=CLASSES)
    assert isinstance(mix, v2.Transform)
    assert repr(mix).startswith(repr(theirs(alpha=2, num_classes=CLASSES))[:-1])
    assert "scope=batch, partner=roll" in repr(mix)
    for again in (pickle.loads(pickle.dumps(mix)), copy.deepcopy(mix)):
        assert repr(again) == repr(mix)
        torch.manual_seed(5)
        expected = mix(IMAGES, LABELS)
        torch.manual_seed(5)
        assert_same_trees(again(IMAGES, LABELS), expected)


def test_inside_torchvisions_containers():
    """Targets are of the samples that the pixels are of. At alpha = 50 no box is empty."""
    cutmix, mixup = (mix(alpha=50, num_classes=CLASSES) for mix in (compat.CutMix, compat.MixUp))
    coded = torch.eye(BATCH).reshape(BATCH, BATCH, 1, 1).expand(BATCH, BATCH, 8, 8)  # a channel of one for each sample
    for container in (
        v2.RandomChoice([cutmix, mixup]),
        v2.Compose([v2.RandomHorizontalFlip(p=1.0), cutmix]),
        v2.RandomApply([mixup], p=1.0),
        v2.RandomOrder([cutmix]),
    ):
        mixed, targets = container(tv_tensors.Image(coded), LABELS)
        assert type(mixed) is tv_tensors.Image
        one_hot = torch.eye(CLASSES)[LABELS]
        torch.testing.assert_close(targets, mixed.as_subclass(Tensor).mean(dim=(2, 3)) @ one_hot)
        assert not torch.equal(targets, one_hot)
    untouched = v2.RandomApply([mixup], p=0.0)(coded, LABELS)
    assert untouched[0] is coded and untouched[1] is LABELS
    chained = v2.Compose([cutmix, mixup])(IMAGES, LABELS)
    torch.testing.assert_close(chained[1].sum(dim=1), torch.ones(BATCH))


class Collate:
    """What torchvision's users write around a transform of batches."""

    def __init__(self) -> None:
        self.mix = v2.RandomChoice([compat.CutMix(num_classes=CLASSES), compat.MixUp(num_classes=CLASSES)])

    def __call__(self, samples):
        return self.mix(*default_collate(samples))


def test_in_the_workers_of_a_loader():
    loader = DataLoader(
        TensorDataset(IMAGES.repeat(4, 1, 1, 1), LABELS.repeat(4)),
        batch_size=BATCH,
        num_workers=2,
        collate_fn=Collate(),
        generator=generator(0),
    )
    batches = list(loader)
    assert len({tuple(targets.flatten().tolist()) for _, targets in batches}) == len(batches) == 4
    assert all(images.shape == IMAGES.shape for images, _ in batches)


def test_packages_are_imported_when_asked_for():
    """Neither by cutmix_cuda, nor by the replacement of the other's."""
    check = (
        "import sys, cutmix_cuda, cutmix_cuda.compat.timm; "
        "assert not {'torchvision', 'timm'} & {name.split('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


# ---- Errors

BOXES = tv_tensors.BoundingBoxes(torch.zeros(BATCH, 4), format="XYXY", canvas_size=SIZE)
WRONG = {
    "labels of no name": ({"images": IMAGES, "y": LABELS},),
    "labels in no place": (IMAGES, "labels"),
    "no second item": ((IMAGES,),),
    "labels are no tensor": ({"images": IMAGES, "labels": [1, 2]},),
    "labels of three dimensions": (IMAGES, torch.zeros(BATCH, CLASSES, 1)),
    "labels of no dimension": (IMAGES, torch.tensor(1)),
    "other number of classes": (IMAGES, torch.zeros(BATCH, CLASSES + 1)),
    "image of three dimensions": (IMAGES[:, 0], LABELS),
    "image of five dimensions": (IMAGES[None], LABELS),
    "image of one dimension": (IMAGES[:, 0, 0, 0], LABELS),
    "video of four dimensions": (tv_tensors.Video(IMAGES), LABELS),
    "other batch size": (IMAGES[1:], LABELS),
    "one of two of other batch size": ([IMAGE, tv_tensors.Image(OTHERS[1:])], LABELS),
}


def error_of(transform, *inputs) -> tuple[type[BaseException], str]:
    with pytest.raises(Exception) as caught:  # noqa: B017
        transform(*inputs)
    return caught.type, str(caught.value)


@both
@pytest.mark.parametrize("inputs", WRONG.values(), ids=WRONG)
def test_fails_as_torchvision(inputs, ours, theirs):
    assert error_of(ours(num_classes=CLASSES), *inputs) == error_of(theirs(num_classes=CLASSES), *inputs)


@both
def test_fails_as_torchvision_by_its_arguments(ours, theirs, monkeypatch):
    # torch.compile switches off, for the whole process, the checks that torchvision leaves to torch.distributions.
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)
    for name, value in [("labels_getter", "second"), ("labels_getter", 1)]:
        assert error_of(lambda: ours(**{name: value})) == error_of(lambda: theirs(**{name: value}))  # noqa: B023
    assert error_of(ours(), IMAGES, LABELS) == error_of(theirs(), IMAGES, LABELS)
    for alpha in (0, 0.0, -1.0, math.nan):
        assert error_of(lambda: ours(alpha=alpha))[0] is error_of(lambda: theirs(alpha=float(alpha)))[0]  # noqa: B023


def test_fails_as_torchvision_on_sizes():
    for sample in (([IMAGE, tv_tensors.Image(pixels(BATCH, 3, 4, 9))], LABELS),):
        assert error_of(compat.CutMix(num_classes=CLASSES), *sample) == error_of(
            v2.CutMix(num_classes=CLASSES), *sample
        )


@pytest.mark.parametrize("extra", [PILImage.new("RGB", (3, 3)), BOXES, tv_tensors.Mask(torch.zeros(BATCH, *SIZE))])
def test_mixup_refuses_as_torchvision(extra):
    inputs = IMAGES, LABELS, extra
    assert error_of(compat.MixUp(num_classes=CLASSES), *inputs) == error_of(v2.MixUp(num_classes=CLASSES), *inputs)


KEYPOINTS = tv_tensors.KeyPoints(torch.zeros(BATCH, 2), canvas_size=SIZE)


@pytest.mark.parametrize("extra", [PILImage.new("RGB", (3, 3)), BOXES, KEYPOINTS])
def test_cutmix_refuses_all_but_masks(extra):
    with pytest.raises(ValueError, match=r"^CutMix\(\) does not support PIL images, bounding boxes and keypoints\.$"):
        compat.CutMix(num_classes=CLASSES)(IMAGES, LABELS, extra)


@both
def test_errors_of_our_own(ours, theirs):
    mix = ours(num_classes=CLASSES)
    with pytest.raises(TypeError, match="^No image or video was found in the sample$"):
        mix({"labels": LABELS})
    with pytest.raises(ValueError, match="^labels_getter must return a tensor of the sample itself, not a copy"):
        ours(num_classes=CLASSES, labels_getter=lambda sample: sample[1].long().clone())(IMAGES, LABELS)
    with pytest.raises(ValueError, match=rf"^labels must be in 0\.\.{CLASSES - 1} .* got {CLASSES} for sample 0"):
        mix(IMAGES, torch.full_like(LABELS, CLASSES))
    with pytest.raises(ValueError, match="^alpha must be positive and finite, got 0$"):
        ours(alpha=0)
    with pytest.raises(ValueError, match="^num_classes must be positive, got 0$"):
        ours(num_classes=0)
    with pytest.raises(ValueError, match="^scope must be one of 'sample', 'pair', 'batch', got 'images'$"):
        ours(scope="images")
    with pytest.raises(ValueError, match="^partner must be one of"):
        ours(partner="next")
    with pytest.raises(ValueError, match="^label_smoothing must be in"):
        ours(label_smoothing=2.0)
    with pytest.raises(TypeError, match="^generator must be a torch.Generator or None, got int$"):
        ours(generator=3)
    with pytest.raises(ValueError, match="^backend must be one of"):
        ours(backend="gpu")


@both
def test_refuses_what_torchvision_mixes(ours, theirs):
    """Tensors that require grad, and a number of classes that torchvision finds out by itself."""
    soft = torch.nn.functional.one_hot(LABELS, CLASSES).float()
    for name, sample in {
        "images": (IMAGES.clone().requires_grad_(), LABELS),
        "labels": (IMAGES, soft.requires_grad_()),
    }.items():
        theirs(num_classes=CLASSES)(*sample)
        with pytest.raises(ValueError, match=f"^{name} must not require grad"):
            ours(num_classes=CLASSES)(*sample)
    theirs(num_classes=-1)(IMAGES, LABELS)
    with pytest.raises(ValueError, match="^num_classes must be positive, got -1$"):
        ours(num_classes=-1)


def test_masks_have_to_fit():
    cutmix = compat.CutMix(num_classes=CLASSES)
    with pytest.raises(ValueError, match=r"^The batch size of the mask does not match .* of the labels: 4 != 5\.$"):
        cutmix(IMAGES, LABELS, tv_tensors.Mask(torch.zeros(BATCH - 1, *SIZE)))
    with pytest.raises(ValueError, match=r"^Found multiple HxW dimensions in the sample: '\(15, 22\)', '\(22, 15\)'$"):
        cutmix(IMAGES, LABELS, tv_tensors.Mask(torch.zeros(BATCH, *reversed(SIZE))))


def test_mixup_of_integers_has_no_mean():
    with pytest.raises(TypeError, match="^images must be of dtype uint8, .* got torch.int64"):
        compat.MixUp(num_classes=CLASSES)(IMAGES.long(), LABELS)
