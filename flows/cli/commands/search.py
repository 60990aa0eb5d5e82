"""`foundry search PIPELINE --space PATH=VALUES ... --variants N`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from flows.ablation.drivers.base import DRIVERS
from flows.ablation.plan import Ablation
from flows.ablation.search import Found, Rung, Search, SearchRequest, asked_search, plan_search
from flows.ablation.search_table import plan_json, rung_text, steps_table
from flows.ablation.space import parse_dimension, space_of
from flows.ablation.studies import find_study
from flows.ablation.table import plan_table
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
    print_json,
)
from flows.console import Console, print_table
from flows.dispatch.base import BACKENDS
from flows.runs.fitting import fitted
from foundry_core.config.overrides import parse_override
from foundry_core.pipeline.cost import check_affordable, stated_rate


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
    plan = plan_search(asked, stated_rate(options.gpu_rate))
    check_affordable(plan.cost, options.max_gpu_hours)
    if options.dry_run:
        fitted(plan.first.merged, options.dispatch)
    print_table(plan_table(plan.first), options.json)
    print_table(steps_table(plan), options.json)
    if options.dry_run:
        if options.json:
            print_json(plan_json(plan))
        return 0
    console, of = Console(quiet=options.json), len(asked.sizes)

    def carry(ablation: Ablation, rung: str) -> Mapping[str, Any]:
        if not options.json:
            print(f"{rung}: {len(ablation.by_variant) - 1} variant(s) and the base")
        return run_all(ablation, console, options.dispatch, options.prefect)

    def told(rungs: Sequence[Rung]) -> None:
        if not options.json:
            print(rung_text(rungs[-1], of))

    found = Search(asked, told).run(carry)
    if options.json:
        print_json(found.to_json())
    else:
        _summarise(found, of)
    return exit_code(found.status)


def _request(options: argparse.Namespace) -> SearchRequest:
    base = AblationRequest(
        pipeline=options.pipeline,
        overrides=tuple(parse_override(text) for text in options.override),
        seeds=options.seeds,
        evaluation=options.only_evaluations,
        alpha=options.alpha,
        looks=options.looks,
        spending=options.spending,
        strict_code=options.strict_code,
        strict_env=options.strict_env,
        strict_reads=options.strict_reads,
    )
    return asked_search(
        find_study(options.pipeline),
        base,
        space_of(map(parse_dimension, options.space)),
        options.variants,
        driver=options.driver,
        seed=options.search_seed,
        batch=options.batch,
        budgets=parse_vary(options.rungs) if options.rungs else None,
        reduction=options.reduction,
        finalists=options.finalists,
    )


def _summarise(found: Found, of: int) -> None:
    """For a person: who went on from rung to rung, of so many, and what the verdict on the
    finalists says."""
    print(f"{found.id}: {found.status}")
    for rung in found.rungs:
        print(f"  {rung_text(rung, of)}")
    if found.error:
        print(f"  {found.error}")
    if found.verdict is not None:
        summarise(dict(found.verdict))
        print(found.promise)
