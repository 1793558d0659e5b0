"""CIFAR-10 with everything on the device: the data, the augmentation, the mixing and the training.

python examples/cifar_speedrun.py cifar-10-batches-bin
python examples/cifar_speedrun.py cifar-10-batches-bin --compile --epochs 30

Takes the binary version of CIFAR-10 (data_batch_1.bin to data_batch_5.bin and test_batch.bin). All of it fits into 250
MB of the device's memory, so a step copies nothing from the host. Needs rich.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from cutmix_cuda import CutMix, cross_entropy

CLASSES, SIDE, PADDING = 10, 32, 4
MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # of bytes


def load(files: list[Path], device: torch.device) -> tuple[Tensor, Tensor]:
    """Images, uint8 (N, 3, 32, 32), and labels, int64 (N,): a record is the label's byte and then the pixels."""
    records = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, 1 + 3 * SIDE * SIDE) for file in files])
    images = torch.from_numpy(records[:, 1:].copy()).view(-1, 3, SIDE, SIDE)
    return images.to(device), torch.from_numpy(records[:, 0].astype(np.int64)).to(device)


class Normalise(nn.Module):
    """Bytes to floats in channels-last. The constants are buffers, because a step is to copy nothing from the host."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def crop_and_flip(padded: Tensor) -> Tensor:
    """A window and a side of its own for each of the padded images (B, 3, 40, 40), at once."""
    batch, device = len(padded), padded.device
    line = torch.arange(SIDE, device=device)
    rows = torch.randint(2 * PADDING + 1, (batch, 1), device=device) + line
    columns = torch.randint(2 * PADDING + 1, (batch, 1), device=device) + line
    columns = torch.where(torch.rand(batch, 1, device=device) < 0.5, columns, columns.flip(1))
    sample = torch.arange(batch, device=device)
    return padded[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.GELU())


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(convolution(channels, channels), convolution(channels, channels))

    def forward(self, images: Tensor) -> Tensor:
        return images + self.block(images)


def make_network(width: int) -> nn.Sequential:
    """A residual network of nine layers."""
    return nn.Sequential(
        *(Normalise(), convolution(3, width)),
        *(convolution(width, 2 * width), nn.MaxPool2d(2), Residual(2 * width)),
        *(convolution(2 * width, 4 * width), nn.MaxPool2d(2)),
        *(convolution(4 * width, 8 * width), nn.MaxPool2d(2), Residual(8 * width)),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8 * width, CLASSES)),
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the .bin files")
    parser.add_argument("--epochs", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=512, help="(%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.4, help="the highest (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="channels of the first layer (%(default)s)")
    parser.add_argument("--prob", type=float, default=0.5, help="of CutMix, for each image (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="a step's forward pass as one graph, mixing included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> float:
    """Trains, and returns the accuracy on the test images."""
    args = parse(arguments)
    device = torch.device(args.device)
    images, labels = load(sorted(args.data.glob("data_batch_*.bin")), device)
    test_images, test_labels = load([args.data / "test_batch.bin"], device)
    padded = F.pad(images, [PADDING] * 4)

    torch.manual_seed(args.seed)
    network = make_network(args.width).to(device).to(memory_format=torch.channels_last)
    # Of pairs and in place: a step writes no matrix of soft targets, and of the images no byte outside the boxes.
    cutmix = CutMix(prob=args.prob, targets="pairs", inplace=True, seed=args.seed)
    optimizer = torch.optim.SGD(
        network.parameters(), args.learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = args.epochs * (len(images) // args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=steps)

    def loss_of(chosen: Tensor) -> Tensor:
        mixed, targets = cutmix(crop_and_flip(padded[chosen]).contiguous(), labels[chosen])  # bytes
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(mixed)
        return cross_entropy(logits, targets, label_smoothing=0.1)

    if args.compile:
        loss_of = torch.compile(loss_of, fullgraph=True)

    start = time.perf_counter()
    for _ in track(range(args.epochs), "epochs", transient=True):
        network.train()
        order = torch.randperm(len(images), device=device)
        for chosen in order[: len(order) // args.batch_size * args.batch_size].split(args.batch_size):
            optimizer.zero_grad()
            loss_of(chosen).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        parts = zip(test_images.split(1000), test_labels.split(1000), strict=True)
        right = sum((network(part).argmax(dim=1) == truth).sum() for part, truth in parts)
    accuracy = int(right) / len(test_labels)
    print(f"accuracy {accuracy:.2%} after {args.epochs} epochs and {time.perf_counter() - start:.1f} s")
    return accuracy


if __name__ == "__main__":
    main()
