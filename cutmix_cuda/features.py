"""Mixing inside a network, with gradients: feature maps, tokens, embeddings and soft labels that require grad.

A mixed sample is linear in the samples, so its gradient follows from the plan alone, by the op ``apply_adjoint_out``.
Mixing and that adjoint are each other's backward, and each its own forward derivative: no order of derivative needs
anything else. In eager mode and under torch.func they are one autograd.Function; in a graph of torch.compile, which
does not trace such a function, they are ops with an autograd formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from . import _backends, _validation
from ._fill import check_fill, fill_words
from ._literals import BackendName
from ._ops import LIBRARIES, NO_FILL, Kind
from ._tensors import is_example, of_class, plain
from .plan import MixPlan, check_plan_batch
from .reference import mixes_target, smoothing_of, valid_rows

_EMBEDDING_DIMS, _TOKEN_DIMS = 2, 3  # maps have more


# ---- The ops, for every backend by its apply_out and apply_adjoint_out


def _without_boxes(plan: Tensor, height: int, width: int) -> Tensor:
    """The plan for what lies outside of all boxes. Rows that may not be followed stay so."""
    rows = plan.clone()
    rows[:, 0] = torch.where(valid_rows(plan, height, width), plan[:, 0], -1)
    rows[:, 1:5] = 0
    return rows


def _in_parts(run, tensor: Tensor, plan: Tensor, height: int, width: int, prefix: int) -> Tensor:
    """A new tensor, into which run(input, plan, output) writes what is on the plan's grid, and the prefix."""
    if prefix == 0 and tuple(tensor.shape[-2:]) == (height, width):
        out = torch.empty_like(tensor)
        run(tensor, plan, out)
        return out
    tensor = tensor.contiguous()
    out = torch.empty_like(tensor)
    if tensor.shape[-2] > prefix:
        grid = (*tensor.shape[:-2], height, width)
        run(tensor[..., prefix:, :].view(grid), plan, out[..., prefix:, :].view(grid))
    if prefix > 0:
        run(tensor[..., :prefix, :], _without_boxes(plan, height, width), out[..., :prefix, :])
    return out


def _mix(ops: Any, features: Tensor, plan: Tensor, height: int, width: int, prefix: int, fill=NO_FILL) -> Tensor:
    def run(part: Tensor, rows: Tensor, out: Tensor) -> None:
        ops.apply_out(part, None, rows, 0, 0.0, torch.float32, out, fill)

    return _in_parts(run, features, plan, height, width, prefix)


def _mix_adjoint(ops: Any, gradients: Tensor, plan: Tensor, height: int, width: int, prefix: int) -> Tensor:
    return _in_parts(ops.apply_adjoint_out, gradients, plan, height, width, prefix)


def _register(namespace: str) -> None:
    library, ops = LIBRARIES[namespace], getattr(torch.ops, namespace)
    primitives = SimpleNamespace(apply_out=ops.apply_out.default, apply_adjoint_out=ops.apply_adjoint_out.default)
    library.impl("mix_features", partial(_mix, primitives), "CompositeExplicitAutograd")
    library.impl("mix_features_adjoint", partial(_mix_adjoint, primitives), "CompositeExplicitAutograd")

    def setup_context(ctx, inputs, output) -> None:
        _, plan, *ctx.sizes = inputs[:5]
        ctx.save_for_backward(plan)

    def backward_of(op: Any, others: int):
        def backward(ctx, gradient: Tensor):
            return op(gradient, *ctx.saved_tensors, *ctx.sizes), *[None] * others

        return backward

    mix, adjoint = ops.mix_features.default, ops.mix_features_adjoint.default
    library.autograd("mix_features", backward_of(adjoint, 5), setup_context)
    library.autograd("mix_features_adjoint", backward_of(mix, 4), setup_context)


for _namespace in LIBRARIES:
    _register(_namespace)


# ---- The same as a function of autograd and torch.func


@dataclass(frozen=True, eq=False)
class _Rule:
    """What becomes of the first tensor of :class:`_Followed`."""

    ops: Any  # of a backend
    height: int
    width: int
    prefix: int
    fill: Sequence[int] = NO_FILL
    adjoint: bool = False

    def run(self, tensor: Tensor, plan: Tensor) -> Tensor:
        """By the ops, which torch batches where an example of a batch of gradients comes in."""
        sizes = self.height, self.width, self.prefix
        with torch._C._AutoDispatchBelowAutograd():
            if self.adjoint:
                return self.ops.mix_features_adjoint(tensor, plan, *sizes)
            return self.ops.mix_features(tensor, plan, *sizes, self.fill)

    @property
    def linear(self) -> _Rule:
        """Without what does not depend on the tensor."""
        return replace(self, fill=NO_FILL)

    @property
    def transposed(self) -> _Rule:
        return replace(self.linear, adjoint=not self.adjoint)


