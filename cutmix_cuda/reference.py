"""The specification, in plain PyTorch on any device: what every other backend gives, to the last bit.

The functions of the sampling maths are twins of those in ``csrc/mix_math.h`` and carry their names. Unsigned 32-bit
words are held in int64 tensors. Every float operation is one PyTorch operation, rounded to nearest, so nothing is ever
contracted into a fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ._ops import (
    BLENDED_DTYPES,
    KINDS,
    NO_FILL,
    PLAN_COLUMNS,
    QUANTILE_INTERVALS,
    Draw,
    Kind,
    Partner,
    Placement,
    Sampling,
    Scope,
    TargetFormat,
)
from ._seed import seed_of_call

_WORD = 0xFFFFFFFF  # the bits of an unsigned 32-bit word
_PER_BATCH, PER_DRAW = 0, 1  # streams


def mulhi(a: Tensor, b: int | Tensor) -> Tensor:
    """The upper word of the product of two words. Mirrors mix_math.h::mulhi."""
    return (a * b) >> 32 & _WORD


def philox(
    seed: Tensor, index: Tensor, stream: int, position: int | Tensor = 0, group: int | Tensor = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 at counter (index, position, stream, group), keyed by the seed. Mirrors mix_math.h::philox."""
    key0, key1 = seed & _WORD, seed >> 32 & _WORD
    # In shapes of their own, which the first rounds broadcast; c1 and c3 with bits above their words. What is new is
    # changed in place, because large tensors cost most by their memory.
    zero = torch.zeros_like(key0)
    c0, c1, c2, c3 = index, zero + position, zero + stream, zero + group
    for _ in range(10):
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0 = ((product1 >> 32) ^ c1).bitwise_xor_(key0).bitwise_and_(_WORD)
        c2 = ((product0 >> 32) ^ c3).bitwise_xor_(key1).bitwise_and_(_WORD)
        c1, c3 = product1, product0
        key0, key1 = key0 + 0x9E3779B9 & _WORD, key1 + 0xBB67AE85 & _WORD
    return c0, c1 & _WORD, c2, c3 & _WORD


def unit_float(word: Tensor) -> Tensor:
    """A word as a float32 in [0, 1), from its upper 24 bits. Mirrors mix_math.h::unit_float."""
    return (word >> 8).to(torch.float32) * 2.0**-24


def quantile(table: Tensor, word: Tensor) -> Tensor:
    """The inverse distribution function at a random word, linear between the knots. Mirrors mix_math.h::quantile.

    table is (4097,), or (..., 4097) with a table for each word.
    """
    knot = word >> 20
    fraction = (word & 0xFFFFF).to(torch.float32) * 2.0**-20
    if table.dim() == 1:
        lower, upper = table[knot], table[knot + 1]
    else:
        lower, upper = (table.gather(-1, at[..., None]).squeeze(-1) for at in (knot, knot + 1))
    value = lower + fraction * (upper - lower)
    value = torch.where(value > 0.0, value, torch.zeros_like(value))  # first, because it is this that takes in NaN
    return torch.where(value < 1.0, value, torch.ones_like(value))


def sqrt_rn(x: Tensor) -> Tensor:
    """The float32 square root rounded to nearest. Mirrors mix_math.h::sqrt_rn.

    On the CPU torch.sqrt is now and then off by one unit in the last place. Rounded to float64 first, the result is the
    right one: 53 bits are more than twice 24, so the second rounding never meets a tie that the first one made.
    """
    return torch.sqrt(x.double()).float()


def part_of(share: Tensor, length: int) -> Tensor:
    """The whole pixels in a share of a length. Mirrors mix_math.h::part_of."""
    all_of_it = torch.full_like(share, length)
    part = share * all_of_it
    return torch.where(part < all_of_it, part.to(torch.int64), length)


