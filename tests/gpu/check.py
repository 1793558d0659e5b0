"""Tests, checks and measures on a machine with a GPU, and writes down what came of it: ``make gpu-check``.

1. The tests of this folder, and those of the rest that take their device by parameter, on the GPU.
2. A small selection of them under compute-sanitizer's memcheck and racecheck, where it is installed. racecheck watches
   shared memory alone, of which the CUDA kernels have none: it speaks of Triton's.
3. Only if all tests passed: every kernel against ``copy_`` of the same bytes, and the benchmark (``make bench-gpu``).

The report is benchmarks/results/gpu_check.md, and the same as JSON. The exit status is 0 if nothing went wrong.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
NAME = "gpu_check"

OK, FAILED, NOT_RUN = "ok", "failed", "not run"

SUITES = {
    "tests/gpu": ["tests/gpu"],
    "tests, on the GPU": ["tests", "--ignore=tests/gpu", "-k", "cuda-cuda or triton-cuda or reference-cuda"],
}
# Triton compiles on the way: a test may take longer than pyproject.toml allows on a CPU.
PYTEST_OPTIONS = ["-q", "-rfE", "--timeout=1800"]

SANITIZED = [
    "tests/gpu/test_parity.py",
    "-k",
    "test_every_alignment and uint8 or test_a_bad_row or test_a_label_outside and int64 or test_labels_and_plans "
    "or test_every_way_to_draw and clip and mirror or test_large_batches and 112",
]
SANITIZER_EXIT_CODE = 86
SUMMARIES = {
    "memcheck": re.compile(r"=+ ERROR SUMMARY: (?P<found>\d+) errors?"),
    "racecheck": re.compile(r"=+ RACECHECK SUMMARY: (?P<found>\d+) hazards? displayed"),
}

Runner = Callable[..., "subprocess.CompletedProcess[str]"]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the repository, showing its output and keeping it."""
    print("$", " ".join(command), flush=True)
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return subprocess.CompletedProcess(command, process.returncode, "".join(lines))


def last_lines(text: str, count: int = 40) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


# ---- Tests


def pytest_command(selection: list[str]) -> list[str]:
    """By its own program: ``python -m pytest`` would put the sources before the installed package."""
    return [str(Path(sys.executable).with_name("pytest")), *PYTEST_OPTIONS, *selection]


def read_junit(path: Path) -> dict[str, Any]:
    """How many tests passed, failed and were skipped, and why, and the seconds that they took."""
    cases = list(ElementTree.parse(path).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [skip for case in cases if (skip := case.find("skipped")) is not None]
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in failed],
        "skipped": dict(Counter(skip.get("message", "") for skip in skipped)),
        "seconds": sum(float(case.get("time", 0)) for case in cases),
    }


def run_tests(selection: list[str], runner: Runner = run) -> dict[str, Any]:
    """A run of pytest. One that passed no test at all has failed."""
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        done = runner([*pytest_command(selection), f"--junit-xml={junit}"])
        if not junit.exists():
            return {"status": FAILED, "exit_code": done.returncode, "output": last_lines(done.stdout)}
        result = read_junit(junit)
    good = done.returncode == 0 and result["passed"] > 0 and not result["failed"]
    return {"status": OK if good else FAILED, "exit_code": done.returncode, **result}


# ---- compute-sanitizer


def find_sanitizer(environment: Mapping[str, str] = os.environ, toolkits: Path = Path("/usr/local")) -> str | None:
    """compute-sanitizer on the PATH, in CUDA_HOME, or in a toolkit where NVIDIA's installers put them."""
    if found := shutil.which("compute-sanitizer", path=environment.get("PATH")):
        return found
    homes = [Path(environment[name]) for name in ("CUDA_HOME", "CUDA_PATH") if environment.get(name)]
    for home in [*homes, *sorted(toolkits.glob("cuda*"), reverse=True)]:
        for folder in ("bin", "compute-sanitizer"):
            if (home / folder / "compute-sanitizer").exists():
                return str(home / folder / "compute-sanitizer")
    return None


def sanitizer_command(sanitizer: str, tool: str) -> list[str]:
    options = ["--tool", tool, "--target-processes", "all", "--error-exitcode", str(SANITIZER_EXIT_CODE)]
    if tool == "memcheck":
        options += ["--report-api-errors", "no"]  # torch probes for what a driver lacks
    return [sanitizer, *options, *pytest_command(SANITIZED), "--timeout=0"]


