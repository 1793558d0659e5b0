"""Tensors without values to look at: fake ones, those of tracers, and the examples of torch.vmap."""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.utils.flop_counter
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import cutmix_cuda
from cutmix_cuda import CutMix, MixPlan, _backends, reference
from cutmix_cuda.compat.timm import Mixup

from ..helpers import assert_same_bits, generator

BATCH, CLASSES, HEIGHT, WIDTH = 4, 5, 8, 9
IMAGES, LABELS = torch.rand(BATCH, 3, HEIGHT, WIDTH), torch.tensor([3, 0, 4, 3])


def plan() -> MixPlan:
    return cutmix_cuda.sample_plan(BATCH, HEIGHT, WIDTH, seed=1)


OUT_OF_PLACE: dict[str, Callable[[Tensor, Tensor], object]] = {
    "dense": lambda x, y: cutmix_cuda.cutmix(x, y, CLASSES, seed=1),
    "pairs": lambda x, y: tuple(cutmix_cuda.cutmix(x, y, CLASSES, seed=1, targets="pairs")[1]),
    "kinds": lambda x, y: cutmix_cuda.mix(x, y, CLASSES, seed=1, cutout=0.3, fill=0.5),
    "module": lambda x, y: CutMix(seed=1, num_classes=CLASSES)(x, y),
    "plan": lambda x, y: cutmix_cuda.apply_plan(x, y, plan(), CLASSES),
    "pairs of a plan": lambda x, y: tuple(cutmix_cuda.apply_plan(x, y, plan(), targets="pairs")[1]),
    "boxes": lambda x, y: cutmix_cuda.apply_plan(
        x, y, MixPlan.from_boxes(y.flip(0) % BATCH, torch.tensor([[1, 2, 5, 7]] * BATCH), HEIGHT, WIDTH), CLASSES
    ),
    "rescaled": lambda x, y: cutmix_cuda.mix_images(x[..., ::2, ::3], plan().rescaled(4, 3)),
    "targets": lambda x, y: cutmix_cuda.mix_targets(y, plan(), CLASSES),
    "masks": lambda x, y: cutmix_cuda.mix_images((x[:, 0] * 9).long(), plan()),
}
BY_BITS_OF_LAM = ("pairs", "pairs of a plan", "boxes")
IN_PLACE: dict[str, Callable[[Tensor, Tensor], object]] = {
    "in place": lambda x, y: cutmix_cuda.cutmix_(x.clone(), y, CLASSES, seed=1),
    "out": lambda x, y: cutmix_cuda.cutmix(x, y, CLASSES, seed=1, out=torch.empty_like(x)),
    "plan in place": lambda x, y: cutmix_cuda.apply_plan_(x.clone(), y, plan(), CLASSES),
}
CALLS = OUT_OF_PLACE | IN_PLACE


def tensors(result: object) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)  # type: ignore[call-overload]


@pytest.mark.parametrize("call", CALLS)
def test_fake_tensors_have_the_real_ones_shapes(call):
    expected = tensors(CALLS[call](IMAGES, LABELS))
    with FakeTensorMode() as mode:
        fakes = tensors(CALLS[call](mode.from_tensor(IMAGES), mode.from_tensor(LABELS)))
    assert len(fakes) == len(expected)
    for fake, real in zip(fakes, expected, strict=True):
        assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())


