"""Mixing inside a network: values, gradients of every order by every road, tokens, soft labels, the module."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

import cutmix_cuda
from cutmix_cuda import MixFeatures, MixPlan, mix_features, mix_targets, reference
from cutmix_cuda._backends import ops_for
from cutmix_cuda.features import _plan_of_tokens

from ..helpers import (
    assert_same_bits,
    every_backend,
    fill_words,
    generator,
    oracle_images,
    planned,
    soft_labels,
)
from ..ops.test_adjoint import oracle_adjoint
from ..ops.test_ops import BAD_ROWS
from ..ranks import RANKS, needs_gloo, run_on_ranks

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile


@pytest.fixture(autouse=True)
def fresh_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


EVERY_KIND = cutmix_cuda.Mix(mixup_alpha=1.0, cutout=0.2, prob=0.9)


def plan_of(batch: int, height: int, width: int, device: str = "cpu", seed: int = 1) -> MixPlan:
    return EVERY_KIND.sample_plan(batch, height, width, seed=seed, device=device)


def numbers(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(device, dtype)


# ---- Values and gradients


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_maps_and_their_gradients(backend, dtype):
    plan = plan_of(7, 6, 9, backend.device)
    features = numbers(7, 3, 6, 9, dtype=dtype, device=backend.device).requires_grad_()
    mixed = mix_features(features, plan, fill=0.5, backend=backend.name)
    assert_same_bits(mixed, oracle_images(features.detach().cpu(), planned(plan), 0.5))
    gradients = numbers(7, 3, 6, 9, dtype=dtype, device=backend.device, seed=1)
    mixed.backward(gradients)
    assert_same_bits(features.grad, oracle_adjoint(gradients.cpu(), planned(plan)))


def test_it_keeps_memory_format_and_class():
    plan = plan_of(4, 6, 9)
    features = numbers(4, 3, 6, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
    mixed = mix_features(features, plan)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    (gradients,) = torch.autograd.grad(mixed, features, torch.ones_like(mixed))
    assert gradients.is_contiguous(memory_format=torch.channels_last)

    class Marked(Tensor):
        pass

    assert type(mix_features(numbers(4, 3, 6, 9).as_subclass(Marked), plan)) is Marked


@every_backend
def test_maps_of_another_size_follow_the_rescaled_plan(backend):
    plan = plan_of(6, 32, 48, backend.device)
    features = numbers(6, 5, 4, 6, device=backend.device)
    rescaled = plan.rescaled(4, 6)
    assert torch.equal(rescaled.lam, plan.lam)
    mixed = mix_features(features, plan, backend=backend.name)
    assert_same_bits(mixed, oracle_images(features.cpu(), planned(rescaled)))
    video = numbers(6, 5, 2, 4, 6, device=backend.device)
    assert_same_bits(mix_features(video, plan, backend=backend.name), oracle_images(video.cpu(), planned(rescaled)))


@every_backend
@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("grid", [(4, 6), (24, 1), (1, 24)], ids=str)
def test_tokens_are_the_grid_behind_a_prefix(backend, grid, prefix):
    """As a map of channels, and the prefix as a map in which no box lies."""
    plan = plan_of(6, *grid, backend.device)
    tokens = numbers(6, prefix + 24, 8, device=backend.device).requires_grad_()
    mixed = mix_features(tokens, plan, prefix=prefix, fill=2.0, backend=backend.name)
    samples = planned(plan)
    on_grid = tokens.detach().cpu()[:, prefix:].transpose(1, 2).unflatten(2, grid)
    expected = oracle_images(on_grid, samples, 2.0).flatten(2).transpose(1, 2)
    assert_same_bits(mixed[:, prefix:], expected.contiguous())
    nowhere = [sample._replace(box=(0, 0, 0, 0)) for sample in samples]
    in_front = tokens.detach().cpu()[:, None, :prefix]
    assert_same_bits(mixed[:, :prefix], oracle_images(in_front, nowhere)[:, 0])

    gradients = numbers(6, prefix + 24, 8, device=backend.device, seed=1)
    mixed.backward(gradients)
    given = gradients.cpu()
    expected = oracle_adjoint(given[:, prefix:].transpose(1, 2).unflatten(2, grid), samples).flatten(2).transpose(1, 2)
    expected = torch.cat([oracle_adjoint(given[:, None, :prefix], nowhere)[:, 0], expected], dim=1)
    assert_same_bits(tokens.grad, expected)


@every_backend
def test_embeddings_lie_in_no_box(backend):
    """One plan for both modalities of pairs: image and text are mixed with one partner and one lambda."""
    plan = plan_of(6, 4, 6, backend.device)
    images, texts = (numbers(6, width, device=backend.device) for width in (16, 7))
    for embeddings in (images, texts):
        mixed = mix_features(embeddings, plan, backend=backend.name)
        for i, sample in enumerate(planned(plan)):
            lam = sample.lam.item() if sample.kind == "mixup" else 1.0
            torch.testing.assert_close(mixed[i], lam * embeddings[i] + (1 - lam) * embeddings[sample.partner])
    assert {"mixup", "cutmix"} <= {sample.kind for sample in planned(plan)}


@every_backend
def test_a_bad_row_on_a_device_that_is_not_asked_keeps_sample_and_gradient(backend):
    """As the ops, which trust no plan."""
    mix = cutmix_cuda.Mix(mixup_alpha=1.0, partner="flip")  # who is bad here has the other as its partner
    plan, features = mix.sample_plan(4, 4, 6, seed=1), numbers(4, 9, 3, device=backend.device)
    plan.packed[1, 0], plan.packed[2, 3] = 77, 77
    ops = ops_for(backend.name, torch.device(backend.device))
    for op in (ops.mix_features, ops.mix_features_adjoint):
        moved = op(features, plan.packed.to(backend.device), 4, 6, 1)
        assert_same_bits(moved[1:3], features[1:3])
    with pytest.raises(ValueError, match="row 1"):
        mix_features(numbers(4, 3, 4, 6), plan)


@pytest.mark.parametrize("edit", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_plan_of_tokens_has_the_bad_rows_of_that_of_the_grid(edit):
    """However large an edge is, times as many channels."""
    rows = plan_of(6, 6, 9).packed
    for column, value in edit.items():
        rows[2, column] = value
    bad = ~reference.valid_rows(rows, 6, 9)
    assert bad[2]
    for channels in (1, 3, 2**25):
        plan = _plan_of_tokens(MixPlan(rows, 6, 9), torch.empty(6, 54, channels, device="meta"), 0)
        assert torch.equal(~reference.valid_rows(plan.packed, plan.height, plan.width), bad)


# ---- Roads to derivatives

# Which are open with which torch, for mix_features and mix_targets alike: the oldest one served, and the one that the
# tests run with. docs/howto/features.md shows it.
TABLE = {
    # road: 2.10, 2.14
    "autograd.gradcheck": (True, True),
    "autograd.gradgradcheck": (True, True),
    "autograd.forward_ad": (True, True),
    "autograd.grad(is_grads_batched=True)": (True, True),
    "func.grad": (True, True),
    "func.vjp": (True, True),
    "func.jvp": (True, True),
    "func.jacrev": (True, True),
    "func.jacfwd": (True, True),
    "func.hessian": (True, True),
    "func.vmap": (True, True),
    "func.vmap of grad": (True, True),
    "func.grad of vmap": (True, True),
    "library.opcheck": (True, True),
    "compile.fullgraph=True": (True, True),
}


@contextmanager
def as_tabled(road: str) -> Iterator[None]:
    """What runs along a road arrives, or raises where the road is closed with this torch."""
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    if TABLE[road][version >= (2, 14)]:
        yield
    else:
        with pytest.raises(Exception):  # noqa: B017 - of torch's own, whichever
            yield


def test_the_documentation_shows_the_table():
    page = (Path(__file__).parents[2] / "docs" / "howto" / "features.md").read_text()
    shown = {}
    for module, roads, *answers in re.findall(r"^\| `torch\.(\w+)`: (.+) \| (\w+) \| (\w+) \|$", page, re.MULTILINE):
        for road in re.findall("`(.+?)`", roads):
            shown[f"{module}.{road}"] = tuple(answer == "yes" for answer in answers)
    assert shown == TABLE


@dataclass
class Case:  # no NamedTuple, because Dynamo of torch 2.10 cannot call one that holds a plan
    shape: tuple[int, ...]
    plan: MixPlan
    prefix: int = 0

    def __call__(self, features: Tensor) -> Tensor:
        return mix_features(features, self.plan, prefix=self.prefix, fill=0.3)


class SoftLabels(Case):
    def __call__(self, features: Tensor) -> Tensor:
        return mix_targets(features, self.plan, label_smoothing=0.1, target_dtype=features.dtype)


MANY_TO_ONE = MixPlan.from_boxes(
    torch.tensor([2, 2, 1, 2]),
    torch.tensor([[0, 0, 2, 3], [1, 1, 3, 2], [0, 0, 3, 1], [0, 0, 0, 0]]),
    3,
    3,
    lam=torch.tensor([0.5, 0.25, 1.0, 0.7]),
    kind=torch.tensor([1, 1, 3, 2]),
)
CASES = {
    "maps": Case((5, 2, 3, 4), plan_of(5, 3, 4)),
    "maps of another size": Case((5, 2, 2, 2), plan_of(5, 12, 8)),
    "many to one": Case((4, 1, 3, 3), MANY_TO_ONE),
    "tokens": Case((5, 7, 2), plan_of(5, 2, 3), prefix=1),
    "embeddings": Case((5, 4), plan_of(5, 2, 3)),
    "soft labels": SoftLabels((5, 3), plan_of(5, 6, 9)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@every_case
def test_gradcheck(case):
    features = numbers(*case.shape, dtype=torch.float64).requires_grad_()
    every_mode = {"check_batched_grad": True, "check_forward_ad": True, "check_batched_forward_grad": True}
    with as_tabled("autograd.gradcheck"):
        assert torch.autograd.gradcheck(case, (features,), **every_mode)
    every_order = {"check_fwd_over_rev": True, "check_rev_over_rev": True, "check_batched_grad": True}
    with as_tabled("autograd.gradgradcheck"):
        assert torch.autograd.gradgradcheck(case, (features,), **every_order)


Mixing = Callable[[Tensor], Tensor]


def loss(case: Mixing, features: Tensor) -> Tensor:
    return (case(features) ** 3).sum()


def backward(case: Mixing, features: Tensor, cotangent: Tensor) -> Tensor:
    leaf = features.clone().requires_grad_()
    return torch.autograd.grad(case(leaf), leaf, cotangent)[0]


ROADS: dict[str, Callable[[Mixing, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "func.grad": lambda f, x, v: (grad(lambda x: (f(x) * v).sum())(x), backward(f, x, v)),
    "func.vjp": lambda f, x, v: (vjp(f, x)[1](v)[0], backward(f, x, v)),
    "func.jvp": lambda f, x, v: (jvp(f, (x,), (v,))[1], f(x + v) - f(x)),
    "func.jacrev": lambda f, x, v: (
        jacrev(f)(x).flatten(x.dim()).flatten(0, -2) @ v.flatten(),
        (f(x + v) - f(x)).flatten(),
    ),
    "func.jacfwd": lambda f, x, v: (jacfwd(f)(x), jacrev(f)(x)),
    "func.hessian": lambda f, x, v: (hessian(lambda x: loss(f, x))(x), jacrev(jacrev(lambda x: loss(f, x)))(x)),
    "func.vmap": lambda f, x, v: (
        torch.stack([vmap(f)(torch.stack([x, v])), vmap(f, in_dims=1)(torch.stack([x, v], 1))]),
        torch.stack([f(x), f(v)]).expand(2, 2, *x.shape),
    ),
    "func.vmap of grad": lambda f, x, v: (
        vmap(grad(lambda x: loss(f, x)))(torch.stack([x, v])),
        torch.stack([grad(lambda x: loss(f, x))(x), grad(lambda x: loss(f, x))(v)]),
    ),
    "func.grad of vmap": lambda f, x, v: (
        grad(lambda xs: (vmap(f)(xs) ** 3).sum())(torch.stack([x, v])),
        torch.stack([grad(lambda x: loss(f, x))(x), grad(lambda x: loss(f, x))(v)]),
    ),
    "autograd.forward_ad": lambda f, x, v: (tangent_of(f, x, v), f(x + v) - f(x)),
    "autograd.grad(is_grads_batched=True)": lambda f, x, v: (
        batched_gradients(f, x, torch.stack([v, x])),
        torch.stack([backward(f, x, v), backward(f, x, x)]),
    ),
}


def tangent_of(f: Mixing, x: Tensor, v: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent


def batched_gradients(f: Mixing, x: Tensor, cotangents: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(f(leaf), leaf, cotangents, is_grads_batched=True)[0]


@every_case
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_every_road_leads_to_the_same_derivative(road, case):
    """Mixing is affine, so differences are derivatives."""
    at, direction = (numbers(*case.shape, dtype=torch.float64, seed=seed) for seed in (1, 2))
    with as_tabled(road):
        actual, expected = ROADS[road](case, at, direction)
        assert actual.abs().sum() > 0
        torch.testing.assert_close(actual, expected)


def test_vmap_over_plans():
    plans = [plan_of(4, 3, 4, seed=seed) for seed in range(3)]
    features = numbers(3, 4, 2, 3, 4)
    stacked = torch.stack([plan.packed for plan in plans])

    def mixed(features: Tensor, packed: Tensor) -> Tensor:
        return mix_features(features, MixPlan(packed, 3, 4))

    each = torch.stack([mix_features(part, plan) for part, plan in zip(features, plans, strict=True)])
    assert_same_bits(vmap(mixed)(features, stacked), each)
    shared = torch.stack([mix_features(features[0], plan) for plan in plans])
    assert_same_bits(vmap(mixed, in_dims=(None, 0))(features[0], stacked), shared)


def test_gradients_of_a_network_for_each_plan():
    """As torch.func is used on modules."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), MixFeatures(), nn.Flatten(), nn.Linear(4 * 20, 2))
    images, plan = numbers(6, 3, 4, 5), plan_of(6, 4, 5)

    def of(parameters: dict[str, Tensor]) -> Tensor:
        with model[1].by(plan):
            return functional_call(model, parameters, images).square().sum()

    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    with model[1].by(plan):
        model(images).square().sum().backward()
    for name, gradient in grad(of)(parameters).items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad)


