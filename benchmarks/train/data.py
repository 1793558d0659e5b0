"""The images: Fashion-MNIST where its files are, scikit-learn's digits everywhere; and flips and shifts of a batch.

python benchmarks data    puts Fashion-MNIST into data/, from Debian's package of it or as torchvision downloads it
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.datasets import FashionMNIST

from ..command_line import parse_no_arguments
from ..machine import ROOT

FOLDER = ROOT / "data"
CLASSES = 10
FASHION_MNIST, DIGITS = "Fashion-MNIST", "digits"
DEBIAN_PACKAGE, DEBIAN_FOLDER = "dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")


class Images(NamedTuple):
    """Images, uint8 (N, 1, H, W), and their labels, int64 (N,)."""

    images: Tensor
    labels: Tensor

    def some(self, which: slice | Tensor) -> Images:
        return Images(self.images[which], self.labels[which])


class DataSet(NamedTuple):
    """Three sets of images, none in two of them.

    Attributes:
        pool: the training images of a run are drawn from these.
        validation: network and settings were chosen on these; no run trains on them.
        test: what the study tests on.
        flip: whether a mirrored image is as good as the image.
        shift: the most pixels to shift an image by.
    """

    name: str
    pool: Images
    validation: Images
    test: Images
    flip: bool
    shift: int

    def checksum(self) -> str:
        """SHA-256 of all images and labels."""
        checksum = hashlib.sha256()
        for images in (self.pool, self.validation, self.test):
            for tensor in images:
                checksum.update(tensor.contiguous().numpy().tobytes())
        return checksum.hexdigest()


def _files(folder: Path) -> list[Path]:
    """Where torchvision's FashionMNIST(folder) looks."""
    return [folder / "FashionMNIST" / "raw" / Path(name).stem for name, _ in FashionMNIST.resources]


def missing_files(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if not path.exists()]


def fashion_mnist(folder: Path) -> DataSet:
    """Xiao, Rasul and Vollgraf (2017): 70,000 grey photographs of clothes, 28 x 28 pixels. The last 10,000 of its
    training images are the validation images.

    Args:
        folder: the `root` of torchvision's FashionMNIST.
    """
    training, test = (FashionMNIST(folder, train=train) for train in (True, False))
    training_images = Images(training.data.unsqueeze(1), training.targets)
    return DataSet(
        FASHION_MNIST,
        pool=training_images.some(slice(50_000)),
        validation=training_images.some(slice(50_000, None)),
        test=Images(test.data.unsqueeze(1), test.targets),
        flip=True,
        shift=2,
    )


def digits() -> DataSet:
    """scikit-learn's 1797 handwritten digits, 8 x 8 pixels, split in the order they have: neighbours are often by one
    writer."""
    data = load_digits()
    images = torch.from_numpy(data.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    everything = Images(images, torch.from_numpy(data.target).long())
    pool, validation, test = (everything.some(slice(*ends)) for ends in ((800,), (800, 1000), (1000, None)))
    return DataSet(DIGITS, pool, validation, test, flip=False, shift=0)


@functools.cache
def load(name: str, folder: Path) -> DataSet:
    return fashion_mnist(folder) if name == FASHION_MNIST else digits()


def flip_and_shift(images: Tensor, flip: bool, shift: int, generator: torch.Generator) -> Tensor:
    """Shifts each image of a batch (B, 1, H, W) by -shift..shift pixels down and right, with 0 coming in, and then, if
    they may be flipped, mirrors it left-right with probability 1/2."""
    batch, _, height, width = images.shape
    top, left = torch.randint(2 * shift + 1, (2, batch, 1), generator=generator)
    mirrored = (torch.rand(batch, 1, generator=generator) < 0.5) & flip
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = nn.functional.pad(images, [shift] * 4)
    samples = torch.arange(batch).view(-1, 1, 1, 1)
    return padded[samples, 0, rows.view(batch, 1, height, 1), columns.view(batch, 1, 1, width)]


def fetch(folder: Path) -> str:
    """Puts the four files where torchvision looks for them, and says where they are from."""
    with tempfile.TemporaryDirectory() as temporary:
        source = DEBIAN_FOLDER
        if not source.exists():
            try:
                subprocess.run(("apt-get", "download", DEBIAN_PACKAGE), cwd=temporary, check=True)
                (package,) = Path(temporary).glob("*.deb")
                subprocess.run(("dpkg", "-x", package, temporary), check=True)  # unpacks and does not install
            except (OSError, subprocess.CalledProcessError):
                FashionMNIST(folder, download=True)
                return "torchvision's download"
            source = Path(temporary, *DEBIAN_FOLDER.parts[1:])
        for path in _files(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(source / f"{path.name}.gz") as compressed, path.open("wb") as file:
                shutil.copyfileobj(compressed, file)
    return f"Debian's package {DEBIAN_PACKAGE}"


def main(arguments: Sequence[str]) -> None:
    parse_no_arguments(arguments, __doc__)
    source = fetch(FOLDER) if missing_files(FOLDER) else "an earlier call"
    print(f"{FASHION_MNIST} is in {FOLDER}, from {source}.")
