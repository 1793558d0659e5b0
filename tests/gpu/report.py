"""The report of the check on a GPU, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.tables import table

from .commands import FAILED, NOT_RUN, OK, OUT_OF_TIME


def steps_that(status: str, results: Mapping[str, Any]) -> list[str]:
    """The steps that came out so."""
    return [name for name, step in results["steps"].items() if step["status"] == status]


def _fenced(text: str) -> str:
    return f"```\n{text.rstrip()}\n```"


def _head(results: Mapping[str, Any]) -> list[str]:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [f"# The check on a GPU: {results['part']}"]
    for status, words in (
        (FAILED, "Failed"),
        (OUT_OF_TIME, "Stopped at the limit, with what it had"),
        (NOT_RUN, "Not run"),
    ):
        if names := steps_that(status, results):
            parts.append(f"{words}: {', '.join(names)}.")
    if earlier := results.get("failed_before"):
        parts.append(f"**What was measured here failed in the part before, which tested it**: {'; '.join(earlier)}.")
    if len(parts) == 1:
        parts.append("Everything is as it should be.")
    parts.append(
        f"{machine['processor']}; {machine['host']}; {machine['system']}; {versions}; CUDA {machine['cuda_of_torch']} "
        f"of torch; commit {machine['commit']}, {machine['date']}."
    )
    return [*parts, "\n".join(f"- {gpu}" for gpu in machine["gpus"])]


def _told(name: str, step: Mapping[str, Any]) -> list[str]:
    """What else is known of a step that did not go well."""
    parts = [f"{name}: {step['why']}."] if "why" in step else []
    return parts + ([f"The end of what {name} printed:", _fenced(step["output"])] if "output" in step else [])


def _tests(steps: Mapping[str, Any]) -> list[str]:
    tests = {name: step for name, step in steps.items() if "passed" in step}
    if not tests:
        return []
    rows: list[list[object]] = [
        [
            name,
            step["status"],
            step["passed"],
            len(step["failed"]),
            sum(step["skipped"].values()),
            f"{step['seconds']:.0f} s",
        ]
        for name, step in tests.items()
    ]
    header = ["tests", "result", "passed", "failed", "skipped", "time of all processes"]
    parts = ["## Tests", table(header, rows, numbers_from=2)]
    for name, step in tests.items():
        if step["failed"]:
            failed = "\n".join(f"- `{test}`: {why}" for test, why in step["failed"].items())
            parts += [f"Failed of {name}:", failed]
        if step["skipped"]:
            reasons = sorted(step["skipped"].items(), key=lambda item: -item[1])
            parts += [f"Skipped of {name}:", "\n".join(f"- {count} times: {reason}" for reason, count in reasons)]
    return parts


def _sanitizer(steps: Mapping[str, Any]) -> list[str]:
    rows: list[list[object]] = [
        [name, step["status"], "-" if step["found"] is None else step["found"]]
        for name, step in steps.items()
        if "found" in step
    ]
    return ["## compute-sanitizer", table(["tool", "result", "found"], rows, numbers_from=2)] if rows else []


def markdown(results: Mapping[str, Any]) -> str:
    """The report. What the benchmarks wrote is appended, in their words, one level of headings deeper."""
    steps = results["steps"]
    parts = [*_head(results), *_tests(steps), *_sanitizer(steps)]
    for name, step in steps.items():
        if step["status"] != OK:
            parts += _told(name, step)
    parts += [re.sub("^#", "##", document, flags=re.MULTILINE).rstrip() for document in results["documents"]]
    parts += ["## What the package says", _fenced(results["machine"]["info"])]
    return "\n\n".join(part for part in parts if part) + "\n"
