"""The module: where its boxes come from, and where it may stand in a training loop."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

import cutmix_cuda
from cutmix_cuda import CutMix, Mix
from cutmix_cuda._validation import INTEGER_DTYPES

from ..helpers import assert_same_bits, every_backend, generator, random_images, random_labels

IMAGES, LABELS = random_images((8, 3, 16, 20)), random_labels(8, 5)


@every_backend
@pytest.mark.parametrize("inplace", [False, True])
def test_is_the_function_with_a_drawn_seed(backend, inplace):
    settings = {"alpha": 0.5, "prob": 0.8, "scope": "pair", "placement": "inside", "label_smoothing": 0.1}
    images, labels = IMAGES.to(backend.device), LABELS.to(backend.device)
    module = CutMix(num_classes=5, inplace=inplace, backend=backend.name, **settings)
    torch.manual_seed(3)
    seed = torch.empty(1, dtype=torch.int64).random_()
    expected = cutmix_cuda.cutmix(images, labels, 5, seed=seed, backend=backend.name, **settings)
    torch.manual_seed(3)
    own = images.clone()
    mixed, targets = module(own, labels)
    assert_same_bits(mixed, expected[0])
    assert_same_bits(targets, expected[1])
    assert (mixed is own) == inplace
    if not inplace:
        assert_same_bits(own, images)


@every_backend
@pytest.mark.parametrize("inplace", [False, True])
def test_mix_is_the_function_with_a_drawn_seed(backend, inplace):
    settings = {"cutmix_alpha": 0.5, "mixup_alpha": 0.2, "cutout": 0.3, "cutout_area": 0.5, "fill": 7, "prob": 0.8}
    settings |= {"switch_prob": 0.4, "scope": "pair", "placement": "inside", "label_smoothing": 0.1}
    images, labels = random_images((8, 3, 16, 20), torch.uint8).to(backend.device), LABELS.to(backend.device)
    module = Mix(num_classes=5, inplace=inplace, backend=backend.name, **settings)
    torch.manual_seed(3)
    seed = torch.empty(1, dtype=torch.int64).random_()
    expected = cutmix_cuda.mix(images, labels, 5, seed=seed, backend=backend.name, **settings)
    torch.manual_seed(3)
    own = images.clone()
    mixed, targets = module(own, labels)
    assert_same_bits(mixed, expected[0])
    assert_same_bits(targets, expected[1])
    assert (mixed is own) == inplace
    assert not torch.equal(mixed, images)


@every_backend
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", INTEGER_DTYPES, ids=str)
def test_a_bad_label_is_refused_before_anything_is_drawn_or_written(backend, inplace, dtype):
    if backend.device != "cpu":
        pytest.skip("on a GPU nobody looks at labels, because the host would have to wait: their targets are NaN")
    module, images = CutMix(num_classes=5, inplace=inplace, backend=backend.name), IMAGES.clone()
    before = torch.get_rng_state()
    for bad in (5, torch.iinfo(dtype).min or 6, torch.iinfo(dtype).max):
        labels = torch.tensor([*LABELS.tolist()[:6], bad, 0], dtype=dtype)
        with pytest.raises(ValueError, match=rf"^labels must be in 0..4 \(num_classes=5\), got {bad} for sample 6$"):
            module(images, labels)
        assert_same_bits(images, IMAGES)
        assert torch.equal(torch.get_rng_state(), before)
    assert not module(images, LABELS.to(dtype))[1].isnan().any()


def test_draws_anew_from_the_default_generator_or_its_own():
    module = CutMix(num_classes=5)
    torch.manual_seed(3)
    first, second = module(IMAGES, LABELS)[0], module(IMAGES, LABELS)[0]
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert_same_bits(module(IMAGES, LABELS)[0], first)

    before = torch.get_rng_state()
    with_generator = [CutMix(num_classes=5, generator=generator(3))(IMAGES, LABELS)[0] for _ in range(2)]
    assert_same_bits(*with_generator)
    assert_same_bits(with_generator[0], first)
    assert torch.equal(torch.get_rng_state(), before)


def test_alpha_may_be_an_int():
    results = []
    for alpha in (1, 1.0, cutmix_cuda.distributions.Beta(1, 1)):
        torch.manual_seed(3)
        results.append(CutMix(num_classes=5, alpha=alpha)(IMAGES, LABELS)[0])
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


def test_has_the_arguments_of_the_function():
    """One more name in one of them is one too few in the other."""
    function = inspect.signature(cutmix_cuda.cutmix).parameters
    module = inspect.signature(CutMix).parameters
    of_a_call = {"images", "labels", "out", "return_plan"}
    assert set(module) - {"inplace", "reuse_output"} == set(function) - of_a_call
    assert all(module[name].default == function[name].default for name in set(module) - {"inplace", "reuse_output"})
    assert all(parameter.kind == parameter.KEYWORD_ONLY for parameter in module.values())
    in_place = inspect.signature(cutmix_cuda.cutmix_).parameters
    mix, mix_module = (inspect.signature(it).parameters for it in (cutmix_cuda.mix, Mix))
    of_patches = {"ricap", "ricap_beta", "resizemix", "resizemix_scale", "cutout_holes"}  # which no MixPlan can say
    assert set(mix_module) - {"inplace", "reuse_output"} == (set(mix) - of_a_call) | of_patches
    assert all(mix_module[name].default == mix[name].default for name in mix_module if name in mix)
    assert {**function}.keys() - {"out"} == in_place.keys()
    assert all(in_place[name].default == function[name].default for name in in_place)
    assert {**mix}.keys() - {"out"} == inspect.signature(cutmix_cuda.mix_).parameters.keys()


@every_backend
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("scope", ["sample", "pair", "batch"])
def test_mixup_and_cutout_are_mix_with_one_kind(backend, inplace, scope):
    images, labels = random_images((8, 3, 16, 20), torch.uint8).to(backend.device), LABELS.to(backend.device)
    every = {"num_classes": 5, "scope": scope, "seed": 3, "label_smoothing": 0.1, "inplace": inplace}
    every["backend"] = backend.name
    none = {"cutmix_alpha": None, "mixup_alpha": None}
    for transform, same in (
        (
            cutmix_cuda.MixUp(alpha=0.4, prob=0.8, partner="flip", **every),
            Mix(**{**none, "mixup_alpha": 0.4}, prob=0.8, partner="flip", **every),
        ),
        (
            cutmix_cuda.Cutout(area=0.5, prob=0.8, fill=7, placement="inside", **every),
            Mix(**none, cutout=0.8, cutout_area=0.5, fill=7, placement="inside", **every),
        ),
    ):
        for _ in range(3):
            own, other = images.clone(), images.clone()
            (mixed, targets, plan), expected = (
                transform(own, labels, return_plan=True),
                same(other, labels, return_plan=True),
            )
            assert_same_bits(mixed, expected[0])
            assert_same_bits(targets, expected[1])
            assert_same_bits(plan.packed, expected[2].packed)
            assert (mixed is own) == inplace
        assert set(plan.kind.tolist()) <= {0, {"MixUp": 2, "Cutout": 3}[type(transform).__name__]}


def test_says_what_it_is():
    text = repr(CutMix(num_classes=7, alpha=0.3, partner="flip", inplace=True))
    for part in ("CutMix(", "num_classes=7", "alpha=0.3", "partner='flip'", "inplace=True"):
        assert part in text
    assert repr(cutmix_cuda.Cutout(area=0.5)).startswith("Cutout(num_classes=None, area=0.5, prob=1.0, fill=0.0, ")
    text = repr(Mix(num_classes=7, mixup_alpha=0.3, cutout=0.1, fill=2.0))
    for part in ("Mix(", "num_classes=7", "cutmix_alpha=1.0", "mixup_alpha=0.3", "cutout=0.1", "fill=2.0"):
        assert part in text


def test_has_no_state():
    """Nothing to save, nothing to train, nothing that a checkpoint could lack."""
    module = CutMix(num_classes=5)
    assert not module.state_dict()
    assert not list(module.parameters())


def test_last_batch_of_an_epoch():
    """Odd, alone, or none at all: whatever a loader leaves over."""
    module = CutMix(num_classes=5)
    for batch in (7, 1, 0):
        mixed, targets = module(IMAGES[:batch], LABELS[:batch])
        assert mixed.shape == IMAGES[:batch].shape
        assert targets.shape == (batch, 5)
    mixed, targets = module(IMAGES[:1], LABELS[:1])
    assert_same_bits(mixed, IMAGES[:1])
    assert torch.equal(targets, torch.nn.functional.one_hot(LABELS[:1], 5).float())


class Collate:
    """Mixes in the workers of a loader."""

    def __init__(self) -> None:
        self.cutmix = CutMix(num_classes=8)

    def __call__(self, samples):
        return self.cutmix(*default_collate(samples))


def test_workers_of_a_loader_draw_apart():
    """Each worker has a seed of its own, and each epoch others: no two batches of equal images are mixed alike."""
    images = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 32, 32).repeat(4, 1, 1, 1)
    loader = DataLoader(
        TensorDataset(images, torch.arange(16) % 4),
        batch_size=4,
        num_workers=2,
        collate_fn=Collate(),
        generator=generator(0),
    )
    batches = [mixed for _ in range(2) for mixed, _ in loader]
    assert len(batches) == 8
    assert len({tuple(batch.flatten().tolist()) for batch in batches}) == 8
