"""Train a classifier on a folder of images, mixed on the device: on one GPU, on many, or on a CPU.

python examples/imagenet.py DATA
torchrun --nproc-per-node=8 examples/imagenet.py DATA --recipe deit --output runs/deit

DATA holds train/CLASS/*.jpg and val/CLASS/*.jpg, as ImageNet and any other ImageFolder does. Every epoch leaves
OUTPUT/last.pt; started again with the same arguments, a run goes on from there and ends with the weights that it would
have had without the interruption. Needs torchvision and rich.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from rich.progress import track
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.datasets import ImageFolder
from torchvision.models import get_model
from torchvision.transforms import v2

from cutmix_cuda import Augment, Erase, Mix, cross_entropy

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class Recipe(NamedTuple):
    """How to train. Learning rates are for 256 images a step, and grow with their number."""

    model: str
    optimizer: str
    learning_rate: float
    weight_decay: float
    epochs: int
    warmup_epochs: int
    mixup_alpha: float
    label_smoothing: float
    distort: v2.Transform
    erase: Erase
    ema_decay: float


RECIPES = {
    # torchvision's "new recipe" for ResNet-50, without repeated augmentation and the smaller training crops.
    "torchvision": Recipe(
        "resnet50", "sgd", 0.125, 2e-5, 600, 5, 0.2, 0.1, v2.TrivialAugmentWide(), Erase(0.1), 0.99998
    ),
    # DeiT (Touvron et al., 2021), without repeated augmentation and stochastic depth.
    "deit": Recipe(
        "vit_b_16", "adamw", 2.5e-4, 0.05, 300, 5, 0.8, 0.1, v2.RandAugment(2, 9), Erase(0.25, value="pixel"), 0.99996
    ),
}


class Ranks:
    """The processes that train together: those that torchrun started, or this one."""

    def __init__(self, device: str) -> None:
        self.together = "RANK" in os.environ
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self.device = torch.device(device, local_rank) if device == "cuda" else torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.together:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        self.rank = dist.get_rank() if self.together else 0
        self.number = dist.get_world_size() if self.together else 1

    def wrap(self, model: nn.Module) -> nn.Module:
        if not self.together:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over all ranks."""
        if self.together:
            dist.all_reduce(numbers)
        return numbers

    def track(self, batches: DataLoader, what: str) -> Iterable[tuple[Tensor, Tensor]]:
        """The batches, with a progress bar on the first rank."""
        return track(batches, what, disable=self.rank != 0, transient=True)


def make_loader(folder: Path, transform: v2.Transform, args: argparse.Namespace, ranks: Ranks, train: bool):
    data = ImageFolder(folder, transform)
    return DataLoader(
        data,
        args.batch_size,
        sampler=DistributedSampler(data, ranks.number, ranks.rank, shuffle=train, seed=args.seed, drop_last=train),
        num_workers=args.workers,
        pin_memory=ranks.device.type == "cuda",
        drop_last=train,
        generator=torch.Generator(),
    )


def make_optimizer(model: nn.Module, recipe: Recipe, images_a_step: int) -> torch.optim.Optimizer:
    """Weights decay; biases and the parameters of normalisation do not."""
    parameters = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    learning_rate = recipe.learning_rate * images_a_step / 256
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, learning_rate)
    return torch.optim.SGD(parameters, learning_rate, momentum=0.9, nesterov=True)


def warmup_then_cosine(step: int, warmup_steps: int, steps: int) -> float:
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps))


