"""Targets as two class indices and a weight: the same targets as dense ones, and the same loss and gradient."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import cutmix_cuda
from cutmix_cuda import CutMix, Mix, MixedBoxes, MixPlan, PairTargets, cross_entropy

from ..helpers import INTEGERS, assert_same_bits, every_backend, generator, random_images, random_labels, soft_labels

CLASSES = 7
EVERY_KIND: dict[str, Any] = {"cutout": 0.2, "prob": 0.8}


def as_dense(pairs: PairTargets, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """lam * one_hot(y_a) + (1 - lam) * one_hot(y_b)."""
    own, partner = (F.one_hot(y.long(), num_classes).to(dtype) for y in (pairs.y_a, pairs.y_b))
    lam = pairs.lam.to(dtype)[:, None]
    return lam * own + (1 - lam) * partner


def plan_of_every_kind(batch: int, device: str = "cpu") -> MixPlan:
    """Boxes cut, blended, filled and none; some whose sample is its own partner."""
    plan = Mix(partner="mirror", **EVERY_KIND).sample_plan(batch, 7, 9, seed=5, device=device)
    assert set(plan.kind.tolist()) == {0, 1, 2, 3}
    return plan


# ---- The targets


@every_backend
@pytest.mark.parametrize("inplace", [False, True])
def test_mix_gives_the_plan_and_pixels_of_dense_targets(backend, inplace):
    images = torch.rand(33, 2, 7, 9, generator=generator(0)).to(backend.device)
    labels = random_labels(33, CLASSES).to(backend.device)
    how = {"seed": 5, "return_plan": True, "backend": backend.name, **EVERY_KIND}
    mix = cutmix_cuda.mix_ if inplace else cutmix_cuda.mix
    mixed, dense, plan = mix(images.clone(), labels, CLASSES, **how)
    for num_classes in (CLASSES, None):
        mixed_too, pairs, plan_too = mix(images.clone(), labels, num_classes, targets="pairs", **how)
        assert_same_bits(mixed_too, mixed)
        assert_same_bits(plan_too.packed, plan.packed)
        assert isinstance(pairs, PairTargets)
        assert_same_bits(as_dense(pairs, CLASSES), dense)
    assert set(plan.kind.tolist()) == {0, 1, 2, 3}


@every_backend
def test_cutmix_modules_and_plans_give_pairs(backend):
    images = torch.rand(8, 2, 7, 9, generator=generator(0)).to(backend.device)
    labels = random_labels(8, CLASSES).to(backend.device)
    _, dense, plan = cutmix_cuda.cutmix(images, labels, CLASSES, seed=5, return_plan=True)
    how = {"targets": "pairs", "backend": backend.name}
    module = CutMix(generator=generator(1), **how)
    torch_seed = torch.empty(1, dtype=torch.int64).random_(generator=generator(1))
    results = {
        "cutmix": cutmix_cuda.cutmix(images, labels, seed=5, **how)[1],
        "cutmix_": cutmix_cuda.cutmix_(images.clone(), labels, seed=5, **how)[1],
        "out=": cutmix_cuda.cutmix(images, labels, seed=5, out=torch.empty_like(images), **how)[1],
        "apply_plan": cutmix_cuda.apply_plan(images, labels, plan, **how)[1],
        "apply_plan_": cutmix_cuda.apply_plan_(images.clone(), labels, plan, **how)[1],
        "mix_targets": cutmix_cuda.mix_targets(labels, plan, **how),
    }
    for name, pairs in results.items():
        assert_same_bits(as_dense(pairs, CLASSES), dense), name
    drawn = cutmix_cuda.cutmix(images, labels, CLASSES, seed=torch_seed)[1]
    assert_same_bits(as_dense(module(images, labels)[1], CLASSES), drawn)
    assert module(images)[1] is None


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_classes_are_the_labels(dtype):
    """Own and partner's, of the labels' dtype; where nothing is the partner's, both are the sample's own."""
    plan = plan_of_every_kind(32)
    labels = torch.arange(32).to(dtype)
    y_a, y_b, lam = cutmix_cuda.mix_targets(labels, plan, targets="pairs")
    assert (y_a.dtype, y_b.dtype, lam.dtype) == (dtype, dtype, torch.float32)
    for i, (partner, kind, weight) in enumerate(zip(plan.partner.tolist(), plan.kind.tolist(), plan.lam, strict=True)):
        mixes = kind in (1, 2) and weight < 1
        assert int(y_a[i]) == i
        assert int(y_b[i]) == (partner if mixes else i)
        assert lam[i] == (weight if kind in (1, 2) else 1)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_the_targets_are_no_views_of_the_labels(dtype):
    """Who changes them does not change the labels of the batch."""
    labels = torch.arange(32).to(dtype)
    plan = plan_of_every_kind(32)
    for pairs in (
        cutmix_cuda.mix_targets(labels, plan, targets="pairs"),
        cutmix_cuda.apply_plan(torch.zeros(32, 7, 9), labels, plan, targets="pairs")[1],
        cutmix_cuda.cutmix(torch.zeros(32, 7, 9), labels, targets="pairs")[1],
        cutmix_cuda.cutmix(torch.zeros(32, 7, 9), labels, targets="pairs", prob=0.0)[1],
    ):
        for part in pairs:
            part.fill_(1)
    assert torch.equal(labels.long(), torch.arange(32))
    assert not torch.equal(plan.lam, torch.ones(32))


def test_weight_of_kept_samples_is_one_whatever_the_plan_says():
    half = torch.tensor([0.5, 0.5, 0.5, 0.5])
    kind = torch.tensor([0, 1, 2, 3])
    plan = MixPlan.from_boxes(torch.tensor([3, 2, 1, 0]), torch.zeros(4, 4).long(), 7, 9, lam=half, kind=kind)
    assert cutmix_cuda.mix_targets(torch.arange(4), plan, targets="pairs").lam.tolist() == [1.0, 0.5, 0.5, 1.0]


class Largest(TorchDispatchMode):
    """The most elements of a tensor that an operation gave back."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize(("targets", "writes_a_matrix"), [("dense", True), ("pairs", False)])
