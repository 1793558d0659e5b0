"""A callback of Lightning: which batches it mixes, where in them, and what goes into a checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

import cutmix_cuda
from cutmix_cuda import CutMix, Mix

from ..api.test_loops import CLASSES, IMAGES, LABELS, network
from ..api.test_seed import oracle as counted_seed
from ..helpers import assert_same_bits

lightning: Any = pytest.importorskip("lightning", reason="Lightning is not installed")
SAMPLES = list(zip(IMAGES, LABELS, strict=True))


def callback(mix: Any, **places: Any):
    from cutmix_cuda.compat.lightning import MixCallback

    return MixCallback(mix, **places)


def fit(
    folder: Path, callbacks: list, samples: Any, images: Any = 0, labels: Any = 1, epochs: int = 1, checkpoint=None
):
    """The trainer, and the module that knows what its training and validation steps were given."""

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()
            self.trained_on: list[Any] = []
            self.validated_on: list[Any] = []

        def training_step(self, batch, batch_idx):
            self.trained_on.append(batch)
            return F.cross_entropy(self.model(batch[images]), batch[labels])

        def validation_step(self, batch, batch_idx):
            self.validated_on.append(batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=callbacks,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    loaders = DataLoader(samples, batch_size=4), DataLoader(samples, batch_size=4)
    trainer.fit(module, *loaders, ckpt_path=checkpoint, weights_only=True)
    return trainer, module


def assert_mixed(batch: Any, expected: tuple[Tensor, Tensor], images: Any = 0, labels: Any = 1) -> None:
    assert_same_bits(batch[images], expected[0])
    assert_same_bits(batch[labels], expected[1])


def batches():
    return zip(IMAGES.split(4), LABELS.split(4), strict=True)


def test_mixes_and_resumes(tmp_path):
    """Every batch of training, before and after a checkpoint, and none of validation."""

    def expect(module, first_step):
        assert len(module.trained_on) == len(module.validated_on) == 2
        for i, (images, labels) in enumerate(batches()):
            seed = counted_seed(3, first_step + i)
            assert_mixed(module.trained_on[i], cutmix_cuda.cutmix(images, labels, CLASSES, seed=seed))
            assert_mixed(module.validated_on[i], (images, labels))

    trainer, module = fit(tmp_path, [callback(CutMix(num_classes=CLASSES, seed=3))], SAMPLES)
    expect(module, 0)
    trainer.save_checkpoint(tmp_path / "1.ckpt")
    again = [callback(CutMix(num_classes=CLASSES, seed=3))]
    _, module = fit(tmp_path, again, SAMPLES, epochs=2, checkpoint=tmp_path / "1.ckpt")
    expect(module, 2)


def test_several_callbacks_resume_each_on_its_own(tmp_path):
    """One after the other, the second with the soft labels of the first, of one class or of several."""

    def callbacks():
        mixes = [CutMix(num_classes=CLASSES, seed=3), Mix(cutmix_alpha=None, seed=4), CutMix(seed=5)]
        return [callback(mix) for mix in mixes]

    def expect(module, first_step):
        for i, batch in enumerate(batches()):
            step = first_step + i
            batch = cutmix_cuda.cutmix(*batch, CLASSES, seed=counted_seed(3, step))
            batch = cutmix_cuda.mix(*batch, cutmix_alpha=None, seed=counted_seed(4, step))
            assert_mixed(module.trained_on[i], cutmix_cuda.cutmix(*batch, seed=counted_seed(5, step)))

    trainer, module = fit(tmp_path, callbacks(), SAMPLES)
    expect(module, 0)
    trainer.save_checkpoint(tmp_path / "1.ckpt")
    _, module = fit(tmp_path, callbacks(), SAMPLES, epochs=2, checkpoint=tmp_path / "1.ckpt")
    expect(module, 2)


@pytest.mark.parametrize("name", ["timm", "timm with a seed", "torchvision", "function"])
def test_whatever_mixes_two_things(name, tmp_path):
    """Checkpoints are written and read, with a state or without."""
    if name == "torchvision":
        pytest.importorskip("torchvision")
        from cutmix_cuda.compat.torchvision import CutMix as Peers

        mix = Peers(num_classes=CLASSES, seed=3)
    elif name == "function":

        def mix(images, labels):
            return cutmix_cuda.cutmix(images, labels, CLASSES)
    else:
        from cutmix_cuda.compat.timm import Mixup

        mix = Mixup(num_classes=CLASSES, seed=3 if "seed" in name else None)
    trainer, module = fit(tmp_path, [callback(mix)], SAMPLES)
    assert [batch[1].shape for batch in module.trained_on] == [(4, CLASSES)] * 2
    trainer.save_checkpoint(tmp_path / "1.ckpt")
    _, module = fit(tmp_path, [callback(mix)], SAMPLES, epochs=2, checkpoint=tmp_path / "1.ckpt")
    assert len(module.trained_on) == 2


def test_a_checkpoint_from_before(tmp_path):
    """That has no state of a callback starts its count at 0."""
    trainer, _ = fit(tmp_path, [], SAMPLES)
    trainer.save_checkpoint(tmp_path / "1.ckpt")
    again = [callback(CutMix(num_classes=CLASSES, seed=3))]
    trainer, module = fit(tmp_path, again, SAMPLES, epochs=2, checkpoint=tmp_path / "1.ckpt")
    images, labels = next(batches())
    assert_mixed(module.trained_on[0], cutmix_cuda.cutmix(images, labels, CLASSES, seed=counted_seed(3, 0)))


@pytest.mark.parametrize(
    ("sample", "places"),
    [
        (lambda image, label: {"image": image, "label": label, "id": 7}, {"images": "image", "labels": "label"}),
        (lambda image, label: (image, label, 7), {}),
        (lambda image, label: (7, label, image), {"images": 2, "labels": 1}),
    ],
    ids=["dict", "three", "in another order"],
)
def test_batches_of_another_form(tmp_path, sample, places):
    """Images and labels are replaced where they are, and the rest stays."""
    mix = callback(CutMix(num_classes=CLASSES, seed=3), **places)
    _, module = fit(tmp_path, [mix], [sample(*each) for each in SAMPLES], **places)
    for i, (images, labels) in enumerate(batches()):
        expected = cutmix_cuda.cutmix(images, labels, CLASSES, seed=counted_seed(3, i))
        batch = module.trained_on[i]
        assert_mixed(batch, expected, **places)
        (rest,) = set(range(len(batch)) if isinstance(batch, list) else batch) - {mix.images, mix.labels}
        assert batch[rest].tolist() == [7] * 4


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((IMAGES, LABELS), TypeError, "a batch must be a list or a dict to be mixed, got tuple"),
        (IMAGES, TypeError, "a batch must be a list or a dict to be mixed, got Tensor"),
        (
            [IMAGES],
            ValueError,
            "a batch must have images at 0 and labels at 1, got list with 0; give MixCallback images=",
        ),
        (
            {"image": IMAGES, "y": LABELS},
            ValueError,
            "a batch must have images at 0 .* got dict with 'image', 'y'; give",
        ),
    ],
    ids=["tuple", "tensor", "one", "dict"],
)
def test_batches_that_cannot_be_mixed(batch, error, message):
    with pytest.raises(error, match=f"^{message}"):
        callback(CutMix(num_classes=CLASSES)).on_train_batch_start(None, None, batch, 0)


@pytest.mark.parametrize("package", ["lightning", "pytorch_lightning"])
def test_one_of_lightnings_two_packages_is_enough(package):
    pytest.importorskip(package)
    other = {"lightning": "pytorch_lightning", "pytorch_lightning": "lightning"}[package]
    check = (
        f"import sys; sys.modules[{other!r}] = None; from cutmix_cuda.compat.lightning import MixCallback; "
        f"assert MixCallback.__mro__[1].__module__.startswith({package!r})"
    )
    subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", check], check=True)
