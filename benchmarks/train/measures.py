"""What is measured of a trained network: accuracy, calibration, and the accuracy under a grey box and under noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .data import Images

GREY = 127  # of the occluding box; no arm is trained with a box of this value
SIDES = (2, 3, 4, 5)  # of the occluding box, in sevenths of the image's
NOISE = (0.05, 0.1, 0.2)  # standard deviations; black is 0, white is 1
BINS = 15  # of confidence, as in Guo et al. (2017)


def probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """float32 (N, classes)."""
    with torch.inference_mode():
        return torch.cat([network(some).softmax(1) for some in images.split(500)])


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (probabilities(network, images).argmax(1) == labels).double().mean().item()


def reliability(predicted: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """The reliability diagram: for each of BINS equal bins of the highest probability of an image, the images, the
    sum of these probabilities, and the images that were classified correctly.

    Args:
        predicted: probabilities (N, classes).
        labels: (N,).
    """
    confidence, classes = (tensor.numpy() for tensor in predicted.double().max(1))
    weights = {"images": None, "confidence": confidence, "correct": (classes == labels.numpy()).astype(float)}
    return {
        name: np.histogram(confidence, BINS, (0, 1), weights=weight)[0].tolist() for name, weight in weights.items()
    }


def expected_calibration_error(diagram: dict[str, list[float]]) -> float:
    """The mean over images of how far the mean confidence of their bin is from its accuracy (Naeini et al. 2015)."""
    return float(np.abs(np.subtract(diagram["confidence"], diagram["correct"])).sum() / np.sum(diagram["images"]))


def occluded(images: Tensor, side: int, top: Tensor, left: Tensor) -> Tensor:
    """Images (N, 1, H, W) with a grey square each; top and left, (N,), are of its first row and column."""
    height, width = images.shape[-2:]
    rows, columns = (
        (start.view(-1, 1) <= place) & (place < start.view(-1, 1) + side)
        for start, place in ((top, torch.arange(height)), (left, torch.arange(width)))
    )
    return images.masked_fill((rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1), GREY)


def occluder_sides(height: int) -> list[int]:
    """In pixels."""
    return [round(height * side / 7) for side in SIDES]


def occluded_at_centre(images: Tensor, side: int) -> Tensor:
    offset = torch.full((len(images),), (images.shape[-1] - side) // 2)
    return occluded(images, side, offset, offset)


def occluded_at_random(images: Tensor, side: int) -> Tensor:
    """Anywhere within the image, at the same places at each call."""
    top, left = torch.randint(images.shape[-1] - side + 1, (2, len(images)), generator=torch.Generator().manual_seed(0))
    return occluded(images, side, top, left)


def noisy(images: Tensor, deviation: float) -> Tensor:
    """With Gaussian noise on each pixel, the same at each call; rounded and clamped to uint8."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 255 * deviation * noise).round().clamp(0, 255).to(torch.uint8)


def measure(network: nn.Module, trained_on: Images, tested_on: Images) -> dict:
    """Everything that is measured of a network which takes uint8 images, as fractions."""
    images, labels = tested_on
    sides = occluder_sides(images.shape[-2])
    diagram = reliability(probabilities(network, images), labels)

    return {
        "accuracy": sum(diagram["correct"]) / len(labels),
        "training_accuracy": accuracy(network, *trained_on),
        "reliability": diagram,
        "occluded_at_centre": [accuracy(network, occluded_at_centre(images, side), labels) for side in sides],
        "occluded_at_random": [accuracy(network, occluded_at_random(images, side), labels) for side in sides],
        "noisy": [accuracy(network, noisy(images, deviation), labels) for deviation in NOISE],
    }
