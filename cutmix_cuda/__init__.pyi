# Made from the signatures by `make stub`; a test holds it to them.
# ruff: noqa: I001
# fmt: off
from typing import Generic, Literal, overload

import torch
from torch import Tensor
from typing_extensions import TypeVar

from . import distributions, masks
from ._backends import available_backends
from ._literals import BackendName, LayoutName, PartnerName, PlacementName, ScopeName, TargetsName
from .augmentation import Mean, Augment as _Augment, normalize_images, sample_views
from .boxes import MixedBoxes
from .colour import Colour
from .distributions import Distribution
from .erasing import Erase
from .features import MixFeatures, mix_features
from .functional import sample_plan
from .images import mix_images, mix_images_
from .pairs import PairTargets, cross_entropy
from .patch_plan import PatchPlan
from .patches import mix_by_masks, mix_by_masks_, paint, paint_, paint_targets
from .plan import MixPlan
from .transforms import (
    Transform,
    RICAP as _RICAP,
    CutMix as _CutMix,
    Cutout as _Cutout,
    FMix as _FMix,
    Mix as _Mix,
    MixUp as _MixUp,
    ResizeMix as _ResizeMix,
)
from .views import Views

__version__: str
__all__ = [
    "RICAP",
    "Augment",
    "Colour",
    "CutMix",
    "Cutout",
    "Erase",
    "FMix",
    "Mix",
    "MixFeatures",
    "MixPlan",
    "MixUp",
    "MixedBoxes",
    "PairTargets",
    "PatchPlan",
    "ResizeMix",
    "Views",
    "apply_plan",
    "apply_plan_",
    "augment",
    "available_backends",
    "cross_entropy",
    "cutmix",
    "cutmix_",
    "distributions",
    "masks",
    "mix",
    "mix_",
    "mix_by_masks",
    "mix_by_masks_",
    "mix_features",
    "mix_images",
    "mix_images_",
    "mix_targets",
    "normalize_images",
    "paint",
    "paint_",
    "paint_targets",
    "sample_plan",
    "sample_views"
]

_Targets = TypeVar("_Targets", bound=Tensor | PairTargets, default=Tensor)
_Plan = TypeVar("_Plan", bound=MixPlan | PatchPlan, default=MixPlan)


class _Transform(Transform, Generic[_Targets, _Plan]):
    @overload
    def __call__(
        self, images: Tensor, labels: None = None, *, return_plan: Literal[False] = False
    ) -> tuple[Tensor, None]: ...
    @overload
    def __call__(
        self, images: Tensor, labels: None = None, *, return_plan: Literal[True]
    ) -> tuple[Tensor, None, _Plan]: ...
    @overload
    def __call__(
        self, images: Tensor, labels: Tensor, *, return_plan: Literal[False] = False
    ) -> tuple[Tensor, _Targets]: ...
    @overload
    def __call__(
        self, images: Tensor, labels: Tensor, *, return_plan: Literal[True]
    ) -> tuple[Tensor, _Targets, _Plan]: ...
    @overload
    def __call__(
        self, images: Tensor, labels: Tensor | None = None, *, return_plan: bool = False
    ) -> tuple[Tensor, _Targets | None] | tuple[Tensor, _Targets | None, _Plan]: ...