def test_no_matrix_is_written(targets, writes_a_matrix):
    classes = 100_000
    labels = random_labels(4, classes)
    with Largest() as largest:
        cutmix_cuda.cutmix(torch.zeros(4, 1, 7, 9), labels, classes, targets=targets, seed=5)
    assert (largest.elements >= 4 * classes) == writes_a_matrix
    assert writes_a_matrix or largest.elements < classes


@pytest.mark.parametrize("batch", [0, 1])
def test_smallest_batches(batch):
    images, labels = torch.rand(batch, 1, 7, 9), random_labels(batch, CLASSES)
    _, pairs = cutmix_cuda.cutmix(images, labels, targets="pairs")
    assert pairs.y_b.tolist() == labels.tolist()
    assert pairs.lam.tolist() == [1.0] * batch
    losses = cross_entropy(torch.zeros(batch, CLASSES), pairs, reduction="none")
    torch.testing.assert_close(losses, torch.full((batch,), CLASSES).log())


@pytest.fixture
def nobody_looks(monkeypatch):
    """Plans are not looked at: on a GPU that would make the host wait."""
    monkeypatch.setattr(MixPlan, "check", lambda self, **_: None)


@pytest.mark.usefixtures("nobody_looks")
def test_rows_that_lead_outside_give_nan_and_no_access():
    plan = plan_of_every_kind(32)
    labels, images = torch.arange(32), torch.rand(32, 1, 7, 9)
    expected = cutmix_cuda.mix_targets(labels, plan, targets="pairs")
    column = {"partner": 0, "y0": 1, "y1": 3, "kind": 6}
    values = (("partner", -1), ("partner", 32), ("partner", -(2**31)), ("partner", 2**31 - 1), ("y0", -1), ("kind", 9))
    packed = plan.packed.clone()
    for row, (name, value) in enumerate(values):
        packed[row, column[name]] = value
    outside = list(range(len(values)))
    fine = torch.arange(32) >= len(values)

    def check(pairs: PairTargets) -> None:
        assert pairs.lam.isnan().nonzero().flatten().tolist() == outside
        assert all(torch.equal(part[fine], other[fine]) for part, other in zip(pairs, expected, strict=True))
        assert torch.equal(pairs.y_b[~fine], labels[~fine])

    check(cutmix_cuda.mix_targets(labels, MixPlan(packed, 7, 9), targets="pairs"))
    packed[len(values), column["y1"]] = 8  # what mix_targets does not see, because images have no height there
    outside.append(len(values))
    fine[len(values)] = False
    check(cutmix_cuda.apply_plan(images, labels, MixPlan(packed, 7, 9), targets="pairs")[1])


