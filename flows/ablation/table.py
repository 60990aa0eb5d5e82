"""The plan of an ablation for people and for JSON: variant × stage, what each would do and why."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.ablation.merge import CONTROL, VERDICT, SeedRun
from flows.ablation.plan import Ablation
from flows.console import markdown_table
from foundry_core.pipeline.cost import duration, number
from foundry_core.pipeline.plan import StagePlan

# More seed runs than this are told together, a row for each kind of variant.
_MOST_ROWS = 24
_MOST_VALUES = 4


def plan_rows(ablation: Ablation) -> list[list[str]]:
    """Header and a row per seed run; columns are the stages in which seed runs differ. Of many seed
    runs, a row for all variants that change the same settings and have the same stages to run."""
    if len(ablation.seed_runs) > _MOST_ROWS:
        return _grouped_rows(ablation)
    differing = _differing(ablation)
    looks = [ablation.evaluation] if ablation.standing else []
    header = ["variant", *differing, *looks, "why"]
    table = [header]
    for seed_run in ablation.seed_runs:
        cells = [_cell(ablation, seed_run, stage) for stage in differing]
        cells += [_parts(ablation, seed_run)] if looks else []
        table.append([seed_run.label, *cells, _why(ablation, seed_run)])
    return table


def _grouped_rows(ablation: Ablation) -> list[list[str]]:
    differing = _differing(ablation)
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, seed_runs in ablation.by_variant.items():
        paths = tuple(path for path, _, _ in ablation.changes[name])
        doing = tuple(tuple(_counted(ablation, seed_runs, stage)) for stage in differing)
        groups.setdefault((paths, doing), []).append(name)
    table = [["variants", "seed runs", *differing, "what changes"]]
    for (paths, _), names in groups.items():
        members = [r for name in names for r in ablation.by_variant[name]]
        title = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"
        cells = [_group_cell(ablation, members, stage) for stage in differing]
        changed = [_values(ablation, names, number) for number in range(len(paths))]
        table.append([title, str(len(members)), *cells, "; ".join(changed) or "nothing"])
    return table


def _counted(ablation: Ablation, seed_runs: Sequence[SeedRun], stage: str) -> Counter[str]:
    """What becomes of a stage in some seed runs: run, reuse or shared → how often."""
    count: Counter[str] = Counter()
    for seed_run in seed_runs:
        row = ablation.rows(seed_run).get(stage)
        if row is not None:
            own = ablation.first_needs(seed_run, stage)
            count[row.action if own else "shared"] += 1
    return count


def _group_cell(ablation: Ablation, seed_runs: Sequence[SeedRun], stage: str) -> str:
    """'run 40 ≈2.1 h, shared 10'."""
    known = [
        row.estimated_seconds
        for r in seed_runs
        if (row := ablation.rows(r).get(stage)) and ablation.first_needs(r, stage)
        if row.action == "run" and row.estimated_seconds is not None
    ]
    counts = _counted(ablation, seed_runs, stage)
    said = [f"{action} {count}" for action, count in counts.items()]
    if known and said and "run" in counts:
        place = list(counts).index("run")
        said[place] += f" ≈{duration(sum(known))}"
    return ", ".join(said) or "-"


def _values(ablation: Ablation, names: Sequence[str], number: int) -> str:
    """'llm.training.steps: 200 → 100, 400', or how many values between which."""
    path, old, _ = ablation.changes[names[0]][number]
    found = [ablation.changes[name][number][2] for name in names]
    if all(isinstance(one, int | float) for one in found):
        found.sort()  # what was drawn comes in any order
    values = list(dict.fromkeys(map(str, found)))
    if len(values) > _MOST_VALUES:
        return f"{path}: {old} → {len(values)} values, {values[0]} … {values[-1]}"
    return f"{path}: {old} → {', '.join(values)}"


def cost_rows(ablation: Ablation, gpu_rate: float | None = None) -> list[list[str]]:
    """Header, a row per stage that runs, and the sum: how often, how long, GPU hours, money."""
    by_stage = ablation.cost_by_stage(gpu_rate)
    gpus = any(cost.gpu_hours for cost in by_stage.values())
    header = ["stage", "runs", "about"]
    header += ["GPU hours"] if gpus else []
    header += ["money"] if gpu_rate is not None else []
    rows = [header]
    for name, cost in [*by_stage.items(), ("in all", ablation.cost(gpu_rate))]:
        known = len(cost.unknown) < cost.stages
        cells = [name, str(cost.stages), duration(cost.seconds) if known else "?"]
        cells += [number(cost.gpu_hours) if cost.gpu_hours else ""] if gpus else []
        cells += [f"{cost.money or 0:,.2f}"] if gpu_rate is not None else []
        rows.append(cells)
    return rows


def _cost_sentence(ablation: Ablation, gpu_rate: float | None) -> str:
    cost, alone = ablation.cost(gpu_rate), ablation.unshared_cost()
    said = cost.sentence()
    if alone.seconds > 1.05 * cost.seconds and not cost.unknown:
        said += f"; sharing saves {duration(alone.seconds - cost.seconds)}"
    return said


def plan_notes(ablation: Ablation, gpu_rate: float | None = None) -> list[str]:
    """What the table leaves out: the stages that all share, the verdict, the cost, the rest."""
    rows = ablation.rows(ablation.seed_runs[0])
    parts = ablation.seed_runs[0].parts if ablation.standing else ()
    shared = [name for name in rows if name not in (*_differing(ablation), *parts)]
    work = ablation.merged.plan.to_run()
    later = len(ablation.at_most)
    most = f", {later} of them only if their variant is not decided before" if later else ""
    notes = [
        f"compared: {ablation.evaluation}; "
        f"{len(ablation.by_variant)} variant(s) × {ablation.request.seeds} seed(s)",
        f"shared by all: {', '.join(f'{name} ({_doing(rows[name])})' for name in shared) or '-'}",
        f"verdict: {_doing(ablation.merged.plan.stages[VERDICT])}",
        f"{len(work)} stage(s) to run{most}" if work else "nothing to run: all is known",
    ]
    if work:
        notes.append(f"cost: {_cost_sentence(ablation, gpu_rate)}")
    design, rounds = ablation.request.design, ablation.seed_runs[0].rounds
    if design is not None:
        ends = ", ".join(map(str, design.ends(rounds)))
        notes.insert(
            1,
            f"design: looks after {ends} of {rounds} rounds (a scenario of every task each); "
            f"spending {design.spending}, family {design.family}, alpha {design.alpha}",
        )
    notes += dict.fromkeys(
        f"{stage}: {note}"
        for seed_run in ablation.seed_runs
        for stage, stated in seed_run.pipeline.notes.items()
        if stage in seed_run.scope
        for note in stated
    )
    notes += [
        f"{row.name} {row.continues.sentence()}"
        for row in ablation.merged.plan.stages.values()
        if row.continues
    ]
    asked = ablation.seed_runs[0]
    notes += [
        f"control {name} plays other scenarios than {ablation.evaluation}, and is left out"
        for name, node in asked.pipeline.stages.items()
        if node.kind == CONTROL and name not in asked.scope
    ]
    return notes + [f"left out: {note}" for note in ablation.notes]


def cost_table(ablation: Ablation, gpu_rate: float | None = None) -> Table:
    """For a terminal."""
    header, *body = cost_rows(ablation, gpu_rate)
    table = Table(title="what it costs", title_justify="left")
    for number_, column in enumerate(header):
        table.add_column(column, justify="right" if number_ else "left")
    for row in body:
        table.add_row(*map(escape, row))
    return table


def plan_table(ablation: Ablation, gpu_rate: float | None = None) -> Table:
    """For a terminal."""
    header, *body = plan_rows(ablation)
    table = Table(title=f"plan of {ablation.request.title}", title_justify="left")
    for column in header:
        table.add_column(column, overflow="fold")
    for row in body:
        table.add_row(*map(escape, row))
    table.caption = escape("\n".join(plan_notes(ablation, gpu_rate)))
    table.caption_justify = "left"
    return table


def plan_markdown(ablation: Ablation, gpu_rate: float | None = None) -> str:
    """For a page that renders Markdown."""
    notes = "".join(f"- {note}\n" for note in plan_notes(ablation, gpu_rate))
    works = ablation.merged.plan.to_run()
    cost = f"\n{markdown_table(cost_rows(ablation, gpu_rate))}" if works else ""
    return f"{markdown_table(plan_rows(ablation))}\n{notes}{cost}"


def plan_json(ablation: Ablation, gpu_rate: float | None = None) -> dict[str, Any]:
    """Everything, with keys and per-stage reasons."""
    parts = ("path", "old", "new")
    return {
        "title": ablation.request.title,
        "pipeline": ablation.pipeline.name,
        "evaluation": ablation.evaluation,
        "variants": [
            {"variant": name, "changes": [dict(zip(parts, one, strict=True)) for one in changes]}
            for name, changes in ablation.changes.items()
        ],
        "seed_runs": [
            {
                "label": seed_run.label,
                "variant": seed_run.variant,
                "seed": seed_run.seed,
                "stages": [
                    row.to_json()
                    | {
                        "stage": seed_run.names[stage],
                        "shared_with": _shared_with(ablation, seed_run, stage),
                    }
                    for stage, row in ablation.rows(seed_run).items()
                ],
            }
            for seed_run in ablation.seed_runs
        ],
        "stages": [row.to_json() for row in ablation.merged.plan.stages.values()],
        "cost": ablation.cost(gpu_rate).to_json(),
        "cost_by_stage": {
            stage: cost.to_json() for stage, cost in ablation.cost_by_stage(gpu_rate).items()
        },
        "design": ablation.request.design and ablation.request.design.model_dump(),
        "at_most": [row.name for row in ablation.at_most],
        "notes": list(ablation.notes),
    }


def _differing(ablation: Ablation) -> list[str]:
    """Stages of which not all seed runs share one, but the parts of an evaluation."""
    first = ablation.seed_runs[0]
    parts = first.parts if ablation.standing else ()
    return [
        stage
        for stage in ablation.rows(first)
        if stage not in parts
        and any(r.names.get(stage) != first.names[stage] for r in ablation.seed_runs)
    ]


def _cell(ablation: Ablation, seed_run: SeedRun, stage: str) -> str:
    row = ablation.rows(seed_run).get(stage)
    if row is None:
        return "-"
    shared = _shared_with(ablation, seed_run, stage)
    return f"as {shared}" if shared else _doing(row)


def _parts(ablation: Ablation, seed_run: SeedRun) -> str:
    """'reuse 1, run look 2, at most 2 more': what becomes of its parts."""
    rows, later = ablation.rows(seed_run), {row.name for row in ablation.at_most}
    names = [part for part in seed_run.evaluations.values() if seed_run.names[part] not in later]
    kept = sum(rows[part].action == "reuse" for part in names)
    words = [f"reuse {kept} of {len(seed_run.parts)}"] if kept else []
    words += [f"run {part.rpartition('.')[2]}" for part in names if rows[part].action == "run"]
    more = len(seed_run.evaluations) - len(names)
    return ", ".join([*words, *([f"at most {more} more"] if more else [])])


def _shared_with(ablation: Ablation, seed_run: SeedRun, stage: str) -> str | None:
    """The seed run that this one shares the stage with."""
    if ablation.first_needs(seed_run, stage):
        return None
    return seed_run.names[stage].rpartition(":")[0]


def _doing(row: StagePlan) -> str:
    seconds = row.estimated_seconds
    return f"run ≈{duration(seconds)}" if row.action == "run" and seconds else row.action


def _why(ablation: Ablation, seed_run: SeedRun) -> str:
    """What makes the seed run differ; that an input changed follows from it."""
    own = dict.fromkeys(
        reason.sentence()
        for stage, row in ablation.rows(seed_run).items()
        if ablation.first_needs(seed_run, stage) and row.action == "run"
        for reason in row.reasons
        if reason.category != "INPUT"
    )
    return "; ".join(own)
