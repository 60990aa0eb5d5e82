"""`foundry search PIPELINE --space PATH=VALUES ... --variants N`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from flows.ablation.drivers.base import DRIVERS
from flows.ablation.plan import Ablation
from flows.ablation.search import Found, Rung, Search, SearchPlan, SearchRequest, plan_search
from flows.ablation.space import parse_dimension
from flows.ablation.studies import find_study
from flows.ablation.table import plan_json, plan_table
from flows.ablation.variants import AblationRequest, parse_vary
from flows.cli.commands.ablate import (
    add_space_argument,
    add_verdict_arguments,
    run_all,
    summarise,
)
from flows.cli.commands.common import (
    add_cost_arguments,
    add_pipeline_arguments,
    add_run_arguments,
    exit_code,
    gpu_rate,
    print_json,
)
from flows.console import Console, print_table
from flows.dispatch.base import BACKENDS
from flows.runs.fitting import fitted
from foundry_core.config.overrides import parse_override
from foundry_core.pipeline.cost import check_affordable, duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_pipeline_arguments(parser, "change the base, and so every variant")
    add_space_argument(parser)
    parser.add_argument(
        "--variants", type=int, metavar="N", help="how many are tried (16, or the study's)"
    )
    parser.add_argument(
        "--driver",
        default="random",
        metavar="NAME",
        help="who says which: random, optuna (an extra), or another",
    )
    parser.add_argument(
        "--search-seed", type=int, default=0, metavar="N", help="another choice of variants (0)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=4,
        metavar="N",
        help="variants at a time, where the driver learns from the ones before (4)",
    )
    parser.add_argument(
        "--rungs",
        metavar="PATH=V,V",
        help="a training budget that grows from rung to rung, e.g. vla.training.steps=100,300,900",
    )
    parser.add_argument(
        "--reduction",
        type=int,
        default=3,
        metavar="N",
        help="one of N goes on to the next rung (3)",
    )
    parser.add_argument(
        "--finalists", type=int, default=1, metavar="N", help="how many are judged at the end (1)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        help="new trainings of each finalist and of the base; 3 for a verdict about recipes (1)",
    )
    add_verdict_arguments(parser)
    add_run_arguments(parser)
    add_cost_arguments(parser)


def run(options: argparse.Namespace) -> int:
    BACKENDS.module(options.dispatch)
    DRIVERS.module(options.driver)
    asked = _request(options)
    plan = plan_search(asked, gpu_rate(options))
    check_affordable(plan.cost, options.max_gpu_hours)
    if options.dry_run:
        fitted(plan.first.merged, options.dispatch)
    _show(plan, options.json)
    if options.dry_run:
        if options.json:
            print_json(_plan_json(plan))
        return 0
    console = Console(quiet=options.json)
    search = Search(asked)

    def carry(ablation: Ablation, rung: str) -> Mapping[str, Any]:
        if not options.json:
            print(f"{rung}: {len(ablation.by_variant) - 1} variant(s) and the base")
        return run_all(ablation, console, options.dispatch, options.prefect)

    found = search.run(carry)
    if options.json:
        print_json(found.to_json())
    else:
        _summarise(found)
    return exit_code(found.status)


def _request(options: argparse.Namespace) -> SearchRequest:
    study = find_study(options.pipeline)
    base = AblationRequest(
        pipeline=options.pipeline if study is None else study.pipeline,
        overrides=(
            *(study.base.items() if study else ()),
            *(parse_override(text) for text in options.override),
        ),
        seeds=options.seeds,
        evaluation=options.only_evaluations or (study.evaluation if study else None),
        alpha=options.alpha,
        looks=options.looks,
        spending=options.spending,
        strict_code=options.strict_code,
        strict_env=options.strict_env,
        strict_reads=options.strict_reads,
    )
    own = dict(parse_dimension(text) for text in options.space)
    known = study.sample if study and options.variants is None else options.variants
    return SearchRequest(
        base=base,
        space={**(study.dimensions if study else {}), **own},
        variants=16 if known is None else known,
        driver=options.driver,
        seed=options.search_seed,
        batch=options.batch,
        budgets=parse_vary(options.rungs) if options.rungs else None,
        reduction=options.reduction,
        finalists=options.finalists,
    )


def _show(plan: SearchPlan, quiet: bool) -> None:
    print_table(plan_table(plan.first), quiet)
    print_table(_steps_table(plan), quiet)


def _steps_table(plan: SearchPlan) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(plan.request.title), title_justify="left")
    for number, column in enumerate(("step", "budget", "variants", "seeds", "at most")):
        table.add_column(column, justify="right" if number else "left")
    for step in plan.steps:
        known = len(step.cost.unknown) < step.cost.stages
        about = duration(step.cost.seconds) if known else "-" if not step.cost.stages else "?"
        budget = "" if step.budget is None else str(step.budget)
        table.add_row(step.name, budget, str(step.variants), str(step.seeds), about)
    table.caption = escape(f"the whole at most: {plan.cost.sentence()}")
    table.caption_justify = "left"
    return table


def _plan_json(plan: SearchPlan) -> dict[str, Any]:
    return {
        "search": plan.request.id,
        "title": plan.request.title,
        "first": plan_json(plan.first),
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


def _summarise(found: Found) -> None:
    """For a person: who went on from rung to rung, and what the verdict on the finalists says."""
    print(f"{found.id}: {found.status}")
    for rung in found.rungs:
        print(f"  {_rung_text(rung, len(found.rungs))}")
    if found.error:
        print(f"  {found.error}")
    if found.verdict is not None:
        summarise(dict(found.verdict))
        print(found.promise)


def _rung_text(rung: Rung, rungs: int) -> str:
    budget = "" if rung.budget is None else f" at {rung.budget}"
    known = {name: rate for name, rate in rung.rates.items() if rate is not None}
    base = "" if rung.base is None else f"; base {_percent(rung.base)}"
    text = f"rung {rung.number + 1} of {rungs}{budget}: {len(rung.rates)} variants{base}; kept "
    text += ", ".join(f"{name} ({_percent(known[name])})" for name in rung.kept) or "nobody"
    return text + "".join(f"; {name}: {why}" for name, why in _some(rung.dropped))


def _some(dropped: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    return [(name, why.partition("\n")[0]) for name, why in dropped.items()][:4]


def _percent(rate: float) -> str:
    return f"{100 * rate:.0f} %"
