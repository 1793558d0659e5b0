"""What will run on a machine with a GPU, as far as one without can tell: test bodies on CPU tensors, and the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import pytest
import torch

import cutmix_cuda

from ..gpu import check, on_device
from ..helpers import Backend, random_images

CPU_BODIES = {"CUTMIX_CUDA_GPU_TESTS": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
needs_cpu = pytest.mark.skipif("cpu" not in cutmix_cuda.available_backends(), reason="nothing was compiled")


# ---- The bodies of the GPU tests


def run_bodies(junit: Path, selection: list[str], **environment: str) -> dict:
    command = [*check.pytest_command(selection), f"--junit-xml={junit}"]
    environment = {**os.environ, **CPU_BODIES, **environment}
    done = subprocess.run(command, cwd=check.ROOT, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return check.read_junit(junit)


@needs_cpu
def test_bodies_with_the_ops_in_cpp(tmp_path):
    results = run_bodies(tmp_path / "junit.xml", ["tests/gpu", "-k", "not triton"], TRITON_INTERPRET="0")
    assert results["passed"] > 200
    assert set(results["skipped"]) == {"asks CUDA itself"}


def test_bodies_with_interpreted_triton(tmp_path):
    pytest.importorskip("triton")
    some = "triton and (a_bad_row and partner or 31_bits_of_targets)"
    results = run_bodies(tmp_path / "junit.xml", ["tests/gpu", "-k", some], TRITON_INTERPRET="1")
    assert results["passed"] > 6
    assert results["skipped"] == {}


def test_without_a_gpu_all_is_skipped_and_says_why(tmp_path):
    """And what compute-sanitizer is to see are tests of both backends."""
    environment = {"CUTMIX_CUDA_GPU_TESTS": "", "CUDA_VISIBLE_DEVICES": ""}
    results = run_bodies(tmp_path / "junit.xml", check.SANITIZED, **environment)
    assert results["passed"] == 0
    assert list(results["skipped"]) == ["torch sees no CUDA device"]
    names = [case.attrib["name"] for case in ElementTree.parse(tmp_path / "junit.xml").iter("testcase")]
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
    right = on_device.CALLS[call]

    def wrong(given, backend):
        results = right(given, "reference")
        return spoil(given, results) if backend == "spoiled" else results

    monkeypatch.setitem(on_device.CALLS, call, wrong)
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to profile")
def test_a_trace_of_the_cpu_has_no_kernels():
    trace = on_device.profiled(lambda: torch.ones(3) + 1)
    assert any(event["name"] == "aten::add" for event in trace["traceEvents"])
    assert on_device.device_work(trace) == []


# ---- make gpu-check


def test_without_a_gpu_it_says_so():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, check.ROOT / "tests" / "gpu" / "check.py"]
    done = subprocess.run(command, env=environment, text=True, capture_output=True)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr == "gpu-check needs a machine with a GPU, and torch sees no CUDA device here.\n"


def test_the_other_tests_are_selected_by_their_ids():
    *_, expression = check.SUITES["tests, on the GPU"]
    assert expression.split(" or ") == ["-".join(Backend(name, "cuda")) for name in ("cuda", "triton", "reference")]


OUTCOMES = """
import pytest

