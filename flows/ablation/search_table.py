"""A search for people and for JSON: its plan, and what its rungs decided."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.ablation.search import Rung, SearchPlan, Step
from flows.ablation.table import plan_json as ablation_json
from flows.ablation.table import plan_markdown as ablation_markdown
from flows.console import markdown_table
from foundry_core.pipeline.cost import duration

_MOST_DROPPED = 4


def steps_rows(plan: SearchPlan) -> list[list[str]]:
    """Header, a row per rung and one for the finalists."""
    steps = [
        [step.name, budget_text(step.budget), str(step.variants), str(step.seeds), _about(step)]
        for step in plan.steps
    ]
    return [["step", "budget", "variants", "seeds", "at most"], *steps]


def _about(step: Step) -> str:
    if not step.cost.stages:
        return "-"
    return "?" if len(step.cost.unknown) == step.cost.stages else duration(step.cost.seconds)


def _whole(plan: SearchPlan) -> str:
    return f"the whole at most: {plan.cost.sentence()}"


def steps_table(plan: SearchPlan) -> Table:
    """For a terminal."""
    header, *body = steps_rows(plan)
    table = Table(title=escape(plan.request.title), title_justify="left")
    for number, column in enumerate(header):
        table.add_column(column, justify="right" if number else "left")
    for row in body:
        table.add_row(*map(escape, row))
    table.caption, table.caption_justify = escape(_whole(plan)), "left"
    return table


def plan_markdown(plan: SearchPlan) -> str:
    """For a page that renders Markdown: all steps with what they cost, then the first rung."""
    steps = f"{plan.request.title}\n\n{markdown_table(steps_rows(plan))}\n- {_whole(plan)}\n"
    rate = plan.cost.gpu_rate
    return f"{steps}\nThe first rung:\n\n{ablation_markdown(plan.first, rate)}"


def plan_json(plan: SearchPlan) -> dict[str, Any]:
    """Everything."""
    return {
        "search": plan.request.id,
        "title": plan.request.title,
        "first": ablation_json(plan.first),
        "steps": [
            {
                "step": step.name,
                "budget": step.budget,
                "variants": step.variants,
                "seeds": step.seeds,
                "at_most": step.cost.to_json(),
            }
            for step in plan.steps
        ],
        "at_most": plan.cost.to_json(),
    }


def rungs_markdown(rungs: Sequence[Rung], of: int, reports: Mapping[str, str]) -> str:
    """What the rungs decided so far, of so many: a narrow table, then a line each with who goes on
    and who dropped out. reports: ablation → Markdown that shows or names its report."""
    table = [["rung", "budget", "variants", "base", "best", "kept"]]
    lines = []
    for rung in rungs:
        known = [rate for rate in rung.rates.values() if rate is not None]
        table.append(
            [
                f"{rung.number + 1} of {of}",
                budget_text(rung.budget),
                str(len(rung.rates)),
                "-" if rung.base is None else percent(rung.base),
                percent(max(known)) if known else "-",
                "" if rung.kept is None else str(len(rung.kept)),
            ]
        )
        shown = ", ".join(reports[name] for name in rung.ablations if name in reports)
        lines.append(f"- {rung_text(rung, of)}{f'; {shown}' if shown else ''}\n")
    return f"{markdown_table(table)}\n{''.join(lines)}"


def rung_text(rung: Rung, of: int) -> str:
    """'rung 1 of 2 at 100: 16 variants; base 40 %; kept lr=0.001 (62 %)', and who dropped out."""
    budget = "" if rung.budget is None else f" at {rung.budget}"
    known = {name: rate for name, rate in rung.rates.items() if rate is not None}
    base = "" if rung.base is None else f"; base {percent(rung.base)}"
    text = f"rung {rung.number + 1} of {of}{budget}: {len(rung.rates)} variants{base}"
    if rung.kept is not None:
        kept = ", ".join(f"{name} ({percent(known[name])})" for name in rung.kept)
        text += f"; kept {kept or 'nobody'}"
    return text + _dropped(rung.dropped)


def _dropped(dropped: Mapping[str, str]) -> str:
    lines = [f"; {name}: {why.partition(chr(10))[0]}" for name, why in dropped.items()]
    more = len(lines) - _MOST_DROPPED
    return "".join(lines[:_MOST_DROPPED]) + (f"; {more} more dropped out" if more > 0 else "")


def budget_text(budget: Any) -> str:
    """Of a rung; nothing where the pipeline's own counts."""
    return "" if budget is None else str(budget)


def percent(rate: float) -> str:
    return f"{100 * rate:.0f} %"
