"""What only CUDA has: graphs, streams and devices; and what a call costs there: one launch, its results, no wait."""

from __future__ import annotations

import pytest
import torch

import cutmix_cuda
from cutmix_cuda import CutMix, MixPlan
from cutmix_cuda._literals import BackendName

from ..helpers import (
    assert_same_bits,
    oracle_images,
    oracle_targets,
    planned,
    random_labels,
    soft_labels,
)
from ..ops.test_layouts import lay_out
from .on_device import (
    ALL_CALLS,
    ON_STAND_IN,
    SEED,
    Batch,
    assert_as_expected,
    capture,
    check,
    device_work,
    every_call,
    finite_images,
    make_batch,
    profiled,
    side_stream,
    waiting_is_an_error,
)

SAMPLING = [call for call in ALL_CALLS if call.startswith(("cutmix", "sample", "augment"))]
INPUTS = {
    "float32": lambda: finite_images((8, 3, 32, 48)),
    "channels last": lambda: finite_images((8, 3, 32, 48), torch.bfloat16).to(memory_format=torch.channels_last),
    "odd rows": lambda: finite_images((8, 3, 33, 47), torch.uint8),
    "slice": lambda: lay_out(finite_images((8, 3, 33, 47)), (0, 1, 2, 3), margins=(1, 2, 3, 1))[1],
}
every_input = pytest.mark.parametrize("images", INPUTS.values(), ids=INPUTS.keys())


def warm(call: str, batch: Batch, backend: BackendName) -> None:
    """What a first call does on top: compile, build tables, take memory from the device."""
    ALL_CALLS[call](batch.on(batch.images.device), backend)
    torch.cuda.synchronize(batch.images.device)


# ---- CUDA graphs


@every_call
@every_input
def test_a_graph_draws_by_the_seed_that_is_on_the_device(backend, device, images, call):
    """Captured once, replayed with another seed each time: what an eager call with that seed gives."""
    batch = make_batch(images())
    given = batch.on(device)._replace(seed=batch.seed.to(device))
    warm(call, given, backend)
    graph, results = capture(lambda: ALL_CALLS[call](given, backend))
    seen = []
    for seed in (1, -5, 2**40):
        given.seed.fill_(seed)
        given.images.copy_(batch.images)  # the call in place changed them
        graph.replay()
        torch.cuda.synchronize(device)
        like = batch.on("cpu")._replace(seed=torch.tensor([seed]))
        assert_as_expected(given, results, like, ALL_CALLS[call](like, "reference"))
        seen.append([result.tolist() for result in results if result.dtype == torch.int32])
    if call in SAMPLING:
        assert seen[0] != seen[1] != seen[2] != seen[0], "replays drew the same plan"


@pytest.mark.parametrize("in_place", [False, True])
def test_a_graph_draws_its_own_seeds(backend, device, in_place):
    """Where no seed is given each replay draws anew, and pixels and targets follow its plan."""
    mix = cutmix_cuda.cutmix_ if in_place else cutmix_cuda.cutmix
    images, labels = finite_images((8, 3, 32, 48)), random_labels(8, 10)
    static, static_labels = images.to(device, copy=True), labels.to(device)

    def call():
        mixed, targets, plan = mix(static, static_labels, 10, return_plan=True, backend=backend)
        return mixed, targets, plan.packed

    call()
    torch.cuda.synchronize(device)
    graph, results = capture(call)
    plans = []
    for _ in range(3):
        static.copy_(images)
        graph.replay()
        mixed, targets, packed = (result.cpu().clone() for result in results)
        plan = planned(MixPlan(packed, 32, 48))
        assert_same_bits(mixed, oracle_images(images, plan))
        assert_same_bits(targets, oracle_targets(labels, plan, 10))
        plans.append(packed)
    assert not torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[1], plans[2])
    assert not torch.equal(plans[0], plans[2])


# ---- Streams and devices


@every_call
def test_work_is_on_the_current_stream(backend, device, call):
    """Behind slow work that has yet to write the images, on a stream that nothing else waits for."""
    batch = make_batch(finite_images((8, 3, 32, 48)))
    given, like = batch.on(device), batch.on("cpu")
    source = given.images.clone()
    warm(call, given, backend)
    given.images.fill_(-1.0)
    with side_stream(device):
        torch.cuda._sleep(10**8)  # cycles: about 50 ms
        given.images.copy_(source)
        results = ALL_CALLS[call](given, backend)
    assert_as_expected(given, results, like, ALL_CALLS[call](like, "reference"))


@pytest.fixture
def other_device(device) -> torch.device:
    """A device that is not the current one."""
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device")
    return torch.device("cuda", (torch.cuda.current_device() + 1) % torch.cuda.device_count())


@every_call
def test_work_is_on_the_device_of_the_images(backend, device, other_device, call):
    """Whichever is the current device, which stays what it was."""
    batch = make_batch(finite_images((8, 3, 32, 48)))
    current = torch.cuda.current_device()
    for where in (other_device, device):
        check(batch, backend, where, [call])
        check(batch._replace(seed=batch.seed.to(where)), backend, where, [call])
        assert all(result.device == where for result in ALL_CALLS[call](batch.on(where), backend))
    assert torch.cuda.current_device() == current


