"""Augment and its parts: values against the oracle, what comes out and how, seeds, graphs, and what may follow."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import cutmix_cuda
from cutmix_cuda import Augment, CutMix, Erase, Mix, MixPlan, PairTargets, Views
from cutmix_cuda.distributions import Beta, quantiles

from ..helpers import (
    assert_same_bits,
    every_backend,
    label_coded_images,
    oracle_plan,
    oracle_targets,
    planned,
    random_images,
    random_labels,
)
from ..oracle_augment import DrawnViews, Values, oracle_augmented, oracle_view, packed_views

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPE = (9, 3, 11, 14)
CLASSES = 5
ASPECTS = (np.geomspace(0.3, 3.3, 4097) / 3.3).astype(np.float32)


def uint8_images(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    return random_images(shape, torch.uint8, seed)


def scaled(mean: tuple[float, ...], std: tuple[float, ...], unit: float = 255.0) -> tuple[list[float], list[float]]:
    """mean and scale as the documentation says: rounded to float32, the deviation before it is inverted."""
    means = [float(np.float32(unit * m)) for m in mean]
    return means, [float(np.float32(1.0 / float(np.float32(unit * s)))) for s in std]


def a_mix(**how: Any) -> Mix:
    return Mix(num_classes=CLASSES, mixup_alpha=0.8, cutout=0.2, prob=0.9, fill=0.25, label_smoothing=0.1, **how)


MIX_BOUNDS = 0.8 * 0.9 * 0.5, 0.8 * 0.9, 0.8 * 0.9 + 0.2
MIX_DISTRIBUTIONS = Beta(1.0, 1.0), Beta(0.8, 0.8), 0.25


@every_backend
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize(
    ("value", "drawn"), [((0.5, -1.0, 2.0), "constant"), ("channel", "channel"), ("pixel", "pixel")]
)
def test_everything_at_once_is_the_oracle(backend, value, drawn, order):
    seed = 17
    images, labels = uint8_images(), random_labels(SHAPE[0], CLASSES)
    batch, _, height, width = SHAPE
    plan = oracle_plan(
        seed, quantiles(MIX_DISTRIBUTIONS, torch.device("cpu")).numpy(), batch, height, width, bounds=MIX_BOUNDS
    )
    assert {sample.kind for sample in plan} >= {"cutmix", "mixup", "cutout"}
    how = DrawnViews(0.5, 0.7, (0.02, 0.33), 3.3, (3, 3), (1, 2))
    views = [oracle_view(how, ASPECTS, height, width, seed, i) for i in range(batch)]
    mean, scale = scaled(MEAN, STD)
    erase_constants = [0.0] * 3 if isinstance(value, str) else value
    values = Values(mean, scale, erase_constants, [0.25] * 3, drawn, order)
    expected = oracle_augmented(images, plan, views, values, seed, torch.bfloat16)

    augment = Augment(
        a_mix(),
        mean=MEAN,
        std=STD,
        flip=0.5,
        translate=3,
        erase=Erase(0.7, value=value, count=(1, 2), order=order),
        dtype=torch.bfloat16,
        memory_format=torch.channels_last,
        backend=backend.name,
        generator=None,
    )
    augment.seeds = Fixed(seed)
    out, targets, drawn_plan, drawn_views = augment(
        images.to(backend.device), labels.to(backend.device), return_plan=True
    )
    assert planned(drawn_plan) == plan
    assert_same_bits(drawn_views.packed.cpu(), packed_views(views, 2))
    assert_same_bits(out, expected)
    assert_same_bits(targets, oracle_targets(labels, plan, CLASSES, 0.1))
    assert out.is_contiguous(memory_format=torch.channels_last)

    again, targets_again = augment.apply_plan(
        images.to(backend.device), labels.to(backend.device), drawn_plan, drawn_views, seed=seed
    )
    assert_same_bits(again, expected)
    assert_same_bits(targets_again, targets.cpu())


class Fixed(torch.nn.Module):
    """A seed that is the same for each call."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def next(self) -> torch.Tensor:
        return torch.tensor([self.seed])


# ---- Each part alone


