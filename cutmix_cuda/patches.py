"""Plans of several patches a sample, and what follows them: RICAP, ResizeMix, FMix, holes, masks of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _backends, _validation, reference, reference_patches
from ._fill import check_fill, fill_words
from ._literals import BackendName
from ._ops import (
    BLENDED_DTYPES,
    KINDS,
    LONGEST_SIDE,
    MOST_MASKED_PIXELS,
    MOST_PATCHES,
    PATCH_METHODS,
    PLAN_COLUMNS,
    Kind,
)
from ._options import MaskSettings, PatchSettings
from ._seed import seed_tensor
from ._serialization import register
from ._tensors import of_class, plain
from ._tv_tensors import classes_of
from .boxes import MixedBoxes
from .distributions import quantiles
from .functional import _labels_of_op, _mark_written
from .masks import fmix
from .pairs import PairTargets, pairs_of
from .patch_boxes import mix_patch_boxes
from .plan import MixPlan, check_beside, check_integers, check_plan_device, check_plan_size
from .reference import blends, has_box
from .reference_patches import Patches, valid_samples


@dataclass(frozen=True, eq=False)
class PatchPlan:
    """A plan of several patches a sample, painted one over the other, with sources and masks.

    >>> left, right = torch.tensor([0, 0, 16, 8]), torch.tensor([0, 8, 16, 16])  # y0, x0, y1, x1
    >>> boxes = torch.stack([left, right]).expand(4, 2, 4)
    >>> partner = torch.tensor([[1, 2], [2, 3], [3, 0], [0, 1]])
    >>> plan = PatchPlan.from_boxes(partner, boxes, height=16, width=16)
    >>> mixed, targets = paint(images, labels, plan, 10)

    There are N samples to be made of a batch of B, and N need not be B: sample i starts as sample i modulo B, and its
    patches are painted over it in their order. A patch k of it, in its box,

    - is kept (kind 0): nothing changes;
    - is pasted (1): the pixels of its partner;
    - is blended (2): lam * what lies below + (1 - lam) * the partner's;
    - is filled (3) with one value, and leaves the target as it is.

    A partner is a sample of the batch, or, from B on, of a second batch that :func:`paint` is given. Its pixels are
    those in the box, or those in the patch's source, a rectangle of the partner that is resized to the box: row
    ``sy0 + (y - y0) * (sy1 - sy0) // (y1 - y0)``, and columns alike. (That is ``F.interpolate(mode="nearest")`` of the
    rectangle, but for a few sizes, 4 of 128 from 128 for instance, where torch's float scale is off by one row.)

    A mask (h, w) says how much of what lies below is left within the box: True or 1 all of it, False or 0 nothing. It
    is of the whole image, pixel (y, x) reads cell ``(y * h // height, x * w // width)``; so one of the size of the
    images is of pixels, and a smaller one is of patches of them. Of a blended patch what is left is
    ``mask + (1 - mask) * lam``. One of (C, h, w) says so of each channel, the second dimension of the images.

    Masks of bool, boxes and sources move pixels of any dtype. What is blended, by lam or by a mask of floats, is
    computed in float32 (float64 of float64), and rounded once, whatever number of patches; it has to be of a dtype that
    mixup blends.

    The weight of a label in a sample's target is the share of the sample's pixels that are its, exact for masks of
    bool, and the mean over the channels where masks tell them apart; or what ``weights`` says.

    Made by the transforms with ``return_plan=True``, by :meth:`from_boxes`, :meth:`from_masks` and :meth:`from_plan`.

    Attributes:
        rows: int32 (N, P, 8), a row a patch: partner, y0, x0, y1, x1, the bits of lam as float32, kind, and the
            number of its mask from 1, or 0 for none.
        height: pixels, of the images the plan was made for; at most 32768, as width.
        width: pixels.
        sources: int32 (N, P, 4): y0, x0, y1, x1 in the partner; None for the boxes.
        masks: bool or float32 (M, h, w), or (M, C, h, w), a mask for each channel of the images; or None.
        weights: float32 (N, 1 + P) in [0, 1], the share of its own label and of each patch's partner's in a sample's
            target; None for the shares of the pixels. Those of patches that are kept or filled do not count.
    """

    rows: Tensor
    height: int
    width: int
    sources: Tensor | None = None
    masks: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        _check_part("rows", self.rows, (torch.int32,), (3,))
        samples, patches, columns = self.rows.shape
        if columns != PLAN_COLUMNS or not 1 <= patches <= MOST_PATCHES:
            raise ValueError(
                f"rows must be of shape (samples, patches, {PLAN_COLUMNS}), of 1 to {MOST_PATCHES} patches, got "
                f"{tuple(self.rows.shape)}"
            )
        _check_sides(self.height, self.width)
        for name, dtypes, shape in (
            ("sources", (torch.int32,), (samples, patches, 4)),
            ("masks", (torch.bool, torch.float32), None),
            ("weights", (torch.float32,), (samples, 1 + patches)),
        ):
            part = getattr(self, name)
            if part is None:
                continue
            _check_part(name, part, dtypes, (3, 4) if shape is None else (len(shape),))
            if shape is not None and tuple(part.shape) != shape:
                raise ValueError(f"{name} must be of shape {shape}, got {tuple(part.shape)}")
            if part.device != self.rows.device:
                raise ValueError(f"{name} must be on the device of rows, {self.rows.device}, got {part.device}")
        if self.masks is not None:
            _check_cells(self.masks, self.height * self.width)
        for name in ("rows", "sources", "masks", "weights"):
            object.__setattr__(self, name, plain(getattr(self, name)))

    @classmethod
    def _unchecked(
        cls,
        rows: Tensor,
        height: int,
        width: int,
        sources: Tensor | None = None,
        masks: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> PatchPlan:
        plan = object.__new__(cls)
        parts = {"rows": rows, "height": height, "width": width, "sources": sources, "masks": masks, "weights": weights}
        for name, part in parts.items():
            object.__setattr__(plan, name, part)
        return plan

    def __reduce__(self) -> tuple[object, ...]:
        return PatchPlan, (self.rows, self.height, self.width, self.sources, self.masks, self.weights)

    def __len__(self) -> int:
        return self.rows.shape[0]

    @property
    def partner(self) -> Tensor:
        """int32 (N, P): the index of the sample that a patch's pixels come from; from B on in the second batch."""
        return self.rows[:, :, 0]

    @property
    def boxes(self) -> Tensor:
        """int32 (N, P, 4): y0, x0, y1, x1 in pixels, half open; empty when y0 == y1 or x0 == x1."""
        return self.rows[:, :, 1:5]

    @property
    def lam(self) -> Tensor:
        """float32 (N, P): of blended patches, the weight of what lies below."""
        return self.rows[:, :, 5].view(torch.float32)

    @property
    def kind(self) -> Tensor:
        """int32 (N, P): 0 the patch is kept, 1 pasted, 2 blended, 3 filled with one value."""
        return self.rows[:, :, 6]

    @property
    def device(self) -> torch.device:
        return self.rows.device

    @property
    def _patches(self) -> Patches:
        return Patches(self.rows, self.sources, self.masks, self.weights)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PatchPlan:
        """The plan on another device."""
        rows, *rest = (part if part is None else part.to(device, non_blocking=non_blocking) for part in self._patches)
        assert rows is not None
        return PatchPlan(rows, self.height, self.width, *rest)

    def shares(self) -> Tensor:
        """The weight of its own label and of each patch's partner's in a sample's target: the weights, or the shares of
        its pixels.

        Returns:
            float32 (N, 1 + P), on the device of the plan. Of a sample whose rows lead outside the image, NaN.
        """
        every = 2**31 - 1  # samples: whose they are does not matter here
        valid = valid_samples(self._patches, every, self.height, self.width)
        parts = reference_patches.shares(self._patches, valid, self.height, self.width)
        return torch.where(valid[:, None], parts, torch.nan)

    @classmethod
    def from_boxes(
        cls,
        partner: Tensor,
        boxes: Tensor,
        height: int,
        width: int,
        *,
        sources: Tensor | None = None,
        masks: Tensor | None = None,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        lam: Tensor | None = None,
        kind: Tensor | None = None,
    ) -> PatchPlan:
        """A plan made by hand.

        >>> partner = torch.tensor([[1], [2], [3], [0]])
        >>> small = torch.tensor([4, 4, 12, 12]).expand(4, 1, 4)
        >>> whole = torch.tensor([0, 0, 16, 16]).expand(4, 1, 4)
        >>> PatchPlan.from_boxes(partner, small, 16, 16, sources=whole).shares()[0]  # as ResizeMix
        tensor([0.7500, 0.2500])

        Args:
            partner: integers (N, P), each in 0..B-1, or, of a second batch of B2, in B..B+B2-1.
            boxes: integers (N, P, 4): y0, x0, y1, x1 in pixels, half open, inside the image.
            height: pixels.
            width: pixels.
            sources: integers (N, P, 4), the rectangles of the partners that fill the boxes; by default the boxes.
            masks: bool or floats (M, h, w), what is left of what lies below; or (M, C, h, w), of each channel.
            mask: integers (N, P), the index of each patch's mask, -1 for none; by default, of M = N masks i of sample
                i, of M = N * P masks each patch its own.
            weights: floats (N, 1 + P) in [0, 1], of the target; by default the shares of the pixels.
            lam: floats (N, P) in [0, 1], the weight of what lies below blended patches.
            kind: integers (N, P), as :attr:`kind`; by default 1 everywhere, a box is pasted.

        Returns:
            A plan on the device of partner.

        Raises:
            TypeError: an argument is not a tensor, or not of a dtype that will do.
            ValueError: a shape or a device is wrong, lam is missing where kind blends (on the CPU), or, on the CPU, a
                row leads outside the image. On a GPU, where looking would make the host wait, such a sample is left as
                it was and its target is NaN.
        """
        check_integers("partner", partner)
        if partner.dim() != 2:
            raise ValueError(f"partner must be of shape (samples, patches), got {tuple(partner.shape)}")
        samples, patches = partner.shape
        if kind is None:
            kind = torch.full_like(partner, int(Kind.cutmix))
        integers = {"boxes": (boxes, (4,)), "sources": (sources, (4,)), "mask": (mask, ()), "kind": (kind, ())}
        for name, (tensor, last) in integers.items():
            if tensor is None:
                continue
            check_integers(name, tensor)
            check_beside(name, tensor, (samples, patches, *last), partner)
        if masks is not None:
            masks = _as_masks(masks)
            if mask is None:
                mask = _default_masks(len(masks), samples, patches, partner.device)
        elif mask is not None:
            raise ValueError("masks must be given with mask, got None")
        if lam is None:
            if _validation.has_values(kind) and blends(kind).any():
                raise ValueError("lam must be given where kind is 2, of patches that are blended")
            lam = torch.ones(partner.shape, device=partner.device)
        for name, floats, shape in (("lam", lam, (samples, patches)), ("weights", weights, (samples, 1 + patches))):
            if floats is None:
                continue
            if not isinstance(floats, Tensor) or not floats.is_floating_point():
                raise TypeError(f"{name} must be a float tensor, got {floats!r}")
            check_beside(name, floats, shape, partner)

        def number(tensor: Tensor) -> Tensor:
            """Saturated, not wrapped: what leads outside still does as int32."""
            return plain(tensor).long().clamp(-1, 2**31 - 1).to(torch.int32)

        numbers = torch.zeros_like(partner) if mask is None else number(mask).clamp(max=2**31 - 2) + 1
        columns = [
            number(partner),
            *number(boxes).unbind(2),
            plain(lam).to(torch.float32).contiguous().view(torch.int32),
            number(kind),
            numbers.to(torch.int32),
        ]
        rows = torch.stack(columns, dim=2)
        weights = None if weights is None else plain(weights).to(torch.float32)
        plan = cls(rows, height, width, None if sources is None else number(sources), masks, weights)
        plan.check()
        return plan

    @classmethod
    def from_masks(
        cls,
        masks: Tensor,
        partner: Tensor,
        height: int,
        width: int,
        *,
        weights: Tensor | None = None,
        partner_weight: Tensor | None = None,
    ) -> PatchPlan:
        """A plan that pastes one partner by a mask: sample i where its mask is True or 1, its partner elsewhere.

        >>> masks = torch.rand(4, 4, 4) > 0.5  # a cell for 4 x 4 pixels
        >>> plan = PatchPlan.from_masks(masks, torch.tensor([1, 2, 3, 0]), height=16, width=16)
        >>> torch.equal(plan.shares()[:, 0], masks.float().mean(dim=(1, 2)))
        True

        Args:
            masks: bool or floats (N, h, w): the weight of a sample's own pixels; or (N, C, h, w), of each channel.
            partner: integers (N,), as for :meth:`from_boxes`.
            height: pixels.
            width: pixels.
            weights: floats (N, 2) in [0, 1], of the own and the partner's label; by default the shares of the pixels.
            partner_weight: floats (N,), short for weights of 1 - partner_weight and partner_weight.

        Returns:
            A plan on the device of partner.

        Raises:
            TypeError, ValueError: as :meth:`from_boxes`.
        """
        check_integers("partner", partner)
        if partner.dim() != 1:
            raise ValueError(f"partner must be of shape (samples,), got {tuple(partner.shape)}")
        masks = _as_masks(masks)
        if masks.shape[0] != partner.shape[0]:
            raise ValueError(f"masks must be one a sample, {partner.shape[0]}, got {masks.shape[0]}")
        if partner_weight is not None:
            if weights is not None:
                raise ValueError("weights must be None where partner_weight is given")
            weights = torch.stack([1.0 - partner_weight, partner_weight], dim=1)
        box = torch.tensor([0, 0, height, width], device=partner.device)
        boxes = box.expand(partner.shape[0], 1, 4)
        return cls.from_boxes(partner[:, None], boxes, height, width, masks=masks, weights=weights)

    @classmethod
    def from_plan(cls, plan: MixPlan, *, clean: bool = False) -> PatchPlan:
        """A :class:`MixPlan` as a plan of one patch a sample, which does the same.

        >>> plan = sample_plan(4, 16, 16, seed=0)
        >>> torch.equal(paint(images, None, PatchPlan.from_plan(plan))[0], mix_images(images, plan))
        True

        Args:
            plan: of B samples.
            clean: make 2 B samples, the batch as it is and behind it the mixed one, as RegMixup (Pinto et al., 2022).

        Returns:
            A plan whose targets are weighted by lam.

        Raises:
            TypeError: plan is no MixPlan.
        """
        if not isinstance(plan, MixPlan):
            raise TypeError(f"plan must be a MixPlan, got {type(plan).__name__}")
        whole = torch.tensor([0, 0, plan.height, plan.width], dtype=torch.int32, device=plan.device)
        boxes = torch.where(has_box(plan.kind)[:, None], plan.boxes, whole)
        rows = torch.cat([plan.packed[:, :1], boxes, plan.packed[:, 5:]], dim=1)[:, None]
        weights = torch.stack([plan.lam, 1.0 - plan.lam], dim=1)
        if clean:
            rows = torch.cat([torch.zeros_like(rows), rows])
            weights = torch.cat([torch.tensor([1.0, 0.0], device=plan.device).expand(weights.shape), weights])
        return cls(rows, plan.height, plan.width, weights=weights)

    def head(self, samples: int) -> PatchPlan:
        """The plan of the first samples alone: of half a batch, say, whose partners are all of it.

        >>> PatchPlan.from_plan(sample_plan(4, 16, 16)).head(2)
        PatchPlan(samples=2, patches=1, height=16, width=16, device='cpu')

        Raises:
            TypeError, ValueError: samples is not a whole number, negative, or more than there are.
        """
        _validation.check_size("samples", samples, len(self))
        sources, weights = (part if part is None else part[:samples] for part in (self.sources, self.weights))
        return PatchPlan(self.rows[:samples], self.height, self.width, sources, self.masks, weights)

    def mix_boxes(
        self,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor] | None = None,
        *,
        others: int = 0,
        min_visible: float = 0.0,
    ) -> MixedBoxes:
        """The objects of the painted images, for detection: what is left of their own, joined by what patches bring.

        Objects of a partner move with the source that they lie in, and are as much larger or smaller as it becomes. Of
        what other patches or masks leave of an object its box becomes the bounds. Boxes of which nothing is visible are
        dropped.

        Args:
            boxes: for each sample, floats (n, 4): x0, y0, x1, y1 in pixels, as for :meth:`MixPlan.mix_boxes`; those of
                a second batch behind those of the first.
            labels: for each sample, (n,), of any dtype.
            others: how many of the lists are of a second batch.
            min_visible: drop boxes of whose area less than this fraction is visible, in [0, 1].

        Returns:
            The objects of each of the N images, its own first, in new lists. The weight of an object is the mean of its
            visible pixels', less than 1 where it is blended.

        Raises:
            TypeError, ValueError: as :meth:`MixPlan.mix_boxes`, or a partner has no list.

        The plan is looked at on the CPU: where it is on a GPU, this makes the host wait.
        """
        plan = self.to("cpu")
        plan.check(len(boxes) if isinstance(boxes, Sequence) else None)
        _validation.check_size("others", others, max(len(boxes) - 1, 0))
        return mix_patch_boxes(plan._patches, self.height, self.width, boxes, labels, others, min_visible)

    def check(self, samples: int | None = None, can_blend: bool = True, *, in_place: bool = False) -> None:
        """Raises ValueError where a row leads outside the image, or a batch of so many samples and others, or, in
        place, where samples do not exchange pixels in pairs.

        Looks only at plans on the CPU: on a GPU looking would make the host wait, and the kernels guard themselves.
        """
        if not _validation.has_values(self.rows):
            return
        every = 2**31 - 1 if samples is None else samples
        valid = valid_samples(self._patches, every, self.height, self.width)
        if valid.all():
            if not (can_blend or valid_samples(self._patches, every, self.height, self.width, False).all()):
                raise TypeError(
                    "images must be of a dtype that mixup blends for a plan with blended patches or masks of floats"
                )
            if in_place:
                self._check_in_place()
            return
        sample = int((~valid).nonzero()[0])
        among = "" if samples is None else f" in 0..{samples - 1}"
        masks = 0 if self.masks is None else self.masks.shape[0]
        sources = "" if self.sources is None else f", sources {self.sources[sample].tolist()}"
        weights = "" if self.weights is None else f", weights {self.weights[sample].tolist()}"
        raise ValueError(
            f"plan must have partners{among}, boxes 0 <= y0 <= y1 <= {self.height}, 0 <= x0 <= x1 <= {self.width}, "
            f"lam in [0, 1], kind in 0..{KINDS}, masks in 0..{masks - 1}, sources alike, which are not empty where a "
            f"box is not, and weights in [0, 1]; sample {sample} has partners {self.partner[sample].tolist()}, boxes "
            f"{self.boxes[sample].tolist()}, lam {self.lam[sample].tolist()}, kind {self.kind[sample].tolist()}, masks "
            f"{(self.rows[sample, :, 7] - 1).tolist()}{sources}{weights}"
        )

    def _check_in_place(self) -> None:
        bad = ~reference_patches.valid_in_place(self._patches)
        if bad.any():
            sample = int(bad.nonzero()[0])
            sources = "" if self.sources is None else f" and sources {self.sources[sample].tolist()}"
            raise ValueError(
                "in place, plan must have patches that are filled, or pasted and blended in pairs (all patches of a "
                "sample with one partner, whose patches all have it as theirs, and sources that are the boxes); "
                f"sample {sample} has partners {self.partner[sample].tolist()}, boxes {self.boxes[sample].tolist()}"
                f"{sources}"
            )

    def __repr__(self) -> str:
        samples, patches, _ = self.rows.shape
        return (
            f"PatchPlan(samples={samples}, patches={patches}, height={self.height}, width={self.width}, "
            f"device={str(self.device)!r})"
        )


