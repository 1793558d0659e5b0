"""Bad input to Augment and its parts: the error names the argument, what came and what is valid; nothing is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchvision import tv_tensors

import cutmix_cuda
from cutmix_cuda import Augment, Colour, CutMix, Erase, Mix, MixPlan, Views, augment, normalize_images, sample_views

from ..helpers import assert_same_bits, every_backend, random_images

SHAPE = (4, 3, 6, 9)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
images = random_images(SHAPE, torch.uint8)
floats = torch.rand(SHAPE)
plan = cutmix_cuda.sample_plan(4, 6, 9, seed=1)
views = sample_views(4, 6, 9, seed=1)
normalizing = Augment(mean=MEAN, std=STD)


def out_of(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def normalize(given: Any = images, mean: Any = MEAN, std: Any = STD, **how: Any) -> Callable[[], object]:
    return lambda: normalize_images(given, mean, std, **how)


def made(**how: Any) -> Callable[[], object]:
    return lambda: Augment(**how)


def spoilt_views(*place_and_value: int) -> Views:
    packed = views.packed.clone()
    *place, value = place_and_value
    packed[tuple(place)] = value
    return Views(packed, 6, 9)


CASES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    # ---- constructors
    "mean alone": (made(mean=0.5), ValueError, "mean and std must be given together"),
    "std alone": (made(std=0.5), ValueError, "mean and std must be given together"),
    "std zero": (made(mean=0.5, std=(1.0, 0.0)), ValueError, "std must be positive"),
    "std tiny": (made(mean=0.5, std=1e-40), ValueError, "std must be positive, and a normal number of float32"),
    "mean infinite": (made(mean=float("inf"), std=1), ValueError, "mean must be a finite number"),
    "mean empty": (made(mean=(), std=1), ValueError, "mean must be a finite number"),
    "mean text": (made(mean="imagenet", std=1), TypeError, "mean must be a number"),
    "flip": (made(flip=1.5), ValueError, "flip must be in [0, 1]"),
    "translate negative": (made(translate=-1), ValueError, "translate must not be negative"),
    "translate float": (made(translate=0.1), TypeError, "translate must be an int"),
    "translate three": (made(translate=(1, 2, 3)), ValueError, "translate must be a number of pixels, or two"),
    "erase": (made(erase=0.25), TypeError, "erase must be an Erase or None, got float"),
    "colour": (made(colour=0.4), TypeError, "colour must be a Colour or None, got float"),
    "matrices of a module": (made(colour=torch.eye(3, 4)), TypeError, "colour must be a Colour or None, got Tensor"),
    "brightness": (lambda: Colour(brightness=-0.5), ValueError, "brightness must be a finite number that is not"),
    "contrast": (lambda: Colour(contrast=(1.5, 0.5)), ValueError, "contrast must be a finite number that is not"),
    "saturation": (lambda: Colour(saturation=float("inf")), ValueError, "saturation must be a finite number that is"),
    "saturation of three": (lambda: Colour(saturation=(0, 1, 2)), TypeError, "saturation must be two numbers"),  # type: ignore[arg-type]
    "greyscale": (lambda: Colour(greyscale=1.5), ValueError, "greyscale must be in [0, 1]"),
    "dtype": (made(dtype=torch.float64), ValueError, "dtype must be one of uint8, float16, bfloat16, float32"),
    "dtype of bytes": (made(mean=0, std=1, dtype=torch.uint8), ValueError, "dtype must be a float dtype"),
    "memory format": (made(memory_format=torch.channels_last_3d), ValueError, "memory_format must be"),
    "layout": (made(layout="CHW"), ValueError, "layout must be 'NCHW' or 'NHWC', got 'CHW'"),
    "mix": (made(mix=0.5), TypeError, "mix must be a CutMix, Mix, MixUp, Cutout or None, got float"),
    "mix with a seed": (made(mix=CutMix(seed=1)), ValueError, "mix must have no seed of its own"),
    "mix in place": (made(mix=Mix(inplace=True)), ValueError, "mix must not be in place"),
    "mix of a backend": (made(mix=CutMix(backend="reference")), ValueError, "mix must have no backend of its own"),
    "seed and generator": (made(seed=1, generator=torch.Generator()), ValueError, "generator must be None"),
    "backend": (made(backend="gpu"), ValueError, "backend must be one of"),
    "erase prob": (lambda: Erase(2.0), ValueError, "prob must be in [0, 1]"),
    "erase scale": (lambda: Erase(scale=(0.4, 0.3)), ValueError, "scale must be two fractions of the image"),
    "erase one scale": (lambda: Erase(scale=0.3), TypeError, "scale must be two numbers"),  # type: ignore[arg-type]
    "erase ratio": (lambda: Erase(ratio=(0.0, 1.0)), ValueError, "ratio must be two positive, finite numbers"),
    "erase count": (lambda: Erase(count=(3, 1)), ValueError, "count must be the least and greatest"),
    "erase many": (lambda: Erase(count=1025), ValueError, "count must be at most 1024"),
    "erase half a box": (lambda: Erase(count=0.5), TypeError, "count must be an int"),  # type: ignore[arg-type]
    "erase value": (lambda: Erase(value="random"), ValueError, "value must be a number, one for each channel"),  # type: ignore[arg-type]
    "erase order": (lambda: Erase(order="first"), ValueError, "order must be one of 'before', 'after'"),  # type: ignore[arg-type]
    "erase splits": (lambda: Erase(num_splits=-2), ValueError, "num_splits must not be negative"),
    "timm mode": (lambda: Erase.as_in_timm(mode="blur"), ValueError, "mode must be one of 'const', 'rand', 'pixel'"),
    # ---- calls
    "no tensor": (normalize([1]), TypeError, "images must be a tensor, got list"),
    "three dimensions": (normalize(images[0]), ValueError, "images must have 4 dimensions"),
    "video": (normalize(images[None]), ValueError, "images must have 4 dimensions"),
    "integers": (normalize(images.long()), TypeError, "images must be of dtype uint8, float16, bfloat16, float32"),
    "doubles": (
        normalize(floats.double()),
        TypeError,
        "to be normalised, cast, moved, coloured or erased, got torch.float64",
    ),
    "classes": (
        normalize(tv_tensors.Mask(images)),
        TypeError,
        "images must not be a tv_tensors.Mask to be normalised, cast, moved, coloured or erased",
    ),
    "grad": (normalize(floats.clone().requires_grad_()), ValueError, "images must not require grad"),
    "channels": (normalize(images[:, :2]), ValueError, "mean must be one number, or one for each of the 2 channels"),
    "channels of std": (normalize(mean=0.5, std=(1, 2)), ValueError, "std must be one number, or one for each"),
    "channels of value": (
        lambda: augment(images, erase=Erase(value=(1, 2))),
        ValueError,
        "value of erase must be one number, or one for",
    ),
    "channels of colour": (
        lambda: augment(images[:, :2], colour=Colour(0.4)),
        ValueError,
        "images must have 3 channels, red, green and blue, for colour, got 2",
    ),
    "matrices of another batch": (
        lambda: augment(images, colour=torch.zeros(3, 3, 4)),
        ValueError,
        "colour must be of shape (4, 3, 4), a matrix for each sample, got (3, 3, 4)",
    ),
    "matrices of doubles": (
        lambda: augment(images, colour=torch.zeros(4, 3, 4).double()),
        TypeError,
        "colour must be of dtype float32, got torch.float64",
    ),
    "matrices elsewhere": (
        lambda: augment(images, colour=torch.zeros(4, 3, 4, device="meta")),
        ValueError,
        "colour must be on the device of images, cpu, got meta",
    ),
    "matrices made by hand": (
        lambda: Views.make(4, 6, 9, colour=torch.zeros(4, 3, 3)),
        ValueError,
        "colour must be of shape (4, 3, 4)",
    ),
    "coloured views of two channels": (
        lambda: Augment().apply_plan(images[:, :2], views=Views.make(4, 6, 9, colour=torch.zeros(4, 3, 4))),
        ValueError,
        "images must have 3 channels, red, green and blue, for colour, got 2",
    ),
    "packed without colours": (
        lambda: Views(views.packed, 6, 9, coloured=True),
        ValueError,
        "packed must be int32 of shape (batch, 4 + boxes, 4)",
    ),
    "floats to bytes": (
        lambda: augment(floats, dtype=torch.uint8),
        ValueError,
        "dtype must be a float dtype for float",
    ),
    "noise in bytes": (
        lambda: augment(images, erase=Erase(value="pixel")),
        ValueError,
        "value of erase must be a number for images that",
    ),
    "value in bytes": (
        lambda: augment(images, erase=Erase(value=-1)),
        ValueError,
        "value of erase must be whole and in 0..255",
    ),
    "fill in bytes": (
        lambda: augment(images, None, Mix(cutout=1.0, fill=0.5), flip=1.0),
        ValueError,
        "fill of mix must be whole and in",
    ),
    "out dtype": (normalize(out=out_of(torch.float16)), ValueError, "out must have the dtype asked for, torch.float32"),
    "out shape": (normalize(out=out_of(shape=(4, 3, 9, 6))), ValueError, "out must have the shape of images"),
    "out overlaps itself": (
        normalize(out=torch.zeros(4, 1, 6, 9).expand(SHAPE)),
        ValueError,
        "out must not overlap itself",
    ),
    "out overlaps images": (normalize(floats, out=floats), ValueError, "out must not overlap images"),
    "labels": (
        lambda: augment(images, torch.arange(3), CutMix(num_classes=5), flip=0.5),
        ValueError,
        "labels must have one entry",
    ),
    "label": (
        lambda: augment(images, torch.tensor([0, 1, 7, 2]), CutMix(num_classes=5), flip=0.5),
        ValueError,
        "labels must be in 0..4 (num_classes=5), got 7 for sample 2",
    ),
    # ---- plans and views
    "plan of another size": (
        lambda: normalizing.apply_plan(images, None, cutmix_cuda.sample_plan(4, 6, 8)),
        ValueError,
        "plan must be for",
    ),
    "no plan": (lambda: normalizing.apply_plan(images, None, plan.packed), TypeError, "plan must be a MixPlan"),  # type: ignore[call-overload]
    "no views": (lambda: normalizing.apply_plan(images, None, plan, plan), TypeError, "views must be Views"),  # type: ignore[call-overload]
    "views of another size": (
        lambda: normalizing.apply_plan(images, views=sample_views(4, 9, 6)),
        ValueError,
        "views must be for 4 images",
    ),
    "views outside": (
        lambda: normalizing.apply_plan(images, views=spoilt_views(2, 0, 1, 7)),
        ValueError,
        "sample 2 has [[",
    ),
    "flip of 2": (lambda: spoilt_views(1, 0, 0, 2).check(), ValueError, "views must have flip 0 or 1"),
    "packed": (lambda: Views(plan.packed, 6, 9), ValueError, "packed must be int32 of shape (batch, 1 + boxes, 4)"),
    "packed list": (lambda: Views([], 6, 9), TypeError, "packed must be a tensor, got list"),  # type: ignore[arg-type]
    "flip of integers": (lambda: Views.make(2, 4, 4, flip=torch.ones(2).long()), TypeError, "flip must be of bool"),
    "flip of another batch": (
        lambda: Views.make(3, 4, 4, flip=torch.ones(2).bool()),
        ValueError,
        "flip must be of shape (3,), got (2,)",
    ),
    "offsets": (
        lambda: Views.make(1, 4, 4, offset=torch.tensor([[0, 5]])),
        ValueError,
        "offsets within -4..4 and -4..4",
    ),
    "boxes outside": (
        lambda: Views.make(1, 4, 4, erased=torch.tensor([[[0, 0, 5, 4]]])),
        ValueError,
        "boxes 0 <= y0 <= y1 <= 4",
    ),
    "boxes of too many": (
        lambda: Views.make(1, 4, 4, erased=torch.tensor([[[0, 0, 2**40, 4]]])),
        ValueError,
        "boxes 0 <= y0 <= y1 <= 4",
    ),
    "boxes of objects": (lambda: views.move_boxes([torch.zeros(1, 4)]), ValueError, "boxes must be for the 4 samples"),
    "boxes of integers": (
        lambda: views.move_boxes([torch.zeros(1, 4).long()] * 4),
        TypeError,
        "boxes must be float tensors",
    ),
    "box of three": (lambda: views.move_boxes([torch.zeros(1, 3)] * 4), ValueError, "boxes must be of shape (n, 4)"),
    "masks of another size": (lambda: views.apply(images[..., :8]), ValueError, "views must be for 4 images of height"),
    "sizes": (lambda: sample_views(-1, 6, 9), ValueError, "batch_size must not be negative"),
}


@pytest.mark.parametrize("name", CASES)
def test_error(name):
    call, error, says = CASES[name]
    before = [tensor.clone() for tensor in (images, floats, plan.packed, views.packed)]
    with pytest.raises(error, match=re.escape(says)):
        call()
    for tensor, copied in zip((images, floats, plan.packed, views.packed), before, strict=True):
        assert_same_bits(tensor, copied)


@every_backend
def test_nothing_is_written_where_an_error_is_raised(backend):
    out = torch.full(SHAPE, 7.0, device=backend.device)
    given = images.to(backend.device)
    labels = torch.tensor([0, 1, 7, 2], device=backend.device)
    mix = CutMix(num_classes=5)
    if backend.device == "cpu":
        with pytest.raises(ValueError, match="labels must be in"):
            augment(given, labels, mix, mean=MEAN, std=STD, out=out, backend=backend.name)
    with pytest.raises(ValueError, match="mean must be one number"):
        augment(given, None, mix, mean=MEAN[:2], std=STD[:2], out=out, backend=backend.name)
    assert (out == 7.0).all()


@every_backend
def test_the_ops_check_again(backend):
    """A direct call of an op does not lead outside a tensor; the reference, plain PyTorch, raises what that raises."""
    if backend.name == "reference":
        pytest.skip("torch's own operations check")
    ops = cutmix_cuda._backends.ops_for(backend.name, torch.device(backend.device))
    good: dict[str, Any] = {
        "images": images.to(backend.device),
        "labels": None,
        "plan": plan.packed.to(backend.device),
        "views": views.packed.to(backend.device),
        "coloured": False,
        "seed": torch.tensor([1]),
        "num_classes": 0,
        "label_smoothing": 0.0,
        "target_dtype": torch.float32,
        "constants": torch.zeros(4, 3),
        "erasing": [0, 0],
        "dtype": torch.float32,
        "memory_format": 0,
    }
    ops.apply_views(*good.values())
    bad = {
        "images": good["images"].double(),
        "plan": good["plan"][:3],
        "views": good["views"][..., :3],
        "coloured": True,
        "seed": torch.tensor([1, 2]),
        "constants": torch.zeros(4, 2),
        "erasing": [3, 0],
        "dtype": torch.float64,
        "memory_format": 2,
    }
    for name, value in bad.items():
        with pytest.raises(RuntimeError, match="must"):
            ops.apply_views(*(good | {name: value}).values())
    tables = torch.zeros(1, 4097, device=backend.device)
    parameters, choices = [0.5, 0.5, 0.1, 0.3, 2.0, *[0.5, 1.5] * 3, 0.1], [1, 1, 1, 2, 0, 1]
    ops.sample_views(torch.tensor([1]), 4, 6, 9, tables, None, parameters, choices)
    for colours in (torch.zeros(3, 3, 4), torch.zeros(4, 3, 3), torch.zeros(4, 3, 4).double()):
        with pytest.raises(RuntimeError, match="colours must be"):
            ops.sample_views(torch.tensor([1]), 4, 6, 9, tables, colours.to(backend.device), parameters, choices)
    for spoilt in (
        (tables[:, :9], parameters, choices),
        (tables[:0], parameters, choices),
        (tables, parameters[:11], choices),
        (tables, parameters, choices[:5]),
        (tables, parameters, [1, 1, 2, 1, 0, 0]),
        (tables, parameters, [1, 1, 0, 1025, 0, 0]),
        (tables, parameters, [-1, 1, 1, 2, 0, 0]),
        (tables, parameters, [1, 1, 1, 2, 0, 2]),
    ):
        with pytest.raises(RuntimeError, match="must"):
            ops.sample_views(torch.tensor([1]), 4, 6, 9, spoilt[0], None, *spoilt[1:])


def test_plans_of_other_kinds_are_refused_by_name():
    assert isinstance(plan, MixPlan)
    with pytest.raises(TypeError, match=r"plan must be a MixPlan, got Views"):
        normalizing.apply_plan(images, None, views)
