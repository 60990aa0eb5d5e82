"""A comparison as plain tables of text that fit a width: for a terminal, Markdown and a page.

Labels are rows where a table is about several tasks. Where it is about single tasks they are
numbered columns, in blocks as wide as there is room.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from foundry_core.evaluation.comparison.controls import cautions, control_columns, controls_over
from foundry_core.evaluation.comparison.names import folded
from foundry_core.evaluation.comparison.result import Comparison, Overall, TaskTable
from foundry_core.evaluation.comparison.sentences import (
    ONE_RUN,
    ONE_TABLE,
    open_pairs,
    p_text,
    saved_text,
    silences,
)
from foundry_core.evaluation.score import Score

_TASK_WIDTH = 24
_WHOLE = 1000


@dataclass(frozen=True, kw_only=True)
class Grid:
    """rows: of as many cells as the header; a cell may have several lines. notes: below it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def grids(comparison: Comparison, width: int) -> list[Grid]:
    """All of a comparison, the tables of single tasks within `width` columns."""
    found, room = [], max(17, width - 64)
    for title, table in comparison.summaries().items():
        found += summary_grids(comparison, title, table, room)
    criterion = comparison.criterion or "success as recorded"
    rates = f"Rates: {criterion}; 95 % Clopper-Pearson intervals."
    saved = [saved_text(comparison.sequential)] if comparison.sequential else []
    notes = [*found[0].notes, rates, *saved, *cautions(comparison)]
    found[0] = replace(found[0], notes=notes)
    return [*found, *crash_grids(comparison, room), *task_grids(comparison, width)]


def numbers(comparison: Comparison) -> dict[str, str]:
    """label → its number in the table over all tasks, the best first."""
    return {label: f"#{place}" for place, label in enumerate(comparison.ranked(), 1)}


def summary_grids(
    comparison: Comparison, title: str, table: TaskTable, room: int = _WHOLE
) -> list[Grid]:
    """What the labels and the controls reach over the table's tasks, and what the labels'
    differences to the base say. room: columns for a label."""
    number = numbers(comparison)
    controls = controls_over(comparison, table)
    pending = any(one.counted.pending for one in [*table.overall.values(), *controls.values()])
    extra = ["pending"] if pending else []

    def row(place: str, name: str, one: Overall, mark: str) -> list[str]:
        cells = [place, folded(name, room), _percent(one.rate), *_counts(one.counted)]
        cells += [str(one.counted.crashed), _percent(one.rate_with_crashes)]
        return [*cells, *[str(one.counted.pending)] * pending, mark]

    rows = []
    for label in table.ranked():
        mark = "no verdict" if table.mute(label) else comparison.mark(table, label)
        rows.append(row(number[label], label, table.overall[label], mark))
    rows += [row("", name, one, "") for name, one in controls.items()]
    last = "letters" if comparison.base is None else "to base"
    header = ["#", "label", "mean %", "episodes", "95 %", "crashed", "if\nfailed", *extra, last]
    notes = [] if comparison.base else open_pairs(table, number)
    where = f"{len(table.tasks)} tasks" if len(table.tasks) != 1 else "one task"
    head = Grid(
        title=f"{title} ({where}; {family_text(comparison, table)})",
        header=header,
        rows=rows,
        notes=[*notes, *silences(table, number)],
    )
    return (
        [head] if comparison.base is None else [head, _differences(comparison, title, table, room)]
    )


def family_text(comparison: Comparison, table: TaskTable) -> str:
    """Which p-values were corrected together."""
    pairs = f"comparisons with {comparison.base}" if comparison.family == "base" else "pairs"
    level = "Holm" if comparison.sequential is None else "which share the level of the design"
    return f"a family of {table.size} {pairs}, {level}"


def _differences(comparison: Comparison, title: str, table: TaskTable, room: int) -> Grid:
    """Each label against the base."""
    rows = []
    for one in table.differences:
        interval = "-"
        if one.difference is not None and one.low is not None and one.high is not None:
            interval = f"{100 * one.difference:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
        seen = "-" if one.detectable is None else f"{100 * one.detectable:.1f}"
        about = f" ({one.basis})" if one.separated and one.basis != "none" else ""
        decision = one.decision + about
        rows.append([folded(one.variant, room), interval, p_text(one.p_corrected), decision, seen])
    header = ["label", "points [95 %]", "p (Holm)", "decision", "80 % power"]
    # That a separation survives its crashes is in the files.
    noted = [x for x in table.differences if x.note and (not x.separated or x.p_value is None)]
    notes = [f"{one.variant}: {one.note}." for one in noted]
    if any(one.separated and one.basis == "none" for one in table.differences):
        notes.append(ONE_RUN)
    return Grid(title=f"{title}: against {comparison.base}", header=header, rows=rows, notes=notes)


