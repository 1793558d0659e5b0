"""What will run on a machine with a GPU, as far as one without can tell: each part to its end on a stand-in device,
what becomes of it at its limit, and what is made of the output of the tools."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch

import cutmix_cuda
from benchmarks import kernels, launches
from cutmix_cuda import _backends

from ..gpu import check, commands, on_device
from ..gpu.commands import FAILED, NOT_RUN, OK, OUT_OF_TIME, Done
from ..helpers import Backend, random_images

ROOT = commands.ROOT
STAND_IN = ROOT / "tests" / "gpu" / "stand_in"
ON_STAND_IN = {
    "PYTHONPATH": str(STAND_IN),
    "PATH": f"{STAND_IN / 'bin'}{os.pathsep}{os.environ['PATH']}",
    "PYTEST_ADDOPTS": "-p stand_in_device",
    "OMP_NUM_THREADS": "1",
}


# ---- Everything, on the stand-in device

needs_both = pytest.mark.skipif(
    bool({"cuda", "cpu"} & set(_backends._missing)), reason="the CUDA and CPU extensions are not both built"
)


def gpu_check(part: str, tmp_path: Path, *options: str) -> tuple[subprocess.CompletedProcess, dict, str]:
    """A part run by ``python tests/gpu``; its results and its report."""
    command = [sys.executable, str(ROOT / "tests" / "gpu"), "--part", part, "--quick"]
    folders = ["--out", str(tmp_path / "out"), "--folder", str(tmp_path / "folder")]
    done = subprocess.run(
        [*command, *folders, *options], env=os.environ | ON_STAND_IN, cwd=tmp_path, text=True, capture_output=True
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{part}.md", f"{part}.tar.gz"]
    with tarfile.open(tmp_path / "out" / f"{part}.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    results = json.loads((tmp_path / "unpacked" / part / f"{part}.json").read_text())
    return done, results, (tmp_path / "out" / f"{part}.md").read_text()


def assert_good(done: subprocess.CompletedProcess, results: dict, report: str) -> None:
    assert {name: step["status"] for name, step in results["steps"].items()} == dict.fromkeys(results["steps"], OK), (
        report[-5000:] + done.stdout[-2000:] + done.stderr[-2000:]
    )
    assert done.returncode == 0, done.stderr
    assert "Everything is as it should be." in report
    assert "- stand-in, 0.0, 81559 MiB" in report
    assert f"cutmix_cuda {cutmix_cuda.__version__}" in report


@pytest.mark.long
@needs_both
def test_the_tests(tmp_path):
    """The bodies of all tests that run on a GPU: where one mixes devices, or waits where it must not, it fails here."""
    done, results, report = gpu_check("correct", tmp_path)
    assert_good(done, results, report)
    assert list(results["steps"]) == list(commands.SUITES)
    here, elsewhere, large = (results["steps"][name] for name in commands.SUITES)
    assert here["passed"] > 200 and elsewhere["passed"] > 250 and large["passed"] == 4
    assert set(here["skipped"]) == {"there is one CUDA device"}
    lines = (tmp_path / "unpacked" / "correct" / "correct.jsonl").read_text().splitlines()
    assert len(lines) > here["passed"] + elsewhere["passed"]
    ran = "\n".join(lines)
    assert "test_a_captured_step_mixes_anew_at_each_replay" in ran
    assert "test_a_bad_row_leaves_its_sample_alone[partner below-" in ran


@needs_both
def test_the_sanitizers(tmp_path):
    done, results, report = gpu_check("sanitize", tmp_path)
    assert_good(done, results, report)
    assert list(results["steps"]) == ["memcheck", "racecheck"]
    assert "| memcheck | ok | 0 |" in report


@pytest.mark.long
@needs_both
def test_the_measures(tmp_path):
    done, results, report = gpu_check("measure", tmp_path)
    assert_good(done, results, report)
    rows = json.loads((tmp_path / "unpacked" / "measure" / "kernels.json").read_text())["rows"]
    assert {row["backend"] for row in rows} == {"cuda", "triton"}
    assert {row["kernel"] for row in rows} >= {"cutmix", "cutmix_", "mixup", "sample_plan", "mix_targets"}
    for row in rows:
        assert row["time"]["median_s"] > 0 and row["copy"]["median_s"] > 0 and row["bytes"] > 0
        assert row["time"]["method"] == "CUDA graph replay"
        assert f"| {row['kernel']} | {row['backend']} |" in report
    assert len(results["steps"]["ncu"]["rows"]) == 2 * len(launches.LAUNCHES)
    assert "| triton | mixup | uint8 | in place |" in report
    assert "clocks.sm 1980" in report


@pytest.mark.long
@needs_both
def test_the_peers(tmp_path):
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    done, results, report = gpu_check("peers", tmp_path)
    assert_good(done, results, report)
    folder = tmp_path / "unpacked" / "peers"
    cells = [json.loads(line) for line in (folder / "peers.jsonl").read_text().splitlines()]
    measured, tail = (json.loads((folder / f"{name}.json").read_text()) for name in ("cuda", "tail_cuda"))
    assert len(cells) == len(measured["cells"]) + len(tail["cells"]) and tail["cells"]
    assert measured["wrong"] == tail["wrong"] == {}
    clocks = {name: timing["method"] for name, timing in cells[0]["timings"].items()}
    assert clocks.pop("timm Mixup pair") == clocks.pop("timm Mixup elem") == "CUDA events"
    clocks.pop("kornia RandomCutMixV2", None)
    assert set(clocks.values()) == {"CUDA graph replay"}
    assert {"overhead", "step", "losses", "counted"} <= set(measured)
    assert re.search(r"\| timm Mixup pair \|.*\| - \| CUDA events \|", report)
    assert re.search(r"\| ours, in place, its seed drawn in the graph \|.*x \| CUDA graph replay \|", report)
    assert (folder / "cuda_throughput.png").stat().st_size > 10_000


@needs_both
def test_without_time_there_is_a_report(tmp_path):
    done, results, report = gpu_check("measure", tmp_path, "--limit", "0")
    assert done.returncode == 1
    assert done.stderr == "measure: kernels, ncu.\n"
    assert {step["status"] for step in results["steps"].values()} == {OUT_OF_TIME}
    assert "Stopped at the limit, with what it had: kernels, ncu." in report


def test_without_a_gpu_it_says_so():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "tests" / "gpu")]
    done = subprocess.run(command, env=environment, text=True, capture_output=True)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr == "gpu-check needs a machine with a GPU, and torch sees no CUDA device here.\n"


def test_the_other_tests_are_selected_by_their_ids():
    assert commands.ON_A_GPU.split(" or ") == [
        "-".join(Backend(name, "cuda")) for name in ("cuda", "triton", "reference")
    ]
    by_device = [
        path for path in (ROOT / "tests").rglob("test_*.py") if re.search("^@every_backend", path.read_text(), re.M)
    ]
    assert by_device
    for path in by_device:
        assert any(path.is_relative_to(ROOT / selected) for selected in commands.BY_DEVICE), path


# ---- Limits


def test_a_command_is_shown_and_kept(capfd):
    command = [sys.executable, "-c", "import os; print(os.environ['SAID']); raise SystemExit(3)"]
    assert commands.run(command, 60.0, {"SAID": "hello"}) == Done(3, "hello\n")
    assert capfd.readouterr().out.endswith("hello\n")
    assert commands.run(command, 60.0, {"SAID": "hello"}, quiet=True) == Done(3, "hello\n")
    assert "hello\n" not in capfd.readouterr().out.splitlines(keepends=True)


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_at_its_limit_a_command_is_killed_with_what_it_started(monkeypatch):
    monkeypatch.setattr(commands, "GRACE", 0.5)
    started = time.monotonic()
    done = commands.run([sys.executable, "-c", STUBBORN], 2.0)
    assert done.out_of_time and done.returncode == -9
    assert time.monotonic() - started < 60
    for _ in range(50):
        state = Path(f"/proc/{done.output.strip()}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("its child lives on")


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["heeded", "ignored"])
def test_at_its_limit_a_command_may_end_by_itself(handler):
    """Also where the check was started in the background, and ignores interrupts itself."""
    code = "import time\ntry:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('what there is')"
    before = signal.signal(signal.SIGINT, handler)
    try:
        done = commands.run([sys.executable, "-c", code], 2.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == Done(0, "what there is\n", out_of_time=True)


OUTCOMES = """
import time
import pytest

