"""The options of the functions and transforms: each name, type and default once, and what they come to."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypedDict, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor
from typing_extensions import Unpack

from . import _validation, reference
from ._fill import check_fill
from ._literals import PartnerName, PlacementName, ScopeName, TargetsName
from ._ops import (
    KINDS,
    MOST_PATCHES,
    PATCH_METHODS,
    RICAP_PATCHES,
    Kind,
    Partner,
    PatchMethod,
    PatchSampling,
    Placement,
    Sampling,
    Scope,
)
from .distributions import Distribution, Uniform, check_alpha
from .pairs import Targets, check_targets

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Default(NamedTuple):
    """The default of an option, in its annotation."""

    value: object


class _Scope(TypedDict, total=False):
    scope: Annotated[ScopeName, Default("sample")]


class _Partner(TypedDict, total=False):
    partner: Annotated[PartnerName, Default("mirror")]


class _Placement(TypedDict, total=False):
    placement: Annotated[PlacementName, Default("clip")]


class SamplingOptions(_Scope, _Partner, _Placement, total=False):
    """How boxes, lambda and partners are drawn, of whatever kind."""

    correct_lam: Annotated[bool, Default(True)]


class DenseTargetOptions(TypedDict, total=False):
    """How dense targets are made."""

    label_smoothing: Annotated[float, Default(0.0)]
    target_dtype: Annotated[torch.dtype, Default(torch.float32)]


class TargetOptions(DenseTargetOptions, total=False):
    """What targets are made as."""

    targets: Annotated[TargetsName, Default("dense")]


class PaintOptions(DenseTargetOptions, total=False):
    """Those that :func:`cutmix_cuda.paint` and :func:`cutmix_cuda.mix_by_masks` have in common, explained there."""

    others: Annotated[Tensor | None, Default(None)]
    other_labels: Annotated[Tensor | None, Default(None)]


class _Lambda(TypedDict, total=False):
    alpha: Annotated[float | Distribution, Default(1.0)]
    prob: Annotated[float, Default(1.0)]


class PlanOptions(_Lambda, SamplingOptions, total=False):
    """Those of :func:`cutmix_cuda.sample_plan`."""


class CutMixOptions(PlanOptions, TargetOptions, total=False):
    """Those of :func:`cutmix_cuda.cutmix`, where they are explained."""


class MixUpOptions(_Lambda, _Scope, _Partner, TargetOptions, total=False):
    """Those of :class:`cutmix_cuda.MixUp`, where they are explained."""


class _Cutout(TypedDict, total=False):
    area: Annotated[float | Distribution, Default(0.25)]
    prob: Annotated[float, Default(1.0)]
    fill: Annotated[float, Default(0.0)]
    holes: Annotated[int, Default(1)]


class CutoutOptions(_Cutout, _Scope, _Placement, TargetOptions, total=False):
    """Those of :class:`cutmix_cuda.Cutout`, where they are explained."""


class _Mix(TypedDict, total=False):
    cutmix_alpha: Annotated[float | Distribution | None, Default(1.0)]
    mixup_alpha: Annotated[float | Distribution | None, Default(1.0)]
    cutout: Annotated[float, Default(0.0)]
    cutout_area: Annotated[float | Distribution, Default(0.25)]
    fill: Annotated[float, Default(0.0)]
    prob: Annotated[float, Default(1.0)]
    switch_prob: Annotated[float, Default(0.5)]


class MixOptions(_Mix, SamplingOptions, TargetOptions, total=False):
    """Those of :func:`cutmix_cuda.mix`, where they are explained."""


class _Patches(TypedDict, total=False):
    ricap: Annotated[float, Default(0.0)]
    ricap_beta: Annotated[float | Distribution, Default(0.3)]
    resizemix: Annotated[float, Default(0.0)]
    resizemix_scale: Annotated[float | Distribution, Default(Uniform(0.1, 0.8))]
    cutout_holes: Annotated[int, Default(1)]


class MixPatchesOptions(MixOptions, _Patches, total=False):
    """Those of :class:`cutmix_cuda.Mix`, where they are explained."""


class _Ricap(TypedDict, total=False):
    beta: Annotated[float | Distribution, Default(0.3)]
    prob: Annotated[float, Default(1.0)]


class RICAPOptions(_Ricap, _Scope, DenseTargetOptions, total=False):
    """Those of :class:`cutmix_cuda.RICAP`, where they are explained."""


class _ResizeMix(TypedDict, total=False):
    scale: Annotated[float | Distribution, Default(Uniform(0.1, 0.8))]
    prob: Annotated[float, Default(1.0)]


class ResizeMixOptions(_ResizeMix, _Scope, _Partner, DenseTargetOptions, total=False):
    """Those of :class:`cutmix_cuda.ResizeMix`, where they are explained."""


class _FMix(TypedDict, total=False):
    alpha: Annotated[float | Distribution, Default(1.0)]
    decay: Annotated[float, Default(3.0)]
    prob: Annotated[float, Default(1.0)]


class FMixOptions(_FMix, _Partner, DenseTargetOptions, total=False):
    """Those of :class:`cutmix_cuda.FMix`, where they are explained."""


def _defaults_of(options: type) -> dict[str, Any]:
    hints = get_type_hints(options, include_extras=True)
    return {name: hint.__metadata__[0].value for name, hint in hints.items()}


_DEFAULTS: dict[type, dict[str, Any]] = {
    options: _defaults_of(options)
    for options in (
        SamplingOptions,
        PlanOptions,
        TargetOptions,
        DenseTargetOptions,
        PaintOptions,
        CutMixOptions,
        MixUpOptions,
        CutoutOptions,
        MixOptions,
        MixPatchesOptions,
        RICAPOptions,
        ResizeMixOptions,
        FMixOptions,
    )
}


def complete(options: type, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that were given, and the defaults of the others. TypeError for a name that is none."""
    defaults = _DEFAULTS[options]
    if not given:
        return defaults
    every = {**defaults, **given}
    if len(every) != len(defaults):
        unknown = next(name for name in given if name not in defaults)
        raise TypeError(f"got an unexpected keyword argument {unknown!r}; the options are {', '.join(defaults)}")
    return every


