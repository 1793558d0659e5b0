"""One run: a small ResNet learns from a batch after another, and what mixes is all that differs between arms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .arms import Mixer
from .data import CLASSES, DataSet, Images, flip_and_shift

WIDTHS = (16, 32, 64)  # channels of the blocks
LEARNING_RATE, WEIGHT_DECAY = 0.1, 5e-4
MOMENTUM = (0.85, 0.95)  # the lower one where the learning rate is highest


class Normalise(nn.Module):
    """uint8 images -> float32, by the mean and standard deviation of some; channels-last, the fastest on a CPU."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.mean, self.std = images.float().mean().item(), images.float().std().item()

    def forward(self, images: Tensor) -> Tensor:
        return images.float().sub(self.mean).div(self.std).contiguous(memory_format=torch.channels_last)


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """And batch normalisation after it."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Block(nn.Module):
    """The basic block of a ResNet (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            convolution(inputs, outputs, 3, stride), nn.ReLU(), convolution(outputs, outputs, 3)
        )
        self.shortcut = convolution(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.relu(self.shortcut(images) + self.residual(images))


def make_network() -> nn.Sequential:
    """For normalised images (B, 1, H, W); returns logits (B, CLASSES)."""
    first, second, third = WIDTHS
    network = nn.Sequential(
        convolution(1, first, 3, stride=2),
        nn.ReLU(),
        Block(first, first, 1),
        Block(first, second, 2),
        Block(second, third, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(third, CLASSES),
    )
    return network.to(memory_format=torch.channels_last)


def train(
    mixer: Mixer, data: DataSet, training_images: int, epochs: int, batch: int, seed: int
) -> tuple[nn.Sequential, Images]:
    """The network after the last step, for uint8 images and in eval mode, and the images that it was trained on.

    The seed decides these images, their order, flips and shifts, and the initial weights, whatever mixes.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = data.pool.some(torch.randperm(len(data.pool.labels), generator=generator)[:training_images])
    normalise = Normalise(data.pool.images)
    torch.manual_seed(seed)
    network = make_network().train()
    low, high = MOMENTUM
    optimizer = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, momentum=high, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = training_images // batch  # an epoch; the images that are left over wait for the next
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=epochs * steps, base_momentum=low, max_momentum=high
    )
    for _ in range(epochs):
        order = torch.randperm(training_images, generator=generator)
        for which in order[: steps * batch].split(batch):
            images, labels = drawn.some(which)
            images = flip_and_shift(images, data.flip, data.shift, generator)
            mixed, targets = mixer(normalise(images), labels)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(mixed), targets).backward()
            optimizer.step()
            schedule.step()
    return nn.Sequential(normalise, network).eval(), drawn
