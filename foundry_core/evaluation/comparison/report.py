"""The files of a comparison, and report.html: one self-contained page about a run, readable without
scripts or a network.

The page knows nothing of stores or databases: a caller gathers ReportData.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from foundry_core.evaluation.comparison.effects import effect_grids
from foundry_core.evaluation.comparison.grids import Grid, crash_grids, summary_grids, task_grids
from foundry_core.evaluation.comparison.pictures import forest, task_bars
from foundry_core.evaluation.comparison.plots import curves, success_bars
from foundry_core.evaluation.comparison.result import FILE, Comparison
from foundry_core.evaluation.comparison.sentences import ONE_TABLE, verdict, verdict_sentences
from foundry_core.evaluation.comparison.tables import FAMILIES, as_csv, markdown, rows
from foundry_core.evaluation.comparison.upstream import quality_grids
from foundry_core.files import write_atomic, write_json

Curves = Mapping[str, Sequence[tuple[float, float]]]
_BARS = 40  # in one picture
_COLUMNS = 4  # of labels in one table
_EXAMS = 6  # whose every measure is shown
_PAGE = 96  # columns of text that a page has room for
THROUGHPUT_COLUMNS = ("training", "samples/s", "tokens/s", "MFU %", "data wait %", "memory GiB")
STAGE_COLUMNS = ("stage", "kind", "key", "what happened", "why", "seconds")


def write_comparison(out: Path, comparison: Comparison) -> dict[str, Any]:
    """comparison.json, table.md, table.csv, verdict.txt and success.svg; returns the stage's
    metrics: success_<label> (every task weighing the same), n_<label>, p_<label> (corrected, where
    a label was tested against the base), and of several seeds seed_deviation."""
    write_json(out / FILE, comparison.to_json())
    (out / "table.md").write_text(markdown(comparison), encoding="utf-8")
    (out / "table.csv").write_text(as_csv(comparison), encoding="utf-8")
    (out / "verdict.txt").write_text(verdict(comparison) + "\n", encoding="utf-8")
    (out / "success.svg").write_text(_bars(comparison), encoding="utf-8")
    metrics: dict[str, Any] = {}
    for label, overall in comparison.overall.items():
        metrics |= {f"success_{label}": overall.rate, f"n_{label}": overall.counted.n}
    for one in comparison.differences:
        if one.base == comparison.base:
            metrics[f"p_{one.variant}"] = one.p_corrected
    if comparison.deviation is not None:
        metrics["seed_deviation"] = comparison.deviation[0]
    return metrics


@dataclass(frozen=True, kw_only=True)
class Filmstrip:
    """Pictures of a recorded episode. label: of the evaluation. png: the file's bytes."""

    label: str
    caption: str
    png: bytes


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """stages: a row of STAGE_COLUMNS for each. losses: stage → series → (step, value). throughput:
    a row of THROUGHPUT_COLUMNS for each training. lineage_svg: an inline <svg>. sections: (title,
    HTML) of more that is shown before the successes; closing: of more before the provenance.
    episodes: the page with the videos, "" where there is none. unequal: the settings in which the
    compared evaluations asked for different scenarios."""

    title: str
    run_id: str
    comparison: Comparison | None
    stages: Sequence[Sequence[str]]
    losses: Mapping[str, Curves]
    throughput: Sequence[Sequence[str]] = ()
    filmstrips: Sequence[Filmstrip] = ()
    episodes: str = ""
    lineage_svg: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    sections: Sequence[tuple[str, str]] = ()
    closing: Sequence[tuple[str, str]] = ()
    unequal: Sequence[str] = ()


def write_report(path: Path, data: ReportData) -> Path:
    """Writes the page; returns its path."""
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in data.provenance.items())
    commands = escape("\n".join(data.commands))
    parts = [
        _verdict(data.comparison) if data.comparison else "",
        *(_section(title, body) for title, body in data.sections),
        _section("Success", _results(data.comparison, data.unequal)),
        _section("What the policies do", _filmstrips(data.filmstrips, data.episodes)),
        _section("Training", _losses(data.losses) + _throughput(data.throughput)),
        _section("Lineage", f'<div class="wide">{data.lineage_svg}</div>'),
        _section("Stages", table_html(STAGE_COLUMNS, data.stages)),
        *(_section(title, body) for title, body in data.closing),
        _section("Provenance", f"<dl>{facts}</dl>" if facts else ""),
        _section("Ask further", f"<pre>{commands}</pre>" if commands else ""),
    ]
    body = "\n".join(part for part in parts if part)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(data.title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(data.title)}</h1><p class=run>run {escape(data.run_id)}</p>"
        f"{body}</main></body></html>\n"
    )
    write_atomic(path, page, durable=False)
    return path


def page_style() -> str:
    """What pages beside the report share with it."""
    return _STYLE