def test_good(): pass
def test_bad(): assert 1 == 2
@pytest.mark.skip(reason="no luck")
def test_skipped(): pass
@pytest.fixture
def broken(): raise OSError("broken")
def test_error(broken): pass
@pytest.fixture
def untidy():
    yield
    raise OSError("untidy")
def test_teardown(untidy): pass
"""
RECORDED = {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-p tests.conftest -p no:cacheprovider"}


def run_file(tmp_path: Path, text: str, seconds: float, monkeypatch) -> dict:
    """A run of the tests in a file, with what tests/conftest.py writes down."""
    for name, value in RECORDED.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "test_outcomes.py").write_text(text)
    suite = commands.Suite((str(tmp_path / "test_outcomes.py"),), 1, 1.0)
    return commands.run_tests(suite, tmp_path / "lines.jsonl", seconds)


def test_what_pytest_found_is_read(tmp_path, monkeypatch):
    (tmp_path / "lines.jsonl").write_text("of an earlier run\n")
    found = run_file(tmp_path, OUTCOMES, 100.0, monkeypatch)
    assert (found["status"], found["exit_code"], found["passed"]) == (FAILED, 1, 2)
    assert {name.split("::")[1]: why for name, why in found["failed"].items()} == {
        "test_bad": "assert 1 == 2",
        "test_error": "OSError: broken",
        "test_teardown": "OSError: untidy",
    }
    assert found["skipped"] == {"no luck": 1}


def test_tests_stop_at_their_limit_with_what_they_found(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "TO_END", 60.0)
    slow = "import time\ndef test_quick(): pass\ndef test_slow(): time.sleep(2)\ndef test_later(): pass\n"
    found = run_file(tmp_path, slow, 62.0, monkeypatch)
    assert found["status"] == OUT_OF_TIME
    assert found["passed"] in (1, 2) and not found["failed"]


def test_tests_that_are_killed_leave_what_they_found(tmp_path, monkeypatch):
    deadly = "import os, signal\ndef test_good(): pass\ndef test_killed(): os.kill(os.getpid(), signal.SIGKILL)\n"
    found = run_file(tmp_path, deadly, 100.0, monkeypatch)
    assert (found["status"], found["exit_code"], found["passed"]) == (FAILED, -9, 1)


@pytest.mark.parametrize("late", [0.0, -1.0])
def test_kernels_are_left_out_where_there_is_no_time(late):
    told: list[dict] = []
    results = kernels.measure(
        torch.device("cpu"),
        ["reference"],
        [kernels.QUICK_CENTRE],
        kernels.Effort(0.02, 2, 3),
        time.monotonic() + late,
        told.append,
    )
    assert (results["rows"], told) == ([], [])
    assert results["no_time_for"] == [str(kernels.QUICK_CENTRE)]
    assert f"There was no time for: {kernels.QUICK_CENTRE}." in kernels.as_markdown(results)


# ---- The parts, with commands that only say something

PASSED = {"test": "a", "outcome": "passed", "seconds": 1.5, "why": ""}
SKIPPED = {"test": "b", "outcome": "skipped", "seconds": 0.0, "why": "no backend <cuda>"}
BROKEN = {"test": "c", "outcome": "failed", "seconds": 0.5, "why": "assert 1 == 2"}

CLEAN = {
    "memcheck": "12 passed\n========= ERROR SUMMARY: 0 errors\n",
    "racecheck": "12 passed\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n",
}
FOUND = {
    "memcheck": "========= Invalid __global__ read of size 16 bytes\n========= ERROR SUMMARY: 1 error\n",
    "racecheck": "========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)\n",
}


DONE = Done(0, "")


class Machine:
    """Stands for one with a GPU: answers the commands of the check, and keeps them."""

    def __init__(self, *cases: dict, sanitizer: dict[str, str] = CLEAN, benchmark: Done = DONE) -> None:
        self.cases, self.sanitizer, self.benchmark = cases, sanitizer, benchmark
        self.commands: list[list[str]] = []

    def __call__(self, command, seconds, environment=None, quiet=False) -> Done:
        self.commands.append(command)
        if command[0] == "nvidia-smi":
            return Done(0, "NVIDIA H100, 580.65.06, 81559 MiB\n")
        if command[0].endswith("compute-sanitizer"):
            assert environment == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
            output = self.sanitizer[command[command.index("--tool") + 1]]
            return Done(commands.SANITIZER_EXIT_CODE if "Invalid" in output else 0, output)
        if command[0].endswith("pytest"):
            with open(environment["CUTMIX_CUDA_TEST_LINES"], "a") as lines:
                lines.writelines(json.dumps(case) + "\n" for case in self.cases)
            return Done(int(BROKEN in self.cases), "")
        return self.benchmark


def run_part(name: str, tmp_path: Path, machine: Machine) -> tuple[list[str], dict, str]:
    part = check.Part(name, tmp_path / "out", time.monotonic() + 1000, machine, folder=tmp_path / "folder")
    wrong = part.run()
    return wrong, part.results, (tmp_path / "out" / f"{name}.md").read_text()


@pytest.fixture
def with_sanitizer(monkeypatch):
    monkeypatch.setenv("PATH", ON_STAND_IN["PATH"])


def test_every_step_has_its_time(tmp_path):
    for name in check.PARTS:
        steps = check.Part(name, tmp_path, 0.0, Machine(), folder=tmp_path).steps()
        assert sum(step.fraction for step in steps) == pytest.approx(1.0)


def test_tests_that_pass(tmp_path, with_sanitizer):
    machine = Machine(PASSED, SKIPPED)
    wrong, results, report = run_part("correct", tmp_path, machine)
    assert wrong == []
    assert "Everything is as it should be." in report
    assert "NVIDIA H100, 580.65.06, 81559 MiB" in report
    assert "1 times: no backend <cuda>" in report
    assert "| tests/gpu | ok | 1 | 0 | 1 | 2 s |" in report
    limits = [
        float(part.removeprefix("--session-timeout="))
        for command in machine.commands
        for part in command
        if part.startswith("--session-timeout=")
    ]
    assert limits[0] == pytest.approx(0.5 * 1000 - 25, abs=5)  # less what writing and stopping take
    assert limits[-1] == pytest.approx(1000 - 25, abs=5)


def test_tests_that_fail_are_named_in_every_later_report(tmp_path):
    wrong, results, report = run_part("correct", tmp_path, Machine(PASSED, BROKEN))
    assert wrong == [*commands.SUITES]
    assert f"Failed: {', '.join(wrong)}." in report
    assert "- `c`: assert 1 == 2" in report
    wrong, results, report = run_part("peers", tmp_path, Machine())
    assert wrong == []
    assert "tested it**: c; c; c." in report


@pytest.mark.parametrize(
    ("cases", "status"),
    [([PASSED], OK), ([PASSED, SKIPPED], OK), ([SKIPPED], FAILED), ([], FAILED), ([BROKEN], FAILED)],
)
def test_only_tests_that_pass_are_good(tmp_path, cases, status):
    suite = commands.Suite((), 1, 1.0)
    assert commands.run_tests(suite, tmp_path / "lines", 60.0, Machine(*cases))["status"] == status


def test_without_compute_sanitizer(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "find_tool", lambda name: None)
    _, _, report = run_part("sanitize", tmp_path, Machine(PASSED))
    assert "Not run: memcheck, racecheck." in report
    assert "memcheck: compute-sanitizer is not installed." in report


def test_what_else_may_fail(tmp_path, with_sanitizer):
    wrong, _, report = run_part("sanitize", tmp_path, Machine(PASSED, sanitizer=FOUND))
    assert wrong == ["memcheck", "racecheck"]
    assert "| memcheck | failed | 1 |" in report
    assert "Invalid __global__ read of size 16 bytes" in report
    wrong, _, report = run_part("peers", tmp_path, Machine(benchmark=Done(1, "timing\nout of memory\n")))
    assert wrong == ["benchmark"]
    assert "timing\nout of memory" in report
    wrong, results, _ = run_part("measure", tmp_path, Machine(benchmark=Done(-2, "timing\n", out_of_time=True)))
    assert wrong == ["kernels", "ncu"]
    assert {step["status"] for step in results["steps"].values()} == {OUT_OF_TIME}


def test_a_benchmark_that_had_no_time_says_for_what(tmp_path):
    (tmp_path / "cuda.json").write_text(json.dumps({"no_time_for": ["a batch", "losses"]}))
    how = {"folder": tmp_path, "lines": tmp_path / "lines", "runner": Machine(benchmark=Done(0, ""))}
    found = commands.run_benchmark("gpu", 100.0, **how)
    assert (found["status"], found["why"]) == (OUT_OF_TIME, "there was no time for a batch; losses")
    found = commands.run_benchmark("gpu", 100.0, **how | {"runner": Machine(benchmark=Done(1, "wrong"))})
    assert (found["status"], found["output"]) == (FAILED, "wrong")


def test_an_error_of_the_check_is_one_of_its_step(tmp_path):
    """ncu printed something else than a report."""
    wrong, results, _ = run_part("measure", tmp_path, Machine(benchmark=Done(0, "no report")))
    assert results["steps"]["ncu"]["status"] in (FAILED, NOT_RUN)
    if commands.find_tool("ncu"):
        assert wrong == ["ncu"]


# ---- What tools print


@pytest.mark.parametrize("tool", commands.SUMMARIES)
def test_what_compute_sanitizer_found_is_read(tool):
    assert commands.read_sanitizer(tool, Done(0, CLEAN[tool])) == {"status": OK, "exit_code": 0, "found": 0}
    found = commands.read_sanitizer(tool, Done(commands.SANITIZER_EXIT_CODE, CLEAN[tool] + FOUND[tool]))
    assert (found["status"], found["found"]) == (FAILED, {"memcheck": 1, "racecheck": 2}[tool])
    # A test failed under it; it found nothing because it never ran; it found something and forgot its exit code.
    for exit_code, output in ((1, CLEAN[tool]), (0, "12 passed"), (255, "no such device"), (0, FOUND[tool])):
        assert commands.read_sanitizer(tool, Done(exit_code, output))["status"] == FAILED
    stopped = "!!! session-timeout: 3.0 sec exceeded !!!\n"
    assert commands.read_sanitizer(tool, Done(1, stopped + CLEAN[tool]))["status"] == OUT_OF_TIME
    assert commands.read_sanitizer(tool, Done(86, stopped + FOUND[tool]))["status"] == FAILED


def test_compute_sanitizer_sees_tests_of_both_backends(tmp_path):
    """And of our kernels alone. Where there is no GPU they say why they are skipped."""
    command = commands.sanitizer_command("compute-sanitizer", "memcheck", 100.0)
    assert command[command.index("--kernel-name") + 1] == "kns=mix_"
    tests = command[next(i for i, part in enumerate(command) if part.endswith("pytest")) :]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "CUTMIX_CUDA_TEST_LINES": str(tmp_path / "lines")}
    done = subprocess.run(tests, cwd=ROOT, env=environment, text=True, capture_output=True)
    cases = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert {case["why"] for case in cases} == {"torch sees no CUDA device"}, done.stdout[-2000:]
    names = [case["test"].split("::")[1] for case in cases]
    assert 50 < len(names) < 200
    for start in (
        "test_every_alignment",
        "test_a_bad_row",
        "test_a_label",
        "test_labels_and",
        "test_every_way_to_draw",
    ):
        for backend in ("cuda", "triton"):
            assert any(name.startswith(start) and f"[{backend}" in name for name in names), (start, backend)


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.touch(mode=0o755)
    return path


def test_tools_are_found(tmp_path):
    def find(environment):
        return commands.find_tool("compute-sanitizer", environment, tmp_path)

    nowhere = {"PATH": str(tmp_path / "empty")}
    assert find(nowhere) is None
    older = executable(tmp_path / "cuda-12.8" / "bin" / "compute-sanitizer")
    assert find(nowhere) == str(older)
    newer = executable(tmp_path / "cuda-13.0" / "compute-sanitizer" / "compute-sanitizer")
    assert find(nowhere) == str(newer)
    assert find({**nowhere, "CUDA_HOME": str(older.parents[1])}) == str(older)
    on_path = executable(tmp_path / "path" / "compute-sanitizer")
    assert find({"PATH": str(on_path.parent)}) == str(on_path)


def exported(count: int) -> str:
    metrics = list(launches.METRICS.values())
    header, units = ['"ID"', '"Kernel Name"'], ['""', '""']
    rows = [
        ",".join(header + [f'"{metric}"' for metric in metrics]),
        ",".join(units + ['"unit"' for _ in metrics]),
    ]
    for number in range(count):
        values = [f'"{1000 * number + place:,}"' for place in range(1, len(metrics))] + ['"n/a"']
        rows.append(",".join([f'"{number}"', '"mix_kernel"', *values]))
    return "==PROF== Connected\n" + "\n".join(rows) + "\n"


def test_what_ncu_measured_is_read():
    rows = launches.read(exported(18))
    assert [(row["backend"], row["kind"], row["dtype"], row["in_place"]) for row in rows[:2] + rows[-1:]] == [
        ("cuda", "cutmix", "float32", False),
        ("cuda", "cutmix", "float32", True),
        ("triton", "flips, shifts, erases, to channels-last", "uint8", False),
    ]
    first, *_, last = launches.METRICS
    assert rows[7][first] == 7001.0
    assert rows[7][last] is None
    for count in (0, 17, 19):
        with pytest.raises(ValueError, match=f"saw {count} launches instead of 18"):
            launches.read(exported(count))


def test_what_ncu_measured_stands_beside_what_the_ptx_promised():
    """Over the same minima: sectors as they are, DRAM's bytes in sectors, instructions by the bytes written."""
    promised = {
        **{"backend": "cuda", "kind": "cutmix", "dtype": "float32", "layout": "NCHW", "in_place": False},
        **{"registers": 40, "instructions_per_16_bytes": 44.3, "sectors_to_read": 1000, "sectors_to_write": 500},
        **{"requests_read_over_minimum": 1.3, "requests_written_over_minimum": 1.0},
        **{"sectors_read_over_minimum": 1.0, "sectors_written_over_minimum": 1.0},
    }
    row = {
        **{"backend": "cuda", "kind": "cutmix", "dtype": "float32", "in_place": False},
        **{"registers": 42.0, "sectors_read": 1500.0, "sectors_written": 600.0},
        **{"dram_read": 32 * 1100.0, "dram_written": 32 * 550.0, "instructions": 500 * 32 / 512 * 50.0},
        **{"occupancy": 61.4, "issue_slots": None, "nanoseconds": 31_000.0},
    }
    other = {**row, "in_place": True}
    *_, first, second = launches.as_markdown([row, other], {"rows": [promised]}).splitlines()
    assert first == (
        "| cuda | cutmix | float32 | out of place | 40 -> 42 | 44.3 -> 50.0 | 1.300 -> 1.500 | 1.000 -> 1.200 | "
        "1.000 -> 1.100 | 1.000 -> 1.100 | 61 % | ? | 31.0 us |"
    )
    assert "| ? -> 42 | ? -> ? |" in second


