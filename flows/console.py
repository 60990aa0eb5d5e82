"""What a person sees while a run goes on: bars on a terminal, lines in a log."""

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flows.note import NoteColumn
from flows.terminal import console_on, stdout, values_text
from foundry_core.narrow import Fitting, folded
from foundry_core.pipeline.cost import Cost
from foundry_core.pipeline.plan import Plan, StagePlan
from foundry_core.pipeline.reasons import sentences, short_names

if TYPE_CHECKING:  # planning prints a table, and needs no run
    from flows.runs.events import RunEvent

_LOG_EVERY_SECONDS = 20.0
_WIDE = 100  # cells from which on a terminal has room for a long bar


class Console:
    """Progress of a run. `quiet` prints nothing; without a terminal it prints a line per event
    and one every 20 s for a long stage."""

    def __init__(self, *, quiet: bool = False, file: IO[str] | None = None) -> None:
        self._out = console_on(file or sys.stderr, quiet=quiet)
        self._live = self._out.is_terminal and not quiet
        self._lock = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._waits: dict[str, str] = {}
        self._progress = Progress(
            TextColumn("{task.fields[stage]:<16}", markup=False),
            BarColumn(bar_width=28 if self._out.width >= _WIDE else 12),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            NoteColumn(),
            console=self._out,
            transient=False,
        )

    def __enter__(self) -> "Console":
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()

    def progress(self, name: str) -> Callable[..., None]:
        """Shows the progress of work that is no stage of a run."""
        self._started(name)

        def show(done: float, total: float, message: str = "", **values: float) -> None:
            state = {"done": done, "total": total, "message": message, "values": values}
            self._progressed(name, state)

        return show

    def say(self, text: str) -> None:
        """A line."""
        self._out.print(text, markup=False)

    def observe(self, event: "RunEvent") -> None:
        """Shows an event of a run."""
        from flows.runs.events import (
            Note,
            StageFailedEvent,
            StageFinished,
            StageProgress,
            StageStarted,
        )

        match event:
            case StageStarted(name):
                self._started(name)
            case StageProgress(name, state):
                self._progressed(name, state)
            case StageFinished(name, outcome):
                verb = "done" if outcome.action == "run" else f"reused ({outcome.how})"
                text = f"{verb} in {outcome.seconds:.1f} s → {outcome.artifact.key[:12]}"
                self._ended(name, text, completed=1, total=1)
            case StageFailedEvent(name, _, cancelled=True):
                self._ended(name, "cancelled")
            case StageFailedEvent(name, error):
                self._ended(name, f"failed: {error}", style="red")
            case Note(text):
                print(f"foundry: {text}", file=sys.stderr)

    def _started(self, name: str) -> None:
        with self._lock:
            self._printed[name] = time.monotonic()
            if self._live:
                # Names are never cut; one that leaves no room for the rest stands in lines.
                shown = folded(Text(name), self._out.width // 2).plain
                self._bars[name] = self._progress.add_task(
                    name, total=1, stage=shown, note=("starting",), style="dim"
                )
            else:
                self._out.print(f"{name}: starts")

    def _progressed(self, name: str, state: Mapping[str, Any]) -> None:
        parts = tuple(filter(None, (state.get("message", ""), *values_text(state))))
        note = " ".join(parts)
        done, total = state.get("done", 0), state.get("total") or 1
        waits = "done" not in state  # what it waits for is told once, and at once
        with self._lock:
            if self._live:
                bar = self._bars[name]
                self._progress.update(bar, completed=done, total=total, note=parts)
            elif waits:
                if note and note != self._waits.get(name):
                    self._waits[name] = note
                    self._out.print(f"{name}: {note}", markup=False)
            elif time.monotonic() - self._printed[name] > _LOG_EVERY_SECONDS:
                self._printed[name] = time.monotonic()
                said = ", ".join(filter(None, (f"{100 * done / total:.0f} % done", note)))
                self._out.print(f"{name}: {said}", markup=False)

    def _ended(self, name: str, text: str, **bar: Any) -> None:
        with self._lock:
            if self._live and name in self._bars:
                self._progress.update(self._bars[name], note=(text,), **bar)
            else:
                self._out.print(f"{name}: {text}", markup=False)


def plan_table(plan: Plan, cost: Cost | None = None) -> Table:
    """The plan as people read it: stage, action, why; below it what all costs together."""
    against = f" against {plan.baseline}" if plan.baseline else ""
    table = Table(title=escape(f"plan of {plan.pipeline}{against}"), title_justify="left")
    for column in ("stage", "key", "action", "why", "≈ s"):
        table.add_column(column, overflow="fold")
    for name, _, key, action, *rest in map(_cells, plan.stages.values()):
        style = {"run": "bold yellow", "blocked": "red"}.get(action, "green")
        table.add_row(name, key, f"[{style}]{action}", *map(escape, rest))
    if cost is not None and cost.stages:
        table.caption, table.caption_justify = escape(cost.sentence()), "left"
    elif cost is not None and all(row.action == "reuse" for row in plan.stages.values()):
        table.caption, table.caption_justify = "nothing to run", "left"
    return table


def plan_markdown(plan: Plan) -> str:
    """The same table for a page that renders Markdown."""
    header = ["stage", "kind", "key", "action", "why", "≈ s"]
    against = f"\nReasons compare with {plan.baseline}.\n" if plan.baseline else ""
    return markdown_table([header, *map(_cells, plan.stages.values())]) + against


def _cells(row: StagePlan) -> list[str]:
    seconds = f"{row.estimated_seconds:.0f}" if row.estimated_seconds else ""
    return [row.name, row.kind, row.key[:12], row.action, _why(row), seconds]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header. Cells cannot break the table."""
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(cell.replace('|', '¦') for cell in row)} |\n" for row in lines)


def _why(row: StagePlan) -> str:
    own = sentences(reason for reason in row.reasons if reason.category != "INPUT")
    if row.action == "reuse" and any(r.category == "ENVIRONMENT" for r in row.reasons):
        own[-1] += " (--strict-env rebuilds)"
    through: dict[str, list[str]] = {}
    for reason in row.reasons:
        if reason.category == "INPUT":
            through.setdefault(reason.upstream or "", []).append(reason.path)
    changed = ", ".join(through)
    if len(through) == 1:  # ways to several roots would drown them: they are in the JSON
        via = ", ".join(name for name in through[changed] if name != changed)
        changed += f" via {via}" if via else ""
    if changed:
        own.append(f"{changed} changed")
    reasons = "; ".join(own)
    how = {"content": "same recipe, same input bytes", "unneeded": ""}.get(row.how, "")
    continues = row.continues.sentence() if row.continues else ""
    drift = f"code drifted: {short_names(row.drift)}" if row.drift else ""
    return "; ".join(part for part in (reasons, how, continues, drift, *row.notes) if part)


def print_table(table: Table, quiet: bool = False) -> None:
    """On standard output, unless quiet. What stands below it is as wide as the output: rich would
    fold it to the width of the columns, in a file, too. On a narrow terminal nothing is cut in the
    middle of a name (narrow.py)."""
    if quiet:
        return
    out, below = stdout(), table.caption
    table.caption = None
    out.print(Fitting(table))
    if below:
        out.print(below, style="dim italic")
