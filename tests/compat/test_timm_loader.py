"""Instead of timm's loader: the same data sets go through both, and through a loop as that of timm's train.py."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import cutmix_cuda
from cutmix_cuda import Augment, Erase, Mix
from cutmix_cuda.compat import timm as compat

from ..api.test_seed import oracle as counted_seed
from ..helpers import assert_same_bits, every_backend, generator

Image = pytest.importorskip("PIL.Image")
timm_data = pytest.importorskip("timm.data")
timm_loss = pytest.importorskip("timm.loss")

CPU = torch.device("cpu")
CLASSES, SIZE, BATCH, COUNT = 5, (3, 12, 10), 4, 18
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pictures(Dataset):
    """Noise, and labels that count up; with ``transform``, which timm's create_loader sets."""

    transform: Any = None

    def __init__(self, count: int = COUNT, dense: bool = False, mode: str = "RGB") -> None:
        self.count, self.dense, self.mode = count, dense, mode

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        pixels = np.random.default_rng(index).integers(0, 256, (*SIZE[1:], 3), dtype=np.uint8)
        image = Image.fromarray(pixels).convert(self.mode)
        label = np.eye(CLASSES, dtype=np.float32)[index % CLASSES] if self.dense else index % CLASSES
        return image if self.transform is None else self.transform(image), label


class Samples(Dataset):
    """As Pictures, of uint8 tensors."""

    def __init__(self, count: int = COUNT, dense: bool = False) -> None:
        self.pictures = Pictures(count, dense)
        self.pictures.transform = lambda image: torch.from_numpy(np.array(image).transpose(2, 0, 1))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int):
        return self.pictures[index]


def batches_of(dataset: Dataset) -> DataLoader:
    """As they are, in order."""
    return DataLoader(dataset, BATCH)


def loader_of(collate_fn=None, dataset: Dataset | None = None, workers: int = 0, **arguments) -> compat.PrefetchLoader:
    collate_fn = collate_fn or timm_data.loader.fast_collate
    loader = DataLoader(
        dataset or Samples(), BATCH, collate_fn=collate_fn, num_workers=workers, persistent_workers=workers > 0
    )
    return compat.PrefetchLoader(loader, MEAN, STD, device=CPU, **arguments)


def mixed_classes(targets: Tensor) -> Tensor:
    """How many classes each row of smoothed targets has."""
    return (targets > 1.5 * targets.min()).sum(1)


mixups = pytest.mark.parametrize("mixup", [compat.FastCollateMixup, timm_data.FastCollateMixup], ids=["ours", "timm's"])

