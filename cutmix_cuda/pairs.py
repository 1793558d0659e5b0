"""Targets as two class indices and a weight, and their loss: what dense soft targets say, without a (B, K) matrix."""

from __future__ import annotations

import enum
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _validation
from ._literals import ReductionName
from ._serialization import register
from .reference import mixes_target


class Targets(enum.IntEnum):
    """What targets are made as."""

    dense = 0
    pairs = 1


class PairTargets(NamedTuple):
    """Targets lam * one_hot(y_a) + (1 - lam) * one_hot(y_b), without that matrix. Made with ``targets="pairs"``.

    >>> _, pairs = cutmix(images, labels, targets="pairs")
    >>> pairs.y_a.shape, pairs.y_b.shape, pairs.lam.shape
    (torch.Size([4]), torch.Size([4]), torch.Size([4]))

    Attributes:
        y_a: class indices of the samples themselves, (B,), of the labels' dtype.
        y_b: those of their partners; a sample's own where lam is 1, so that it owes nothing to its partner.
        lam: float32 (B,), the weight of y_a. 1 where a sample is kept or cut out; NaN, on a GPU, where its row of a
            given plan leads outside the batch or the image.
    """

    y_a: Tensor
    y_b: Tensor
    lam: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairTargets:
        """The targets on another device."""
        return PairTargets(*(part.to(device, non_blocking=non_blocking) for part in self))


register(PairTargets, PairTargets._fields)


def check_targets(targets: str, label_smoothing: float) -> Targets:
    """What targets are made as, by its name, if labels can be smoothed so."""
    chosen = _validation.check_choice("targets", targets, Targets)
    if chosen == Targets.pairs and label_smoothing != 0:
        raise ValueError(
            f"label_smoothing must be 0 with targets='pairs', got {label_smoothing!r}; two class indices cannot hold "
            "it: give it to cutmix_cuda.cross_entropy"
        )
    return chosen


def check_class_indices(labels: Tensor | None, num_classes: int | None, batch: int, device: torch.device) -> None:
    """Raises unless labels are None or class indices, in 0..num_classes-1 if that is given."""
    if isinstance(labels, Tensor) and labels.dtype in _validation.FLOAT_DTYPES:
        raise ValueError(
            f"labels must be class indices, of an integer dtype, with targets='pairs', got {labels.dtype} of shape "
            f"{tuple(labels.shape)}; soft labels are mixed with targets='dense'"
        )
    _validation.check_labels(labels, num_classes, batch, device, any_class=True)


# torch has few operations for the others of these sizes; class indices are only moved, so their bits will do.
_SAME_BITS = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def pairs_of(labels: Tensor, packed: Tensor, valid: Tensor | None = None) -> PairTargets:
    """Class indices (B,) mixed by a packed plan (B, 8).

    valid: bool (B,), which rows of the plan may be followed; None for a plan that was sampled, where all may.
    """
    partner, lam, kind = packed[:, 0], packed[:, 5].view(torch.float32), packed[:, 6]
    lam = torch.where(mixes_target(kind), lam, 1.0)
    if valid is not None:
        partner = torch.where(valid, partner, 0)
        lam = torch.where(valid, lam, torch.nan)
    own = labels.view(_SAME_BITS.get(labels.dtype, labels.dtype))
    # A copy of the labels: who changes the targets is not to change them.
    return PairTargets(labels.clone(), torch.where(lam < 1, own[partner], own).view(labels.dtype), lam)


