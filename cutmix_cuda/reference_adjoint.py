"""The specification of the adjoint of mixing, in plain PyTorch: what gradients of mixed samples come to.

Mixed samples are linear in the samples, so by the plan alone the gradient of a sample follows from those of the mixed
ones: of its own where its pixels stayed, and of each that it is the partner of where its pixels went.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._ops import Kind
from .reference import blends, has_box, has_partner, valid_rows


def sources(plan: Tensor, followed: Tensor) -> tuple[Tensor, Tensor]:
    """Who takes from each sample, in ascending order, as lists: the first of a sample, and who follows each taker.

    int64 (batch,) both, -1 behind the end. followed: bool (batch,), which rows take from their partner. Mirrors
    adjoint_call.h::Link.
    """
    batch = plan.shape[0]
    partner = torch.where(followed, plan[:, 0].long(), batch)  # those who take from nobody come last
    sorted_partner, order = torch.sort(partner, stable=True)
    index = torch.arange(batch, device=plan.device)
    at = torch.searchsorted(sorted_partner, index).clamp(max=batch - 1)
    first = torch.where(sorted_partner[at] == index, order[at], -1)
    behind = torch.where((sorted_partner[1:] == sorted_partner[:-1]) & (sorted_partner[1:] < batch), order[1:], -1)
    following = torch.full_like(order, -1)
    following[order[:-1]] = behind
    return first, following


def apply_adjoint_out(gradients: Tensor, plan: Tensor, out: Tensor) -> None:
    """Gradients of the mixed samples -> those of the samples, (batch, ..., height, width).

    In float32, or float64 for float64, and rounded once: the own part first, then those of the takers in ascending
    order. A part that is not there is not added, so what is only moved keeps its bits.
    """
    if gradients.numel() == 0:
        return

    def per_sample(column: Tensor) -> Tensor:
        return column.reshape(-1, *[1] * (gradients.dim() - 1))

    height, width = gradients.shape[-2:]
    _, y0, x0, y1, x1, _, kind, _ = plan.unbind(1)
    kind = torch.where(valid_rows(plan, height, width), kind, int(Kind.keep))
    y = torch.arange(height, device=plan.device)
    x = torch.arange(width, device=plan.device)
    in_rows = (y >= y0[:, None]) & (y < y1[:, None])
    in_columns = (x >= x0[:, None]) & (x < x1[:, None])
    in_box = (in_rows[:, :, None] & in_columns[:, None, :]) | ~has_box(kind)[:, None, None]
    region = in_box & (kind != int(Kind.keep))[:, None, None]
    region = region.reshape(gradients.shape[0], *[1] * (gradients.dim() - 3), height, width)

    value = torch.float64 if gradients.dtype == torch.float64 else torch.float32
    lam = per_sample(plan[:, 5].view(torch.float32)).to(value)
    weighted = per_sample(blends(kind))
    given = gradients.to(value)
    total = torch.where(region & weighted, lam * given, given)
    there = ~region | weighted  # whether a sum has a part yet
    part = torch.where(weighted, (1.0 - lam) * given, given)  # of each mixed sample, for its partner

    source, following = sources(plan, has_partner(kind))
    for _ in range(plan.shape[0]):
        if not gradients.is_cuda and not (source >= 0).any():  # a GPU is not asked
            break
        index = source.clamp(min=0)
        takes = per_sample(source >= 0) & region[index]
        total = torch.where(takes, torch.where(there, total + part[index], part[index]), total)
        there = there | takes
        source = torch.where(source >= 0, following[index], -1)
    out.copy_(torch.where(there, total, 0.0).to(gradients.dtype))


OPS = {"apply_adjoint_out": apply_adjoint_out}