@pytest.mark.usefixtures("nobody_looks")
def test_rows_that_are_not_their_own_inverse_give_nan_in_place():
    plan = MixPlan.from_boxes(torch.tensor([1, 0, 3, 1]), torch.tensor([[0, 0, 3, 3]]).expand(4, 4), 7, 9)
    images, labels = torch.rand(4, 1, 7, 9), torch.arange(4)
    assert not cutmix_cuda.apply_plan(images, labels, plan, targets="pairs")[1].lam.isnan().any()
    in_place = cutmix_cuda.apply_plan_(images, labels, plan, targets="pairs")[1]
    assert in_place.lam.isnan().tolist() == [False, False, True, True]


def test_pixels_that_cannot_be_blended_give_nan_where_nobody_looks():
    """In a graph as on a GPU: integers have no mean, so a sample to be blended is left as it was."""
    torch._dynamo.reset()

    def mix(masks, labels, packed):
        plan = MixPlan(packed, 7, 9)
        dense = cutmix_cuda.apply_plan(masks, labels, plan, CLASSES)[1]
        return dense, cutmix_cuda.apply_plan(masks, labels, plan, targets="pairs")[1]

    plan = plan_of_every_kind(32)
    masks, labels = torch.zeros(32, 7, 9, dtype=torch.int64), random_labels(32, CLASSES)
    dense, pairs = torch.compile(mix, fullgraph=True, backend="aot_eager")(masks, labels, plan.packed)
    assert torch.equal(pairs.lam.isnan(), plan.kind == 2)
    assert torch.equal(dense.isnan().all(1), plan.kind == 2)


def test_to_a_device():
    pairs = cutmix_cuda.mix_targets(torch.arange(32), plan_of_every_kind(32), targets="pairs")
    moved = pairs.to("meta")
    assert isinstance(moved, PairTargets)
    assert all(part.is_meta and part.shape == (32,) for part in moved)


def saved_and_loaded(record: Any, save: Callable[..., None] = torch.save, load: Callable[..., Any] = torch.load) -> Any:
    file = io.BytesIO()
    save(record, file)
    file.seek(0)
    return load(file)


def test_what_was_saved_loads_by_default():
    """Without weights_only=False, which would run whatever code a file holds."""
    pairs = cutmix_cuda.mix_targets(torch.arange(32), plan_of_every_kind(32), targets="pairs")
    boxes = plan_of_every_kind(32).mix_boxes([torch.tensor([[0.0, 0.0, 4.0, 4.0]])] * 32)
    loaded = saved_and_loaded({"pairs": pairs, "boxes": boxes})
    assert {name: type(record) for name, record in loaded.items()} == {"pairs": PairTargets, "boxes": MixedBoxes}
    torch.testing.assert_close(loaded, {"pairs": pairs, "boxes": boxes}, rtol=0, atol=0)


class MakesPairs(torch.nn.Module):
    def forward(self, images: Tensor, labels: Tensor):
        return cutmix_cuda.cutmix(images, labels, seed=5, targets="pairs")


class TakesPairs(torch.nn.Module):
    def forward(self, logits: Tensor, pairs: PairTargets) -> Tensor:
        return cross_entropy(logits, pairs, label_smoothing=0.1)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.export
def test_exported_programs_return_and_take_pairs(strict):
    batch = torch.rand(8, 2, 7, 9, generator=generator(0)), random_labels(8, CLASSES)
    logits, pairs = torch.rand(8, CLASSES, generator=generator(1)), MakesPairs()(*batch)[1]
    for module, arguments in ((MakesPairs(), batch), (TakesPairs(), (logits, pairs))):
        exported = torch.export.export(module, arguments, strict=strict)
        program = saved_and_loaded(exported, torch.export.save, torch.export.load).module()
        torch.testing.assert_close(program(*arguments), module(*arguments))


# ---- The loss


def batch_of(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, PairTargets, Tensor]:
    """Logits, dense targets in the loss's dtype, the same as pairs, and class weights."""
    plan, labels = plan_of_every_kind(32), random_labels(32, CLASSES)
    value = torch.float64 if dtype == torch.float64 else torch.float32
    dense = cutmix_cuda.mix_targets(labels, plan, CLASSES, target_dtype=value)
    pairs = cutmix_cuda.mix_targets(labels, plan, targets="pairs")
    logits = (4 * torch.randn(32, CLASSES, generator=generator(1), dtype=torch.float64)).to(dtype)
    return logits, dense, pairs, torch.rand(CLASSES, generator=generator(2), dtype=value)