@every_backend
@pytest.mark.parametrize("op", ["mix_features", "mix_features_adjoint"])
def test_opcheck(backend, op):
    overload = getattr(ops_for(backend.name, torch.device(backend.device)), op)
    fill = [fill_words(0.5, torch.float32)] if op == "mix_features" else []
    plan = plan_of(4, 6, 9, backend.device).packed
    maps = numbers(4, 3, 6, 9, device=backend.device).requires_grad_()
    tokens = numbers(4, 2 + 6, 9, device=backend.device).requires_grad_()
    with as_tabled("library.opcheck"):
        for features in (maps, maps.detach().to(memory_format=torch.channels_last).requires_grad_(), maps[..., 1:]):
            width = features.shape[-1]
            torch.library.opcheck(overload, (features, plan, 6, width, 0, *fill))
        torch.library.opcheck(overload, (tokens, plan, 6, 9, 2, *fill))
        torch.library.opcheck(overload, (tokens[:, :1], plan, 6, 9, 1, *fill))


@every_backend
def test_opcheck_of_the_adjoint_into(backend):
    overload = ops_for(backend.name, torch.device(backend.device)).apply_adjoint_out
    maps = numbers(4, 3, 6, 9, device=backend.device)
    torch.library.opcheck(overload, (maps, plan_of(4, 6, 9, backend.device).packed, torch.zeros_like(maps)))