def with_options(function: _Function) -> _Function:
    """Gives a function of ``**options: Unpack[...]`` the signature that this stands for, with names and defaults."""
    hints = get_type_hints(function)
    (options,) = get_args(hints["options"])
    types = get_type_hints(options)
    own = [
        parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "options"
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    expanded = [
        inspect.Parameter(name, keyword, default=default, annotation=types[name])
        for name, default in _DEFAULTS[options].items()
    ]
    first, last = ([each for each in own if (each.kind == keyword) == last] for last in (False, True))
    function.__signature__ = inspect.Signature([*first, *expanded, *last])  # type: ignore[attr-defined]
    return function


def _alpha(name: str, alpha: float | Distribution | None) -> float | Distribution | None:
    """A distribution of lambda; None for None and 0, which switch a kind off."""
    return None if alpha is None or (not isinstance(alpha, Distribution) and alpha == 0) else check_alpha(name, alpha)


def _area(name: str, area: float | Distribution) -> float | Distribution:
    """A distribution of the fraction of an image that a box covers."""
    return area if isinstance(area, Distribution) else _validation.check_share(name, area)


_ROUNDING = 1e-9  # of a sum of probabilities

_Drawn = tuple[tuple[float | Distribution | None, ...], tuple[float, ...]]  # distributions and bounds


def _kinds_of_mix(options: Mapping[str, Any], otherwise: float = 0.0) -> _Drawn:
    """Those of cutmix, mixup and cutout side by side, of samples which are mixed otherwise with a probability."""
    cutmix, mixup = _alpha("cutmix_alpha", options["cutmix_alpha"]), _alpha("mixup_alpha", options["mixup_alpha"])
    area = _area("cutout_area", options["cutout_area"])
    cut_out = _validation.check_share("cutout", options["cutout"])
    mixed = max(1.0 - cut_out - otherwise, 0.0) * _validation.check_share("prob", options["prob"])
    switch = _validation.check_share("switch_prob", options["switch_prob"])
    if cutmix is None or mixup is None:
        switch = 0.0 if cutmix is None else 1.0
    if cutmix is None and mixup is None:
        mixed = 0.0
    return (cutmix, mixup, area if cut_out > 0.0 else None), (mixed * switch, mixed, mixed + cut_out)


def _only(method: Kind | PatchMethod, distribution: float | Distribution, prob: float) -> _Drawn:
    """Those of one method, which samples are mixed by with a probability."""
    before = int(method) - 1
    return (None,) * before + (distribution,), (0.0,) * before + (_validation.check_share("prob", prob),)


class Settings(NamedTuple):
    """What the options come to, checked once."""

    distributions: tuple[float | Distribution | None, ...]  # see distributions.quantiles
    bounds: tuple[float, ...]  # see _ops.Draw
    sampling: tuple[int, ...]  # see _ops.Sampling; a plain tuple, which the dispatcher takes faster
    blends: bool  # whether a kind that blends pixels can be drawn
    label_smoothing: float
    target_dtype: torch.dtype
    fill: float
    targets: Targets

    @classmethod
    def of_plan(cls, **options: Unpack[PlanOptions]) -> Settings:
        """Those of a plan of cutmix and nothing else."""
        return cls.of_cutmix(**complete(PlanOptions, options))

    @classmethod
    def of_cutmix(cls, **given: Unpack[CutMixOptions]) -> Settings:
        """Those of cutmix and nothing else."""
        options = complete(CutMixOptions, given)
        alpha, prob = check_alpha("alpha", options["alpha"]), _validation.check_share("prob", options["prob"])
        return cls._of_kinds((alpha,), (prob,), options)

    @classmethod
    def of_mixup(cls, **given: Unpack[MixUpOptions]) -> Settings:
        """Those of mixup and nothing else."""
        options = {**_DEFAULTS[SamplingOptions], **complete(MixUpOptions, given)}
        alpha, prob = check_alpha("alpha", options["alpha"]), _validation.check_share("prob", options["prob"])
        return cls._of_kinds((None, alpha), (0.0, prob), options)

    @classmethod
    def of_cutout(cls, **given: Unpack[CutoutOptions]) -> Settings:
        """Those of cutout and nothing else."""
        options = {**_DEFAULTS[SamplingOptions], **complete(CutoutOptions, given)}
        area, prob = _area("area", options["area"]), _validation.check_share("prob", options["prob"])
        return cls._of_kinds((None, None, area), (0.0, 0.0, prob), options)

    @classmethod
    def of_mix(cls, **given: Unpack[MixOptions]) -> Settings:
        """Those of cutmix, mixup and cutout side by side."""
        options = complete(MixOptions, given)
        return cls._of_kinds(*_kinds_of_mix(options), options)

    @classmethod
    def _of_kinds(
        cls,
        distributions: tuple[float | Distribution | None, ...],
        bounds: tuple[float, ...],
        options: Mapping[str, Any],
    ) -> Settings:
        """Kinds behind the last bound are not drawn."""
        sampling = Sampling(
            int(_validation.check_choice("scope", options["scope"], Scope)),
            int(_validation.check_choice("partner", options["partner"], Partner)),
            int(_validation.check_choice("placement", options["placement"], Placement)),
            int(bool(options["correct_lam"])),
        )
        return cls(
            distributions,
            bounds + bounds[-1:] * (KINDS - len(bounds)),
            tuple(sampling),
            reference.may_blend(bounds),
            _validation.check_share("label_smoothing", options["label_smoothing"]),
            _validation.check_target_dtype("target_dtype", options["target_dtype"]),
            check_fill(options.get("fill", 0.0)),
            check_targets(options["targets"], options["label_smoothing"]),
        )


class PatchSettings(NamedTuple):
    """What the options of several patches a sample come to, checked once."""

    distributions: tuple[float | Distribution | None, ...]  # of the methods, see distributions.quantiles
    bounds: tuple[float, ...]  # see _ops.PatchDraw
    sampling: tuple[int, ...]  # see _ops.PatchSampling; a plain tuple, which the dispatcher takes faster
    blends: bool  # whether a kind that blends pixels can be drawn
    label_smoothing: float
    target_dtype: torch.dtype
    fill: float
    targets: Targets

    @classmethod
    def of_ricap(cls, **given: Unpack[RICAPOptions]) -> PatchSettings:
        options = complete(RICAPOptions, given)
        drawn = _only(PatchMethod.ricap, check_alpha("beta", options["beta"]), options["prob"])
        return cls._of(*drawn, options)

    @classmethod
    def of_resizemix(cls, **given: Unpack[ResizeMixOptions]) -> PatchSettings:
        options = complete(ResizeMixOptions, given)
        drawn = _only(PatchMethod.resizemix, _area("scale", options["scale"]), options["prob"])
        return cls._of(*drawn, options)

    @classmethod
    def of_holes(cls, **given: Unpack[CutoutOptions]) -> PatchSettings:
        options = complete(CutoutOptions, given)
        drawn = _only(Kind.cutout, _area("area", options["area"]), options["prob"])
        return cls._of(*drawn, options, check_holes("holes", options["holes"]))

    @classmethod
    def _of(
        cls,
        distributions: tuple[float | Distribution | None, ...],
        bounds: tuple[float, ...],
        options: Mapping[str, Any],
        holes: int = 1,
    ) -> PatchSettings:
        """Methods behind the last bound are not drawn."""
        every = {**_DEFAULTS[SamplingOptions], **_DEFAULTS[TargetOptions], **options}
        bounds = bounds + bounds[-1:] * (PATCH_METHODS - len(bounds))
        scope = _validation.check_choice("scope", every["scope"], Scope)
        targets = check_targets(every["targets"], every["label_smoothing"])
        ricap = len(distributions) >= PatchMethod.ricap and distributions[PatchMethod.ricap - 1] is not None
        if ricap and scope == Scope.pair:
            raise ValueError(
                "scope must be 'sample' or 'batch' for ricap, whose samples have four partners, got 'pair'"
            )
        if ricap and targets == Targets.pairs:
            raise ValueError("targets must be 'dense' for ricap, whose samples have four partners, got 'pairs'")
        if not every["correct_lam"]:
            raise ValueError(
                "correct_lam must be True where a sample may have several patches, or sources, because its target is "
                "weighted by its pixels"
            )
        sampling = PatchSampling(
            int(scope),
            int(_validation.check_choice("partner", every["partner"], Partner)),
            int(_validation.check_choice("placement", every["placement"], Placement)),
            holes,
            max(holes, RICAP_PATCHES if ricap else 1),
        )
        return cls(
            distributions,
            bounds,
            tuple(sampling),
            reference.may_blend(bounds),
            _validation.check_share("label_smoothing", every["label_smoothing"]),
            _validation.check_target_dtype("target_dtype", every["target_dtype"]),
            check_fill(every.get("fill", 0.0)),
            targets,
        )


def settings_of_mix(**given: Unpack[MixPatchesOptions]) -> Settings | PatchSettings:
    """Those of cutmix, mixup and cutout side by side, and where any may be drawn of ricap, resizemix and holes."""
    options = complete(MixPatchesOptions, given)
    ricap, resizemix = (_validation.check_share(name, options[name]) for name in ("ricap", "resizemix"))
    corner = check_alpha("ricap_beta", options["ricap_beta"])
    scale = _area("resizemix_scale", options["resizemix_scale"])
    holes = check_holes("cutout_holes", options["cutout_holes"])
    distributions, bounds = _kinds_of_mix(options, ricap + resizemix)
    cut_out = options["cutout"]
    if cut_out + ricap + resizemix > 1.0 + _ROUNDING:
        raise ValueError(
            "cutout, ricap and resizemix must be at most 1 together, because a sample is mixed by one of them, got "
            f"{cut_out}, {ricap} and {resizemix}"
        )
    if ricap == resizemix == 0.0 and (holes == 1 or cut_out == 0.0):
        return Settings._of_kinds(distributions, bounds, options)
    every = *distributions, scale if resizemix > 0.0 else None, corner if ricap > 0.0 else None
    last = bounds[-1]
    holes = holes if cut_out > 0.0 else 1
    return PatchSettings._of(every, (*bounds, last + resizemix, last + resizemix + ricap), options, holes)


class MaskSettings(NamedTuple):
    """What the options of mixing by masks that are drawn come to, checked once."""

    distribution: float | Distribution  # of lambda
    decay: float
    prob: float
    partner: int
    label_smoothing: float
    target_dtype: torch.dtype

    @classmethod
    def of_fmix(cls, **given: Unpack[FMixOptions]) -> MaskSettings:
        options = complete(FMixOptions, given)
        return cls(
            check_alpha("alpha", options["alpha"]),
            _validation.check_positive("decay", options["decay"]),
            _validation.check_share("prob", options["prob"]),
            int(_validation.check_choice("partner", options["partner"], Partner)),
            _validation.check_share("label_smoothing", options["label_smoothing"]),
            _validation.check_target_dtype("target_dtype", options["target_dtype"]),
        )


def check_holes(name: str, holes: int) -> int:
    """A number of holes that a sample may have."""
    if _validation.check_size(name, holes, MOST_PATCHES) == 0:
        raise ValueError(f"{name} must be 1 or more, got 0; a probability of 0 cuts nothing out")
    return holes