@every_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_normalise_alone(backend, dtype):
    """By the function, by a module without a mix, and by any module in eval mode; labels come back themselves."""
    images = uint8_images() if dtype == torch.uint8 else torch.rand(SHAPE).to(dtype)
    unit = 255.0 if dtype == torch.uint8 else 1.0
    mean, scale = (torch.tensor(numbers)[:, None, None] for numbers in scaled(MEAN, STD, unit))
    expected = (images.float() - mean) * scale
    labels = random_labels(SHAPE[0], CLASSES).to(backend.device)
    images = images.to(backend.device)
    for out_dtype in (torch.float32, torch.float16, torch.bfloat16):
        how = {"mean": MEAN, "std": STD, "dtype": out_dtype}
        out = cutmix_cuda.normalize_images(images, **how, backend=backend.name)
        assert_same_bits(out, expected.to(out_dtype))
        out, same = Augment(**how, backend=backend.name)(images, labels)
        assert same is labels
        assert_same_bits(out, expected.to(out_dtype))
        validating = Augment(a_mix(), **how, flip=1.0, translate=3, erase=Erase(1.0), backend=backend.name).eval()
        out, same, plan, views = validating(images, labels, return_plan=True)
        assert same is labels
        assert_same_bits(out, expected.to(out_dtype))
        assert (plan.kind == 0).all() and not views.flip.any() and not views.offset.any()
    default = cutmix_cuda.normalize_images(images, MEAN, STD, backend=backend.name)
    assert default.dtype == (torch.float32 if dtype == torch.uint8 else dtype)


def test_a_number_stands_for_every_channel():
    images = uint8_images((2, 7, 4, 5))
    expected = (images.float() - float(np.float32(255 * 0.5))) * float(np.float32(1 / 63.75))
    assert_same_bits(cutmix_cuda.normalize_images(images, 0.5, 0.25), expected)
    every_byte = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    to_one = cutmix_cuda.normalize_images(every_byte, 0.0, 1.0)
    assert to_one.min() == 0.0 and to_one.max() == 1.0 and torch.allclose(to_one, every_byte / 255)


@every_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_flip_alone(backend, dtype):
    """Of a whole batch, sample by sample, in the images' own dtype and layout."""
    images = (torch.rand(SHAPE) * 255).to(dtype).to(memory_format=torch.channels_last)
    out, views = cutmix_cuda.augment(
        images.to(backend.device), flip=0.5, seed=3, return_plan=True, backend=backend.name
    )[::3]
    expected = torch.where(views.flip.cpu()[:, None, None, None], images.flip(3), images)
    assert_same_bits(out, expected)
    assert 0 < views.flip.sum() < SHAPE[0]
    assert out.stride() == images.stride()
    for certain in (0.0, 1.0):
        out = cutmix_cuda.augment(images.to(backend.device), flip=certain, seed=3, backend=backend.name)[0]
        assert_same_bits(out, images.flip(3) if certain else images)