def test_ncu_leaves_the_clocks_alone(tmp_path):
    command = launches.ncu_command("ncu", tmp_path / "report.ncu-rep")
    assert command[command.index("--clock-control") + 1] == "none"
    assert command[command.index("--profile-from-start") + 1] == "off"
    assert command[-2:] == [str(ROOT / "benchmarks"), "launches"]


# ---- Kernels beside a copy


def test_bytes_of_a_job():
    """A copy is timed for as many bytes as are counted: images in and out, or the boxes' of the plan, or results."""
    case = kernels.Case(batch=16, size=32, classes=10)
    plan = cutmix_cuda.sample_plan(16, 32, 32, seed=1)
    y0, x0, y1, x1 = plan.boxes.unbind(1)
    pasted = int(((y1 - y0) * (x1 - x0)).sum()) * 3 * 4
    sizes = {name: job.bytes for name, job in kernels.jobs(case, "reference", torch.device("cpu")).items()}
    assert sizes["cutmix"] == sizes["mix_images"] == 2 * 16 * 3 * 32 * 32 * 4
    assert sizes["cutmix_"] == sizes["mix_images_"] == pytest.approx(2 * pasted, abs=16)
    assert (sizes["mixup"], sizes["mixup, in place"]) == (3 * case.image_bytes, 2 * case.image_bytes)
    assert (sizes["sample_plan"], sizes["mix_targets"]) == (16 * 32, 16 * 10 * 4)


