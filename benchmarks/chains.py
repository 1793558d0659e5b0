"""The batch tail as it is written with each package: uint8 from the loader to the dtype and layout that a model takes.

Every chain does the same job for a batch, in bfloat16 and the layout asked for: normalised by ImageNet's constants,
coloured, flipped, erased and mixed as the job has it, and cast last.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cutmix_cuda import Augment, Colour, CutMix, Erase, augment

from .grid import Case, Inputs
from .implementations import (
    ALL,
    COPY,
    SEEDED_IN_GRAPH,
    Call,
    Implementation,
    backends_on,
    compile_once,
    in_box,
    plain_cutmix,
    weighted,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
FLIP, ERASE = 0.5, 0.25
SCALE, RATIO = (0.02, 0.33), (0.3, 3.3)  # of erased boxes
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}  # factors in 0.6 .. 1.4
GREY = (0.299, 0.587, 0.114)  # of red, green and blue
BYTES_PER_ELEMENT = 3.0  # at least: a byte read, two written

OURS, OURS_OUT = "ours", "ours, out="
TORCHVISION, KORNIA = "torchvision", "kornia"
TIMM_BATCH, TIMM_ELEM = "timm, Mixup batch", "timm, Mixup elem"
TORCHTRANSFORM, TRITON_AUGMENT = "torchtransform", "triton-augment"
COMPILED = "torch.compile"
CAST = "to(dtype, layout)"


@dataclass(frozen=True)
class Job:
    """What is done beside normalising, casting and laying out, each for every sample by itself."""

    name: str
    colours: bool = False
    flips: bool = False
    erases: bool = False
    mixes: bool = False


MIX = Job("normalise, CutMix", mixes=True)
ERASE_AND_MIX = Job("normalise, erase, CutMix", erases=True, mixes=True)
FLIP_ONLY = Job("flip, normalise", flips=True)
COLOUR_AND_FLIP = Job("colour, flip, normalise", colours=True, flips=True)
JOBS = (MIX, ERASE_AND_MIX, FLIP_ONLY, COLOUR_AND_FLIP)


@dataclass(frozen=True)
class TailCase(Case):
    """A uint8 batch, NCHW, that becomes bfloat16."""

    dtype: torch.dtype = torch.uint8
    job: Job = MIX
    to_channels_last: bool = False

    @property
    def out_dtype(self) -> torch.dtype:
        return torch.bfloat16

    @property
    def out_format(self) -> torch.memory_format:
        return torch.channels_last if self.to_channels_last else torch.contiguous_format

    @property
    def layout(self) -> str:
        return f"{super().layout} to {'channels-last' if self.to_channels_last else 'NCHW'}"

    @property
    def kind(self) -> str:
        return f"{self.job.name}; {self.layout}"

    def __str__(self) -> str:
        return f"{self.job.name}, {super().__str__()}"

    def as_dict(self) -> dict:
        return super().as_dict() | {"job": self.job.name}


def cast(images: Tensor, case: Case) -> Tensor:
    return images.to(case.out_dtype, memory_format=case.out_format)


# ---- Ours


def _ours(job: Job, device: torch.device) -> list[Implementation]:
    erase = Erase(ERASE, SCALE, RATIO) if job.erases else None

    def of(name: str, backend: str | None, *, into_out: bool = False, host_seed: bool = False) -> Implementation:
        """host_seed: drawn on the host even in a CUDA graph, where it is frozen, as what peers draw there is."""

        def prepare(case: Case) -> Call:
            mix = CutMix(num_classes=case.classes) if job.mixes else None
            how: dict[str, Any] = {
                "mean": MEAN,
                "std": STD,
                "flip": FLIP if job.flips else 0.0,
                "colour": Colour(**JITTER) if job.colours else None,
                "erase": erase,
                "dtype": case.out_dtype,
                "memory_format": case.out_format,
                "backend": backend,
            }
            module = Augment(mix, **how)

            def call(inputs: Inputs) -> tuple[Any, ...]:
                out = inputs.out if into_out else None
                if not host_seed:
                    return module(inputs.images, inputs.labels, out=out)
                seed = torch.empty(1, dtype=torch.int64).random_()
                return augment(inputs.images, inputs.labels, mix, seed=seed, out=out, **how)

            return call

        return Implementation(name, "ours", prepare, scope="sample")

    best: str | None
    best, *others = [None] if device.type == "meta" else backends_on(device)
    on_gpu = device.type == "cuda"
    found = [of(OURS, best, host_seed=on_gpu), of(OURS_OUT, best, into_out=True, host_seed=on_gpu)]
    if on_gpu:
        found += [of(OURS + SEEDED_IN_GRAPH, best)]
        found += [of(f"{OURS} [{each}]", each, host_seed=True) for each in others if each != "reference"]
    return found


# ---- Peers


def _torchvision(job: Job, device: torch.device) -> list[Implementation]:
    from torchvision.transforms import v2

    # Image by image goes what a batch would have one draw of, and behind colours what is left, while the image is in
    # the cache.
    by_image = [v2.RandomHorizontalFlip(FLIP)] if job.flips else []
    together = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    if job.colours:
        to_float, normalize = together
        by_image, together = [*by_image, to_float, v2.ColorJitter(**JITTER), normalize], []
    of_image, of_batch = torch.nn.Sequential(*by_image), torch.nn.Sequential(*together)
    erase = v2.RandomErasing(ERASE, SCALE, RATIO, inplace=True)

    def prepare(case: Case) -> Call:
        mix = v2.CutMix(num_classes=case.classes)

        def call(inputs: Inputs) -> tuple[Tensor, Tensor]:
            images, labels = inputs.images, inputs.labels
            if by_image:
                images = torch.stack([of_image(image) for image in images])
            images = of_batch(images)
            if job.erases:
                for image in images:
                    erase(image)
            if job.mixes:
                images, labels = mix(images, labels)
            return cast(images, case), labels

        return call

    return [Implementation(TORCHVISION, "peer", prepare)]


def _timm(job: Job, device: torch.device) -> list[Implementation]:
    """As its PrefetchLoader normalises and erases on the device, and then Mixup. It flips in the loader's workers."""
    from timm.data.mixup import Mixup
    from timm.data.random_erasing import RandomErasing

    if not job.mixes:
        return []
    mean, std = (torch.tensor([255 * x for x in each], device=device).view(1, 3, 1, 1) for each in (MEAN, STD))
    erase = RandomErasing(ERASE, *SCALE, *RATIO, device=device)

    def of(name: str, mode: str, scope: str) -> Implementation:
        def prepare(case: Case) -> Call:
            mix = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, mode=mode, label_smoothing=0.0, num_classes=case.classes)

            def call(inputs: Inputs) -> tuple[Tensor, Tensor]:
                images = inputs.images.float().sub_(mean).div_(std)
                if job.erases:
                    images = erase(images)
                images, targets = mix(images, inputs.labels)
                return cast(images, case), targets

            return call

        return Implementation(name, "peer", prepare, scope=scope)

    return [of(TIMM_BATCH, "batch", "batch"), of(TIMM_ELEM, "elem", "sample")]


