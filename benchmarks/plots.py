"""The results as pictures: light background, labels on the lines, ceilings drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from .implementations import (
    BOX_COPY,
    COMPILED_SAMPLE,
    COPY,
    KORNIA,
    OURS,
    OURS_IN_PLACE,
    OURS_OUT,
    SNIPPET_MEAN_BOX,
    TIMM_BATCH,
    TIMM_ELEM,
    TORCHVISION,
)
from .tables import CEILING_OF, case_name, duration, fraction_of_ceiling

INK, FAINT, GRID = "#24292f", "#8c959f", "#eaeef2"
LINES = {  # name: colour, width, dashes
    OURS_IN_PLACE: ("#c2410c", 2.6, "-"),
    OURS: ("#f08c00", 2.6, "-"),
    SNIPPET_MEAN_BOX: ("#1c7ed6", 1.5, "-"),
    TIMM_BATCH: ("#7048e8", 1.5, "-"),
    TIMM_ELEM: ("#ae3ec9", 1.5, "-"),
    TORCHVISION: ("#2b8a3e", 1.5, "-"),
    COMPILED_SAMPLE: ("#0c8599", 1.5, "-"),
    KORNIA: ("#868e96", 1.5, "-"),
    COPY: (FAINT, 1.3, (0, (5, 3))),
    BOX_COPY: (FAINT, 1.3, (0, (1, 2))),
}
LABEL_POINTS = 11.0  # between the baselines of two labels
DPI = 130


def _figure(title: str, subtitle: str, height: float = 5.4) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.0, height), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.085, 0.11, 0.64, 0.75))
    figure.text(0.015, 1 - 0.25 / height, title, fontsize=13, color=INK, weight="bold", va="center")
    figure.text(0.015, 1 - 0.52 / height, subtitle, fontsize=9, color=FAINT, va="center")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, which="both", length=0)
    axes.set_axisbelow(True)
    return figure, axes


def _spread_apart(heights: list[float], gap: float) -> list[float]:
    """The heights of labels, in order, moved as little as keeps them a gap apart."""
    placed = np.array(heights, dtype=float)
    for _ in range(200):
        order = np.argsort(placed, kind="stable")
        close = [(a, b) for a, b in zip(order, order[1:], strict=False) if placed[b] - placed[a] < gap - 1e-6]
        if not close:
            break
        for a, b in close:
            push = (gap - (placed[b] - placed[a])) / 2
            placed[a], placed[b] = placed[a] - push, placed[b] + push
    return placed.tolist()


def _label_lines(figure: Figure, axes: Axes, ends: dict[str, tuple[float, float]]) -> None:
    """Writes each line's name beside its last point, in its colour."""
    scale = figure.dpi / 72
    points = {name: axes.transData.transform(end) for name, end in ends.items()}
    right = axes.transAxes.transform((1.0, 0.0))[0] + 10 * scale
    heights = _spread_apart([point[1] for point in points.values()], LABEL_POINTS * scale)
    for (name, (x, y)), height in zip(points.items(), heights, strict=True):
        colour, width, _ = LINES[name]
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(right + 8 * scale, height),
            xycoords="figure pixels",
            textcoords="figure pixels",
            fontsize=9,
            color=colour if colour != FAINT else INK,
            weight="bold" if width > 2 else "normal",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3},
        )


def by_our_clock(cell: dict, name: str) -> bool:
    """Whether one was timed by the clock that ours were timed by: times of different clocks are not compared."""
    timings = cell["timings"]
    return timings[name]["method"] in {timings[mode]["method"] for mode in CEILING_OF if mode in timings}


def _draw_lines(figure: Figure, axes: Axes, cells: list[dict], x_of, y_of) -> None:
    """A log-log line for each of LINES that was measured, by our clock, on two cells or more, in a band of its
    quartiles."""
    ends = {}
    for name, (colour, width, dashes) in LINES.items():
        there = sorted((cell for cell in cells if name in cell["timings"] and by_our_clock(cell, name)), key=x_of)
        if len(there) < 2:
            continue
        x = [x_of(cell) for cell in there]
        medians, first, third = (
            [y_of(cell, cell["timings"][name][key]) for cell in there] for key in ("median_s", "q1_s", "q3_s")
        )
        axes.fill_between(x, first, third, color=colour, alpha=0.12, linewidth=0)
        marker = "o" if dashes == "-" else ""
        axes.plot(x, medians, color=colour, linewidth=width, linestyle=dashes, marker=marker, markersize=4)
        ends[name] = (x[-1], medians[-1])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True, which="major", color=GRID, linewidth=0.9)
    axes.autoscale_view()
    _label_lines(figure, axes, ends)


def _short(value: float, _position: int = 0) -> str:
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:g}"


