"""Mixing where it is used: loaders and their workers, compiled steps, autocast, several processes, runs that go on."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

import cutmix_cuda
from cutmix_cuda import CutMix, Mix

from ..helpers import assert_same_bits, generator, label_coded_images, random_labels
from ..ranks import RANKS, needs_gloo, run_on_ranks
from .test_seed import oracle as counted_seed

CLASSES = 5
IMAGES = torch.rand(8, 3, 16, 20, generator=generator(0))
LABELS = random_labels(8, CLASSES)


def network() -> nn.Module:
    """The same small network at each call."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 9, CLASSES))


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


# ---- Loaders

BATCH, BATCHES = 8, 4


@functools.cache
def batch_of_images() -> Tensor:
    """Large enough to be worth several threads, and so not made when a worker imports this file: that starts some."""
    return label_coded_images((BATCH, 3, 64, 64))


class SameBatch(Dataset):
    """The same batch over and over."""

    def __len__(self) -> int:
        return BATCH * BATCHES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return batch_of_images()[index % BATCH], index % CLASSES


threads_started: dict[int, int] = {}  # in a worker: mixing with how many threads started how many


class CountThreads:
    """Counts, as the first thing in a worker, the threads that mixing starts there.

    With the number of threads that workers have, and with others, to see that the count can be other than 0.
    """

    def __init__(self, *others: int) -> None:
        self.others = others

    def __call__(self, worker: int) -> None:
        import scipy.special  # noqa: F401, because numpy's libraries start threads of their own

        allowed, images = torch.get_num_threads(), batch_of_images()
        for number in (allowed, *self.others):
            torch.set_num_threads(number)
            before = len(os.listdir("/proc/self/task"))
            CutMix()(images)
            threads_started[number] = len(os.listdir("/proc/self/task")) - before
        torch.set_num_threads(allowed)


class Collate:
    """Mixes, and tells where."""

    def __init__(self, mix: CutMix) -> None:
        self.mix = mix

    def __call__(self, samples):
        worker = get_worker_info()
        return *self.mix(*default_collate(samples)), (worker.id, worker.seed, threads_started)


def loader(mix: CutMix, seed: int, **how) -> DataLoader:
    return DataLoader(
        SameBatch(), batch_size=BATCH, collate_fn=Collate(mix), num_workers=2, generator=generator(seed), **how
    )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize(("context", "persistent"), [("fork", False), ("fork", True), ("spawn", True)])
def test_workers_draw_by_their_own_counted_seeds(context, persistent):
    """Each batch by the hash of its worker's id and seed: all apart, and known in advance. One thread does the work."""
    # GNU OpenMP hangs in a forked process that asks for more threads; only the compiled backend is sure to use them.
    others = (2,) if context == "spawn" and "cpu" in cutmix_cuda.available_backends() else ()
    mix = CutMix(num_classes=CLASSES, seed=3)
    loaded = loader(
        mix,
        0,
        multiprocessing_context=context,
        persistent_workers=persistent,
        worker_init_fn=CountThreads(*others),
    )
    seeds = []
    for epoch in range(2):
        for batch, (mixed, _, (worker, worker_seed, started)) in enumerate(loaded):
            count = batch // 2 + (BATCHES // 2 * epoch if persistent else 0)
            seeds.append(counted_seed(3, count, 0, worker, worker_seed))
            assert_same_bits(mixed, cutmix_cuda.cutmix(batch_of_images(), seed=seeds[-1])[0])
            assert started == {1: 0, **{number: number - 1 for number in others}}
    assert len(set(seeds)) == 2 * BATCHES
    assert "count=0" in repr(mix), "copies in workers count for themselves"


@pytest.mark.parametrize("seed", [None, 3])
def test_workers_draw_the_same_again(seed):
    """At the same seed of the loader; at another, something else."""

    def epochs(loader_seed):
        loaded = loader(CutMix(num_classes=CLASSES, seed=seed), loader_seed)
        return [mixed for _ in range(2) for mixed, *_ in loaded]

    first, again, other = epochs(0), epochs(0), epochs(1)
    for i, mixed in enumerate(first):
        assert_same_bits(again[i], mixed)
        assert not any(torch.equal(mixed, another) for another in [*first[:i], *other])


