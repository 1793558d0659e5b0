"""reuse_output: the same results, in the memory of the last call where that is safe, and an error where it is not."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from cutmix_cuda import RICAP, Augment, CutMix, Cutout, FMix, Mix, MixUp, ResizeMix

from ..helpers import assert_same_bits, every_backend, generator, random_labels

MAKERS = {
    "CutMix": lambda **how: CutMix(num_classes=5, **how),
    "MixUp": lambda **how: MixUp(num_classes=5, **how),
    "Cutout": lambda **how: Cutout(num_classes=5, **how),
    "Cutout, two holes": lambda **how: Cutout(num_classes=5, holes=2, **how),
    "RICAP": lambda **how: RICAP(num_classes=5, **how),
    "ResizeMix": lambda **how: ResizeMix(num_classes=5, **how),
    "FMix": lambda **how: FMix(num_classes=5, **how),
    "Mix": lambda **how: Mix(num_classes=5, cutout=0.3, **how),
    "Augment": lambda **how: Augment(CutMix(num_classes=5), mean=0.5, std=0.5, flip=0.5, dtype=torch.bfloat16, **how),
    "Augment, mixing alone": lambda **how: Augment(CutMix(num_classes=5), **how),
}
every_transform = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)

IMAGES, LABELS = torch.rand((8, 3, 16, 20), generator=generator(5)), random_labels(8, 5)


@every_backend
@every_transform
def test_gives_what_new_memory_gives(backend, make):
    reusing, other = (make(seed=3, backend=backend.name, reuse_output=reuse) for reuse in (True, False))
    images, labels = IMAGES.to(backend.device), LABELS.to(backend.device)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    places = []
    for batch in (images, images.flip(0), channels_last, channels_last, images[:6], images):
        mixed, targets = reusing(batch, labels[: len(batch)])
        expected = other(batch, labels[: len(batch)])
        assert mixed.stride() == expected[0].stride()
        assert_same_bits(mixed, expected[0])
        assert_same_bits(targets, expected[1])
        places.append(mixed.data_ptr())
        kept = mixed  # alive, so that nothing else can have its place
    assert places[0] == places[1] != places[2] == places[3]
    assert kept.data_ptr() != images.data_ptr()


@every_transform
def test_the_next_call_overwrites_and_autograd_says_so(make):
    transform = make(seed=3, reuse_output=True)
    first, _ = transform(IMAGES, LABELS)
    before = first.clone()
    weight = torch.ones(1, dtype=first.dtype, requires_grad=True)
    loss = (first * weight).sum()
    second, _ = transform(IMAGES, LABELS)
    assert first.data_ptr() == second.data_ptr() and torch.equal(first, second)
    assert not torch.equal(first, before)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("make", [MAKERS["Mix"], MAKERS["Augment, mixing alone"]])
def test_what_lies_in_the_memory_is_not_overwritten_while_it_is_read(make):
    """Fed with what it returned, whole or in part."""
    transform, other = make(seed=3, reuse_output=True), make(seed=3)
    first, _ = transform(IMAGES, LABELS)
    expected, _ = other(IMAGES, LABELS)
    for part in (slice(None), slice(2, None)):
        given = first[part]
        mixed, _ = transform(given, LABELS[part])
        expected_mixed, _ = other(expected[part], LABELS[part])
        assert_same_bits(mixed, expected_mixed)
        assert_same_bits(first, expected)
        first, _ = transform(IMAGES, LABELS)
        expected, _ = other(IMAGES, LABELS)


@every_transform
def test_the_caller_may_change_what_was_returned(make):
    transform, other = make(seed=3, reuse_output=True), make(seed=3)
    transform(IMAGES, LABELS)[0].requires_grad_()
    other(IMAGES, LABELS)
    mixed, _ = transform(IMAGES, LABELS)
    assert not mixed.requires_grad
    assert_same_bits(mixed, other(IMAGES, LABELS)[0])


@every_transform
def test_what_is_made_in_inference_mode_stays_there(make):
    transform = make(reuse_output=True)
    with torch.inference_mode():
        assert transform(IMAGES, LABELS)[0].is_inference()
    assert not transform(IMAGES, LABELS)[0].is_inference()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_has_memory_of_its_own(copied):
    transform = CutMix(num_classes=5, reuse_output=True)
    mixed, _ = transform(IMAGES, LABELS)
    assert len(pickle.dumps(transform)) < mixed.nbytes
    other = copied(transform)
    assert other(IMAGES, LABELS)[0].data_ptr() != mixed.data_ptr()
    assert not transform.state_dict()


def test_views_and_subclasses():
    class Picture(torch.Tensor):
        pass

    transform = CutMix(num_classes=5, seed=3, reuse_output=True)
    places = set()
    for _ in range(2):
        mixed, _ = transform(IMAGES.as_subclass(Picture), LABELS)
        assert type(mixed) is Picture
        places.add(mixed.data_ptr())
    assert len(places) == 1


def test_errors():
    for make in (CutMix, MixUp, Cutout, Mix):
        with pytest.raises(ValueError, match="reuse_output must be False with inplace=True"):
            make(inplace=True, reuse_output=True)
    with pytest.raises(ValueError, match="give reuse_output to Augment"):
        Augment(CutMix(reuse_output=True))
    for make in MAKERS.values():
        transform = make(reuse_output=True)
        for _ in range(2):
            with pytest.raises(ValueError, match="images must not require grad"):
                transform(IMAGES.clone().requires_grad_(), LABELS)
            with pytest.raises(TypeError, match="images must be a tensor"):
                transform([1, 2], LABELS)
            transform(IMAGES, LABELS)


def test_out_comes_first():
    augment = Augment(CutMix(num_classes=5), reuse_output=True)
    out = torch.empty_like(IMAGES)
    assert augment(IMAGES, LABELS, out=out)[0] is out
    assert augment(IMAGES, LABELS)[0].data_ptr() != out.data_ptr()


def test_is_refused_in_workers():
    transform = CutMix(num_classes=5, reuse_output=True)
    samples = list(zip(IMAGES, LABELS, strict=True))
    loader = DataLoader(
        samples, batch_size=4, num_workers=1, collate_fn=lambda batch: transform(*default_collate(batch))
    )
    with pytest.raises(RuntimeError, match="reuse_output must be False in a DataLoader worker"):
        next(iter(loader))


def test_graphs_break_there_or_say_why():
    torch._dynamo.reset()
    transform, other = CutMix(num_classes=5, seed=3, reuse_output=True), CutMix(num_classes=5, seed=3)
    compiled = torch.compile(lambda x, y: transform(x, y)[0] + 0, backend="eager")
    for _ in range(2):
        assert_same_bits(compiled(IMAGES, LABELS), other(IMAGES, LABELS)[0])
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="reuse_output=True does not trace"):
        torch.compile(transform, backend="eager", fullgraph=True)(IMAGES, LABELS)
