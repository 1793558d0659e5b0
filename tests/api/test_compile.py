"""opcheck on every op, and compiled graphs: whole, and equal to eager mode."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import cutmix_cuda
from cutmix_cuda import CutMix, Mix, reference_patches
from cutmix_cuda._backends import ops_for
from cutmix_cuda._ops import OPS
from cutmix_cuda.distributions import Beta, Distribution, Uniform, quantiles

from ..helpers import Backend, assert_same_bits, every_backend, fill_words, random_labels, soft_labels

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile


@pytest.fixture(autouse=True)
def fresh_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# ---- opcheck


def layouts(device: str) -> dict[str, Tensor]:
    images = torch.rand(4, 3, 6, 9).to(device)
    return {
        "contiguous": images,
        "channels last": images.to(memory_format=torch.channels_last),
        "sliced": images[..., 1:, 1:-1],
        "video": torch.rand(2, 2, 3, 5, 6).to(device).transpose(1, 2),
        "masks": (images[:, 0] * 255).long(),
        "nothing": images[:0],
    }


def arguments_of(op: str, images: Tensor, labels: Tensor | None) -> tuple[object, ...]:
    """Arguments of an op in the order of its schema."""
    device = images.device
    batch, (height, width) = images.shape[0], images.shape[-2:]
    classes = 5 if labels is not None else 0
    blends = images.is_floating_point()
    seed, tables = torch.tensor([3]), quantiles((Beta(1.0, 1.0), Beta(0.2, 0.2), 0.25), device)
    mix = Mix(cutout=0.3, prob=0.9, mixup_alpha=0.2 if blends else None)
    plan = mix.sample_plan(batch, height, width, seed=3, device=device).packed
    bounds = (0.3, 0.6, 0.9) if blends else (0.6, 0.6, 0.9)
    draw = seed, tables, bounds, (0, 3, 0, 1)
    targets = classes, 0.1, torch.float32
    out = [torch.zeros_like(images)] if op.endswith("_out") else []
    fill = fill_words(7, images.dtype)
    if op == "sample_plan":
        return *draw, batch, height, width
    if op == "mix_targets":
        return labels, plan, *targets
    how = (plan,) if op.startswith("apply") else draw
    return images.clone(), labels, *how, *targets, *out, fill


WITHOUT_IMAGES = ("sample_plan", "mix_targets")
OF_THE_TAIL = ("sample_views", "augment", "augment_out", "apply_views", "apply_views_out")  # ops/test_augment.py
OF_PATCHES = tuple(reference_patches.OPS)  # api/test_patches.py
OF_GRADIENTS = ("apply_adjoint_out",)  # test_features.py
ELSEWHERE = WITHOUT_IMAGES + OF_THE_TAIL + OF_PATCHES + OF_GRADIENTS


@every_backend
@pytest.mark.parametrize("layout", layouts("cpu"))
@pytest.mark.parametrize("op", [op for op in OPS if op not in ELSEWHERE])
def test_opcheck(backend, op, layout):
    images = layouts(backend.device)[layout]
    labels = {"channels last": None, "sliced": soft_labels(len(images), 5)}.get(layout, random_labels(len(images), 5))
    check(backend, op, images, labels)


@every_backend
@pytest.mark.parametrize("op", WITHOUT_IMAGES)
def test_opcheck_without_images(backend, op):
    for labels in (random_labels(4, 5), soft_labels(4, 5)):
        check(backend, op, torch.rand(4, 3, 6, 9).to(backend.device), labels)


def check(backend: Backend, op: str, images: Tensor, labels: Tensor | None) -> None:
    overload = getattr(ops_for(backend.name, torch.device(backend.device)), op)
    labels = labels.to(backend.device) if labels is not None else None
    torch.library.opcheck(overload, arguments_of(op, images, labels))


@pytest.mark.parametrize("op", OPS)
def test_cuda_graphs_of_the_compiler_leave_out_what_is_read_on_the_host(op):
    """They would keep the seed of the capture."""
    for namespace in ("cutmix_cuda", "cutmix_cuda_triton", "cutmix_cuda_reference"):
        overload = getattr(getattr(torch.ops, namespace), op).default
        read = {"seed", "constants"} & {argument.name for argument in overload._schema.arguments}
        assert (torch.Tag.cudagraph_unsafe in overload.tags) == bool(read)


def test_opcheck_of_drawing_a_seed():
    torch.library.opcheck(
        torch.ops.cutmix_cuda.draw_seed.default,
        (0,),
        {"device": torch.device("cpu")},
        test_utils=("test_schema", "test_faketensor"),
    )


# ---- torch.compile

compiler = pytest.mark.parametrize(
    "compiler",
    [
        "aot_eager",
        pytest.param(
            "inductor", marks=pytest.mark.skipif(not shutil.which("g++"), reason="inductor wants a C++ compiler")
        ),
    ],
)


def compiled(function, compiler: str = "aot_eager", **how):
    return torch.compile(function, fullgraph=True, backend=compiler, **how)


def assert_same(actual: tuple, expected: tuple) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert_same_bits(a, b)
        assert a.stride() == b.stride()


@compiler
def test_a_training_step(compiler):
    """Everything at once, in one graph: the module draws twice, in place as well, a mask follows the plan, and there is
    something to learn, for which the graph is cut in two and what stands twice in it is merged."""
    module, in_place = CutMix(num_classes=5, label_smoothing=0.1), CutMix(num_classes=5, inplace=True)

    def step(images, labels, mask, weight):
        once, targets = module(images * 2, labels)
        twice, other_targets = module(images * 2, labels)
        own, own_targets = in_place(images + 1, labels)
        mixed, _, plan = cutmix_cuda.cutmix(images, seed=7, return_plan=True)
        return (
            once * weight,
            targets,
            twice * weight,
            other_targets,
            own,
            own_targets,
            mixed,
            cutmix_cuda.mix_images(mask, plan),
        )

    weight = torch.rand(3, 16, 20, requires_grad=True)
    arguments = torch.rand(4, 3, 16, 20), random_labels(4, 5), torch.randint(9, (4, 16, 20)), weight
    torch.manual_seed(11)
    expected = step(*arguments)
    torch.manual_seed(11)
    result = compiled(step, compiler)(*arguments)
    assert_same(result, expected)
    assert not torch.equal(result[0], result[2]), "two draws in one graph are one"


def test_draws_of_one_graph_differ():
    """torch before 2.12 merges equal calls in a graph that is differentiated, those that draw included."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph

    module = CutMix()
    torch.compile(lambda images: [module(images)[0] for _ in range(3)], fullgraph=True, backend=keep)(
        torch.rand(4, 3, 6, 9)
    )
    draws = [node.args for node in graphs[0].graph.nodes if "draw_seed" in str(node.target)]
    assert len(draws) == len(set(draws)) == 3


