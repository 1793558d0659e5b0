"""What the tests of this folder count on a GPU for, and the stand-in device has to do alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from .on_device import capture, device_work, profiled, waiting_is_an_error

NUMBERS = torch.arange(12.0).reshape(3, 4)


@pytest.fixture
def numbers(device):
    return NUMBERS.to(device, copy=True)


MIXED = {
    "sum": lambda x: x + NUMBERS,
    "equal": lambda x: torch.equal(x, NUMBERS),
    "matmul": lambda x: NUMBERS.mT @ x,
    "cat": lambda x: torch.cat([x, NUMBERS]),
    "where": lambda x: torch.where(x > 3, x, NUMBERS),
    "index of the CPU's": lambda x: NUMBERS[x > 3],
    "linear": lambda x: nn.Linear(4, 2)(x),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED.keys())
def test_tensors_of_two_devices_do_not_mix(numbers, mix):
    with pytest.raises(RuntimeError):
        mix(numbers)


GO_TOGETHER = {
    "a number": lambda x: x + torch.tensor(1.0),
    "copy": lambda x: x.copy_(NUMBERS + 1),
    "assignment": lambda x: x.__setitem__(slice(0, 1), NUMBERS[:1]),
    "index from the CPU": lambda x: x[torch.tensor([2, 0])],
    "a list": lambda x: x[[2, 0]],
    "linear": lambda x: nn.Linear(4, 2).to(x.device)(x),
}


@pytest.mark.parametrize("use", GO_TOGETHER.values(), ids=GO_TOGETHER.keys())
def test_what_goes_together_all_the_same(numbers, use):
    result = use(numbers)
    assert result is None or result.device == numbers.device


def test_a_tensor_is_on_the_device(device, numbers):
    assert numbers.is_cuda and not numbers.is_cpu and numbers.device == device
    for other in (numbers[1:], numbers.mT.contiguous(), torch.empty_like(numbers), numbers.new_zeros(3), numbers.sum()):
        assert other.device == device
    for made in (torch.empty(3, device=device), torch.tensor([1, 2], device="cuda"), torch.ones(2).cuda()):
        assert made.device == device
    back = numbers.cpu()
    assert back.device.type == "cpu" and torch.equal(back, NUMBERS)
    back.zero_()
    assert numbers.sum().item() == NUMBERS.sum().item(), "a copy shares no memory"
    with pytest.raises(TypeError):
        numbers.numpy()


WAITS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.sum() > 3),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "to the CPU": lambda x: x.to("cpu"),
    "from the CPU": lambda x: NUMBERS.to(x.device),
    "copy from the CPU": lambda x: x.copy_(NUMBERS),
    "tensor": lambda x: torch.tensor([1, 2], device=x.device),
    "equal": lambda x: torch.equal(x, x.clone()),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 3],
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_what_waits_raises_where_waiting_is_an_error(numbers, wait):
    with waiting_is_an_error(), pytest.raises(RuntimeError, match="synchronizing"):
        wait(numbers)
    wait(numbers)


def test_what_does_not_wait_does_not_raise(numbers):
    index = torch.tensor([2, 0], device=numbers.device)
    with waiting_is_an_error():
        numbers[numbers > 3] = 0
        numbers[1:, 2] = 5
        numbers[index].sum()
        numbers.new_full((3,), 2.0).uniform_()
        torch.arange(4, device=numbers.device).flip(0)
        torch.rand(3, device=numbers.device, generator=torch.Generator(numbers.device).manual_seed(0))


def test_a_graph_runs_again_what_was_captured(numbers):
    def call():
        return (numbers * 2, numbers.sum(0), numbers.new_empty(100).uniform_())

    call()
    graph, (twice, sums, drawn) = capture(call)
    seen = []
    for value in (1.0, 3.0):
        numbers.fill_(value)
        graph.replay()
        assert torch.equal(twice, torch.full_like(numbers, 2 * value))
        assert torch.equal(sums, torch.full_like(sums, 3 * value))
        seen.append(drawn.clone())
    assert not torch.equal(*seen)


def test_kernels_are_counted(numbers):
    if not device_work(profiled(lambda: numbers + 1)):
        pytest.skip("torch's profiler sees no kernels here")
    for call, count in (
        (lambda: numbers[1:].mT, 0),
        (lambda: torch.empty_like(numbers), 0),
        (lambda: numbers + 1, 1),
        (lambda: numbers.mul_(2), 1),
        (lambda: numbers.fill_(0).add_(1), 2),
    ):
        assert len(device_work(profiled(call))) == count


def test_allocations_are_counted(device, numbers):
    before = torch.cuda.memory_stats(device)
    kept = numbers + 1, torch.empty(1000, device=device), numbers[1:]
    after = torch.cuda.memory_stats(device)
    names = "allocation.all.allocated", "requested_bytes.all.allocated"
    assert [after[name] - before[name] for name in names] == [2, kept[0].nbytes + kept[1].nbytes]


def test_work_takes_its_time(device):
    torch.cuda._sleep(10**9)
    event = torch.cuda.Event()
    event.record()
    assert not event.query()
    torch.cuda.synchronize(device)
    assert event.query()
