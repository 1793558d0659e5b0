"""The plan: for each sample, whose pixels to paste, where, and with which weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import _validation, reference
from ._ops import BLENDED_DTYPES, KINDS, PLAN_COLUMNS, Kind
from ._serialization import register
from ._tensors import plain
from ._tv_tensors import is_tv_tensor
from .boxes import MixedBoxes, mix_boxes

if TYPE_CHECKING:
    from .patch_plan import PatchPlan


@dataclass(frozen=True, eq=False)
class MixPlan:
    """A mixing plan for a batch of images of one height and width.

    >>> mixed, _, plan = cutmix(images, return_plan=True)
    >>> mixed_masks = mix_images(torch.randint(5, (4, 16, 16)), plan)

    Made by :func:`cutmix_cuda.sample_plan`, returned by :func:`cutmix_cuda.cutmix` with ``return_plan=True``, or built
    by hand with :meth:`from_boxes`. The named parts are views of ``packed``.

    Attributes:
        packed: int32 (B, 8), a row a sample: partner, y0, x0, y1, x1, the bits of lam as float32, kind, 0.
        height: pixels, of the images the plan was made for.
        width: pixels.
    """

    packed: Tensor
    height: int
    width: int

    def __post_init__(self) -> None:
        if not isinstance(self.packed, Tensor):
            raise TypeError(f"packed must be a tensor, got {type(self.packed).__name__}")
        _validation.check_dense("packed", self.packed)
        if self.packed.dtype != torch.int32 or self.packed.dim() != 2 or self.packed.shape[1] != PLAN_COLUMNS:
            raise ValueError(
                f"packed must be int32 of shape (batch, {PLAN_COLUMNS}), "
                f"got {self.packed.dtype} of shape {tuple(self.packed.shape)}"
            )
        _validation.check_extent(self.height, self.width)
        object.__setattr__(self, "packed", plain(self.packed))

    @classmethod
    def _unchecked(cls, packed: Tensor, height: int, width: int) -> MixPlan:
        plan = object.__new__(cls)
        for name, part in (("packed", packed), ("height", height), ("width", width)):
            object.__setattr__(plan, name, part)
        return plan

    def __reduce__(self) -> tuple[object, ...]:
        return MixPlan, (self.packed, self.height, self.width)  # so that what is loaded is checked again

    def __len__(self) -> int:
        return self.packed.shape[0]

    @property
    def partner(self) -> Tensor:
        """int32 (B,): the index of the sample that the pixels come from."""
        return self.packed[:, 0]

    @property
    def boxes(self) -> Tensor:
        """int32 (B, 4): y0, x0, y1, x1 in pixels, half open; empty when y0 == y1 or x0 == x1."""
        return self.packed[:, 1:5]

    @property
    def lam(self) -> Tensor:
        """float32 (B,): the weight of the sample's own target; the partner's is 1 - lam. 1 where kept or cut out."""
        return self.packed[:, 5].view(torch.float32)

    @property
    def kind(self) -> Tensor:
        """int32 (B,): what becomes of the sample.

        0 it is kept; 1 a box of its partner is pasted; 2 all of it is blended with its partner (mixup), whatever the
        box; 3 its box is filled with one value and its target kept (cutout).
        """
        return self.packed[:, 6]

    @property
    def device(self) -> torch.device:
        return self.packed.device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MixPlan:
        """The plan on another device."""
        return MixPlan(self.packed.to(device, non_blocking=non_blocking), self.height, self.width)

    def rescaled(self, height: int, width: int, *, correct_lam: bool = False) -> MixPlan:
        """The plan for tensors of another height and width: masks of half the size, feature maps, grids of tokens.

        An edge goes to the nearest one of the new grid, halves up, in integers: ``(edge * new + old // 2) // old``. So
        it is exact where it falls on the new grid; boxes with an edge in common have one again; what is empty stays
        empty and what covers everything still does. A narrow box may become empty on a coarse grid.

        Tokens (B, N, D) of a grid of h x w patches are mixed as ``tokens.transpose(1, 2).unflatten(2, (h, w))``, which
        is (B, D, h, w), by ``plan.rescaled(h, w)``; ``mixed.flatten(2).transpose(1, 2)`` makes tokens of them again.

        Args:
            height: of the other tensors.
            width: of the other tensors.
            correct_lam: take the weight of samples with a pasted box from the fraction that the box covers of the new
                grid. By default lam stays that of the images: a sample has one target, whatever size it is seen at.

        Returns:
            A new plan.

        Raises:
            TypeError, ValueError: height or width is not a whole number, negative, or too large.
        """
        _validation.check_extent(height, width)
        partner, *edges, lam, kind, rest = self.packed.long().unbind(1)
        lines = (self.height, height), (self.width, width)
        edges = [(edge * new + old // 2) // max(old, 1) for edge, (old, new) in zip(edges, lines + lines, strict=True)]
        if correct_lam and height * width > 0:
            share = reference.share_outside(tuple(edges), height, width).view(torch.int32)
            lam = torch.where(reference.has_box(kind) & reference.mixes_target(kind), share.long(), lam)
        # Rounding may bring back into the image what led outside it: such a row is to stay invalid.
        if not (_validation.has_values(self.packed) and _plainly_valid(self.packed, self.height, self.width)):
            partner = torch.where(reference.valid_rows(self.packed, self.height, self.width), partner, -1)
        return MixPlan(torch.stack([partner, *edges, lam, kind, rest], dim=1).to(torch.int32), height, width)

    def mix_boxes(
        self, boxes: Sequence[Tensor], labels: Sequence[Tensor] | None = None, *, min_visible: float = 0.0
    ) -> MixedBoxes:
        """The objects of the mixed images, for detection: what is left of their own, joined by what the patch brings.

        - cutmix: a sample's own boxes shrink to the bounding box of what its patch leaves of them; its partner's are
          clipped to the patch, which is pasted where it was.
        - mixup: its own and its partner's, whole, weighted by lam and 1 - lam; without those of weight 0.
        - cutout: its own shrink to the bounding box of what is left of them.
        - keep: its own.

        Boxes of which nothing is visible are dropped, those without an area or outside the image included: a label
        without an object teaches a detector to see things.

        Args:
            boxes: for each sample, floats (n, 4): x0, y0, x1, y1 in pixels, as torchvision's "xyxy" (COCO's own files
                have x, y, width, height: see torchvision.ops.box_convert), with x0 <= x1, y0 <= y1. What sticks out of
                the image, by rounding for instance, is cut off before anything else and counts for nothing. Not the
                order of :attr:`boxes`, which are y0, x0, y1, x1. ``torchvision.tv_tensors.BoundingBoxes`` of the
                formats XYXY, XYWH and CXCYWH are read as what they are; those that come back are plain tensors of
                x0, y0, x1, y1 all the same.
            labels: for each sample, (n,), of any dtype.
            min_visible: drop boxes of whose area less than this fraction is visible, in [0, 1].

        Returns:
            The objects of each mixed image, its own first, in new lists.

        Raises:
            TypeError: something is not a tensor, or boxes are not floats.
            ValueError: a length, shape or value is wrong, or the format or canvas_size of torchvision's boxes.

        The plan is looked at on the CPU: where it is on a GPU, this makes the host wait.
        """
        plan = self.to("cpu")
        plan.check()
        return mix_boxes(plan.packed, self.height, self.width, boxes, labels, min_visible)

    @classmethod
    def from_boxes(
        cls,
        partner: Tensor,
        boxes: Tensor,
        height: int,
        width: int,
        *,
        lam: Tensor | None = None,
        kind: Tensor | None = None,
    ) -> MixPlan:
        """A plan made by hand.

        >>> boxes = torch.tensor([[0, 0, 8, 16]]).expand(4, 4)  # y0, x0, y1, x1: the upper half
        >>> MixPlan.from_boxes(torch.tensor([1, 0, 3, 2]), boxes, height=16, width=16).lam
        tensor([0.5000, 0.5000, 0.5000, 0.5000])

        Args:
            partner: integers (B,), each in 0..B-1.
            boxes: integers (B, 4): y0, x0, y1, x1 in pixels, half open, inside the image.
            height: pixels.
            width: pixels.
            lam: float (B,) in [0, 1], the weight of the sample's own target; by default the fraction of the image
                outside the box where one is pasted, else 1.
            kind: integers (B,), as :attr:`kind`; by default 1 everywhere, a box is pasted.

        Returns:
            A plan on the device of partner.

        Raises:
            TypeError: an argument is not a tensor, or not of an integer dtype.
            ValueError: a shape is wrong, or, on the CPU, a partner or box leads outside the batch or the image. On a
                GPU, where looking would make the host wait, such a sample is left as it was and its target is NaN.
        """
        check_integers("partner", partner)
        check_integers("boxes", boxes)
        if kind is None:
            kind = torch.full_like(partner, int(Kind.cutmix))
        check_integers("kind", kind)
        if partner.dim() != 1:
            raise ValueError(f"partner must be of shape (batch,), got {tuple(partner.shape)}")
        batch = partner.shape[0]
        check_beside("boxes", boxes, (batch, 4), partner)
        check_beside("kind", kind, (batch,), partner)
        _validation.check_extent(height, width)

        partner, boxes, kind = plain(partner), plain(boxes), plain(kind)
        # Saturated, not wrapped: what leads outside the batch or the image still does as int32.
        partner, kind, *edges = (column.long().clamp(-1, 2**31 - 1) for column in (partner, kind, *boxes.unbind(1)))
        if lam is None:
            share = torch.ones(batch, device=partner.device)
            if height * width > 0:
                outside = reference.share_outside(tuple(edges), height, width)
                share = torch.where(reference.has_box(kind) & reference.mixes_target(kind), outside, share)
        else:
            if isinstance(lam, Tensor):
                _validation.check_dense("lam", lam)
            if not isinstance(lam, Tensor) or not lam.is_floating_point() or tuple(lam.shape) != (batch,):
                raise ValueError(f"lam must be a float tensor of shape ({batch},), got {lam!r}")
            share = plain(lam)
        columns = [
            partner,
            *edges,
            share.to(boxes.device, torch.float32).contiguous().view(torch.int32),
            kind,
            torch.zeros_like(partner),
        ]
        plan = cls(torch.stack([column.to(torch.int32) for column in columns], dim=1), height, width)
        plan.check()
        return plan

    def check(self, *, in_place: bool = False) -> None:
        """Raises ValueError where a row leads outside the batch or the image, or, in place, is not its own inverse.

        Looks only at plans on the CPU: on a GPU looking would make the host wait, and the kernels guard themselves.
        """
        if not _validation.has_values(self.packed):
            return
        if not _plainly_valid(self.packed, self.height, self.width):
            bad = ~reference.valid_rows(self.packed, self.height, self.width)
            if bad.any():
                row = int(bad.nonzero()[0])
                raise ValueError(
                    f"plan must have partners in 0..{len(self) - 1}, boxes 0 <= y0 <= y1 <= {self.height}, "
                    f"0 <= x0 <= x1 <= {self.width}, lam in [0, 1] and kind in 0..3; row {row} has partner "
                    f"{int(self.partner[row])}, box {self.boxes[row].tolist()}, lam {float(self.lam[row])}, "
                    f"kind {int(self.kind[row])}"
                )
        if in_place:
            bad = ~reference.involutive_rows(self.packed)
            if bad.any():
                row = int(bad.nonzero()[0])
                partner = int(self.partner[row])
                raise ValueError(
                    "in place, plan must be its own inverse (partner[partner[i]] == i, as flip and mirror draw it); "
                    f"row {row} has partner {partner}, whose partner is {int(self.partner[partner])}"
                )

    def __repr__(self) -> str:
        return f"MixPlan(batch={len(self)}, height={self.height}, width={self.width}, device={str(self.device)!r})"


def check_integers(name: str, tensor: Tensor) -> None:
    """Raises unless a tensor is of an integer dtype, and no boxes of torchvision's."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if is_tv_tensor(tensor, "BoundingBoxes"):
        raise TypeError(f"{name} must be a plain tensor of y0, x0, y1, x1, got tv_tensors.BoundingBoxes, with x first")
    _validation.check_dense(name, tensor)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be of an integer dtype, got {tensor.dtype}")