@every_case
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_whole_graphs_are_eager_mode(case, compiler):
    if compiler == "inductor" and case is not CASES["tokens"]:
        pytest.skip("one is enough of the slow compiler")
    features, cotangent = (numbers(*case.shape, seed=seed) for seed in (0, 1))
    compiled = torch.compile(case, fullgraph=True, backend=compiler)
    leaves = [features.clone().requires_grad_() for _ in range(2)]
    with as_tabled("compile.fullgraph=True"):
        for function, leaf in zip((case, compiled), leaves, strict=True):
            function(leaf).backward(cotangent)
        assert_same_bits(compiled(features), case(features))
        assert_same_bits(leaves[1].grad, leaves[0].grad)


def test_a_compiled_model_with_the_module_inside():
    """Handed a new plan at each step, without compiling anew."""
    mixing = MixFeatures()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), mixing, nn.Conv2d(4, 2, 3))
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    images = numbers(4, 3, 9, 9)
    for seed in range(4):
        with mixing.by(plan_of(4, 9, 9, seed=seed)):
            assert_same_bits(compiled(images), model(images))
    assert counter.frame_count == 1


def test_checkpointing_computes_the_same_gradients():
    mixing, layer, images = MixFeatures(), nn.Conv2d(3, 3, 3, padding=1), numbers(4, 3, 6, 9)
    gradients = []
    for recompute in (False, True):
        layer.zero_grad()
        with mixing.by(plan_of(4, 6, 9)):
            whole = nn.Sequential(layer, mixing)
            mixed = checkpoint(whole, images, use_reentrant=False) if recompute else whole(images)
            mixed.square().sum().backward()
        gradients.append(layer.weight.grad.clone())
    assert_same_bits(*gradients)


