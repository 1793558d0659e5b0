"""What mixing, or the batch tail, is of a whole training step: a loader of real photographs, the mix, and a network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18
from torchvision.transforms import v2

from .chains import MEAN, STD
from .grid import Case, Inputs
from .implementations import NO_MIXING, OURS, OURS_IN_PLACE, TIMM_ELEM, TORCHVISION, Call, Implementation

MIXED_BY = (OURS_IN_PLACE, OURS, TORCHVISION, TIMM_ELEM)


class Crops(Dataset):
    """Random crops of the photographs that ship inside scikit-image, each photograph a class, as for ImageNet.

    Photographs are shrunk to twice the crops' size first. normalize: float32 and normalised; otherwise crops are uint8.
    """

    def __init__(self, size: int, length: int, *, normalize: bool = True) -> None:
        from skimage import data  # where it is missing, all but this can be measured

        photographs = (data.astronaut(), data.cat(), data.coffee(), data.rocket())
        images = [torch.from_numpy(each).permute(2, 0, 1).contiguous() for each in photographs]
        self.photographs = [v2.functional.resize(image, [min(2 * size, *image.shape[1:])]) for image in images]
        self.length = length
        steps = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        if normalize:
            steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        self.augment = v2.Compose(steps)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = index % len(self.photographs)
        return self.augment(self.photographs[label]), label


@dataclass
class Phases:
    """Seconds of each step, by phase."""

    load: list[float] = field(default_factory=list)
    mix: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)

    def as_dict(self) -> dict:
        load, mix, train = (median(phase) for phase in (self.load, self.mix, self.train))
        step = median(map(sum, zip(self.load, self.mix, self.train, strict=True)))
        return {
            "load_s": load,
            "mix_s": mix,
            "train_s": train,
            "step_s": step,
            "mix_share": mix / step,
            "steps": len(self.mix),
        }


def _endless(loader: DataLoader) -> Iterator:
    while True:
        yield from loader


def mixing_steps(
    implementations: list[Implementation], device: torch.device, *, batch: int, size: int, steps: int
) -> dict[str, dict]:
    """The phases of a step of a ResNet-18 by who mixes, and without mixing."""
    case = Case(batch=batch, size=size)
    mixers: dict[str, Call] = {NO_MIXING: lambda inputs: (inputs.images, inputs.labels)}
    mixers |= {one.name: one.prepare(case) for one in implementations if one.name in MIXED_BY}
    return training_steps(mixers, Crops(size, 4 * batch), resnet18(num_classes=case.classes), device, batch, steps)


def tail_network(size: int, classes: int) -> nn.Module:
    """A ResNet-18; for the images of CIFAR with the first layers that they get, which shrink nothing."""
    network = resnet18(num_classes=classes)
    if size <= 32:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return network.to(memory_format=torch.channels_last)


def training_steps(
    mixers: Mapping[str, Call], crops: Crops, network: nn.Module, device: torch.device, batch: int, steps: int
) -> dict[str, dict]:
    """Medians of the phases of a step by who mixes, after a step each to warm up. They take turns on one network.

    The network computes in the dtype of what it is given, by autocast.
    """
    batches = _endless(DataLoader(crops, batch_size=batch, shuffle=True, drop_last=True))
    network = network.to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    phases = {name: Phases() for name in mixers}
    for step in range(1 + steps):
        for name, mix in mixers.items():
            start = now()
            images, labels = (tensor.to(device) for tensor in next(batches))
            loaded = now()
            images, targets = mix(Inputs(images, labels, labels, images))
            mixed = now()
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=images.dtype == torch.bfloat16):
                logits = network(images)
            criterion(logits.float(), targets).backward()
            optimizer.step()
            trained = now()
            if step > 0:
                phases[name].load.append(loaded - start)
                phases[name].mix.append(mixed - loaded)
                phases[name].train.append(trained - mixed)
    return {name: phase.as_dict() for name, phase in phases.items()}
