"""``PrefetchLoader`` and ``create_loader`` of timm."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import timm.data.loader
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader

from ... import _backends
from ..._literals import BackendName
from ..._seed import counted_seed, seed_tensor
from ...augmentation import Settings, check_settings, follow, run, sample_views
from ...erasing import Erase
from .mixup import FastCollateMixup, collate_uint8, labels_and_settings, minmax_plan

_Batch = tuple[Any, Any]  # images and targets


class PrefetchLoader:
    """The batches of a loader as a model takes them, with the arguments of timm's ``PrefetchLoader``.

    The loader hands over uint8. Batches are normalised, mixed, erased, cast and laid out in one launch, on a side
    stream of a GPU and one batch ahead of the loop, as timm's; on the CPU in the loop. Use them on the stream that is
    current where the loop goes on. What differs from timm's:

    - Where the loader's ``collate_fn`` is a ``FastCollateMixup``, timm's or the one here, this loader takes the mixing
      over: it puts a plain ``collate_fn`` in its place, so that workers only stack, and mixes in the launch. MixUp is
      then computed on normalised float32 values, where timm rounds the blend to whole numbers of 0..255 first, which is
      up to 8.8e-3 off in normalised units of ImageNet; boxes, lambda and targets are those of :class:`Mixup`. The mode
      "half" stays with the workers, because it halves what they hand over. With cutmix_minmax, small kernels make the
      plan and the views before the launch that follows them.
    - Its attributes count at the next batch. timm's ``loader.mixup_enabled = False`` does not reach workers that
      persist, which are the default of its ``create_loader``.
    - Values are computed in float32 and rounded once to img_dtype, where timm computes in img_dtype.
    - Random numbers come from torch, in this process: ``torch.manual_seed`` reproduces them whatever the workers do.
      Noise is normal as that of :class:`cutmix_cuda.Erase`.

    Args:
        loader: a ``DataLoader`` of uint8 images (B, C, H, W) and labels, class indices (B,) or (B, K). Where nothing is
            mixed, labels come back as they are, on the device.
        mean: of each channel, in [0, 1].
        std: the same.
        channels: of the images. mean and std of another length are replaced by their average, with a warning.
        device: where the batches are wanted.
        img_dtype: float32, float16 or bfloat16; None: float32.
        fp16: deprecated by timm: img_dtype is float16.
        re_prob: the probability that a sample is erased, after mixing.
        re_mode: "const", "rand" or "pixel", as for :class:`RandomErasing`.
        re_count: the greatest number of boxes of a sample that is erased; it has 1 to so many.
        re_num_splits: from 2 on, the first of so many equal parts of a batch is not erased.
        memory_format: torch.contiguous_format or torch.channels_last.
        seed: as for :class:`cutmix_cuda.CutMix`; the count is in ``loader.seeds.state_dict()``.
        generator: a CPU generator to draw from, instead of torch's default one. Excludes seed.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Raises:
        TypeError, ValueError: an argument is wrong; a ``collate_fn`` that this loader takes over has a seed, generator
            or backend of its own; or a batch is not as said above.
    """

    def __init__(
        self,
        loader: DataLoader,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
        channels: int = 3,
        device: torch.device | str = "cuda",
        img_dtype: torch.dtype | None = None,
        fp16: bool = False,
        re_prob: float = 0.0,
        re_mode: str = "const",
        re_count: int = 1,
        re_num_splits: int = 0,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
    ) -> None:
        self.loader = loader
        self.device = torch.device(device)
        self.img_dtype = torch.float16 if fp16 else img_dtype or torch.float32
        erase = None
        if re_prob > 0:
            mode = re_mode.lower() or "const"
            erase = Erase.as_in_timm(re_prob, mode=mode, max_count=re_count, num_splits=re_num_splits)
        self._settings = check_settings(
            mean=timm.data.loader.adapt_to_chs(mean, channels),
            std=timm.data.loader.adapt_to_chs(std, channels),
            erase=erase,
            dtype=self.img_dtype,
            memory_format=memory_format,
        )
        self.seeds = counted_seed(seed, generator)
        self.generator = generator
        _backends.check_backend(backend)
        self.backend = backend
        self.stream: torch.cuda.Stream | None = None

        collate_fn = getattr(loader, "collate_fn", None)
        self.mixup: FastCollateMixup | None = None  # or timm's, which has the same attributes
        if isinstance(collate_fn, (FastCollateMixup, timm.data.FastCollateMixup)):
            self.mixup = collate_fn
        self._takes_over = self.mixup is not None and "half" not in self.mixup.mode
        if self._takes_over:
            for name in ("seeds", "generator", "backend"):
                if getattr(collate_fn, name, None) is not None:
                    raise ValueError(
                        f"collate_fn must have no {name.removesuffix('s')} of its own: give it to the loader, which "
                        "mixes in its place"
                    )
            loader.collate_fn = collate_uint8

    def __iter__(self) -> Iterator[_Batch]:
        if self.device.type != "cuda":
            for batch in self.loader:
                yield self._augmented(*batch)
            return
        if self.stream is None:
            self.stream = torch.cuda.Stream(self.device)  # for good: each stream has a pool of memory of its own
        ready: _Batch | None = None
        for batch in self.loader:
            # What the loop has let go of may be written to from here on, once its kernels have run.
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream):
                ahead = self._augmented(*batch)
            if ready is not None:
                yield ready
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
            ready = ahead
        if ready is not None:
            yield ready

    def _augmented(self, images: Tensor, labels: Tensor) -> _Batch:
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            got = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"loader must hand over images of uint8, got {got}")
        images, labels = (tensor.to(self.device, non_blocking=True) for tensor in (images, labels))
        settings, seed = self._settings, self._seed()
        if self._takes_over:
            assert self.mixup is not None
            labels, mix = labels_and_settings(self.mixup, labels)
            settings = settings._replace(mix=mix, num_classes=self.mixup.num_classes, mixes=True)
            if self.mixup.cutmix_minmax is not None:
                return self._with_minmax_boxes(images, labels, settings, seed)
        done = run(images, labels, settings, seed=seed, generator=None, out=None, backend=self.backend)
        return done.images, done.targets

    def _with_minmax_boxes(self, images: Tensor, labels: Tensor, settings: Settings, seed: Tensor) -> _Batch:
        assert self.mixup is not None
        plan = minmax_plan(self.mixup, images, settings.mix, seed, self.backend)
        batch, _, height, width = images.shape
        views = sample_views(
            batch, height, width, erase=settings.erase, seed=seed, device=images.device, backend=self.backend
        )
        return follow(images, labels, plan, views, settings, seed=seed, generator=None, out=None, backend=self.backend)

    def _seed(self) -> Tensor:
        """That of the next batch. Where nothing is drawn, as in validation, no generator moves."""
        if not self._takes_over and self._settings.erase is None:
            return torch.zeros(1, dtype=torch.int64)
        return seed_tensor(None if self.seeds is None else self.seeds.next(), self.generator, self.device)

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def sampler(self):
        return self.loader.sampler

    @property
    def batch_sampler(self):
        return self.loader.batch_sampler

    @property
    def dataset(self):
        return self.loader.dataset

    @property
    def mixup_enabled(self) -> bool:
        """Whether batches are mixed; may be set, as by ``--mixup-off-epoch``. Labels are smoothed all the same."""
        return self.mixup is not None and self.mixup.mixup_enabled

    @mixup_enabled.setter
    def mixup_enabled(self, enabled: bool) -> None:
        if self.mixup is not None:
            self.mixup.mixup_enabled = enabled


_SIGNATURE = inspect.signature(timm.data.create_loader)


def create_loader(
    *args,
    memory_format: torch.memory_format = torch.contiguous_format,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: BackendName | None = None,
    **kwargs,
) -> PrefetchLoader | DataLoader:
    """``timm.data.create_loader`` with the :class:`PrefetchLoader` of this module.

    Transforms, samplers, scheduled sizes and the workers are timm's own.

    Args:
        args, kwargs: those of ``timm.data.create_loader``, by the same names: ``dataset``, ``input_size``,
            ``batch_size``, ``is_training``, ``re_prob``, ``mean``, ``std``, ``collate_fn``, ``img_dtype``, ``device``,
            and so on.
        memory_format, seed, generator, backend: as for :class:`PrefetchLoader`.

    Returns:
        A :class:`PrefetchLoader`; with ``use_prefetcher=False`` timm's ``DataLoader``, unchanged.

    Raises:
        As timm's, and as :class:`PrefetchLoader`.
    """
    arguments = _SIGNATURE.bind(*args, **kwargs)
    arguments.apply_defaults()
    given = arguments.arguments
    theirs = timm.data.create_loader(*args, **kwargs)
    if not given["use_prefetcher"]:
        return theirs
    erasing = theirs.random_erasing  # None in validation and with no_aug
    return PrefetchLoader(
        theirs.loader,
        given["mean"],
        given["std"],
        channels=theirs.mean.numel(),
        device=given["device"],
        img_dtype=given["img_dtype"],
        fp16=given["fp16"],
        re_prob=0.0 if erasing is None else erasing.probability,
        re_mode=given["re_mode"],
        re_count=given["re_count"],
        re_num_splits=0 if erasing is None else erasing.num_splits,
        memory_format=memory_format,
        seed=seed,
        generator=generator,
        backend=backend,
    )
