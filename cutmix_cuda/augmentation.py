"""The batch tail: from the loader's batch to what the model takes, in one launch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from . import _backends, _validation, reference_augment
from ._constants import OfGraphs, built_once, name_in_graphs
from ._literals import BackendName, LayoutName
from ._ops import (
    AUGMENTED_DTYPES,
    COLOUR_ROWS,
    FEW_CHANNELS,
    KINDS,
    QUANTILE_INTERVALS,
    EraseValue,
    Erasing,
    MemoryFormat,
    ViewChoices,
    ViewParameters,
)
from ._options import Settings as MixSettings
from ._output import check_reuse
from ._seed import counted_seed, seed_tensor
from ._tensors import of_class, plain
from ._tv_tensors import is_tv_tensor
from .colour import Colour
from .distributions import constant, quantiles
from .erasing import Erase, check_numbers
from .functional import _labels_of_op, _mark_written
from .functional import run as run_mix
from .pairs import PairTargets, pairs_of
from .plan import MixPlan, check_plan
from .transforms import Transform
from .views import Views, check_colours, check_views

Mean = float | Sequence[float]


def _aspect_table(least: float, most: float, device: torch.device) -> Tensor:
    def build() -> Tensor:
        logarithms = np.linspace(math.log(least), math.log(most), QUANTILE_INTERVALS + 1)
        return torch.from_numpy(np.exp(logarithms - math.log(most)).astype(np.float32)[None]).to(device)

    return built_once(("aspects", least, most, device), build)


def _constants(
    mean: tuple[float, ...],
    std: tuple[float, ...],
    erase: tuple[float, ...],
    fill: float,
    channels: int,
    unit: float,
    device: torch.device,
) -> Tensor:
    """Mean, scale, erase and fill of each channel, float32 (4, channels). Computed in float64, rounded to float32."""

    def build() -> Tensor:
        def of_channels(numbers: Sequence[float]) -> np.ndarray:
            return np.broadcast_to(np.array(numbers, dtype=np.float64), channels)

        deviation = (unit * of_channels(std)).astype(np.float32).astype(np.float64)
        rows = unit * of_channels(mean), 1.0 / deviation, of_channels(erase), of_channels([fill])
        return torch.from_numpy(np.stack(rows).astype(np.float32)).to(device)

    return built_once(("constants", mean, std, erase, fill, channels, unit, device), build)


def _name_of_aspects(least: float, most: float, device: torch.device) -> str:
    return name_in_graphs(_aspect_table(least, most, device))


def _name_of_constants(*arguments) -> str:
    return name_in_graphs(_constants(*arguments))


for _function in (_name_of_aspects, _name_of_constants):
    setattr(_function, "_dynamo_marked_constant", True)  # noqa: B010


def _as_constants(*numbers):
    """Numbers and tuples of numbers, constants in a compiled graph, where some of them are symbols."""
    return [tuple(map(constant, each)) if isinstance(each, tuple) else constant(each) for each in numbers]


class Settings(NamedTuple):
    """The arguments that stay the same from batch to batch, checked once."""

    mix: MixSettings
    num_classes: int | None
    mixes: bool  # otherwise labels come back as they are
    mean: tuple[float, ...] | None
    std: tuple[float, ...]
    erase: Erase | None
    erased: tuple[float, ...]  # the value, or one for each channel; 0 where it is noise
    erasing: list[int]
    view_parameters: list[float]
    view_choices: list[int]
    dtype: torch.dtype | None
    memory_format: torch.memory_format
    channels_last_input: bool

    # No properties, because the Dynamo of torch 2.10 does not trace those of a tuple.
    def changes(self) -> bool:
        """Whether samples are flipped, shifted, coloured or erased."""
        return self.view_parameters != _NO_PARAMETERS or self.view_choices != _NO_CHOICES

    def coloured(self) -> bool:
        """Whether views have colour matrices."""
        return bool(self.view_choices[_COLOURED])

    def noisy(self) -> bool:
        """Whether erased boxes are filled with random numbers."""
        return self.erasing[0] != EraseValue.constant

    def colouring(self) -> Settings:
        """The same with colour matrices that a call brings along."""
        return self._replace(view_choices=[*self.view_choices[:_COLOURED], 1])

    def validating(self) -> Settings:
        """Those of normalise, cast and lay out and nothing else."""
        return self._replace(
            mix=self.mix._replace(bounds=_NEVER, blends=False),
            mixes=False,
            erase=None,
            erased=(0.0,),
            erasing=list(Erasing()),
            view_parameters=_NO_PARAMETERS,
            view_choices=_NO_CHOICES,
        )


_NO_PARAMETERS, _NO_CHOICES = list(ViewParameters()), list(ViewChoices())
_COLOURED = ViewChoices._fields.index("coloured")  # the last of them
_NEVER = (0.0,) * KINDS  # bounds below which there is no number: every sample is kept
_NO_MIX = MixSettings.of_mix(cutmix_alpha=None, mixup_alpha=None)


def _mix_settings(mix: Transform | None) -> tuple[MixSettings, int | None]:
    if mix is None:
        return _NO_MIX, None
    if not isinstance(mix, Transform):
        raise TypeError(f"mix must be a CutMix, Mix, MixUp, Cutout or None, got {type(mix).__name__}")
    for name, given in (("seed", mix.seeds), ("generator", mix.generator), ("backend", mix.backend)):
        if given is not None:
            raise ValueError(f"mix must have no {name} of its own: give {name} to the augmentation that draws for it")
    if mix.inplace:
        raise ValueError("mix must not be in place: an augmentation writes to new memory or to out")
    if mix._output is not None:
        raise ValueError("mix must not reuse its output, because there is none: give reuse_output to Augment")
    if not isinstance(mix._settings, MixSettings):
        raise TypeError(
            f"mix must be of one box a sample for the batch tail, got {mix!r}; leave it out there, and give it what "
            "Augment returns"
        )
    return mix._settings, mix.num_classes


def _translations(translate: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(translate, Sequence) and len(translate) != 2:
        raise ValueError(f"translate must be a number of pixels, or two of them, down and across, got {translate!r}")
    down, across = translate if isinstance(translate, Sequence) else (translate, translate)
    most = _validation.MAX_INT32
    return _validation.check_size("translate", down, most), _validation.check_size("translate", across, most)


def _view_settings(
    flip: float, translate: int | tuple[int, int], colour: Colour | None, erase: Erase | None
) -> tuple[list[float], list[int]]:
    """The lists that the ops take."""
    flips = _validation.check_share("flip", flip)
    translate_y, translate_x = _translations(translate)
    if colour is not None and not isinstance(colour, Colour):
        raise TypeError(f"colour must be a Colour or None, got {type(colour).__name__}")
    if erase is not None and not isinstance(erase, Erase):
        raise TypeError(f"erase must be an Erase or None, got {type(erase).__name__}")
    parameters, choices = ViewParameters(flip_below=flips), ViewChoices(translate_y, translate_x)
    if erase is not None and erase.prob > 0:
        parameters, choices = parameters._replace(**erase.parameters), choices._replace(**erase.choices)
    if colour is not None and colour != Colour():
        parameters, choices = parameters._replace(**colour.parameters), choices._replace(coloured=1)
    return list(parameters), list(choices)


def _choices_for(choices: list[int], erase: Erase | None, batch: int) -> list[int]:
    """Those of a batch, whose first samples may be left whole."""
    if erase is None or erase.num_splits < 2:
        return choices
    return list(ViewChoices(*choices)._replace(first_erased=erase.first_erased(batch)))


def check_settings(
    mix: Transform | None = None,
    *,
    mean: Mean | None = None,
    std: Mean | None = None,
    flip: float = 0.0,
    translate: int | tuple[int, int] = 0,
    colour: Colour | None = None,
    erase: Erase | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format,
    layout: str = "NCHW",
) -> Settings:
    """The settings that arguments of :func:`augment` come to; by default nothing is done. Raises as it does."""
    settings, num_classes = _mix_settings(mix)
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std must be given together or not at all, got mean={mean!r} and std={std!r}")
    means, deviations = (
        None if mean is None else check_numbers("mean", mean),
        check_numbers("std", 1.0 if std is None else std),
    )
    if min(deviations) < torch.finfo(torch.float32).tiny:
        raise ValueError(f"std must be positive, and a normal number of float32, got {std!r}")
    if dtype is not None and dtype not in AUGMENTED_DTYPES:
        raise ValueError(f"dtype must be one of {_validation._names(AUGMENTED_DTYPES)} or None, got {dtype!r}")
    if dtype == torch.uint8 and means is not None:
        raise ValueError("dtype must be a float dtype where images are normalised, got torch.uint8")
    if memory_format not in (torch.contiguous_format, torch.channels_last, torch.preserve_format):
        raise ValueError(
            "memory_format must be torch.contiguous_format, torch.channels_last or torch.preserve_format, "
            f"got {memory_format!r}"
        )
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout must be 'NCHW' or 'NHWC', got {layout!r}")
    parameters, choices = _view_settings(flip, translate, colour, erase)
    return Settings(
        settings,
        num_classes,
        mix is not None,
        means,
        deviations,
        erase,
        (0.0,) if erase is None else erase.constants,
        list(Erasing() if erase is None else erase.erasing),
        parameters,
        choices,
        dtype,
        memory_format,
        layout == "NHWC",
    )


class _Output(NamedTuple):
    """What comes out."""

    dtype: torch.dtype
    memory_format: MemoryFormat


def _layout_of(images: Tensor) -> MemoryFormat:
    channels_last = images.shape[1] > 1 and images.stride(1) < images.stride(3)
    return MemoryFormat.channels_last if channels_last else MemoryFormat.contiguous


def _output(images: Tensor, settings: Settings) -> _Output:
    if images.dim() != 4:
        raise ValueError(
            "images must have 4 dimensions, (batch, channels, height, width), or (batch, height, width, channels) with "
            f"layout='NHWC', got shape {tuple(images.shape)}"
        )
    dtype = settings.dtype
    if dtype is None:
        bytes_to_floats = images.dtype == torch.uint8 and settings.mean is not None
        dtype = torch.float32 if bytes_to_floats else images.dtype
    if settings.memory_format == torch.preserve_format:
        return _Output(dtype, _layout_of(images))
    channels_last = settings.memory_format == torch.channels_last
    return _Output(dtype, MemoryFormat.channels_last if channels_last else MemoryFormat.contiguous)


def _only_mixes(images: Tensor, settings: Settings) -> bool:
    """Whether nothing is normalised, cast, laid out anew, moved, coloured or erased: then bytes are mixed."""
    if settings.mean is not None or settings.changes() or settings.dtype not in (None, images.dtype):
        return False
    return settings.memory_format == torch.preserve_format or (
        images.dim() == 4 and images.is_contiguous(memory_format=settings.memory_format)
    )


def _seen(images: Tensor, settings: Settings) -> Tensor:
    """The images as (batch, channels, height, width), after their checks."""
    images = plain(images)
    _validation.check_images(images)
    if settings.channels_last_input and images.dim() == 4:
        images = images.permute(0, 3, 1, 2)
    return images


def _check_not_classes(images: Tensor) -> None:
    if is_tv_tensor(images, "Mask"):
        raise TypeError(
            "images must not be a tv_tensors.Mask to be normalised, cast, moved, coloured or erased, because its "
            "values are classes; masks follow images by mix_images(views.apply(masks), plan)"
        )


def _check_images(images: Tensor, settings: Settings, output: _Output, coloured: bool) -> None:
    if images.dtype not in AUGMENTED_DTYPES:
        raise TypeError(
            f"images must be of dtype {_validation._names(AUGMENTED_DTYPES)} to be normalised, cast, moved, coloured "
            f"or erased, got {images.dtype}"
        )
    if output.dtype == torch.uint8 and images.dtype != torch.uint8:
        raise ValueError(f"dtype must be a float dtype for float images, got torch.uint8 for {images.dtype}")
    if output.dtype == torch.uint8:
        if settings.noisy():
            value = EraseValue(settings.erasing[0]).name
            raise ValueError(f"value of erase must be a number for images that stay uint8, got {value!r}")
        for name, numbers in (("value of erase", settings.erased), ("fill of mix", (settings.mix.fill,))):
            if not all(0 <= number <= 255 and number == round(number) for number in numbers):
                raise ValueError(f"{name} must be whole and in 0..255 for images that stay uint8, got {numbers!r}")
    channels = images.shape[1]
    if coloured and channels != COLOUR_ROWS:
        raise ValueError(
            f"images must have 3 channels, red, green and blue, for colour, got {channels} in shape "
            f"{tuple(images.shape)}"
        )
    for name, numbers in (("mean", settings.mean or ()), ("std", settings.std), ("value of erase", settings.erased)):
        if len(numbers) > 1 and len(numbers) != channels:
            raise ValueError(
                f"{name} must be one number, or one for each of the {channels} channels of images of shape "
                f"{tuple(images.shape)}, got {len(numbers)}"
            )


def _value_arguments(images: Tensor, settings: Settings) -> tuple[Tensor, list[int]]:
    """constants and erasing."""
    numbers = (0.0,) if settings.mean is None else settings.mean, settings.std, settings.erased, settings.mix.fill
    channels = len(range(images.shape[1]))  # in a graph of dynamic sizes it is a symbol; a range has to know
    unit = 255.0 if images.dtype == torch.uint8 and settings.mean is not None else 1.0
    device = images.device if channels > FEW_CHANNELS else torch.device("cpu")
    if torch.compiler.is_compiling():
        name = _name_of_constants(*_as_constants(*numbers), channels, unit, device)
        return getattr(OfGraphs, name), settings.erasing
    return _constants(*numbers, channels, unit, device), settings.erasing


def _view_tables(erase: Erase | None, device: torch.device) -> Tensor:
    least, most = (1.0, 1.0) if erase is None else map(float, erase.ratio)
    if torch.compiler.is_compiling():
        return getattr(OfGraphs, _name_of_aspects(constant(least), constant(most), device))
    return _aspect_table(least, most, device)


class Augmented(NamedTuple):
    """What a call made; the plan and the views packed, None where the bytes were only mixed."""

    images: Tensor
    targets: Tensor | PairTargets | None
    plan: Tensor
    views: Tensor | None
    coloured: bool = False


def run(
    images: Tensor,
    labels: Tensor | None,
    settings: Settings,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    out: Tensor | None,
    backend: str | None,
    colours: Tensor | None = None,
) -> Augmented:
    """Samples a plan and views and follows them in one launch. Everything is checked before anything is written."""
    given, images = images, _seen(images, settings)
    op_labels = labels if settings.mixes else None
    if colours is not None:
        settings, colours = settings.colouring(), check_colours("colour", colours, images)
    if _only_mixes(images, settings):
        mixed, targets, plan = run_mix(
            images if settings.channels_last_input else given,
            op_labels,
            settings.num_classes,
            settings.mix,
            seed=seed,
            generator=generator,
            inplace=False,
            out=out,
            backend=backend,
        )
        return Augmented(mixed, targets if settings.mixes else labels, plan, None)

    output = _output(images, settings)
    _check_not_classes(given)
    _check_images(images, settings, output, settings.coloured())
    device, mix = images.device, settings.mix
    op_labels, classes = _labels_of_op(plain(op_labels), settings.num_classes, images.shape[0], device, mix.targets)
    ops = _backends.ops_for(backend, device)
    if out is not None:
        _validation.check_out(out, images, output.dtype)
    arguments = (
        op_labels,
        seed_tensor(seed, generator, device, like=images),
        quantiles(mix.distributions, device),
        mix.bounds,
        mix.sampling,
        _view_tables(settings.erase, device),
        colours,
        settings.view_parameters,
        _choices_for(settings.view_choices, settings.erase, images.shape[0]),
        classes,
        mix.label_smoothing,
        mix.target_dtype,
        *_value_arguments(images, settings),
    )
    if out is not None:
        dense, plan, views = ops.augment_out(images, *arguments, plain(out))
        _mark_written(out)
        augmented = out
    else:
        augmented, dense, plan, views = ops.augment(images, *arguments, output.dtype, int(output.memory_format))
        augmented = of_class(augmented, given)
    if labels is None or not settings.mixes:
        targets = labels
    else:
        targets = dense if op_labels is not None else pairs_of(plain(labels), plan)
    return Augmented(augmented, targets, plan, views, settings.coloured())


def follow(
    images: Tensor,
    labels: Tensor | None,
    plan: MixPlan | None,
    views: Views | None,
    settings: Settings,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    out: Tensor | None,
    backend: str | None,
) -> tuple[Tensor, Tensor | PairTargets | None]:
    """Follows a given plan and given views in one launch. Everything is checked before anything is written."""
    given, images = images, _seen(images, settings)
    output = _output(images, settings)
    _check_not_classes(given)
    _check_images(images, settings, output, isinstance(views, Views) and views.coloured)
    batch, _, height, width = images.shape
    device, mix = images.device, settings.mix
    mixes, rows = plan is not None, torch.arange(batch, device=device)
    if plan is None:
        plan = MixPlan.from_boxes(rows, rows.new_zeros(batch, 4), height, width, kind=torch.zeros_like(rows))
    if views is None:
        views = Views.make(batch, height, width, device=device)
    check_plan(plan, images)
    check_views(views, images)
    op_labels, classes = None, 0
    if mixes:
        op_labels, classes = _labels_of_op(plain(labels), settings.num_classes, batch, device, mix.targets)
    ops = _backends.ops_for(backend, device)
    if out is not None:
        _validation.check_out(out, images, output.dtype)
    noisy = settings.noisy()
    arguments = (
        op_labels,
        plan.packed,
        views.packed,
        views.coloured,
        seed_tensor(seed if noisy else 0, generator if noisy else None, device, like=images),
        classes,
        mix.label_smoothing,
        mix.target_dtype,
        *_value_arguments(images, settings),
    )
    if out is not None:
        dense = ops.apply_views_out(images, *arguments, plain(out))
        _mark_written(out)
        augmented = out
    else:
        augmented, dense = ops.apply_views(images, *arguments, output.dtype, int(output.memory_format))
        augmented = of_class(augmented, given)
    if labels is None or not mixes:
        return augmented, labels
    if op_labels is not None:
        return augmented, dense
    valid = reference_augment.followed(plan.packed, views.geometry_and_boxes, height, width)
    return augmented, pairs_of(plain(labels), plan.packed, valid)


# ---- The functions


def normalize_images(
    images: Tensor,
    mean: Mean,
    std: Mean,
    *,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format,
    layout: LayoutName = "NCHW",
    out: Tensor | None = None,
    backend: BackendName | None = None,
) -> Tensor:
    """Images normalised, cast and laid out in one launch: (x - mean) * (1 / std), with uint8 seen as x / 255.

    >>> batch = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    >>> normalize_images(batch, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), dtype=torch.bfloat16).dtype
    torch.bfloat16

    As torchvision's ``ToDtype(scale=True)`` and ``Normalize`` together, computed in float32 whatever the output's dtype
    and rounded once. mean and std are those of values in [0, 1] for uint8 images, and in the images' own units for
    float images.

    Args:
        images: (B, C, H, W) of dtype uint8, float16, bfloat16 or float32, of any strides; dense rows or pixels are
            read where they are. Not changed.
        mean: a number, or one for each channel.
        std: the same, positive.
        dtype: float32, float16 or bfloat16. None: float32 for uint8 images, else the images' own.
        memory_format: torch.contiguous_format, torch.channels_last, or torch.preserve_format for the images' own.
        layout: "NCHW", or "NHWC" for images of shape (B, H, W, C); the output is (B, C, H, W) in both cases.
        out: a tensor of the output's shape, dtype and device to write to, of any strides, which must not overlap
            images. memory_format then does not count.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Returns:
        (B, C, H, W) of dtype and memory_format, or out.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was written.
        RuntimeError: the backend asked for is not available.
    """
    settings = check_settings(mean=mean, std=std, dtype=dtype, memory_format=memory_format, layout=layout)
    return run(images, None, settings, seed=0, generator=None, out=out, backend=backend).images


def augment(
    images: Tensor,
    labels: Tensor | None = None,
    mix: Transform | None = None,
    *,
    mean: Mean | None = None,
    std: Mean | None = None,
    flip: float = 0.0,
    translate: int | tuple[int, int] = 0,
    colour: Colour | Tensor | None = None,
    erase: Erase | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format,
    layout: LayoutName = "NCHW",
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    out: Tensor | None = None,
    return_plan: bool = False,
    backend: BackendName | None = None,
):
    """From a loader's batch to what a model takes in one launch.

    >>> batch = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    >>> inputs, targets = augment(batch, labels, CutMix(num_classes=10), mean=0.5, std=0.25, flip=0.5, translate=2)
    >>> inputs.dtype, inputs.shape, targets.shape
    (torch.float32, torch.Size([4, 3, 16, 16]), torch.Size([4, 10]))

    Each sample has draws of its own. It is shifted and flipped, coloured, normalised in float32 and erased; then
    samples are mixed, on normalised values, and the result is rounded once to the output's dtype. Every part may be
    left out. Where nothing is normalised, cast, laid out anew, moved, coloured or erased, it gives what mix gives, of
    any dtype and shape.

    Args:
        images: (B, C, H, W) of dtype uint8, float16, bfloat16 or float32, on any device. Not changed.
        labels: class indices (B,) or soft labels (B, K), as for :func:`cutmix_cuda.cutmix`; or None.
        mix: a :class:`cutmix_cuda.CutMix`, :class:`cutmix_cuda.Mix`, :class:`cutmix_cuda.MixUp` or
            :class:`cutmix_cuda.Cutout`, without a seed, generator or backend of its own and not in place. Its ``fill``
            is in the units of the output. None: no mixing, and labels come back as they are.
        mean: of the channels in [0, 1] (for uint8 images) or in the units of float images: a number, or one for each
            channel. None: values stay as they are; mean=0, std=1 brings uint8 to [0, 1].
        std: the same, positive; given together with mean.
        flip: the probability that a sample is mirrored left-right.
        translate: pixels, or a pair of them, down and across: a sample is shifted by an offset in -translate..translate
            that is uniform (and at most the image's size), and what comes in from outside is 0 before it is coloured
            and normalised. As torchvision's ``RandomCrop(size, padding=translate)``.
        colour: a :class:`Colour`, for images of 3 channels; or a matrix for each sample, float32 (B, 3, 4) on the
            device of the images. A row of it is what red, green, blue and 1 count for a channel in units of the images'
            range, 0..255 of uint8 and 0..1 of floats, to which the result is clamped; what is not a number is 0.
        erase: an :class:`Erase`.
        dtype: float32, float16 or bfloat16. None: float32 for uint8 images that are normalised, else the images' own.
        memory_format: torch.contiguous_format, torch.channels_last, or torch.preserve_format for the images' own.
        layout: "NCHW", or "NHWC" for images of shape (B, H, W, C); the output is (B, C, H, W) in both cases.
        seed, generator, backend: as for :func:`cutmix_cuda.cutmix`. The mixing plan is the one that
            :func:`cutmix_cuda.cutmix` draws from the same seed.
        out: a tensor of the output's shape, dtype and device to write to, of any strides, which must not overlap
            images. memory_format then does not count.
        return_plan: also return the :class:`cutmix_cuda.MixPlan` and the :class:`cutmix_cuda.Views`, which masks, a
            second camera and the boxes of objects can follow.

    Returns:
        (images, targets), or (images, targets, plan, views). Images are (B, C, H, W); targets as for
        :func:`cutmix_cuda.cutmix`, and labels themselves without mix.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was written.
        RuntimeError: the backend asked for is not available.
    """
    colours, colour = (colour, None) if isinstance(colour, Tensor) else (None, colour)
    settings = check_settings(
        mix,
        mean=mean,
        std=std,
        flip=flip,
        translate=translate,
        colour=colour,
        erase=erase,
        dtype=dtype,
        memory_format=memory_format,
        layout=layout,
    )
    done = run(images, labels, settings, seed=seed, generator=generator, out=out, backend=backend, colours=colours)
    return _returned(done, return_plan)


def _returned(done: Augmented, return_plan: bool):
    if not return_plan:
        return done.images, done.targets
    height, width = done.images.shape[-2:]
    if done.views is None:
        views = Views.make(done.images.shape[0], height, width, device=done.images.device)
    else:
        views = Views(done.views, height, width, done.coloured)
    return done.images, done.targets, MixPlan(done.plan, height, width), views


def sample_views(
    batch_size: int,
    height: int,
    width: int,
    *,
    flip: float = 0.0,
    translate: int | tuple[int, int] = 0,
    colour: Colour | None = None,
    erase: Erase | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    backend: BackendName | None = None,
) -> Views:
    """The views that :func:`augment` with the same arguments would draw.

    >>> sample_views(4, 16, 16, flip=0.5, translate=2)
    Views(batch=4, height=16, width=16, device='cpu')

    Args:
        batch_size: samples.
        height: pixels.
        width: pixels.
        device: where the views are to be; the CPU by default.

    The other arguments are those of :func:`augment`.

    Returns:
        :class:`Views` of the batch.

    Raises:
        TypeError, ValueError: an argument is wrong.
        RuntimeError: the backend asked for is not available.
    """
    sizes = [
        _validation.check_size("batch_size", batch_size, _validation.MAX_BATCH),
        *_validation.check_extent(height, width),
    ]
    parameters, choices = _view_settings(flip, translate, colour, erase)
    where = torch.empty(0, device=device).device
    tables = _view_tables(erase, where)
    choices = _choices_for(choices, erase, batch_size)
    ops = _backends.ops_for(backend, where)
    packed = ops.sample_views(seed_tensor(seed, generator, where), *sizes, tables, None, parameters, choices)
    return Views(packed, height, width, bool(choices[_COLOURED]))


class Augment(nn.Module):
    """The batch tail as a module: shift, flip, colour, normalise, erase, mix, cast and lay out, in one launch.

    >>> augment = Augment(
    ...     Mix(num_classes=1000, mixup_alpha=0.8, label_smoothing=0.1),
    ...     mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip=0.5, erase=Erase(prob=0.25, value="pixel"),
    ...     dtype=torch.bfloat16, memory_format=torch.channels_last,
    ... )
    >>> inputs, targets = augment(images, labels)  # uint8 (B, C, H, W), (B,) -> bfloat16 (B, C, H, W), (B, 1000)
    >>> val_inputs, val_labels = augment.eval()(images, labels)

    In ``eval()`` mode it only normalises, casts and lays out, draws nothing, and labels come back as they are: one
    object serves training and validation. The arguments, fixed from then on, are those of :func:`augment`, but for
    matrices of colour, which a batch brings along; and:

    Args:
        seed: decides the seed of each call together with the number of calls before it, as for
            :class:`cutmix_cuda.CutMix`; calls in eval mode do not count.
        generator: a CPU generator to draw the seed of each call from, instead of torch's default one. Excludes seed.
        reuse_output: write each batch to the memory of the last one, which overwrites what was returned, as for
            :class:`cutmix_cuda.CutMix`; in train and in eval mode, but where a call is given out.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`augment`; whatever does not depend on the batch at once.
    """

    def __init__(
        self,
        mix: Transform | None = None,
        *,
        mean: Mean | None = None,
        std: Mean | None = None,
        flip: float = 0.0,
        translate: int | tuple[int, int] = 0,
        colour: Colour | None = None,
        erase: Erase | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format = torch.preserve_format,
        layout: LayoutName = "NCHW",
        reuse_output: bool = False,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
    ) -> None:
        super().__init__()
        options = {
            "mean": mean,
            "std": std,
            "flip": flip,
            "translate": translate,
            "colour": colour,
            "erase": erase,
            "dtype": dtype,
            "memory_format": memory_format,
            "layout": layout,
        }
        self._settings = check_settings(mix, **options)  # type: ignore[arg-type]
        self._validation_settings = self._settings.validating()
        self.seeds = counted_seed(seed, generator)
        self.mix = mix
        self._output = check_reuse(reuse_output)
        self.generator = generator
        _backends.check_backend(backend)
        self.backend = backend
        if backend is None:
            _backends.check_variable()
        self._arguments = {**options, "reuse_output": reuse_output or None}  # for repr

    def forward(
        self, images: Tensor, labels: Tensor | None = None, *, out: Tensor | None = None, return_plan: bool = False
    ):
        """Augments a batch, or in eval mode only normalises, casts and lays it out.

        Args:
            images: (B, C, H, W), or (B, H, W, C) with layout "NHWC".
            labels: class indices (B,), soft labels (B, K), or None.
            out: a tensor to write to, as for :func:`augment`.
            return_plan: also return the :class:`cutmix_cuda.MixPlan` and the :class:`cutmix_cuda.Views`.

        Returns:
            (images, targets), or (images, targets, plan, views), as :func:`augment`.

        Raises:
            TypeError, ValueError: the batch is wrong; nothing was written.
        """
        seed: int | Tensor | None = 0  # in eval mode nothing is drawn
        settings, generator = self._validation_settings, None
        if self.training:
            settings, seed, generator = self._settings, self._next_seed(), self.generator
        reused = self._output if out is None else None
        if reused is not None:
            out = reused.memory_for(images, self.training)
        done = run(images, labels, settings, seed=seed, generator=generator, out=out, backend=self.backend)
        if reused is not None:
            done = done._replace(images=reused.keep(done.images, images, self.training))
        return _returned(done, return_plan)

    def apply_plan(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        plan: MixPlan | None = None,
        views: Views | None = None,
        *,
        seed: int | Tensor | None = None,
        out: Tensor | None = None,
    ):
        """The same with a given plan and given views, in one launch: a second camera, or the same batch again.

        Args:
            images, labels, out: as for a call.
            plan: on the device of the images. None: samples are not mixed, and labels come back as they are.
            views: on the device of the images. None: samples are seen as they are.
            seed: of the noise of erased boxes, an int, a tensor of one int64, or None to draw one as a call does.

        Returns:
            (images, targets).

        Raises:
            TypeError, ValueError: as a call; or a plan or views lead outside. On a GPU, where looking would make the
                host wait, such a sample is normalised and otherwise left as it was, and its target is NaN.
        """
        generator = self.generator if seed is None else None
        if seed is None and self._settings.noisy():
            seed = self._next_seed()
        return follow(
            images, labels, plan, views, self._settings, seed=seed, generator=generator, out=out, backend=self.backend
        )

    def _next_seed(self) -> Tensor | None:
        return None if self.seeds is None else self.seeds.next()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._arguments.items() if value is not None)
