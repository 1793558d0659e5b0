"""The compiled kernels of the batch tail, executed with the launches that a user's calls make, against the reference.

As test_ptx_kernels.py: the interpreter in tests/ptx raises at the first access out of bounds, race, or use of what was
never written. tests/ops/test_augment.py holds the reference itself to an oracle.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cutmix_cuda import reference_augment
from cutmix_cuda._ops import EraseOrder, EraseValue, Kind, MemoryFormat, Partner, ViewChoices, ViewParameters

from ..helpers import assert_same_bits, random_labels
from .augment_execution import Augmented, augment_call, execute_augment
from .execution import UNIFORM, bounds_of, needs_cuda
from .test_ptx_kernels import assert_same_targets, poisoned, surroundings

pytestmark = needs_cuda

SEED = torch.tensor([20200207])
EVERY_KIND = (0.3, 0.6, 0.8)  # bounds: cutmix, mixup, cutout, and the rest is kept
CLASSES = 5
ASPECTS = (torch.linspace(0.3, 3.3, 4097) / 3.3)[None]
PLAIN = ViewParameters(), ViewChoices()
EVERYTHING = (
    ViewParameters(flip_below=0.5, erase_below=0.8, min_area=0.05, max_area=0.4, max_aspect=3.3),
    ViewChoices(translate_y=2, translate_x=3, min_boxes=1, max_boxes=2),
)
FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def some_images(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8, layout: int = 0) -> Tensor:
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8) if dtype == torch.uint8 else (images / 16 - 7).to(dtype)
    return images.contiguous(memory_format=MemoryFormat(layout).of_torch)


def some_constants(channels: int) -> Tensor:
    numbers = torch.linspace(0.2, 1.4, channels)
    return torch.stack([100 * numbers, 0.017 / numbers, numbers - 1, -numbers])


def draw_of(bounds: tuple[float, ...] = EVERY_KIND, partner: Partner = Partner.mirror) -> tuple:
    return SEED, UNIFORM, list(bounds), [0, partner.value, 0, 1]


def views_of(how: tuple, colours: Any = None) -> tuple:
    return ASPECTS if how[1].max_boxes else ASPECTS[:0], colours, list(how[0]), list(how[1])


def assert_as_reference(op: str, *arguments: Any, architecture: int = 80, seed_on_device: bool = False) -> Augmented:
    """A call gives the reference's images, targets, plan and views, writes all of them, and nothing around images."""
    call = augment_call(op, *arguments)
    done = execute_augment(call, architecture, seed_on_device)
    out = None if call.out is None else torch.empty_strided(call.out.shape, call.out.stride(), dtype=call.out.dtype)
    if op.endswith("_out"):
        arguments = *arguments[:-1], out
    results: Any = getattr(reference_augment, op)(*arguments)
    names = {
        "sample_views": ("views",),
        "augment": ("out", "targets", "plan", "views"),
        "augment_out": ("targets", "plan", "views"),
        "apply_views": ("out", "targets"),
        "apply_views_out": ("targets",),
    }[op]
    named = {"out": out} | dict(zip(names, results if len(names) > 1 else (results,), strict=True))
    for name in ("plan", "views"):
        if name in named:
            assert_same_bits(getattr(done, name), named[name])
    if call.targets is not None:
        assert_same_targets(done.targets, named["targets"])
    if call.out is not None:
        assert_same_bits(done.out, named["out"])
        assert torch.equal(surroundings(done.out), surroundings(poisoned(call.out)))
    return done


def augment(
    images: Tensor,
    *,
    bounds: tuple[float, ...] = EVERY_KIND,
    how: tuple = EVERYTHING,
    erasing: tuple[int, int] = (0, 0),
    dtype: torch.dtype = torch.float32,
    layout: int = 0,
    partner: Partner = Partner.mirror,
    labels: Any = None,
    **options: Any,
) -> Augmented:
    """A call of augment as the reference does it."""
    labels = random_labels(images.shape[0], CLASSES) if labels is None else labels
    rest = CLASSES, 0.1, torch.float32, some_constants(images.shape[1]), list(erasing), dtype, layout
    return assert_as_reference("augment", images, labels, *draw_of(bounds, partner), *views_of(how), *rest, **options)


SHAPES = [(8, 3, 6, 9), (7, 1, 9, 5), (1, 4, 5, 5), (5, 5, 3, 17), (4, 16, 7, 4), (2, 3, 1, 1), (3, 3, 40, 30)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_everything_at_once(shape):
    augment(some_images(shape))


@pytest.mark.parametrize("order", list(EraseOrder), ids=lambda order: order.name)
@pytest.mark.parametrize("value", list(EraseValue), ids=lambda value: value.name)
@pytest.mark.parametrize("width", [7, 32])
def test_every_kind_and_way_to_erase(width, value, order):
    for kind in Kind:
        augment(some_images((5, 3, 6, width)), bounds=bounds_of(kind), erasing=(value, order))
    augment(some_images((5, 6, 6, width)), erasing=(value, order))
