"""What `foundry data stats | merge-stats | show` draw.

Every command is a function that returns plain data (for --json) and one that renders it with rich;
plots need matplotlib, which is imported only to draw.
"""

import io
import os
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from foundry_core.data.inspection.tables import field_table
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.statistics.summary import QUANTILES, FieldStatistics, percentile_key
from foundry_core.errors import FoundryError

_ROUNDED = 1e-14
_BARS = " ▁▂▃▄▅▆▇█"
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:14px system-ui;margin:2em}} td,th{{padding:.15em .6em;text-align:right}}
td:first-child,th:first-child{{text-align:left}} tr:nth-child(odd){{background:#f3f3f3}}
img{{display:block;max-width:100%;margin:2em 0}}</style>
<h1>{title}</h1><p>{about}</p>
{table}
{plots}
</html>
"""


def describe(statistics: DatasetStatistics, fields: Sequence[str] = ()) -> dict[str, Any]:
    """The numbers of some fields, or of all. FoundryError for a field that there is not.

    {weighting, windows (None for statistics as others published them), fields: {name: {count,
    steps, past, dims}}}. dims: of each dimension mean, std, min, max, the percentiles as stats.json
    names them, discrete, and histogram: shares in 24 equal bins between 1st and 99th percentile.
    """
    names = [name for name in statistics.fields if not fields or name in fields]
    for field in fields:
        statistics[field]  # names the nearest on a miss
    return {
        "weighting": statistics.weighting if statistics.leaves else None,
        "windows": statistics.windows if statistics.leaves else None,
        "fields": {name: _describe_field(statistics[name]) for name in names},
    }


def render_statistics(description: dict[str, Any]) -> RenderableType:
    """A table per field, a row per dimension."""
    heads = ("dim", "mean", "std", "min", "1 %", "50 %", "99 %", "max", "")
    parts: list[RenderableType] = [
        Text("Statistics over valid steps; bars: from 1 % to 99 %", style="italic")
    ]
    for name, field in description["fields"].items():
        rows, least = [], _least(field)
        for number, dim in enumerate(field["dims"]):
            numbers = [dim[k] for k in ("mean", "std", "min")]
            numbers += [dim[percentile_key(q)] for q in (0.01, 0.5, 0.99)] + [dim["max"]]
            which = f"{number}{' d' if dim['discrete'] else ''}"
            values = [_number(value, least) for value in numbers]
            rows.append((which, *values, _spark(dim["histogram"])))
        parts += field_table(name, heads, rows, about=f"{field['count']} values")
    weighting = description["weighting"] or "as published"
    return Group(*parts, Text(f"weighting: {weighting}; d = few-valued, quantiles are observed"))


def _least(field: dict[str, Any]) -> float:
    """What a field's numbers are at least: less is what rounding left of 0."""
    return _ROUNDED * max(abs(dim[k]) for dim in field["dims"] for k in ("min", "max"))


def _number(value: float, least: float) -> str:
    """Neither -0 nor -1.7e-18 beside ones."""
    return "0" if abs(value) <= least else f"{value:.4g}"


def plot_statistics(
    statistics: DatasetStatistics, folder: str | os.PathLike, fields: Sequence[str] = ()
) -> list[Path]:
    """One PNG per field: histogram of each dimension, and quantiles over the window's steps."""
    written = []
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name in fields or sorted(statistics.fields):
        path = target / f"{name.replace('::', '-').replace('/', '-')}.png"
        path.write_bytes(_plot(name, statistics[name]))
        written.append(path)
    return written


def statistics_page(statistics: DatasetStatistics, title: str, fields: Sequence[str] = ()) -> str:
    """One HTML page without links to anything: the table, then each field's plot."""
    names = list(fields) or sorted(statistics.fields)
    description = describe(statistics, names)
    columns = ("mean", "std", "min", *(percentile_key(q) for q in QUANTILES), "max")
    rows = [
        f"<tr><td>{escape(name)}</td><td>{number}</td>"
        + "".join(f"<td>{_number(dim[column], _least(field))}</td>" for column in columns)
        + "</tr>"
        for name, field in description["fields"].items()
        for number, dim in enumerate(field["dims"])
    ]
    heads = "".join(f"<th>{c.replace('percentile_', '')}</th>" for c in ("field", "dim", *columns))
    plots = [
        f'<img alt="{escape(name)}" src="data:image/png;base64,{b64encode(image).decode()}">'
        for name in names
        for image in [_plot(name, statistics[name])]
    ]
    weighting = description["weighting"] or "as published"
    return _PAGE.format(
        title=escape(f"Statistics of {title}"),
        about=f"{description['windows'] or 'unknown'} windows, weighting: {weighting}",
        table=f"<table><tr>{heads}</tr>{''.join(rows)}</table>",
        plots="\n".join(plots),
    )


def _plot(name: str, field: FieldStatistics) -> bytes:
    """PNG: a histogram per dimension above its quantiles per step; the same bytes every time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * field.dims, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, field.dims, squeeze=False)
    steps = np.arange(field.steps) - field.past
    for dim in range(field.dims):
        shares, edges = _histogram(field, dim, bins=60)
        axes[0, dim].stairs(shares, edges, fill=True)
        axes[0, dim].set_title(f"dim {dim}")
        for low, high, alpha in ((0.01, 0.99, 0.2), (0.05, 0.95, 0.4)):
            axes[1, dim].fill_between(
                steps,
                field.quantiles_per_timestep[low][:, dim],
                field.quantiles_per_timestep[high][:, dim],
                alpha=alpha,
                color="tab:blue",
                label=f"{round(low * 100)}-{round(high * 100)} %",
            )
        axes[1, dim].plot(steps, field.quantiles_per_timestep[0.5][:, dim], color="black")
        axes[1, dim].set_xlabel("steps from the anchor")
    axes[0, 0].set_ylabel("share")
    axes[1, 0].legend(loc="best", fontsize="small")
    figure.suptitle(name)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()


def _describe_field(field: FieldStatistics) -> dict[str, Any]:
    dims = []
    for dim in range(field.dims):
        entry = {name: float(getattr(field, name)[dim]) for name in ("mean", "std", "min", "max")}
        entry |= {percentile_key(q): float(field.quantiles[q][dim]) for q in QUANTILES}
        shares = _histogram(field, dim, bins=24)[0].tolist() if field.tdigest else []
        dims.append(entry | {"discrete": bool(field.discrete[dim]), "histogram": shares})
    return {
        "count": int(field.count.sum()),
        "steps": field.steps,
        "past": field.past,
        "dims": dims,
    }


def _histogram(field: FieldStatistics, dim: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares per bin and edges, from the digest: the cumulated mass of its centroids, interpolated
    for continuous signals and in steps for few-valued ones."""
    if not field.tdigest:
        raise FoundryError("these statistics hold no digest to draw", "recompute them")
    centroids = field.tdigest[dim]["centroids"]
    means = np.array([c["m"] for c in centroids])
    counts = np.array([c["c"] for c in centroids])
    low, high = (float(field.quantiles[q][dim]) for q in (0.01, 0.99))
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    if field.discrete[dim] or len(means) == 1:
        shares = np.histogram(means, edges, weights=counts)[0] / counts.sum()
    else:
        middle = (np.cumsum(counts) - counts / 2) / counts.sum()
        where = np.concatenate([[field.min[dim]], means, [field.max[dim]]])
        shares = np.diff(np.interp(edges, where, np.concatenate([[0.0], middle, [1.0]])))
    return shares, edges


def _spark(shares: Sequence[float]) -> str:
    """A bar for two bins: what has 24 of them leaves room for the numbers in 80 columns."""
    pairs = [sum(shares[i : i + 2]) for i in range(0, len(shares), 2)]
    top = max(pairs, default=0) or 1
    return "".join(_BARS[round(share / top * (len(_BARS) - 1))] for share in pairs)