# ---- Values


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("device", [CPU, "cpu"], ids=repr)
def test_validation_is_timms(dtype, device):
    """Normalised within one unit in the last place of timm's float32, then rounded once; labels as they are."""
    ours = list(compat.PrefetchLoader(DataLoader(Samples(), BATCH), MEAN, STD, device=device, img_dtype=dtype))
    theirs = list(timm_data.loader.PrefetchLoader(DataLoader(Samples(), BATCH), MEAN, STD, device=CPU))
    assert len(ours) == len(theirs) == 5
    for (images, labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
        one_ulp = torch.nextafter(expected.abs(), torch.tensor(torch.inf)) - expected.abs()
        exact = (images.float() - expected).abs() <= (one_ulp if images.dtype == torch.float32 else torch.inf)
        assert images.dtype == (dtype or torch.float32) and exact.all()
        if dtype == torch.bfloat16:  # of all of ImageNet's values
            assert_same_bits(images, expected.bfloat16())
        assert_same_bits(labels, expected_labels)


@every_backend
@mixups
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_the_whole_tail(backend, mixup, mode):
    """Each batch is what Augment makes of the loader's uint8 with the same seed: mixed, then erased."""
    collate_fn = mixup(0.8, 1.0, prob=0.9, mode=mode, num_classes=CLASSES, label_smoothing=0.2)
    loader = DataLoader(Samples(), BATCH, collate_fn=collate_fn)
    ours = compat.PrefetchLoader(
        loader,
        MEAN,
        STD,
        device=torch.device(backend.device),
        img_dtype=torch.bfloat16,
        re_prob=0.6,
        re_mode="pixel",
        re_count=3,
        re_num_splits=2,
        memory_format=torch.channels_last,
        seed=7,
        backend=backend.name,
    )
    mix = Mix(
        num_classes=CLASSES,
        cutmix_alpha=1.0,
        mixup_alpha=0.8,
        prob=0.9,
        scope={"batch": "batch", "pair": "pair", "elem": "sample"}[mode],
        partner="flip",
        label_smoothing=0.2,
    )
    augment = Augment(
        mix,
        mean=MEAN,
        std=STD,
        erase=Erase(0.6, (0.02, 1 / 3), (0.3, 1 / 0.3), "pixel", (1, 3), "after", num_splits=2),
        dtype=torch.bfloat16,
        memory_format=torch.channels_last,
        seed=7,
        backend="reference",
    )
    for (images, targets), batch in zip(ours, batches_of(Samples()), strict=True):
        expected, expected_targets = augment(*batch)
        assert images.device.type == backend.device and images.is_contiguous(memory_format=torch.channels_last)
        assert_same_bits(images, expected)
        assert_same_bits(targets, expected_targets)


@mixups
def test_boxes_of_minmax(mixup):
    """Mixed as by Mixup with the same seed, by its boxes, and erased besides."""
    arguments = {"mixup_alpha": 0.0, "cutmix_minmax": (0.3, 0.8), "mode": "elem", "num_classes": CLASSES}
    ours = loader_of(mixup(**arguments), re_prob=0.7, seed=7)
    like = compat.Mixup(**arguments, seed=7)
    erase = Erase.as_in_timm(0.7)
    for count, ((images, targets), batch) in enumerate(zip(ours, batches_of(Samples()), strict=True)):
        normalized = cutmix_cuda.normalize_images(batch[0], MEAN, STD)
        mixed, expected_targets = like(normalized, batch[1])
        expected = cutmix_cuda.augment(mixed, erase=erase, seed=counted_seed(7, count))[0]
        assert_same_bits(images, expected)
        assert_same_bits(targets, expected_targets)


@mixups
def test_several_classes_at_once(mixup):
    arguments = {"cutmix_alpha": 1.0, "num_classes": CLASSES, "multi_label": True}
    ours = loader_of(mixup(**arguments), Samples(dense=True), seed=7)
    like = compat.Mixup(**arguments, seed=7)
    for (_, targets), batch in zip(ours, batches_of(Samples(dense=True)), strict=True):
        assert_same_bits(targets, like(batch[0].float(), batch[1])[1])


@mixups
def test_half_is_mixed_by_the_workers(mixup):
    ours = loader_of(mixup(mode="half", num_classes=CLASSES), Samples(16), workers=2)
    assert ours.mixup_enabled
    batches = list(ours)
    assert [images.shape[0] for images, _ in batches] == [BATCH // 2] * 4
    assert any((mixed_classes(targets) == 2).any() for _, targets in batches)
    one_of_bytes = (torch.stack([images for images, _ in batches]) * torch.tensor(STD).view(3, 1, 1) * 255).flatten()
    whole = one_of_bytes + (torch.tensor(MEAN) * 255).view(3, 1, 1).expand(4, BATCH // 2, *SIZE).flatten()
    torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-3)


# ---- Switching off, and random numbers


@mixups
@pytest.mark.parametrize("workers", [0, 2])
def test_switched_off_between_epochs(mixup, workers):
    """It reaches workers that persist; labels are smoothed all the same."""
    ours = loader_of(mixup(0.8, 1.0, mode="elem", num_classes=CLASSES), workers=workers)
    assert ours.mixup_enabled and any((mixed_classes(targets) == 2).any() for _, targets in ours)
    ours.mixup_enabled = False
    assert not ours.mixup_enabled
    for (images, targets), batch in zip(ours, batches_of(Samples()), strict=True):
        assert_same_bits(images, cutmix_cuda.normalize_images(batch[0], MEAN, STD))
        assert_same_bits(targets, timm_data.mixup.mixup_target(batch[1], CLASSES, smoothing=0.1))


def test_attributes_of_the_mixup_count_at_the_next_batch():
    collate_fn = compat.FastCollateMixup(cutmix_alpha=1.0, mixup_alpha=0.0, num_classes=CLASSES)
    batches = iter(loader_of(collate_fn))
    next(batches)
    collate_fn.num_classes, collate_fn.mix_prob = CLASSES + 1, 0.0
    _, targets = next(batches)
    assert targets.shape == (BATCH, CLASSES + 1) and (mixed_classes(targets) == 1).all()


def test_without_mixing_there_is_nothing_to_switch_off():
    ours = loader_of()
    ours.mixup_enabled = True
    assert not ours.mixup_enabled


def test_random_numbers():
    """Torch's generator decides, a seed leaves it alone, and validation draws nothing."""
    arguments: dict[str, Any] = {"re_prob": 1.0, "re_mode": "rand"}
    drawn = []
    for own in ({}, {"generator": generator(0)}):
        torch.manual_seed(0)
        loader = loader_of(**arguments, **own)
        loader.loader.generator = generator(1)
        drawn.append([images for images, _ in loader])
    assert all(map(torch.equal, *drawn)) and not torch.equal(*drawn[0][:2])
    for quiet in (loader_of(**arguments, seed=3), loader_of()):
        quiet.loader.generator = generator(1)
        state = torch.get_rng_state()
        first = [images for images, _ in quiet]
        assert torch.equal(torch.get_rng_state(), state)
    resumed = loader_of(**arguments, seed=4)
    quiet = loader_of(**arguments, seed=3)
    list(quiet)
    resumed.seeds.load_state_dict(quiet.seeds.state_dict())
    assert all(map(torch.equal, [images for images, _ in resumed], [images for images, _ in quiet]))
    assert len(first) == 5


# ---- create_loader

TRAINING = {"input_size": SIZE, "batch_size": BATCH, "is_training": True, "device": CPU, "num_workers": 0}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"re_prob": 0.5, "re_mode": "pixel", "re_count": 2},
        {"re_prob": 0.5, "no_aug": True},
        {"is_training": False, "re_prob": 0.5},
        {"fp16": True},
        {"img_dtype": torch.bfloat16, "mean": (0.5,), "std": (0.5,), "input_size": (1, 12, 10)},
        {"use_multi_epochs_loader": True},
        {"input_size_choices": [8, 12], "batch_size_choices": [6, 4]},
    ],
    ids=str,
)
def test_batches_of_create_loader_are_like_timms(arguments):
    """As many, of the same shape and dtype, from the same samples, erased with the same probability."""
    given = TRAINING | arguments
    pictures = Pictures(mode="RGB" if given["input_size"][0] == 3 else "L")
    epochs = []
    for create in (compat.create_loader, timm_data.create_loader):
        torch.manual_seed(0)
        loader = create(pictures, **given)
        epochs.append([[(images.shape, images.dtype, labels) for images, labels in loader] for _ in range(2)])
        assert len(loader) == len(epochs[-1][0])
    for ours, theirs in zip(*epochs, strict=True):
        for mine, peers in zip(ours, theirs, strict=True):
            assert mine[:2] == peers[:2] and mine[2].shape == peers[2].shape
    peer = timm_data.create_loader(pictures, **given).random_erasing
    erase = compat.create_loader(pictures, **given)._settings.erase
    if peer is None:
        assert erase is None
    else:
        assert (erase.prob, erase.counts) == (peer.probability, (peer.min_count, peer.max_count))
        assert (erase.scale, erase.order) == ((peer.min_area, peer.max_area), "after")


