"""Bad input: an error of the right type names the argument, what came and what is valid, and nothing is written.

Seeds, and what a plan is made of, are in test_plan.py; laws of lambda in test_distributions.py.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple, cast

import pytest
import torch

import cutmix_cuda
from cutmix_cuda import CutMix, Cutout, Mix, MixPlan, MixUp, PairTargets

from ..helpers import assert_same_bits, random_images

BATCH, CHANNELS, HEIGHT, WIDTH, CLASSES = 4, 3, 6, 9, 5
SHAPE = (BATCH, CHANNELS, HEIGHT, WIDTH)


class Good:
    """Arguments that work, for a case to spoil one of."""

    def __init__(self) -> None:
        self.images = random_images(SHAPE)
        self.labels = torch.tensor([0, 4, 2, 1])
        self.soft = torch.rand(BATCH, CLASSES)
        self.out = random_images(SHAPE, seed=1)
        self.plan = cutmix_cuda.sample_plan(BATCH, HEIGHT, WIDTH, seed=1)

    def tensors(self) -> list[torch.Tensor]:
        return [self.images, self.labels, self.soft, self.out, self.plan.packed]

    def cutmix(self, images: Any = ..., labels: Any = ..., num_classes: Any = CLASSES, **how: Any):
        """A call with some arguments replaced."""
        return cutmix_cuda.cutmix(*self._given(images, labels), num_classes, seed=1, **how)

    def cutmix_(self, images: Any = ..., labels: Any = ..., num_classes: Any = CLASSES, **how: Any):
        return cutmix_cuda.cutmix_(*self._given(images, labels), num_classes, seed=1, **how)

    def mix(self, images: Any = ..., labels: Any = ..., num_classes: Any = CLASSES, **how: Any):
        return cutmix_cuda.mix(*self._given(images, labels), num_classes, seed=1, **how)

    def mix_(self, images: Any = ..., labels: Any = ..., num_classes: Any = CLASSES, **how: Any):
        return cutmix_cuda.mix_(*self._given(images, labels), num_classes, seed=1, **how)

    def mixup_plan(self) -> MixPlan:
        return cutmix_cuda.Mix(cutmix_alpha=0).sample_plan(BATCH, HEIGHT, WIDTH, seed=1)

    def _given(self, images: Any, labels: Any) -> tuple[Any, Any]:
        return self.images if images is ... else images, self.labels if labels is ... else labels

    def edited_plan(self, row: int, column: int, value: int) -> MixPlan:
        packed = self.plan.packed.clone()
        packed[row, column] = value
        return MixPlan(packed, HEIGHT, WIDTH)

    def plan_with_lam(self, lam: float) -> MixPlan:
        packed = self.plan.packed.clone()
        packed[1, 5] = torch.tensor([lam]).view(torch.int32)
        return MixPlan(packed, HEIGHT, WIDTH)


class Case(NamedTuple):
    call: Callable[[Good], object]
    error: type[Exception]
    says: tuple[str, ...]  # what the message has in it: the argument first


def boxes(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows)


def quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still around
        return torch.quantize_per_tensor(torch.rand(SHAPE), 0.1, 0, torch.quint8)


CASES: dict[str, Case] = {
    # images
    "images: a list": Case(lambda g: g.cutmix([[1.0]]), TypeError, ("images", "tensor", "list")),
    "images: None": Case(lambda g: g.cutmix(None), TypeError, ("images", "tensor", "NoneType")),
    "images: 2-D": Case(lambda g: g.cutmix(torch.rand(4, 6)), ValueError, ("images", "3 to 8 dim", "(4, 6)")),
    "images: 9-D": Case(lambda g: g.cutmix(torch.rand([4] + [1] * 8)), ValueError, ("images", "3 to 8 dim", "(4, 1")),
    "images: sparse": Case(lambda g: g.cutmix(torch.rand(SHAPE).to_sparse()), TypeError, ("images", "dense", "sparse")),
    "images: quantised": Case(lambda g: g.cutmix(quantized()), TypeError, ("images", "quantized", "int_repr")),
    "images: grad": Case(lambda g: g.cutmix(torch.rand(SHAPE, requires_grad=True)), ValueError, ("images", "detach()")),
    "images: a result that requires grad": Case(
        lambda g: g.cutmix(torch.rand(SHAPE, requires_grad=True) * 2), ValueError, ("images", "detach()")
    ),
    # labels and num_classes
    "labels: a list": Case(lambda g: g.cutmix(labels=[0, 1, 2, 3]), TypeError, ("labels", "tensor", "list")),
    "labels: 2-D integers": Case(
        lambda g: g.cutmix(labels=g.labels[:, None]), ValueError, ("labels", "(4,)", "(4, 1)")
    ),
    "labels: 0-D": Case(lambda g: g.cutmix(labels=torch.tensor(1)), ValueError, ("labels", "(batch,)", "()")),
    "labels: 1-D floats": Case(
        lambda g: g.cutmix(labels=torch.rand(BATCH)), ValueError, ("labels", "(batch, num_classes)", "float32", "(4,)")
    ),
    "labels: 3-D floats": Case(lambda g: g.cutmix(labels=torch.rand(4, 5, 1)), ValueError, ("labels", "(4, 5, 1)")),
    "labels: too few": Case(lambda g: g.cutmix(labels=g.labels[:3]), ValueError, ("labels", "4", "3")),
    "labels: too many soft": Case(lambda g: g.cutmix(labels=torch.rand(5, CLASSES)), ValueError, ("labels", "4", "5")),
    "labels: bool": Case(lambda g: g.cutmix(labels=g.labels > 1), TypeError, ("labels", "int64", "bool")),
    "labels: complex": Case(
        lambda g: g.cutmix(labels=g.soft.to(torch.complex64)), TypeError, ("labels", "float32", "complex64")
    ),
    "labels: float8": Case(
        lambda g: g.cutmix(labels=g.soft.to(torch.float8_e5m2)), TypeError, ("labels", "float32", "float8_e5m2")
    ),
    "labels: another device": Case(
        lambda g: g.cutmix(labels=g.labels.to("meta")), ValueError, ("labels", "device", "cpu", "meta")
    ),
    "labels: soft, grad": Case(
        lambda g: g.cutmix(labels=torch.rand(BATCH, CLASSES, requires_grad=True)), ValueError, ("labels", "detach()")
    ),
    "labels: -1": Case(
        lambda g: g.cutmix(labels=torch.tensor([0, 1, -1, 2])), ValueError, ("labels", "0..4", "-1", "sample 2")
    ),
    "labels: ignore_index": Case(lambda g: g.cutmix(labels=torch.full((4,), -100)), ValueError, ("labels", "-100")),
    "labels: num_classes": Case(
        lambda g: g.cutmix(labels=torch.tensor([0, 5, 1, 2])), ValueError, ("labels", "0..4", "5", "sample 1")
    ),
    "labels: uint8 past num_classes": Case(
        lambda g: g.cutmix(labels=torch.tensor([0, 255, 1, 2], dtype=torch.uint8)), ValueError, ("labels", "255")
    ),
    "labels: uint16 past num_classes": Case(
        lambda g: g.cutmix(labels=torch.tensor([0, 65535, 1, 2], dtype=torch.uint16)), ValueError, ("labels", "65535")
    ),
    "labels: uint64 past 2^63": Case(
        lambda g: g.cutmix(labels=torch.tensor([0, 2**63, 1, 2], dtype=torch.uint64)), ValueError, ("labels", "0..4")
    ),
    "labels: one-hot integers": Case(
        lambda g: g.cutmix(labels=torch.eye(4).long()),
        ValueError,
        ("integer labels", "(4,)", "(4, 4)", "labels.float()"),
    ),
    "num_classes: missing": Case(lambda g: g.cutmix(num_classes=None), ValueError, ("num_classes", "integer labels")),
    "num_classes: 0": Case(lambda g: g.cutmix(num_classes=0), ValueError, ("num_classes", "positive", "0")),
    "num_classes: too many": Case(
        lambda g: g.cutmix(num_classes=2**31), ValueError, ("num_classes", "at most 2147483647", "2147483648")
    ),
    "images: too many pixels": Case(
        lambda g: g.cutmix(torch.empty(1, 1, 1).expand(1, 2**16, 2**15)),
        ValueError,
        ("images", "2147483647 pixels", "32768"),
    ),
    "sample_plan: too high": Case(
        lambda g: cutmix_cuda.sample_plan(1, 2**31, 1), ValueError, ("height", "at most 2147483647", "2147483648")
    ),
    "sample_plan: too many": Case(
        lambda g: cutmix_cuda.sample_plan(2**30 + 1, 1, 1), ValueError, ("batch_size", "at most 1073741824")
    ),
    "mix_targets: a list": Case(
        lambda g: cutmix_cuda.mix_targets(cast(Any, [0, 1, 2, 3]), g.plan, CLASSES),
        TypeError,
        ("labels", "tensor", "list"),
    ),
    "mix_targets: 0-D": Case(
        lambda g: cutmix_cuda.mix_targets(torch.tensor(1), g.plan, CLASSES), ValueError, ("labels", "(batch,)", "()")
    ),
    "pairs: -100": Case(
        lambda g: g.cutmix(labels=torch.full((4,), -100), num_classes=None, targets="pairs"),
        ValueError,
        ("labels", "not be negative", "-100", "sample 0"),
    ),
    "scope: a list": Case(lambda g: g.cutmix(scope=[]), ValueError, ("scope", "'sample'", "[]")),
    "num_classes: -3": Case(lambda g: g.cutmix(num_classes=-3), ValueError, ("num_classes", "positive", "-3")),
    "num_classes: a float": Case(lambda g: g.cutmix(num_classes=5.0), TypeError, ("num_classes", "int", "5.0")),
    "num_classes: True": Case(lambda g: g.cutmix(num_classes=True), TypeError, ("num_classes", "int", "True")),
    "num_classes: at odds": Case(
        lambda g: g.cutmix(labels=g.soft, num_classes=6), ValueError, ("num_classes", "soft labels", "5", "6")
    ),
    "num_classes: 0, no labels": Case(
        lambda g: g.cutmix(labels=None, num_classes=0), ValueError, ("num_classes", "positive", "0")
    ),
    # how to sample
    "alpha: 0": Case(lambda g: g.cutmix(alpha=0.0), ValueError, ("alpha", "positive", "0.0")),
    "alpha: negative": Case(lambda g: g.cutmix(alpha=-1), ValueError, ("alpha", "positive", "-1")),
    "alpha: NaN": Case(lambda g: g.cutmix(alpha=float("nan")), ValueError, ("alpha", "finite", "nan")),
    "alpha: infinite": Case(lambda g: g.cutmix(alpha=float("inf")), ValueError, ("alpha", "finite", "inf")),
    "alpha: a string": Case(lambda g: g.cutmix(alpha="1"), TypeError, ("alpha", "number", "'1'")),
    "alpha: None": Case(lambda g: g.cutmix(alpha=None), TypeError, ("alpha", "number", "None")),
    "prob: above": Case(lambda g: g.cutmix(prob=1.01), ValueError, ("prob", "[0, 1]", "1.01")),
    "prob: below": Case(lambda g: g.cutmix(prob=-0.01), ValueError, ("prob", "[0, 1]", "-0.01")),
    "prob: NaN": Case(lambda g: g.cutmix(prob=float("nan")), ValueError, ("prob", "[0, 1]", "nan")),
    "prob: None": Case(lambda g: g.cutmix(prob=None), TypeError, ("prob", "[0, 1]", "None")),
    "label_smoothing: above": Case(
        lambda g: g.cutmix(label_smoothing=2), ValueError, ("label_smoothing", "[0, 1]", "2")
    ),
    "label_smoothing: NaN": Case(
        lambda g: g.cutmix(label_smoothing=float("nan")), ValueError, ("label_smoothing", "[0, 1]", "nan")
    ),
    "label_smoothing: a string": Case(
        lambda g: g.cutmix(label_smoothing="0.1"), TypeError, ("label_smoothing", "[0, 1]", "'0.1'")
    ),
    "scope: unknown": Case(
        lambda g: g.cutmix(scope="elem"), ValueError, ("scope", "'sample', 'pair', 'batch'", "'elem'")
    ),
    "partner: unknown": Case(
        lambda g: g.cutmix(partner="random"), ValueError, ("partner", "'roll', 'flip', 'shift', 'mirror'", "'random'")
    ),
    "placement: unknown": Case(
        lambda g: g.cutmix(placement="center"), ValueError, ("placement", "'clip', 'inside'", "'center'")
    ),
    "placement: None": Case(lambda g: g.cutmix(placement=None), ValueError, ("placement", "'clip'", "None")),
    "target_dtype: int": Case(
        lambda g: g.cutmix(target_dtype=torch.int64), ValueError, ("target_dtype", "float32", "int64")
    ),
    "dtype: int": Case(
        lambda g: cutmix_cuda.mix_targets(g.labels, g.plan, CLASSES, target_dtype=torch.int64),
        ValueError,
        ("target_dtype", "int64"),
    ),
    "backend: unknown": Case(
        lambda g: g.cutmix(backend="gpu"), ValueError, ("backend", "cuda, triton, cpu, reference", "'gpu'")
    ),
    "seed: another device": Case(
        lambda g: cutmix_cuda.cutmix(g.images, seed=torch.tensor([1], device="meta")),
        ValueError,
        ("seed", "cpu", "meta"),
    ),
    # in place
    "in place: roll": Case(
        lambda g: g.cutmix_(partner="roll"), ValueError, ("partner", "'flip' or 'mirror'", "'roll'")
    ),
    "in place: shift": Case(lambda g: g.cutmix_(partner="shift"), ValueError, ("partner", "inverse", "'shift'")),
    "in place: expanded": Case(
        lambda g: g.cutmix_(g.images[:, :1].expand(SHAPE)), ValueError, ("images", "overlap", "(162, 0, 9, 1)")
    ),
    "in place: overlapping windows": Case(
        lambda g: g.cutmix_(g.images.as_strided((4, 3, 6, 9), (60, 20, 8, 1))), ValueError, ("images", "overlap")
    ),
    "in place: conjugate": Case(
        lambda g: g.cutmix_(torch.rand(SHAPE).to(torch.complex64).conj()),
        ValueError,
        ("images", "conjugate", "resolve_conj"),
    ),
    "in place: labels": Case(
        lambda g: g.cutmix_(labels=torch.tensor([0, 1, 2, 7])), ValueError, ("labels", "0..4", "7")
    ),
    "in place: num_classes": Case(lambda g: g.cutmix_(num_classes=None), ValueError, ("num_classes",)),
    "in place: grad": Case(
        lambda g: g.cutmix_(torch.rand(SHAPE, requires_grad=True)), ValueError, ("images", "detach()")
    ),
    "in place: a plan that is not its own inverse": Case(
        lambda g: cutmix_cuda.mix_images_(
            g.images, MixPlan.from_boxes(torch.tensor([1, 2, 3, 0]), boxes(*[[0, 0, 2, 2]] * 4), HEIGHT, WIDTH)
        ),
        ValueError,
        ("plan", "inverse", "row 0", "partner 1", "2"),
    ),
    "in place: apply_plan_ with a bad label": Case(
        lambda g: cutmix_cuda.apply_plan_(g.images, torch.tensor([9, 0, 0, 0]), g.plan, CLASSES),
        ValueError,
        ("labels", "9"),
    ),
    "in place: mix_images_ on expanded": Case(
        lambda g: cutmix_cuda.mix_images_(g.images[:1].expand(SHAPE), g.plan), ValueError, ("images", "overlap")
    ),
    # out
    "out: a list": Case(lambda g: g.cutmix(out=[]), TypeError, ("out", "tensor", "list")),
    "out: shape": Case(
        lambda g: g.cutmix(out=g.out[:, :2]), ValueError, ("out", "shape", "[4, 3, 6, 9]", "[4, 2, 6, 9]")
    ),
    "out: dtype": Case(lambda g: g.cutmix(out=g.out.half()), ValueError, ("out", "dtype", "float32", "float16")),
    "out: device": Case(lambda g: g.cutmix(out=g.out.to("meta")), ValueError, ("out", "device", "cpu", "meta")),
    "out: sparse": Case(lambda g: g.cutmix(out=g.out.to_sparse()), TypeError, ("out", "dense", "sparse")),
    "out: grad": Case(lambda g: g.cutmix(out=torch.rand(SHAPE, requires_grad=True)), ValueError, ("out", "detach()")),
    "out: the images": Case(lambda g: g.cutmix(out=g.images), ValueError, ("out", "overlap images")),
    "out: a view of the images": Case(
        lambda g: g.cutmix(g.out[:2], g.labels[:2], out=g.out[1:3]), ValueError, ("out", "overlap images")
    ),
    "out: expanded": Case(
        lambda g: g.cutmix(out=g.out[:1].expand(SHAPE)), ValueError, ("out", "overlap itself", "(0, 54, 9, 1)")
    ),
    "out: conjugate": Case(
        lambda g: cutmix_cuda.cutmix(g.images.to(torch.complex64), seed=1, out=g.out.to(torch.complex64).conj()),
        ValueError,
        ("out", "conjugate", "resolve_conj"),
    ),
    "out: of mix_images": Case(
        lambda g: cutmix_cuda.mix_images(g.images, g.plan, out=g.images), ValueError, ("out", "overlap images")
    ),
    # plans
    "plan: a tensor": Case(
        lambda g: cutmix_cuda.mix_images(g.images, cast(Any, g.plan.packed)), TypeError, ("plan", "MixPlan", "Tensor")
    ),
    "plan: another batch size": Case(
        lambda g: cutmix_cuda.mix_images(g.images, cutmix_cuda.sample_plan(5, HEIGHT, WIDTH, seed=1)),
        ValueError,
        ("plan", "4", "5"),
    ),
    "plan: another batch size, targets": Case(
        lambda g: cutmix_cuda.mix_targets(g.labels, cutmix_cuda.sample_plan(5, HEIGHT, WIDTH, seed=1), CLASSES),
        ValueError,
        ("plan", "4", "5"),
    ),
    "plan: another height": Case(
        lambda g: cutmix_cuda.mix_images(g.images, cutmix_cuda.sample_plan(BATCH, 7, WIDTH, seed=1)),
        ValueError,
        ("plan", "height 6", "7"),
    ),
    "plan: height and width swapped": Case(
        lambda g: cutmix_cuda.mix_images(g.images, cutmix_cuda.sample_plan(BATCH, WIDTH, HEIGHT, seed=1)),
        ValueError,
        ("plan", "width 9", "6"),
    ),
    "plan: another device": Case(
        lambda g: cutmix_cuda.mix_images(g.images, MixPlan(g.plan.packed.to("meta"), HEIGHT, WIDTH)),
        ValueError,
        ("plan", "device", "cpu", "meta"),
    ),
    "plan: partner above": Case(
        lambda g: cutmix_cuda.mix_images(g.images, g.edited_plan(2, 0, 4)), ValueError, ("plan", "0..3", "row 2", "4")
    ),
    "plan: partner below": Case(
        lambda g: cutmix_cuda.mix_images_(g.images, g.edited_plan(2, 0, -1)), ValueError, ("plan", "row 2", "-1")
    ),
    "plan: box above": Case(
        lambda g: cutmix_cuda.mix_images(g.images, g.edited_plan(1, 3, 7)), ValueError, ("plan", "<= 6", "row 1", "7")
    ),
    "plan: box below": Case(
        lambda g: cutmix_cuda.mix_images_(g.images, g.edited_plan(1, 2, -1)), ValueError, ("plan", "row 1", "-1")
    ),
    "plan: unknown kind": Case(
        lambda g: cutmix_cuda.apply_plan(g.images, g.labels, g.edited_plan(0, 6, 9), CLASSES),
        ValueError,
        ("plan", "kind in 0..3", "row 0", "kind 9"),
    ),
    "plan: partner above, targets": Case(
        lambda g: cutmix_cuda.mix_targets(g.labels, g.edited_plan(2, 0, 4), CLASSES), ValueError, ("plan", "row 2")
    ),
    "plan: lam above 1": Case(
        lambda g: cutmix_cuda.mix_targets(g.labels, g.plan_with_lam(1.5), CLASSES), ValueError, ("plan", "lam", "1.5")
    ),
    "plan: lam NaN": Case(
        lambda g: cutmix_cuda.mix_images(g.images, g.plan_with_lam(float("nan"))), ValueError, ("plan", "lam", "nan")
    ),
    # kinds
    "mix: int64 images": Case(lambda g: g.mix(g.images.long()), TypeError, ("images", "uint8", "float64", "int64")),
    "mix: bool images": Case(lambda g: g.mix(g.images > 0), TypeError, ("images", "mixup", "bool")),
    "mix: complex images": Case(
        lambda g: g.mix(g.images.to(torch.complex64)), TypeError, ("images", "mixup", "complex64")
    ),
    "mix: int64 images in place": Case(lambda g: g.mix_(g.images.long()), TypeError, ("images", "mixup", "int64")),
    "plan: mixup of int64 images": Case(
        lambda g: cutmix_cuda.apply_plan(g.images.long(), g.labels, g.mixup_plan(), CLASSES),
        TypeError,
        ("images", "mixup", "int64"),
    ),
    "plan: mixup of bool images in place": Case(
        lambda g: cutmix_cuda.mix_images_(g.images > 0, g.mixup_plan()), TypeError, ("images", "mixup", "bool")
    ),
    "cutmix_alpha: negative": Case(lambda g: g.mix(cutmix_alpha=-1.0), ValueError, ("cutmix_alpha", "positive", "-1")),
    "cutmix_alpha: NaN": Case(
        lambda g: g.mix(cutmix_alpha=float("nan")), ValueError, ("cutmix_alpha", "finite", "nan")
    ),
    "cutmix_alpha: a string": Case(lambda g: g.mix(cutmix_alpha="1"), TypeError, ("cutmix_alpha", "number", "'1'")),
    "mixup_alpha: negative": Case(lambda g: g.mix(mixup_alpha=-0.2), ValueError, ("mixup_alpha", "positive", "-0.2")),
    "mixup_alpha: NaN": Case(lambda g: g.mix(mixup_alpha=float("nan")), ValueError, ("mixup_alpha", "finite", "nan")),
    "mixup_alpha: infinite": Case(
        lambda g: g.mix(mixup_alpha=float("inf")), ValueError, ("mixup_alpha", "finite", "inf")
    ),
    "mixup_alpha: a list": Case(lambda g: g.mix(mixup_alpha=[0.2]), TypeError, ("mixup_alpha", "number", "[0.2]")),
    "cutout: above": Case(lambda g: g.mix(cutout=1.1), ValueError, ("cutout", "[0, 1]", "1.1")),
    "cutout: NaN": Case(lambda g: g.mix(cutout=float("nan")), ValueError, ("cutout", "[0, 1]", "nan")),
    "cutout: None": Case(lambda g: g.mix(cutout=None), TypeError, ("cutout", "number", "None")),
    "switch_prob: below": Case(lambda g: g.mix(switch_prob=-0.5), ValueError, ("switch_prob", "[0, 1]", "-0.5")),
    "switch_prob: a string": Case(lambda g: g.mix(switch_prob="half"), TypeError, ("switch_prob", "'half'")),
    "mix, prob: above": Case(lambda g: g.mix(prob=2), ValueError, ("prob", "[0, 1]", "2")),
    "cutout_area: above": Case(lambda g: g.mix(cutout_area=1.5), ValueError, ("cutout_area", "[0, 1]", "1.5")),
    "cutout_area: below": Case(lambda g: g.mix(cutout_area=-0.1), ValueError, ("cutout_area", "[0, 1]", "-0.1")),
    "cutout_area: None": Case(lambda g: g.mix(cutout_area=None), TypeError, ("cutout_area", "number", "None")),
    "fill: a string": Case(lambda g: g.mix(fill="0"), TypeError, ("fill", "number", "'0'")),
    "fill: a tensor": Case(lambda g: g.mix(fill=torch.zeros(3)), TypeError, ("fill", "number", "tensor")),
    "fill: above float16": Case(
        lambda g: g.mix(g.images.half(), fill=1e6), ValueError, ("fill", "float16", "1000000.0")
    ),
    "fill: below bfloat16": Case(
        lambda g: g.mix_(g.images.bfloat16(), fill=-1e39), ValueError, ("fill", "bfloat16", "-1e+39")
    ),
    "fill: above float8": Case(
        lambda g: g.mix(g.images.to(torch.float8_e4m3fn), mixup_alpha=0, fill=449),
        ValueError,
        ("fill", "float8_e4m3fn", "449"),
    ),
    "fill: above complex64": Case(
        lambda g: g.mix(g.images.to(torch.complex64), mixup_alpha=0, fill=1e39), ValueError, ("fill", "complex64")
    ),
    "fill: beyond any float": Case(lambda g: g.mix(fill=10**400), ValueError, ("fill", "float32", "1000000")),
    "fill: a fraction beyond any float": Case(
        lambda g: g.mix(fill=Fraction(10**400)), ValueError, ("fill", "images' dtype", "Fraction")
    ),
    "fill: above uint64": Case(
        lambda g: g.mix(g.images.to(torch.uint64), mixup_alpha=0, fill=2**64),
        ValueError,
        ("fill", "uint64", str(2**64)),
    ),
    "fill: above uint8": Case(
        lambda g: g.mix(g.images.to(torch.uint8), fill=300), ValueError, ("fill", "uint8", "300")
    ),
    "fill: between uint8s": Case(
        lambda g: g.mix(g.images.to(torch.uint8), fill=0.5), ValueError, ("fill", "uint8", "0.5")
    ),
    "fill: below uint8, in place": Case(
        lambda g: g.mix_(g.images.to(torch.uint8), fill=-1), ValueError, ("fill", "uint8", "-1")
    ),
    "fill: NaN for integers": Case(
        lambda g: g.mix(g.images.long(), mixup_alpha=0, fill=float("nan")), ValueError, ("fill", "int64", "nan")
    ),
    "fill: above int64": Case(
        lambda g: g.mix(g.images.long(), mixup_alpha=0, fill=2.0**63), ValueError, ("fill", "int64")
    ),
    "fill: 2 for bool": Case(lambda g: g.mix(g.images > 0, mixup_alpha=0, fill=2), ValueError, ("fill", "bool", "2")),
    "fill: of apply_plan": Case(
        lambda g: cutmix_cuda.apply_plan(g.images.long(), g.labels, g.plan, CLASSES, fill=0.5),
        ValueError,
        ("fill", "int64", "0.5"),
    ),
    "fill: of mix_images_": Case(
        lambda g: cutmix_cuda.mix_images_(g.images, g.plan, fill=cast(Any, "red")), TypeError, ("fill", "'red'")
    ),
    "mix: in place with roll": Case(lambda g: g.mix_(partner="roll"), ValueError, ("partner", "inverse", "'roll'")),
    "mix: in place with a bad label": Case(
        lambda g: g.mix_(labels=torch.tensor([0, 1, 2, 7])), ValueError, ("labels", "0..4", "7")
    ),
    "mix: in place, expanded": Case(lambda g: g.mix_(g.images[:1].expand(SHAPE)), ValueError, ("images", "overlap")),
    # the modules: whatever does not depend on the batch at once
    "Mix: int64 images": Case(lambda g: Mix()(g.images.long()), TypeError, ("images", "mixup", "int64")),
    "Mix: bool images": Case(lambda g: Mix(inplace=True)(g.images > 0), TypeError, ("images", "mixup", "bool")),
    "Mix: cutmix_alpha": Case(lambda g: Mix(cutmix_alpha=-1), ValueError, ("cutmix_alpha", "positive", "-1")),
    "Mix: mixup_alpha": Case(lambda g: Mix(mixup_alpha=cast(Any, "1")), TypeError, ("mixup_alpha", "'1'")),
    "Mix: cutout": Case(lambda g: Mix(cutout=-0.1), ValueError, ("cutout", "[0, 1]", "-0.1")),
    "Mix: cutout_area": Case(lambda g: Mix(cutout_area=2), ValueError, ("cutout_area", "[0, 1]", "2")),
    "Mix: switch_prob": Case(lambda g: Mix(switch_prob=float("nan")), ValueError, ("switch_prob", "[0, 1]", "nan")),
    "Mix: fill": Case(lambda g: Mix(fill=cast(Any, None)), TypeError, ("fill", "number", "None")),
    "Mix: fill that is no value of the images": Case(
        lambda g: Mix(fill=0.5)(g.images.to(torch.uint8)), ValueError, ("fill", "uint8", "0.5")
    ),
    "Mix: in place with shift": Case(
        lambda g: Mix(inplace=True, partner="shift"), ValueError, ("partner", "inverse", "'shift'")
    ),
    "MixUp: alpha": Case(lambda g: MixUp(alpha=-1.0), ValueError, ("alpha", "positive", "-1.0")),
    "MixUp: int64 images": Case(lambda g: MixUp()(g.images.long()), TypeError, ("images", "mixup", "int64")),
    "Cutout: area": Case(lambda g: Cutout(area=1.5), ValueError, ("area", "[0, 1]", "1.5")),
    "Cutout: fill": Case(lambda g: Cutout(fill=0.5)(g.images.to(torch.uint8)), ValueError, ("fill", "uint8", "0.5")),
    "CutMix: alpha": Case(lambda g: CutMix(alpha=0), ValueError, ("alpha", "positive", "0")),
    "CutMix: prob": Case(lambda g: CutMix(prob=2), ValueError, ("prob", "[0, 1]", "2")),
    "CutMix: num_classes": Case(lambda g: CutMix(num_classes=0), ValueError, ("num_classes", "positive", "0")),
    "CutMix: scope": Case(lambda g: CutMix(scope="all"), ValueError, ("scope", "'all'")),  # type: ignore[call-overload]
    "CutMix: in place with roll": Case(
        lambda g: CutMix(inplace=True, partner="roll"), ValueError, ("partner", "inverse", "'roll'")
    ),
    "CutMix: backend": Case(lambda g: CutMix(backend="tpu"), ValueError, ("backend", "cpu", "'tpu'")),  # type: ignore[call-overload]
    "CutMix: target_dtype": Case(lambda g: CutMix(target_dtype=torch.uint8), ValueError, ("target_dtype", "uint8")),
    "CutMix: no num_classes": Case(
        lambda g: CutMix()(g.images, g.labels), ValueError, ("num_classes", "integer labels")
    ),
    "CutMix: in place, bad label": Case(
        lambda g: CutMix(inplace=True, num_classes=2)(g.images, g.labels), ValueError, ("labels", "0..1", "4")
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_bad_input(case):
    good = Good()
    before = [tensor.clone() for tensor in good.tensors()]
    with pytest.raises(case.error) as raised:
        case.call(good)
    assert type(raised.value) is case.error
    for part in case.says:
        assert part in str(raised.value)
    for tensor, kept in zip(good.tensors(), before, strict=True):
        assert_same_bits(tensor, kept)


def nested(tensor: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a prototype
        return torch.nested.nested_tensor(list(tensor))


NOT_DENSE: dict[str, Callable[[Good, Callable[[torch.Tensor], torch.Tensor]], object]] = {
    "images": lambda g, spoil: g.cutmix(spoil(g.images)),
    "images ": lambda g, spoil: cutmix_cuda.mix_images_(spoil(g.images), g.plan),
    "labels": lambda g, spoil: g.cutmix(labels=spoil(g.soft)),
    "labels ": lambda g, spoil: cutmix_cuda.mix_targets(spoil(g.soft), g.plan),
    "labels  ": lambda g, spoil: g.cutmix(labels=spoil(g.labels[:, None]), targets="pairs"),
    "out": lambda g, spoil: g.cutmix(out=spoil(g.out)),
    "packed": lambda g, spoil: MixPlan(spoil(g.plan.packed), HEIGHT, WIDTH),
    "partner": lambda g, spoil: MixPlan.from_boxes(spoil(g.labels[:, None]), g.plan.boxes, HEIGHT, WIDTH),
    "boxes": lambda g, spoil: MixPlan.from_boxes(g.plan.partner, spoil(g.plan.boxes), HEIGHT, WIDTH),
    "kind": lambda g, spoil: MixPlan.from_boxes(
        g.plan.partner, g.plan.boxes, HEIGHT, WIDTH, kind=spoil(g.labels[:, None])
    ),
    "lam": lambda g, spoil: MixPlan.from_boxes(g.plan.partner, g.plan.boxes, HEIGHT, WIDTH, lam=spoil(g.soft)),
    "logits": lambda g, spoil: cutmix_cuda.cross_entropy(spoil(g.soft), PairTargets(g.labels, g.labels, g.soft[:, 0])),
    "y_b": lambda g, spoil: cutmix_cuda.cross_entropy(
        g.soft, PairTargets(g.labels, spoil(g.labels[:, None]), g.soft[:, 0])
    ),
    "weight": lambda g, spoil: cutmix_cuda.cross_entropy(
        g.soft, PairTargets(g.labels, g.labels, g.soft[:, 0]), weight=spoil(g.soft)
    ),
    "seed": lambda g, spoil: cutmix_cuda.cutmix(g.images, seed=spoil(torch.tensor([[1]]))),
    "seed ": lambda g, spoil: CutMix(seed=spoil(torch.tensor([[1]]))),
}


@pytest.mark.parametrize("spoil", [nested, torch.Tensor.to_sparse], ids=["nested", "sparse"])
@pytest.mark.parametrize("name", NOT_DENSE)
def test_what_is_not_dense_is_refused(name, spoil):
    with pytest.raises(
        TypeError, match=f"^{name.strip()} must be a dense tensor.*{'nested' if spoil is nested else ''}"
    ):
        NOT_DENSE[name](Good(), spoil)


def test_the_arguments_that_the_cases_spoil_are_good():
    good = Good()
    good.cutmix(out=good.out)
    good.cutmix(labels=good.soft)
    cutmix_cuda.apply_plan_(good.images, good.labels, good.plan, CLASSES)
    good.cutmix_()
    good.mix(out=good.out, cutout=0.5, fill=0.5)
    good.mix_()
    good.mix(good.images.to(torch.uint8), cutout=0.5, fill=255)
    good.mix(good.images.long(), mixup_alpha=0, cutout=0.5, fill=-1)
    cutmix_cuda.apply_plan(good.images, good.labels, good.mixup_plan(), CLASSES)


def test_a_backend_that_is_not_there(monkeypatch):
    """Asked for by name it says why it is absent and how to get it."""
    from cutmix_cuda import _backends

    monkeypatch.setitem(_backends._missing, "cpu", "_C.so was not built")
    for call in (
        lambda: cutmix_cuda.cutmix(torch.rand(SHAPE), backend="cpu"),
        lambda: CutMix(backend="cpu"),
        lambda: cutmix_cuda.sample_plan(4, 4, 4, backend="cpu"),
    ):
        with pytest.raises(RuntimeError, match=r"'cpu'.*_C\.so was not built.*CUTMIX_CUDA_BUILD=cpu"):
            call()


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_a_backend_on_the_wrong_device(backend):
    """Compiled, on this machine or not: it never runs on tensors that it cannot read."""
    if backend == "triton" and "triton" in cutmix_cuda.available_backends() and not torch.cuda.is_available():
        pytest.skip("interpreted, it runs on the CPU")
    images = random_images(SHAPE)
    before = images.clone()
    with pytest.raises((ValueError, RuntimeError), match=re.escape(f"backend {backend!r}")):
        cutmix_cuda.cutmix_(images, backend=backend)
    assert_same_bits(images, before)