def test_tensors_of_two_devices_are_refused(backend, device):
    images, labels = finite_images((4, 3, 8, 8)).to(device), random_labels(4, 5)
    plan = cutmix_cuda.sample_plan(4, 8, 8, seed=SEED)
    for wrong in (
        lambda: cutmix_cuda.cutmix(images, labels, 5, backend=backend),
        lambda: cutmix_cuda.cutmix(images.cpu(), seed=torch.tensor([1], device=device)),
        lambda: cutmix_cuda.cutmix(images, out=images.cpu(), backend=backend),
        lambda: cutmix_cuda.mix_images(images, plan, backend=backend),
    ):
        with pytest.raises(ValueError, match="device"):
            wrong()


# ---- What a call costs


@every_input
@every_call
def test_one_launch_a_call(backend, device, images, call):
    """One kernel, no copy, no fill: with the seed on the host, and on the device."""
    if not device_work(profiled(lambda: torch.ones(8, device=device) + 1)):
        pytest.skip("torch's profiler sees no kernels here")
    batch = make_batch(images()).on(device)
    for given in (batch, batch._replace(seed=batch.seed.to(device))):
        warm(call, given, backend)
        work = device_work(profiled(lambda: ALL_CALLS[call](given, backend)))  # noqa: B023
        assert len(work) == 1, work


@every_input
@pytest.mark.parametrize("inplace", [False, True])
def test_every_kind_in_one_launch(backend, device, images, inplace):
    """Nor does the host wait to learn which kinds were drawn."""
    if not device_work(profiled(lambda: torch.ones(8, device=device) + 1)):
        pytest.skip("torch's profiler sees no kernels here")
    batch = make_batch(images()).on(device)

    mix = cutmix_cuda.mix_ if inplace else cutmix_cuda.mix

    def call(seed):
        how = {"cutout": 0.25, "prob": 0.9, "seed": seed, "backend": backend}
        return mix(batch.images, batch.labels, batch.classes, **how)

    for seed in (batch.seed, batch.seed.to(device)):
        call(seed)
        torch.cuda.synchronize(device)
        with waiting_is_an_error():
            call(seed)
        work = device_work(profiled(lambda: call(seed)))  # noqa: B023
        assert len(work) == 1, work


@every_input
@pytest.mark.parametrize(
    "call", [call for call in ALL_CALLS if call != "normalize_images"]
)  # and a plan that draws none
def test_nothing_is_allocated_but_the_results(backend, device, images, call):
    batch = make_batch(images()).on(device)
    for given in (batch, batch._replace(seed=batch.seed.to(device))):
        warm(call, given, backend)
        before = torch.cuda.memory_stats(device)
        results = ALL_CALLS[call](given, backend)
        after = torch.cuda.memory_stats(device)
        count, size = (
            after[name] - before[name] for name in ("allocation.all.allocated", "requested_bytes.all.allocated")
        )
        assert (count, size) == (len(results), sum(result.nbytes for result in results))


@every_call
def test_the_host_does_not_wait(backend, device, call):
    """torch sees nothing to wait for, and the call returns while the device is still busy with something else."""
    batch = make_batch(finite_images((8, 3, 32, 48))).on(device)
    for given in (batch, batch._replace(seed=batch.seed.to(device))):
        warm(call, given, backend)
        with waiting_is_an_error():
            ALL_CALLS[call](given, backend)
        torch.cuda._sleep(10**9)  # cycles: about half a second
        busy = torch.cuda.Event()
        busy.record()
        ALL_CALLS[call](given, backend)
        assert not busy.query(), "the call returned after the work before it was done"
        torch.cuda.synchronize(device)


def test_the_host_does_not_wait_for_the_rest_of_the_package(backend, device):
    """The module, plans made by hand, their parts, and labels that are none."""
    images, labels = finite_images((8, 3, 32, 48)).to(device), random_labels(8, 10).to(device)
    outside = torch.full_like(labels, 10)
    boxes, partner = torch.tensor([[1, 2, 3, 4]] * 8).to(device), torch.arange(8).flip(0).to(device)
    lam = torch.full((8,), 0.5, device=device)
    modules = [CutMix(num_classes=10, inplace=inplace, backend=backend) for inplace in (False, True)]

    def everything():
        for module in modules:
            module(images, labels)
            module(images, outside)
        for plan in (
            MixPlan.from_boxes(partner, boxes, 32, 48),
            MixPlan.from_boxes(partner, boxes, 32, 48, lam=lam),
            cutmix_cuda.sample_plan(8, 32, 48, device=device, backend=backend),
        ):
            cutmix_cuda.apply_plan(images, outside, plan, 10, backend=backend)
            cutmix_cuda.mix_images_(images, plan, backend=backend)
            assert plan.boxes.shape == (8, 4) and plan.lam.dtype == torch.float32

    everything()
    torch.cuda.synchronize(device)
    with waiting_is_an_error():
        everything()
        with pytest.raises(RuntimeError):  # or else the above shows nothing
            images.sum().item()