def cross_entropy(
    logits: Tensor,
    pairs: PairTargets,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: ReductionName = "mean",
) -> Tensor:
    """lam * CE(logits, y_a) + (1 - lam) * CE(logits, y_b): the cross entropy of the soft targets that pairs stand for.

    >>> mixed, pairs = cutmix(images, labels, targets="pairs")
    >>> logits = torch.rand(4, 10, requires_grad=True)
    >>> cross_entropy(logits, pairs, label_smoothing=0.1).backward()

    The value is that of ``torch.nn.functional.cross_entropy`` with these soft targets, label smoothing and weights
    included, and so are the derivatives of every order by logits, pairs.lam and weight, in ``torch.func`` as well; but
    no (B, K) target is written or read. Smoothing is an affine map of the targets, so it is the same before mixing, as
    dense targets are smoothed here, and after it.

    Args:
        logits: (B, K), float. Half precision is computed in float32.
        pairs: what ``targets="pairs"`` gave, or any tuple (y_a, y_b, lam): integers (B,) twice and floats (B,).
        weight: of each class, float (K,). As with soft targets, the mean is over samples, whatever their weights.
        label_smoothing: s in [0, 1]: each soft target y becomes y * (1 - s) + s / K.
        reduction: "mean", "sum", or "none" for the losses of the samples, (B,).

    Returns:
        A scalar, or (B,) for reduction "none"; float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: an argument is wrong, or, on the CPU, a class index outside 0..K-1. There is no
            ignore_index: -100 is such an index. On a GPU, where looking would make the host wait, and in a compiled
            graph, the loss of such a sample is NaN instead, and so are its gradients.
    """
    y_a, y_b, lam = _checked(logits, pairs, weight)
    smoothing = _validation.check_share("label_smoothing", label_smoothing)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be one of 'mean', 'sum', 'none', got {reduction!r}")

    classes = logits.shape[1]
    value = torch.float64 if logits.dtype == torch.float64 else torch.float32
    log_probabilities = F.log_softmax(logits, dim=1, dtype=value)
    both = torch.stack([y_a.long(), y_b.long()], dim=1)
    known = ((both >= 0) & (both < classes)).all(dim=1)
    both = torch.where(known[:, None], both, 0)  # no index is trusted
    lam = lam.to(value)
    lam = lam * torch.where(known, torch.ones_like(lam), torch.nan)  # a factor, so that its gradient is NaN as well
    fractions = (1 - smoothing) * torch.stack([lam, 1 - lam], dim=1)
    if weight is not None:
        weight = weight.to(value)
        fractions = fractions * weight[both]
    loss = -(fractions * log_probabilities.gather(1, both)).sum(dim=1)
    if smoothing > 0:
        of_every_class = log_probabilities if weight is None else log_probabilities * weight
        loss = loss - smoothing / classes * of_every_class.sum(dim=1)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def _checked(logits: Tensor, pairs: PairTargets, weight: Tensor | None) -> PairTargets:
    """The pairs, if everything fits together."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits must be a tensor, got {type(logits).__name__}")
    _validation.check_dense("logits", logits)
    if logits.dtype not in _validation.FLOAT_DTYPES or logits.dim() != 2 or logits.shape[1] == 0:
        raise ValueError(
            "logits must be floats of shape (batch, num_classes), of a class or more, "
            f"got {logits.dtype} of shape {tuple(logits.shape)}"
        )
    if not isinstance(pairs, tuple) or len(pairs) != 3 or not all(isinstance(part, Tensor) for part in pairs):
        raise TypeError(f"pairs must be a tuple of three tensors, (y_a, y_b, lam), got {type(pairs).__name__}")
    batch, classes = logits.shape
    pairs = PairTargets(*pairs)
    dtypes = (_validation.INTEGER_DTYPES, _validation.INTEGER_DTYPES, _validation.FLOAT_DTYPES)
    for name, part, allowed in zip(pairs._fields, pairs, dtypes, strict=True):
        _validation.check_dense(name, part)
        if part.dtype not in allowed:
            raise TypeError(f"{name} must be of an {'integer' if name != 'lam' else 'float'} dtype, got {part.dtype}")
        if part.shape != (batch,):
            raise ValueError(f"{name} must be of shape (batch,) = ({batch},), got {tuple(part.shape)}")
        if part.device != logits.device:
            raise ValueError(f"{name} must be on the device of logits, {logits.device}, got {part.device}")
    for name, part in (("y_a", pairs.y_a), ("y_b", pairs.y_b)):
        _validation.check_range(name, part, classes)
    if weight is not None:
        if not isinstance(weight, Tensor) or weight.dtype not in _validation.FLOAT_DTYPES:
            raise TypeError(f"weight must be a float tensor or None, got {weight!r}")
        _validation.check_dense("weight", weight)
        if weight.shape != (classes,):
            raise ValueError(f"weight must be of shape (num_classes,) = ({classes},), got {tuple(weight.shape)}")
        if weight.device != logits.device:
            raise ValueError(f"weight must be on the device of logits, {logits.device}, got {weight.device}")
    return pairs
