"""Small pictures as inline SVG: bars per task, lines over steps, success over a setting."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from foundry_core.evaluation.comparison.controls import control_columns, over
from foundry_core.evaluation.comparison.drawing import HATCH, INK, Picture, percents
from foundry_core.evaluation.comparison.names import folded, without_common_start
from foundry_core.evaluation.comparison.result import Comparison
from foundry_core.evaluation.score import Score

_LINE = 18  # pixels, of a legend
_LETTER = 7  # pixels, of a name below the bars


def success_bars(comparison: Comparison) -> str:
    """Success per task and label, with 95 % intervals as whiskers; controls are hatched."""
    tasks = [*comparison.tasks, "all tasks"]
    bars = {
        label: [comparison.scores[task][label] for task in comparison.tasks]
        + [comparison.overall[label].counted]
        for label in comparison.labels
    }
    controls = control_columns(comparison)
    for name, of_control in controls.items():
        of_tasks = [of_control.get(task, Score()) for task in comparison.tasks]
        bars[name] = [*of_tasks, over(of_control, comparison.tasks).counted]
    labels, share = list(bars), 0.8 / len(bars)
    short = without_common_start(comparison.tasks)
    room = max(26 * len(labels) + 30, 90)
    names = [folded(short.get(task, task), room // _LETTER) for task in tasks]

    def draw(axes: Any) -> None:
        for number, label in enumerate(labels):
            places = [at + share * (number - (len(labels) - 1) / 2) for at in range(len(tasks))]
            of_label = bars[label]
            rates = [score.rate or 0.0 for score in of_label]
            axes.bar(
                places,
                rates,
                0.85 * share,
                yerr=_whiskers(of_label, rates),
                color=f"C{number}",
                label=label,
                hatch=HATCH if label in controls else None,
                error_kw={"ecolor": INK, "capsize": 4, "elinewidth": 1.5},
            )
        axes.set_xticks(range(len(tasks)), names)
        percents(axes.yaxis, axes.set_ylim)
        columns = max(1, min(len(labels), 60 // max(map(len, labels))))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False)

    width = 60 + room * len(tasks)
    height = 280 + _LINE * max(name.count("\n") for name in names)
    return _svg(draw, max(width, 480), height, "Success per task with 95 % intervals")


def curves(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over steps, e.g. the losses of one training stage; points are (step, value)."""

    def draw(axes: Any) -> None:
        for number, (name, points) in enumerate(series.items()):
            marker = "o" if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), color=f"C{number}", label=name, marker=marker)
        axes.set_xlabel("step")
        axes.grid(axis="y")
        _entitle(axes, title, series)

    return _svg(draw, 490, 250 + _LINE * _legend_lines(series), title)


def banded_curves(
    title: str, by_variant: Mapping[str, Sequence[Sequence[tuple[float, float]]]]
) -> str:
    """A line per variant over steps, the mean of its seeds' curves, each (step, value), with their
    range as a band. Seeds are read at the steps of the first."""

    def draw(axes: Any) -> None:
        from numpy import array, interp

        for number, (name, seeds) in enumerate(by_variant.items()):
            steps = [step for step, _ in seeds[0]]
            columns = [tuple(zip(*one, strict=True)) for one in seeds]
            values = array([interp(steps, at, value) for at, value in columns])
            colour = f"C{number}"
            if len(seeds) > 1:
                low, high = values.min(axis=0), values.max(axis=0)
                axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
            marker = "o" if len(steps) == 1 else None
            axes.plot(steps, values.mean(axis=0), color=colour, label=name, marker=marker)
        axes.set_xlabel("step")
        axes.grid(axis="y")
        _entitle(axes, title, by_variant)

    return _svg(draw, 490, 250 + _LINE * _legend_lines(by_variant), title)


def measure_panels(
    measures: Mapping[str, Sequence[tuple[str, float, float, float]]], variants: Sequence[str]
) -> str:
    """A panel per measure, a row per variant in the order given: its mean with an interval. Points
    are (variant, mean, low, high)."""
    columns = min(4, len(measures))
    lines = -(-len(measures) // columns)

    def draw(figure: Any) -> None:
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for axes, (title, points) in zip(grid, measures.items(), strict=False):
            for name, mean, low, high in points:
                place, colour = variants.index(name), f"C{variants.index(name)}"
                axes.hlines(place, low, high, color=colour, linewidth=2)
                axes.plot([mean], [place], "o", color=colour)
            axes.set_title(title, loc="left", size=10)
            axes.set_yticks(range(len(variants)), variants)
            axes.set_ylim(len(variants) - 0.5, -0.5)
            axes.tick_params(labelsize=9)
            axes.locator_params(axis="x", nbins=4)
            axes.grid(axis="x")
        for axes in grid[len(measures) :]:
            axes.set_axis_off()

    width = 6 * max(map(len, variants)) + 205 * columns
    title = "What every stage measured, by variant"
    return Picture(title, width, lines * (64 + 22 * len(variants)), draw).svg()


def response(name: str, points: Sequence[tuple[float, float, float, float]]) -> str:
    """Success over a setting's value, with intervals; points are (value, rate, low, high). Equal
    steps between values: settings are varied by factors as often as by sums."""

    def draw(axes: Any) -> None:
        values, rates, lows, highs = zip(*points, strict=True)
        places = range(len(points))
        axes.plot(places, rates, color="C0", marker="o")
        axes.vlines(places, lows, highs, color="C0", linewidth=1.5)
        axes.set_xticks(places, [f"{value:g}" for value in values])
        axes.set_xlim(-0.5, len(points) - 0.5)
        axes.set_xlabel(name)
        percents(axes.yaxis, axes.set_ylim)

    return _svg(draw, 75 + 110 * len(points), 255, f"Success over {name}")


def _entitle(axes: Any, title: str, names: Collection[str]) -> None:
    """The title, and between it and the lines their legend, which covers none of them so."""
    axes.set_title(title, loc="left", pad=6 + _LINE * _legend_lines(names))
    if names:
        columns = _legend_columns(names)
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.1}
        axes.legend(**place, ncols=columns, frameon=False, labelspacing=0.2)


def _legend_columns(names: Collection[str]) -> int:
    return max(1, min(len(names), 60 // (4 + max(map(len, names)))))


def _legend_lines(names: Collection[str]) -> int:
    return -(-len(names) // _legend_columns(names)) if names else 0


def _whiskers(scores: Sequence[Score], rates: Sequence[float]) -> list[list[float]]:
    """[below, above] the bars' ends."""
    bounds = list(zip(rates, (score.interval for score in scores), strict=True))
    return [[rate - low for rate, (low, _) in bounds], [high - rate for rate, (_, high) in bounds]]


def _svg(draw: Any, width: float, height: float, title: str) -> str:
    """draw: is given the axes."""
    return Picture(title, width, height, lambda figure: draw(figure.subplots())).svg()