class _Followed(torch.autograd.Function):
    """A plan followed by a rule, or its adjoint."""

    @staticmethod
    def forward(tensor: Tensor, plan: Tensor, rule: _Rule) -> Tensor:
        return rule.run(tensor, plan)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, plan, ctx.rule = inputs
        ctx.save_for_backward(plan)
        ctx.save_for_forward(plan)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _Followed.apply(gradient, *ctx.saved_tensors, ctx.rule.transposed), None, None

    @staticmethod
    def jvp(ctx, tangent: Tensor, *_):
        return _Followed.apply(tangent, *ctx.saved_tensors, ctx.rule.linear)

    @staticmethod
    def vmap(info, in_dims, tensor: Tensor, plan: Tensor, rule: _Rule):
        in_tensor, in_plan, _ = in_dims
        if in_plan is None:  # examples are slices of a sample
            return _Followed.apply(tensor.movedim(in_tensor, 1), plan, rule), 1
        plans = plan.unbind(in_plan)
        tensors = [tensor] * len(plans) if in_tensor is None else tensor.unbind(in_tensor)
        return torch.stack([_Followed.apply(*each, rule) for each in zip(tensors, plans, strict=True)]), 0


def _follow(ops: Any, features: Tensor, plan: Tensor, height: int, width: int, prefix: int, fill=NO_FILL) -> Tensor:
    if torch.compiler.is_compiling():
        return ops.mix_features(features, plan, height, width, prefix, fill)
    return _Followed.apply(features, plan, _Rule(ops, height, width, prefix, fill))


# ---- Features


def _check_features(features: Tensor, prefix: int) -> None:
    if not isinstance(features, Tensor):
        raise TypeError(f"features must be a tensor, got {type(features).__name__}")
    _validation.check_dense("features", features)
    if features.dtype not in _validation.FLOAT_DTYPES:
        raise TypeError(
            f"features must be of dtype {_validation._names(_validation.FLOAT_DTYPES)}, got {features.dtype}; images "
            "of other dtypes are mixed by cutmix_cuda.mix_images"
        )
    if not _EMBEDDING_DIMS <= features.dim() <= _validation.MAX_IMAGE_DIMS:
        raise ValueError(
            f"features must be maps (batch, ..., height, width), tokens (batch, tokens, channels) or embeddings "
            f"(batch, channels), of at most {_validation.MAX_IMAGE_DIMS} dimensions, got shape {tuple(features.shape)}"
        )
    _validation.check_size("prefix", prefix, _validation.MAX_INT32)
    if prefix > 0 and features.dim() != _TOKEN_DIMS:
        raise ValueError(
            f"prefix must be 0 but for tokens (batch, tokens, channels), got {prefix} for shape {tuple(features.shape)}"
        )


def mix_features(
    features: Tensor, plan: MixPlan, *, prefix: int = 0, fill: float = 0.0, backend: BackendName | None = None
) -> Tensor:
    """Features mixed by a plan inside a network, with gradients: manifold mixup, CutMix of feature maps and tokens.

    >>> maps = torch.rand(4, 8, 4, 4, requires_grad=True)
    >>> mix_features(maps, sample_plan(4, 16, 16)).sum().backward()  # boxes are scaled from 16 x 16 to 4 x 4
    >>> maps.grad.shape
    torch.Size([4, 8, 4, 4])

    Differentiable by the features any number of times, in both modes, under ``torch.func`` and ``torch.compile``; not
    by lambda. The gradient is the exact adjoint, summed in a fixed order: the same plan gives the same bits.

    Args:
        features: of dtype float16, bfloat16, float32 or float64, on the plan's device. Not changed. One of

            - maps (B, ..., H, W), of 4 to 8 dimensions. Of another height and width than the plan's they follow
              :meth:`MixPlan.rescaled`.
            - tokens (B, N, D), of which those behind the prefix are the plan's height * width pixels, row by row. For
              patches of a ViT, ``plan.rescaled(14, 14)``; for a sequence a plan of height N and width 1, whose boxes
              are spans.
            - embeddings (B, D), which lie in no box: they are blended by mixup, and kept otherwise.
        plan: its lam is what the targets are mixed by, at whatever size the features are.
        prefix: tokens before those of the grid, such as a class token: blended by mixup, and otherwise their sample's
            own.
        fill: what the boxes of samples that are cut out are filled with.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Returns:
        New features like those given. Mixup is computed in float32, float64 in float64, and rounded once.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`apply_plan`, or the tokens are not as many as the plan's grid. On
            a GPU, where looking would make the host wait, a sample whose row of the plan leads outside the batch or the
            image is left as it was instead, and so is its gradient.
    """
    given, features = features, plain(features)
    _check_features(features, prefix)
    check_plan_batch(plan, features.shape[0], features.device, "features")
    plan.check()
    embeddings = features.dim() == _EMBEDDING_DIMS
    if embeddings:
        features, prefix = features.unsqueeze(1), 1  # a token that is in no box
    elif features.dim() == _TOKEN_DIMS:
        plan = _plan_of_tokens(plan, features, prefix)
    elif (plan.height, plan.width) != tuple(features.shape[-2:]):
        plan = plan.rescaled(*features.shape[-2:])
    ops = _backends.ops_for(backend, features.device)
    words = fill_words(check_fill(fill), features.dtype)
    mixed = _follow(ops, features, plan.packed, plan.height, plan.width, prefix, words)
    return of_class(mixed.squeeze(1) if embeddings else mixed, given)