def read_sanitizer(tool: str, exit_code: int, output: str) -> dict[str, Any]:
    """What was found. Without a summary of the tool's own, nothing was checked, whatever else it said."""
    summaries = [int(found) for found in SUMMARIES[tool].findall(output)]
    good = exit_code == 0 and summaries and not any(summaries)
    result: dict[str, Any] = {
        "status": OK if good else FAILED,
        "exit_code": exit_code,
        "found": sum(summaries) if summaries else None,
    }
    if not good:
        result["output"] = last_lines(output)
    return result


def run_sanitizer(sanitizer: str | None, runner: Runner = run) -> dict[str, Any]:
    if sanitizer is None:
        return {tool: {"status": NOT_RUN, "why": "compute-sanitizer is not installed"} for tool in SUMMARIES}
    results = {}
    for tool in SUMMARIES:
        # Without torch's cache each tensor is an allocation of its own, and a byte beyond its end is seen.
        done = runner(sanitizer_command(sanitizer, tool), PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        results[tool] = read_sanitizer(tool, done.returncode, done.stdout)
    return results


# ---- Times


def use_benchmarks() -> None:
    """Makes them importable, behind the installed package, which the sources would hide."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))


def kernel_calls(case: Any, backend: str, device: torch.device) -> dict[str, tuple[Callable[[Any], Any], int]]:
    """Every kernel of a backend as a call on benchmark inputs, and the bytes that its job reads and writes at least.

    Pixels count where there are any, else the plan or the targets that come out.
    """
    import cutmix_cuda

    size, classes = case.batch, case.classes
    plan = cutmix_cuda.sample_plan(size, case.size, case.size, seed=1, device=device, backend=backend)
    pasted = float((1 - plan.lam.double()).mean())  # of all pixels, by this plan; the calls that sample draw the same
    copied, exchanged = 2 * case.image_bytes, int(2 * pasted * case.image_bytes)
    blended = 3 * case.image_bytes  # of both samples read; in place a sample is read once for two
    plan_bytes, target_bytes = plan.packed.nbytes, 4 * size * classes
    seeded: dict[str, Any] = {"seed": 1, "backend": backend}
    mixup: dict[str, Any] = {"cutmix_alpha": None, **seeded}
    following: dict[str, Any] = {"backend": backend}
    return {
        "cutmix": (lambda x: cutmix_cuda.cutmix(x.images, x.labels, classes, **seeded), copied),
        "cutmix, soft labels": (lambda x: cutmix_cuda.cutmix(x.images, x.soft_labels, **seeded), copied),
        "cutmix, out=": (lambda x: cutmix_cuda.cutmix(x.images, x.labels, classes, out=x.out, **seeded), copied),
        "cutmix_": (lambda x: cutmix_cuda.cutmix_(x.images, x.labels, classes, **seeded), exchanged),
        "mixup": (lambda x: cutmix_cuda.mix(x.images, x.labels, classes, **mixup), blended),
        "mixup, in place": (
            lambda x: cutmix_cuda.mix(x.images, x.labels, classes, inplace=True, **mixup),
            copied,
        ),
        "apply_plan": (lambda x: cutmix_cuda.apply_plan(x.images, x.labels, plan, classes, **following), copied),
        "apply_plan_": (lambda x: cutmix_cuda.apply_plan_(x.images, x.labels, plan, classes, **following), exchanged),
        "mix_images": (lambda x: cutmix_cuda.mix_images(x.images, plan, **following), copied),
        "mix_images_": (lambda x: cutmix_cuda.mix_images_(x.images, plan, **following), exchanged),
        "mix_targets": (lambda x: cutmix_cuda.mix_targets(x.labels, plan, classes, **following), target_bytes),
        "mix_targets, soft labels": (
            lambda x: cutmix_cuda.mix_targets(x.soft_labels, plan, **following),
            3 * target_bytes,
        ),
        "sample_plan": (
            lambda x: cutmix_cuda.sample_plan(size, case.size, case.size, device=device, **seeded),
            plan_bytes,
        ),
    }


def copy_of(size: int) -> Callable[[Any], Any]:
    """A call that reads and writes so many bytes in all, from the images to out; more than they hold, over again."""

    def copy(inputs: Any) -> None:
        source, target = (tensor.view(torch.uint8).view(-1) for tensor in (inputs.images, inputs.out))
        for left in range(size // 2, 0, -len(source)):
            target[:left].copy_(source[:left])

    return copy


def time_kernels(
    device: torch.device, backends: Sequence[str], cases: Sequence[Any], effort: Any
) -> list[dict[str, Any]]:
    """Every kernel and a copy of its bytes, timed in turn: a row for each case, backend and kernel."""
    use_benchmarks()
    from benchmarks.grid import rotation
    from benchmarks.timing import stopwatch, time_in_turn

    rows = []
    for case in cases:
        batches = rotation(case, device)
        for backend in backends:
            calls = kernel_calls(case, backend, device)
            sizes = {size for _, size in calls.values()}
            timings = time_in_turn(
                {
                    **{name: stopwatch(call, batches, device) for name, (call, _) in calls.items()},
                    **{f"copy {size}": stopwatch(copy_of(size), batches, device) for size in sorted(sizes)},
                },
                effort,
            )
            rows += [
                {
                    "case": str(case),
                    "backend": backend,
                    "kernel": name,
                    "bytes": size,
                    "time": timings[name].as_dict(),
                    "copy": timings[f"copy {size}"].as_dict(),
                }
                for name, (_, size) in calls.items()
            ]
    return rows


def time_kernels_on_gpu() -> dict[str, Any]:
    use_benchmarks()
    from dataclasses import replace

    import cutmix_cuda
    from benchmarks.grid import CENTRE
    from benchmarks.timing import Effort

    backends = [backend for backend in ("cuda", "triton") if backend in cutmix_cuda.available_backends()]
    cases = [replace(CENTRE, dtype=dtype) for dtype in (torch.uint8, torch.bfloat16, torch.float32)]
    rows = time_kernels(torch.device("cuda"), backends, cases, Effort(10.0, 5, 60))
    torch.cuda.empty_cache()  # the benchmark is another process
    return {"status": OK, "rows": rows}


def run_benchmark(runner: Runner = run) -> dict[str, Any]:
    done = runner([sys.executable, str(ROOT / "benchmarks"), "gpu"])
    if done.returncode == 0:
        return {"status": OK, "results": "cuda.md"}
    return {"status": FAILED, "exit_code": done.returncode, "output": last_lines(done.stdout)}


# ---- The report


def describe_machine(runner: Runner = run) -> dict[str, Any]:
    """GPUs, driver, versions and commit, and what the package says of its build."""
    use_benchmarks()
    from benchmarks.machine import describe
    from cutmix_cuda._info import report

    try:
        smi = runner(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
        gpus = smi.stdout.strip().splitlines() if smi.returncode == 0 else []
    except OSError:
        gpus = []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {**describe(device), "gpus": gpus, "cuda_of_torch": torch.version.cuda, "info": report()}


def parts_that(status: str, results: Mapping[str, Any]) -> list[str]:
    """The parts of a check that came out so."""
    parts = {
        **{f"tests: {name}": result for name, result in results["tests"].items()},
        **results["sanitizer"],
        "kernels": results["kernels"],
        "benchmark": results["benchmark"],
    }
    return [name for name, result in parts.items() if result["status"] == status]


def _table(header: list[str], rows: list[list[object]]) -> str:
    use_benchmarks()
    from benchmarks.tables import table

    return table(header, rows, numbers_from=len(header))


def _fenced(text: str) -> str:
    return f"```\n{text.rstrip()}\n```"


def _told(name: str, result: Mapping[str, Any]) -> list[str]:
    """What else is known of a part that did not go well."""
    parts = [f"{name}: {result['why']}."] if "why" in result else []
    return parts + ([f"The end of what {name} printed:", _fenced(result["output"])] if "output" in result else [])


def _tests_part(tests: Mapping[str, Any]) -> list[str]:
    rows: list[list[object]] = [
        [
            name,
            result["status"],
            result.get("passed", "-"),
            len(result.get("failed", [])),
            sum(result.get("skipped", {}).values()),
            f"{result.get('seconds', 0):.0f} s",
        ]
        for name, result in tests.items()
    ]
    parts = ["## Tests", _table(["tests", "result", "passed", "failed", "skipped", "time"], rows)]
    for name, result in tests.items():
        if result.get("failed"):
            parts += [f"Failed of {name}:", "\n".join(f"- `{test}`" for test in result["failed"])]
        if result.get("skipped"):
            reasons = sorted(result["skipped"].items(), key=lambda item: -item[1])
            parts += [f"Skipped of {name}:", "\n".join(f"- {count} times: {reason}" for reason, count in reasons)]
        parts += _told(name, result)
    return parts


def _sanitizer_part(sanitizer: Mapping[str, Any]) -> list[str]:
    rows: list[list[object]] = [
        [tool, result["status"], "-" if result.get("found") is None else result["found"]]
        for tool, result in sanitizer.items()
    ]
    parts = ["## compute-sanitizer", _table(["tool", "result", "found"], rows)]
    return parts + [part for tool, result in sanitizer.items() for part in _told(tool, result)]


def _kernels_part(kernels: Mapping[str, Any]) -> list[str]:
    parts = ["## Kernels", "Against `copy_` of as many bytes as the job reads and writes at least."]
    if kernels["status"] != OK:
        return [*parts, f"{kernels['status'].capitalize()}.", *_told("The timing", kernels)]
    use_benchmarks()
    from benchmarks.tables import duration, spread

    for case in dict.fromkeys(row["case"] for row in kernels["rows"]):
        rows: list[list[object]] = [
            [
                row["kernel"],
                row["backend"],
                f"{row['bytes'] / 1e6:.3g} MB",
                spread(row["time"]),
                f"{row['bytes'] / row['time']['median_s'] / 1e9:.3g}",
                duration(row["copy"]["median_s"]),
                f"{100 * row['copy']['median_s'] / row['time']['median_s']:.0f} %",
            ]
            for row in kernels["rows"]
            if row["case"] == case
        ]
        header = ["kernel", "backend", "bytes", "median (quartiles)", "GB/s", "copy_", "of copy_'s speed"]
        parts += [f"### {case}", _table(header, rows)]
    return parts


def _benchmark_part(benchmark: Mapping[str, Any]) -> list[str]:
    if benchmark["status"] == OK:
        return ["## Against the peers", f"[{benchmark['results']}]({benchmark['results']})"]
    return ["## Against the peers", f"{benchmark['status'].capitalize()}.", *_told("The benchmark", benchmark)]


def markdown(results: Mapping[str, Any]) -> str:
    """The report in words."""
    machine = results["machine"]
    failed, not_run = parts_that(FAILED, results), parts_that(NOT_RUN, results)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        "# The check on a GPU",
        f"Failed: {', '.join(failed)}." if failed else "Everything that was run is as it should be.",
        f"Not run: {', '.join(not_run)}." if not_run else "",
        f"{machine['processor']}; {machine['host']}; {machine['system']}; {versions}; CUDA {machine['cuda_of_torch']} "
        f"of torch; commit {machine['commit']}, {machine['date']}.",
        *["\n".join(f"- {gpu}" for gpu in machine["gpus"])],
        *_tests_part(results["tests"]),
        *_sanitizer_part(results["sanitizer"]),
        *_kernels_part(results["kernels"]),
        *_benchmark_part(results["benchmark"]),
        "## What the package says",
        _fenced(machine["info"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(results: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"{NAME}.md").write_text(markdown(results))


def guarded(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part of the check, of which an error leaves a line in the report and not a check without one."""
    try:
        return part()
    except Exception as error:
        return {"status": FAILED, "why": f"{type(error).__name__}: {error}"}


def check(
    folder: Path, runner: Runner = run, time_them: Callable[[], dict[str, Any]] = time_kernels_on_gpu
) -> list[str]:
    """Runs everything, writes the report, and returns what failed. The report is there after each part."""
    waiting = {"status": NOT_RUN, "why": "the check did not come this far"}
    results: dict[str, Any] = {
        "machine": describe_machine(runner),
        "tests": dict.fromkeys(SUITES, waiting),
        "sanitizer": dict.fromkeys(SUMMARIES, waiting),
        "kernels": waiting,
        "benchmark": waiting,
    }
    write(results, folder)
    for name, selection in SUITES.items():
        results["tests"][name] = guarded(lambda: run_tests(selection, runner))  # noqa: B023
        write(results, folder)
    results["sanitizer"] = run_sanitizer(find_sanitizer(), runner)
    write(results, folder)
    if any(result["status"] != OK for result in results["tests"].values()):
        results["kernels"] = results["benchmark"] = {
            "status": NOT_RUN,
            "why": "a test failed, so that no time would mean much",
        }
    else:
        results["kernels"] = guarded(time_them)
        write(results, folder)
        results["benchmark"] = guarded(lambda: run_benchmark(runner))
    write(results, folder)
    return parts_that(FAILED, results)


def main() -> str | None:
    """Returns what went wrong, or None."""
    if not torch.cuda.is_available():
        return "gpu-check needs a machine with a GPU, and torch sees no CUDA device here."
    failed = check(RESULTS)
    print(f"\nThe report is {os.path.relpath(RESULTS / NAME)}.md.")
    return f"Failed: {', '.join(failed)}." if failed else None


if __name__ == "__main__":
    sys.exit(main())
