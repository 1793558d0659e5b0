"""What came out of the runs: comparisons of the arms, as Markdown and as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from ..implementations import NO_MIXING
from ..plots import DPI, FAINT, GRID, INK
from ..tables import table
from .arms import ARMS
from .measures import expected_calibration_error


class Measure(NamedTuple):
    """
    Attributes:
        title: what is measured, of which more is better unless the title says so.
        of: its value in a run, as a fraction.
    """

    title: str
    of: Callable[[dict], float]


ACCURACY = Measure("test accuracy", lambda run: run["accuracy"])
CALIBRATION = Measure(
    "expected calibration error (less is better)", lambda run: expected_calibration_error(run["reliability"])
)
GAP = Measure("training accuracy minus test accuracy", lambda run: run["training_accuracy"] - run["accuracy"])


PLACES = {"occluded_at_centre": "at the centre", "occluded_at_random": "at a random place"}


def _under_box(key: str, index: int, side: int) -> Measure:
    return Measure(f"test accuracy, grey box of {side} x {side} pixels {PLACES[key]}", lambda run: run[key][index])


def _under_noise(index: int, deviation: float) -> Measure:
    return Measure(f"test accuracy, noise of standard deviation {deviation}", lambda run: run["noisy"][index])


def all_measures(run: dict) -> list[Measure]:
    """Those that a run was measured by."""
    boxes = [_under_box(key, *box) for key in PLACES for box in enumerate(run["occluder_sides"])]
    noises = [_under_noise(*noise) for noise in enumerate(run["noise"])]
    return [ACCURACY, CALIBRATION, GAP, *boxes, *noises]


def by_size_and_arm(runs: list[dict]) -> dict[int, dict[str, list[dict]]]:
    """The runs for each number of training images and each arm, in the order of their seeds."""
    sizes = sorted({run["training_images"] for run in runs})
    return {
        size: {
            arm: sorted(
                (run for run in runs if (run["training_images"], run["arm"]) == (size, arm)),
                key=lambda run: run["seed"],
            )
            for arm in ARMS
        }
        for size in sizes
    }


def summarise(values: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """For each arm the mean and standard deviation over seeds; and its gain over no mixing, seed by seed: the mean and
    the ends of Student's 95 % interval.

    Args:
        values: for each arm, of the same seeds in the same order.
    """
    baseline = np.array(values[NO_MIXING])
    summary = {}
    for arm, each in values.items():
        row = {"mean": np.mean(each), "std": np.std(each, ddof=1)}
        if arm != NO_MIXING:
            gains = np.array(each) - baseline
            half = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)
            row |= {"gain": gains.mean(), "gain_low": gains.mean() - half, "gain_high": gains.mean() + half}
        summary[arm] = {key: float(value) for key, value in row.items()}
    return summary


def summaries(arms: dict[str, list[dict]], measure: Measure) -> dict[str, dict[str, float]]:
    return summarise({arm: [measure.of(run) for run in runs] for arm, runs in arms.items()})


# ---- In words


def level(row: dict[str, float]) -> str:
    """In percent."""
    return f"{100 * row['mean']:.2f} ± {100 * row['std']:.2f}"


def gain(row: dict[str, float]) -> str:
    """In percentage points."""
    if "gain" not in row:
        return "-"
    return "{:+.2f} ({:+.2f} .. {:+.2f})".format(*(100 * row[key] for key in ("gain", "gain_low", "gain_high")))


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def where_and_when(runs: list[dict]) -> str:
    machines = [run["machine"] for run in runs]
    dates = sorted(machine["date"] for machine in machines)
    return (
        f"{_distinct(machine['processor'] for machine in machines)}, one thread a run; "
        f"{_distinct(f'{name} {version}' for machine in machines for name, version in machine['versions'].items())}; "
        f"commit {_distinct(machine['commit'] for machine in machines)}, "
        + (dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}")
        + "."
    )


def overview(runs: list[dict]) -> str:
    """The README's table: a row an arm, and the same columns for each number of training images."""
    side = runs[0]["occluder_sides"][1]
    others = {
        "calibration error": CALIBRATION,
        f"accuracy behind a {side} x {side} box": _under_box("occluded_at_centre", 1, side),
    }
    header, columns = ["training with"], []
    for size, arms in by_size_and_arm(runs).items():
        accuracy = summaries(arms, ACCURACY)
        header += [f"{size:,} images: accuracy", "gain over no mixing (95 % interval)", *others]
        columns += [
            {arm: level(row) for arm, row in accuracy.items()},
            {arm: gain(row) for arm, row in accuracy.items()},
            *({arm: level(row) for arm, row in summaries(arms, measure).items()} for measure in others.values()),
        ]
    rows = [(arm, *(column[arm] for column in columns)) for arm in ARMS]
    return f"In % and points, means ± standard deviations; {where_and_when(runs)}\n\n" + table(header, rows)


def everything(runs: list[dict]) -> str:
    """All measures, as a page."""
    first = runs[0]
    seeds = len({run["seed"] for run in runs})
    grouped = by_size_and_arm(runs)
    header = ["training with"]
    for size in grouped:
        header += [f"{size:,} training images, %", "gain over no mixing, points (95 % interval)"]
    parts = [
        f"# Does it regularise? {first['data']}",
        where_and_when(runs),
        f"Mean ± standard deviation over {seeds} seeds, on {sum(first['reliability']['images']):,} "
        f"{first['tested_on']} images. Gains are compared seed by seed. The method is in "
        "[README.md](../README.md#does-it-regularise).",
    ]
    for measure in all_measures(first):
        columns = [summaries(arms, measure) for arms in grouped.values()]
        rows = [
            (arm, *(cell for column in columns for cell in (level(column[arm]), gain(column[arm])))) for arm in ARMS
        ]
        parts += [f"## {measure.title.capitalize()}", table(header, rows)]
    return "\n\n".join(parts) + "\n"


