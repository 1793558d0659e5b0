"""The commands that the check on a GPU runs, each within a limit of time, and what their output says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]

OK, FAILED, OUT_OF_TIME, NOT_RUN = "ok", "failed", "out of time", "not run"


class Done(NamedTuple):
    returncode: int
    output: str
    out_of_time: bool = False


# What runs a command, with the arguments of `run`.
Runner = Callable[..., Done]

ONE_COMPILER = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # or torch starts a pool of processes for each that imports it
GRACE = 10.0  # seconds that a command gets to end by itself once it was interrupted


def _heed_interrupts() -> None:
    """What a shell starts in the background ignores interrupts, and so does all that it starts in turn."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None, quiet: bool = False
) -> Done:
    """Runs a command in the repository, showing its output, unless it is to be quiet, and keeping it.

    At its limit the command is interrupted, and killed with all that it started if that does not end it.
    """
    print("$", " ".join(command), flush=True)
    lines: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | (environment or {}),
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )
    assert process.stdout is not None

    def show() -> None:
        for line in process.stdout:  # type: ignore[union-attr]
            if not quiet:
                print(line, end="", flush=True)
            lines.append(line)

    reader = threading.Thread(target=show, daemon=True)
    reader.start()
    out_of_time = False
    try:
        process.wait(max(seconds, 0.0))
    except subprocess.TimeoutExpired:
        out_of_time = True
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    reader.join(GRACE)
    return Done(process.returncode, "".join(lines), out_of_time)


def last_lines(text: str, count: int = 40) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def outcome(done: Done, good: bool) -> dict[str, Any]:
    """The result of a command, with the end of its output if it did not go well."""
    status = OUT_OF_TIME if done.out_of_time else OK if good else FAILED
    result: dict[str, Any] = {"status": status, "exit_code": done.returncode}
    if status != OK:
        result["output"] = last_lines(done.output)
    return result


# ---- Tests


class Suite(NamedTuple):
    """A selection of tests."""

    selection: tuple[str, ...]
    processes: int  # at most
    fraction: float  # of the time of its part


# What takes a device by parameter. The rest is not even imported: it asks for packages that a GPU does not.
BY_DEVICE = ("tests/api", "tests/compat", "tests/ops", "tests/project/test_backends.py")
ON_A_GPU = "cuda-cuda or triton-cuda or reference-cuda"  # the ids of such tests
WITHOUT_A_DEVICE = "test_a_captured_step or test_pinned_batches"  # and of those that do not, and want a GPU

SUITES = {
    "tests/gpu": Suite(("tests/gpu", "-k", "not 31_bits"), 12, 0.5),
    "tests, on the GPU": Suite((*BY_DEVICE, "-k", f"{ON_A_GPU} or {WITHOUT_A_DEVICE}"), 12, 0.4),
    "more than 2^31 elements": Suite(("tests/gpu", "-k", "31_bits"), 1, 0.1),  # each takes much of the GPU's memory
}
TO_END = 15.0  # seconds that pytest gets to stop by itself, before its command is interrupted
TO_SUM_UP = 45.0  # the same under compute-sanitizer, where a test may take so long, and the summary comes last


def pytest_command(*arguments: str) -> list[str]:
    """By its own program: ``python -m pytest`` would put the sources before the installed package."""
    return [str(Path(sys.executable).with_name("pytest")), "-q", "-rfE", *arguments]


def processes(most: int) -> int:
    """How many beside this one; 0 where pytest may as well run by itself."""
    count = min(most, len(os.sched_getaffinity(0)) - 2)
    return count if count > 1 else 0


def read_tests(lines: str) -> dict[str, Any]:
    """What the tests that ended came to, of the lines that tests/conftest.py writes."""
    cases = [json.loads(line) for line in lines.splitlines()]
    skipped = [case for case in cases if case["outcome"] == "skipped"]
    failed = [case for case in cases if case["outcome"] == "failed"]
    return {
        "passed": sum(case["outcome"] == "passed" for case in cases),
        "failed": {case["test"]: case["why"] for case in failed},
        "skipped": dict(Counter(case["why"] for case in skipped)),
        "seconds": sum(case["seconds"] for case in cases),
    }


def run_tests(suite: Suite, lines: Path, seconds: float, runner: Runner = run) -> dict[str, Any]:
    """A run of pytest, which adds a line to a file for each test. One that passed no test at all has failed."""
    before = lines.stat().st_size if lines.exists() else 0
    count = processes(suite.processes)
    # A test that hangs ends its process, which pytest-xdist replaces; Triton compiles on the way.
    options = [f"--numprocesses={count}", "--dist=worksteal", "--timeout=120", "--timeout-method=thread"]
    done = runner(
        pytest_command(*options, f"--session-timeout={max(1.0, seconds - TO_END):.0f}", *suite.selection),
        seconds,
        {"CUTMIX_CUDA_TEST_LINES": str(lines), **ONE_COMPILER},
    )
    with lines.open("a+") as file:
        file.seek(before)
        tests = read_tests(file.read())
    if "session-timeout:" in done.output:
        done = done._replace(out_of_time=True)
    good = done.returncode == 0 and tests["passed"] > 0 and not tests["failed"]
    return {**outcome(done, good), **tests}


# ---- compute-sanitizer