# ---- Soft labels


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
def test_soft_labels_that_require_grad(backend, dtype):
    """The bits of those that do not, and the gradient of the definition."""
    plan = plan_of(7, 6, 9, backend.device)
    how = {"label_smoothing": 0.1, "target_dtype": dtype, "backend": backend.name}
    labels = soft_labels(7, 5).to(backend.device)
    leaf = labels.clone().requires_grad_()
    targets = mix_targets(leaf, plan, **how)
    assert_same_bits(targets.detach(), mix_targets(labels, plan, **how))
    cotangent = numbers(7, 5, dtype=dtype, device=backend.device)
    targets.backward(cotangent)

    again = labels.double().requires_grad_()
    smooth = again * 0.9 + 0.1 / 5
    lam = torch.where((plan.kind == 1) | (plan.kind == 2), plan.lam, 1.0).double()[:, None]
    (lam * smooth + (1 - lam) * smooth[plan.partner.long()]).backward(cotangent.double())
    torch.testing.assert_close(leaf.grad.double(), again.grad, rtol=2e-3, atol=2e-3)


# ---- The module


def test_the_module_mixes_in_training_and_by_a_plan():
    mixing, plan, maps = MixFeatures(fill=0.5), plan_of(4, 8, 8), numbers(4, 3, 4, 4)
    assert mixing(maps) is maps
    with mixing.by(plan):
        assert_same_bits(mixing(maps), mix_features(maps, plan, fill=0.5))
        mixing.eval()
        assert mixing(maps) is maps
        mixing.train()
        with mixing.by(None):
            assert mixing(maps) is maps
        with pytest.raises(ValueError, match="3 samples"):
            mixing(maps[:3])
    assert mixing(maps) is maps
    assert list(mixing.state_dict()) == []
    assert repr(MixFeatures((2, 3), prefix=1)) == "MixFeatures(grid=(2, 3), prefix=1, fill=0.0)"