@every_backend
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"partner": "roll", "scope": "batch", "correct_lam": False},
        {"placement": "inside", "scope": "pair", "prob": 0.5, "alpha": 0.3},
        {"label_smoothing": 0.1, "target_dtype": torch.bfloat16},
    ],
    ids=str,
)
def test_cutmix(backend, how):
    images = torch.rand(5, 3, 6, 9, device=backend.device).to(memory_format=torch.channels_last)
    for labels in (random_labels(5, 4), soft_labels(5, 4)):
        labels = labels.to(backend.device)

        def mix(images, labels):
            return cutmix_cuda.cutmix(images, labels, 4, seed=3, backend=backend.name, **how)  # noqa: B023

        assert_same(compiled(mix)(images, labels), mix(images, labels))


@every_backend
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"cutout": 0.5, "fill": 0.25, "cutout_area": Beta(1.0, 3.0), "partner": "roll"},
        {"cutout": 0.2, "prob": 0.5, "switch_prob": 0.3, "cutmix_alpha": 0.3, "mixup_alpha": Beta(0.2, 1.0)},
        {"mixup_alpha": None, "cutout": 0.5, "cutout_area": 0.1, "fill": -1.0},
    ],
    ids=str,
)
def test_mix(backend, how):
    """Every kind, by the function and by the module, which draws its seed in the graph."""
    images, labels = torch.rand(8, 3, 6, 9, device=backend.device), random_labels(8, 4).to(backend.device)
    module = Mix(num_classes=4, backend=backend.name, **how)

    def mix(images, labels):
        return *cutmix_cuda.mix(images, labels, 4, seed=3, backend=backend.name, **how), *module(images, labels)

    torch.manual_seed(5)
    expected = mix(images, labels)
    torch.manual_seed(5)
    assert_same(compiled(mix)(images, labels), expected)


