"""Seeds that are counted, ``CutMix(seed=...)``: which ones are drawn, and what becomes of the count."""

from __future__ import annotations

import copy
import hashlib
import io
import multiprocessing
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import cutmix_cuda
from cutmix_cuda import CutMix, Mix, _seed
from cutmix_cuda._seed import seed_tensor

from ..helpers import assert_same_bits, every_backend, generator, random_images, random_labels

IMAGES, LABELS = random_images((8, 3, 16, 20)), random_labels(8, 5)


def oracle(seed: int, count: int, rank: int = 0, worker: int = -1, worker_seed: int = 0) -> int:
    """The documented hash, byte by byte."""
    fields = b"".join((field % 2**64).to_bytes(8, "little") for field in (seed, count, rank, worker, worker_seed))
    return int.from_bytes(hashlib.blake2b(fields, digest_size=8).digest(), "little")


def drawn(module: CutMix, calls: int) -> list[int]:
    """The next seeds of a module, as they are in 0..2^64-1."""
    assert module.seeds is not None
    return [int(module.seeds.next()) % 2**64 for _ in range(calls)]


# ---- What is drawn


@every_backend
@pytest.mark.parametrize("name", ["cutmix", "mix"])
def test_each_call_is_the_function_with_the_next_seed(backend, name):
    images, labels = IMAGES.to(backend.device), LABELS.to(backend.device)
    module = {"cutmix": CutMix, "mix": Mix}[name](num_classes=5, seed=3, backend=backend.name)
    before = torch.get_rng_state()
    for count in range(3):
        mixed, targets = module(images, labels)
        function = getattr(cutmix_cuda, name)
        expected = function(images, labels, 5, seed=oracle(3, count), backend=backend.name)
        assert_same_bits(mixed, expected[0])
        assert_same_bits(targets, expected[1])
    assert torch.equal(torch.get_rng_state(), before), "a counted seed leaves the default generator alone"


def test_in_place():
    images = IMAGES.clone()
    mixed, _ = CutMix(seed=3, inplace=True)(images)
    assert mixed is images
    assert_same_bits(mixed, cutmix_cuda.cutmix(IMAGES, seed=oracle(3, 0))[0])


def test_neighbouring_seeds_and_counts_share_no_seed():
    """With seed + count, say, seed 1 would draw at step 0 what seed 0 draws at step 1."""
    seeds = [seed for start in range(-4, 4) for seed in drawn(CutMix(seed=start), 50)]
    assert seeds == [oracle(seed, count) for seed in range(-4, 4) for count in range(50)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("seed", [0, -1, -(2**63), 2**63, 2**64 - 1, torch.tensor([7]), torch.tensor(7)])
def test_a_seed_in_every_form(seed):
    assert drawn(CutMix(seed=seed), 1) == [oracle(int(seed), 0)]


def test_a_plan_is_drawn_as_by_a_call():
    module = CutMix(seed=3)
    plans = [module.sample_plan(8, 16, 20), module.sample_plan(8, 16, 20, seed=5), module.sample_plan(8, 16, 20)]
    for plan, seed in zip(plans, (oracle(3, 0), 5, oracle(3, 1)), strict=True):
        assert torch.equal(plan.packed, cutmix_cuda.sample_plan(8, 16, 20, seed=seed).packed)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": True}, TypeError, "seed must be an int"),
        ({"seed": 1.0}, TypeError, "seed must be an int"),
        ({"seed": "1"}, TypeError, "seed must be an int"),
        ({"seed": 2**64}, ValueError, "seed must be in"),
        ({"seed": -(2**63) - 1}, ValueError, "seed must be in"),
        ({"seed": torch.tensor([1.0])}, ValueError, "seed must be one int64"),
        ({"seed": torch.tensor([1, 2])}, ValueError, "seed must be one int64"),
        ({"seed": 1, "generator": generator(1)}, ValueError, "generator must be None where a seed is given"),
        ({"seed": 1, "generator": 1}, TypeError, "generator must be a torch.Generator"),
    ],
    ids=["bool", "float", "text", "too great", "too small", "float tensor", "two", "with a generator", "no generator"],
)
@pytest.mark.parametrize("transform", [CutMix, Mix])
def test_wrong_seed(transform, arguments, error, message):
    with pytest.raises(error, match=message):
        transform(**arguments)


