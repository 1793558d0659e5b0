"""The benchmark of the batch tail: its checks catch wrong chains, its counts are right, and all of it runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("kornia")
pytest.importorskip("timm")
pytest.importorskip("torchvision")

from benchmarks import headline, implementations, suite, tables
from benchmarks.chains import (
    COLOUR_AND_FLIP,
    ERASE_AND_MIX,
    FLIP_ONLY,
    JOBS,
    MIX,
    OURS,
    TIMM_ELEM,
    TORCHVISION,
    TailCase,
    chains,
    erased_boxes,
    plain_tail,
)
from benchmarks.checks import WrongResult
from benchmarks.counted import count_call
from benchmarks.goals import OF_THE_TAIL, judge
from benchmarks.implementations import Implementation
from benchmarks.tail_checks import MEAN, STD, check, check_all, small_case
from benchmarks.timing import Timing

ROOT = Path(__file__).resolve().parents[2]
CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny batches are slow where threads of their own share the cores with other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def chain(name, job, device=CPU):
    return next(one for one in chains(job, device, with_compiled=False)[0] if one.name == name)


def spoiled(one, spoil):
    """The same chain, with something done to its results."""

    def prepare(case):
        call = one.prepare(case)
        return lambda inputs: spoil(inputs, *call(inputs))

    return replace(one, prepare=prepare)


# ---- Checks


def normalised_in_bfloat16(inputs, images, targets):
    mean, std = (torch.tensor(each, dtype=torch.bfloat16).view(3, 1, 1) for each in (MEAN, STD))
    return torch.where(images == 0, images, ((images.float() * 0.226 + 0.449).bfloat16() - mean) / std), targets


def another_value(inputs, images, targets):
    images[-1, 1, 3, 3] += 0.03125
    return images, targets


def other_weights(inputs, images, targets):
    return images, targets.roll(1, 0)


def other_layout(inputs, images, targets):
    return images.to(memory_format=torch.channels_last), targets


def float32(inputs, images, targets):
    return images.float(), targets


def changed_input(inputs, images, targets):
    inputs.images[0, 0, 0, 0] += 1
    return images, targets


SPOILT = [normalised_in_bfloat16, another_value, other_weights, other_layout, float32, changed_input]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_chain_that_does_something_else_is_caught(spoil):
    with pytest.raises(WrongResult):
        check(spoiled(chain(OURS, MIX), spoil), small_case(MIX, False), CPU)


def one_channel_brighter(inputs, images, targets):
    images[:, 1] *= 1.1
    return images, targets


def no_colours_in_one_sample(inputs, images, targets):
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    images[3] = ((inputs.images[3] / 255 - mean) / std).bfloat16()
    images[3, :, 0, 0] = images[3, :, 0, 1]
    return images, targets


def greyer_than_it_may_be(inputs, images, targets):
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    raw = images.float() * std + mean
    grey = (raw * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    return ((grey + 0.5 * (raw - grey) - mean) / std).bfloat16(), targets


def darker_than_it_may_be(inputs, images, targets):
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    return ((0.8 * (images.float() * std + mean) - mean) / std).bfloat16(), targets


def upside_down(inputs, images, targets):
    return images.flip(2).contiguous(), targets


@pytest.mark.parametrize(
    "spoil", [one_channel_brighter, no_colours_in_one_sample, greyer_than_it_may_be, darker_than_it_may_be, upside_down]
)
def test_a_chain_of_other_colours_is_caught(spoil):
    one, case = chain(OURS, COLOUR_AND_FLIP), small_case(COLOUR_AND_FLIP, False)
    check(one, case, CPU)
    with pytest.raises(WrongResult, match=r"values that|factors are"):
        check(spoiled(one, spoil), case, CPU)


@pytest.mark.parametrize(
    "does, claims",
    [
        (MIX, ERASE_AND_MIX),
        (ERASE_AND_MIX, MIX),
        (FLIP_ONLY, MIX),
        (FLIP_ONLY, COLOUR_AND_FLIP),
        (COLOUR_AND_FLIP, FLIP_ONLY),
        (replace(COLOUR_AND_FLIP, flips=False), COLOUR_AND_FLIP),
        (replace(COLOUR_AND_FLIP, mixes=True), COLOUR_AND_FLIP),
    ],
)
def test_a_chain_that_does_another_job_is_caught(does, claims):
    with pytest.raises((WrongResult, AttributeError, RuntimeError, TypeError)):
        check(chain(OURS, does), small_case(claims, True), CPU)


def test_another_scope_than_it_claims_is_caught():
    for name, scope in ((OURS, "batch"), (TORCHVISION, "sample")):
        with pytest.raises(WrongResult, match=f"once a {scope}"):
            check(replace(chain(name, MIX), scope=scope), small_case(MIX, True), CPU)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_what_is_given_to_the_compiler_through_the_check(job):
    mean, std = (255 * torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))

    def prepare(case):
        return lambda inputs: plain_tail(
            inputs.images, inputs.labels, mean, 1 / std, case.classes, job, case.out_format
        )

    assert check_all([Implementation("plain", "peer", prepare, scope="sample")], job, CPU) == (2, {})


def test_erased_boxes_of_the_compiled_chain_are_of_the_areas_that_they_should_be():
    torch.manual_seed(0)
    erased = erased_boxes(torch.empty(4000, 3, 64, 64))
    areas = erased.float().mean((1, 2, 3))
    assert float((areas > 0).float().mean()) == pytest.approx(0.25, abs=0.03)  # 4 standard errors
    assert float(areas[areas > 0].min()) > 0.015 and float(areas.max()) < 0.35


# ---- Counts


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_our_tail_is_one_kernel_of_three_bytes_an_element(job):
    """And nothing is copied from the host. What else there is are labels, targets, plans and views."""
    case = TailCase(batch=32, size=64, classes=10, job=job, to_channels_last=True)
    count = count_call(chain(OURS, job, META), case, 32)
    assert (count["image_kernels"], count["label_kernels"], count["transfers"]) == (1, 0, 0)
    tables = 4 * 4097 * 4  # of lambdas and of aspects
    a_sample = 8 + 4 * case.classes + 32 + 32
    others = (tables + a_sample * case.batch) / case.image_bytes
    assert 3 <= count["image_passes"] <= 3 + others


def test_counts_of_the_peers_chains():
    case = TailCase(batch=32, size=64, classes=10, job=ERASE_AND_MIX, to_channels_last=True)
    torchvision = count_call(chain(TORCHVISION, ERASE_AND_MIX, META), case, 64)
    assert torchvision["image_kernels"] + torchvision["label_kernels"] > 15
    assert torchvision["transfers"] >= 2  # mean and std
    assert torchvision["image_passes"] > 35
    # At least a copy for each sample, to mix it, and what stands before and after.
    assert count_call(chain(TIMM_ELEM, ERASE_AND_MIX, META), case, 32)["image_kernels"] > 32 + 4


def test_readme_shows_the_results():
    readme = (ROOT / "README.md").read_text()
    shown = headline.sections(ROOT / "benchmarks" / "results")
    assert shown.keys() == {"speed", "tail"}
    for name, text in shown.items():
        begin, end = (marker.format(name) for marker in tables.MARKERS)
        assert readme.partition(begin)[2].partition(end)[0].strip() == text


def test_the_headline_compares_by_the_same_clock_alone():
    def timing(low: float, median: float, high: float, method: str = "wall clock") -> dict:
        return {"q1_s": low, "median_s": median, "q3_s": high, "method": method}

    machine = {"processor": "Some(R) Processor", "date": "2026-01-02 03:04 UTC"}
    ours, tail = timing(1e-3, 2e-3, 4e-3), timing(1e-3, 1e-3, 1e-3, "CUDA graph replay")
    of_op = {implementations.OURS: ours, implementations.TORCHVISION: timing(8e-3, 8e-3, 10e-3)}
    of_chains = {OURS: tail, TORCHVISION: timing(5e-3, 5e-3, 5e-3, "CUDA events")}
    text = headline.headline(
        [
            headline.Column("cpu", "a", machine, of_op, False),
            headline.Column("tail_cuda", "b", machine, of_chains, True),
        ]
    )
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("|")]
    assert rows[0][1:] == [
        "a; [Some Processor](benchmarks/results/cpu.md)",
        "b; [Some Processor](benchmarks/results/tail_cuda.md)",
    ]
    assert rows[2:] == [
        ["ours", "2.00 ms (1.00 ms .. 4.00 ms)", "1.00 ms (1.00 ms .. 1.00 ms)"],
        ["torchvision, a box a batch", "4.00x (2.00 .. 10.0)", "5.00 ms\\*"],
    ]
    assert "\\* Timed by CUDA events" in text


# ---- Targets, and all of it


def test_targets_of_the_tail_are_judged():
    timings = {
        TailCase(to_channels_last=True): {OURS: Timing([1.0], ""), TORCHVISION: Timing([29.0], "")},
        TailCase(): {OURS: Timing([1.0], ""), TORCHVISION: Timing([45.0], "")},
    }
    assert [(row["measured"], row["met"]) for row in judge(timings, OF_THE_TAIL)] == [("29x", False), ("45x", True)]


def test_quick_run_of_the_tail_alone(tmp_path):
    suite.main("cpu", ["--quick", "--output", str(tmp_path)], tail_alone=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tail_cpu.json", "tail_cpu.md"]
    results = json.loads((tmp_path / "tail_cpu.json").read_text())
    assert results["wrong"] == {}
    assert set(results["missing"]) <= {"torchtransform", "triton-augment"}
    assert len(results["cells"]) == 2 * len(JOBS)
    report = (tmp_path / "tail_cpu.md").read_text()
    for cell in results["cells"]:
        for name, timing in cell["timings"].items():
            assert 0 < timing["q1_s"] <= timing["median_s"] <= timing["q3_s"], (cell["case"], name)
            assert f"| {name} |" in report
    (step,) = results["steps"]
    assert list(step["by"]) == [TORCHVISION, "timm, Mixup batch", OURS]
