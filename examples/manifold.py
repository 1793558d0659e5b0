"""Train a classifier whose features are mixed: manifold mixup, and CutMix of feature maps or of a ViT's tokens.

python examples/manifold.py DATA --model resnet18
python examples/manifold.py DATA --model vit_b_16 --cutmix-alpha 0 --mixup-alpha 2

DATA holds train/CLASS/*.jpg and val/CLASS/*.jpg. At each step one place in the network is chosen, the input among them,
and mixes by the step's plan, as Verma et al. (2019) do; labels stay outside of the model. Needs torchvision and rich.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet, VisionTransformer, get_model
from torchvision.transforms import v2

from cutmix_cuda import Mix, MixFeatures, mix_targets, normalize_images

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def with_places(model: nn.Module) -> tuple[nn.Module, list[MixFeatures]]:
    """A model with places in front of it and behind the first two stages, or blocks of a ViT, where it may mix."""
    places = [MixFeatures()]
    if isinstance(model, ResNet):
        for name in ("layer1", "layer2"):
            places.append(MixFeatures())
            setattr(model, name, nn.Sequential(getattr(model, name), places[-1]))
    elif isinstance(model, VisionTransformer):
        side = model.image_size // model.patch_size
        for number in (0, 1):
            places.append(MixFeatures((side, side), prefix=1))  # behind the class token
            model.encoder.layers[number] = nn.Sequential(model.encoder.layers[number], places[-1])
    else:
        raise SystemExit(f"--model must be a ResNet or a VisionTransformer of torchvision, got {type(model).__name__}")
    return nn.Sequential(places[0], model), places


def loss_of(model: nn.Module, place: MixFeatures, mix: Mix, images: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of a batch that is mixed at one place."""
    plan = mix.sample_plan(len(images), *images.shape[-2:], device=images.device)
    targets = mix_targets(labels, plan, mix.num_classes)
    with place.by(plan):
        return F.cross_entropy(model(images), targets)


@torch.inference_mode()
def accuracy(model: nn.Module, loader: DataLoader, device: torch.device) -> float:
    model.eval()
    right, number = torch.zeros((), dtype=torch.int64, device=device), 0
    for images, labels in track(loader, "validation", transient=True):
        answers = model(normalize_images(images.to(device), MEAN, STD)).argmax(dim=1)
        right += (answers == labels.to(device)).sum()
        number += len(labels)
    return right.item() / number


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("--model", default="resnet18", help="a ResNet or ViT of torchvision.models (%(default)s)")
    parser.add_argument("--cutmix-alpha", type=float, default=1.0, help="0: no CutMix (%(default)s)")
    parser.add_argument("--mixup-alpha", type=float, default=1.0, help="0: no MixUp (%(default)s)")
    parser.add_argument("--epochs", type=int, default=50, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="(%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.05, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="that load images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> float:
    """Trains, and returns the accuracy on the validation images."""
    args = parse(arguments)
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    choose = random.Random(args.seed)
    crops = v2.Compose([v2.PILToTensor(), v2.RandomResizedCrop(args.size, scale=(0.5, 1.0)), v2.RandomHorizontalFlip()])
    centre = v2.Compose([v2.PILToTensor(), v2.Resize(args.size), v2.CenterCrop(args.size)])
    training, validation = ImageFolder(args.data / "train", crops), ImageFolder(args.data / "val", centre)
    loader = DataLoader(training, args.batch_size, shuffle=True, drop_last=True, num_workers=args.workers)
    val_loader = DataLoader(validation, args.batch_size, num_workers=args.workers)

    classes = len(training.classes)
    size = {"image_size": args.size} if args.model.startswith("vit") else {}
    model, places = with_places(get_model(args.model, num_classes=classes, **size).to(device))
    mix = Mix(num_classes=classes, cutmix_alpha=args.cutmix_alpha, mixup_alpha=args.mixup_alpha, seed=args.seed)
    optimizer = torch.optim.SGD(model.parameters(), args.learning_rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loader))
    score = 0.0
    for epoch in range(args.epochs):
        model.train()
        for images, labels in track(loader, "training", transient=True):
            inputs = normalize_images(images.to(device, non_blocking=True), MEAN, STD)
            loss = loss_of(model, choose.choice(places), mix, inputs, labels.to(device, non_blocking=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        score = accuracy(model, val_loader, device)
        print(f"epoch {epoch + 1}: accuracy {score:.2%}")
    return score


if __name__ == "__main__":
    main()