def test_good(): pass
def test_bad(): assert 1 == 2
@pytest.mark.skip(reason="no luck")
def test_skipped(): pass
@pytest.fixture
def broken(): raise OSError("broken")
def test_error(broken): pass
"""


def test_what_pytest_found_is_read(tmp_path):
    (tmp_path / "test_outcomes.py").write_text(OUTCOMES)
    mixed = check.run_tests([str(tmp_path / "test_outcomes.py")])
    assert mixed["status"] == check.FAILED
    assert mixed["exit_code"] == 1
    assert mixed["passed"] == 1
    assert [name.split("::")[1] for name in mixed["failed"]] == ["test_bad", "test_error"]
    assert mixed["skipped"] == {"no luck": 1}


def fake_pytest(command: list[str], cases: str, exit_code: int) -> subprocess.CompletedProcess:
    """Leaves the report that pytest would."""
    (junit,) = (part.split("=", 1)[1] for part in command if part.startswith("--junit-xml="))
    Path(junit).write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    return subprocess.CompletedProcess(command, exit_code, "")


PASSED = '<testcase classname="tests.gpu" name="test_a" time="1.5"/>'
FAILED = '<testcase classname="tests.gpu" name="test_b" time="0.5"><failure/></testcase>'
SKIPPED = f"<testcase name='test_c'><skipped message={quoteattr('no backend <cuda>')}/></testcase>"


@pytest.mark.parametrize(
    "cases, exit_code, status",
    [
        (PASSED, 0, check.OK),
        (PASSED + SKIPPED, 0, check.OK),
        (SKIPPED, 0, check.FAILED),  # nothing was tested
        ("", 5, check.FAILED),
        (PASSED, 3, check.FAILED),  # pytest itself broke
        (PASSED + FAILED, 1, check.FAILED),
    ],
)
def test_only_tests_that_pass_are_good(cases, exit_code, status):
    assert check.run_tests(["x"], lambda command: fake_pytest(command, cases, exit_code))["status"] == status


def test_a_run_that_died_leaves_its_last_words():
    done = check.run_tests(["x"], lambda command: subprocess.CompletedProcess(command, -11, "a\nb\n"))
    assert (done["status"], done["exit_code"], done["output"]) == (check.FAILED, -11, "a\nb")


CLEAN = {
    "memcheck": "12 passed\n========= ERROR SUMMARY: 0 errors\n",
    "racecheck": "12 passed\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n",
}
FOUND = {
    "memcheck": "========= Invalid __global__ read of size 16 bytes\n========= ERROR SUMMARY: 1 error\n",
    "racecheck": "========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)\n",
}


@pytest.mark.parametrize("tool", check.SUMMARIES)
def test_what_compute_sanitizer_found_is_read(tool):
    assert check.read_sanitizer(tool, 0, CLEAN[tool]) == {"status": check.OK, "exit_code": 0, "found": 0}
    found = check.read_sanitizer(tool, check.SANITIZER_EXIT_CODE, CLEAN[tool] + FOUND[tool])
    assert (found["status"], found["found"]) == (check.FAILED, {"memcheck": 1, "racecheck": 2}[tool])
    # A test failed under it; it found nothing because it never ran; it found something and forgot its exit code.
    for exit_code, output in ((1, CLEAN[tool]), (0, "12 passed"), (255, "no such device"), (0, FOUND[tool])):
        assert check.read_sanitizer(tool, exit_code, output)["status"] == check.FAILED


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.touch(mode=0o755)
    return path


def test_compute_sanitizer_is_found(tmp_path):
    nowhere = {"PATH": str(tmp_path / "empty")}
    assert check.find_sanitizer(nowhere, tmp_path) is None
    older = executable(tmp_path / "cuda-12.8" / "bin" / "compute-sanitizer")
    assert check.find_sanitizer(nowhere, tmp_path) == str(older)
    newer = executable(tmp_path / "cuda-13.0" / "compute-sanitizer" / "compute-sanitizer")
    assert check.find_sanitizer(nowhere, tmp_path) == str(newer)
    assert check.find_sanitizer({**nowhere, "CUDA_HOME": str(older.parents[1])}, tmp_path) == str(older)
    on_path = executable(tmp_path / "path" / "compute-sanitizer")
    assert check.find_sanitizer({"PATH": str(on_path.parent)}, tmp_path) == str(on_path)


@pytest.fixture
def timed_on_the_cpu():
    """The real timing of every kernel, on a small batch."""

    def time_them():
        from benchmarks.grid import QUICK_CENTRE
        from benchmarks.timing import Effort

        rows = check.time_kernels(torch.device("cpu"), ["reference"], [QUICK_CENTRE], Effort(0.02, 2, 3))
        return {"status": check.OK, "rows": rows}

    return time_them


class Machine:
    """Stands for one with a GPU: answers the commands of the check, and keeps them."""

    def __init__(self, tests: str = PASSED + SKIPPED, sanitizer: dict[str, str] = CLEAN, benchmark: int = 0) -> None:
        self.tests, self.sanitizer, self.benchmark = tests, sanitizer, benchmark
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **environment: str) -> subprocess.CompletedProcess:
        self.commands.append(command)
        if command[0] == "nvidia-smi":
            return subprocess.CompletedProcess(command, 0, "NVIDIA H100, 580.65.06, 81559 MiB\n")
        if command[0].endswith("compute-sanitizer"):
            assert environment == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
            output = self.sanitizer[command[command.index("--tool") + 1]]
            return subprocess.CompletedProcess(command, check.SANITIZER_EXIT_CODE if "Invalid" in output else 0, output)
        if command[-1] == "gpu":
            return subprocess.CompletedProcess(command, self.benchmark, "timing\nout of memory\n")
        return fake_pytest(command, self.tests, 1 if "failure" in self.tests else 0)


@pytest.fixture
def with_sanitizer(monkeypatch, tmp_path):
    path = executable(tmp_path / "bin" / "compute-sanitizer")
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


def read(folder: Path) -> tuple[dict, str]:
    return json.loads((folder / "gpu_check.json").read_text()), (folder / "gpu_check.md").read_text()


def test_a_check_that_goes_well(tmp_path, with_sanitizer, timed_on_the_cpu):
    machine = Machine()
    assert check.check(tmp_path / "results", machine, timed_on_the_cpu) == []
    suites = [command for command in machine.commands if command[0].endswith("pytest")]
    assert [command[len(check.PYTEST_OPTIONS) + 1] for command in suites] == ["tests/gpu", "tests"]
    assert all(Path(command[0]).exists() for command in suites)
    assert machine.commands[-1][1:] == [str(check.ROOT / "benchmarks"), "gpu"]
    assert Path(machine.commands[-1][1]).exists()

    results, report = read(tmp_path / "results")
    assert results["tests"]["tests/gpu"]["passed"] == 1
    assert {row["kernel"] for row in results["kernels"]["rows"]} >= {"cutmix", "cutmix_", "sample_plan", "mix_targets"}
    for row in results["kernels"]["rows"]:
        assert row["time"]["median_s"] > 0 and row["copy"]["median_s"] > 0 and row["bytes"] > 0
        assert f"| {row['kernel']} | reference |" in report
    assert "Everything that was run is as it should be." in report
    assert "NVIDIA H100, 580.65.06, 81559 MiB" in report
    assert "1 times: no backend <cuda>" in report
    assert "| memcheck | ok | 0 |" in report
    assert "[cuda.md](cuda.md)" in report
    assert f"cutmix_cuda {cutmix_cuda.__version__}" in report


def test_no_times_after_a_failed_test(tmp_path, with_sanitizer):
    machine = Machine(tests=PASSED + FAILED)
    failed = check.check(tmp_path, machine, lambda: pytest.fail("timed"))
    assert failed == [f"tests: {name}" for name in check.SUITES]
    results, report = read(tmp_path)
    assert results["kernels"]["status"] == results["benchmark"]["status"] == check.NOT_RUN
    assert "- `tests.gpu::test_b`" in report
    assert "so that no time would mean much" in report
    assert f"Failed: {', '.join(failed)}." in report


def test_what_else_may_fail(tmp_path, with_sanitizer):
    def out_of_memory():
        raise RuntimeError("out of memory")

    failed = check.check(tmp_path, Machine(sanitizer=FOUND, benchmark=1), out_of_memory)
    assert failed == ["memcheck", "racecheck", "kernels", "benchmark"]
    report = read(tmp_path)[1]
    assert "| memcheck | failed | 1 |" in report
    assert "Invalid __global__ read of size 16 bytes" in report
    assert "RuntimeError: out of memory" in report
    assert "timing\nout of memory" in report


def test_without_compute_sanitizer(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "find_sanitizer", lambda: None)
    assert check.check(tmp_path, Machine(), lambda: {"status": check.OK, "rows": []}) == []
    report = read(tmp_path)[1]
    assert "Not run: memcheck, racecheck." in report
    assert "memcheck: compute-sanitizer is not installed." in report


def test_bytes_of_a_job():
    """A copy is timed for as many bytes as are counted: images in and out, or the boxes' of the plan, or results."""
    from benchmarks.grid import Case

    case = Case(batch=16, size=32, classes=10)
    plan = cutmix_cuda.sample_plan(16, 32, 32, seed=1)
    y0, x0, y1, x1 = plan.boxes.unbind(1)
    pasted = int(((y1 - y0) * (x1 - x0)).sum()) * 3 * 4
    sizes = {name: size for name, (_, size) in check.kernel_calls(case, "reference", torch.device("cpu")).items()}
    assert sizes["cutmix"] == sizes["mix_images"] == 2 * 16 * 3 * 32 * 32 * 4
    assert sizes["cutmix_"] == sizes["mix_images_"] == pytest.approx(2 * pasted, abs=16)
    assert (sizes["mixup"], sizes["mixup, in place"]) == (3 * case.image_bytes, 2 * case.image_bytes)
    assert (sizes["sample_plan"], sizes["mix_targets"]) == (16 * 32, 16 * 10 * 4)


@needs_cpu
def test_a_command_is_shown_and_kept(capfd):
    done = check.run([sys.executable, "-c", "import os; print(os.environ['SAID']); raise SystemExit(3)"], SAID="hello")
    assert (done.returncode, done.stdout) == (3, "hello\n")
    assert capfd.readouterr().out.endswith("hello\n")