losses = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
smoothings = pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
weighted = pytest.mark.parametrize("with_weight", [False, True], ids=["", "weights"])


@losses
@smoothings
@weighted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_value_and_gradient_are_those_of_soft_targets(dtype, with_weight, label_smoothing, reduction):
    logits, dense, pairs, weight = batch_of(dtype)
    how = {"label_smoothing": label_smoothing, "weight": weight if with_weight else None, "reduction": reduction}
    results = []
    for loss_of, targets in ((cross_entropy, pairs), (F.cross_entropy, dense)):
        own = logits.clone().requires_grad_()
        loss = loss_of(own, targets, **how)
        (loss * torch.linspace(0.5, 2.0, loss.numel(), dtype=dtype).reshape(loss.shape)).sum().backward()
        results.append((loss.detach(), own.grad))
    epsilon = torch.finfo(dtype).eps
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=8 * epsilon, atol=32 * epsilon)
        assert ours.dtype == dtype


@smoothings
@weighted
def test_gradient_by_differences(with_weight, label_smoothing):
    logits, _, pairs, weight = batch_of(torch.float64)
    few = PairTargets(*(part[:6] for part in pairs))
    how = {"label_smoothing": label_smoothing, "weight": weight if with_weight else None, "reduction": "none"}
    logits = logits[:6].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, few, **how), logits)
    assert torch.autograd.gradgradcheck(lambda x: cross_entropy(x, few, **how), logits)


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits, lam and class weights


def both_losses(pairs: PairTargets, **how: Any) -> tuple[Loss, Loss]:
    """Ours of pairs, and torch's of the dense targets that they stand for, which depend on lam."""
    y_a, y_b, _ = pairs

    def ours(logits: Tensor, lam: Tensor, weight: Tensor) -> Tensor:
        return cross_entropy(logits, (y_a, y_b, lam), weight=weight, **how)  # type: ignore[arg-type]

    def theirs(logits: Tensor, lam: Tensor, weight: Tensor) -> Tensor:
        dense = as_dense(PairTargets(y_a, y_b, lam), CLASSES, torch.float64)
        return F.cross_entropy(logits, dense, weight=weight, **how)

    return ours, theirs


def few_samples() -> tuple[PairTargets, Tensor, Tensor, Tensor]:
    """Pairs of six samples, with their logits, lam and class weights in float64."""
    logits, _, pairs, weight = batch_of(torch.float64)
    few = PairTargets(*(part[:6] for part in pairs))
    return few, logits[:6], few.lam.double(), weight


def jvp(function: Loss) -> Callable[..., Any]:
    """The derivative along one direction, by forward-mode AD."""

    def along(*inputs: Tensor) -> Any:
        return torch.func.jvp(function, inputs, tuple(torch.linspace(-1, 2, x.numel()).view_as(x) for x in inputs))

    return along


EVERY_INPUT = (0, 1, 2)
DERIVATIVES: dict[str, Callable[[Loss], Callable[..., Any]]] = {
    "jvp": jvp,
    "jacfwd": lambda function: torch.func.jacfwd(function, EVERY_INPUT),
    "jacrev": lambda function: torch.func.jacrev(function, EVERY_INPUT),
    "hessian": lambda function: torch.func.hessian(function, EVERY_INPUT),
    "reverse over reverse": lambda function: torch.func.jacrev(torch.func.jacrev(function, EVERY_INPUT), EVERY_INPUT),
    "autograd": lambda function: (
        lambda *inputs: torch.autograd.functional.hessian(lambda *given: function(*given).sum(), inputs)
    ),
}


@losses
@smoothings
@pytest.mark.filterwarnings("ignore::FutureWarning")  # inside torch.func.jvp
@pytest.mark.parametrize("derivative", DERIVATIVES.values(), ids=DERIVATIVES)
def test_derivatives_are_those_of_soft_targets(derivative, label_smoothing, reduction):
    """By logits, lam and class weights, of the first and second order."""
    pairs, *inputs = few_samples()
    inputs = [each.double() for each in inputs]
    ours, theirs = (
        derivative(loss) for loss in both_losses(pairs, label_smoothing=label_smoothing, reduction=reduction)
    )
    torch.testing.assert_close(ours(*inputs), theirs(*inputs), rtol=1e-10, atol=1e-12)


