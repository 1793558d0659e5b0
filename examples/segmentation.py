"""Train a segmentation network with CutMix: images and masks are mixed by one plan.

python examples/segmentation.py DATA --classes 21

DATA holds train/images/NAME.jpg with train/masks/NAME.png, and val/ likewise. A mask's bytes are class indices; 255 is
ignored. Needs torchvision and rich.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models.segmentation import lraspp_mobilenet_v3_large
from torchvision.transforms import v2

from cutmix_cuda import CutMix, mix_images_

IGNORED = 255
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, of bytes


class ImagesAndMasks(Dataset):
    """Pairs of uint8 (3, size, size) and uint8 (size, size), transformed alike."""

    def __init__(self, folder: Path, transform: v2.Transform) -> None:
        self.masks = sorted((folder / "masks").glob("*.png"))
        images = {path.stem: path for path in (folder / "images").iterdir()}
        self.images = [images[mask.stem] for mask in self.masks]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = tv_tensors.Image(v2.functional.pil_to_tensor(Image.open(self.images[index]).convert("RGB")))
        mask = tv_tensors.Mask(v2.functional.pil_to_tensor(Image.open(self.masks[index])))
        image, mask = self.transform(image, mask)
        return image, mask[0]


def prepare(images: Tensor) -> Tensor:
    """Bytes to what the network takes."""
    return v2.functional.normalize(images.float(), MEAN, STD).contiguous(memory_format=torch.channels_last)


def train(network: nn.Module, mix: CutMix, loader: DataLoader, optimizer: torch.optim.Optimizer, device: torch.device):
    network.train()
    for images, masks in track(loader, "training", transient=True):
        images, masks = images.to(device, non_blocking=True), masks.to(device, non_blocking=True)
        images, _, plan = mix(images, return_plan=True)
        mix_images_(masks, plan)  # a pasted box brings its mask along, ignored pixels included
        loss = F.cross_entropy(network(prepare(images))["out"], masks.long(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.inference_mode()
def mean_iou(network: nn.Module, classes: int, loader: DataLoader, device: torch.device) -> float:
    """The intersection over union of the classes that there are, on average."""
    network.eval()
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    for images, masks in track(loader, "validation", transient=True):
        guesses = network(prepare(images.to(device)))["out"].argmax(dim=1)
        masks = masks.to(device).long()
        known = masks != IGNORED
        confusion += torch.bincount(masks[known] * classes + guesses[known], minlength=classes * classes)
    matrix = confusion.view(classes, classes)
    union = matrix.sum(dim=0) + matrix.sum(dim=1) - matrix.diag()
    return (matrix.diag() / union)[union > 0].mean().item()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=30, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--size", type=int, default=480, help="height and width in pixels (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="(%(default)s)")
    parser.add_argument("--prob", type=float, default=0.5, help="of CutMix, for each image (%(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="that load images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> float:
    """Trains, and returns the mean intersection over union on the validation images."""
    args = parse(arguments)
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    crops = v2.Compose([v2.RandomResizedCrop(args.size, scale=(0.5, 1.0)), v2.RandomHorizontalFlip()])
    loader = DataLoader(
        ImagesAndMasks(args.data / "train", crops),
        args.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
    )
    centre = v2.Compose([v2.Resize(args.size), v2.CenterCrop(args.size)])
    val_loader = DataLoader(ImagesAndMasks(args.data / "val", centre), args.batch_size, num_workers=args.workers)

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=args.classes)
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), args.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    mix = CutMix(prob=args.prob, inplace=True, seed=args.seed)
    score = 0.0
    for epoch in range(args.epochs):
        train(network, mix, loader, optimizer, device)
        schedule.step()
        score = mean_iou(network, args.classes, val_loader, device)
        print(f"epoch {epoch + 1}: mean intersection over union {score:.2%}")
    return score


if __name__ == "__main__":
    main()
