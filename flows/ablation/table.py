"""The plan of an ablation for people and for JSON: variant × stage, what each would do and why."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.ablation.merge import VERDICT, Replicate
from flows.ablation.plan import Ablation
from foundry_core.pipeline.plan import StagePlan


def plan_rows(ablation: Ablation) -> list[list[str]]:
    """Header and a row per replicate; columns are the stages in which replicates differ."""
    differing = _differing(ablation)
    header = ["variant", *differing, "why"]
    return [header, *(_replicate_row(ablation, r, differing) for r in ablation.replicates)]


def plan_notes(ablation: Ablation) -> list[str]:
    """What the table leaves out: the stages that all share, the verdict, the cost, the rest."""
    rows = ablation.rows(ablation.replicates[0])
    shared = [name for name in rows if name not in _differing(ablation)]
    seconds = ablation.estimated_seconds()
    work = ablation.united.plan.to_run()
    cost = "" if seconds is None else f", about {_seconds(seconds)} of work"
    notes = [
        f"compared: {ablation.evaluation}; "
        f"{len(ablation.by_variant)} variant(s) × {ablation.request.seeds} seed(s)",
        f"shared by all: {', '.join(f'{name} ({_doing(rows[name])})' for name in shared) or '-'}",
        f"verdict: {_doing(ablation.united.plan.stages[VERDICT])}",
        f"{len(work)} stage(s) to run{cost}" if work else "nothing to run: all is known",
    ]
    return notes + [f"left out: {note}" for note in ablation.notes]


def plan_table(ablation: Ablation) -> Table:
    header, *body = plan_rows(ablation)
    table = Table(title=f"plan of {ablation.request.title}", title_justify="left")
    for column in header:
        table.add_column(column, overflow="fold")
    for row in body:
        table.add_row(*map(escape, row))
    table.caption = escape("\n".join(plan_notes(ablation)))
    table.caption_justify = "left"
    return table


def plan_markdown(ablation: Ablation) -> str:
    header, *body = plan_rows(ablation)
    lines = [header, ["---"] * len(header), *body]
    table = "".join(f"| {' | '.join(cell.replace('|', '¦') for cell in row)} |\n" for row in lines)
    return table + "\n" + "".join(f"- {note}\n" for note in plan_notes(ablation))


def plan_json(ablation: Ablation) -> dict[str, Any]:
    return {
        "title": ablation.request.title,
        "pipeline": ablation.pipeline.name,
        "evaluation": ablation.evaluation,
        "variants": [
            {
                "variant": name,
                "changes": [
                    {"path": path, "old": old, "new": new}
                    for path, old, new in ablation.changes[name]
                ],
            }
            for name in ablation.by_variant
        ],
        "replicates": [
            {
                "label": replicate.label,
                "variant": replicate.variant,
                "seed": replicate.seed,
                "stages": [
                    _stage_json(ablation, replicate, row)
                    for row in ablation.rows(replicate).values()
                ],
            }
            for replicate in ablation.replicates
        ],
        "stages": [row.to_json() for row in ablation.united.plan.stages.values()],
        "estimated_seconds": ablation.estimated_seconds(),
        "notes": list(ablation.notes),
    }


def _differing(ablation: Ablation) -> list[str]:
    """Stages of which not all replicates share one."""
    first = ablation.replicates[0]
    return [
        stage
        for stage in ablation.rows(first)
        if any(r.names.get(stage) != first.names[stage] for r in ablation.replicates)
    ]


def _replicate_row(ablation: Ablation, replicate: Replicate, columns: Sequence[str]) -> list[str]:
    rows = ablation.rows(replicate)
    cells = [_cell(ablation, replicate, rows[stage]) if stage in rows else "-" for stage in columns]
    return [replicate.label, *cells, _why(ablation, replicate)]


def _cell(ablation: Ablation, replicate: Replicate, row: StagePlan) -> str:
    shared = _shared_with(ablation, replicate, row.name)
    return f"as {shared}" if shared else _doing(row)


def _shared_with(ablation: Ablation, replicate: Replicate, stage: str) -> str | None:
    """The replicate that this one shares the stage with."""
    if ablation.owns(replicate, stage):
        return None
    return replicate.names[stage].rpartition(":")[0]


def _doing(row: StagePlan) -> str:
    seconds = row.estimated_seconds
    return f"run ≈{_seconds(seconds)}" if row.action == "run" and seconds else row.action


def _why(ablation: Ablation, replicate: Replicate) -> str:
    """What makes the replicate differ; that an input changed follows from it."""
    own = dict.fromkeys(
        reason.sentence()
        for stage, row in ablation.rows(replicate).items()
        if ablation.owns(replicate, stage) and row.action == "run"
        for reason in row.reasons
        if reason.category != "INPUT"
    )
    return "; ".join(own)


def _stage_json(ablation: Ablation, replicate: Replicate, row: StagePlan) -> dict[str, Any]:
    return row.to_json() | {
        "stage": replicate.names[row.name],
        "shared_with": _shared_with(ablation, replicate, row.name),
    }


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
