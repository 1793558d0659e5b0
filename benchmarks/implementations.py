"""Everything that is measured, behind one interface: ours, the peers, and the ceilings that nobody can beat.

An implementation says what it is (in place or not, whose lambda, what a call includes), which batches it can take, and
how to prepare a call for them. Every one draws lambda from Beta(1, 1) anew at each call, unless it says otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cutmix_cuda import CutMix, available_backends, cutmix, cutmix_

from .grid import CENTRE, MEAN_BOX_SHARE, Case, Inputs

Call = Callable[[Inputs], Any]

ALL = "draw, pixels, soft targets"

# Names that tables, targets and pictures refer to.
OURS, OURS_OUT, OURS_IN_PLACE = "ours, out of place", "ours, out=", "ours, in place"
TORCHVISION = "torchvision v2.CutMix"
TIMM_BATCH, TIMM_PAIR, TIMM_ELEM = "timm Mixup batch", "timm Mixup pair", "timm Mixup elem"
KORNIA = "kornia RandomCutMixV2"
SNIPPET, SNIPPET_MEAN_BOX = "two-line snippet", "two-line snippet, mean box"
COMPILED_BATCH, COMPILED_SAMPLE = "torch.compile, batch", "torch.compile, sample"
CLONE, COPY, BOX_COPY = "clone", "copy_", "copy_ of the boxes' bytes"
NO_MIXING = "no mixing"
SEEDED_IN_GRAPH = ", its seed drawn in the graph"


def _any(case: Case) -> bool:
    return True


def _as_returned(targets: Any, classes: int) -> Tensor:
    return targets


@dataclass(frozen=True)
class Implementation:
    """
    Attributes:
        kind: "ours", "peer" or "ceiling", which only copies.
        includes: what happens within a call.
        scope: who shares a draw of lambda and box: "sample", "pair" or "batch".
        prepare: makes the call for batches of a case; not timed. The call returns (images, targets).
        fits: whether it can take such batches at all.
        dense: its targets as float (B, K), given them and K; not timed.
        rounds_lam: it holds lambda in the images' dtype, so that targets are no more exact than that.
        centre_only: measured at the centre of the grid alone.
        least_passes: image_passes, where it is another than that of CutMix.
    """

    name: str
    kind: str
    prepare: Callable[[Case], Call]
    includes: str = ALL
    scope: str = "batch"
    in_place: bool = False
    fits: Callable[[Case], bool] = _any
    dense: Callable[[Any, int], Tensor] = _as_returned
    rounds_lam: bool = False
    centre_only: bool = False
    least_passes: float | None = None

    @property
    def image_passes(self) -> float:
        """The fewest reads and writes of the whole image tensor that the job takes: (B, C, H, W) bytes each."""
        if self.least_passes is not None:
            return self.least_passes
        return 2 * MEAN_BOX_SHARE if self.in_place or self.name == BOX_COPY else 2.0


def weighted(own: Tensor, partner: Tensor, lam: Tensor | float, classes: int) -> Tensor:
    """Soft targets (B, K) of two class indices (B,) and the weight of the first."""
    own, partner = (torch.nn.functional.one_hot(label.long(), classes).float() for label in (own, partner))
    lam = torch.as_tensor(lam, dtype=torch.float32, device=own.device).reshape(-1, 1)
    return lam * own + (1 - lam) * partner


# ---- Ours


def _ours(
    mode: str,
    backend: str,
    *,
    label: str = "",
    scope: str = "sample",
    soft: bool = False,
    centre_only: bool = False,
    host_seed: bool = False,
) -> Implementation:
    """host_seed: draw the seed on the host even in a CUDA graph, where it is frozen, as what peers draw there is."""
    in_place = mode == "in place"

    def labels(inputs: Inputs) -> Tensor:
        return inputs.soft_labels if soft else inputs.labels

    def prepare(case: Case) -> Call:
        how: dict[str, Any] = {"scope": scope, "backend": backend}
        if mode != "out=" and not host_seed:
            mix = CutMix(num_classes=case.classes, inplace=in_place, **how)
            return lambda inputs: mix(inputs.images, labels(inputs))

        def call(inputs: Inputs) -> tuple[Tensor, Tensor]:
            seed = torch.empty(1, dtype=torch.int64).random_() if host_seed else None
            if in_place:
                return cutmix_(inputs.images, labels(inputs), case.classes, seed=seed, **how)
            out = inputs.out if mode == "out=" else None
            return cutmix(inputs.images, labels(inputs), case.classes, seed=seed, out=out, **how)

        return call

    return Implementation(
        f"ours, {mode}{label}",
        "ours",
        prepare,
        includes=ALL + (" of soft labels" if soft else ""),
        scope=scope,
        in_place=in_place,
        centre_only=centre_only,
    )


MODES = ("out of place", "out=", "in place")


def backends_on(device: torch.device) -> list[str]:
    """Best first."""
    runs_on = {"cuda": ("cuda", "triton", "reference"), "cpu": ("cpu", "reference")}[device.type]
    return [backend for backend in available_backends() if backend in runs_on]


def _all_of_ours(device: torch.device) -> list[Implementation]:
    """The best backend in every mode; at the centre also its other scope and labels, and the other backends.

    On a GPU, whose graphs freeze what the host draws, also the modes that draw their seed in the graph.
    """
    best, *others = backends_on(device)
    ours = partial(_ours, host_seed=True) if device.type == "cuda" else _ours
    found = [ours(mode, best) for mode in MODES]
    if device.type == "cuda":
        found += [_ours(mode, best, label=SEEDED_IN_GRAPH) for mode in MODES]
    for scope in ("sample", "batch"):
        for soft in (False, True):
            label = (", scope batch" if scope == "batch" else "") + (", soft labels" if soft else "")
            if label:
                found += [ours(mode, best, label=label, scope=scope, soft=soft, centre_only=True) for mode in MODES]
    for backend in others:
        found += [
            ours(mode, backend, label=f" [{backend}]", centre_only=backend == "reference")
            for mode in MODES
            if (backend, mode) != ("reference", "out=")
        ]
    return found


# ---- Peers


def _torchvision() -> list[Implementation]:
    from torchvision.transforms import v2

    def prepare(case: Case) -> Call:
        mix = v2.CutMix(num_classes=case.classes)
        return lambda inputs: mix(inputs.images, inputs.labels)

    return [Implementation(TORCHVISION, "peer", prepare)]


def _timm() -> list[Implementation]:
    from timm.data.mixup import Mixup

    def of(name: str, mode: str, scope: str) -> Implementation:
        def prepare(case: Case) -> Call:
            mix = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, mode=mode, label_smoothing=0.0, num_classes=case.classes)
            return lambda inputs: mix(inputs.images, inputs.labels)

        def fits(case: Case) -> bool:
            # It asserts an even batch; and a lambda in the dtype of uint8 images is 0, which gives wrong targets.
            return case.batch % 2 == 0 and (scope == "batch" or case.dtype.is_floating_point)

        rounds_lam = scope != "batch"
        return Implementation(name, "peer", prepare, scope=scope, in_place=True, fits=fits, rounds_lam=rounds_lam)

    return [
        of(TIMM_BATCH, "batch", "batch"),
        of(TIMM_PAIR, "pair", "pair"),
        of(TIMM_ELEM, "elem", "sample"),
    ]


def _kornia() -> list[Implementation]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kornia.augmentation import RandomCutMixV2

    def prepare(case: Case) -> Call:
        mix = RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)
        return lambda inputs: mix(inputs.images, inputs.labels)

    def fits(case: Case) -> bool:
        # It takes neither integers nor a batch of one. More than this would take most of the benchmark's time.
        wanted = case.dtype == torch.float32 and not case.channels_last and case.image_bytes <= CENTRE.image_bytes
        return wanted and case.batch > 1

    def dense(targets: Tensor, classes: int) -> Tensor:
        own, partner, lam = targets[0].unbind(1)
        return weighted(own, partner, lam, classes)

    includes = "draw (boxes inside), pixels, two labels and lambda"
    return [Implementation(KORNIA, "peer", prepare, includes=includes, scope="sample", fits=fits, dense=dense)]


def random_box(size: int) -> tuple[int, int, int, int]:
    """y0, y1, x0, x1 as the paper draws them: lambda uniform, a centre anywhere, clipped at the border."""
    half = int(0.5 * np.sqrt(1.0 - np.random.beta(1.0, 1.0)) * size)
    y, x = np.random.randint(size, size=2)
    return max(y - half, 0), min(y + half, size), max(x - half, 0), min(x + half, size)


def _snippets() -> list[Implementation]:
    """What people write by hand: two lines in place, one box for the batch, the labels and lambda left to the loss."""

    def mean_box(size: int) -> tuple[int, int, int, int]:
        side = round(MEAN_BOX_SHARE**0.5 * size)
        start = (size - side) // 2
        return start, start + side, start, start + side

    def prepare(draw_box: Callable[[int], tuple[int, int, int, int]]) -> Callable[[Case], Call]:
        def prepare_case(case: Case) -> Call:
            def call(inputs: Inputs) -> tuple[Tensor, tuple[Tensor, Tensor, float]]:
                x, labels = inputs.images, inputs.labels
                y0, y1, x0, x1 = draw_box(case.size)
                perm = torch.randperm(case.batch, device=x.device)
                x[:, :, y0:y1, x0:x1] = x[perm, :, y0:y1, x0:x1]
                return x, (labels, labels[perm], 1 - (y1 - y0) * (x1 - x0) / case.size**2)

            return call

        return prepare_case

    def dense(targets: tuple[Tensor, Tensor, float], classes: int) -> Tensor:
        return weighted(*targets, classes)

    includes = "pixels, two labels and lambda"
    return [
        Implementation(name, "peer", prepare(draw_box), includes=what + includes, in_place=True, dense=dense)
        for name, draw_box, what in ((SNIPPET, random_box, "draw, "), (SNIPPET_MEAN_BOX, mean_box, "permutation, "))
    ]


def in_box(images: Tensor, y0: Tensor, x0: Tensor, y1: Tensor, x1: Tensor) -> Tensor:
    """Whether pixels lie in boxes (B,) or (1,), as a mask that broadcasts to images (B, C, H, W)."""

    def within(length: int, start: Tensor, end: Tensor) -> Tensor:
        position = torch.arange(length, device=images.device)
        return (position >= start[:, None]) & (position < end[:, None])

    height, width = images.shape[-2:]
    return within(height, y0, y1)[:, None, :, None] & within(width, x0, x1)[:, None, None, :]


def plain_cutmix(images: Tensor, labels: Tensor, classes: int, per_sample: bool) -> tuple[Tensor, Tensor]:
    """CutMix as one would write it for a compiler: tensors only, nothing that makes the host wait."""
    batch, _, height, width = images.shape
    device = images.device
    draws = batch if per_sample else 1
    half = 0.5 * torch.rand(draws, device=device).sqrt()  # lambda is uniform, and so is 1 - lambda

    def side(length: int) -> tuple[Tensor, Tensor]:
        centre = torch.randint(length, (draws,), device=device)
        extent = (half * length).long()
        return (centre - extent).clamp(min=0), (centre + extent).clamp(max=length)

    (y0, y1), (x0, x1) = side(height), side(width)
    pasted = in_box(images, y0, x0, y1, x1)
    lam = 1 - ((y1 - y0) * (x1 - x0))[:, None] / (height * width)
    own = (labels[:, None] == torch.arange(classes, device=device)).float()
    return torch.where(pasted, images.flip(0), images), lam * own + (1 - lam) * own.flip(0)


def compile_once(function: Callable) -> Callable:
    """One compilation serves every batch and image size; a dtype or a batch of one takes another."""
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=True)


def _compiled() -> list[Implementation]:
    compiled = compile_once(plain_cutmix)

    def of(name: str, per_sample: bool) -> Implementation:
        def prepare(case: Case) -> Call:
            return lambda inputs: compiled(inputs.images, inputs.labels, case.classes, per_sample)

        def fits(case: Case) -> bool:  # each layout would be compiled anew
            return not case.channels_last

        return Implementation(name, "peer", prepare, scope="sample" if per_sample else "batch", fits=fits)

    return [of(COMPILED_BATCH, False), of(COMPILED_SAMPLE, True)]


# ---- Ceilings


def _dense_view(images: Tensor) -> Tensor:
    """The images as they lie in memory, 1-D."""
    return images.as_strided((images.numel(),), (1,))


def _ceilings() -> list[Implementation]:
    def copy_of_boxes(case: Case) -> Call:
        def call(inputs: Inputs) -> None:
            pixels = _dense_view(inputs.images)
            count = int(MEAN_BOX_SHARE * len(pixels))
            pixels[-count:].copy_(pixels[:count])

        return call

    return [
        Implementation(name, "ceiling", prepare, includes=includes)
        for name, prepare, includes in (
            (CLONE, lambda case: lambda inputs: inputs.images.clone(), "a copy, allocated"),
            (COPY, lambda case: lambda inputs: inputs.out.copy_(inputs.images), "a copy"),
            (BOX_COPY, copy_of_boxes, "as many bytes as mean boxes have, in one piece"),
        )
    ]


def ours_and_ceilings(device: torch.device) -> list[Implementation]:
    """What is there without a peer, whose imports take seconds."""
    return _all_of_ours(device) + _ceilings()


def all_implementations(
    device: torch.device, *, with_compiled: bool = True
) -> tuple[list[Implementation], dict[str, str]]:
    """Everything that this machine can run, and why a peer is missing."""
    found, missing = _all_of_ours(device), {}
    for name, make in (("torchvision", _torchvision), ("timm", _timm), ("kornia", _kornia)):
        try:
            found += make()
        except ImportError as error:
            missing[name] = str(error)
    found += _snippets()
    if with_compiled:
        found += _compiled()
    return found + _ceilings(), missing


def chosen(implementations: list[Implementation], case: Case, centre: Case) -> list[Implementation]:
    """Those that are measured on such batches."""
    return [one for one in implementations if one.fits(case) and (case == centre or not one.centre_only)]