@pytest.mark.skipif("cpu" in _backends._missing, reason="nothing was compiled")
def test_a_wrong_backend_is_left_out_and_named(monkeypatch):
    """One bit of one kernel is enough; the other backend is timed."""
    right = kernels.jobs

    def wrong(case, backend, device):
        jobs = right(case, backend, device)
        if backend == "cpu":
            job = jobs["mix_targets"]
            jobs["mix_targets"] = job._replace(call=lambda inputs: job.call(inputs).nextafter(torch.tensor(9.0)))
        return jobs

    def measure():
        effort = kernels.Effort(0.02, 2, 3)
        case = kernels.Case(batch=4, size=8, classes=3)
        return kernels.measure(torch.device("cpu"), ["cpu", "reference"], [case], effort)

    assert measure()["wrong"] == {}
    monkeypatch.setattr(kernels, "jobs", wrong)
    results = measure()
    assert list(results["wrong"]) == ["cpu"]
    assert "other bits than the reference in mix_targets" in results["wrong"]["cpu"]
    assert {row["backend"] for row in results["rows"]} == {"reference"}
    assert "**Left out, because its results are wrong**: cpu" in kernels.as_markdown(results)


# ---- What the tests of tests/gpu are made of


def spoil_nothing(batch, results):
    return results


