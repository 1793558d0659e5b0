"""The examples that people start from, each on a tiny set that is made here."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

torchvision = pytest.importorskip("torchvision")
from PIL import Image  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str):
    """The script as a module."""
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# ---- imagenet.py

SIZES = {"train": 8, "val": 3}  # images a class


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """Two classes, of dark and of bright images."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, number in SIZES.items():
        for label, name in enumerate(("dark", "bright")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 100, (40, 48, 3), dtype=np.uint8) + np.uint8(150 * label)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def imagenet_arguments(data: Path, output: Path, **options) -> list[str]:
    options = {"model": "squeezenet1_1", "epochs": 2, "batch-size": 4, "size": 32, "workers": 0, **options}
    named = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [str(data), "--output", str(output), "--device", "cpu", "--no-amp", *named]


def test_imagenet_resumes_as_if_nothing_had_happened(image_folder, tmp_path, monkeypatch):
    imagenet = example("imagenet")
    expected = imagenet.main(imagenet_arguments(image_folder, tmp_path / "whole"))
    steps_an_epoch = 2 * SIZES["train"] // 4
    mixed, mix = [], imagenet.Augment.forward

    class Killed(Exception):
        pass

    def mix_until_killed(self, images, labels=None):
        if not self.training:
            return mix(self, images)
        if len(mixed) == steps_an_epoch + 2:  # in the middle of the second epoch
            raise Killed
        mixed.append(mix(self, images, labels))
        return mixed[-1]

    arguments = imagenet_arguments(image_folder, tmp_path / "killed")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(imagenet.Augment, "forward", mix_until_killed)
        imagenet.main(arguments)
    torch.manual_seed(99)
    resumed = imagenet.main(arguments)
    assert resumed.epoch == expected.epoch == 2
    for part in ("model", "ema"):
        assert torch.equal(weights(getattr(resumed, part)), weights(getattr(expected, part)))
    assert not torch.equal(weights(resumed.model), weights(resumed.ema))


ONE_RANK = """
import importlib.util
import sys

import torch
from torch.nn.modules.module import register_module_forward_hook

_, script, *arguments = sys.argv
specification = importlib.util.spec_from_file_location("imagenet", script)
imagenet = importlib.util.module_from_spec(specification)
specification.loader.exec_module(imagenet)
drawn = []


def record(module, _, result):
    if isinstance(module, imagenet.Augment) and module.training:
        drawn.append(result[1].lam)


register_module_forward_hook(record)
run = imagenet.main(arguments)
weights = torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])
torch.save((weights, torch.stack(drawn)), f"{run.ranks.rank}.pt")
"""