# ---- The count


def test_goes_on_from_a_saved_state():
    """Saved in the middle, to a file that holds nothing but tensors and numbers, and as part of a model."""
    module = nn.ModuleDict({"net": nn.Linear(2, 2), "mix": CutMix(num_classes=5, seed=3)})
    drawn(module["mix"], 4)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    rest = [module["mix"](IMAGES, LABELS)[0] for _ in range(3)]

    file.seek(0)
    resumed = nn.ModuleDict({"net": nn.Linear(2, 2), "mix": CutMix(num_classes=5, seed=3)})
    drawn(resumed["mix"], 9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for expected in rest:
        assert_same_bits(resumed["mix"](IMAGES, LABELS)[0], expected)


def test_a_saved_state_stays_as_it_was():
    module = CutMix(seed=3)
    saved = module.state_dict()
    first = drawn(module, 3)
    module.load_state_dict(saved)
    assert drawn(module, 3) == first


def test_the_saved_seed_goes_before_the_one_given():
    saved = CutMix(seed=3)
    drawn(saved, 2)
    module = CutMix(seed=4)
    module.load_state_dict(saved.state_dict())
    assert drawn(module, 1) == [oracle(3, 2)]


@pytest.mark.parametrize("state", [3, torch.tensor([3]), torch.tensor([3.0, 0.0]), torch.tensor([[3, 0]])], ids=str)
def test_wrong_state(state):
    module = CutMix(seed=3)
    with pytest.raises(ValueError, match="seed and count"):
        module.load_state_dict({"seeds._extra_state": state})
    assert drawn(module, 1) == [oracle(3, 0)]


def test_without_a_seed_there_is_no_state():
    assert not CutMix().state_dict()
    with pytest.raises(RuntimeError, match="_extra_state"):
        CutMix(seed=3).load_state_dict(CutMix().state_dict())


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["1", "deep", "p"]
)
def test_a_copy_goes_on_by_itself(duplicate):
    module = nn.Sequential(CutMix(seed=3))
    drawn(module[0], 2)
    twin = duplicate(module[0].seeds)
    expected = [oracle(3, count) for count in (2, 3, 4)]
    assert [int(twin.next()) % 2**64 for _ in range(3)] == expected
    assert drawn(module[0], 3) == expected


def test_stays_on_the_cpu_and_whole():
    module = nn.Sequential(nn.Linear(2, 2), CutMix(seed=3)).half().to("meta")
    assert module[0].weight.device.type == "meta"
    assert drawn(module[1], 2) == [oracle(3, 0), oracle(3, 1)]
    assert not list(module[1].parameters())
    assert not list(module[1].buffers()), "DistributedDataParallel would send it around"


def test_does_not_care_for_the_default_device():
    with torch.device("meta"):
        module, unseeded = CutMix(seed=3), CutMix()
        assert_same_bits(module(IMAGES)[0], cutmix_cuda.cutmix(IMAGES, seed=oracle(3, 0))[0])
        torch.manual_seed(5)
        mixed, _ = unseeded(IMAGES)
    torch.manual_seed(5)
    assert_same_bits(mixed, unseeded(IMAGES)[0])


def test_in_and_out_of_inference_mode():
    with torch.inference_mode():
        module = CutMix(seed=3)
        assert drawn(module, 1) == [oracle(3, 0)]
    assert drawn(module, 1) == [oracle(3, 1)]
    module.load_state_dict(module.state_dict())
    with torch.inference_mode():
        assert drawn(module, 1) == [oracle(3, 2)]