@pytest.mark.parametrize("tracing_mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("call", CALLS)
def test_a_traced_call_is_the_call(call, tracing_mode):
    traced = make_fx(CALLS[call], tracing_mode=tracing_mode)(IMAGES, LABELS)
    images, labels = IMAGES.flip(0) + 1, LABELS.roll(1)
    for actual, expected in zip(tensors(traced(images, labels)), tensors(CALLS[call](images, labels)), strict=True):
        assert_same_bits(actual, expected)


def vmap_knows_views() -> bool:
    try:
        torch.vmap(lambda bits: bits.view(torch.float32))(torch.zeros(2, 3, dtype=torch.int32))
    except RuntimeError:
        return False
    return True


needs_views = pytest.mark.skipif(not vmap_knows_views(), reason="this torch has no vmap of view(dtype)")


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("over", ["images", "labels", "both"])
@pytest.mark.parametrize(
    "call", [pytest.param(call, marks=needs_views if call in BY_BITS_OF_LAM else ()) for call in OUT_OF_PLACE]
)
def test_examples_of_vmap_are_calls(call, over):
    images = torch.stack([IMAGES, IMAGES.flip(0)]) if over != "labels" else IMAGES
    labels = torch.stack([LABELS, LABELS.roll(1)]) if over != "images" else LABELS
    dims = (None if over == "labels" else 0, None if over == "images" else 0)
    results = tensors(torch.vmap(lambda x, y: tuple(tensors(CALLS[call](x, y))), in_dims=dims)(images, labels))
    for example in range(2):
        given = images[example] if over != "labels" else IMAGES, labels[example] if over != "images" else LABELS
        for result, expected in zip(results, tensors(CALLS[call](*given)), strict=True):
            assert_same_bits(result[example], expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("from_generator", [False, True])
def test_randomness_of_vmap(from_generator):
    """ "different" draws for each example, as calls one after the other do; "same" draws once."""
    images = torch.rand(3, BATCH, 3, HEIGHT, WIDTH)

    def mixed(randomness: str) -> Tensor:
        torch.manual_seed(7)
        draws = generator(7) if from_generator else None
        return torch.vmap(lambda x: cutmix_cuda.cutmix(x, generator=draws)[0], randomness=randomness)(images)

    torch.manual_seed(7)
    draws = generator(7) if from_generator else None
    apart = [cutmix_cuda.cutmix(each, generator=draws)[0] for each in images]
    assert_same_bits(mixed("different"), torch.stack(apart))
    draws = generator(7)
    plan = cutmix_cuda.sample_plan(BATCH, HEIGHT, WIDTH, generator=draws)
    assert_same_bits(mixed("same"), torch.stack([cutmix_cuda.mix_images(each, plan) for each in images]))
    with pytest.raises(RuntimeError, match="randomness"):
        mixed("error")


def test_labels_are_looked_at_under_other_modes():
    """A mode that only watches hides no values."""
    with torch.utils.flop_counter.FlopCounterMode(display=False), pytest.raises(ValueError, match="labels must be in"):
        cutmix_cuda.cutmix(IMAGES, LABELS + 4, CLASSES)


class NoMembers(TorchFunctionMode):
    """Finds operations on a tensor and a member of an enumeration."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        values = tree_leaves((args, kwargs or {}))
        self.found |= {f"{func.__name__}: {value!r}" for value in values if isinstance(value, enum.IntEnum)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("call", CALLS)
def test_no_tensor_meets_a_member_of_an_enumeration(call, monkeypatch):
    """torch.compile takes a comparison of the two for one of objects, and its result for False."""
    monkeypatch.setitem(_backends._OPS, None, SimpleNamespace(**reference.OPS))  # with the reference's own operations
    with NoMembers() as mode:
        CALLS[call](IMAGES.clone(), LABELS)
        cutmix_cuda.Mix(cutout=0.3).sample_plan(BATCH, HEIGHT, WIDTH).mix_boxes([torch.rand(0, 4)] * BATCH)
        Mixup(cutmix_minmax=(0.2, 0.6), num_classes=CLASSES)(IMAGES.clone(), LABELS)
    assert not mode.found


def test_out_has_no_memory_to_overlap_where_there_is_none():
    images = torch.empty(4, 3, 6, 8, dtype=torch.uint8, device="meta")
    out = torch.empty(4, 3, 6, 8, dtype=torch.bfloat16, device="meta")
    assert cutmix_cuda.normalize_images(images, 0.5, 0.5, dtype=torch.bfloat16, out=out) is out
    assert cutmix_cuda.cutmix(images, out=torch.empty_like(images))[0].is_meta
