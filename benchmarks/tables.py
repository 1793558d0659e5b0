"""The results in words: Markdown tables."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

from .chains import TORCHVISION as TORCHVISION_CHAIN
from .cross_entropy import SOFT
from .implementations import (
    BOX_COPY,
    CLONE,
    COPY,
    NO_MIXING,
    OURS,
    OURS_IN_PLACE,
    OURS_OUT,
    TORCHVISION,
)

# Between these the README holds a table: <!-- begin: benchmark speed --> ... <!-- end: benchmark speed -->.
MARKERS = ("<!-- begin: benchmark {} -->", "<!-- end: benchmark {} -->")

CEILING_OF = {OURS: CLONE, OURS_OUT: COPY, OURS_IN_PLACE: BOX_COPY}


def table(header: Iterable[str], rows: Iterable[Iterable[object]], *, numbers_from: int = 1) -> str:
    """A Markdown table; columns from `numbers_from` on are aligned to the right."""
    header = list(header)
    rule = ["---" if column < numbers_from else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, rule, *rows))


def three_digits(number: float) -> str:
    """The first three that count: 0.0123, 1.00, 12.3, 1.23e+03."""
    return f"{number:#.3g}".rstrip(".")


def duration(seconds: float) -> str:
    """Three digits, in us, ms or s."""
    scale, unit = next(((s, u) for s, u in ((1e6, "us"), (1e3, "ms")) if seconds * s < 999.5), (1.0, "s"))
    return f"{three_digits(seconds * scale)} {unit}"


def case_name(case: dict) -> str:
    return (
        f"{case['batch']} x {case['channels']} x {case['size']} x {case['size']}, {case['dtype']}, {case['layout']}, "
        f"{case['classes']} classes"
    )


def spread(timing: dict) -> str:
    return f"{duration(timing['median_s'])} ({duration(timing['q1_s'])} .. {duration(timing['q3_s'])})"


def speed_table(cell: dict, *, only: Iterable[str] | None = None, torchvision: str = TORCHVISION) -> str:
    """Everything that was measured on one batch: peers, ours, ceilings, the fastest of each last.

    The speed-up is over torchvision, by its name there, where both were timed by the same clock.
    """
    timings = cell["timings"]
    names = [name for name in timings if only is None or name in only]
    names.sort(key=lambda name: (("peer", "ours", "ceiling").index(timings[name]["kind"]), -timings[name]["median_s"]))
    baseline = timings.get(torchvision)
    rows = []
    for name in names:
        timing = timings[name]
        comparable = baseline is not None and baseline["method"] == timing["method"]
        rows.append(
            (
                name,
                "-" if timing["kind"] == "ceiling" else timing["scope"],
                "yes" if timing["in_place"] else "no",
                timing["includes"],
                spread(timing),
                f"{timing['images_per_s']:,.0f}",
                f"{timing['gb_per_s']:.1f}",
                f"{baseline['median_s'] / timing['median_s']:.2f}x" if comparable else "-",
                timing["method"],
            )
        )
    header = (
        "who",
        "lambda per",
        "in place",
        "a call is",
        "median (quartiles)",
        "images/s",
        "GB/s",
        "vs torchvision",
        "clock",
    )
    return table(header, rows, numbers_from=4)


def _verdict(row: dict) -> str:
    why = row.get("why")
    return "yes" if row["met"] else f"**missed**: {why}" if why else "**missed**"


def targets_table(rows: list[dict]) -> str:
    return table(
        ("what", "on", "target", "measured", "met"),
        [(row["what"], row["where"], row["target"], row["measured"], _verdict(row)) for row in rows],
        numbers_from=2,
    )


def fraction_of_ceiling(timings: dict[str, dict], mode: str) -> float | None:
    """How near one of our modes comes to a plain copy; None where one of them was not timed, or by another clock."""
    ours, ceiling = timings.get(mode), timings.get(CEILING_OF[mode])
    if ours is None or ceiling is None or ours["method"] != ceiling["method"]:
        return None
    return ceiling["median_s"] / ours["median_s"]


def ceiling_table(cells: list[dict]) -> str:
    """The fraction of its ceiling that each of our modes reaches, by dtype and layout."""
    rows = []
    for cell in cells:
        shares = (fraction_of_ceiling(cell["timings"], mode) for mode in CEILING_OF)
        rows.append(
            (
                cell["case"]["dtype"],
                cell["case"]["layout"],
                *("-" if share is None else f"{share:.2f}" for share in shares),
            )
        )
    header = "dtype", "layout", *(f"{mode}: of {ceiling}" for mode, ceiling in CEILING_OF.items())
    return table(header, rows, numbers_from=2)


def overhead_table(overhead: dict[str, dict]) -> str:
    rows = sorted(overhead.items(), key=lambda item: item[1]["median_s"])
    return table(("who", "a call (quartiles)"), [(name, spread(timing)) for name, timing in rows])


def step_table(step: dict, baseline: str = NO_MIXING) -> str:
    plain = step["by"][baseline]["step_s"]
    rows = [
        (
            name,
            *(duration(phase[key]) for key in ("load_s", "mix_s", "train_s", "step_s")),
            f"{100 * phase['mix_share']:.2f} %",
            f"{phase['step_s'] / plain:.3f}",
        )
        for name, phase in step["by"].items()
    ]
    return table(("mixed by", "load", "mix", "train", "step", "mix's fraction", f"step / {baseline}"), rows)


def loss_table(cells: list[dict]) -> str:
    """The cost of each loss and its gradient, and how many times faster it is than with soft targets."""
    rows = [
        (
            name,
            *(
                f"{spread(cell['by'][name])}, {cell['by'][SOFT]['median_s'] / cell['by'][name]['median_s']:.2f}x"
                for cell in cells
            ),
        )
        for name in cells[0]["by"]
    ]
    return table(("loss and gradient of", *(f"{cell['batch']} x {cell['classes']}" for cell in cells)), rows)


def counted_table(rows: list[dict]) -> str:
    return table(
        (
            "who",
            "lambda per",
            "in place",
            "image kernels",
            "label kernels",
            "from the host",
            "image passes",
            "counted by",
        ),
        [
            (
                row["name"],
                row["scope"],
                "yes" if row["in_place"] else "no",
                *(f"{row[key]:.3g}" for key in ("image_kernels", "label_kernels", "transfers")),
                f"{row['image_passes']:.2f}",
                row["counted_by"],
            )
            for row in rows
        ],
        numbers_from=3,
    )


def counted_chains_table(rows: list[dict]) -> str:
    """Kernels, copies from the host, and bytes read and written for each element of the images."""
    return table(
        ("a batch's tail", "by", "kernels", "host-to-device copies", "bytes an element"),
        [
            (
                row["job"],
                row["name"],
                *(f"{number:.3g}" for number in (row["image_kernels"] + row["label_kernels"], row["transfers"])),
                f"{row['image_passes']:.3g}",
            )
            for row in rows
        ],
        numbers_from=2,
    )


def ratio_table(cells: list[dict], name: str) -> str:
    """How many times as long as ours everybody takes, by job and layout; quartiles by quartiles for the spread."""
    others = list(dict.fromkeys(other for cell in cells for other in cell["timings"] if other != name))

    def ratio(timings: dict, other: str) -> str:
        if other not in timings or timings[other]["method"] != timings[name]["method"]:
            return "-"
        ours, theirs = timings[name], timings[other]
        low, high = theirs["q1_s"] / ours["q3_s"], theirs["q3_s"] / ours["q1_s"]
        return f"{theirs['median_s'] / ours['median_s']:.3g} ({low:.3g} .. {high:.3g})"

    rows = [
        (
            cell["case"]["job"],
            f"{cell['case']['size']} pixels, {cell['case']['layout']}",
            spread(cell["timings"][name]),
            *(ratio(cell["timings"], other) for other in others),
        )
        for cell in cells
    ]
    return table(("job", "on", name, *others), rows, numbers_from=2)


def machine_line(machine: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    made = f"commit {machine['commit']}, {machine['date']}"
    return f"{machine['processor']}, {machine['threads']} threads; {versions}; {made}."


def centre_cell(results: dict) -> dict:
    return next(cell for cell in results["cells"] if cell["case"] == results["centre"])


def not_measured(results: dict) -> list[str]:
    """What is missing, and why."""
    return [
        *(f"Not measured: {name} ({why})." for name, why in results["missing"].items()),
        *(
            f"**Left out, because its results are wrong**: {name} ({why})."
            for name, why in results.get("wrong", {}).items()
        ),
        *(f"Not captured in a CUDA graph: {name} ({why})." for name, why in results.get("failed_captures", {}).items()),
        *([f"There was no time for: {'; '.join(results['no_time_for'])}."] if "no_time_for" in results else []),
    ]


def clock_line(cell: dict) -> list[str]:
    """The clocks of the GPU around the timing of a batch."""
    if "clocks" not in cell:
        return []
    before, after = (", ".join(f"{name} {value}" for name, value in when.items()) for when in cell["clocks"].values())
    return [f"GPU before: {before}; after: {after}."]


def report(results: dict) -> str:
    """Everything that was measured, as one document."""
    device = results["device"]
    on_dtypes = [cell for cell in results["cells"] if any(line.startswith("dtype") for line in cell["lines"])]
    checked = "came" if results.get("wrong") else "passed"
    parts = [
        f"# Measured on {device}",
        machine_line(results["machine"]),
        f"{results['checks']} checks of meaning {checked} before anything was timed. "
        "How: [../README.md](../README.md).",
        *not_measured(results),
    ]
    if results.get("targets"):
        parts += ["## Targets", targets_table(results["targets"])]
    parts += ["## Fraction of the ceiling", ceiling_table(on_dtypes), *pictures(device)]
    if "overhead" in results:
        parts += [
            "## One call at a batch of one",
            f"On {case_name(results['overhead']['case'])}.",
            overhead_table(results["overhead"]["by"]),
        ]
    if "step" in results:
        step = results["step"]
        parts += [
            "## A training step",
            f"ResNet-18 on {step['batch']} photographs of {step['size']} pixels, medians of "
            f"{step['by'][NO_MIXING]['steps']} steps each, in turn.",
            step_table(step),
        ]
    if "losses" in results:
        parts += [
            "## The loss of mixed labels",
            "Cross entropy of float32 logits (batch x classes) and its gradient, medians with quartiles, and how many "
            "times as fast as PyTorch's with dense soft targets. Pairs are two class indices and a weight. That dense "
            "targets made a training step take 0.198 s instead of 0.120 s, on eight A100, is reported in "
            "[pytorch/pytorch#141177](https://github.com/pytorch/pytorch/issues/141177) and was not measured here.",
            loss_table(results["losses"]),
        ]
    if "counted" in results:
        parts += [
            "## Kernels and bytes of one call on a GPU: counted, not timed",
            f"On {case_name(results['counted']['case'])}. "
            "An image pass: the whole image tensor read, or written, once.",
            counted_table(results["counted"]["rows"]),
        ]
    parts.append("## Every batch")
    for cell in results["cells"]:
        parts += [
            f"### {case_name(cell['case'])}",
            f"On the lines: {', '.join(cell['lines'])}.",
            *clock_line(cell),
            speed_table(cell),
        ]
    return "\n\n".join(parts) + "\n"


def tail_report(results: dict, ours: str) -> str:
    """Everything that was measured of the batch tail, as one document."""
    cells = [cell for cell in results["cells"] if ours in cell["timings"]]
    parts = [
        f"# The batch tail, measured on {results['device']}",
        machine_line(results["machine"]),
        f"{results['checks']} checks of meaning {'came' if results['wrong'] else 'passed'} before anything was timed. "
        "How: [../README.md](../README.md#the-batch-tail).",
        *not_measured(results),
    ]
    if results.get("targets"):
        parts += ["## Targets", targets_table(results["targets"])]
    if cells:
        batch, channels = (cells[0]["case"][key] for key in ("batch", "channels"))
        parts += [
            "## How many times as long as ours",
            f"{batch} x {channels} uint8 images to bfloat16: medians of ours, and what the others take over them, with "
            "the ratios of opposite quartiles.",
            ratio_table(cells, ours),
        ]
    for step in results.get("steps", []):
        parts += [
            f"## A training step on {step['size']} pixels",
            f"ResNet-18 under bfloat16 autocast, channels-last, on {step['batch']} photographs, medians of "
            f"{step['steps']} steps each, in turn; the mix is {step['job']}.",
            step_table(step, TORCHVISION_CHAIN),
        ]
    if "counted" in results:
        parts += ["## Counted, not timed", counted_chains_text(results["counted"])]
    parts.append("## Every batch")
    for cell in results["cells"]:
        title = f"### {cell['case']['job']}: {case_name(cell['case'])}"
        parts += [title, *clock_line(cell), speed_table(cell, torchvision=TORCHVISION_CHAIN)]
    return "\n\n".join(parts) + "\n"


def counted_chains_text(counted: dict, jobs: Container[str] | None = None) -> str:
    """Kernels, copies and bytes, of these jobs or of all."""
    case = counted["case"]
    shape = " x ".join(str(case[key]) for key in ("batch", "channels", "size", "size"))

    def of_jobs(rows: list[dict]) -> list[dict]:
        return [row for row in rows if jobs is None or row["job"] in jobs]

    parts = [
        f"{shape} uint8, {case['layout']}, bfloat16. One operation that PyTorch dispatches is taken for one kernel "
        "that reads its inputs and writes its outputs once, the fewest possible; means over the draws.",
        counted_chains_table(of_jobs(counted["rows"])),
        *(
            f"Not counted, because it reads values on the host: {row['name']}, {row['job']} ({row['why']})."
            for row in of_jobs(counted.get("uncounted", []))
        ),
    ]
    return "\n\n".join(parts)


def pictures(device: str) -> list[str]:
    return [
        f"![Throughput over batch size]({device}_throughput.png)",
        f"![Time over bytes]({device}_time_over_bytes.png)",
        f"![Fraction of the ceiling]({device}_share_of_ceiling.png)",
    ]


def put_between_markers(path: Path, name: str, text: str) -> bool:
    """Replaces what stands between the markers of a name in a file; False where it has no such markers."""
    begin, end = (marker.format(name) for marker in MARKERS)
    content = path.read_text()
    if begin not in content or end not in content:
        return False
    before, rest = content.split(begin, 1)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end, 1)[1]}")
    return True