@losses
@pytest.mark.parametrize("batched", [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0)], ids=str)
def test_many_inputs_at_once(batched, reduction):
    """torch.func.vmap over some of logits, lam and class weights, and over their gradients."""
    pairs, *inputs = few_samples()
    stacked = [
        each if axis is None else torch.stack([each, 0.5 * each, each.flip(0)])
        for each, axis in zip(inputs, batched, strict=True)
    ]
    results = []
    for loss in both_losses(pairs, label_smoothing=0.1, reduction=reduction):
        derivative = torch.func.jacrev(loss, EVERY_INPUT)
        results.append([torch.func.vmap(function, batched)(*stacked) for function in (loss, derivative)])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


def test_classes_of_many_batches_at_once():
    """Where torch.func.vmap runs over class indices, nobody looks at them; one outside gives NaN."""
    logits = torch.randn(3, 4, CLASSES, generator=generator(0), dtype=torch.float64)
    y_a, y_b = (random_labels(12, CLASSES, seed=seed).view(3, 4) for seed in (1, 2))
    lam = torch.rand(3, 4, generator=generator(3), dtype=torch.float64)
    y_b[2, 1] = CLASSES

    def loss(logits: Tensor, y_a: Tensor, y_b: Tensor, lam: Tensor) -> Tensor:
        return cross_entropy(logits, PairTargets(y_a, y_b, lam))

    derivatives = torch.func.vmap(torch.func.grad(loss, (0, 3)))(logits, y_a, y_b, lam)
    for i in range(3):
        given = logits[i].clone().requires_grad_(), lam[i].clone().requires_grad_()
        F.cross_entropy(
            given[0], as_dense(PairTargets(y_a[i], y_b[i] % CLASSES, given[1]), CLASSES, torch.float64)
        ).backward()
        known = torch.arange(4) != (1 if i == 2 else -1)
        for derivative, input in zip(derivatives, given, strict=True):
            torch.testing.assert_close(derivative[i][known], input.grad[known], rtol=1e-10, atol=1e-12)
            assert derivative[i][~known].isnan().all()