@every_backend
def test_erase_alone(backend):
    """Only the boxes change; what is not erased keeps its bits, and so does what first is not erased at all."""
    images = uint8_images()
    out, _, _, views = cutmix_cuda.augment(
        images.to(backend.device), erase=Erase(0.6, value=7.0), seed=1, return_plan=True, backend=backend.name
    )
    expected = images.clone()
    for sample, (y0, x0, y1, x1) in enumerate(views.erased[:, 0].tolist()):
        expected[sample, :, y0:y1, x0:x1] = 7
    assert_same_bits(out, expected)
    assert 0 < (views.erased[:, 0, 2] > views.erased[:, 0, 0]).sum() < SHAPE[0]


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_clean_split_is_not_erased(splits):
    """A part of each batch by its size, in one graph for all of them; the others' boxes are as without."""
    torch._dynamo.reset()
    erase = Erase(1.0, value=7.0, num_splits=splits)
    augment, plain = Augment(erase=erase, seed=1), Augment(erase=Erase(1.0, value=7.0), seed=1)
    compiled = torch.compile(copy.deepcopy(augment), fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (7, 6, 2, 1):
        images, clean = uint8_images((batch, 3, 9, 10)), batch // splits if splits > 1 else 0
        expected = plain(images)[0]
        expected[:clean] = images[:clean]
        for erased in (augment, compiled):
            assert_same_bits(erased(images)[0], expected)
        boxes = cutmix_cuda.sample_views(batch, 9, 10, erase=erase, seed=1).erased[:, 0]
        assert (boxes[:, 2] > boxes[:, 0]).tolist() == [i >= clean for i in range(batch)]
    torch._dynamo.reset()


@every_backend
@pytest.mark.parametrize("shape", [SHAPE, (6, 9, 10), (4, 2, 3, 6, 5)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_mixing_alone_is_what_mix_gives(backend, shape, dtype):
    """Any dtype and shape that it takes, byte by byte."""
    images, labels = random_images(shape, torch.uint8).to(dtype).to(backend.device), random_labels(shape[0], CLASSES)
    labels = labels.to(backend.device)
    for mix, function, options in (
        (CutMix(num_classes=CLASSES), cutmix_cuda.cutmix, {}),
        (a_mix(), cutmix_cuda.mix, {"mixup_alpha": 0.8, "cutout": 0.2, "prob": 0.9, "label_smoothing": 0.1}),
    ):
        if mix._settings.fill:
            mix = Mix(num_classes=CLASSES, **options)
        out, targets, plan, views = cutmix_cuda.augment(
            images, labels, mix, seed=5, return_plan=True, backend=backend.name
        )
        expected = function(images, labels, CLASSES, **options, seed=5, return_plan=True, backend=backend.name)
        assert_same_bits(out, expected[0].cpu())
        assert_same_bits(targets, expected[1].cpu())
        assert_same_bits(plan.packed, expected[2].packed.cpu())
        assert views.erased.shape == (shape[0], 0, 4) and not views.flip.any()


@every_backend
def test_the_mixing_plan_is_that_of_mix(backend):
    """Whatever else is drawn: old seeds keep their boxes."""
    images = uint8_images().to(backend.device)
    plain = cutmix_cuda.cutmix(images, seed=8, return_plan=True, backend=backend.name)[2]
    *_, plan, _ = cutmix_cuda.augment(
        images, None, CutMix(), mean=0.5, std=0.5, flip=0.5, translate=4, erase=Erase(1.0), seed=8, return_plan=True,
        backend=backend.name,
    )  # fmt: skip
    assert_same_bits(plan.packed, plain.packed.cpu())


@every_backend
def test_uint8_images_mixed_and_moved_stay_uint8(backend):
    images = uint8_images().to(backend.device)
    mix = Mix(num_classes=CLASSES, cutout=0.3, fill=9)
    moved, _, plan, views = cutmix_cuda.augment(
        images, None, mix, flip=0.5, translate=2, seed=3, return_plan=True, backend=backend.name
    )
    expected = cutmix_cuda.mix_images(views.apply(images), plan, fill=9, backend=backend.name)
    assert moved.dtype == torch.uint8
    assert_same_bits(moved, expected.cpu())


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cast_and_lay_out_alone(backend, dtype):
    """Values stay as they are, and blended ones are rounded once."""
    images = uint8_images().to(backend.device)
    out = cutmix_cuda.augment(images, dtype=dtype, backend=backend.name)[0]
    assert_same_bits(out, images.to(dtype).cpu())
    laid_out = cutmix_cuda.augment(images, memory_format=torch.channels_last, backend=backend.name)[0]
    assert laid_out.is_contiguous(memory_format=torch.channels_last)
    assert_same_bits(laid_out, images.cpu())
    mix = Mix(mixup_alpha=1.0)
    mixed, _, plan, _ = cutmix_cuda.augment(images, None, mix, dtype=dtype, seed=1, return_plan=True)
    assert_same_bits(mixed, cutmix_cuda.mix_images(images.float(), plan).to(dtype).cpu())


# ---- What comes out, where and how


@every_backend
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last, torch.preserve_format])
@pytest.mark.parametrize("layout", ["NCHW", "NCHW in channels-last memory", "NHWC"])
def test_layouts(backend, layout, memory_format):
    images = uint8_images().to(backend.device)
    expected = cutmix_cuda.normalize_images(images, MEAN, STD, backend=backend.name)
    given = images
    if layout == "NHWC":
        given = images.permute(0, 2, 3, 1).contiguous()
    elif layout != "NCHW":
        given = images.to(memory_format=torch.channels_last)
    out = cutmix_cuda.normalize_images(
        given, MEAN, STD, layout=layout[:4], memory_format=memory_format, backend=backend.name
    )
    assert_same_bits(out, expected.cpu())
    wanted = memory_format
    if memory_format == torch.preserve_format:
        wanted = torch.contiguous_format if layout == "NCHW" else torch.channels_last
    assert out.is_contiguous(memory_format=wanted)


@every_backend
def test_out(backend):
    """Any memory of the right shape and dtype, a buffer that is used again and again included."""
    images, labels = uint8_images().to(backend.device), random_labels(SHAPE[0], CLASSES).to(backend.device)
    how = {"mean": MEAN, "std": STD, "flip": 0.5, "dtype": torch.float16, "seed": 4, "backend": backend.name}
    expected, expected_targets = cutmix_cuda.augment(images, labels, a_mix(), **how)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        out = torch.zeros(SHAPE, dtype=torch.float16, device=backend.device).to(memory_format=memory_format)
        version = out._version
        returned, targets = cutmix_cuda.augment(images, labels, a_mix(), **how, out=out)
        assert returned is out and out._version > version
        assert_same_bits(out, expected.cpu())
        assert_same_bits(targets, expected_targets.cpu())
    augment = Augment(a_mix(), mean=MEAN, std=STD, dtype=torch.float16, backend=backend.name)
    assert augment(images, labels, out=out)[0] is out
    assert augment.eval()(images, labels, out=out)[0] is out
    assert_same_bits(out, cutmix_cuda.normalize_images(images, MEAN, STD, dtype=torch.float16).cpu())


@every_backend
def test_pairs(backend):
    images, labels = uint8_images().to(backend.device), random_labels(SHAPE[0], CLASSES).to(backend.device)
    mix = Mix(num_classes=CLASSES, targets="pairs")
    _, pairs, plan, views = cutmix_cuda.augment(
        images, labels, mix, mean=0.5, std=0.5, seed=6, return_plan=True, backend=backend.name
    )
    expected = cutmix_cuda.mix_targets(labels, plan, targets="pairs")
    assert isinstance(pairs, PairTargets)
    augment = Augment(mix, mean=0.5, std=0.5, backend=backend.name)
    for got in (pairs, augment.apply_plan(images, labels, plan, views)[1]):
        for mine, theirs in zip(got, expected, strict=True):
            assert_same_bits(mine, theirs.cpu())


@every_backend
@pytest.mark.parametrize("batch", [0, 1, 2, 5])
def test_batches_of_any_size(backend, batch):
    images = uint8_images((batch, 3, 6, 7)).to(backend.device)
    augment = Augment(a_mix(), mean=MEAN, std=STD, flip=0.5, erase=Erase(0.5, value="pixel"), backend=backend.name)
    out, targets = augment(images, torch.zeros(batch, dtype=torch.long, device=backend.device))
    assert out.shape == images.shape and targets.shape == (batch, CLASSES)
    assert not out.isnan().any() and torch.allclose(targets.sum(1), torch.ones(batch, device=backend.device))


def test_autocast_leaves_it_alone():
    images = uint8_images()
    augment = Augment(mean=MEAN, std=STD)
    expected = augment(images)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_bits(augment(images)[0], expected)


def test_a_call_is_one_op_that_copies_nothing():
    """No table or constant is made or copied twice, in training or validation."""
    images, labels = uint8_images(), random_labels(SHAPE[0], CLASSES)
    augment = Augment(a_mix(), mean=MEAN, std=STD, flip=0.5, erase=Erase(0.5, value="pixel"))
    augment(images, labels)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        augment(images, labels)
        augment.eval()(images, labels)
    called = [event.name for event in profile.events()]
    assert [name for name in called if name.startswith("cutmix_cuda")] == ["cutmix_cuda::augment"] * 2
    assert not {"aten::copy_", "aten::_to_copy", "aten::clone", "aten::contiguous"} & set(called)


class Picture(torch.Tensor):
    """As fastai's, which knows of no other class."""


class Category(torch.Tensor):
    """As fastai's."""


def test_images_keep_their_class():
    images, labels = uint8_images(), random_labels(SHAPE[0], CLASSES)
    given, categories = images.clone().as_subclass(Picture), labels.clone().as_subclass(Category)
    for mix in (CutMix(num_classes=CLASSES), Mix(num_classes=CLASSES, targets="pairs"), None):
        for how in ({"mean": 0.5, "std": 0.5, "flip": 0.5}, {}):
            mixed, targets, plan, views = cutmix_cuda.augment(given, categories, mix, **how, seed=1, return_plan=True)
            expected, expected_targets = cutmix_cuda.augment(images, labels, mix, **how, seed=1)
            assert type(mixed) is Picture and type(plan.packed) is type(views.packed) is torch.Tensor
            assert_same_bits(mixed.as_subclass(torch.Tensor), expected)
            if mix is None:
                assert targets is categories
            for mine, theirs in zip(targets, expected_targets, strict=True):
                assert torch.equal(mine.as_subclass(torch.Tensor), theirs)
            assert type(views.apply(given)) is Picture
    augment = Augment(mean=0.5, std=0.5)
    assert type(augment.apply_plan(given, None, plan, views)[0]) is Picture
    out = torch.zeros(SHAPE).as_subclass(Picture)
    assert augment(given, out=out)[0] is out
    assert_same_bits(out.as_subclass(torch.Tensor), augment(images)[0])


# ---- Seeds


def test_the_same_torch_seed_gives_the_same_batches():
    images = uint8_images()
    augment = Augment(CutMix(), mean=MEAN, std=STD, flip=0.5)
    torch.manual_seed(1)
    first = [augment(images)[0] for _ in range(3)]
    torch.manual_seed(1)
    for expected in first:
        assert_same_bits(augment(images)[0], expected)
    assert not torch.equal(first[0], first[1])


def test_a_counted_seed_resumes():
    images = uint8_images()

    def new() -> Augment:
        return Augment(CutMix(), mean=MEAN, std=STD, flip=0.5, erase=Erase(0.5, value="pixel"), seed=7)

    whole, begun, resumed = new(), new(), new()
    batches = [whole(images)[0] for _ in range(4)]
    begun(images)
    begun(images)
    begun.eval()(images)  # draws nothing, and does not count
    resumed.load_state_dict(begun.state_dict())
    assert_same_bits(resumed(images)[0], batches[2])
    assert_same_bits(resumed(images)[0], batches[3])
    assert not torch.equal(batches[0], batches[1])


def test_eval_mode_draws_nothing():
    augment = Augment(CutMix(), mean=MEAN, std=STD, flip=0.5).eval()
    before = torch.get_rng_state()
    augment(uint8_images())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_alike(copied):
    images = uint8_images()
    augment = Augment(
        a_mix(), mean=MEAN, std=STD, flip=0.5, erase=Erase(0.5), memory_format=torch.channels_last, seed=3
    )
    twin = copied(augment)
    assert repr(twin) == repr(augment)
    assert_same_bits(twin(images)[0], augment(images)[0])


# ---- Graphs


@pytest.mark.parametrize("dynamic", [False, True])
def test_settings_made_in_a_graph_of_its_numbers(dynamic):
    images = torch.randint(256, (4, 3, 6, 8), dtype=torch.uint8)

    def step(images, number):
        return cutmix_cuda.augment(images, mean=number, std=number, erase=Erase(number, value=number), seed=1)[0]

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for number in (0.25, 0.5, 0.375):
        assert_same_bits(compiled(images, number), step(images, number))


@every_backend
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_whole_graphs(backend, dynamic):
    """Training, validation and out: one graph, the bits of eager mode, and the count of calls goes on."""
    torch._dynamo.reset()
    how = {"mean": MEAN, "std": STD, "flip": 0.5, "translate": 2, "dtype": torch.bfloat16, "seed": 3}
    erase = Erase(0.5, value="pixel")
    eager = Augment(a_mix(), **how, erase=erase, memory_format=torch.channels_last, backend=backend.name)
    twin = copy.deepcopy(eager)

    def step(images, labels):
        return twin(images, labels)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for batch, height, width in ((8, 6, 9), (7, 6, 9), (5, 12, 10)):
        images = uint8_images((batch, 3, height, width)).to(backend.device)
        labels = random_labels(batch, CLASSES).to(backend.device)
        for mine, theirs in zip(compiled(images, labels), eager(images, labels), strict=True):
            assert_same_bits(mine, theirs.cpu())
            assert mine.stride() == theirs.stride()
    twin.eval()
    eager.eval()
    assert_same_bits(compiled(images, labels)[0], eager(images, labels)[0].cpu())
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_several_in_one_graph():
    """torch takes two constants of one function for one."""
    torch._dynamo.reset()

    def both(images):
        one = cutmix_cuda.augment(images, mean=0.5, std=0.5, erase=Erase(1.0, ratio=(0.2, 0.4)), seed=3)[0]
        return one, cutmix_cuda.augment(images, mean=0.1, std=0.2, erase=Erase(1.0, ratio=(2.0, 5.0)), seed=3)[0]

    images = uint8_images()
    for mine, theirs in zip(
        torch.compile(both, fullgraph=True, backend="aot_eager")(images), both(images), strict=True
    ):
        assert_same_bits(mine, theirs)
    torch._dynamo.reset()


def test_export():
    augment = Augment(CutMix(num_classes=CLASSES), mean=MEAN, std=STD, flip=0.5).eval()
    images = uint8_images()
    program = torch.export.export(augment, (images,))
    assert_same_bits(program.module()(images)[0], augment(images)[0])


class Tail(torch.nn.Module):
    def forward(self, images):
        return cutmix_cuda.augment(images, mean=MEAN, std=STD, flip=0.5, seed=3, return_plan=True)


def test_an_exported_program_returns_views():
    images = uint8_images()
    out, _, plan, views = torch.export.export(Tail(), (images,)).module()(images)
    expected, _, expected_plan, expected_views = Tail()(images)
    assert_same_bits(out, expected)
    assert_same_bits(plan.packed, expected_plan.packed)
    assert_same_bits(views.packed, expected_views.packed)
    assert (views.height, views.width) == SHAPE[2:]


def loaded(views: Views) -> Views:
    file = io.BytesIO()
    torch.save(views, file)
    file.seek(0)
    return torch.load(file)  # weights_only, by default


@pytest.mark.parametrize("copied", [loaded, copy.deepcopy, lambda views: pickle.loads(pickle.dumps(views))])
def test_views_are_what_was_saved(copied):
    views = cutmix_cuda.sample_views(4, 8, 9, flip=0.5, erase=Erase(1.0), seed=3)
    twin = copied(views)
    assert type(twin) is Views and (twin.height, twin.width) == (8, 9)
    assert_same_bits(twin.packed, views.packed)
    with pytest.raises(ValueError, match="packed must be int32"):
        copied(Views._unchecked(views.packed.float(), 8, 9))


# ---- What follows the same plan and views


@every_backend
def test_masks_follow(backend):
    """A mask that holds the index of each pixel's sample and place moves as the pixels did."""
    batch, _, height, width = SHAPE
    places = torch.arange(batch * height * width).reshape(batch, 1, height, width)
    images = places.float().to(backend.device)
    out, _, plan, views = cutmix_cuda.augment(
        images, None, CutMix(), flip=0.5, translate=4, seed=2, return_plan=True, backend=backend.name
    )
    masks = places[:, 0].to(backend.device)
    followed = cutmix_cuda.mix_images(views.apply(masks), plan, backend=backend.name)
    assert torch.equal(followed.float(), out[:, 0])
    marked = views.apply(masks, fill=-1)
    source = torch.nn.functional.pad(places[:, 0], (width, width, height, height), value=-1)
    for i, (flip, (dy, dx)) in enumerate(zip(views.flip.tolist(), views.offset.tolist(), strict=True)):
        crop = source[i, height + dy : 2 * height + dy, width + dx : 2 * width + dx]
        assert torch.equal(marked[i].cpu(), crop.flip(1) if flip else crop)


@every_backend
def test_a_second_camera_follows(backend):
    """Of another dtype, normalised alike; noise of its own unless it is given the seed."""
    first, second = uint8_images().to(backend.device), uint8_images(seed=1).to(backend.device)
    augment = Augment(a_mix(), mean=MEAN, std=STD, flip=0.5, erase=Erase(1.0, value=0.5), seed=2, backend=backend.name)
    _, _, plan, views = augment(first, random_labels(SHAPE[0], CLASSES).to(backend.device), return_plan=True)
    moved, labels = augment.apply_plan(second, None, plan, views)
    assert labels is None
    values = Values(*scaled(MEAN, STD), [0.5] * 3, [0.25] * 3)
    seen = [oracle_view_of(row) for row in views.packed.cpu().tolist()]
    assert_same_bits(moved, oracle_augmented(second.cpu(), planned(plan), seen, values, 0, torch.float32))
    unmixed, same = augment.apply_plan(second, labels, None, views)
    kept = [sample._replace(kind="keep") for sample in planned(plan)]
    assert same is labels
    assert_same_bits(unmixed, oracle_augmented(second.cpu(), kept, seen, values, 0, torch.float32))
    unseen = augment.apply_plan(second, None, plan)[0]
    assert_same_bits(
        unseen, oracle_augmented(second.cpu(), planned(plan), [VIEW] * len(seen), values, 0, torch.float32)
    )


def oracle_view_of(row):
    (flip, dy, dx, _), *boxes = row
    return VIEW._replace(flip=flip, dy=dy, dx=dx, erased=tuple(map(tuple, boxes)))


VIEW = oracle_view(DrawnViews(), ASPECTS, 1, 1, 0, 0)


def test_noise_that_follows_needs_the_seed():
    images = uint8_images()
    augment = Augment(mean=MEAN, std=STD, erase=Erase(1.0, value="pixel"))
    views = cutmix_cuda.sample_views(*SHAPE[:1], *SHAPE[2:], erase=Erase(1.0), seed=1)
    one, two, other = (augment.apply_plan(images, views=views, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    torch.manual_seed(0)
    drawn = augment.apply_plan(images, views=views)[0]
    assert not torch.equal(drawn, augment.apply_plan(images, views=views)[0])


def test_boxes_of_objects_follow():
    """The bounding box of marked pixels, after they moved, is the moved box."""
    batch, height, width = 40, 16, 20
    images = torch.zeros(batch, 1, height, width, dtype=torch.uint8)
    generator = np.random.default_rng(0)
    boxes = []
    for i in range(batch):
        x, y = (np.sort(generator.choice(length + 1, 2, replace=False)) for length in (width, height))
        images[i, :, y[0] : y[1], x[0] : x[1]] = 1
        boxes.append(torch.tensor([[x[0], y[0], x[1], y[1]]], dtype=torch.float32))
    out, _, _, views = cutmix_cuda.augment(images, flip=0.5, translate=(5, 6), seed=2, return_plan=True)
    gone = 0
    for i, moved in enumerate(views.move_boxes(boxes)):
        rows, columns = out[i, 0].any(1).nonzero(), out[i, 0].any(0).nonzero()
        x0, y0, x1, y1 = moved[0].tolist()
        if len(rows) == 0:
            gone += 1
            assert (x1 - x0) * (y1 - y0) == 0
        else:
            assert [x0, y0, x1, y1] == [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    assert gone < batch / 2
    plan = MixPlan.from_boxes(torch.arange(batch), torch.zeros(batch, 4, dtype=torch.long), height, width)
    kept = plan.mix_boxes(views.move_boxes(boxes))
    assert sum(len(left) for left in kept.boxes) == batch - gone


@every_backend
def test_sampled_views_are_those_of_a_call(backend):
    erase = Erase(0.7, count=(0, 3))
    how = {"flip": 0.3, "translate": (2, 5), "erase": erase, "seed": 11, "backend": backend.name}
    images = uint8_images().to(backend.device)
    *_, views = cutmix_cuda.augment(images, **how, return_plan=True)
    drawn = cutmix_cuda.sample_views(SHAPE[0], *SHAPE[2:], **how, device=backend.device)
    assert_same_bits(drawn.packed, views.packed.cpu())
    assert drawn.erased.shape == (SHAPE[0], 3, 4)


def test_views_made_by_hand():
    flip = torch.tensor([True, False, False])
    offset = torch.tensor([[0, 0], [-2, 1], [0, 0]])
    erased = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 0]], [[1, 1, 3, 4]]])
    views = Views.make(3, 4, 5, flip=flip, offset=offset, erased=erased)
    assert torch.equal(views.flip, flip) and torch.equal(views.offset.long(), offset)
    assert torch.equal(views.erased.long(), erased)
    images = label_coded_images((3, 1, 4, 5), torch.uint8) + 1
    out = Augment(erase=Erase(1.0, value=9)).apply_plan(images, views=views)[0][:, 0]
    assert (out[0] == 9).nonzero().tolist() == [[0, 0]]
    assert out[1].tolist() == [[0] * 5, [0] * 5, [2, 2, 2, 2, 0], [2, 2, 2, 2, 0]]
    assert (out[2] == 9).sum() == 6
    assert_same_bits(Augment(erase=Erase(0.0, value=9)).apply_plan(images, views=views)[0][:, 0], out)
    everything_seen = Views.make(3, 4, 5)
    assert torch.equal(everything_seen.apply(images), images)
    assert len(everything_seen) == 3 and everything_seen.to("cpu").device.type == "cpu"