@pytest.mark.parametrize("splits", [0, 2, 3])
def test_aug_splits(splits):
    """The clean split comes first and is neither augmented nor erased."""
    dataset = Pictures(8)
    dataset = timm_data.AugMixDataset(dataset, splits) if splits else dataset
    loader = compat.create_loader(
        dataset, **TRAINING, num_aug_splits=splits, re_prob=1.0, re_mode="const", re_split=True, scale=(1.0, 1.0),
        ratio=(1.0, 1.0), hflip=0.0, color_jitter=0.0, auto_augment="augmix-m5-w4-d2" if splits else None,
    )  # fmt: skip
    images, labels = next(iter(loader))
    whole = BATCH * max(splits, 1)
    assert images.shape == (whole, *SIZE) and labels.shape == (whole,)
    clean = whole // (splits or 2)
    erased = (images == 0).all(1).sum((1, 2))
    assert not erased[:clean].any() and erased[clean:].all()
    if splits:
        assert torch.equal(labels[:BATCH], labels[BATCH : 2 * BATCH])


def test_without_the_prefetcher_it_is_timms():
    loader = compat.create_loader(Pictures(), **TRAINING, use_prefetcher=False)
    assert isinstance(loader, DataLoader)
    assert next(iter(loader))[0].dtype == torch.float32