def test_smoothing_before_mixing_is_smoothing_in_the_loss():
    """Dense targets are smoothed before they are mixed, as timm's; pairs in the loss."""
    logits, _, pairs, _ = batch_of(torch.float64)
    plan, labels = plan_of_every_kind(32), random_labels(32, CLASSES)
    smoothed = cutmix_cuda.mix_targets(labels, plan, CLASSES, label_smoothing=0.1, target_dtype=torch.float64)
    ours = cross_entropy(logits, pairs, label_smoothing=0.1)
    torch.testing.assert_close(ours, F.cross_entropy(logits, smoothed), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(dtype, autocast):
    logits, dense, pairs, _ = batch_of(dtype)
    logits.requires_grad_()
    with torch.autocast("cpu", dtype, enabled=autocast):
        loss = cross_entropy(logits, pairs, label_smoothing=0.1)
    loss.backward()
    exact = logits.detach().float().requires_grad_()
    expected = F.cross_entropy(exact, dense, label_smoothing=0.1)
    expected.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    epsilon = torch.finfo(dtype).eps
    torch.testing.assert_close(logits.grad.float(), exact.grad, rtol=epsilon / 2 + 1e-5, atol=2.0**-25)


@pytest.mark.parametrize("default", [torch.float32, torch.float64], ids=str)
def test_the_default_dtype_does_not_matter(default):
    logits, _, pairs, weight = batch_of()
    expected = cross_entropy(logits, pairs, weight=weight, label_smoothing=0.1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        assert_same_bits(cross_entropy(logits, pairs, weight=weight, label_smoothing=0.1), expected)
    finally:
        torch.set_default_dtype(before)


def test_two_samples_of_one_class():
    logits = torch.randn(4, CLASSES, dtype=torch.float64, generator=generator(0)).requires_grad_()
    labels = torch.tensor([2, 2, 5, 0])
    pairs = PairTargets(labels, labels, torch.tensor([0.3, 0.0, 0.9, 0.5]))
    (ours,) = torch.autograd.grad(cross_entropy(logits, pairs), logits)
    (theirs,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-16)


def test_a_kept_sample_owes_nothing_to_its_partner():
    """Its partner's class may be impossible by the logits: 0 * inf would be NaN."""
    plan = MixPlan.from_boxes(torch.tensor([1, 0]), torch.zeros(2, 4).long(), 7, 9, kind=torch.tensor([0, 1]))
    logits = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    assert cross_entropy(logits, cutmix_cuda.mix_targets(torch.arange(2), plan, targets="pairs")) == 0


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_any_integers(dtype):
    logits, dense, pairs, _ = batch_of()
    given = pairs.y_a.to(dtype), pairs.y_b.to(dtype), pairs.lam.double()
    torch.testing.assert_close(cross_entropy(logits, given), F.cross_entropy(logits, dense))


@pytest.mark.parametrize("label", [-1, -100, CLASSES, 2**40, -(2**63)])
def test_a_class_outside_gives_nan_where_nobody_looks(label):
    """In a graph as on a GPU: the loss and gradient of that sample are NaN, the others' are right."""
    logits, _, pairs, _ = batch_of()
    logits.requires_grad_()
    y_a, y_b, lam = pairs.y_a.clone(), pairs.y_b.clone(), pairs.lam.requires_grad_()
    y_a[3], y_b[7] = label, label
    compiled = torch.compile(cross_entropy, fullgraph=True, backend="aot_eager")
    losses = compiled(logits, PairTargets(y_a, y_b, lam), reduction="none")
    gradient, of_lam = torch.autograd.grad(losses.sum(), (logits, lam))
    expected = cross_entropy(logits, pairs, reduction="none")
    fine = torch.ones(32, dtype=torch.bool)
    fine[[3, 7]] = False
    assert torch.equal(losses.isnan(), ~fine)
    assert torch.equal(gradient.isnan(), ~fine[:, None].expand_as(gradient))
    assert torch.equal(of_lam.isnan(), ~fine)
    torch.testing.assert_close(losses[fine], expected[fine], rtol=1e-6, atol=1e-6)


# ---- In graphs


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
def test_a_compiled_training_step(compiler):
    """Mix, network and loss in one graph: no break, and no answer that the host would have to wait for."""
    torch._dynamo.reset()
    images, labels = torch.rand(8, 2, 7, 9), random_labels(8, CLASSES)
    network = torch.nn.Linear(2 * 7 * 9, CLASSES)

    def step(images, labels, plan):
        mixed, pairs = cutmix_cuda.mix(images, labels, targets="pairs", seed=5, **EVERY_KIND)
        again = cutmix_cuda.apply_plan_(mixed.clone(), labels, MixPlan(plan, 7, 9), targets="pairs")[1]
        loss = cross_entropy(network(mixed.flatten(1)), pairs, label_smoothing=0.1)
        return loss + cross_entropy(network(mixed.flatten(1)), again), pairs, again

    plan = cutmix_cuda.sample_plan(8, 7, 9, seed=6).packed
    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend=compiler)):
        loss, *pairs = function(images, labels, plan)
        results.append((loss, *torch.autograd.grad(loss, list(network.parameters())), *sum(pairs, ())))
        assert all(isinstance(each, PairTargets) for each in pairs)
    for compiled, eager in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


# ---- What is wrong with an argument


class Case(NamedTuple):
    call: Callable[[], Any]
    error: type[Exception]
    says: tuple[str, ...]


def mixed(labels: Any = None, num_classes: Any = None, **how: Any):
    labels = torch.tensor([0, 4, 2, 1]) if labels is None else labels
    return cutmix_cuda.cutmix(random_images((4, 1, 7, 9)), labels, num_classes, seed=1, targets="pairs", **how)


def loss(logits: Any = None, y_a: Any = None, y_b: Any = None, lam: Any = None, **how: Any):
    y = torch.tensor([0, 4, 2, 1])
    pairs = y if y_a is None else y_a, y if y_b is None else y_b, torch.rand(4) if lam is None else lam
    return cross_entropy(torch.rand(4, 5) if logits is None else logits, pairs, **how)  # type: ignore[arg-type]


