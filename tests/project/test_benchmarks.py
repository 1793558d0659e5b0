"""The benchmark: its checks catch wrong implementations, its counts and tables are right, and all of it runs."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cutmix_cuda

pytest.importorskip("kornia")
pytest.importorskip("timm")
pytest.importorskip("torchvision")

from benchmarks import cross_entropy, family, features, plots, suite, tables
from benchmarks.checks import WrongResult, check, check_all, observed_plan
from benchmarks.counted import count_call, read_ours
from benchmarks.goals import judge
from benchmarks.grid import CENTRE, MEAN_BOX_SHARE, Case
from benchmarks.implementations import (
    KORNIA,
    OURS,
    OURS_IN_PLACE,
    SNIPPET_MEAN_BOX,
    TIMM_ELEM,
    TORCHVISION,
    Implementation,
    all_implementations,
    plain_cutmix,
)
from benchmarks.tables import (
    MARKERS,
    duration,
    fraction_of_ceiling,
    loss_table,
    put_between_markers,
    speed_table,
)
from benchmarks.timing import Effort, Timing, time_in_turn

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def small():
    return Case(batch=6, size=16, classes=5)


def implementation(name: str):
    found, missing = all_implementations(CPU, with_compiled=False)
    assert not missing
    return next(one for one in found if one.name == name)


def spoiled(one, spoil):
    """The same implementation, with something done to its results."""

    def prepare(case):
        call = one.prepare(case)
        return lambda inputs: spoil(inputs, *call(inputs))

    return replace(one, prepare=prepare)


# ---- Checks


def other_pixel(inputs, images, targets):
    images[0, 0, 0, 0] += 1
    return images, targets


def one_channel_not_pasted(inputs, images, targets):
    images[:, 1] = inputs.images[:, 1]
    return images, targets


def other_weights(inputs, images, targets):
    return images, targets.roll(1, 0)


def nothing_mixed(inputs, images, targets):
    return inputs.images.clone(), torch.nn.functional.one_hot(inputs.labels, targets.shape[1]).float()


def changed_input(inputs, images, targets):
    inputs.images[-1] = 0
    return images, targets


@pytest.mark.parametrize("spoil", [other_pixel, one_channel_not_pasted, other_weights, nothing_mixed, changed_input])
def test_an_implementation_that_does_something_else_is_caught(small, spoil):
    one = implementation(TORCHVISION)
    check(one, small, CPU)
    with pytest.raises(WrongResult):
        check(spoiled(one, spoil), small, CPU)


def test_who_is_wrong_is_left_out_and_named(small):
    """Whatever is wrong, an error of its own as well; and the others are checked all the same."""

    def broken(case):
        raise OSError("no such GPU")

    peers = [
        implementation(TIMM_ELEM),
        spoiled(implementation(TORCHVISION), other_pixel),
        replace(implementation(SNIPPET_MEAN_BOX), prepare=broken),
    ]
    checks, wrong = check_all(peers, [small, replace(small, channels_last=True)], CPU)
    assert checks == 6
    assert list(wrong) == [TORCHVISION, SNIPPET_MEAN_BOX]
    assert "WrongResult: sample 0 is not itself" in wrong[TORCHVISION]
    assert wrong[SNIPPET_MEAN_BOX].endswith("OSError: no such GPU")


def test_a_copy_that_claims_to_be_in_place_is_caught(small):
    with pytest.raises(WrongResult, match="in place"):
        check(replace(implementation(OURS), in_place=True), small, CPU)


def test_another_scope_than_it_claims_is_caught(small):
    for name, scope in ((OURS, "batch"), (TORCHVISION, "sample")):
        with pytest.raises(WrongResult, match=f"once a {scope}"):
            check(replace(implementation(name), scope=scope), small, CPU)


def test_plan_is_read_off_mixed_images():
    drawn = cutmix_cuda.sample_plan(8, 12, 9, seed=3)
    coded = torch.arange(8.0).reshape(-1, 1, 1, 1).expand(8, 2, 12, 9).contiguous()
    seen = observed_plan(cutmix_cuda.mix_images(coded, drawn))
    for index in range(8):
        y0, x0, y1, x1 = drawn.boxes[index].tolist()
        if y0 < y1 and x0 < x1:
            assert seen.boxes[index].tolist() == [y0, x0, y1, x1]
            assert seen.partner[index] == drawn.partner[index]
        else:
            assert seen.lam[index] == 1
    torch.testing.assert_close(seen.lam, drawn.lam, rtol=0, atol=0)


def test_plain_cutmix_through_the_check(small):
    for per_sample in (False, True):
        one = Implementation(
            "plain",
            "peer",
            lambda case, each=per_sample: lambda inputs: plain_cutmix(inputs.images, inputs.labels, case.classes, each),
            scope="sample" if per_sample else "batch",
        )
        check(one, small, CPU)


def test_mean_box_share():
    plan = cutmix_cuda.sample_plan(200_000, 4096, 4096, seed=0)
    assert float((1 - plan.lam).double().mean()) == pytest.approx(MEAN_BOX_SHARE, abs=2e-3)  # 3.5 standard errors


# ---- Counts


def test_counts_of_one_copy_and_one_addition(small):
    def prepare(case):
        def call(inputs):
            inputs.out[:, :, :8, :8] = inputs.images[:, :, 8:, 8:]  # a quarter read, a quarter written
            return inputs.labels + 1

        return call

    count = count_call(Implementation("by hand", "peer", prepare), small, 1)
    assert (count["image_kernels"], count["label_kernels"], count["transfers"]) == (1, 1, 0)
    assert count["image_passes"] == pytest.approx(0.5)
    assert count["label_bytes"] == 2 * 8 * small.batch


def test_counts_of_the_snippet(small):
    count = count_call(implementation(SNIPPET_MEAN_BOX), small, 4)
    side = 9  # the square nearest to 0.32 of 16 x 16
    assert count["image_kernels"] == 2  # gather, then copy: read and written twice
    assert count["image_passes"] == pytest.approx(4 * side**2 / 16**2, abs=0.01)  # the indices are a few bytes more


def test_timm_elem_launches_a_kernel_a_sample(small):
    count = count_call(implementation(TIMM_ELEM), replace(small, size=224, batch=32), 32)
    assert count["image_kernels"] == 33  # a clone, and a copy for each sample
    assert count["transfers"] == 1


def test_our_rows_come_from_the_report_if_there_is_one(tmp_path):
    assert read_ours(tmp_path / "absent.json") == []
    (tmp_path / "report.json").write_text(json.dumps({"benchmark_rows": [{"name": "ours"}]}))
    assert read_ours(tmp_path / "report.json") == [{"name": "ours"}]


# ---- Times, targets and tables


def test_every_stopwatch_gets_its_rounds():
    class Ticks:
        method = "counted"

        def __init__(self, *seconds):
            self.seconds, self.laps = seconds, 0

        def lap(self):
            self.laps += 1
            return self.seconds[self.laps % len(self.seconds)]

    watches = {"steady": Ticks(2.0), "uneven": Ticks(1.0, 5.0)}
    timings = time_in_turn(watches, Effort(10.0, 3, 8))
    assert [len(timings[name].seconds) for name in watches] == [8, 8]
    assert timings["steady"].as_dict()["median_s"] == 2.0
    assert timings["uneven"].quartiles() == (1.0, 5.0)
    assert timings["uneven"].as_dict()["mean_s"] == 3.0


def test_targets_are_judged_by_the_ratio_of_medians():
    def verdicts(ours, theirs):
        timings = {CENTRE: {OURS: Timing([ours] * 3, ""), TORCHVISION: Timing([theirs] * 3, "")}}
        return [(row["measured"], row["met"]) for row in judge(timings)]

    assert verdicts(1.0, 2.5) == [("2.50x", True)]
    assert verdicts(1.0, 1.9) == [("1.90x", False)]


def test_a_target_that_is_out_of_reach_says_why():
    timings = {CENTRE: {OURS: Timing([1.0], ""), OURS_IN_PLACE: Timing([2.0], ""), KORNIA: Timing([44.0], "")}}
    (row,) = judge(timings)
    assert tables.targets_table([row]).endswith("| 44x | **missed**: would be more than twice as fast as copy_ |")
    assert "| yes |" in tables.targets_table([row | {"met": True}])


def timed(median: float, method: str, kind: str = "peer") -> dict:
    seconds = {"median_s": median, "q1_s": median, "q3_s": median, "images_per_s": 1.0, "gb_per_s": 1.0}
    return {**seconds, "method": method, "kind": kind, "scope": "batch", "in_place": False, "includes": "all"}


def test_times_of_two_clocks_are_not_compared():
    timings = {
        TORCHVISION: timed(2.0, "CUDA graph replay"),
        OURS: timed(0.5, "CUDA graph replay", "ours"),
        TIMM_ELEM: timed(1.0, "CUDA events"),
        "clone": timed(0.25, "CUDA events", "ceiling"),
    }
    cells = [line.split(" | ") for line in speed_table({"timings": timings}).splitlines()]
    rows = {first.strip("| "): ratio for first, *_, ratio, _ in cells}
    assert (rows[TORCHVISION], rows[OURS], rows[TIMM_ELEM]) == ("1.00x", "4.00x", "-")
    assert fraction_of_ceiling(timings, OURS) is None
    assert fraction_of_ceiling({**timings, "clone": timed(0.25, "CUDA graph replay")}, OURS) == 0.5
    cell = {"timings": timings}
    assert [name for name in timings if plots.by_our_clock(cell, name)] == [TORCHVISION, OURS]


def test_what_there_was_no_time_for_is_named(tmp_path):
    run = suite.Suite(CPU, suite.QUICK._replace(effort=Effort(100.0, 2, 3)), time.monotonic() + 50, lambda cell: None)
    run.run()
    assert run.results["cells"] == []
    assert len(run.results["no_time_for"]) == len(run.on_lines) + 3
    assert run.results["no_time_for"][0] == str(run.plan.centre)


def test_tables_go_between_the_markers_alone(tmp_path):
    begin, end = (marker.format("cpu") for marker in MARKERS)
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{begin}\nold\n{end}\nbelow\n")
    assert put_between_markers(readme, "cpu", "new")
    assert readme.read_text() == f"above\n{begin}\n\nnew\n\n{end}\nbelow\n"
    assert not put_between_markers(readme, "cuda", "other")
    assert "other" not in readme.read_text()


def test_losses_have_to_agree_before_they_are_timed(monkeypatch):
    inputs = cross_entropy.random_inputs(cross_entropy.Sizes(8, 10), CPU)
    cross_entropy.check_losses(inputs)
    right = cross_entropy.LOSSES[cross_entropy.PAIRS]
    for wrong in (
        lambda inputs: right(inputs) + 1e-3,
        lambda inputs: 1.001 * right(inputs) - 0.001 * right(inputs).detach(),
    ):
        monkeypatch.setitem(cross_entropy.LOSSES, cross_entropy.PAIRS, wrong)
        with pytest.raises(AssertionError):
            cross_entropy.check_losses(inputs)


def test_losses_are_compared_with_soft_targets():
    timing = {"q1_s": 0.001, "q3_s": 0.004}
    by = {"soft targets": timing | {"median_s": 0.003}, "pairs": timing | {"median_s": 0.002}}
    rows = loss_table([{"batch": 8, "classes": 10, "by": by}]).splitlines()
    assert rows[0] == "| loss and gradient of | 8 x 10 |"
    assert rows[2] == "| soft targets | 3.00 ms (1.00 ms .. 4.00 ms), 1.00x |"
    assert rows[3] == "| pairs | 2.00 ms (1.00 ms .. 4.00 ms), 1.50x |"


@pytest.mark.parametrize(
    "seconds, words",
    [(1.234e-6, "1.23 us"), (9.996e-4, "1.00 ms"), (0.0123, "12.3 ms"), (4.5, "4.50 s"), (321, "321 s")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


# ---- All of it


@pytest.fixture
def one_thread():
    """Tiny batches are slow where threads of their own share the cores with other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_quick_run_leaves_numbers_tables_and_pictures(tmp_path, one_thread, monkeypatch):
    asked = []  # the batch tail is the business of test_tail_benchmark.py
    monkeypatch.setattr(suite.tail, "run_all", lambda *arguments: asked.append(arguments[:2]) or [])
    suite.main("cpu", ["--quick", "--output", str(tmp_path)])

    results = json.loads((tmp_path / "cpu.json").read_text())
    assert asked == [("cpu", suite.QUICK.tail)]
    assert results["machine"]["threads"] == 1
    assert results["checks"] > 30
    assert results["missing"] == {}
    for cell in results["cells"]:
        for name, timing in cell["timings"].items():
            assert 0 < timing["q1_s"] <= timing["median_s"] <= timing["q3_s"], (cell["case"], name)
    names = {name for cell in results["cells"] for name in cell["timings"]}
    assert {"ours, in place", "torchvision v2.CutMix", "timm Mixup elem", "kornia RandomCutMixV2", "clone"} <= names
    assert {row["name"] for row in results["counted"]["rows"]} >= {"torchvision v2.CutMix", "two-line snippet"}
    calls = "a call of ours, out of place", "a call of ours, in place"
    assert {row["what"].removesuffix(f" against {TORCHVISION}") for row in results["targets"]} == set(calls)

    assert [(cell["batch"], cell["classes"]) for cell in results["losses"]] == [(8, 10), (4, 100)]
    assert all(timing["median_s"] > 0 for cell in results["losses"] for timing in cell["by"].values())

    report = (tmp_path / "cpu.md").read_text()
    for name in results["losses"][0]["by"]:
        assert f"| {name} |" in report
    for name in names:
        assert f"| {name} |" in report
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["cpu_share_of_ceiling.png", "cpu_throughput.png", "cpu_time_over_bytes.png"]
    assert all((tmp_path / picture).stat().st_size > 10_000 for picture in pictures)