register(PatchPlan, ("rows", "height", "width", "sources", "masks", "weights"), PatchPlan._unchecked)


def _check_part(name: str, part: Tensor, dtypes: Sequence[torch.dtype], dims: Sequence[int]) -> None:
    if not isinstance(part, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(part).__name__}")
    _validation.check_dense(name, part)
    if part.dtype not in dtypes or part.dim() not in dims:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        many = " or ".join(map(str, dims))
        raise ValueError(f"{name} must be {names} of {many} dimensions, got {part.dtype} of shape {tuple(part.shape)}")


def _check_cells(masks: Tensor, pixels: int) -> None:
    """Raises unless masks have as many cells, and channels, as the kernels can count the weights of."""
    if not all(1 <= side <= LONGEST_SIDE for side in masks.shape[-2:]):
        raise ValueError(f"masks must be of 1 to {LONGEST_SIDE} cells a side, got {tuple(masks.shape)}")
    if masks.dim() == 4 and not 1 <= masks.shape[1] <= MOST_MASKED_PIXELS // max(pixels, 1):
        raise ValueError(
            f"masks must be of 1 channel or more, and for at most {MOST_MASKED_PIXELS} pixels of all channels, got "
            f"{masks.shape[1]} channels of {pixels} pixels"
        )


def _as_masks(masks: Tensor) -> Tensor:
    """Masks as the ops take them: bool or float32."""
    if not isinstance(masks, Tensor):
        raise TypeError(f"masks must be a tensor, got {type(masks).__name__}")
    if masks.dim() not in (3, 4):
        raise ValueError(f"masks must be of shape (masks, h, w) or (masks, channels, h, w), got {tuple(masks.shape)}")
    if masks.dtype != torch.bool and not masks.is_floating_point():
        raise TypeError(f"masks must be bool or floats, what is left of what lies below, got {masks.dtype}")
    if masks.requires_grad:
        raise ValueError("masks must not require grad, because mixing has no autograd formula; pass masks.detach()")
    return plain(masks) if masks.dtype == torch.bool else plain(masks).to(torch.float32)


