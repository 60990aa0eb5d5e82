"""Pictures as inline SVG, drawn by matplotlib: the same bytes for the same numbers.

Ink and grid lines are CSS variables with fallbacks, so that a page's pictures follow its light or
dark scheme.
"""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from foundry_core.evaluation.comparison.controls import control_columns, over_all_tasks
from foundry_core.evaluation.comparison.result import Comparison
from foundry_core.evaluation.score import Score

_COLOURS = ("#2b6cb0", "#c05621", "#718096", "#2f855a", "#6b46c1", "#b83280")
_INK, _LINE = "#1a202c", "#cbd5e0"
_SIZE = 12  # of letters
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.prop_cycle": f"cycler('color', {_COLOURS})",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": _SIZE,
    "axes.titleweight": "bold",
    "font.size": _SIZE,
    "grid.color": _LINE,
    "legend.fontsize": _SIZE,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "foundry",
    "text.color": _INK,
    "xtick.bottom": False,
    "xtick.labelcolor": _INK,
    "ytick.left": False,
    "ytick.labelcolor": _INK,
}
# What savefig would stamp: clock, version, and addresses that a page without links must not hold.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


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
        bars[name] = [*of_tasks, over_all_tasks(comparison, of_control)]
    labels, share = list(bars), 0.8 / len(bars)

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
                hatch="//" if label in controls else None,
                error_kw={"ecolor": _INK, "capsize": 4, "elinewidth": 1.5},
            )
        axes.set_xticks(range(len(tasks)), [task.removesuffix("-v3") for task in tasks])
        _percents(axes)
        columns = max(1, min(len(labels), 60 // max(map(len, labels))))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False)

    width = 60 + max(26 * len(labels) + 30, 90) * len(tasks)
    return _svg(draw, max(width, 480), 280, "Success per task with 95 % intervals")


def curves(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over steps, e.g. the losses of one training stage; points are (step, value)."""

    def draw(axes: Any) -> None:
        for number, (name, points) in enumerate(series.items()):
            axes.plot(*zip(*points, strict=True), color=f"C{number}", label=name)
        axes.set_title(title, loc="left")
        axes.set_xlabel("step")
        axes.grid(axis="y")
        if series:
            axes.legend(loc="upper right", frameon=False)

    return _svg(draw, 490, 250, title)


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
        _percents(axes)

    return _svg(draw, 75 + 110 * len(points), 255, f"Success over {name}")


def _whiskers(scores: Sequence[Score], rates: Sequence[float]) -> list[list[float]]:
    """[below, above] the bars' ends."""
    bounds = list(zip(rates, (score.interval for score in scores), strict=True))
    return [[rate - low for rate, (low, _) in bounds], [high - rate for rate, (_, high) in bounds]]


def _percents(axes: Any) -> None:
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], [f"{percent} %" for percent in range(0, 101, 25)])
    axes.set_axisbelow(True)
    axes.grid(axis="y")


def _svg(draw: Any, width: float, height: float, title: str) -> str:
    """width, height: pixels. draw: is given the axes. Importing matplotlib takes half a second."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    written = io.StringIO()
    with rc_context(_STYLE):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        figure.savefig(written, format="svg", transparent=True, metadata=_NO_METADATA)
    return _inline(written.getvalue(), title)


def _inline(document: str, title: str) -> str:
    """The <svg> element alone, as a page can hold several: no ids that two pictures share, lengths
    in pixels, the page's letters and colours."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    svg = svg.replace(_INK, f"var(--ink, {_INK})").replace(_LINE, f"var(--line, {_LINE})")
    return svg.replace(">", f' role="img"><title>{escape(title)}</title>', 1)