def crash_grids(comparison: Comparison, room: int = _WHOLE) -> list[Grid]:
    """Crashes by cause and label; none where nothing crashed."""
    number = numbers(comparison)
    totals: dict[str, int] = {}
    for causes in comparison.crashes.values():
        for cause, count in causes.items():
            totals[cause] = totals.get(cause, 0) + count
    if not totals:
        return []
    order = sorted(totals, key=lambda cause: (-totals[cause], cause))
    rows = []
    for label in (label for label in comparison.ranked() if label in comparison.crashes):
        causes = comparison.crashes[label]
        counts = [*(causes.get(cause, 0) for cause in order), sum(causes.values())]
        rows.append([number[label], folded(label, room), *map(str, counts)])
    rows.append(["", "all", *(str(totals[cause]) for cause in order), str(sum(totals.values()))])
    note = "Crashes count for no policy; “if failed” is the mean with each as a failure."
    header = ["#", "label", *(cause.replace(" ", "\n") for cause in order), "all"]
    return [Grid(title="crashed episodes by cause", header=header, rows=rows, notes=[note])]


def task_grids(comparison: Comparison, width: int) -> list[Grid]:
    """Every task, labels as numbered columns in blocks, then the controls; a task is a family of
    its own."""
    number, controls = numbers(comparison), control_columns(comparison)
    heads = number | {name: name.replace(" ", "\n") for name in controls}
    order = [*comparison.ranked(), *controls]
    tasks = [*comparison.tasks, *comparison.missing]
    cells = {(task, label): _cell(comparison, task, label) for task in tasks for label in number}
    cells |= {
        (task, name): _score_lines(by_task.get(task))
        for task in tasks
        for name, by_task in controls.items()
    }
    texts = [*cells.values(), *heads.values()]
    widest = max(len(line) for text in texts for line in text.split("\n"))
    per_block = max(1, (width - _TASK_WIDTH) // (widest + 2))
    # Blocks of one size: the last one would else have a column or two.
    per_block = -(-len(order) // -(-len(order) // per_block))
    found = []
    for start in range(0, len(order), per_block):
        block = order[start : start + per_block]
        rows = [
            [_task_text(comparison, task), *(cells[task, label] for label in block)]
            for task in tasks
        ]
        header = ["task", *(heads[label] for label in block)]
        first, last = (number.get(label, label) for label in (block[0], block[-1]))
        columns = f"{first} to {last}" if len(block) > 1 else first
        title = f"each task, {columns}: successes, decision, % [95 %]"
        found.append(Grid(title=title, header=header, rows=rows))
    note = "Each task is a family of its own: letters hold within a row."
    if comparison.base is not None:
        note = f"Each task is a family of its own. Against {comparison.base}: + better, − worse, "
        note += "= not separated, ? no verdict."
    if comparison.sequential is not None:
        note = ONE_TABLE
    unsure = _unsure(comparison, number)
    found[-1] = replace(found[-1], notes=[note, *unsure])
    return found


def _unsure(comparison: Comparison, number: Mapping[str, str]) -> list[str]:
    """The pairs of single tasks whose verdict hangs on crashes."""
    found = []
    for task, table in comparison.task_tables.items():
        pairs = [f"{number[x.base]} and {number[x.variant]}" for x in table.differences if x.turned]
        if pairs:
            found.append(f"{task}: crashes turn the verdict on {', '.join(pairs)}: there is none.")
    return found


def _task_text(comparison: Comparison, task: str) -> str:
    note = "\n(not compared)" if task in comparison.missing else ""
    return folded(task, _TASK_WIDTH) + note


def _cell(comparison: Comparison, task: str, label: str) -> str:
    table = comparison.task_tables.get(task)
    mark = f" {comparison.mark(table, label)}" if table else ""
    return _score_lines(comparison.scores[task].get(label), mark)


def _score_lines(score: Score | None, mark: str = "") -> str:
    if score is None:
        return "not run"
    lines = ["no outcome"]
    if score.rate is not None:
        low, high = score.interval
        lines = [f"{score.successes}/{score.n}{mark}"]
        lines.append(f"{100 * score.rate:.0f} [{100 * low:.0f}, {100 * high:.0f}]")
    lines += [f"{score.crashed} crashed"] * (score.crashed > 0)
    lines += [f"{score.pending} pending"] * (score.pending > 0)
    return "\n".join(lines)


def _counts(score: Score) -> list[str]:
    if score.rate is None:
        return ["no outcome", "-"]
    low, high = score.interval
    return [f"{score.successes}/{score.n}", f"{100 * low:.0f} to {100 * high:.0f}"]


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f}"