CASES: dict[str, Case] = {
    "targets": Case(lambda: CutMix(targets="pair"), ValueError, ("targets", "'dense', 'pairs'", "'pair'")),  # type: ignore[call-overload]
    "targets of a plan": Case(
        lambda: cutmix_cuda.mix_targets(torch.arange(32), plan_of_every_kind(32), targets="soft"),  # type: ignore[call-overload]
        ValueError,
        ("targets", "'dense', 'pairs'", "'soft'"),
    ),
    "smoothing": Case(
        lambda: Mix(targets="pairs", label_smoothing=0.1),
        ValueError,
        ("label_smoothing", "0.1", "cutmix_cuda.cross_entropy"),
    ),
    "smoothing, by a plan": Case(
        lambda: cutmix_cuda.mix_targets(torch.arange(32), plan_of_every_kind(32), targets="pairs", label_smoothing=0.1),
        ValueError,
        ("label_smoothing", "0.1", "cutmix_cuda.cross_entropy"),
    ),
    "soft labels": Case(lambda: mixed(soft_labels(4, 5)), ValueError, ("labels", "float32", "(4, 5)", "'dense'")),
    "bool labels": Case(lambda: mixed(torch.ones(4).bool()), TypeError, ("labels", "bool")),
    "one-hot labels": Case(
        lambda: mixed(torch.eye(4).long()), ValueError, ("integer labels", "(4,)", "(4, 4)", "labels.argmax(dim=1)")
    ),
    "labels: too few": Case(lambda: mixed(torch.arange(3)), ValueError, ("labels", "4", "3")),
    "labels: outside": Case(lambda: mixed(None, 4), ValueError, ("labels", "0..3", "4 for sample 1")),
    "labels: -100": Case(lambda: mixed(torch.tensor([0, -100, 2, 1])), ValueError, ("labels", "-100 for sample 1")),
    "num_classes": Case(lambda: mixed(None, 0), ValueError, ("num_classes", "positive", "0")),
    "logits: a list": Case(lambda: loss([[1.0]]), TypeError, ("logits", "list")),
    "logits: 3-D": Case(lambda: loss(torch.rand(4, 5, 1)), ValueError, ("logits", "(4, 5, 1)")),
    "logits: no classes": Case(lambda: loss(torch.rand(4, 0)), ValueError, ("logits", "a class or more", "(4, 0)")),
    "logits: integers": Case(lambda: loss(torch.ones(4, 5).int()), ValueError, ("logits", "int32")),
    "pairs: dense": Case(
        lambda: cross_entropy(torch.rand(4, 5), torch.rand(4, 5)),  # type: ignore[arg-type]
        TypeError,
        ("pairs", "(y_a, y_b, lam)", "Tensor"),
    ),
    "pairs: a number": Case(lambda: loss(lam=0.5), TypeError, ("pairs", "(y_a, y_b, lam)")),
    "y_a: floats": Case(lambda: loss(y_a=torch.rand(4)), TypeError, ("y_a", "integer", "float32")),
    "y_b: shape": Case(lambda: loss(y_b=torch.arange(5)), ValueError, ("y_b", "(4,)", "(5,)")),
    "lam: integers": Case(lambda: loss(lam=torch.ones(4).int()), TypeError, ("lam", "float", "int32")),
    "lam: shape": Case(lambda: loss(lam=torch.ones(())), ValueError, ("lam", "(4,)", "()")),
    "lam: device": Case(lambda: loss(lam=torch.ones(4, device="meta")), ValueError, ("lam", "cpu", "meta")),
    "y_a: outside": Case(lambda: loss(y_a=torch.tensor([0, 5, 0, 0])), ValueError, ("y_a", "0..4", "5 for sample 1")),
    "y_b: -100": Case(lambda: loss(y_b=torch.tensor([0, 0, -100, 0])), ValueError, ("y_b", "-100 for sample 2")),
    "loss: smoothing": Case(lambda: loss(label_smoothing=1.5), ValueError, ("label_smoothing", "1.5")),
    "loss: reduction": Case(lambda: loss(reduction="max"), ValueError, ("reduction", "'mean', 'sum', 'none'", "'max'")),
    "weight: a list": Case(lambda: loss(weight=[1.0] * 5), TypeError, ("weight", "[1.0")),
    "weight: shape": Case(lambda: loss(weight=torch.ones(4)), ValueError, ("weight", "(5,)", "(4,)")),
    "weight: device": Case(lambda: loss(weight=torch.ones(5, device="meta")), ValueError, ("weight", "cpu", "meta")),
}


@pytest.mark.parametrize("name", CASES)
def test_errors_name_the_argument_and_what_came(name):
    case = CASES[name]
    with pytest.raises(case.error) as caught:
        case.call()
    message = str(caught.value)
    assert message.startswith(case.says[0])
    for part in case.says:
        assert re.search(re.escape(part), message), message