@every_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_mix_of_sizes_that_change(backend, dtype):
    """In place, where the sizes are symbols of the graph and numbers among the arguments may be too."""

    def mix(images, labels, fill, alpha):
        how = {"mixup_alpha": alpha, "cutout": 0.3, "fill": fill, "seed": 3, "backend": backend.name}
        return cutmix_cuda.mix_(images, labels, 4, **how)

    dynamic = compiled(mix, dynamic=True)
    for batch, height, width in ((8, 6, 9), (7, 12, 10), (2, 5, 5)):
        images = torch.randint(256, (batch, 3, height, width), device=backend.device).to(dtype)
        labels = random_labels(batch, 4).to(backend.device)
        for fill in (2.0, 3.0):
            own, other = images.clone(), images.clone()
            assert_same(dynamic(own, labels, fill, 0.3), mix(other, labels, fill, 0.3))
            assert not torch.equal(own, images)


@every_backend
def test_in_place_and_out(backend):
    def mix(images, labels, out):
        cutmix_cuda.cutmix_(images, labels, 4, seed=3, backend=backend.name)
        return cutmix_cuda.cutmix(images, labels, 4, seed=4, out=out, backend=backend.name)[1]

    given = torch.rand(5, 3, 6, 9, device=backend.device), random_labels(5, 4).to(backend.device)
    results = []
    for function in (mix, compiled(mix)):
        images, out = given[0].clone(), torch.zeros_like(given[0])
        targets = function(images, given[1], out)
        results.append((images, out, targets))
    assert not torch.equal(results[0][0], given[0])
    assert_same(results[1], results[0])


@every_backend
def test_sizes_that_change(backend):
    """One graph for every batch size, the last and smaller one of an epoch included."""
    graphs = 0

    def count(graph, inputs):
        nonlocal graphs
        graphs += 1
        return graph

    def mix(images, labels):
        mixed, targets, plan = cutmix_cuda.cutmix(
            images, labels, 4, seed=3, prob=0.9, return_plan=True, backend=backend.name
        )
        return mixed, targets, plan.packed

    dynamic = torch.compile(mix, fullgraph=True, backend=count, dynamic=True)
    for batch, height, width in ((8, 6, 9), (7, 6, 9), (3, 12, 10), (2, 5, 5)):
        images, labels = torch.rand(batch, 3, height, width, device=backend.device), random_labels(batch, 4)
        labels = labels.to(backend.device)
        assert_same(dynamic(images, labels), mix(images, labels))
    assert graphs == 1


@dataclass(frozen=True)
class Halved(Distribution):
    """Half of what another distribution draws."""

    whole: Distribution
    name: str = "halved"

    def inverse_cdf(self, probability):
        return 0.5 * self.whole.inverse_cdf(probability)


@pytest.mark.parametrize("dynamic", [False, True])
def test_distributions_in_a_graph(dynamic):
    """One from outside, arguments of which each takes a graph of its own, and those made of them in the graph."""
    outside = Beta(0.4, 2.0)

    def mix(images, given, number):
        return [
            cutmix_cuda.cutmix(images, alpha=outside, seed=1)[0],
            cutmix_cuda.cutmix(images, alpha=given, seed=2)[0],
            cutmix_cuda.mix(images, cutmix_alpha=Halved(given), mixup_alpha=Beta(number, b=0.5), cutout=0.3, seed=3)[0],
        ]

    graph, images = compiled(mix, dynamic=dynamic), torch.rand(8, 3, 6, 9)
    for number in (0.3, 0.5, 0.7):
        arguments = images, Uniform(0.1, number), number
        assert_same(graph(*arguments), mix(*arguments))