def check_beside(name: str, tensor: Tensor, shape: tuple[int, ...], partner: Tensor) -> None:
    """Raises unless a part of a plan made by hand is of a shape and on the device of partner."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be of shape {shape}, got {tuple(tensor.shape)}")
    if tensor.device != partner.device:
        raise ValueError(f"{name} must be on the device of partner, {partner.device}, got {tensor.device}")


register(MixPlan, ("packed", "height", "width"), MixPlan._unchecked)

_BITS_OF_ONE = 0x3F800000  # as float32; those of numbers between 0 and 1 are less


def _plainly_valid(packed: Tensor, height: int, width: int) -> bool:
    """Whether the extremes of the columns already say that every row is valid. By numpy, which is faster at it."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return False  # a transform of torch.func gives numpy no memory
    rows = packed.numpy()
    if len(rows) == 0:
        return True
    highest = (len(rows) - 1, height, width, height, width, _BITS_OF_ONE, KINDS)
    low, high = rows[:, :7].min(axis=0).tolist(), rows[:, :7].max(axis=0).tolist()
    within = min(low) >= 0 and all(value <= bound for value, bound in zip(high, highest, strict=True))
    return within and bool((rows[:, 1:3] <= rows[:, 3:5]).all())


def plan_of_labels(plan: MixPlan, *, cut_out: bool) -> MixPlan:
    """The plan that masks of labels follow: where images are blended, the label of the larger weight is taken.

    Rows that may not be followed still may not. Without cut_out, samples that are cut out keep their labels.
    """
    partner, y0, x0, y1, x1, lam, kind, rest = plan.packed.unbind(1)
    blended = reference.blends(kind) & reference.valid_rows(plan.packed, plan.height, plan.width)
    taken = blended & (plan.lam < 0.5)
    kept = blended if cut_out else blended | (kind == int(Kind.cutout))
    kind = torch.where(taken, int(Kind.cutmix), torch.where(kept, int(Kind.keep), kind))
    whole = zip((y0, x0, y1, x1), (0, 0, plan.height, plan.width), strict=True)
    box = [torch.where(taken, edge_of_all, edge) for edge, edge_of_all in whole]
    return MixPlan._unchecked(torch.stack([partner, *box, lam, kind, rest], dim=1), plan.height, plan.width)


