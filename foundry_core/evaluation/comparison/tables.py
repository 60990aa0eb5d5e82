"""A comparison as rows of text, for a terminal, for Markdown, CSV and the report."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from foundry_core.evaluation.comparison.controls import control_columns, controls_over, over
from foundry_core.evaluation.comparison.effect_rows import decision_text
from foundry_core.evaluation.comparison.effects import effect_grids
from foundry_core.evaluation.comparison.grids import Grid, crash_grids, grids, summary_grids
from foundry_core.evaluation.comparison.p_values import p_text
from foundry_core.evaluation.comparison.result import Comparison, Difference, Overall, TaskTable
from foundry_core.evaluation.comparison.sentences import ONE_TABLE, rounds_text
from foundry_core.evaluation.comparison.upstream import quality_grids
from foundry_core.evaluation.score import Score

FAMILIES = (
    "Each table is a family of its own, corrected by Holm: all tasks, every group, every single "
    "task (what it decides stands behind its intervals). Letters hold within a table."
)


def score_text(score: Score | None) -> str:
    """'17/20  85 % [62, 97]': a rate never stands without its count and interval."""
    if score is None:
        return "not evaluated"
    more = [f"{score.crashed} crashed"] * (score.crashed > 0)
    more += [f"{score.pending} pending"] * (score.pending > 0)
    if score.rate is None:
        return ", ".join(["no episodes", *more])
    low, high = score.interval
    text = (
        f"{score.successes}/{score.n}  {100 * score.rate:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    )
    return ", ".join([text, *more])


def rows(comparison: Comparison) -> list[list[str]]:
    """Header and rows: every task, all together, what each label's difference to the base says.
    Controls come last and have scores alone."""
    labels, overall = comparison.labels, comparison.overall
    controls = control_columns(comparison)
    body = []
    for task in [*comparison.tasks, *comparison.missing]:
        scores = comparison.scores[task]
        left_out = " (not compared)" if task in comparison.missing else ""
        table = comparison.task_tables.get(task)
        cells = [score_text(scores.get(label)) for label in labels]
        if table and table.tasks:
            cells = [
                cell if table.mute(label) else f"{cell}  {comparison.mark(table, label)}"
                for cell, label in zip(cells, labels, strict=True)
            ]
        cells += [score_text(of_control.get(task)) for of_control in controls.values()]
        body.append([task + left_out, *cells])
    whole = [*(overall[label] for label in labels), *controls_over(comparison, comparison).values()]
    body.append(["all tasks", *(score_text(one.counted) for one in whole)])
    if any(_uneven(comparison, label) for label in labels):
        rates = [overall[label].rate for label in labels]
        even = ["-" if rate is None else f"{100 * rate:.1f} %" for rate in rates]
        body.append(["mean of the tasks' rates", *even])
    if comparison.sequential is not None:
        played = comparison.sequential
        body.append(["rounds played", *(rounds_text(played, label) for label in labels)])
    if comparison.base is not None:
        found = [comparison.against_base(label) for label in labels]
        family = f"p against {comparison.base} (exact, Holm over {comparison.size})"
        if comparison.sequential is None:
            body.append(
                [family, *("base" if one is None else p_text(one.p_corrected) for one in found)]
            )
        body.append(
            [
                "decision",
                *("" if one is None else decision_text(one.decision, one.basis) for one in found),
            ]
        )
    letters = "letters (shared = not separated)"
    if comparison.family == "base" and len(labels) > 2:
        letters = "letters (shared = not separated, or not compared)"
    mute = {label: "no verdict" for label in labels if comparison.mute(label)}
    body.append([letters, *(mute.get(label, comparison.letters[label]) for label in labels)])
    header = ["task", *labels, *controls]
    return [header, *(row + [""] * (len(header) - len(row)) for row in body)]


def _uneven(comparison: Comparison, label: str) -> bool:
    overall = comparison.overall[label]
    counted = overall.counted.rate
    return counted is not None and overall.rate is not None and abs(counted - overall.rate) > 5e-4


def terminal_tables(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    """All of a comparison, for a terminal this wide."""
    found = grids(comparison, width)
    for grid in (*found, *effect_grids(comparison), *quality_grids(comparison)):
        table = Table(title=grid.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for place, column in enumerate(grid.header):
            several = any("\n" in row[place] for row in grid.rows)
            numeric = not several and all(row[place][-1:] in "0123456789%-" for row in grid.rows)
            table.add_column(column, overflow="fold", justify="right" if numeric else "left")
        for row in grid.rows:
            table.add_row(*map(escape, row))
        yield table
        for note in grid.notes:
            yield Padding(escape(note), (0, 0, 0, 2), expand=False)
        if grid.notes:
            yield ""


def markdown(comparison: Comparison) -> str:
    """`rows` as a Markdown table, when an episode counts as solved, and tables of the groups and
    crashes where there are any."""
    parts = [_pipes(rows(comparison))]
    if comparison.criterion:
        parts.append(f"Rates: {comparison.criterion}.\n")
    if comparison.sequential is not None:
        parts.append(f"{ONE_TABLE}\n")
    for title, table in comparison.groups.items():
        parts += map(_grid_markdown, summary_grids(comparison, title, table))
    more = [*effect_grids(comparison), *crash_grids(comparison), *quality_grids(comparison)]
    parts += map(_grid_markdown, more)
    if comparison.task_tables or comparison.groups:
        parts.append(f"{FAMILIES}\n")
    return "\n".join(parts)


def _grid_markdown(grid: Grid) -> str:
    header = [cell.replace("\n", " ") for cell in grid.header]
    notes = "".join(f"\n- {note}" for note in grid.notes)
    end = f"{notes}\n" if notes else ""
    return f"**{grid.title}**\n\n{_pipes([header, *grid.rows])}{end}"


def _pipes(lines: Sequence[Sequence[str]]) -> str:
    header, *body = lines
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


_SCORE = ("n", "successes", "crashed", "pending", "rate", "low", "high")
_DIFFERENCE = ("difference", "difference_low", "difference_high", "p", "decision", "note")


def as_csv(comparison: Comparison) -> str:
    """One line per table and label. kind: all, group, task, "not compared" or control; those come
    last and are part of no test. rate: of several tasks their mean; low, high: of the counts. base,
    difference, p (corrected within the table) and decision where there is a base."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = ("table", "kind", "label", *_SCORE, "rate_with_crashes", "letters", "base")
    writer.writerow([*names, *_DIFFERENCE])
    for name, kind, table in _tables(comparison):
        for label in comparison.labels:
            one = table.overall[label]
            row = one.counted.to_json() | {"rate": one.rate}
            found = table.against(comparison.base, label)
            cells = [name, kind, label, *(row[key] for key in _SCORE), one.rate_with_crashes]
            letters = "" if table.mute(label) else table.letters[label]
            writer.writerow([*cells, letters, comparison.base, *_difference_cells(found)])
    shown = {name for name, _, _ in _tables(comparison)}
    for task, scores in comparison.scores.items():
        for label, score in scores.items() if task not in shown else ():
            row = score.to_json()
            cells = [task, "not compared", label, *(row[key] for key in _SCORE)]
            writer.writerow([*cells, score.rate_with_crashes, *[""] * (len(_DIFFERENCE) + 2)])
    for name, label, one in _control_rows(comparison):
        row = one.counted.to_json() | {"rate": one.rate}
        cells = [name, "control", label, *(row[key] for key in _SCORE), one.rate_with_crashes]
        writer.writerow([*cells, *[""] * (len(_DIFFERENCE) + 2)])
    return text.getvalue()


def _tables(comparison: Comparison) -> list[tuple[str, str, TaskTable]]:
    found: list[tuple[str, str, TaskTable]] = [("all tasks", "all", comparison)]
    found += [(name, "group", table) for name, table in comparison.groups.items()]
    return found + [(task, "task", table) for task, table in comparison.task_tables.items()]


def _control_rows(comparison: Comparison) -> Iterator[tuple[str, str, Overall]]:
    """(table, control, what it reaches there): its tasks, the groups, all tasks."""
    summaries = [*reversed(comparison.summaries().items())]
    for name, by_task in control_columns(comparison).items():
        yield from ((task, name, over(by_task, [task])) for task in by_task)
        yield from ((title, name, over(by_task, table.tasks)) for title, table in summaries)


def _difference_cells(found: Difference | None) -> list[Any]:
    if found is None:
        return [""] * len(_DIFFERENCE)
    estimate = [found.difference, found.low, found.high]
    return [*estimate, found.p_corrected, found.decision, found.note]