def test_a_command_measures_the_installed_package(tmp_path):
    """The sources are in the same folder as the benchmarks, and would be imported if that went first."""
    code = f"""
import runpy, sys
sys.argv = ["benchmarks", "cuda-report", "--help"]
try:
    runpy.run_path({str(ROOT / "benchmarks")!r}, run_name="__main__")
finally:
    print(sys.modules["cutmix_cuda"].__file__)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert done.stdout.splitlines()[-1] == cutmix_cuda.__file__


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_features_have_to_agree_before_they_are_timed(kind, monkeypatch):
    inputs = features.inputs_of(features.QUICK[0], kind, CPU)
    features.check(inputs, kind)
    right = features.PLAIN_OF[kind]
    for wrong in (
        lambda tensor, plan: right(tensor, plan) + 1e-3,
        lambda tensor, plan: 1.001 * right(tensor, plan) - 0.001 * right(tensor, plan).detach(),
    ):
        monkeypatch.setitem(features.PLAIN_OF, kind, wrong)
        with pytest.raises(AssertionError):
            features.check(inputs, kind)


FAMILY = {job.name: job for job in family.jobs(16, 4)}
WRONG_IN_THE_FAMILY = {
    "RICAP": lambda inputs, result: (result[0], result[1].roll(1, 0)),
    "ResizeMix": lambda inputs, result: (result[0], result[1].flip(1)),
    "FMix": lambda inputs, result: (inputs.images, result[1]),
    "masks of FMix": lambda inputs, result: torch.rand(result.shape) < 0.5,
    "4 holes": lambda inputs, result: (inputs.images, result[1]),
    "a square of a partner": lambda inputs, result: inputs.images.roll(1, 0),
    "jigsaw": lambda inputs, result: result.flip(3),
    "transplant": lambda inputs, result: (result[0], inputs.segmentation.roll(1, 0)),
}


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_has_to_mean_the_same_before_it_is_timed(name):
    job, inputs = FAMILY[name], family.random_inputs(6, 16, 4)
    for contender in job.contenders:
        job.check(contender, inputs)
        wrong = contender._replace(
            call=lambda given, right=contender.call: WRONG_IN_THE_FAMILY[name](given, right(given))
        )
        with pytest.raises((AssertionError, ValueError)):
            job.check(wrong, inputs)


def test_the_family_in_a_table(tmp_path, capsys):
    family.main(["--quick", "--output", str(tmp_path)])
    written = (tmp_path / "family_cpu.md").read_text()
    assert written in capsys.readouterr().out
    rows = [line.split(" | ") for line in written.splitlines() if " | cutmix_cuda | " in line]
    assert [row[0].removeprefix("| ") for row in rows] == list(FAMILY)
    assert all(row[2] == "a sample" and row[-1] == "1.00x |" for row in rows)
    assert [cell["job"] for cell in json.loads((tmp_path / "family_cpu.json").read_text())["jobs"]] == list(FAMILY)


def test_features_in_a_table(capsys):
    features.main(["--quick"])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("| maps | dtype | kind | copy | cutmix_cuda | PyTorch |")
    assert [row.split(" | ")[2] for row in rows] == ["cutmix", "mixup"]