@pytest.mark.filterwarnings("ignore:.*pin_memory")  # without a GPU there is nothing to pin for
def test_pinned_batches():
    """As far as this machine goes: the values everywhere, pinned memory where there is a GPU."""
    for mixed, targets, (worker, worker_seed, *_) in loader(CutMix(num_classes=CLASSES, seed=3), 0, pin_memory=True):
        expected = [
            cutmix_cuda.cutmix(batch_of_images(), seed=counted_seed(3, count, 0, worker, worker_seed))[0]
            for count in (0, 1)
        ]
        assert any(torch.equal(mixed, images) for images in expected)
        assert mixed.is_pinned() == targets.is_pinned() == torch.cuda.is_available()


# ---- Compiled steps

quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile


@pytest.fixture
def fresh_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@quiet
@pytest.mark.parametrize(
    ("compiler", "seed"),
    [
        ("aot_eager", None),
        ("aot_eager", 3),
        pytest.param("inductor", 3, marks=pytest.mark.skipif(not shutil.which("g++"), reason="it wants a compiler")),
    ],
)
def test_a_whole_step_in_one_graph(compiler, seed, fresh_graphs):
    """Mixing, network, loss, gradients and update. Two steps: mixed to the bit, weights up to rounding, as in eager
    mode."""
    model = network()

    def train(compile_step):
        mix = Mix(num_classes=CLASSES, seed=seed)

        @compile_step
        def step(parameters, images, labels):
            mixed, targets = mix(images, labels)

            def loss_of(parameters):
                return F.cross_entropy(functional_call(model, parameters, (mixed,)), targets)

            gradients, loss = grad_and_value(loss_of)(parameters)
            return {name: parameters[name] - 0.1 * gradients[name] for name in parameters}, loss, mixed, targets

        torch.manual_seed(2)
        parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
        results = []
        for _ in range(2):
            parameters, *result = step(parameters, IMAGES, LABELS)
            results.append(result)
        return parameters, results

    parameters, results = train(torch.compile(fullgraph=True, backend=compiler))
    expected_parameters, expected_results = train(lambda step: step)
    for (loss, *mixed), (expected_loss, *expected) in zip(results, expected_results, strict=True):
        torch.testing.assert_close(loss, expected_loss)
        for actual, tensor in zip(mixed, expected, strict=True):
            assert_same_bits(actual, tensor)
    torch.testing.assert_close(parameters, expected_parameters)
    assert not torch.equal(results[0][1], results[1][1])