def test_the_module_takes_the_plan_of_images_to_the_grid_of_tokens():
    mixing, plan = MixFeatures((2, 3), prefix=1), plan_of(4, 32, 48)
    with mixing.by(plan):
        tokens = numbers(4, 7, 5)
        assert_same_bits(mixing(tokens), mix_features(tokens, plan.rescaled(2, 3), prefix=1))
        assert_same_bits(mixing(tokens[:, 0]), mix_features(tokens[:, 0], plan))


class Wrong(NamedTuple):
    call: Callable[[], Any]
    error: type[Exception]
    says: tuple[str, ...]


untyped: Any = cutmix_cuda
MAPS = torch.zeros(4, 3, 6, 9)
WRONG = {
    "features: a list": Wrong(
        lambda: untyped.mix_features([1], plan_of(4, 6, 9)), TypeError, ("features", "tensor", "list")
    ),
    "features: bytes": Wrong(
        lambda: untyped.mix_features(MAPS.byte(), plan_of(4, 6, 9)), TypeError, ("features", "uint8", "mix_images")
    ),
    "features: sparse": Wrong(
        lambda: untyped.mix_features(MAPS.to_sparse(), plan_of(4, 6, 9)), TypeError, ("features", "dense")
    ),
    "features: a vector": Wrong(
        lambda: untyped.mix_features(MAPS[:, 0, 0, 0], plan_of(4, 6, 9)), ValueError, ("features", "(4,)")
    ),
    "plan: rows": Wrong(
        lambda: untyped.mix_features(MAPS, plan_of(4, 6, 9).packed), TypeError, ("plan", "MixPlan", "Tensor")
    ),
    "plan: batch": Wrong(lambda: untyped.mix_features(MAPS, plan_of(5, 6, 9)), ValueError, ("plan", "4 samples", "5")),
    "plan: grid": Wrong(
        lambda: untyped.mix_features(MAPS[:, 0], plan_of(4, 6, 9)),
        ValueError,
        ("plan", "= 6", "6 x 9", "plan.rescaled"),
    ),
    "prefix: of maps": Wrong(
        lambda: untyped.mix_features(MAPS, plan_of(4, 6, 9), prefix=1), ValueError, ("prefix", "0", "1")
    ),
    "prefix: negative": Wrong(
        lambda: untyped.mix_features(MAPS[:, 0], plan_of(4, 6, 9), prefix=-1), ValueError, ("prefix", "negative", "-1")
    ),
    "fill": Wrong(lambda: untyped.mix_features(MAPS, plan_of(4, 6, 9), fill="0"), TypeError, ("fill", "number", "'0'")),
    "fill: too large": Wrong(
        lambda: untyped.mix_features(MAPS.half(), plan_of(4, 6, 9), fill=1e6),
        ValueError,
        ("fill", "float16", "1000000"),
    ),
    "backend": Wrong(lambda: untyped.mix_features(MAPS, plan_of(4, 6, 9), backend="x"), ValueError, ("backend", "'x'")),
    "module: grid": Wrong(lambda: untyped.MixFeatures((2, -1)), ValueError, ("width", "negative", "-1")),
    "module: prefix": Wrong(lambda: untyped.MixFeatures(prefix=1.0), TypeError, ("prefix", "int", "1.0")),
    "module: backend": Wrong(lambda: untyped.MixFeatures(backend="x"), ValueError, ("backend", "'x'")),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_argument_and_what_came(name):
    call, error, says = WRONG[name]
    with pytest.raises(error) as caught:
        call()
    assert all(part in str(caught.value) for part in says), str(caught.value)


def test_images_that_require_grad_are_told_of_features():
    with pytest.raises(ValueError, match="cutmix_cuda.mix_features"):
        cutmix_cuda.cutmix(MAPS.clone().requires_grad_())
    with pytest.raises(ValueError, match="cutmix_cuda.mix_targets"):
        cutmix_cuda.cutmix(MAPS, soft_labels(4, 5).requires_grad_())


# ---- In other packages' models, and on several ranks


def test_tokens_of_a_timm_model():
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 3}
    model = timm.models.VisionTransformer(**sizes, reg_tokens=2)
    mixing = MixFeatures((4, 4), prefix=model.num_prefix_tokens)
    model.blocks[0] = nn.Sequential(model.blocks[0], mixing)
    images = numbers(4, 3, 32, 32)
    with mixing.by(plan_of(4, 32, 32)):
        mixed = model(images)
        mixed.sum().backward()
        assert not torch.equal(mixed, model.eval()(images))
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


