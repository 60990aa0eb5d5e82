"""Pictures as inline SVG: small, sharp, the same bytes for the same numbers.

Colours come from CSS variables with fallbacks, so that a page can follow light and dark schemes.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_COLOURS = ("#2b6cb0", "#c05621", "#718096", "#2f855a", "#6b46c1", "#b83280")
_TEXT = 'font-family="system-ui, sans-serif" font-size="12" fill="var(--ink, #1a202c)"'
_LINE = 'stroke="var(--line, #cbd5e0)" stroke-width="1"'


def success_bars(comparison: Mapping[str, Any]) -> str:
    """Success per task and label, with 95 % intervals as whiskers."""
    labels, tasks = comparison["labels"], [*comparison["tasks"], "all tasks"]
    cells = {**comparison["cells"], "all tasks": comparison["pooled"]}
    bar, gap, left, top, height = 26, 30, 46, 34, 200
    group = bar * len(labels) + gap
    entry = 40 + 8 * max(len(label) for label in labels)
    width = left + max(group * len(tasks), entry * len(labels)) + 10
    out = [_open(width, top + height + 44, "Success per task with 95 % intervals")]
    for percent in range(0, 101, 25):
        y = top + height * (1 - percent / 100)
        out.append(f'<line x1="{left}" x2="{width - 10}" y1="{y}" y2="{y}" {_LINE}/>')
        out.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end" {_TEXT}>{percent} %</text>')
    for number, label in enumerate(labels):
        x = left + entry * number
        out.append(f'<rect x="{x}" y="8" width="12" height="12" fill="{_colour(number)}"/>')
        out.append(f'<text x="{x + 18}" y="18" {_TEXT}>{escape(label)}</text>')
    for at, task in enumerate(tasks):
        start = left + at * group + gap / 2
        for number, label in enumerate(labels):
            out.append(_bar(cells[task][label], start + number * bar, bar, top, height, number))
        middle = start + bar * len(labels) / 2
        name = escape(task.removesuffix("-v3"))
        out.append(
            f'<text x="{middle}" y="{top + height + 18}" text-anchor="middle" {_TEXT}>{name}</text>'
        )
    return "\n".join([*out, "</svg>"]) + "\n"


def _bar(cell: Mapping[str, Any], x: float, width: int, top: int, height: int, number: int) -> str:
    rate = cell["rate"] or 0.0
    y, middle = top + height * (1 - rate), x + width / 2
    low, high = top + height * (1 - cell["low"]), top + height * (1 - cell["high"])
    whisker = 'stroke="var(--ink, #1a202c)" stroke-width="1.5"'
    return (
        f'<rect x="{x + 2:g}" y="{y:g}" width="{width - 4}" height="{height * rate:g}" '
        f'fill="{_colour(number)}"><title>{cell["successes"]} of {cell["n"]}</title></rect>'
        f'<line x1="{middle:g}" x2="{middle:g}" y1="{low:g}" y2="{high:g}" {whisker}/>'
        f'<line x1="{middle - 4:g}" x2="{middle + 4:g}" y1="{low:g}" y2="{low:g}" {whisker}/>'
        f'<line x1="{middle - 4:g}" x2="{middle + 4:g}" y1="{high:g}" y2="{high:g}" {whisker}/>'
    )


def curves(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over steps, e.g. the losses of one training stage; points are (step, value)."""
    left, top, width, height = 58, 34, 420, 180
    points = [point for line in series.values() for point in line]
    out = [_open(left + width + 16, top + height + 36, title)]
    out.append(f'<text x="{left}" y="16" {_TEXT} font-weight="600">{escape(title)}</text>')
    if not points:
        return "\n".join([*out, "</svg>"]) + "\n"
    last = max(x for x, _ in points) or 1
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0
    for share in (0, 0.5, 1):
        y = top + height * (1 - share)
        out.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" {_LINE}/>')
        value = f"{low + share * span:.3g}"
        out.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end" {_TEXT}>{value}</text>')
    for number, (name, line) in enumerate(series.items()):
        path = " ".join(
            f"{left + width * x / last:.1f},{top + height * (1 - (y - low) / span):.1f}"
            for x, y in line
        )
        colour = _colour(number)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        x = left + width - 8
        y = top + 14 + 16 * number
        label = f'<text x="{x}" y="{y}" text-anchor="end" {_TEXT}>{escape(name)}</text>'
        out.append(label.replace("var(--ink, #1a202c)", colour))
    out.append(f'<text x="{left}" y="{top + height + 20}" {_TEXT}>0</text>')
    out.append(
        f'<text x="{left + width}" y="{top + height + 20}" text-anchor="end" {_TEXT}>'
        f"step {last:g}</text>"
    )
    return "\n".join([*out, "</svg>"]) + "\n"


def response(name: str, points: Sequence[tuple[float, float, float, float]]) -> str:
    """Success over a setting's value, with intervals; points are (value, rate, low, high). Equal
    steps between values: settings are varied by factors as often as by sums."""
    left, top, height, step = 58, 24, 180, 110
    width = step * len(points)
    out = [_open(left + width + 16, top + height + 52, f"Success over {name}")]
    for percent in range(0, 101, 25):
        y = top + height * (1 - percent / 100)
        out.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" {_LINE}/>')
        out.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end" {_TEXT}>{percent} %</text>')
    places = [left + step * (number + 0.5) for number in range(len(points))]
    line = " ".join(
        f"{x:g},{top + height * (1 - point[1]):.1f}"
        for x, point in zip(places, points, strict=True)
    )
    out.append(f'<polyline points="{line}" fill="none" stroke="{_colour(0)}" stroke-width="1.6"/>')
    for x, (value, rate, low, high) in zip(places, points, strict=True):
        y0, y1, y2 = (top + height * (1 - share) for share in (rate, low, high))
        whisker = f'stroke="{_colour(0)}" stroke-width="1.5"'
        out.append(f'<line x1="{x:g}" x2="{x:g}" y1="{y1:.1f}" y2="{y2:.1f}" {whisker}/>')
        title = f"{value:g}: {100 * rate:.1f} %"
        out.append(
            f'<circle cx="{x:g}" cy="{y0:.1f}" r="4" fill="{_colour(0)}"><title>{title}</title>'
            f'</circle><text x="{x:g}" y="{top + height + 18}" text-anchor="middle" {_TEXT}>'
            f"{value:g}</text>"
        )
    out.append(
        f'<text x="{left + width / 2:g}" y="{top + height + 40}" text-anchor="middle" {_TEXT}>'
        f"{escape(name)}</text>"
    )
    return "\n".join([*out, "</svg>"]) + "\n"


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}"><title>{escape(title)}</title>'
    )


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