def _plan_of_tokens(plan: MixPlan, tokens: Tensor, prefix: int) -> MixPlan:
    """The plan of which a token is as many columns as it has channels."""
    number, channels = tokens.shape[1:]
    if prefix + plan.height * plan.width != number:
        raise ValueError(
            f"plan must be for the grid of the tokens, height * width = {number - prefix} of {number} tokens behind a "
            f"prefix of {prefix}, got one for {plan.height} x {plan.width}; plan.rescaled(height, width) makes it one"
        )
    rows = plan.packed.clone()
    edges = rows[:, 2:5:2]  # x0 and x1: what leads outside of the grid still does, and does not wrap
    edges.copy_(edges.clamp(-1, plan.width + 1) * channels)
    return MixPlan(rows, plan.height, plan.width * channels)


# ---- Soft labels


def needs_derivative(labels: Tensor) -> bool:
    """Whether soft labels are differentiated by, or may be by a transform of torch.func."""
    if not labels.is_floating_point():
        return False
    if labels.requires_grad or torch.compiler.is_compiling():
        return labels.requires_grad
    return is_example(labels) or forward_ad._current_level >= 0


def mix_soft_labels(labels: Tensor, plan: Tensor, label_smoothing: float, dtype: torch.dtype, ops: Any) -> Tensor:
    """The bits of the op ``mix_targets`` for soft labels (batch, num_classes), with gradients."""
    value = torch.float64 if dtype == torch.float64 else torch.float32
    scale, off, _ = (
        torch.full((), number, dtype=value, device=plan.device)
        for number in smoothing_of(label_smoothing, labels.shape[1])
    )
    own = labels.to(value) * scale + off
    valid = valid_rows(plan, None, None)
    rows = torch.zeros_like(plan)  # a label is blended as a whole
    rows[:, 0] = torch.where(valid, plan[:, 0], -1)
    rows[:, 5] = plan[:, 5]
    rows[:, 6] = torch.where(mixes_target(plan[:, 6]), int(Kind.mixup), int(Kind.keep))
    mixed = _follow(ops, own.unsqueeze(1), rows, 1, labels.shape[1], 0).squeeze(1)
    return torch.where(valid[:, None], mixed, torch.nan).to(dtype)


# ---- The module


class MixFeatures(nn.Module):
    """A place in a network where features are mixed, by the plan that the training loop hands to it.

    >>> mixing = MixFeatures()
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), mixing, nn.Flatten(), nn.LazyLinear(10))
    >>> plan = sample_plan(4, 16, 16)
    >>> targets = mix_targets(labels, plan, 10)  # labels stay out of the model
    >>> with mixing.by(plan):
    ...     loss = nn.functional.cross_entropy(model(images), targets)

    Without a plan, and in eval mode, features pass as they are. A plan is for one batch, so a block is as well.
    Activation checkpointing calls the network again in the backward pass, which then belongs into the block.

    Args:
        grid: height and width of the patches that tokens (B, N, D) are of, to which the plan is rescaled, as
            :meth:`MixPlan.rescaled`; None where it is the plan's own. Maps follow their own height and width.
        prefix: tokens before those of the grid, as for :func:`mix_features`.
        fill: what the boxes of samples that are cut out are filled with.
        backend: as for :func:`mix_features`.

    Raises:
        TypeError, ValueError, RuntimeError: an argument is wrong; in a call as :func:`mix_features`.
    """

    def __init__(
        self,
        grid: tuple[int, int] | None = None,
        *,
        prefix: int = 0,
        fill: float = 0.0,
        backend: BackendName | None = None,
    ) -> None:
        super().__init__()
        self.grid = None if grid is None else _validation.check_extent(*grid)
        self.prefix = _validation.check_size("prefix", prefix, _validation.MAX_INT32)
        self.fill = check_fill(fill)
        _backends.check_backend(backend)
        self.backend = backend
        self.plan: MixPlan | None = None

    @contextmanager
    def by(self, plan: MixPlan | None) -> Iterator[None]:
        """Within the block features are mixed by a plan, of as many samples as the batch; None leaves them."""
        before, self.plan = self.plan, plan
        try:
            yield
        finally:
            self.plan = before

    def forward(self, features: Tensor) -> Tensor:
        """Features mixed by the plan, or as they are where there is none, or in eval mode.

        Args:
            features: maps (B, ..., H, W), tokens (B, N, D) or embeddings (B, D), as for :func:`mix_features`.

        Returns:
            New features like those given, or those given.

        Raises:
            TypeError, ValueError: as :func:`mix_features`.
        """
        plan = self.plan
        if plan is None or not self.training:
            return features
        tokens = features.dim() == _TOKEN_DIMS
        if tokens and self.grid is not None:
            plan = plan.rescaled(*self.grid)
        return mix_features(features, plan, prefix=self.prefix if tokens else 0, fill=self.fill, backend=self.backend)

    def extra_repr(self) -> str:
        return f"grid={self.grid!r}, prefix={self.prefix!r}, fill={self.fill!r}"
