"""The pictures of a comparison of many labels over many tasks, legible with 9 of the one and 19 of
the other: panels side by side, labels as rows of their own, letters behind them.
"""

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from foundry_core.evaluation.comparison.controls import controls_over
from foundry_core.evaluation.comparison.drawing import COLOURS, HATCH, INK, Picture, percents
from foundry_core.evaluation.comparison.names import folded, without_common_start
from foundry_core.evaluation.comparison.p_values import p_text
from foundry_core.evaluation.comparison.result import Comparison, Difference, TaskTable
from foundry_core.evaluation.score import Score

_ROW, _SMALL = 15, 9
_POINTS = 80  # of a density
_CONTROL = {"facecolor": "white", "edgecolor": INK, "hatch": HATCH}


def pictures(comparison: Comparison) -> dict[str, Picture]:
    """Name → picture, of all that the comparison has data for."""
    found = {"violins": violins(comparison, comparison.summaries())}
    if comparison.task_tables:
        found["violins_by_task"] = violins(comparison, comparison.task_tables)
        found["success_by_task"] = task_bars(comparison)
    if comparison.differences:
        found["forest"] = forest(comparison)
    if len(comparison.tasks) > 2:
        found["radar"] = radar(comparison)
    return found


def violins(comparison: Comparison, tables: Mapping[str, TaskTable]) -> Picture:
    """What the counts of each table leave likely of each label's rate: Beta(1 + s, 1 + f)."""

    def row(axes: Any, place: int, score: Score, style: Mapping[str, Any]) -> None:
        import numpy as np

        s, f = score.successes, score.n - score.successes
        middle, spread = (s + 1) / (score.n + 2), 0.5 / (score.n + 3) ** 0.5
        edges = max(middle - 5 * spread, 1e-6), min(middle + 5 * spread, 1 - 1e-6)
        rate = np.linspace(*edges, _POINTS)
        log = s * np.log(rate) + f * np.log1p(-rate)
        half = 0.42 * np.exp(log - log.max())
        seen = half > 1e-3
        rate, half = rate[seen], half[seen]
        axes.fill_between(rate, place - half, place + half, linewidth=0.8, **style)

    return _panels(comparison, tables, row, "Success rates: posteriors of the counts, with letters")


def task_bars(comparison: Comparison) -> Picture:
    """Success per task with exact 95 % intervals, and the task's letters."""

    def row(axes: Any, place: int, score: Score, style: Mapping[str, Any]) -> None:
        low, high = score.interval
        axes.barh(place, score.rate or 0.0, 0.72, **style)
        axes.hlines(place, low, high, color=INK, linewidth=1.3)

    title = "Success per task with exact 95 % intervals and letters"
    return _panels(comparison, comparison.task_tables, row, title)


def _panels(
    comparison: Comparison,
    tables: Mapping[str, TaskTable],
    row: Callable[[Any, int, Score, Mapping[str, Any]], None],
    title: str,
) -> Picture:
    """A panel per table, a row per label, the best of all tasks on top, then the controls,
    hatched."""
    short = without_common_start(comparison.labels)
    names = [short[label] for label in comparison.ranked()] + list(
        controls_over(comparison, comparison)
    )
    columns = min(len(tables), 4)
    lines = -(-len(tables) // columns)
    colours = _colours(comparison)

    def draw(figure: Any) -> None:
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for axes, (name, table) in zip(grid, tables.items(), strict=False):
            for place, label in enumerate(comparison.ranked()):
                score = table.overall[label].counted
                if score.n:
                    row(axes, place, score, {"color": colours[label]})
                words = comparison.mark(table, label)
                axes.text(1.03, place, words, va="center", size=_SMALL, transform=_beside(axes))
            controls = controls_over(comparison, table).values()
            for place, control in enumerate(controls, len(comparison.labels)):
                if control.counted.n:
                    row(axes, place, control.counted, _CONTROL)
            axes.set_title(folded(name, 27), loc="left", size=10)
            percents(axes.xaxis, axes.set_xlim, "")
            axes.tick_params(axis="x", labelsize=_SMALL)
            axes.set_yticks(range(len(names)), names)
            axes.tick_params(axis="y", labelsize=10)
            axes.set_ylim(len(names) - 0.4, -0.6)
        for axes in grid[len(tables) :]:
            axes.set_axis_off()

    height = lines * (_ROW * len(names) + 66)
    return Picture(title, 7 * max(map(len, names)) + 220 * columns, height, draw)


def forest(comparison: Comparison) -> Picture:
    """Every pair's difference with its interval, and what the table decides. Where all pairs were
    compared the first one named is the better one over all tasks."""
    tables, short = comparison.summaries(), without_common_start(comparison.labels)
    place = {label: at for at, label in enumerate(comparison.ranked())}
    pairs = [
        (one.variant, one.base)
        if comparison.base or place[one.variant] < place[one.base]
        else (one.base, one.variant)
        for one in comparison.differences
    ]
    pairs.sort(key=lambda pair: (place[pair[0]], place[pair[1]]))
    names = [f"{short[first]} − {short[second]}" for first, second in pairs]

    def draw(figure: Any) -> None:
        grid = figure.subplots(1, len(tables), sharey=True, squeeze=False).ravel()
        for axes, (title, table) in zip(grid, tables.items(), strict=True):
            for row, pair in enumerate(pairs):
                _difference(axes, row, table, pair)
            axes.axvline(0, color=INK, linewidth=1)
            axes.set_title(f"{title}: points", loc="left", size=10)
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}" if value else "0")
            axes.tick_params(axis="x", labelsize=_SMALL)
            axes.grid(axis="x")
            axes.set_axisbelow(True)
            axes.set_yticks(range(len(pairs)), names)
            axes.tick_params(axis="y", labelsize=_SMALL)
            axes.set_ylim(len(pairs) - 0.4, -0.6)

    width = 5.6 * max(map(len, names)) + 270 * len(tables)
    title = "Differences of success rates with 95 % intervals, and what was decided"
    return Picture(title, width, (_ROW + 1) * len(pairs) + 70, draw)