class Run:
    """Everything that changes while training, and so is in a checkpoint."""

    def __init__(self, args: argparse.Namespace, recipe: Recipe, ranks: Ranks) -> None:
        self.args, self.recipe, self.ranks = args, recipe, ranks
        bytes_of = v2.Compose([v2.RandomResizedCrop(args.size), recipe.distort, v2.PILToTensor()])
        centre = v2.Compose([v2.Resize(round(args.size / 0.875)), v2.CenterCrop(args.size), v2.PILToTensor()])
        self.train_loader = make_loader(args.data / "train", bytes_of, args, ranks, train=True)
        self.val_loader = make_loader(args.data / "val", centre, args, ranks, train=False)

        torch.manual_seed(args.seed)  # the same weights on every rank
        classes = len(self.train_loader.dataset.classes)
        model = get_model(args.model or recipe.model, num_classes=classes)
        self.model = model.to(ranks.device, memory_format=torch.channels_last)
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
        self.trained = ranks.wrap(self.model)
        self.optimizer = make_optimizer(self.model, recipe, args.batch_size * ranks.number)
        self.epochs = args.epochs or recipe.epochs
        steps = len(self.train_loader)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: warmup_then_cosine(step, recipe.warmup_epochs * steps, self.epochs * steps)
        )
        # Bytes to what the model takes in one launch. Ranks are given one seed and draw apart. Pairs save a matrix of
        # soft targets; smoothing is left to the loss.
        self.augment = Augment(
            Mix(mixup_alpha=recipe.mixup_alpha, targets="pairs"),
            mean=MEAN,
            std=STD,
            flip=0.5,
            erase=recipe.erase,
            memory_format=torch.channels_last,
            seed=args.seed,
        )
        self.epoch = 0

    def state_dict(self) -> dict:
        parts = ("model", "ema", "optimizer", "schedule", "augment")
        return {"epoch": self.epoch, **{part: getattr(self, part).state_dict() for part in parts}}

    def load_state_dict(self, state: dict) -> None:
        self.epoch = state.pop("epoch")
        for part, values in state.items():
            getattr(self, part).load_state_dict(values)

    def moved(self, *batch: Tensor) -> list[Tensor]:
        return [part.to(self.ranks.device, non_blocking=True) for part in batch]

    def train_epoch(self) -> None:
        # An epoch begins from seeds of its own, so that no state of a generator has to be saved.
        seed = self.args.seed + self.epoch * self.ranks.number + self.ranks.rank
        torch.manual_seed(seed)
        self.train_loader.generator.manual_seed(seed)
        self.train_loader.sampler.set_epoch(self.epoch)
        self.trained.train()
        self.augment.train()
        for images, labels in self.ranks.track(self.train_loader, f"epoch {self.epoch + 1}"):
            images, targets = self.augment(*self.moved(images, labels))
            with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.args.amp):
                logits = self.trained(images)
            loss = cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.ema.update_parameters(self.model)
        self.epoch += 1

    @torch.inference_mode()
    def accuracy(self, model: nn.Module) -> float:
        """Of the validation images, on all ranks. Where they cannot be divided evenly, a few count twice."""
        model.eval()
        right_and_all = torch.zeros(2, dtype=torch.int64, device=self.ranks.device)
        for images, labels in self.ranks.track(self.val_loader, "validation"):
            images, labels = self.moved(images, labels)
            images, _ = self.augment.eval()(images)
            right_and_all[0] += (model(images).argmax(dim=1) == labels).sum()
            right_and_all[1] += len(labels)
        right, number = self.ranks.total(right_and_all).tolist()
        return right / number


def save(state: dict, path: Path) -> None:
    """Whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    unfinished.replace(path)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("--recipe", choices=RECIPES, default="torchvision", help="how to train (%(default)s)")
    parser.add_argument("--model", help="any classifier of torchvision (that of the recipe)")
    parser.add_argument("--epochs", type=int, help="(those of the recipe)")
    parser.add_argument("--batch-size", type=int, default=128, help="images a step on each rank (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels (%(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="that load images, of each rank (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-amp", dest="amp", action="store_false", help="train in float32 instead of bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/imagenet"), help="for the checkpoint (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> Run:
    args = parse(arguments)
    ranks = Ranks(args.device)
    run = Run(args, RECIPES[args.recipe], ranks)
    checkpoint = args.output / "last.pt"
    args.output.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        run.load_state_dict(torch.load(checkpoint, map_location=ranks.device, weights_only=True))
    while run.epoch < run.epochs:
        run.train_epoch()
        accuracy, averaged = run.accuracy(run.model), run.accuracy(run.ema)
        if ranks.rank == 0:
            print(f"epoch {run.epoch}: accuracy {accuracy:.2%}, of the averaged weights {averaged:.2%}", flush=True)
            save(run.state_dict(), checkpoint)
    if ranks.together:
        dist.destroy_process_group()
    return run


if __name__ == "__main__":
    main()
