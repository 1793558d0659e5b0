"""A plan in torch.save and torch.load, in exported programs, and wherever torch maps over nested tensors."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils import _pytree

import cutmix_cuda
from cutmix_cuda import MixPlan

from ..helpers import assert_same_bits, random_labels

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.export


def saved_and_loaded(record):
    file = io.BytesIO()
    torch.save(record, file)
    file.seek(0)
    return torch.load(file)  # weights_only, by default


def assert_same_plan(plan: MixPlan, expected: MixPlan) -> None:
    assert type(plan) is MixPlan
    assert_same_bits(plan.packed, expected.packed)
    assert (plan.height, plan.width) == (expected.height, expected.width)


@pytest.fixture
def plan() -> MixPlan:
    return cutmix_cuda.sample_plan(4, 8, 9, seed=3)


@pytest.mark.parametrize("copied", [saved_and_loaded, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_a_plan_is_what_was_saved(copied, plan):
    result = copied({"plan": plan})["plan"]
    assert_same_plan(result, plan)
    result.packed.zero_()
    assert plan.packed.any()


def test_what_is_loaded_is_checked(plan):
    packed = MixPlan._unchecked(plan.packed.float(), 8, 9)
    with pytest.raises(ValueError, match="packed must be int32"):
        saved_and_loaded(packed)


def test_torch_maps_over_the_parts_of_a_plan(plan):
    leaves, structure = _pytree.tree_flatten({"plan": plan})
    assert leaves == [plan.packed, 8, 9]
    assert _pytree.tree_unflatten(leaves, structure)["plan"].packed is plan.packed
    assert _pytree.tree_map(str, plan).height == "8"  # a placeholder, as tracers make them
    (path, _), *_ = _pytree.tree_flatten_with_path(plan)[0]
    assert _pytree.keystr(path) == ".packed"


class MixesImages(nn.Module):
    def forward(self, images, labels):
        return cutmix_cuda.cutmix(images, labels, 5, seed=1, return_plan=True)


class FollowsPlan(nn.Module):
    def forward(self, images, plan):
        return cutmix_cuda.mix_images(images, plan), plan.rescaled(4, 5)


BATCH, HEIGHT, WIDTH = (torch.export.Dim(name, min=2, max=999) for name in ("batch", "height", "width"))


def exported(module: nn.Module, arguments: tuple, dynamic_shapes: dict, strict: bool):
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, arguments, dynamic_shapes=dynamic_shapes, strict=strict), file)
    file.seek(0)
    return torch.export.load(file).module()


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_returns_a_plan(strict):
    sizes = {"images": {0: BATCH, 2: HEIGHT, 3: WIDTH}, "labels": {0: BATCH}}
    program = exported(MixesImages(), (torch.rand(4, 3, 8, 9), random_labels(4, 5)), sizes, strict)
    for shape in ((4, 3, 8, 9), (7, 3, 6, 5)):
        images, labels = torch.rand(shape), random_labels(shape[0], 5)
        *mixed, plan = program(images, labels)
        *expected, expected_plan = MixesImages()(images, labels)
        for a, b in zip(mixed, expected, strict=True):
            assert_same_bits(a, b)
        assert_same_plan(plan, expected_plan)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_takes_a_plan(strict, plan):
    sizes = {"images": {0: BATCH}, "plan": [{0: BATCH}, None, None]}
    program = exported(FollowsPlan(), (torch.rand(4, 3, 8, 9), plan), sizes, strict)
    for batch in (4, 7):
        images, given = torch.rand(batch, 3, 8, 9), cutmix_cuda.sample_plan(batch, 8, 9, seed=batch)
        mixed, rescaled = program(images, given)
        assert_same_bits(mixed, cutmix_cuda.mix_images(images, given))
        assert_same_plan(rescaled, given.rescaled(4, 5))
