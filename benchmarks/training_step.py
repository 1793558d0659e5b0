"""What mixing is of a whole training step: a loader of real photographs, the mix, and a ResNet-18."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18
from torchvision.transforms import v2

from cutmix_cuda.demo import PHOTOGRAPHS

from .grid import Case, Inputs
from .implementations import NO_MIXING, OURS, OURS_IN_PLACE, TIMM_ELEM, TORCHVISION, Implementation

MIXED_BY = (OURS_IN_PLACE, OURS, TORCHVISION, TIMM_ELEM)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Crops(Dataset):
    """Random crops of the photographs that ship inside scikit-image, each photograph a class, as for ImageNet."""

    def __init__(self, size: int, length: int) -> None:
        self.photographs = [torch.from_numpy(load()).permute(2, 0, 1).contiguous() for load in PHOTOGRAPHS.values()]
        self.length = length
        steps = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        self.augment = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

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


def training_steps(
    implementations: list[Implementation], device: torch.device, *, batch: int, size: int, steps: int
) -> dict[str, dict]:
    """Medians of the phases of a step by who mixes, after a step each to warm up. They take turns on one network."""
    case = Case(batch=batch, size=size)
    mixers: dict[str, Callable] = {NO_MIXING: lambda inputs: (inputs.images, inputs.labels)}
    mixers |= {one.name: one.prepare(case) for one in implementations if one.name in MIXED_BY}
    batches = _endless(DataLoader(Crops(size, 4 * batch), batch_size=batch, shuffle=True, drop_last=True))
    network = resnet18(num_classes=case.classes).to(device).train()
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
            criterion(network(images), targets).backward()
            optimizer.step()
            trained = now()
            if step > 0:
                phases[name].load.append(loaded - start)
                phases[name].mix.append(mixed - loaded)
                phases[name].train.append(trained - mixed)
    return {name: phase.as_dict() for name, phase in phases.items()}