def _kornia(job: Job, device: torch.device) -> list[Implementation]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kornia import augmentation as ka

    mean, std = torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)
    steps = [ka.ColorJitter(**JITTER, p=1.0)] if job.colours else []
    if job.flips:
        steps.append(ka.RandomHorizontalFlip(p=FLIP))
    steps.append(ka.Normalize(mean, std))
    if job.erases:
        steps.append(ka.RandomErasing(scale=SCALE, ratio=RATIO, p=ERASE))
    chain = torch.nn.Sequential(*steps)
    mix = ka.RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)

    def prepare(case: Case) -> Call:
        def call(inputs: Inputs) -> tuple[Tensor, Tensor]:
            images, labels = chain(inputs.images.float().div_(255)), inputs.labels
            if job.mixes:
                images, labels = mix(images, labels)
            return cast(images, case), labels

        return call

    def dense(targets: Tensor, classes: int) -> Tensor:
        own, partner, lam = targets[0].unbind(1)
        return weighted(own, partner, lam, classes)

    includes = "draw (boxes inside), pixels, two labels and lambda" if job.mixes else "draw, pixels"
    return [Implementation(KORNIA, "peer", prepare, includes=includes, scope="sample", dense=dense)]


def _torchtransform(job: Job, device: torch.device) -> list[Implementation]:
    """One pass for the flips, one for colours and normalisation, as a matrix; it neither erases nor mixes batches."""
    import torchtransform as tt  # type: ignore[import-not-found]

    if not job.flips or job.mixes:
        return []
    jitter = [tt.ColorJitter(**JITTER)] if job.colours else []
    chain = tt.Compose(tt.HorizontalFlip(FLIP), *jitter, tt.Normalize(MEAN, STD))

    def prepare(case: Case) -> Call:
        return lambda inputs: (cast(chain(inputs.images.float().div_(255)), case), inputs.labels)

    return [Implementation(TORCHTRANSFORM, "peer", prepare, scope="sample")]