def test_says_where_it_is():
    module = CutMix(num_classes=5, seed=3)
    drawn(module, 2)
    assert "seed=3, count=2" in repr(module)
    assert "seed" not in repr(CutMix(num_classes=5))


# ---- Threads and processes


def test_threads_share_the_count():
    """No seed comes twice, and none is left out."""
    module = CutMix(seed=3)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            seeds = [seed for part in threads.map(lambda _: drawn(module, 500), range(8)) for seed in part]
    finally:
        sys.setswitchinterval(interval)
    assert sorted(seeds) == sorted(oracle(3, count) for count in range(4000))


def test_a_process_that_is_forked_while_a_thread_counts():
    module = CutMix(seed=3)
    with _seed._counting:
        process = multiprocessing.get_context("fork").Process(target=drawn, args=(module, 1))
        process.start()
    process.join(60)
    assert process.exitcode == 0


# ---- Made where tensors are others


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
@pytest.mark.parametrize("mode", [torch.inference_mode, FakeTensorMode, lambda: torch.device("meta")])
@pytest.mark.parametrize("seed", [3, torch.tensor([3])], ids=["int", "tensor"])
def test_made_in_another_mode(mode, seed):
    """A seeded transform counts on the CPU wherever it was made, and goes on elsewhere, compiled as well."""
    torch._dynamo.reset()
    with mode():
        module = CutMix(seed=seed)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for count, call in enumerate((module, compiled, compiled, module)):
        assert_same_bits(call(IMAGES)[0], cutmix_cuda.cutmix(IMAGES, seed=oracle(3, count))[0])


# ---- Compiled

COMPILERS = ["aot_eager", *(["inductor"] if shutil.which("g++") else [])]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_compiled_graph_counts(compiler):
    """Two draws in one graph, which stands for every count; eager calls and states in between are the graph's too."""
    torch._dynamo.reset()
    module = CutMix(num_classes=5, seed=3)

    @torch.compile(fullgraph=True, backend=compiler)
    def step(images, labels):
        return module(images, labels)[0], module(images, labels)[0]

    def expect(mixed, count):
        assert_same_bits(mixed, cutmix_cuda.cutmix(IMAGES, LABELS, 5, seed=oracle(3, count))[0])

    with torch.compiler.set_stance("default"):
        for count in (0, 2):
            for i, mixed in enumerate(step(IMAGES, LABELS)):
                expect(mixed, count + i)
    with torch.compiler.set_stance("fail_on_recompile"):
        expect(module(IMAGES, LABELS)[0], 4)
        saved = module.state_dict()
        for _ in range(2):
            for i, mixed in enumerate(step(IMAGES, LABELS)):
                expect(mixed, 5 + i)
            module.load_state_dict(saved)
    torch._dynamo.reset()


def test_opcheck():
    torch.library.opcheck(torch.ops.cutmix_cuda.next_seed.default, (torch.tensor([3, 4, 0]),))


# ---- While a CUDA graph is being captured


@pytest.fixture
def capturing(monkeypatch):
    """What torch says while a stream is capturing."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)


def test_a_capturing_stream_draws_on_the_device(capturing):
    """On a device that is not there, whose tensors know all but their values."""
    with FakeTensorMode():
        seed = seed_tensor(None, None, torch.device("cuda:0"))
    assert (seed.device.type, seed.dtype, seed.shape) == ("cuda", torch.int64, (1,))


def test_a_capturing_stream_refuses_what_is_drawn_on_the_host(capturing):
    module = CutMix(seed=3)
    unseeded = torch.compile(CutMix(), fullgraph=True, backend="aot_eager")
    for draw in (
        lambda: module(IMAGES),
        lambda: unseeded(IMAGES),
        lambda: seed_tensor(None, generator(0), torch.device("cuda")),
    ):
        with pytest.raises(RuntimeError, match="leave seed and generator None"):
            draw()
    assert "count=0" in repr(module)
    assert seed_tensor(None, generator(0), torch.device("cpu")).device.type == "cpu"
