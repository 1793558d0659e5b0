"""Images mixed by a plan of either kind, without targets: masks of labels, a second camera, the same images again."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import _validation
from ._fill import check_fill, fill_words
from ._literals import BackendName
from ._tensors import plain
from ._tv_tensors import is_tv_tensor
from .functional import follow
from .patch_plan import PatchPlan, patches_of_labels
from .patches import follow_patches
from .plan import MixPlan, check_plan, plan_of_labels


def _of_labels(images: Tensor, plan: MixPlan | PatchPlan, *, cut_out: bool, inplace: bool) -> MixPlan | PatchPlan:
    """The plan that masks of labels follow, after a check of the one that images do."""
    if isinstance(plan, PatchPlan):
        plan.check()
        return patches_of_labels(plan, cut_out=cut_out)
    check_plan(plan, images, in_place=inplace, of_labels=True)
    return plan_of_labels(plan, cut_out=cut_out)


def _mix(
    images: Tensor,
    plan: MixPlan | PatchPlan,
    labels: bool,
    ignore_index: int | None,
    fill: float,
    others: Tensor | None,
    *,
    inplace: bool,
    out: Tensor | None,
    backend: str | None,
) -> Tensor:
    if not isinstance(labels, bool):
        raise TypeError(f"labels must be True or False, whether images are labels, got {type(labels).__name__}")
    if labels or is_tv_tensor(images, "Mask"):
        if fill != 0:
            raise ValueError(f"fill must be left out of masks of labels, got {fill!r}; see ignore_index")
        _validation.check_images(plain(images))
        plan = _of_labels(images, plan, cut_out=ignore_index is not None, inplace=inplace)
        fill = 0 if ignore_index is None else check_fill(ignore_index, "ignore_index")
        fill_words(fill, images.dtype, "ignore_index")  # raises by its name; what follows calls it fill
    elif ignore_index is not None:
        raise ValueError(f"ignore_index must be None without labels=True, got {ignore_index!r}; see fill")
    where: dict[str, Any] = {"fill": fill, "inplace": inplace, "out": out, "backend": backend}
    if isinstance(plan, PatchPlan):
        return follow_patches(images, None, plan, None, others=others, **where)[0]
    if others is not None:
        raise ValueError("others must be None but for a PatchPlan, whose partners may be of a second batch")
    return follow(images, None, plan, None, **where)[0]


def mix_images(
    images: Tensor,
    plan: MixPlan | PatchPlan,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    fill: float = 0.0,
    others: Tensor | None = None,
    out: Tensor | None = None,
    backend: BackendName | None = None,
) -> Tensor:
    """Images mixed by a plan, without targets: masks, a second camera, or the same images again.

    >>> masks = torch.randint(5, (4, 16, 16))
    >>> mix_images(masks, sample_plan(4, 16, 16), labels=True).shape
    torch.Size([4, 16, 16])

    Args:
        images: (B, ..., H, W) of any dtype, H and W those of the plan. Not changed. Where a plan blends (by mixup, by
            masks of floats), they are of a dtype that mixup blends, unless they are masks of labels.
        plan: on the device of the images, a :class:`MixPlan`, or a :class:`PatchPlan` of any number N of samples.
        labels: whether the images are masks whose pixels are labels, of which there is no mean. They are never blended,
            whatever their dtype: where the plan blends two images, labels are those of the larger weight, the sample's
            own at a half. Of several patches one over the other each so decides between its partner's label and the one
            below. ``torchvision.tv_tensors.Mask`` are masks of labels without being told.
        ignore_index: of masks of labels, what the boxes that are cut out of images are filled with, a value of the
            masks' dtype, so that a loss leaves them out; by default they keep their labels.
        fill: of other images, what the boxes that are cut out are filled with, a value of the images' dtype.
        others: of a :class:`PatchPlan`, the second batch, like the images, as for :func:`paint`.
        out: a tensor like images, of N samples of a :class:`PatchPlan`, to write to, which must not overlap them.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Returns:
        New images like those given, of N samples of a :class:`PatchPlan`; or out.

    Raises:
        TypeError: a plan that blends is given images of another dtype, which have no mean, without labels=True. On a
            GPU, where looking at the plan would make the host wait, samples that would be blended are left as they were
            instead.
        ValueError: ignore_index is given for images that are no masks of labels, or fill for masks.
        TypeError, ValueError, RuntimeError: as :func:`apply_plan`, or :func:`paint`.
    """
    return _mix(images, plan, labels, ignore_index, fill, others, inplace=False, out=out, backend=backend)


def mix_images_(
    images: Tensor,
    plan: MixPlan | PatchPlan,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    fill: float = 0.0,
    backend: BackendName | None = None,
) -> Tensor:
    """:func:`mix_images` in place: reads and writes only the boxes' bytes, or all of a sample that is blended.

    >>> mix_images_(images, sample_plan(4, 16, 16)) is images
    True

    Args:
        images, labels, ignore_index, fill, backend: as for :func:`mix_images`.
        plan: on the device of the images, and its own inverse, ``partner[partner[i]] == i``; or a :class:`PatchPlan`
            whose samples exchange pixels in pairs, as for :func:`paint_`.

    Returns:
        The images given, mixed.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`mix_images`, and :func:`apply_plan_` or :func:`paint_`.
    """
    return _mix(images, plan, labels, ignore_index, fill, None, inplace=True, out=None, backend=backend)
