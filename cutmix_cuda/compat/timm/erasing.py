"""``RandomErasing`` of timm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ... import _backends, _validation
from ..._literals import BackendName
from ..._seed import counted_seed
from ...augmentation import check_settings, run
from ...erasing import Erase


class RandomErasing(nn.Module):
    """Random erasing of batches, with the arguments of ``timm.data.random_erasing.RandomErasing``.

    >>> erasing = RandomErasing(0.25, mode="pixel", max_count=3)
    >>> images = erasing(images)  # (B, C, H, W), or one image (C, H, W)

    Every sample is erased or not by draws of its own, as in timm, and all of them in one launch. Areas, aspects, places
    and counts of boxes are distributed as timm's; given the same boxes, pixels are equal to timm's. What differs:

    - New images come back, and those given are not changed. timm erases in place.
    - Random numbers come from torch, not from Python's random: ``torch.manual_seed`` reproduces them, on every device
      alike. The noise of "rand" and "pixel" is normal as that of :class:`cutmix_cuda.Erase`.

    Args:
        probability: that a sample is erased.
        min_area: of a box, a fraction of the image.
        max_area: the same.
        min_aspect: the least height / width of a box.
        max_aspect: the greatest; None: 1 / min_aspect.
        mode: "const" erases to 0, "rand" to a normal number a box and channel, "pixel" to one a pixel and channel.
        min_count: the least number of boxes of a sample that is erased, which divide the area among them.
        max_count: the greatest; None: min_count.
        num_splits: from 2 on, the first of so many equal parts of a batch is left as it is.
        device: not used: images are erased where they are.
        seed: as for :class:`cutmix_cuda.CutMix`. None: each seed is drawn from the generator.
        generator: a CPU generator to draw from, instead of torch's default one. Excludes seed.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Raises:
        TypeError, ValueError: an argument is wrong. Images are those of :func:`cutmix_cuda.augment`.
    """

    def __init__(
        self,
        probability: float = 0.5,
        min_area: float = 0.02,
        max_area: float = 1 / 3,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
        mode: str = "const",
        min_count: int = 1,
        max_count: int | None = None,
        num_splits: int = 0,
        device: torch.device | str = "cuda",
        *,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
    ) -> None:
        super().__init__()
        self.erase = Erase.as_in_timm(
            _validation.check_share("probability", probability),
            mode=mode.lower() or "const",
            min_area=min_area,
            max_area=max_area,
            min_aspect=min_aspect,
            max_aspect=max_aspect,
            min_count=min_count,
            max_count=max_count,
            num_splits=num_splits,
        )
        self._settings = check_settings(erase=self.erase)
        self.seeds = counted_seed(seed, generator)
        self.generator = generator
        _backends.check_backend(backend)
        self.backend = backend

    def forward(self, input: Tensor) -> Tensor:
        """Images (B, C, H, W), or one (C, H, W), of uint8, float16, bfloat16 or float32 -> the same, erased."""
        seed = None if self.seeds is None else self.seeds.next()
        images = input[None] if input.dim() == 3 else input
        erased = run(
            images, None, self._settings, seed=seed, generator=self.generator, out=None, backend=self.backend
        ).images
        return erased[0] if input.dim() == 3 else erased

    def extra_repr(self) -> str:
        return repr(self.erase)