def test_tables_that_were_made_in_inference_mode():
    """Whoever asks first for a distribution's table, a graph may save it for its backward."""

    def block(images, weight):
        return cutmix_cuda.cutmix(images, alpha=0.1234, seed=1)[0] * weight

    def step(images, weight):
        return checkpoint(block, images, weight, use_reentrant=False)

    images, weight = torch.rand(4, 3, 6, 9), torch.ones((), requires_grad=True)
    with torch.inference_mode():
        expected = block(images, torch.ones(()))
    mixed = compiled(step)(images, weight)
    mixed.sum().backward()
    assert_same_bits(mixed.detach(), expected.clone())


def test_a_seed_that_is_an_input():
    """A seed tensor is data: another value needs no other graph."""

    def mix(images, seed):
        return cutmix_cuda.cutmix(images, seed=seed)[0]

    images = torch.rand(8, 3, 6, 9)
    function = compiled(mix)
    results = [function(images, torch.tensor([seed])) for seed in range(3)]
    for seed, result in enumerate(results):
        assert_same_bits(result, cutmix_cuda.cutmix(images, seed=seed)[0])
    assert not torch.equal(results[0], results[1])


def test_a_bad_label_in_a_graph_gives_nan():
    """A graph does not stop to look at labels: their rows are NaN, and nothing is read or written out of bounds."""

    def mix(images, labels):
        return cutmix_cuda.cutmix(images, labels, 4, seed=3, partner="roll")[1]

    targets = compiled(mix)(torch.rand(4, 3, 6, 9), torch.tensor([0, 99, 2, 3]))
    assert targets.isnan().all(1).tolist() == [False, True, True, False]
    assert not targets[[0, 3]].isnan().any()


# ---- Tracing leaves nothing behind


def traced_by_export(call, images):
    module = torch.nn.Module()
    module.forward = call
    return torch.export.export(module, (images,)).module()(images)


def traced_by_fake_tensors(call, images):
    with FakeTensorMode():
        call(torch.rand(images.shape))
    return call(images)


def traced_by_functionalize(call, images):
    return torch.func.functionalize(call)(images)


@pytest.mark.parametrize(
    ("trace", "fill"), [(traced_by_export, 0.25), (traced_by_fake_tensors, 0.25), (traced_by_functionalize, 0.0)]
)
def test_eager_mode_after_tracing(trace, fill, monkeypatch):
    """What is built once is not built of the tracer's own tensors, whoever comes first."""
    monkeypatch.setattr("cutmix_cuda._constants._built", {})
    monkeypatch.setattr("cutmix_cuda._fill._words", {})
    images = torch.rand(6, 3, 8, 9)

    def call(images):
        return cutmix_cuda.mix(images, cutmix_alpha=0.3, cutout=0.5, fill=fill, seed=torch.tensor([3]))[0]

    traced = trace(call, images)
    eager = call(images)
    assert_same_bits(traced, eager)
    reference = cutmix_cuda.mix(images, cutmix_alpha=0.3, cutout=0.5, fill=fill, seed=3, backend="reference")[0]
    assert_same_bits(eager, reference)


def test_a_plan_made_inside_a_transform_of_torch_func():
    images = torch.rand(6, 3, 8, 9)

    def call(images):
        return cutmix_cuda.mix_images(images, cutmix_cuda.sample_plan(6, 8, 9, seed=3))

    expected = call(images)
    assert_same_bits(torch.func.functionalize(call)(images), expected)
    assert_same_bits(torch.func.jvp(call, (images,), (images,))[0], expected)