# ---- Contexts and compilers


@every_call
def test_autocast_changes_nothing(backend, device, call):
    batch = make_batch(finite_images((4, 3, 8, 16)), soft_labels(4, 5))
    given, like = batch.on(device), batch.on("cpu")
    with torch.autocast(device.type, torch.bfloat16):
        results = ALL_CALLS[call](given, backend)
    assert_as_expected(given, results, like, ALL_CALLS[call](like, "reference"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "compiler",
    [{"backend": "aot_eager"}, {"backend": "inductor"}, {"mode": "reduce-overhead"}],
    ids=lambda how: next(iter(how.values())),
)
@pytest.mark.parametrize("call", SAMPLING)
def test_a_compiled_graph_is_eager_mode(backend, device, compiler, call):
    """Whole graphs, seeds on the host and on the device, more than one call of each."""
    torch._dynamo.reset()
    batch = make_batch(finite_images((4, 3, 16, 20)))  # the graph also computes

    def step(images, labels, seed, out):
        given = batch._replace(images=images + 1, labels=labels, seed=seed, out=out)
        return given.images, *ALL_CALLS[call](given, backend)

    compiled = torch.compile(step, fullgraph=True, **compiler)
    for seed_device in {"cpu", str(device)}:
        for seed in range(3):
            results = []
            for function in (step, compiled):
                given = batch.on(device)
                torch.compiler.cudagraph_mark_step_begin()
                result = function(given.images, given.labels, torch.tensor([seed], device=seed_device), given.out)
                results.append([*(one.clone() for one in result), given.out])
            for eager, other in zip(*results, strict=True):
                assert_same_bits(other, eager)


# ---- More than 2^31 elements


def room_for(device: torch.device, size: int) -> None:
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    if free < size:
        pytest.skip(f"needs {size / 2**30:.0f} GiB of the device's memory, and {free / 2**30:.0f} are free")


def assert_mixed(mixed, images, plan: MixPlan) -> None:
    """Sample by sample on the device: the box from the partner, the four sides around it its own."""
    for i, (partner, (y0, x0, y1, x1), _, is_mixed) in enumerate(planned(plan)):
        assert is_mixed and y0 < y1 and x0 < x1
        assert torch.equal(mixed[i, ..., y0:y1, x0:x1], images[partner, ..., y0:y1, x0:x1])
        for rows, columns in (
            (slice(0, y0), slice(None)),
            (slice(y1, None), slice(None)),
            (slice(y0, y1), slice(0, x0)),
            (slice(y0, y1), slice(x1, None)),
        ):
            assert torch.equal(mixed[i, ..., rows, columns], images[i, ..., rows, columns])


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels last"])
@pytest.mark.parametrize("channels", [1, 3])
def test_more_than_31_bits_of_pixels(backend, device, channels, channels_last):
    """A batch of more than 2^31 elements; with three channels a sample is as large by itself."""
    side = 2**5 if ON_STAND_IN else 2**15
    shape = (3, side, side, channels)
    size = 3 * side * side * channels
    room_for(device, 3 * size)
    images = torch.empty(shape, dtype=torch.uint8, device=device).random_(
        generator=torch.Generator(device).manual_seed(0)
    )
    images = images.movedim(-1, 1) if channels_last else images.view(3, channels, side, side)
    # Boxes that end in the last corner, and one that begins in the first.
    boxes = torch.tensor([[side - 3, side - 5, side, side], [0, 0, side - 1, side - 7], [1, side // 2, side, side]])
    plan = MixPlan.from_boxes(torch.tensor([2, 1, 0]), boxes, side, side).to(device)
    mixed = cutmix_cuda.mix_images(images, plan, backend=backend)
    assert_mixed(mixed, images, plan)
    cutmix_cuda.mix_images_(images, plan, backend=backend)
    for own, expected in zip(images, mixed, strict=True):
        assert torch.equal(own, expected)


def test_more_than_31_bits_of_targets(backend, device):
    size, classes = (2**5, 2**8 + 1) if ON_STAND_IN else (2**14, 2**17 + 1)
    room_for(device, 3 * size * classes)
    labels = torch.arange(size, device=device)
    plan = cutmix_cuda.sample_plan(size, 8, 8, seed=SEED, device=device, backend=backend)
    targets = cutmix_cuda.mix_targets(labels, plan, classes, target_dtype=torch.bfloat16, backend=backend)
    own, other = plan.lam.bfloat16(), (1 - plan.lam).bfloat16()
    assert torch.equal(targets[labels, labels], own)
    assert torch.equal(targets[labels, plan.partner.long()], other)
    nonzero = torch.cat([part.count_nonzero(1) for part in targets.split(2**10)])
    assert torch.equal(nonzero, (own != 0).long() + (other != 0).long())