SANITIZED = (
    "tests/ops/test_patches.py",
    "tests/ops/test_adjoint.py",
    "tests/ops/test_augment.py",
    "tests/gpu/test_parity.py",
    "-k",
    "test_parity and (test_every_alignment and uint8 or test_a_bad_row or test_a_label_outside and int64 "
    "or test_labels_and_plans or test_every_way_to_draw and clip and mirror or test_large_batches and 112) "
    "or (cuda-cuda or triton-cuda) and (test_everything_at_once or test_views_of_memory or test_colour_of_views "
    "or test_many_patches or test_only_the_images_of_a_view or test_samples_that_do_not_exchange "
    "or test_nothing_beside_the_output_is_written or test_a_bad_row_keeps_its_gradient)",
)
KERNELS = ("mix_", "augment_", "paint_", "patches_", "link_", "sum_")  # what the names of ours begin with
SANITIZER_EXIT_CODE = 86
SUMMARIES = {
    "memcheck": re.compile(r"=+ ERROR SUMMARY: (?P<found>\d+) errors?"),
    "racecheck": re.compile(r"=+ RACECHECK SUMMARY: (?P<found>\d+) hazards? displayed"),
}


def find_tool(
    name: str, environment: Mapping[str, str] = os.environ, toolkits: Path = Path("/usr/local")
) -> str | None:
    """compute-sanitizer or ncu, on the PATH, in CUDA_HOME, or in a toolkit where NVIDIA's installers put them."""
    if found := shutil.which(name, path=environment.get("PATH")):
        return found
    homes = [Path(environment[variable]) for variable in ("CUDA_HOME", "CUDA_PATH") if environment.get(variable)]
    for home in [*homes, *sorted(toolkits.glob("cuda*"), reverse=True)]:
        for folder in ("bin", name):
            if (home / folder / name).exists():
                return str(home / folder / name)
    return None


def sanitizer_command(sanitizer: str, tool: str, seconds: float) -> list[str]:
    """Watches our kernels alone, and waits for the first of them as long as it takes."""
    options = ["--tool", tool, "--target-processes", "all", "--error-exitcode", str(SANITIZER_EXIT_CODE)]
    for kernels in KERNELS:  # each option adds to those before
        options += ["--kernel-name", f"kns={kernels}"]
    options += ["--launch-timeout", "0"]
    if tool == "memcheck":
        options += ["--report-api-errors", "no"]  # torch probes for what a driver lacks
    limits = ["--numprocesses=0", "--timeout=0", f"--session-timeout={max(1.0, seconds - TO_SUM_UP):.0f}"]
    return [sanitizer, *options, *pytest_command(*limits, *SANITIZED)]


def read_sanitizer(tool: str, done: Done) -> dict[str, Any]:
    """What was found. Without a summary of the tool's own, nothing was checked, whatever else it said."""
    summaries = [int(found) for found in SUMMARIES[tool].findall(done.output)]
    if "session-timeout:" in done.output and not any(summaries):
        done = done._replace(out_of_time=True)
    good = done.returncode == 0 and bool(summaries) and not any(summaries)
    return {**outcome(done, good), "found": sum(summaries) if summaries else None}


def run_sanitizer(tool: str, seconds: float, runner: Runner = run) -> dict[str, Any]:
    sanitizer = find_tool("compute-sanitizer")
    if sanitizer is None:
        return {"status": NOT_RUN, "why": "compute-sanitizer is not installed"}
    # Without torch's cache each tensor is an allocation of its own, and a byte beyond its end is seen.
    done = runner(sanitizer_command(sanitizer, tool, seconds), seconds, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    return read_sanitizer(tool, done)


# ---- Benchmarks


RESULTS_OF = {"gpu": "cuda.json", "kernels": "kernels.json"}  # of each benchmark


def run_benchmark(
    command: str, seconds: float, *, folder: Path, lines: Path, quick: bool = False, runner: Runner = run
) -> dict[str, Any]:
    """A benchmark that stops in time by itself, and says what it had no time for; its results are in a folder."""
    options = ["--output", str(folder), "--lines", str(lines), "--seconds", f"{max(1.0, seconds - TO_END):.0f}"]
    done = runner(
        [sys.executable, str(ROOT / "benchmarks"), command, *options, *(["--quick"] if quick else [])],
        seconds,
        ONE_COMPILER,
    )
    result = outcome(done, done.returncode == 0)
    path = folder / RESULTS_OF[command]
    missed = json.loads(path.read_text()).get("no_time_for") if path.exists() else None
    if missed and result["status"] != FAILED:
        result |= {"status": OUT_OF_TIME, "why": f"there was no time for {'; '.join(missed)}"}
    return result


def run_ncu(folder: Path, seconds: float, runner: Runner = run) -> dict[str, Any]:
    """A few launches under Nsight Compute; its report, and that as CSV and as a table, are in a folder."""
    from benchmarks import launches
    from benchmarks.machine import RESULTS

    ncu = find_tool("ncu")
    if ncu is None:
        return {"status": NOT_RUN, "why": "ncu is not installed"}
    report, started = folder / "launches.ncu-rep", time.monotonic()
    done = runner(launches.ncu_command(ncu, report), seconds)
    result = outcome(done, done.returncode == 0)
    if result["status"] != OK:
        return result
    exported = runner(launches.export_command(ncu, report), seconds - (time.monotonic() - started), quiet=True)
    (folder / "launches.csv").write_text(exported.output)
    rows = launches.read(exported.output)
    text = launches.as_markdown(rows, json.loads((RESULTS / "ptx_report.json").read_text()))
    (folder / "launches.md").write_text(text)
    return {"status": OK, "exit_code": 0, "rows": rows}