def _verdict(comparison: Comparison) -> str:
    lines = "<br>".join(map(escape, verdict_sentences(comparison)))
    return f'<p class="verdict">{lines}</p>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _results(comparison: Comparison | None, unequal: Sequence[str]) -> str:
    if comparison is None:
        return ""
    many = len(comparison.labels) > _COLUMNS
    criterion = comparison.criterion or "success as recorded"
    note = f"Rates: {criterion}. Scenarios were not seen in training; "
    if list(unequal) == ["episodes_per_task"]:
        note += "the policies met the same ones, some of them only the first of each task. "
    elif unequal:
        note += f"the policies met different ones ({', '.join(unequal)}), and what separates them "
        note += "may be the scenarios. "
    else:
        note += "every policy met the same ones. "
    tests = sorted({one.test for one in comparison.differences})
    if comparison.sequential is None:
        note += f"p-values: {', '.join(tests)}; corrected by Holm over {comparison.size}."
    else:
        note += f"Decisions: {', '.join(tests)}; the level is shared by {comparison.size} pairs. "
        note += ONE_TABLE
    if many:
        table = "".join(map(_grid_html, summary_grids(comparison, "all tasks", comparison)))
    else:
        header, *body = rows(comparison)
        table = table_html(header, body)
    parts = [table, f"<p class=note>{note}</p>", _wide(_bars(comparison))]
    if comparison.differences:
        parts.append(_wide(forest(comparison).svg()))
    parts += map(_grid_html, effect_grids(comparison))
    tables = [
        grid
        for title, group in comparison.groups.items()
        for grid in summary_grids(comparison, title, group)
    ]
    if many:
        tables += task_grids(comparison, _PAGE)
    if len(comparison.quality) <= _EXAMS:
        tables += quality_grids(comparison)
    parts += map(_grid_html, [*tables, *crash_grids(comparison)])
    if comparison.task_tables or comparison.groups:
        parts.append(f"<p class=note>{FAMILIES}</p>")
    return "".join(parts)


def _bars(comparison: Comparison) -> str:
    """As many panels as tasks, where the bars of all would not fit one picture."""
    rows = len(comparison.labels) + len(comparison.controls)
    if rows * len(comparison.tasks) > _BARS and comparison.task_tables:
        return task_bars(comparison).svg()
    return success_bars(comparison)


def _grid_html(grid: Grid) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in grid.notes)
    listed = f"<ul class=note>{notes}</ul>" if notes else ""
    return f"<h3>{escape(grid.title)}</h3>{table_html(grid.header, grid.rows)}{listed}"


def _wide(picture: str) -> str:
    return f'<div class="wide">{picture}</div>'


def _filmstrips(filmstrips: Sequence[Filmstrip], episodes: str) -> str:
    link = f'<a href="{escape(episodes, quote=True)}">All recorded episodes</a>, failures first.'
    figures = [f"<p>{link}</p>"] if episodes else []
    for one in filmstrips:
        source = f"data:image/png;base64,{base64.b64encode(one.png).decode()}"
        alt = escape(f"{one.label}: {one.caption}", quote=True)
        figures.append(
            f'<figure><img src="{source}" alt="{alt}"><figcaption><b>{escape(one.label)}</b> '
            f"{escape(one.caption)}</figcaption></figure>"
        )
    return "".join(figures)


def _losses(losses: Mapping[str, Curves]) -> str:
    plots = [curves(stage, series) for stage, series in losses.items() if series]
    return f'<div class="grid">{"".join(plots)}</div>' if plots else ""


def _throughput(rows: Sequence[Sequence[str]]) -> str:
    return table_html(THROUGHPUT_COLUMNS, rows) if rows else ""


def table_html(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table of plain text; the first cell of a row names it."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in body
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="wide">{table}</div>'


_STYLE = """
:root{--ink:#1a202c;--soft:#4a5568;--line:#cbd5e0;--paper:#fff;--tint:#f3f6fa;
color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#e8edf4;--soft:#a3b1c2;--line:#3b4757;--paper:#12171e;
--tint:#1b232d}}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:64rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0}h2{font-size:1.2rem;margin:2.6rem 0 .8rem}
h3{font-size:1rem;margin:1.6rem 0 .4rem}
.run,.note,figcaption{color:var(--soft);font-size:.875rem}
.verdict{font-size:1.12rem;background:var(--tint);border-left:4px solid #2b6cb0;
padding:1rem 1.2rem;margin:1.4rem 0}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.875rem;width:100%}
th,td{text-align:left;vertical-align:top;white-space:pre-line;padding:.4rem .8rem .4rem 0;
border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
thead th{color:var(--soft);font-weight:600}tbody th{font-weight:500}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:1rem}
svg{max-width:100%;height:auto}.wide svg{max-width:none}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,16rem));gap:.8rem}
.key{display:inline-block;margin-right:1.2rem}.key i{display:inline-block;width:.9em;height:.9em;
border-radius:3px;margin-right:.4em;vertical-align:-.1em;background:var(--fill);
border:1.5px solid var(--edge)}
figure{margin:0 0 1.1rem}img{max-width:100%;border-radius:4px;display:block}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.2rem;font-size:.875rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--tint);padding:1rem;overflow-x:auto;font-size:.875rem}
""".strip()