def spoil_result(batch, results):
    results[0].view(torch.uint8).view(-1)[-1] += 1
    return results


def spoil_images(batch, results):
    batch.images[0, 0, 0, 0] += 1
    return results


def spoil_sentinel(batch, results):
    on_device.whole_storage(batch.images)[0] += 1
    return results


@pytest.mark.parametrize("spoil", [spoil_nothing, spoil_result, spoil_images, spoil_sentinel])
@pytest.mark.parametrize("call", ["cutmix", "mix_targets"])
def test_one_wrong_byte_is_seen(monkeypatch, call, spoil):
    storage = random_images((4, 3, 6, 10), torch.uint8)
    batch = on_device.make_batch(storage[..., 1:-1])
    right = on_device.ALL_CALLS[call]

    def wrong(given, backend):
        results = right(given, "reference")
        return spoil(given, results) if backend == "spoiled" else results

    monkeypatch.setitem(on_device.ALL_CALLS, call, wrong)
    if spoil is spoil_nothing:
        on_device.check(batch, "spoiled", torch.device("cpu"), [call])
    else:
        with pytest.raises(AssertionError, match=call):
            on_device.check(batch, "spoiled", torch.device("cpu"), [call])


def test_kernels_are_read_off_a_trace():
    trace = {
        "traceEvents": [
            {"name": "aten::add", "cat": "cpu_op"},
            {"name": "cudaLaunchKernel", "cat": "cuda_runtime"},
            {"name": "mix_kernel", "cat": "kernel"},
            {"name": "Memset (Device)", "cat": "gpu_memset"},
            {"name": "Memcpy HtoD", "cat": "gpu_memcpy"},
            {"name": "a range", "cat": "gpu_user_annotation"},
            {"name": "process_name"},
        ]
    }
    assert on_device.device_work(trace) == ["mix_kernel", "Memset (Device)", "Memcpy HtoD"]