def test_imagenet_on_two_ranks(image_folder, tmp_path):
    """Started by torchrun: the weights stay the same, the draws do not."""
    script = tmp_path / "one_rank.py"
    script.write_text(ONE_RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    arguments = imagenet_arguments(image_folder, tmp_path / "output", recipe="deit", epochs=1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(EXAMPLES / "imagenet.py"), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (weights_0, lam_0), (weights_1, lam_1) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(weights_0, weights_1) and weights_0.isfinite().all()
    assert lam_0.shape == lam_1.shape == (SIZES["train"] // 4, 4)
    assert not (lam_0 == lam_1).any()
    assert len(done.stdout.split("accuracy")) == 2, "one rank reports"


# ---- cifar_speedrun.py


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A class is a channel that is bright, or two."""
    root, rng = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for name, number in (("data_batch_1", 64), ("data_batch_2", 64), ("test_batch", 30)):
        labels = rng.integers(0, 3, number, dtype=np.uint8)
        images = rng.integers(0, 100, (number, 3, 32, 32), dtype=np.uint8)
        images[np.arange(number), labels] += 150
        np.concatenate([labels[:, None], images.reshape(number, -1)], axis=1).tofile(root / f"{name}.bin")
    return root


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
def test_cifar_speedrun_learns(cifar, compiled):
    options = ["--epochs", "3", "--batch-size", "16", "--width", "4", "--learning-rate", "0.1", "--device", "cpu"]
    backend = torch.compiler.get_default_backend()
    torch.compiler.set_default_backend("aot_eager")  # inductor is slow
    try:
        accuracy = example("cifar_speedrun").main([str(cifar), *options, *(["--compile"] if compiled else [])])
    finally:
        torch.compiler.set_default_backend(backend)
    assert accuracy > 0.9


def test_cifar_crops_and_flips_each_by_itself():
    """Every window is one of its own image's, mirrored or not."""
    speedrun = example("cifar_speedrun")
    torch.manual_seed(0)
    images = torch.randint(256, (60, 3, 32, 32), dtype=torch.uint8)
    padded = torch.nn.functional.pad(images, [4] * 4)
    cropped = speedrun.crop_and_flip(padded)
    seen = set()
    for i in range(60):
        windows = {
            (y, x, flipped): window.flip(2) if flipped else window
            for y, x, flipped in itertools.product(range(9), range(9), (False, True))
            for window in [padded[i, :, y : y + 32, x : x + 32]]
        }
        (found,) = [where for where, window in windows.items() if torch.equal(window, cropped[i])]
        seen.add(found)
    for drawn, choices in zip(zip(*seen, strict=True), (range(9), range(9), (False, True)), strict=True):
        assert set(drawn) == set(choices)


# ---- segmentation.py


@pytest.fixture(scope="module")
def masks_folder(tmp_path_factory):
    """The bright half of an image is class 1; a line between the halves is ignored."""
    root, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    for part, number in (("train", 6), ("val", 2)):
        for what in ("images", "masks"):
            (root / part / what).mkdir(parents=True)
        for i in range(number):
            pixels = rng.integers(0, 100, (64, 64, 3), dtype=np.uint8)
            mask = np.zeros((64, 64), np.uint8)
            pixels[:, 32:] += 150
            mask[:, 32:], mask[:, 32] = 1, 255
            Image.fromarray(pixels).save(root / part / "images" / f"{i}.png")
            Image.fromarray(mask).save(root / part / "masks" / f"{i}.png")
    return root


def test_segmentation_runs(masks_folder):
    segmentation = example("segmentation")
    options = [
        "--classes",
        "2",
        "--epochs",
        "1",
        "--batch-size",
        "2",
        "--size",
        "64",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    assert 0 <= segmentation.main([str(masks_folder), *options]) <= 1


def test_segmentation_counts_as_by_hand():
    """Two of three pixels of class 0 are right, one of one of class 1, and the ignored one does not count."""
    segmentation = example("segmentation")
    guesses, mask = torch.tensor([[0, 0, 1, 1, 0]]), torch.tensor([[0, 0, 0, 1, 255]])

    class Network(torch.nn.Module):
        def forward(self, images):
            return {"out": torch.nn.functional.one_hot(guesses, 3).permute(2, 0, 1)[None].float()}

    batch = torch.zeros(1, 3, 1, 5, dtype=torch.uint8), mask[None]
    score = segmentation.mean_iou(Network(), 3, [batch], torch.device("cpu"))
    assert score == pytest.approx((2 / 3 + 1 / 2) / 2)


# ---- semi_supervised.py


def test_semi_supervised_runs(image_folder):
    options = {
        "labels": 2,
        "model": "squeezenet1_1",
        "epochs": 2,
        "batch-size": 4,
        "size": 32,
        "workers": 0,
        "device": "cpu",
    }
    named = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    assert 0 <= example("semi_supervised").main([str(image_folder), *named]) <= 1


def test_semi_supervised_chooses_labels_by_class():
    assert example("semi_supervised").first_of_each_class([1, 0, 1, 1, 0, 2, 0], 2) == [0, 1, 2, 4, 5]


def test_semi_supervised_loss_is_as_by_hand():
    """Whatever the boxes: a teacher that always answers the same is to be answered the same on mixed images."""
    semi_supervised = example("semi_supervised")
    logits, answers = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 0.0, -0.5])
    seen = []

    class Network(torch.nn.Module):
        def __init__(self, answer):
            super().__init__()
            self.answer = answer

        def forward(self, images):
            seen.append(images)
            return self.answer.expand(len(images), -1)

    augment = semi_supervised.Augment(semi_supervised.CutMix(num_classes=3), mean=0.5, std=0.5, seed=0)
    labelled = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8), torch.full((4,), 2)
    unlabelled = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    loss = semi_supervised.loss_of(Network(logits), Network(answers), augment, labelled, unlabelled, weight=3.0)
    consistency = (logits.softmax(0) - answers.softmax(0)).square().sum()
    assert loss.item() == pytest.approx(-logits.log_softmax(0)[2].item() + 3 * consistency.item())
    teachers, students = seen[1:]
    plain = (unlabelled.float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(teachers, plain)
    assert not torch.allclose(students, plain), "the student's are mixed"


# ---- manifold.py


@pytest.mark.parametrize("kinds", [{"cutmix-alpha": 0.0}, {"mixup-alpha": 0.0}])
def test_manifold_runs(image_folder, kinds):
    options = {"model": "resnet18", "epochs": 1, "batch-size": 4, "size": 32, "workers": 0, "device": "cpu", **kinds}
    named = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    assert 0 <= example("manifold").main([str(image_folder), *named]) <= 1


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_manifold_mixes_at_one_place(name):
    """What goes into the network behind the place is mixed; without a plan the model is as it was."""
    manifold = example("manifold")
    if name == "vit":
        sizes = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8}
        model = torchvision.models.VisionTransformer(**sizes, num_classes=3)
        torch.nn.init.normal_(model.heads.head.weight)  # they begin as 0
    else:
        model = torchvision.models.resnet18(num_classes=3)
    model.eval()  # without statistics of the batch
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    before = model(images)
    whole, places = manifold.with_places(model)
    assert torch.equal(whole(images), before)
    assert len(places) == 3
    mix = manifold.Mix(num_classes=3, cutmix_alpha=0, mixup_alpha=1.0, seed=0)
    losses = set()
    for place in places:
        place.train()
        manifold.loss_of(whole, place, manifold.Mix(num_classes=3, mixup_alpha=1.0, seed=1), images, labels).backward()
        assert all(parameter.grad is not None for parameter in whole.parameters())
        losses.add(manifold.loss_of(whole, place, mix, images, labels).item())
    assert len(losses) == 3