class CutMix(_CutMix, _Transform[_Targets]):
    @overload
    def __init__(
        self: CutMix[Tensor], *, alpha: float | Distribution = 1.0, prob: float = 1.0, scope: ScopeName = "sample",
        partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
        label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense",
        num_classes: int | None = None, inplace: bool = False, reuse_output: bool = False,
        seed: int | Tensor | None = None, generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: CutMix[PairTargets], *, alpha: float | Distribution = 1.0, prob: float = 1.0, scope: ScopeName = "sample",
        partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
        label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"],
        num_classes: int | None = None, inplace: bool = False, reuse_output: bool = False,
        seed: int | Tensor | None = None, generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...


class Cutout(_Cutout, _Transform[_Targets, _Plan]):
    @overload
    def __init__(
        self: Cutout[Tensor], *, area: float | Distribution = 0.25, prob: float = 1.0, fill: float = 0.0,
        holes: Literal[1] = 1, scope: ScopeName = "sample", placement: PlacementName = "clip",
        label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense",
        num_classes: int | None = None, inplace: bool = False, reuse_output: bool = False,
        seed: int | Tensor | None = None, generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Cutout[Tensor, MixPlan | PatchPlan], *, area: float | Distribution = 0.25, prob: float = 1.0,
        fill: float = 0.0, holes: int = 1, scope: ScopeName = "sample", placement: PlacementName = "clip",
        label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense",
        num_classes: int | None = None, inplace: bool = False, reuse_output: bool = False,
        seed: int | Tensor | None = None, generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Cutout[PairTargets], *, area: float | Distribution = 0.25, prob: float = 1.0, fill: float = 0.0,
        holes: Literal[1] = 1, scope: ScopeName = "sample", placement: PlacementName = "clip",
        label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"],
        num_classes: int | None = None, inplace: bool = False, reuse_output: bool = False,
        seed: int | Tensor | None = None, generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Cutout[PairTargets, MixPlan | PatchPlan], *, area: float | Distribution = 0.25, prob: float = 1.0,
        fill: float = 0.0, holes: int = 1, scope: ScopeName = "sample", placement: PlacementName = "clip",
        label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"],
        num_classes: int | None = None, inplace: bool = False, reuse_output: bool = False,
        seed: int | Tensor | None = None, generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...


class Mix(_Mix, _Transform[_Targets, _Plan]):
    @overload
    def __init__(
        self: Mix[Tensor], *, cutmix_alpha: float | Distribution | None = 1.0,
        mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
        fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
        partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
        label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense",
        ricap_beta: float | Distribution = 0.3, resizemix_scale: float | Distribution = ...,
        cutout_holes: Literal[1] = 1, num_classes: int | None = None, inplace: bool = False, reuse_output: bool = False,
        seed: int | Tensor | None = None, generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Mix[Tensor, MixPlan | PatchPlan], *, cutmix_alpha: float | Distribution | None = 1.0,
        mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
        fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
        partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
        label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense",
        ricap: float = 0.0, ricap_beta: float | Distribution = 0.3, resizemix: float = 0.0,
        resizemix_scale: float | Distribution = ..., cutout_holes: int = 1, num_classes: int | None = None,
        inplace: bool = False, reuse_output: bool = False, seed: int | Tensor | None = None,
        generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Mix[PairTargets], *, cutmix_alpha: float | Distribution | None = 1.0,
        mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
        fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
        partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
        label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"],
        ricap_beta: float | Distribution = 0.3, resizemix_scale: float | Distribution = ...,
        cutout_holes: Literal[1] = 1, num_classes: int | None = None, inplace: bool = False, reuse_output: bool = False,
        seed: int | Tensor | None = None, generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Mix[PairTargets, MixPlan | PatchPlan], *, cutmix_alpha: float | Distribution | None = 1.0,
        mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
        fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
        partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
        label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"],
        ricap: float = 0.0, ricap_beta: float | Distribution = 0.3, resizemix: float = 0.0,
        resizemix_scale: float | Distribution = ..., cutout_holes: int = 1, num_classes: int | None = None,
        inplace: bool = False, reuse_output: bool = False, seed: int | Tensor | None = None,
        generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...


class MixUp(_MixUp, _Transform[_Targets]):
    @overload
    def __init__(
        self: MixUp[Tensor], *, alpha: float | Distribution = 1.0, prob: float = 1.0, scope: ScopeName = "sample",
        partner: PartnerName = "mirror", label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
        targets: Literal["dense"] = "dense", num_classes: int | None = None, inplace: bool = False,
        reuse_output: bool = False, seed: int | Tensor | None = None, generator: torch.Generator | None = None,
        backend: BackendName | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: MixUp[PairTargets], *, alpha: float | Distribution = 1.0, prob: float = 1.0, scope: ScopeName = "sample",
        partner: PartnerName = "mirror", label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
        targets: Literal["pairs"], num_classes: int | None = None, inplace: bool = False, reuse_output: bool = False,
        seed: int | Tensor | None = None, generator: torch.Generator | None = None, backend: BackendName | None = None
    ) -> None: ...


class FMix(_FMix, _Transform[Tensor, PatchPlan]): ...


class RICAP(_RICAP, _Transform[Tensor, PatchPlan]): ...


class ResizeMix(_ResizeMix, _Transform[Tensor, PatchPlan]): ...


class Augment(_Augment, Generic[_Targets]):
    @overload
    def __init__(
        self: Augment[Tensor], mix: None = None, *, mean: Mean | None = None, std: Mean | None = None,
        flip: float = 0.0, translate: int | tuple[int, int] = 0, colour: Colour | None = None,
        erase: Erase | None = None, dtype: torch.dtype | None = None,
        memory_format: torch.memory_format = torch.preserve_format, layout: LayoutName = "NCHW",
        reuse_output: bool = False, seed: int | Tensor | None = None, generator: torch.Generator | None = None,
        backend: BackendName | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Augment[_Targets], mix: _Transform[_Targets], *, mean: Mean | None = None, std: Mean | None = None,
        flip: float = 0.0, translate: int | tuple[int, int] = 0, colour: Colour | None = None,
        erase: Erase | None = None, dtype: torch.dtype | None = None,
        memory_format: torch.memory_format = torch.preserve_format, layout: LayoutName = "NCHW",
        reuse_output: bool = False, seed: int | Tensor | None = None, generator: torch.Generator | None = None,
        backend: BackendName | None = None
    ) -> None: ...
    @overload
    def __call__(
        self, images: Tensor, labels: None = None, *, out: Tensor | None = None, return_plan: Literal[False] = False
    ) -> tuple[Tensor, None]: ...
    @overload
    def __call__(
        self, images: Tensor, labels: None = None, *, out: Tensor | None = None, return_plan: Literal[True]
    ) -> tuple[Tensor, None, MixPlan, Views]: ...
    @overload
    def __call__(
        self, images: Tensor, labels: Tensor, *, out: Tensor | None = None, return_plan: Literal[False] = False
    ) -> tuple[Tensor, _Targets]: ...
    @overload
    def __call__(
        self, images: Tensor, labels: Tensor, *, out: Tensor | None = None, return_plan: Literal[True]
    ) -> tuple[Tensor, _Targets, MixPlan, Views]: ...
    @overload
    def __call__(
        self, images: Tensor, labels: Tensor | None = None, *, out: Tensor | None = None, return_plan: bool = False
    ) -> tuple[Tensor, _Targets | None] | tuple[Tensor, _Targets | None, MixPlan, Views]: ...
    @overload
    def apply_plan(
        self, images: Tensor, labels: None = None, plan: MixPlan | None = None, views: Views | None = None, *,
        seed: int | Tensor | None = None, out: Tensor | None = None
    ) -> tuple[Tensor, None]: ...
    @overload
    def apply_plan(
        self, images: Tensor, labels: Tensor, plan: None = None, views: Views | None = None, *,
        seed: int | Tensor | None = None, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def apply_plan(
        self, images: Tensor, labels: Tensor, plan: MixPlan, views: Views | None = None, *,
        seed: int | Tensor | None = None, out: Tensor | None = None
    ) -> tuple[Tensor, _Targets]: ...
    @overload
    def apply_plan(
        self, images: Tensor, labels: Tensor | None = None, plan: MixPlan | None = None, views: Views | None = None, *,
        seed: int | Tensor | None = None, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor | _Targets | None]: ...


@overload
def apply_plan(
    images: Tensor, labels: None, plan: MixPlan, num_classes: int | None = None, *, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: TargetsName = "dense", fill: float = 0.0,
    out: Tensor | None = None, backend: BackendName | None = None
) -> tuple[Tensor, None]: ...
@overload
def apply_plan(
    images: Tensor, labels: Tensor, plan: MixPlan, num_classes: int | None = None, *, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense", fill: float = 0.0,
    out: Tensor | None = None, backend: BackendName | None = None
) -> tuple[Tensor, Tensor]: ...
@overload
def apply_plan(
    images: Tensor, labels: Tensor, plan: MixPlan, num_classes: int | None = None, *, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"], fill: float = 0.0, out: Tensor | None = None,
    backend: BackendName | None = None
) -> tuple[Tensor, PairTargets]: ...
@overload
def apply_plan(
    images: Tensor, labels: Tensor | None, plan: MixPlan, num_classes: int | None = None, *,
    label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: TargetsName = "dense",
    fill: float = 0.0, out: Tensor | None = None, backend: BackendName | None = None
) -> tuple[Tensor, Tensor | PairTargets | None]: ...


@overload
def apply_plan_(
    images: Tensor, labels: None, plan: MixPlan, num_classes: int | None = None, *, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: TargetsName = "dense", fill: float = 0.0,
    backend: BackendName | None = None
) -> tuple[Tensor, None]: ...
@overload
def apply_plan_(
    images: Tensor, labels: Tensor, plan: MixPlan, num_classes: int | None = None, *, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense", fill: float = 0.0,
    backend: BackendName | None = None
) -> tuple[Tensor, Tensor]: ...
@overload
def apply_plan_(
    images: Tensor, labels: Tensor, plan: MixPlan, num_classes: int | None = None, *, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"], fill: float = 0.0,
    backend: BackendName | None = None
) -> tuple[Tensor, PairTargets]: ...
@overload
def apply_plan_(
    images: Tensor, labels: Tensor | None, plan: MixPlan, num_classes: int | None = None, *,
    label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: TargetsName = "dense",
    fill: float = 0.0, backend: BackendName | None = None
) -> tuple[Tensor, Tensor | PairTargets | None]: ...


@overload
def cutmix(
    images: Tensor, labels: None = None, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: TargetsName = "dense", seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    out: Tensor | None = None, return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, None]: ...
@overload
def cutmix(
    images: Tensor, labels: None = None, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: TargetsName = "dense", seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    out: Tensor | None = None, return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, None, MixPlan]: ...
@overload
def cutmix(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: Literal["dense"] = "dense", seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    out: Tensor | None = None, return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, Tensor]: ...
@overload
def cutmix(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: Literal["dense"] = "dense", seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    out: Tensor | None = None, return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, Tensor, MixPlan]: ...
@overload
def cutmix(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: Literal["pairs"], seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    out: Tensor | None = None, return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, PairTargets]: ...
@overload
def cutmix(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: Literal["pairs"], seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    out: Tensor | None = None, return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, PairTargets, MixPlan]: ...
@overload
def cutmix(
    images: Tensor, labels: Tensor | None = None, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: TargetsName = "dense", seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    out: Tensor | None = None, return_plan: bool = False, backend: BackendName | None = None
) -> tuple[Tensor, Tensor | PairTargets | None] | tuple[Tensor, Tensor | PairTargets | None, MixPlan]: ...


@overload
def cutmix_(
    images: Tensor, labels: None = None, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: TargetsName = "dense", seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, None]: ...
@overload
def cutmix_(
    images: Tensor, labels: None = None, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: TargetsName = "dense", seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, None, MixPlan]: ...
@overload
def cutmix_(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: Literal["dense"] = "dense", seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, Tensor]: ...
@overload
def cutmix_(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: Literal["dense"] = "dense", seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, Tensor, MixPlan]: ...
@overload
def cutmix_(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: Literal["pairs"], seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, PairTargets]: ...
@overload
def cutmix_(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: Literal["pairs"], seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, PairTargets, MixPlan]: ...
@overload
def cutmix_(
    images: Tensor, labels: Tensor | None = None, num_classes: int | None = None, *, alpha: float | Distribution = 1.0,
    prob: float = 1.0, scope: ScopeName = "sample", partner: PartnerName = "mirror", placement: PlacementName = "clip",
    correct_lam: bool = True, label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32,
    targets: TargetsName = "dense", seed: int | Tensor | None = None, generator: torch.Generator | None = None,
    return_plan: bool = False, backend: BackendName | None = None
) -> tuple[Tensor, Tensor | PairTargets | None] | tuple[Tensor, Tensor | PairTargets | None, MixPlan]: ...


@overload
def mix(
    images: Tensor, labels: None = None, num_classes: int | None = None, *,
    cutmix_alpha: float | Distribution | None = 1.0, mixup_alpha: float | Distribution | None = 1.0,
    cutout: float = 0.0, cutout_area: float | Distribution = 0.25, fill: float = 0.0, prob: float = 1.0,
    switch_prob: float = 0.5, scope: ScopeName = "sample", partner: PartnerName = "mirror",
    placement: PlacementName = "clip", correct_lam: bool = True, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: TargetsName = "dense", seed: int | Tensor | None = None,
    generator: torch.Generator | None = None, out: Tensor | None = None, return_plan: Literal[False] = False,
    backend: BackendName | None = None
) -> tuple[Tensor, None]: ...
@overload
def mix(
    images: Tensor, labels: None = None, num_classes: int | None = None, *,
    cutmix_alpha: float | Distribution | None = 1.0, mixup_alpha: float | Distribution | None = 1.0,
    cutout: float = 0.0, cutout_area: float | Distribution = 0.25, fill: float = 0.0, prob: float = 1.0,
    switch_prob: float = 0.5, scope: ScopeName = "sample", partner: PartnerName = "mirror",
    placement: PlacementName = "clip", correct_lam: bool = True, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: TargetsName = "dense", seed: int | Tensor | None = None,
    generator: torch.Generator | None = None, out: Tensor | None = None, return_plan: Literal[True],
    backend: BackendName | None = None
) -> tuple[Tensor, None, MixPlan]: ...
@overload
def mix(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, cutmix_alpha: float | Distribution | None = 1.0,
    mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
    fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
    partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
    label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, Tensor]: ...
@overload
def mix(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, cutmix_alpha: float | Distribution | None = 1.0,
    mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
    fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
    partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
    label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, Tensor, MixPlan]: ...
@overload
def mix(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, cutmix_alpha: float | Distribution | None = 1.0,
    mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
    fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
    partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
    label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"],
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, PairTargets]: ...
@overload
def mix(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, cutmix_alpha: float | Distribution | None = 1.0,
    mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
    fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
    partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
    label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"],
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, PairTargets, MixPlan]: ...
@overload
def mix(
    images: Tensor, labels: Tensor | None = None, num_classes: int | None = None, *,
    cutmix_alpha: float | Distribution | None = 1.0, mixup_alpha: float | Distribution | None = 1.0,
    cutout: float = 0.0, cutout_area: float | Distribution = 0.25, fill: float = 0.0, prob: float = 1.0,
    switch_prob: float = 0.5, scope: ScopeName = "sample", partner: PartnerName = "mirror",
    placement: PlacementName = "clip", correct_lam: bool = True, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: TargetsName = "dense", seed: int | Tensor | None = None,
    generator: torch.Generator | None = None, out: Tensor | None = None, return_plan: bool = False,
    backend: BackendName | None = None
) -> tuple[Tensor, Tensor | PairTargets | None] | tuple[Tensor, Tensor | PairTargets | None, MixPlan]: ...


@overload
def mix_(
    images: Tensor, labels: None = None, num_classes: int | None = None, *,
    cutmix_alpha: float | Distribution | None = 1.0, mixup_alpha: float | Distribution | None = 1.0,
    cutout: float = 0.0, cutout_area: float | Distribution = 0.25, fill: float = 0.0, prob: float = 1.0,
    switch_prob: float = 0.5, scope: ScopeName = "sample", partner: PartnerName = "mirror",
    placement: PlacementName = "clip", correct_lam: bool = True, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: TargetsName = "dense", seed: int | Tensor | None = None,
    generator: torch.Generator | None = None, return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, None]: ...
@overload
def mix_(
    images: Tensor, labels: None = None, num_classes: int | None = None, *,
    cutmix_alpha: float | Distribution | None = 1.0, mixup_alpha: float | Distribution | None = 1.0,
    cutout: float = 0.0, cutout_area: float | Distribution = 0.25, fill: float = 0.0, prob: float = 1.0,
    switch_prob: float = 0.5, scope: ScopeName = "sample", partner: PartnerName = "mirror",
    placement: PlacementName = "clip", correct_lam: bool = True, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: TargetsName = "dense", seed: int | Tensor | None = None,
    generator: torch.Generator | None = None, return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, None, MixPlan]: ...
@overload
def mix_(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, cutmix_alpha: float | Distribution | None = 1.0,
    mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
    fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
    partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
    label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, return_plan: Literal[False] = False,
    backend: BackendName | None = None
) -> tuple[Tensor, Tensor]: ...
@overload
def mix_(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, cutmix_alpha: float | Distribution | None = 1.0,
    mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
    fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
    partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
    label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, return_plan: Literal[True],
    backend: BackendName | None = None
) -> tuple[Tensor, Tensor, MixPlan]: ...
@overload
def mix_(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, cutmix_alpha: float | Distribution | None = 1.0,
    mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
    fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
    partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
    label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"],
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, return_plan: Literal[False] = False,
    backend: BackendName | None = None
) -> tuple[Tensor, PairTargets]: ...
@overload
def mix_(
    images: Tensor, labels: Tensor, num_classes: int | None = None, *, cutmix_alpha: float | Distribution | None = 1.0,
    mixup_alpha: float | Distribution | None = 1.0, cutout: float = 0.0, cutout_area: float | Distribution = 0.25,
    fill: float = 0.0, prob: float = 1.0, switch_prob: float = 0.5, scope: ScopeName = "sample",
    partner: PartnerName = "mirror", placement: PlacementName = "clip", correct_lam: bool = True,
    label_smoothing: float = 0.0, target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"],
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, return_plan: Literal[True],
    backend: BackendName | None = None
) -> tuple[Tensor, PairTargets, MixPlan]: ...
@overload
def mix_(
    images: Tensor, labels: Tensor | None = None, num_classes: int | None = None, *,
    cutmix_alpha: float | Distribution | None = 1.0, mixup_alpha: float | Distribution | None = 1.0,
    cutout: float = 0.0, cutout_area: float | Distribution = 0.25, fill: float = 0.0, prob: float = 1.0,
    switch_prob: float = 0.5, scope: ScopeName = "sample", partner: PartnerName = "mirror",
    placement: PlacementName = "clip", correct_lam: bool = True, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: TargetsName = "dense", seed: int | Tensor | None = None,
    generator: torch.Generator | None = None, return_plan: bool = False, backend: BackendName | None = None
) -> tuple[Tensor, Tensor | PairTargets | None] | tuple[Tensor, Tensor | PairTargets | None, MixPlan]: ...


@overload
def augment(
    images: Tensor, labels: None = None, mix: Transform | None = None, *, mean: Mean | None = None,
    std: Mean | None = None, flip: float = 0.0, translate: int | tuple[int, int] = 0,
    colour: Colour | Tensor | None = None, erase: Erase | None = None, dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format, layout: LayoutName = "NCHW",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, None]: ...
@overload
def augment(
    images: Tensor, labels: None = None, mix: Transform | None = None, *, mean: Mean | None = None,
    std: Mean | None = None, flip: float = 0.0, translate: int | tuple[int, int] = 0,
    colour: Colour | Tensor | None = None, erase: Erase | None = None, dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format, layout: LayoutName = "NCHW",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, None, MixPlan, Views]: ...
@overload
def augment(
    images: Tensor, labels: Tensor, mix: None = None, *, mean: Mean | None = None, std: Mean | None = None,
    flip: float = 0.0, translate: int | tuple[int, int] = 0, colour: Colour | Tensor | None = None,
    erase: Erase | None = None, dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format, layout: LayoutName = "NCHW",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, Tensor]: ...
@overload
def augment(
    images: Tensor, labels: Tensor, mix: None = None, *, mean: Mean | None = None, std: Mean | None = None,
    flip: float = 0.0, translate: int | tuple[int, int] = 0, colour: Colour | Tensor | None = None,
    erase: Erase | None = None, dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format, layout: LayoutName = "NCHW",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, Tensor, MixPlan, Views]: ...
@overload
def augment(
    images: Tensor, labels: Tensor, mix: _Transform[_Targets], *, mean: Mean | None = None, std: Mean | None = None,
    flip: float = 0.0, translate: int | tuple[int, int] = 0, colour: Colour | Tensor | None = None,
    erase: Erase | None = None, dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format, layout: LayoutName = "NCHW",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: Literal[False] = False, backend: BackendName | None = None
) -> tuple[Tensor, _Targets]: ...
@overload
def augment(
    images: Tensor, labels: Tensor, mix: _Transform[_Targets], *, mean: Mean | None = None, std: Mean | None = None,
    flip: float = 0.0, translate: int | tuple[int, int] = 0, colour: Colour | Tensor | None = None,
    erase: Erase | None = None, dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format, layout: LayoutName = "NCHW",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: Literal[True], backend: BackendName | None = None
) -> tuple[Tensor, _Targets, MixPlan, Views]: ...
@overload
def augment(
    images: Tensor, labels: Tensor | None = None, mix: Transform | None = None, *, mean: Mean | None = None,
    std: Mean | None = None, flip: float = 0.0, translate: int | tuple[int, int] = 0,
    colour: Colour | Tensor | None = None, erase: Erase | None = None, dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format, layout: LayoutName = "NCHW",
    seed: int | Tensor | None = None, generator: torch.Generator | None = None, out: Tensor | None = None,
    return_plan: bool = False, backend: BackendName | None = None
) -> tuple[Tensor, Tensor | _Targets | None] | tuple[Tensor, Tensor | _Targets | None, MixPlan, Views]: ...


@overload
def mix_targets(
    labels: Tensor, plan: MixPlan, num_classes: int | None = None, *, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: Literal["dense"] = "dense", backend: BackendName | None = None
) -> Tensor: ...
@overload
def mix_targets(
    labels: Tensor, plan: MixPlan, num_classes: int | None = None, *, label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32, targets: Literal["pairs"], backend: BackendName | None = None
) -> PairTargets: ...
