"""Train a classifier on few labels and many images: a mean teacher, whose answers are mixed as the images are.

python examples/semi_supervised.py DATA --labels 25

DATA holds train/CLASS/*.jpg and val/CLASS/*.jpg; only the first --labels images of each class keep their label. The
student learns to answer on mixed images what the teacher, the average of the student's past weights (Tarvainen and
Valpola, 2017), answers on those that they are mixed of: interpolation consistency (Verma et al., 2019), by CutMix
(French et al., 2020). Bytes become the student's input in one launch. Needs torchvision and rich.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.models import get_model
from torchvision.transforms import v2

from cutmix_cuda import Augment, CutMix

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def first_of_each_class(classes: Sequence[int], number: int) -> list[int]:
    """Where the first samples of each class are."""
    seen: Counter[int] = Counter()
    chosen = []
    for index, label in enumerate(classes):
        seen[label] += 1
        if seen[label] <= number:
            chosen.append(index)
    return chosen


def ramp_up(progress: float) -> float:
    """From 0 to 1 in the first quarter of the training, because a teacher of random weights teaches nothing."""
    return math.exp(-5 * (1 - min(1.0, 4 * progress)) ** 2)


def loss_of(
    student: nn.Module,
    teacher: nn.Module,
    augment: Augment,
    labelled: tuple[Tensor, Tensor],
    unlabelled: Tensor,
    weight: float,
) -> Tensor:
    """Cross entropy on the labelled images, plus the consistency of student and teacher on the others."""
    inputs, targets = augment.train()(*labelled)
    supervised = F.cross_entropy(student(inputs), targets)
    with torch.no_grad():
        seen, _ = augment.eval()(unlabelled)  # normalised, and neither moved nor mixed
        answers = teacher(seen).softmax(dim=1)
    inputs, targets = augment.train()(unlabelled, answers)  # soft labels are mixed as class indices are
    consistency = (student(inputs).softmax(dim=1) - targets).square().sum(dim=1).mean()
    return supervised + weight * consistency


@torch.inference_mode()
def accuracy(model: nn.Module, augment: Augment, loader: DataLoader, device: torch.device) -> float:
    model.eval()
    right, number = torch.zeros((), dtype=torch.int64, device=device), 0
    for images, labels in track(loader, "validation", transient=True):
        inputs, labels = augment.eval()(images.to(device), labels.to(device))
        right += (model(inputs).argmax(dim=1) == labels).sum()
        number += len(labels)
    return right.item() / number


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("--labels", type=int, default=25, help="of each class (%(default)s)")
    parser.add_argument("--model", default="resnet18", help="a name of torchvision.models (%(default)s)")
    parser.add_argument("--epochs", type=int, default=50, help="over all images (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="labelled, and as many others (%(default)s)")
    parser.add_argument("--size", type=int, default=128, help="height and width in pixels (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.03, help="(%(default)s)")
    parser.add_argument("--consistency", type=float, default=10.0, help="its weight in the loss (%(default)s)")
    parser.add_argument("--decay", type=float, default=0.99, help="of the teacher's average (%(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="that load images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> float:
    """Trains, and returns the teacher's accuracy on the validation images."""
    args = parse(arguments)
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    crops = v2.Compose([v2.PILToTensor(), v2.RandomResizedCrop(args.size, scale=(0.5, 1.0))])
    centre = v2.Compose([v2.PILToTensor(), v2.Resize(args.size), v2.CenterCrop(args.size)])
    every, validation = ImageFolder(args.data / "train", crops), ImageFolder(args.data / "val", centre)
    labelled = Subset(every, first_of_each_class(every.targets, args.labels))
    how = {"shuffle": True, "drop_last": True, "num_workers": args.workers}
    labelled_loader = DataLoader(labelled, min(args.batch_size, len(labelled)), **how)
    loader = DataLoader(every, args.batch_size, **how)
    val_loader = DataLoader(validation, args.batch_size, num_workers=args.workers)

    classes = len(every.classes)
    student = get_model(args.model, num_classes=classes).to(device, memory_format=torch.channels_last)
    teacher = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(args.decay), use_buffers=True)
    augment = Augment(
        CutMix(num_classes=classes),
        mean=MEAN,
        std=STD,
        flip=0.5,
        translate=args.size // 16,
        memory_format=torch.channels_last,
        seed=args.seed,
    )
    optimizer = torch.optim.SGD(
        student.parameters(), args.learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = args.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    labelled_batches = itertools.chain.from_iterable(itertools.repeat(labelled_loader))
    step, score = 0, 0.0
    for epoch in range(args.epochs):
        student.train()
        teacher.eval()
        for unlabelled, _ in track(loader, "training", transient=True):
            images, labels = (part.to(device, non_blocking=True) for part in next(labelled_batches))
            unlabelled = unlabelled.to(device, non_blocking=True)
            weight = args.consistency * ramp_up(step / steps)
            loss = loss_of(student, teacher, augment, (images, labels), unlabelled, weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            teacher.update_parameters(student)
            step += 1
        score = accuracy(teacher, augment, val_loader, device)
        print(f"epoch {epoch + 1}: the teacher's accuracy {score:.2%}")
    return score


if __name__ == "__main__":
    main()