def _default_masks(masks: int, samples: int, patches: int, device: torch.device) -> Tensor:
    index = torch.arange(samples * patches, device=device).reshape(samples, patches)
    if masks == samples * patches:
        return index
    if masks == samples:
        return index // patches
    raise ValueError(
        f"mask must be given where masks are neither one a sample, {samples}, nor one a patch, {samples * patches}; "
        f"got {masks} of them"
    )


def _check_others(images: Tensor, others: Tensor, labels: Tensor | None, other_labels: Tensor | None) -> None:
    """Raises unless a second batch is like the first."""
    _validation.check_images(others, "others")
    for name in ("dtype", "device"):
        given, wanted = getattr(others, name), getattr(images, name)
        if given != wanted:
            raise ValueError(f"others must have the {name} of images, {wanted}, got {given}")
    if others.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"others must be samples like images, of shape {tuple(images.shape[1:])}, got {tuple(others.shape[1:])}"
        )
    if (labels is None) != (other_labels is None):
        raise ValueError("other_labels must be given where labels and others are, and not otherwise")


def _check_labels(
    labels: Tensor | None,
    other_labels: Tensor | None,
    num_classes: int | None,
    batch: int,
    others: int,
    device: torch.device,
) -> int:
    """The number of classes, after every check of the labels of both batches."""
    classes = _validation.check_labels(labels, num_classes, batch, device)
    if other_labels is not None and labels is not None:
        _validation.check_labels_tensor(other_labels, "other_labels")
        if other_labels.dtype != labels.dtype:
            raise ValueError(f"other_labels must be of the dtype of labels, {labels.dtype}, got {other_labels.dtype}")
        _validation.check_labels(other_labels, classes, others, device, name="other_labels")
    return classes