def _method(cells: list[dict]) -> str:
    methods = {
        timing["method"] for cell in cells for name, timing in cell["timings"].items() if by_our_clock(cell, name)
    }
    return ", ".join(sorted(methods))


def throughput(results: dict, path: Path) -> None:
    """Images a second over batch size."""
    cells = [cell for cell in results["cells"] if "batch" in cell["lines"]]
    case = results["centre"]
    figure, axes = _figure(
        "Images per second over batch size",
        f"{results['machine']['processor']}; 3 x {case['size']} x {case['size']}, {case['dtype']}, {case['layout']}, "
        f"{case['classes']} classes; medians with quartiles, {_method(cells)}",
    )

    def batch_of(cell: dict) -> int:
        return cell["case"]["batch"]

    _draw_lines(figure, axes, cells, batch_of, lambda cell, seconds: batch_of(cell) / seconds)
    batches = sorted(map(batch_of, cells))
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("images in the batch", color=INK, fontsize=9)
    figure.savefig(path)


def time_over_bytes(results: dict, path: Path) -> None:
    """Time of a call over the bytes of the batch, from the line of image sizes."""
    cells = [cell for cell in results["cells"] if "size" in cell["lines"]]
    case, sizes = results["centre"], [cell["case"]["size"] for cell in cells]
    figure, axes = _figure(
        "How the cost grows: time of a call over the bytes of the batch",
        f"{results['machine']['processor']}; {case['batch']} images of {min(sizes)} to {max(sizes)} pixels, "
        f"{case['dtype']}, {case['layout']}; medians with quartiles, {_method(cells)}",
    )
    _draw_lines(figure, axes, cells, lambda cell: cell["case"]["image_bytes"], lambda cell, seconds: seconds)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value) + "B"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _time(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bytes of the images", color=INK, fontsize=9)
    figure.savefig(path)


def _time(seconds: float) -> str:
    value, unit = duration(seconds).split()
    return f"{float(value):g} {unit}"


def share_of_ceiling(results: dict, path: Path) -> None:
    """How near each of our modes comes to a plain copy of the bytes it has to move, by dtype and layout."""
    cells = [cell for cell in results["cells"] if any(line.startswith("dtype") for line in cell["lines"])]
    cells.sort(key=lambda cell: (cell["case"]["layout"], cell["case"]["dtype"]), reverse=True)
    height = 1.6 + 0.45 * len(cells)
    case = {**results["centre"], "dtype": "each dtype", "layout": "each layout"}
    figure, axes = _figure(
        "Fraction of the ceiling: 1 is a plain copy of the bytes that have to move",
        f"{results['machine']['processor']}; {case_name(case)}; {_method(cells)}",
        height=height,
    )
    marks = {OURS: ("#f08c00", "o"), OURS_OUT: ("#1c7ed6", "D"), OURS_IN_PLACE: ("#c2410c", "s")}
    for row, cell in enumerate(cells):
        shares = {
            mode: share for mode in CEILING_OF if (share := fraction_of_ceiling(cell["timings"], mode)) is not None
        }
        if not shares:
            continue
        axes.plot([min(shares.values()), max(shares.values())], [row, row], color=GRID, linewidth=5, zorder=1)
        for mode, share in shares.items():
            colour, shape = marks[mode]
            axes.scatter(share, row, s=46, color=colour, marker=shape, zorder=3, edgecolors="white", linewidths=0.8)
    axes.set_yticks(range(len(cells)), [f"{cell['case']['dtype']}\n{cell['case']['layout']}" for cell in cells])
    axes.axvline(1.0, color=FAINT, linewidth=1.2, linestyle=(0, (5, 3)))
    axes.set_xlim(0, max(1.15, axes.get_xlim()[1]))
    axes.set_ylim(-0.6, len(cells) - 0.4)
    axes.grid(True, axis="x", color=GRID, linewidth=0.9)
    axes.spines["left"].set_visible(False)
    axes.set_position((0.115, 0.55 / height, 0.61, 1 - 1.3 / height))
    axes.set_xlabel("time of the copy / our time", color=INK, fontsize=9)
    for y, (mode, ceiling) in zip((0.8, 0.55, 0.3), CEILING_OF.items(), strict=True):
        colour, shape = marks[mode]
        axes.plot(1.07, y, shape, color=colour, transform=axes.transAxes, clip_on=False)
        axes.text(1.1, y, f"{mode}\n", transform=axes.transAxes, color=colour, fontsize=9, weight="bold", va="center")
        axes.text(1.1, y, f"\nof {ceiling}", transform=axes.transAxes, color=INK, fontsize=9, va="center")
    figure.savefig(path)


def draw_all(results: dict, folder: Path) -> None:
    """Every picture, named after the device."""
    for draw in (throughput, time_over_bytes, share_of_ceiling):
        draw(results, folder / f"{results['device']}_{draw.__name__}.png")
