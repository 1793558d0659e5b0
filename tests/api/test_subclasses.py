"""Tensors of subclasses: images keep their class, targets and plans are plain, and values as of plain tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torchvision import tv_tensors

import cutmix_cuda
from cutmix_cuda import CutMix, Mix, MixPlan

from ..helpers import assert_same_bits, every_backend, random_labels, soft_labels


class Picture(Tensor):
    """As fastai's, which knows of no other class."""


class Category(Tensor):
    """As fastai's."""


CALLS: dict[str, Any] = {
    "cutmix": lambda x, y: cutmix_cuda.cutmix(x, y, 5, seed=1, return_plan=True),
    "pairs": lambda x, y: cutmix_cuda.cutmix(x, y, 5, seed=1, targets="pairs"),
    "in place": lambda x, y: cutmix_cuda.cutmix_(x, y, 5, seed=1, return_plan=True),
    "mix": lambda x, y: cutmix_cuda.mix(x, y, 5, seed=1, cutout=0.3, fill=0.5),
    "transform": lambda x, y: CutMix(num_classes=5, seed=1)(x, y, return_plan=True),
    "transform in place": lambda x, y: Mix(num_classes=5, seed=1, inplace=True)(x, y),
    "images alone": lambda x, y: cutmix_cuda.cutmix(x, seed=1),
    "plan": lambda x, y: cutmix_cuda.apply_plan(x, y, cutmix_cuda.sample_plan(4, 8, 9, seed=1), 5),
    "plan in place": lambda x, y: cutmix_cuda.apply_plan_(x, y, cutmix_cuda.sample_plan(4, 8, 9, seed=1), 5),
    "pairs of a plan": lambda x, y: cutmix_cuda.apply_plan(
        x, y, cutmix_cuda.sample_plan(4, 8, 9, seed=1), targets="pairs"
    ),
    "plan from boxes": lambda x, y: cutmix_cuda.mix_images(
        x, MixPlan.from_boxes(y % 4, torch.tensor([[1, 2, 5, 7]] * 4).as_subclass(type(x)), 8, 9)
    ),
    "targets": lambda x, y: (x, cutmix_cuda.mix_targets(y, cutmix_cuda.sample_plan(4, 8, 9, seed=1), 5)),
    "seed": lambda x, y: cutmix_cuda.cutmix(x, y, 5, seed=torch.tensor([1]).as_subclass(Category)),
}


def parts(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("images_as", "labels_as"),
    [
        (Picture, Category),
        (Picture, Picture),
        (Picture, Tensor),
        (Tensor, Category),
        (tv_tensors.Image, Category),
    ],
    ids=lambda kind: kind.__name__,
)
def test_images_keep_their_class(call, images_as, labels_as):
    images, labels = torch.rand(4, 3, 8, 9), random_labels(4, 5)
    given = images.clone().as_subclass(images_as)
    result = CALLS[call](given, labels.clone().as_subclass(labels_as))
    expected = CALLS[call](images.clone(), labels)
    mixed, *others = parts(result)
    assert type(mixed) is images_as
    assert (mixed is given) == ("in place" in call or call == "targets")
    assert {type(part) for part in others} <= {Tensor}
    for part, expected_part in zip(parts(result), parts(expected), strict=True):
        assert_same_bits(part.as_subclass(Tensor), expected_part)
        assert part.stride() == expected_part.stride()


@every_backend
def test_out_is_of_any_class(backend):
    images, labels = torch.rand(4, 3, 8, 9).to(backend.device), soft_labels(4, 5).to(backend.device)
    out = torch.zeros_like(images).as_subclass(Category)
    given = images.as_subclass(Picture), labels.as_subclass(Category)
    mixed, targets = cutmix_cuda.cutmix(*given, seed=1, out=out, backend=backend.name)
    expected = cutmix_cuda.cutmix(images, labels, seed=1, backend=backend.name)
    assert mixed is out
    assert_same_bits(out.as_subclass(Tensor), expected[0])
    assert_same_bits(targets, expected[1])


def test_a_parameter_is_a_plain_tensor():
    images = nn.Parameter(torch.rand(4, 3, 8, 9), requires_grad=False)
    assert type(cutmix_cuda.cutmix(images, seed=1)[0]) is Tensor


def test_wrong_labels_of_a_class():
    with pytest.raises(ValueError, match="labels must be in 0..4"):
        cutmix_cuda.cutmix(torch.rand(2, 3, 8, 9).as_subclass(Picture), torch.tensor([0, 7]).as_subclass(Category), 5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
@pytest.mark.parametrize("images_as", [Picture, tv_tensors.Image])
def test_in_a_compiled_function(images_as):
    """torch.compile breaks its graph there, for it traces no such tensors through ops, and goes on."""
    torch._dynamo.reset()

    def mix(images, labels):
        return cutmix_cuda.cutmix(images, labels, 5, seed=1)

    images, labels = torch.rand(4, 3, 8, 9).as_subclass(images_as), random_labels(4, 5)
    compiled = torch.compile(mix, backend="aot_eager")
    (mixed, targets), (expected, expected_targets) = compiled(images, labels), mix(images, labels)
    assert type(mixed) is images_as
    assert_same_bits(mixed.as_subclass(Tensor), expected.as_subclass(Tensor))
    assert_same_bits(targets, expected_targets)


class Around(Tensor):
    """A tensor around another, whose operations are those of the other."""

    inner: Any
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor):
        around = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=inner.device
        )
        around.inner = inner
        return around

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        def inside(value):
            return value.inner if isinstance(value, Around) else value

        def outside(value):
            return Around(value) if isinstance(value, Tensor) else value

        return tree_map(outside, func(*tree_map(inside, args), **tree_map(inside, kwargs or {})))


@pytest.mark.parametrize("call", [call for call in CALLS if call not in ("plan from boxes", "targets", "seed")])
@pytest.mark.parametrize("which", ["images", "labels", "both"])
def test_tensors_around_others(call, which):
    """They have no values to look at, and are handed on to the op, whose dispatcher knows them."""
    images, labels = torch.rand(4, 3, 8, 9), random_labels(4, 5)
    given = [images.clone(), labels.clone()]
    if which in ("images", "both"):
        given[0] = Around(given[0])
    if which in ("labels", "both"):
        given[1] = Around(given[1])
    result, expected = CALLS[call](*given), CALLS[call](images, labels)
    for part, expected_part in zip(parts(result), parts(expected), strict=True):
        assert_same_bits(part.inner if isinstance(part, Around) else part, expected_part)