def network() -> tuple[nn.Module, MixFeatures]:
    torch.manual_seed(0)
    mixing = MixFeatures()
    layers = nn.Conv2d(3, 4, 3, padding=1), mixing, nn.Flatten(), nn.Linear(4 * 6 * 9, 2)
    return nn.Sequential(*layers), mixing


def loss_of_rank(model: nn.Module, mixing: MixFeatures, rank: int) -> Tensor:
    with mixing.by(plan_of(4, 6, 9, seed=rank)):
        return model(numbers(4, 3, 6, 9, seed=rank)).square().mean()


def train_on_rank(rank: int, folder: str) -> None:
    model, mixing = network()
    parallel = nn.parallel.DistributedDataParallel(model)
    loss_of_rank(parallel, mixing, rank).backward()
    torch.save([parameter.grad for parameter in model.parameters()], f"{folder}/{rank}.pt")


@needs_gloo
def test_each_rank_mixes_by_a_plan_of_its_own(tmp_path):
    run_on_ranks(train_on_rank, str(tmp_path))
    model, mixing = network()
    (sum(loss_of_rank(model, mixing, rank) for rank in range(RANKS)) / RANKS).backward()
    for rank in range(RANKS):
        gradients = torch.load(tmp_path / f"{rank}.pt")
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(gradient, parameter.grad)