def check_plan(plan: MixPlan, images: Tensor, *, in_place: bool = False, of_labels: bool = False) -> None:
    """Raises unless the plan fits the images, or masks of labels, which are not blended."""
    check_plan_batch(plan, images.shape[0], images.device, "images")
    check_plan_size(plan, images, "; use plan.rescaled({}, {})")
    plan.check(in_place=in_place)
    classes = images.dtype not in BLENDED_DTYPES or is_tv_tensor(images, "Mask")
    if classes and not of_labels and _validation.has_values(plan.packed) and reference.blends(plan.kind).any():
        _validation.check_blends(images)


def check_plan_batch(plan: MixPlan, batch: int, device: torch.device, what: str) -> None:
    if not isinstance(plan, MixPlan):
        hint = "; follow it with cutmix_cuda.paint" if type(plan).__name__ == "PatchPlan" else ""
        raise TypeError(f"plan must be a MixPlan, got {type(plan).__name__}{hint}")
    planned = plan.packed.shape[0]  # len() would make a symbol of a graph one number
    if planned != batch:
        raise ValueError(f"plan must be for the {batch} samples of {what}, got one for {planned}")
    check_plan_device(plan, device, what)


def check_plan_device(plan: MixPlan | PatchPlan, device: torch.device, what: str) -> None:
    if plan.device != device:
        raise ValueError(
            f"plan must be on the device of {what}, {device}, got {plan.device}; use plan.to({str(device)!r})"
        )


def check_plan_size(plan: MixPlan | PatchPlan, images: Tensor, hint: str = "") -> None:
    """hint: what to do, of height and width."""
    height, width = images.shape[-2:]
    if (plan.height, plan.width) != (height, width):
        raise ValueError(
            f"plan must be for images of height {height} and width {width}, got one for {plan.height} and "
            f"{plan.width}{hint.format(height, width)}"
        )