def check_patch_plan(plan: PatchPlan, samples: int, device: torch.device, what: str) -> None:
    """Raises unless a plan can be followed for so many samples and others."""
    if not isinstance(plan, PatchPlan):
        raise TypeError(f"plan must be a PatchPlan, got {type(plan).__name__}")
    check_plan_device(plan, device, what)
    if samples == 0 and len(plan) > 0:
        raise ValueError(f"{what} must not be empty for a plan of {len(plan)} samples")


def follow_patches(
    images: Tensor,
    labels: Tensor | None,
    plan: PatchPlan,
    num_classes: int | None,
    *,
    others: Tensor | None = None,
    other_labels: Tensor | None = None,
    fill: float,
    label_smoothing: float,
    target_dtype: torch.dtype,
    inplace: bool = False,
    out: Tensor | None = None,
    backend: str | None,
) -> tuple[Tensor, Tensor | None]:
    """Paints and writes dense targets in one launch. Everything is checked before anything is written."""
    given, images, labels, others = images, plain(images), plain(labels), plain(others)
    other_labels = plain(other_labels)
    _validation.check_images(images)
    if others is not None:
        _check_others(images, others, labels, other_labels)
    elif other_labels is not None:
        raise ValueError("others must be given with other_labels, got None")
    batch, second = images.shape[0], 0 if others is None else others.shape[0]
    check_patch_plan(plan, batch, images.device, "images")
    check_plan_size(plan, images)
    masks = plan.masks
    if masks is not None and masks.dim() == 4 and (images.dim() < 4 or images.shape[1] != masks.shape[1]):
        raise ValueError(
            "masks of shape (masks, channels, h, w) must be of the channels of images (B, channels, ..., H, W), got "
            f"{tuple(masks.shape)} for {tuple(images.shape)}"
        )
    pixels = plain(classes_of(given))
    if inplace and plan.rows.shape[0] != batch:  # len() would make a symbol of a graph one number
        raise ValueError(f"in place, plan must be of the {batch} samples of images, got one of {len(plan)}")
    plan.check(batch + second, pixels.dtype in BLENDED_DTYPES, in_place=inplace)
    classes = _check_labels(labels, other_labels, num_classes, batch, second, images.device)
    smoothing = _validation.check_share("label_smoothing", label_smoothing)
    dtype = _validation.check_target_dtype("target_dtype", target_dtype)
    ops = _backends.ops_for(backend, images.device)
    words = fill_words(check_fill(fill), images.dtype)
    as_pixels = pixels.dtype == images.dtype
    second_pixels = others if as_pixels or others is None else others.view(pixels.dtype)
    rest = (*plan._patches, classes, smoothing, dtype)
    arguments = (pixels, second_pixels, labels, other_labels, *rest)
    if inplace:
        _validation.check_in_place(images)
        if masks is not None:
            _validation.check_apart(images, masks, "masks", written_name="images")
        mixed, targets = given, ops.paint_(pixels, labels, *rest, words)
    elif out is not None:
        _validation.check_out_like(out, images, None, torch.Size((len(plan), *images.shape[1:])))
        _validation.check_apart(out, images, "images")
        if others is not None:
            _validation.check_apart(out, others, "others")
        if masks is not None:
            _validation.check_apart(out, masks, "masks")
        written = plain(out) if as_pixels else plain(out).view(pixels.dtype)
        mixed, targets = out, ops.paint_out(*arguments, written, words)
    else:
        mixed, targets = ops.paint(*arguments, words)
        mixed = of_class(mixed if as_pixels else mixed.view(images.dtype), given)
    if inplace or out is not None:
        _mark_written(mixed)
    return mixed, None if labels is None else targets