@quiet
def test_a_compiled_loss_in_a_loop(fresh_graphs):
    """The usual loop: torch's optimizers break a graph, so they and backward stay outside of it."""

    def train(compile_step):
        model, mix = network(), CutMix(num_classes=CLASSES, seed=3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

        @compile_step
        def loss_of(images, labels):
            mixed, targets = mix(images, labels)
            return F.cross_entropy(model(mixed), targets)

        for _ in range(3):
            optimizer.zero_grad()
            loss_of(IMAGES, LABELS).backward()
            optimizer.step()
        return weights(model), mix.state_dict()

    actual = train(torch.compile(fullgraph=True, backend="aot_eager"))
    expected = train(lambda step: step)
    torch.testing.assert_close(actual, expected)
    assert not torch.equal(expected[0], weights(network()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_captured_step_mixes_anew_at_each_replay():
    """Not with a counted seed, which no replay would count on."""
    images, labels = IMAGES.cuda(), LABELS.cuda()
    model = network().cuda()
    mix, counted = CutMix(num_classes=CLASSES), CutMix(num_classes=CLASSES, seed=3)

    def loss_of():
        mixed, targets = mix(images, labels)
        return mixed, F.cross_entropy(model(mixed), targets)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            loss_of()[1].backward()
    torch.cuda.current_stream().wait_stream(side)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with pytest.raises(RuntimeError, match="CUDA graph"):
            counted(images, labels)
        mixed, loss = loss_of()
        loss.backward()
    replays = []
    for _ in range(3):
        graph.replay()
        replays.append(mixed.clone())
        assert torch.isfinite(loss)
    assert not torch.equal(replays[0], replays[1])
    assert not torch.equal(replays[1], replays[2])


# ---- Autocast


@pytest.mark.parametrize("transform", [CutMix, Mix])
def test_autocast_changes_the_network_alone(transform):
    model = network()
    plain = transform(num_classes=CLASSES, seed=3)(IMAGES, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, targets = transform(num_classes=CLASSES, seed=3)(IMAGES, LABELS)
        logits = model(mixed)
        loss = F.cross_entropy(logits, targets)
    assert logits.dtype == torch.bfloat16
    assert_same_bits(mixed, plain[0])
    assert_same_bits(targets, plain[1])
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in model.parameters())


# ---- Several processes

STEPS = 3


def train_rank(rank: int, folder: str) -> None:
    """Four short runs of one rank, whose mixed images and gradients go to a file."""
    runs: dict[str, list[tuple[Tensor, ...]]] = {}
    for run, seed in {"counted": 3, "again": 3, "other": 4, "drawn": None}.items():
        mix = CutMix(num_classes=CLASSES, seed=seed)
        model = DistributedDataParallel(network())
        torch.manual_seed(rank if seed is None else 0)
        runs[run] = []
        for _ in range(STEPS):
            mixed, targets = mix(IMAGES, LABELS)
            model.zero_grad()
            F.cross_entropy(model(mixed), targets).backward()
            runs[run].append((mixed, targets, gradients(model)))
    torch.save(runs, f"{folder}/{rank}.pt")
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(CutMix(seed=3)))


@needs_gloo
def test_ranks_draw_apart_and_learn_together(tmp_path):
    run_on_ranks(train_rank, str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]

    for run, seed in {"counted": 3, "again": 3, "other": 4}.items():
        for rank, runs in enumerate(ranks):
            for step, (mixed, *_) in enumerate(runs[run]):
                drawn = counted_seed(seed, step, rank)
                assert_same_bits(mixed, cutmix_cuda.cutmix(IMAGES, seed=drawn)[0])
    batches = [mixed for runs in ranks for run in ("counted", "other", "drawn") for mixed, *_ in runs[run]]
    assert len({batch.numpy().tobytes() for batch in batches}) == RANKS * 3 * STEPS

    model = network()
    for run in ranks[0]:
        for step in zip(*(runs[run] for runs in ranks), strict=True):
            model.zero_grad()
            for mixed, targets, _ in step:  # the mean over ranks is what all of them have
                (F.cross_entropy(model(mixed), targets) / RANKS).backward()
            expected = gradients(model)
            for _, _, gradient in step:
                torch.testing.assert_close(gradient, expected)

    # A copy sent to a worker that is not forked, and so in no process group, draws by the rank it comes from.
    for rank in range(RANKS):
        copy = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        assert_same_bits(copy(IMAGES)[0], cutmix_cuda.cutmix(IMAGES, seed=counted_seed(3, 0, rank))[0])


# ---- Runs that go on


class Run:
    """Two epochs of four steps, which can be left and taken up anywhere."""

    def __init__(self) -> None:
        self.model, self.mix, self.step = network(), Mix(num_classes=CLASSES, cutout=0.1, seed=3), 0
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, momentum=0.9)

    def train(self, until: int = 8) -> Tensor:
        while self.step < until:
            self.step += 1
            order = torch.randperm(8, generator=generator(self.step))
            mixed, targets = self.mix(IMAGES[order], LABELS[order])
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(mixed), targets).backward()
            self.optimizer.step()
        return weights(self.model)

    def save(self, path: Path) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("model", "mix", "optimizer")}
        torch.save({**state, "step": self.step}, path)

    def load(self, path: Path, names: tuple[str, ...] = ("model", "mix", "optimizer")) -> None:
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        for name in names:
            getattr(self, name).load_state_dict(state[name])


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    """From a file, in the middle of an epoch, whatever the generators are at: to the last bit of the weights."""
    expected = Run().train()
    left = Run()
    left.train(until=5)
    left.save(tmp_path / "5.pt")
    results = []
    for names in (("model", "mix", "optimizer"), ("model", "optimizer")):
        resumed = Run()
        resumed.load(tmp_path / "5.pt", names)
        torch.manual_seed(99)
        results.append(resumed.train())
    assert_same_bits(results[0], expected)
    assert not torch.equal(results[1], expected), "a forgotten count shows"


def test_a_plain_loop_in_place():
    """uint8 images in channels-last, mixed where they are and only then made floats. The network learns by them which
    channel is bright."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    mix = CutMix(num_classes=3, inplace=True, seed=3)
    for step in range(60):
        labels = torch.arange(12) % 3
        images = torch.randint(100, (12, 3, 12, 12), dtype=torch.uint8, generator=generator(step))
        images[range(12), labels] += 150
        images = images.contiguous(memory_format=torch.channels_last)
        original = images.clone()
        mixed, targets = mix(images, labels)
        assert mixed is images
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        assert_same_bits(mixed, cutmix_cuda.cutmix(original, seed=counted_seed(3, step))[0])
        loss = F.cross_entropy(model(images.float() / 255), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert torch.equal(model(original.float() / 255).argmax(1), labels)
