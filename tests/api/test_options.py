"""The options of functions and transforms: what their signatures say is what a call takes and does."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import cutmix_cuda

from ..helpers import assert_same_bits, generator, random_images, random_labels

SAMPLING = {"scope": "sample", "partner": "mirror", "placement": "clip", "correct_lam": True}
TARGETS = {"label_smoothing": 0.0, "target_dtype": torch.float32, "targets": "dense"}
CUTMIX = {"alpha": 1.0, "prob": 1.0, **SAMPLING}
KINDS = {
    "cutmix_alpha": 1.0,
    "mixup_alpha": 1.0,
    "cutout": 0.0,
    "cutout_area": 0.25,
    "fill": 0.0,
    "prob": 1.0,
    "switch_prob": 0.5,
}
PATCHES = {
    "ricap": 0.0,
    "ricap_beta": 0.3,
    "resizemix": 0.0,
    "resizemix_scale": cutmix_cuda.distributions.Uniform(0.1, 0.8),
    "cutout_holes": 1,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "cutmix": {**CUTMIX, **TARGETS},
    "cutmix_": {**CUTMIX, **TARGETS},
    "mix": {**KINDS, **SAMPLING, **TARGETS},
    "mix_": {**KINDS, **SAMPLING, **TARGETS},
    "CutMix": {**CUTMIX, **TARGETS},
    "Mix": {**KINDS, **SAMPLING, **TARGETS, **PATCHES},
    "MixUp": {"alpha": 1.0, "prob": 1.0, "scope": "sample", "partner": "mirror", **TARGETS},
    "Cutout": {"area": 0.25, "prob": 1.0, "fill": 0.0, "holes": 1, "scope": "sample", "placement": "clip", **TARGETS},
    "sample_plan": CUTMIX,
    "apply_plan": TARGETS,
    "apply_plan_": TARGETS,
}
every_name = pytest.mark.parametrize("name", OPTIONS)


def results_of(name: str, **options: Any) -> list[torch.Tensor]:
    """What a function or transform gives for a batch."""
    images, labels = random_images((6, 3, 8, 9), torch.uint8), random_labels(6, 5)
    function = getattr(cutmix_cuda, name)
    if name == "sample_plan":
        return [function(6, 8, 9, seed=3, **options).packed]
    if name[0].isupper():
        return list(function(num_classes=5, seed=3, **options)(images, labels))
    how = {"seed": 3}
    given: tuple[Any, ...] = images, labels
    if name.startswith("apply_plan"):
        how, given = {}, (images, labels, cutmix_cuda.sample_plan(6, 8, 9, seed=3))
    return list(function(*given, num_classes=5, **how, **options))


@every_name
def test_signature(name):
    """Names, defaults and types, for help and completion; the options stand before what else goes by name alone."""
    function = getattr(cutmix_cuda, name)
    parameters = inspect.signature(function).parameters
    by_name = {key: each for key, each in parameters.items() if each.kind == inspect.Parameter.KEYWORD_ONLY}
    assert all(each.kind != inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    expected = OPTIONS[name]
    assert {key: each.default for key, each in list(by_name.items())[: len(expected)]} == expected
    for each in parameters.values():
        assert each.annotation is not inspect.Parameter.empty and not isinstance(each.annotation, str), each
    assert "backend" in by_name and "self" not in parameters


@every_name
def test_the_defaults_are_those_of_the_signature(name):
    for given, implied in zip(results_of(name, **OPTIONS[name]), results_of(name), strict=True):
        assert_same_bits(given, implied)


@every_name
def test_an_unknown_option_is_named(name):
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'label_smooth'; the options are .*"):
        results_of(name, label_smooth=0.1)


def test_every_option_counts():
    """Another value gives another result."""
    other = {
        **{"alpha": 0.3, "prob": 0.4, "scope": "batch", "partner": "roll", "placement": "inside", "correct_lam": False},
        **{"label_smoothing": 0.2, "target_dtype": torch.float64, "targets": "pairs"},
        **{
            "cutmix_alpha": None,
            "mixup_alpha": 0.2,
            "cutout": 0.7,
            "cutout_area": 0.5,
            "area": 0.5,
            "fill": 7.0,
            "holes": 3,
            "switch_prob": 0.0,
            "ricap": 0.5,
            "ricap_beta": 4.0,
            "resizemix": 0.5,
            "resizemix_scale": 0.5,
            "cutout_holes": 3,
        },
    }
    needed = {**dict.fromkeys(["cutout_area", "fill", "cutout_holes"], "cutout"), "ricap_beta": "ricap"}
    needed |= {"resizemix_scale": "resizemix"}
    for name, options in OPTIONS.items():
        for option in options:
            if name in ("cutmix_", "mix_") and option == "partner":
                continue
            base = {needed[option]: 0.5} if needed.get(option) in options else {}
            before, after = results_of(name, **base), results_of(name, **base, **{option: other[option]})
            same = len(before) == len(after) and all(
                isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
                for a, b in zip(before, after, strict=True)
            )
            assert not same, (name, option)


def test_settings_that_are_remembered_are_those_of_the_call():
    """Equal numbers of another type, options that cannot be hashed, and ones that differ from the last call's."""
    images = torch.rand(4, 3, 8, 8, generator=generator(1))
    cutmix_cuda.cutmix(images, prob=1, seed=0)
    with pytest.raises(TypeError, match="prob"):
        cutmix_cuda.cutmix(images, prob=True, seed=0)
    with pytest.raises(ValueError, match="scope"):
        cutmix_cuda.cutmix(images, scope=["sample"], seed=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'scop'"):
        cutmix_cuda.cutmix(images, scop="sample", seed=0)
    for prob in (0.0, 1.0, 0.0):
        assert torch.equal(cutmix_cuda.cutmix(images, prob=prob, seed=0)[0], images) == (prob == 0.0)