def paint(
    images: Tensor,
    labels: Tensor | None,
    plan: PatchPlan,
    num_classes: int | None = None,
    *,
    others: Tensor | None = None,
    other_labels: Tensor | None = None,
    fill: float = 0.0,
    label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
    backend: BackendName | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Images and targets by a plan of several patches, in one launch: :func:`apply_plan` for a :class:`PatchPlan`.

    >>> masks = torch.rand(4, 16, 16) > 0.5
    >>> plan = PatchPlan.from_masks(masks, torch.tensor([3, 2, 1, 0]), height=16, width=16)
    >>> mixed, targets = paint(images, labels, plan, 10)

    Args:
        images: (B, ..., H, W) of any dtype, H and W those of the plan. Not changed. Blended patches and masks of floats
            need uint8, float16, bfloat16, float32 or float64.
        labels: class indices of any integer dtype, (B,); or soft labels, float (B, K); or None, without targets.
        plan: on the device of the images, of any number N of samples.
        num_classes: K, needed with class indices.
        others: a second batch (B2, ..., H, W) of the same dtype, whose samples are the partners from B on; nothing is
            concatenated.
        other_labels: the labels of the others, like labels.
        fill: what filled patches are filled with, a value of the images' dtype.
        label_smoothing: s in [0, 1], before mixing: y * (1 - s) + s / K.
        target_dtype: float32, float16, bfloat16 or float64.
        out: (N, ..., H, W) to write to, of the dtype of images, which must not overlap them.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Returns:
        Images (N, ..., H, W), and targets (N, K) or None. A class's part of a target is the sum over its own and
        its patches' partners' labels, each weighted by its share of the sample's pixels or by the plan's weights.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was written. On a GPU, where looking would make the host
            wait, a sample one of whose rows leads outside is left as it was instead, and its target is NaN.
        RuntimeError: the backend asked for is not available.
    """
    return follow_patches(
        images,
        labels,
        plan,
        num_classes,
        others=others,
        other_labels=other_labels,
        fill=fill,
        label_smoothing=label_smoothing,
        target_dtype=target_dtype,
        out=out,
        backend=backend,
    )


def paint_(
    images: Tensor,
    labels: Tensor | None,
    plan: PatchPlan,
    num_classes: int | None = None,
    *,
    fill: float = 0.0,
    label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32,
    backend: BackendName | None = None,
) -> tuple[Tensor, Tensor | None]:
    """:func:`paint` in place: writes only what is in the boxes.

    >>> masks = torch.rand(4, 16, 16) > 0.5
    >>> plan = PatchPlan.from_masks(masks, torch.tensor([3, 2, 1, 0]), height=16, width=16)
    >>> mixed, targets = paint_(images, labels, plan, 10)
    >>> mixed is images
    True

    The arguments are those of :func:`paint`. Samples exchange pixels in pairs: all patches of a sample have one
    partner, whose patches all have it as theirs, and sources, if there are any, are the boxes. A sample of which all
    patches are filled or kept, as with holes, needs no partner. The plan is of as many samples as there are images,
    which must not overlap themselves in memory (an expanded view does), nor the masks.

    Returns:
        (images, targets), as :func:`paint`; the images are those given, painted.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`paint`, or, on the CPU, samples do not exchange pixels in pairs.
            On a GPU, where looking would make the host wait, a sample that does not is left as it was instead, and its
            target is NaN.
    """
    return follow_patches(
        images,
        labels,
        plan,
        num_classes,
        fill=fill,
        label_smoothing=label_smoothing,
        target_dtype=target_dtype,
        inplace=True,
        backend=backend,
    )


def paint_targets(
    labels: Tensor,
    plan: PatchPlan,
    num_classes: int | None = None,
    *,
    other_labels: Tensor | None = None,
    label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32,
    backend: BackendName | None = None,
) -> Tensor:
    """The targets of :func:`paint` alone, for a teacher's probabilities, say.

    >>> plan = PatchPlan.from_plan(sample_plan(4, 16, 16, seed=0))
    >>> paint_targets(torch.rand(4, 10).softmax(dim=1), plan).shape
    torch.Size([4, 10])

    Args:
        labels: class indices of any integer dtype, (B,), or soft labels, float (B, K).
        plan: on the device of the labels.
        num_classes, other_labels, label_smoothing, target_dtype, backend: as for :func:`paint`.

    Returns:
        (N, K) of target_dtype.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`paint`.
    """
    if labels is None:
        raise TypeError("labels must be a tensor, got None")
    labels, other_labels = plain(labels), plain(other_labels)
    _validation.check_labels_tensor(labels)
    batch, second = labels.shape[0], 0 if other_labels is None else other_labels.shape[0]
    check_patch_plan(plan, batch, labels.device, "labels")
    classes = _check_labels(labels, other_labels, num_classes, batch, second, labels.device)
    plan.check(batch + second)
    smoothing = _validation.check_share("label_smoothing", label_smoothing)
    dtype = _validation.check_target_dtype("target_dtype", target_dtype)
    ops = _backends.ops_for(backend, labels.device)
    rows, _, masks, weights = plan._patches
    sizes = plan.height, plan.width, classes
    return ops.paint_targets(labels, other_labels, rows, masks, weights, *sizes, smoothing, dtype)


def mix_by_masks(
    images: Tensor,
    labels: Tensor | None,
    masks: Tensor,
    num_classes: int | None = None,
    *,
    partner: Tensor | None = None,
    weights: Tensor | None = None,
    others: Tensor | None = None,
    other_labels: Tensor | None = None,
    label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
    backend: BackendName | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Pastes each sample's partner where its mask says so, whoever made the masks: a model's attention, say.

    >>> attention = torch.rand(4, 4, 4)  # of patches of 4 x 4 pixels
    >>> mixed, targets = mix_by_masks(images, labels, attention < 0.7, 10)

    Args:
        images, labels, num_classes: as for :func:`paint`.
        masks: bool or floats (N, h, w), the weight of a sample's own pixels; a mask of h x w cells covers the image. Or
            (N, C, h, w), a mask for each channel of images (N, C, ..., H, W), whose mean weighs the labels.
        partner: integers (N,), whose pixels are pasted; by default those of the sample before, as torchvision.
        weights: floats (N, 2) in [0, 1], of the own and the partner's label; by default the shares of the pixels.
        others, other_labels, label_smoothing, target_dtype, out, backend: as for :func:`paint`.

    Returns:
        Images and targets, as :func:`paint`.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`paint` and :meth:`PatchPlan.from_masks`.
    """
    _validation.check_images(plain(images))
    if partner is None:
        partner = torch.arange(images.shape[0], device=images.device).roll(1)
    plan = PatchPlan.from_masks(masks, partner, *images.shape[-2:], weights=weights)
    return paint(
        images,
        labels,
        plan,
        num_classes,
        others=others,
        other_labels=other_labels,
        label_smoothing=label_smoothing,
        target_dtype=target_dtype,
        out=out,
        backend=backend,
    )


def mix_by_masks_(
    images: Tensor,
    labels: Tensor | None,
    masks: Tensor,
    num_classes: int | None = None,
    *,
    partner: Tensor,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32,
    backend: BackendName | None = None,
) -> tuple[Tensor, Tensor | None]:
    """:func:`mix_by_masks` in place.

    >>> partner = torch.tensor([3, 2, 1, 0])
    >>> mixed, targets = mix_by_masks_(images, labels, torch.rand(4, 8, 8) < 0.7, 10, partner=partner)
    >>> mixed is images
    True

    Args:
        images, labels, masks, num_classes, weights, label_smoothing, target_dtype, backend: as for
            :func:`mix_by_masks`.
        partner: integers (N,), its own inverse: ``partner[partner[i]] == i``.

    Returns:
        (images, targets), as :func:`paint`; the images are those given, mixed.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`paint_` and :meth:`PatchPlan.from_masks`.
    """
    _validation.check_images(plain(images))
    plan = PatchPlan.from_masks(masks, partner, *images.shape[-2:], weights=weights)
    return paint_(
        images,
        labels,
        plan,
        num_classes,
        label_smoothing=label_smoothing,
        target_dtype=target_dtype,
        backend=backend,
    )


def run_patches(
    images: Tensor,
    labels: Tensor | None,
    num_classes: int | None,
    settings: PatchSettings,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    inplace: bool,
    out: Tensor | None,
    backend: str | None,
) -> tuple[Tensor, Tensor | PairTargets | None, PatchPlan]:
    """Draws patches, paints and writes dense targets in one launch: images, targets and the plan.

    Everything is checked before anything is written.
    """
    given, images, labels = images, plain(images), plain(labels)
    _validation.check_images(images)
    if settings.blends:
        _validation.check_blends(given)
    device, (height, width) = images.device, images.shape[-2:]
    _check_sides(height, width)
    op_labels, classes = _labels_of_op(labels, num_classes, images.shape[0], device, settings.targets)
    fill = fill_words(settings.fill, images.dtype)
    ops = _backends.ops_for(backend, device)
    if inplace:
        _validation.check_in_place(images)
    elif out is not None:
        _validation.check_out(out, images)
    arguments = (
        op_labels,
        seed_tensor(seed, generator, device, like=images),
        quantiles(settings.distributions, device, PATCH_METHODS),
        settings.bounds,
        settings.sampling,
        classes,
        settings.label_smoothing,
        settings.target_dtype,
    )
    if inplace:
        mixed = given
        dense, rows, sources = ops.sample_and_paint_(images, *arguments, fill)
    elif out is not None:
        mixed = out
        dense, rows, sources = ops.sample_and_paint_out(images, *arguments, plain(out), fill)
    else:
        mixed, dense, rows, sources = ops.sample_and_paint(images, *arguments, fill)
        mixed = of_class(mixed, given)
    if inplace or out is not None:
        _mark_written(mixed)
    plan = PatchPlan._unchecked(rows, height, width, sources)
    if labels is None:
        return mixed, None, plan
    # Without ricap there is at most one patch that mixes the target, the first.
    return mixed, dense if op_labels is not None else pairs_of(labels, rows[:, 0]), plan


def draw_patches(
    batch_size: int,
    height: int,
    width: int,
    settings: PatchSettings,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    device: torch.device | str | None,
    backend: str | None,
) -> PatchPlan:
    """The plan that :func:`run_patches` with the same arguments would follow."""
    sizes = _validation.check_size("batch_size", batch_size, _validation.MAX_BATCH), *_check_sides(height, width)
    tables = quantiles(settings.distributions, torch.empty(0, device=device).device, PATCH_METHODS)
    ops = _backends.ops_for(backend, tables.device)
    drawn = seed_tensor(seed, generator, tables.device)
    rows, sources = ops.sample_patches(drawn, tables, settings.bounds, settings.sampling, *sizes)
    return PatchPlan._unchecked(rows, height, width, sources)


def _check_sides(height: int, width: int) -> tuple[int, int]:
    return (
        _validation.check_size("height", height, LONGEST_SIDE),
        _validation.check_size("width", width, LONGEST_SIDE),
    )


def draw_masks(
    batch_size: int,
    height: int,
    width: int,
    settings: MaskSettings,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    device: torch.device | str | None,
) -> PatchPlan:
    """A plan of one masked patch a sample, by torch's operations on the device."""
    _validation.check_size("batch_size", batch_size, _validation.MAX_BATCH)
    _check_sides(height, width)
    table = quantiles((settings.distribution,), torch.empty(0, device=device).device)[0]
    drawn = seed_tensor(seed, generator, table.device).to(table.device).reshape(1)
    index = torch.arange(batch_size, device=table.device)
    if batch_size == 0 or height * width == 0:
        rows = torch.zeros((batch_size, 1, PLAN_COLUMNS), dtype=torch.int32, device=table.device)
        return PatchPlan._unchecked(rows, height, width)
    partner = reference.partner_of(reference.partner_map(settings.partner, drawn, batch_size), index, batch_size)
    word_lam, _, _, word_kept = reference.philox(drawn, index, reference_patches.PER_PATCH)
    number = reference.unit_float(word_kept)
    mixed = (number < torch.full_like(number, settings.prob)) & (partner != index)
    masks = fmix(reference.quantile(table, word_lam), height, width, decay=settings.decay, seed=drawn)
    zero = torch.zeros_like(index)
    kind = torch.where(mixed, int(Kind.cutmix), int(Kind.keep))
    one = torch.ones(batch_size, device=table.device).view(torch.int32)
    columns = [partner, zero, zero, zero + height, zero + width, one, kind, index + 1]
    rows = torch.stack([column.to(torch.int32) for column in columns], dim=1)[:, None]
    return PatchPlan._unchecked(rows, height, width, None, masks)