def _triton_augment(job: Job, device: torch.device) -> list[Implementation]:
    """Flips, colours and normalisation in one Triton kernel, for float images; it neither erases nor mixes."""
    if device.type != "cuda":
        raise ImportError("it runs on a GPU alone")
    import triton_augment  # type: ignore[import-not-found]

    if not job.flips or job.mixes:
        return []

    def prepare(case: Case) -> Call:
        jitter = JITTER if job.colours else {}
        chain = triton_augment.TritonFusedAugment(case.size, horizontal_flip_p=FLIP, **jitter, mean=MEAN, std=STD)
        return lambda inputs: (cast(chain(inputs.images.float().div_(255)), case), inputs.labels)

    return [Implementation(TRITON_AUGMENT, "peer", prepare, scope="sample")]


def erased_boxes(images: Tensor) -> Tensor:
    """A mask of erased pixels as one would write it for a compiler: one try at a box for each sample."""
    batch, _, height, width = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, device=images.device)

    area = height * width * uniform(*SCALE)
    aspect = uniform(*map(math.log, RATIO)).exp()
    rows, columns = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    y0, x0 = (uniform(0.0, 1.0) * (height - rows + 1)).floor(), (uniform(0.0, 1.0) * (width - columns + 1)).floor()
    erased = (uniform(0.0, 1.0) < ERASE) & (rows < height) & (columns < width)
    return in_box(images, y0, x0, y0 + rows, x0 + columns) & erased[:, None, None, None]


def coloured(values: Tensor) -> Tensor:
    """Brightness, contrast around mid-grey and saturation of each sample (B, 3, H, W) in 0 .. 255."""

    def factors(reach: float) -> Tensor:
        return 1 + reach * (2 * torch.rand(len(values), 1, 1, 1, device=values.device) - 1)

    brightness, contrast, saturation = map(factors, JITTER.values())
    values = (values * brightness - 127.5) * contrast + 127.5
    red, green, blue = (weight * values[:, channel : channel + 1] for channel, weight in enumerate(GREY))
    grey = red + green + blue
    return (grey + saturation * (values - grey)).clamp(0, 255)


def plain_tail(
    images: Tensor,
    labels: Tensor,
    mean: Tensor,
    scale: Tensor,
    classes: int,
    job: Job,
    memory_format: torch.memory_format,
) -> tuple[Tensor, Tensor]:
    """The tail as one would write it for a compiler, which makes one kernel of the pixels."""
    values = images.float()
    if job.colours:
        values = coloured(values)
    values = (values - mean) * scale
    if job.flips:
        flipped = torch.rand(len(images), device=images.device) < FLIP
        values = torch.where(flipped[:, None, None, None], values.flip(3), values)
    if job.erases:
        values = torch.where(erased_boxes(images), 0.0, values)
    if job.mixes:
        values, labels = plain_cutmix(values, labels, classes, True)
    return values.to(torch.bfloat16, memory_format=memory_format), labels


def _compiled(job: Job, device: torch.device) -> list[Implementation]:
    compiled = compile_once(plain_tail)
    mean = torch.tensor(MEAN, device=device).view(3, 1, 1) * 255
    scale = 1 / (torch.tensor(STD, device=device).view(3, 1, 1) * 255)

    def prepare(case: Case) -> Call:
        return lambda inputs: compiled(inputs.images, inputs.labels, mean, scale, case.classes, job, case.out_format)

    return [Implementation(COMPILED, "peer", prepare, scope="sample")]


# ---- Ceilings


def _ceilings() -> list[Implementation]:
    return [
        Implementation(CAST, "ceiling", lambda case: lambda inputs: cast(inputs.images, case), "a cast, allocated"),
        Implementation(COPY, "ceiling", lambda case: lambda inputs: inputs.out.copy_(inputs.images), "a cast"),
    ]


PEERS: dict[str, Callable[[Job, torch.device], list[Implementation]]] = {
    TORCHVISION: _torchvision,
    "timm": _timm,
    KORNIA: _kornia,
    TORCHTRANSFORM: _torchtransform,
    TRITON_AUGMENT: _triton_augment,
}


def chains(
    job: Job, device: torch.device, *, with_compiled: bool = True
) -> tuple[list[Implementation], dict[str, str]]:
    """Everything that this machine can run for a job, and why a peer is missing."""
    found, missing = _ours(job, device), {}
    for name, make in PEERS.items():
        try:
            found += make(job, device)
        except ImportError as error:
            missing[name] = str(error)
    if with_compiled:
        found += _compiled(job, device)
    includes = ALL if job.mixes else "draw, pixels"
    found = [replace(one, includes=includes) if one.includes == ALL else one for one in found]
    return [replace(one, least_passes=BYTES_PER_ELEMENT) for one in found + _ceilings()], missing