def test_has_the_arguments_of_timms():
    own = list(inspect.signature(compat.PrefetchLoader).parameters.values())
    peer = list(inspect.signature(timm_data.loader.PrefetchLoader).parameters.values())
    assert [each.name for each in own[: len(peer)]] == [each.name for each in peer]
    for mine, theirs in zip(own, peer, strict=False):
        assert str(mine.default) == str(theirs.default)
    assert [each.name for each in own[len(peer) :]] == ["memory_format", "seed", "generator", "backend"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'crop'"):
        compat.create_loader(Pictures(), **TRAINING, crop=1)


# ---- A training script


def train_one_epoch(epoch, model, loader, optimizer, loss_fn, mixup_off_epoch, channels_last) -> list[float]:
    """What timm's train.py does with a loader in an epoch."""
    if mixup_off_epoch and epoch >= mixup_off_epoch and loader.mixup_enabled:
        loader.mixup_enabled = False
    model.train()
    losses = []
    for input, target in loader:
        if channels_last:
            input = input.contiguous(memory_format=torch.channels_last)
        loss = loss_fn(model(input), target)
        losses.append(loss.item())
        assert input.size(0) == BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert len(losses) == len(loader)
    return losses


def validate(model, loader) -> float:
    model.eval()
    correct = count = 0
    with torch.no_grad():
        for input, target in loader:
            correct += int((model(input).argmax(1) == target).sum())
            count += target.size(0)
    assert count == len(loader.dataset)
    return correct / count


@pytest.mark.parametrize(("data", "channels_last"), [(compat, True), (timm_data, False)], ids=["ours", "timm's"])
def test_the_loop_of_train_py(data, channels_last):
    """--mixup 0.8 --cutmix 1.0 --smoothing 0.1 --reprob 0.25 --remode pixel --aug-splits 0 --mixup-off-epoch 2, with
    the prefetcher and two workers; with timm's own parts beside it, which shows that the loop is theirs."""
    torch.manual_seed(0)
    dataset_train, dataset_eval = Pictures(24), Pictures(10)
    collate_fn = data.FastCollateMixup(
        mixup_alpha=0.8, cutmix_alpha=1.0, cutmix_minmax=None, prob=1.0, switch_prob=0.5, mode="batch",
        label_smoothing=0.1, num_classes=CLASSES,
    )  # fmt: skip
    common = {
        "input_size": SIZE, "use_prefetcher": True, "mean": MEAN, "std": STD, "num_workers": 2, "distributed": False,
        "pin_memory": False, "device": CPU, "img_dtype": torch.float32,
    }  # fmt: skip
    loader_train = data.create_loader(
        dataset_train, batch_size=BATCH, is_training=True, no_aug=False, re_prob=0.25, re_mode="pixel", re_count=1,
        re_split=False, train_crop_mode=None, scale=[0.08, 1.0], ratio=[3 / 4, 4 / 3], hflip=0.5, vflip=0.0,
        color_jitter=0.4, color_jitter_prob=None, grayscale_prob=0.0, gaussian_blur_prob=0.0, auto_augment=None,
        num_aug_repeats=0, num_aug_splits=0, interpolation="random", collate_fn=collate_fn,
        use_multi_epochs_loader=False, worker_seeding="all", **common,
    )  # fmt: skip
    loader_eval = data.create_loader(
        dataset_eval, batch_size=BATCH, is_training=False, interpolation="bicubic", crop_pct=0.9, **common
    )
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(640, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    assert len(loader_train) == 6 and not hasattr(loader_train.sampler, "set_epoch")
    assert loader_train.dataset is dataset_train and loader_train.batch_sampler.batch_size == BATCH
    for epoch in range(3):
        losses = train_one_epoch(
            epoch, model, loader_train, optimizer, timm_loss.SoftTargetCrossEntropy(), 2, channels_last
        )
        assert np.isfinite(losses).all()
        assert 0.0 <= validate(model, loader_eval) <= 1.0
    assert not loader_train.mixup_enabled and not loader_eval.mixup_enabled


# ---- Errors


def test_what_is_wrong():
    with pytest.raises(TypeError, match="^loader must hand over images of uint8, got torch.float32"):
        next(iter(loader_of(dataset=torch.utils.data.TensorDataset(torch.rand(4, *SIZE), torch.arange(4)),
                            collate_fn=torch.utils.data.default_collate)))  # fmt: skip
    for name, own in (("seed", 1), ("generator", generator(1)), ("backend", "reference")):
        mixup = compat.FastCollateMixup(num_classes=CLASSES, **{name: own})
        with pytest.raises(ValueError, match=f"^collate_fn must have no {name} of its own"):
            loader_of(mixup)
    with pytest.raises(ValueError, match="^mode must be one of 'const', 'rand', 'pixel', got 'blur'"):
        loader_of(re_prob=0.5, re_mode="blur")
    with pytest.raises(ValueError, match="^One of mixup_alpha"):
        next(iter(loader_of(compat.FastCollateMixup(0.0, num_classes=CLASSES))))
    with pytest.raises(ValueError, match=r"^labels must be in 0\.\.1"):
        next(iter(loader_of(compat.FastCollateMixup(num_classes=2))))
    with pytest.raises(AttributeError, match="has no attribute 'create_loaders'"):
        _ = compat.create_loaders