def _difference(axes: Any, row: int, table: TaskTable, pair: tuple[str, str]) -> None:
    one = table.against(pair[1], pair[0])
    sign = 1 if one else -1
    one = one or table.against(pair[0], pair[1])
    if one is None:
        return
    colour = {"better": COLOURS[0], "worse": COLOURS[0], "not separated": COLOURS[-1]}.get(
        one.decision, COLOURS[1]
    )
    if one.difference is not None and one.low is not None and one.high is not None:
        axes.hlines(row, sign * one.low, sign * one.high, color=colour, linewidth=1.6)
        filled = colour if one.separated else "white"
        axes.plot(sign * one.difference, row, "o", color=colour, markersize=4.5, mfc=filled)
    words = _words(one, sign)
    axes.text(1.02, row, words, va="center", size=_SMALL, color=INK, transform=_beside(axes))


def _words(one: Difference, sign: int) -> str:
    turned = {"better": "worse", "worse": "better"} if sign < 0 else {}
    word = turned.get(one.decision, one.decision)
    if one.p_corrected is None:
        return word
    return f"{word}, p {p_text(one.p_corrected)}"


def radar(comparison: Comparison) -> Picture:
    """A label per panel over the tasks as numbered spokes; dotted: the mean of all labels."""
    order, short = comparison.ranked(), without_common_start(comparison.labels)
    tasks = list(comparison.tasks)
    columns = min(len(order), 3)
    lines = -(-len(order) // columns)
    colours = _colours(comparison)
    rates = {
        label: [comparison.scores[task][label].rate or 0.0 for task in tasks] for label in order
    }
    mean = [fmean(of_task) for of_task in zip(*rates.values(), strict=True)]
    spokes = [f"{number}  {task}" for number, task in enumerate(tasks, 1)]
    legend = "\n".join([*spokes, "", "dotted: the mean of all"])

    def draw(figure: Any) -> None:
        import numpy as np

        angles = np.linspace(0, 2 * np.pi, len(tasks), endpoint=False)
        around = np.append(angles, angles[0])
        charts, side = figure.subfigures(1, 2, width_ratios=[columns * 215, 330])
        grid = charts.subplots(
            lines, columns, squeeze=False, subplot_kw={"projection": "polar"}
        ).ravel()
        for axes, label in zip(grid, order, strict=False):
            axes.plot(around, [*mean, mean[0]], color=INK, linewidth=1, linestyle=":")
            own = [*rates[label], rates[label][0]]
            axes.plot(around, own, color=colours[label])
            axes.fill(around, own, color=colours[label], alpha=0.25)
            axes.set_theta_zero_location("N")
            axes.set_theta_direction(-1)
            axes.set_xticks(angles, [str(number) for number in range(1, len(tasks) + 1)])
            axes.set_ylim(0, 1)
            axes.set_yticks([0.25, 0.5, 0.75, 1], ["", "50 %", "", "100 %"])
            axes.tick_params(labelsize=7)
            axes.set_title(short[label], size=10, color=INK)
        for axes in grid[len(order) :]:
            axes.set_axis_off()
        side.text(0.02, 0.97, legend, va="top", size=10, linespacing=1.5)

    width, height = columns * 215 + 330, max(lines * 235, 17 * len(tasks) + 60)
    return Picture("Success over the tasks", width, height, draw)


def _colours(comparison: Comparison) -> dict[str, str]:
    return {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(comparison.labels)}


def _beside(axes: Any) -> Any:
    """x as a share of the panel's width, y in its rows."""
    return axes.get_yaxis_transform()