# ---- As pictures


def _plain(axes: Axes) -> None:
    axes.grid(True, color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, length=0)


def _titles(figure: Figure, title: str, runs: list[dict]) -> None:
    height = figure.get_figheight()
    seeds = len({run["seed"] for run in runs})
    subtitle = (
        f"A small ResNet on {runs[0]['data']}, tested on {sum(runs[0]['reliability']['images']):,} "
        f"{runs[0]['tested_on']} images; means over {seeds} seeds"
    )
    figure.text(0.015, 1 - 0.25 / height, title, fontsize=13, color=INK, weight="bold", va="center")
    figure.text(0.015, 1 - 0.52 / height, subtitle, fontsize=9, color=FAINT, va="center")


def _dots(axes: Axes, arms: dict[str, list[dict]], measure: Measure) -> None:
    """A row an arm: faint dots for its seeds, a diamond for their mean; and a line at the mean without mixing."""
    for row, (arm, runs) in enumerate(arms.items()):
        values = [100 * measure.of(run) for run in runs]
        axes.scatter(values, [row] * len(values), s=22, color=ARMS[arm].colour, alpha=0.35, linewidths=0)
        axes.plot(np.mean(values), row, "D", color=ARMS[arm].colour, markersize=6, markeredgecolor="white")
    baseline = float(np.mean([100 * measure.of(run) for run in arms[NO_MIXING]]))
    axes.axvline(baseline, color=FAINT, linewidth=1, linestyle=(0, (5, 3)))
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_yticks(range(len(arms)), [])
    axes.grid(False, axis="y")


def _name_rows(axes: Axes, arms: Iterable[str]) -> None:
    for row, arm in enumerate(arms):
        axes.text(
            -0.06,
            row,
            arm,
            transform=axes.get_yaxis_transform(),
            color=ARMS[arm].colour,
            fontsize=9,
            ha="right",
            va="center",
        )


def _occlusion_lines(axes: Axes, arms: dict[str, list[dict]]) -> None:
    for arm, runs in arms.items():
        accuracies = [[run["accuracy"], *run["occluded_at_centre"]] for run in runs]
        axes.plot(
            [0, *runs[0]["occluder_sides"]],
            100 * np.mean(accuracies, 0),
            "o-",
            markersize=3,
            linewidth=1.5,
            color=ARMS[arm].colour,
        )


def draw_overview(runs: list[dict], path: Path) -> None:
    """Accuracy, calibration and occlusion side by side; a row for each number of training images."""
    grouped = by_size_and_arm(runs)
    row_height = 0.85 + 0.27 * len(ARMS)
    height = 0.75 + row_height * len(grouped)
    figure = Figure(figsize=(9.0, height), dpi=DPI, facecolor="white")
    _titles(figure, "Does mixing regularise?", runs)
    for index, (size, arms) in enumerate(grouped.items()):
        top = height - 0.75 - row_height * index
        bottom, tall = (top - row_height + 0.5) / height, (row_height - 0.85) / height
        accuracy, calibration, occlusion = (
            figure.add_axes((left, bottom, width, tall))
            for left, width in ((0.275, 0.205), (0.505, 0.205), (0.765, 0.22))
        )
        for axes in (accuracy, calibration, occlusion):
            _plain(axes)
        figure.text(
            0.015,
            (top - 0.17) / height,
            f"{size:,} training images",
            fontsize=10,
            color=INK,
            weight="bold",
            va="center",
        )
        _dots(accuracy, arms, ACCURACY)
        _dots(calibration, arms, CALIBRATION)
        _name_rows(accuracy, arms)
        _occlusion_lines(occlusion, arms)
        calibration.set_xlim(left=0)
        for axes, label in (
            (accuracy, "accuracy, %"),
            (calibration, "expected calibration error, %"),
            (occlusion, "side of a grey box at the centre, pixels"),
        ):
            axes.set_xlabel(label, color=INK, fontsize=8)
        occlusion.set_title("accuracy, %", color=INK, fontsize=8, loc="left")
    figure.savefig(path)


def draw_reliability(runs: list[dict], path: Path) -> None:
    """The reliability diagrams: accuracy over confidence, in bins of all seeds together with 50 images or more."""
    grouped = by_size_and_arm(runs)
    figure = Figure(figsize=(9.0, 4.9), dpi=DPI, facecolor="white")
    _titles(figure, "Is it as sure as it is right?", runs)
    width = 0.64 / len(grouped)
    for index, (size, arms) in enumerate(grouped.items()):
        axes = figure.add_axes((0.065 + index * (width + 0.04), 0.11, width, 0.68))
        _plain(axes)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (5, 3)))
        for arm, of_arm in arms.items():
            images, confidence, correct = (
                np.sum([run["reliability"][key] for run in of_arm], 0) for key in ("images", "confidence", "correct")
            )
            full = images >= 50
            axes.plot(
                confidence[full] / images[full],
                correct[full] / images[full],
                "o-",
                markersize=3,
                linewidth=1.5,
                color=ARMS[arm].colour,
            )
        axes.set_title(f"{size:,} training images", color=INK, fontsize=9, loc="left")
        axes.set_xlabel("confidence", color=INK, fontsize=8)
        if index == 0:
            axes.set_ylabel("accuracy", color=INK, fontsize=8)
    for row, arm in enumerate(ARMS):
        figure.text(0.755, 0.765 - 0.05 * row, arm, color=ARMS[arm].colour, fontsize=9)
    figure.savefig(path)