def sides_of(lam: Tensor, scale: float | Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Height and width of a box times a scale, of a span in an image of one row or column.

    Mirrors mix_math.h::sides_of.
    """
    share = 1.0 - lam
    row, column = height == 1, width == 1 and height != 1
    ratio = scale * (share if row or column else sqrt_rn(share))
    one = torch.ones_like(ratio, dtype=torch.int64)
    return one if row else part_of(ratio, height), one if column else part_of(ratio, width)


def clipped_box(lam: Tensor, word_x: Tensor, word_y: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """y0, x0, y1, x1 of a box centred anywhere and clipped at the border. Mirrors mix_math.h::clipped_box."""
    half_height, half_width = sides_of(lam, 0.5, height, width)
    x, y = mulhi(word_x, width), mulhi(word_y, height)
    return (
        (y - half_height).clamp(min=0),
        (x - half_width).clamp(min=0),
        (y + half_height).clamp(max=height),
        (x + half_width).clamp(max=width),
    )


def inside_box(
    lam: Tensor, word_x: Tensor, word_y: Tensor, height: int, width: int, scale: float | Tensor = 1.0
) -> tuple[Tensor, ...]:
    """y0, x0, y1, x1 of a box that lies inside the image. Mirrors mix_math.h::inside_box."""
    box_height, box_width = sides_of(lam, scale, height, width)
    x0 = mulhi(word_x, width - box_width + 1)
    y0 = mulhi(word_y, height - box_height + 1)
    return y0, x0, y0 + box_height, x0 + box_width


def share_outside(box: tuple[Tensor, ...], height: int, width: int) -> Tensor:
    """The share of the image outside the box. Mirrors mix_math.h::share_outside."""
    y0, x0, y1, x1 = box
    area = ((y1 - y0) * (x1 - x0)).to(torch.float32)
    return 1.0 - area / torch.full_like(area, height * width)


def circle_of(batch: int) -> int:
    """The modulus of maps that reflect. Mirrors mix_math.h::circle_of."""
    return (batch - 1) | 1


def partner_map(rule: int, seed: Tensor, batch: int) -> tuple[bool, Tensor | int]:
    """Whether the index is reflected, and the shift. Mirrors mix_math.h::partner_map."""
    if rule == Partner.roll:
        return False, batch - 1
    if rule == Partner.flip:
        return True, 0 if batch % 2 == 0 else batch - 1
    word = philox(seed, torch.zeros_like(seed), _PER_BATCH)[0]
    if rule == Partner.shift:
        return False, 1 + mulhi(word, batch - 1)
    return True, mulhi(word, circle_of(batch))


def partner_of(mapping: tuple[bool, Tensor | int], index: Tensor, batch: int) -> Tensor:
    """The partner of each index under a partner map. Mirrors mix_math.h::partner_of."""
    reflects, shift = mapping
    if not reflects:
        return (index + shift) % batch
    circle = circle_of(batch)
    partner = (shift - index) % circle
    if batch % 2 == 0:
        partner = torch.where(partner == index, circle, partner)
    return torch.where(index == circle, (shift + shift % 2 * circle) // 2, partner)


def draw_index(scope: int, index: Tensor, partner: Tensor) -> Tensor:
    """Which draw a sample takes. Mirrors mix_math.h::draw_index."""
    if scope == Scope.batch:
        return torch.zeros_like(index)
    return torch.minimum(index, partner) if scope == Scope.pair else index


# What a kind needs, of one or of a tensor of them. int(): torch.compile takes a comparison of a tensor with an
# enumeration's member for one of objects.

_Kinds = TypeVar("_Kinds", int, Tensor)


def is_kind(kind: _Kinds) -> _Kinds:
    """Whether there is such a kind. Mirrors mix_math.h::is_kind."""
    return (kind >= int(Kind.keep)) & (kind <= KINDS)


def has_partner(kind: _Kinds) -> _Kinds:
    """Whether pixels of the partner come in. Mirrors mix_math.h::has_partner."""
    return (kind == int(Kind.cutmix)) | (kind == int(Kind.mixup))


def has_box(kind: _Kinds) -> _Kinds:
    """Whether only a box of the image changes. Mirrors mix_math.h::has_box."""
    return (kind == int(Kind.cutmix)) | (kind == int(Kind.cutout))


def reads_own(kind: _Kinds) -> _Kinds:
    """Whether changed pixels follow from the sample's own. Mirrors mix_math.h::reads_own."""
    return kind == int(Kind.mixup)


def blends(kind: _Kinds) -> _Kinds:
    """Whether pixels are computed with, and so of a dtype that allows it. Mirrors mix_math.h::blends."""
    return kind == int(Kind.mixup)


def mixes_target(kind: _Kinds) -> _Kinds:
    """Whether the partner's target comes in. Mirrors mix_math.h::mixes_target."""
    return (kind == int(Kind.cutmix)) | (kind == int(Kind.mixup))


def can_draw(kind: int, bounds: Sequence[float]) -> bool:
    """Whether the bounds leave room for a kind, or whatever else they are of. Mirrors mix_math.h::can_draw."""
    bound = bounds[kind - 1]
    for other in bounds[: kind - 1]:  # any() would cost each call of mix half a microsecond
        if other >= bound:
            return False
    return bound > 0.0


_BLENDING = [kind for kind in range(1, KINDS + 1) if blends(kind)]


def may_blend(bounds: Sequence[float]) -> bool:
    """Whether a kind that blends can be drawn; kinds behind the last bound cannot. Mirrors mix_math.h::may_blend."""
    return any(kind <= len(bounds) and can_draw(kind, bounds) for kind in _BLENDING)


def first_below(bounds: Sequence[float], word: Tensor) -> Tensor:
    """Which bound, from 1, is the first that a random number is below; 0 where there is none. Mirrors
    mix_math.h::first_below."""
    number = unit_float(word)
    first = torch.zeros_like(word)
    for each in reversed(range(len(bounds))):  # the first bound comes last, and prevails
        first = torch.where(number < torch.full_like(number, bounds[each]), each + 1, first)
    return first


def sample_plan(
    seed: Tensor,
    quantiles: Tensor,
    bounds: Sequence[float],
    sampling: Sequence[int],
    batch: int,
    height: int,
    width: int,
) -> Tensor:
    """The packed plan, int32 (batch, 8), one row a sample. Mirrors mix_math.h::sample_row."""
    scope, partner, placement, correct_lam = Sampling(*sampling)
    index = torch.arange(batch, device=quantiles.device)
    if batch == 0:
        return index.new_empty((0, PLAN_COLUMNS), dtype=torch.int32)
    seed = seed.to(quantiles.device).reshape(1)
    partners = partner_of(partner_map(partner, seed, batch), index, batch)
    word_lam, word_x, word_y, word_kind = philox(seed, draw_index(scope, index, partners), PER_DRAW)
    kind = first_below(bounds, word_kind)
    kind = torch.where((partners == index) & has_partner(kind), int(Kind.keep), kind)
    if height == 0 or width == 0:
        kind = torch.full_like(kind, int(Kind.keep))

    lam = quantile(quantiles[(kind - 1).clamp(min=0)], word_lam)
    place = clipped_box if placement == Placement.clip else inside_box
    box = place(lam, word_x, word_y, height, width)
    if correct_lam:
        lam = torch.where(has_box(kind), share_outside(box, height, width), lam)
    lam = torch.where(mixes_target(kind), lam, torch.ones_like(lam))
    integers = [partners, *(torch.where(has_box(kind), edge, 0) for edge in box)]
    columns = [column.to(torch.int32) for column in integers]
    return torch.stack([*columns, lam.view(torch.int32), kind.to(torch.int32), torch.zeros_like(columns[0])], dim=1)


def valid_rows(plan: Tensor, height: int | None, width: int | None, can_blend: bool = True) -> Tensor:
    """Which rows may be followed, bool (batch,). Mirrors mix_math.h::valid_row."""
    partner, y0, x0, y1, x1, _, kind, _ = plan.unbind(1)
    lam = plan[:, 5].view(torch.float32)
    valid = (partner >= 0) & (partner < plan.shape[0]) & is_kind(kind)
    valid = valid & (y0 >= 0) & (y0 <= y1) & (x0 >= 0) & (x0 <= x1) & (lam >= 0) & (lam <= 1)
    if not can_blend:
        valid = valid & ~blends(kind)
    if height is not None and width is not None:
        valid = valid & (y1 <= height) & (x1 <= width)
    return valid


def involutive_rows(plan: Tensor) -> Tensor:
    """Which rows' partner has them as its partner, bool (batch,)."""
    batch = plan.shape[0]
    partner = plan[:, 0]
    there = (partner >= 0) & (partner < batch)
    if batch == 0:
        return there
    back = partner[partner.clamp(0, batch - 1).long()]
    return there & (back == torch.arange(batch, device=plan.device))


_SAME_SIZE_INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _as_bits(images: Tensor) -> Tensor:
    """The same memory as integers, because pixels are bytes; complex128, which no integer fits, stays."""
    integer = _SAME_SIZE_INTEGER.get(images.element_size())
    return images.view(integer) if integer is not None else images


def mixed_value(lam: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    """lam * own + (1 - lam) * partner, all of one dtype. Mirrors mix_math.h::mixed_value."""
    return lam * own + (1.0 - lam) * partner


def computed(kind: Kind, lam: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    """Changed pixels of a kind that reads its own, rounded once to their dtype. Mirrors mix_math.h::computed."""
    value = torch.float64 if own.dtype == torch.float64 else torch.float32
    changed = mixed_value(lam.to(value), own.to(value), partner.to(value))  # mixup, the only one
    return changed.round().to(torch.uint8) if own.dtype == torch.uint8 else changed.to(own.dtype)


def _fill_of(images: Tensor, fill: Sequence[int]) -> Tensor:
    """One element of the images, from the 16 bytes of fill."""
    pattern = torch.tensor(fill, dtype=torch.int64, device=images.device)
    return _as_bits(pattern.view(images.dtype)[:1]).squeeze(0)


def changed_pixels(
    own: Tensor,
    partner: Tensor,
    fill: Tensor,
    kind: Tensor,
    in_box: Tensor,
    compute: Callable[[Kind], Tensor],
) -> Tensor:
    """Pixels as mixing leaves them: what each kind makes of them, in the sample's box if the kind has one.

    kind and in_box are broadcast to the pixels; compute gives what becomes of those that a kind reads.
    """
    mixed = own
    for each in tuple(Kind)[1:]:  # without keep
        pixels = compute(each) if reads_own(each) else partner if has_partner(each) else fill
        changes = kind == int(each)
        mixed = torch.where(changes & in_box if has_box(each) else changes, pixels, mixed)
    return mixed


def _mix_pixels(images: Tensor, plan: Tensor, valid: Tensor, out: Tensor, fill: Sequence[int]) -> None:
    """Writes to out the mixed images, with a sample kept where its row of the plan is not valid."""
    if images.numel() == 0:
        return

    def per_sample(column: Tensor) -> Tensor:
        return column.reshape(-1, *[1] * (images.dim() - 1))

    partner, y0, x0, y1, x1, _, kind, _ = plan.unbind(1)
    kind = torch.where(valid, kind, int(Kind.keep))
    y = torch.arange(images.shape[-2], device=images.device)
    x = torch.arange(images.shape[-1], device=images.device)
    in_rows = (y >= y0[:, None]) & (y < y1[:, None])
    in_columns = (x >= x0[:, None]) & (x < x1[:, None])
    in_box = in_rows[:, :, None] & in_columns[:, None, :]
    in_box = in_box.reshape(images.shape[0], *[1] * (images.dim() - 3), *images.shape[-2:])
    partner = torch.where(valid, partner, 0).long()
    own = _as_bits(images)
    others = own[partner]
    lam = per_sample(plan[:, 5].view(torch.float32))
    computes = images.dtype in BLENDED_DTYPES and (images.is_cuda or blends(kind).any())  # a GPU is not asked

    def compute(each: Kind) -> Tensor:
        return _as_bits(computed(each, lam, images, images[partner])) if computes else own

    filled = _fill_of(images, fill)
    mixed = changed_pixels(own, others, filled, per_sample(kind), in_box, compute)
    _as_bits(out).copy_(mixed)


def smoothing_of(label_smoothing: float, num_classes: int) -> tuple[float, float, float]:
    """Scale, off and on value. Mirrors mix_math.h::smoothing_of."""
    scale = 1.0 - label_smoothing
    off = label_smoothing / num_classes if num_classes > 0 else 0.0
    return scale, off, scale + off


def soft_targets(labels: Tensor, plan: Tensor, valid: Tensor, target_format: TargetFormat) -> Tensor:
    """Soft targets, (batch, num_classes). Mirrors targets.h::target_value."""
    num_classes, label_smoothing, dtype = target_format
    batch = plan.shape[0]
    value = torch.float64 if dtype == torch.float64 else torch.float32
    scale, off, on = (
        torch.full((), x, dtype=value, device=plan.device) for x in smoothing_of(label_smoothing, num_classes)
    )
    keep = ~mixes_target(plan[:, 6])
    partner = torch.where(valid, plan[:, 0], 0).long()
    if labels.is_floating_point():
        own = labels.to(value) * scale + off
    else:
        signed = labels.view(torch.int64) if labels.dtype == torch.uint64 else labels.long()
        known = (signed >= 0) & (signed < num_classes)
        valid = valid & known & (keep | known[partner]) if batch > 0 else valid
        own = torch.where(signed[:, None] == torch.arange(num_classes, device=plan.device), on, off)
    lam = plan[:, 5].view(torch.float32).to(value)[:, None]
    targets = torch.where(keep[:, None], own, mixed_value(lam, own, own[partner]))
    return torch.where(valid[:, None], targets, torch.full_like(lam, float("nan"))).to(dtype)


def _run(
    images: Tensor,
    labels: Tensor | None,
    plan: Tensor,
    target_format: TargetFormat,
    out: Tensor,
    fill: Sequence[int],
    in_place: bool = False,
) -> Tensor:
    """Mixes images into out by a given plan; returns the targets."""
    valid = valid_rows(plan, images.shape[-2], images.shape[-1], images.dtype in BLENDED_DTYPES)
    if in_place:
        valid = valid & involutive_rows(plan)
    _mix_pixels(images, plan, valid, out, fill)
    if labels is None:
        return images.new_empty((images.shape[0], 0), dtype=target_format.dtype)
    return soft_targets(labels, plan, valid, target_format)


def _sampled(draw: Draw, images: Tensor) -> Tensor:
    return sample_plan(*draw, images.shape[0], *images.shape[-2:])


# The ops, in the order of _ops.py.


def mix_targets(labels, plan, num_classes, label_smoothing, dtype):
    return soft_targets(labels, plan, valid_rows(plan, None, None), TargetFormat(num_classes, label_smoothing, dtype))


def apply(images, labels, plan, num_classes, label_smoothing, dtype, fill=NO_FILL):
    out = torch.empty_like(images)
    return out, apply_out(images, labels, plan, num_classes, label_smoothing, dtype, out, fill)


def apply_out(images, labels, plan, num_classes, label_smoothing, dtype, out, fill=NO_FILL):
    return _run(images, labels, plan, TargetFormat(num_classes, label_smoothing, dtype), out, fill)


def apply_(images, labels, plan, num_classes, label_smoothing, dtype, fill=NO_FILL):
    return _run(images, labels, plan, TargetFormat(num_classes, label_smoothing, dtype), images, fill, in_place=True)


def sample_and_apply(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype,
    fill=NO_FILL, check_labels=False,
):  # fmt: skip
    seed = seed_of_call(seed, labels, num_classes, check_labels)
    plan = _sampled(Draw(seed, quantiles, bounds, sampling), images)
    return *apply(images, labels, plan, num_classes, label_smoothing, dtype, fill), plan


def sample_and_apply_out(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype, out,
    fill=NO_FILL, check_labels=False,
):  # fmt: skip
    seed = seed_of_call(seed, labels, num_classes, check_labels)
    plan = _sampled(Draw(seed, quantiles, bounds, sampling), images)
    return apply_out(images, labels, plan, num_classes, label_smoothing, dtype, out, fill), plan


def sample_and_apply_(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype,
    fill=NO_FILL, check_labels=False,
):  # fmt: skip
    seed = seed_of_call(seed, labels, num_classes, check_labels)
    plan = _sampled(Draw(seed, quantiles, bounds, sampling), images)
    return apply_(images, labels, plan, num_classes, label_smoothing, dtype, fill), plan


OPS = {
    "sample_plan": sample_plan,
    "mix_targets": mix_targets,
    "apply": apply,
    "apply_out": apply_out,
    "apply_": apply_,
    "sample_and_apply": sample_and_apply,
    "sample_and_apply_out": sample_and_apply_out,
    "sample_and_apply_": sample_and_apply_,
}
assert QUANTILE_INTERVALS == 1 << 12  # philox words are split 12 | 20 in quantile()
