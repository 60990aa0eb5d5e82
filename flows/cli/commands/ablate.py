"""`foundry ablate PIPELINE --vary PATH=V1,V2 ...`, or `foundry ablate STUDY`."""

import argparse
from typing import Any

from flows.ablation.plan import Ablation, plan_ablation
from flows.ablation.space import parse_dimension, space_of
from flows.ablation.studies import find_study
from flows.ablation.table import cost_table, plan_json, plan_markdown, plan_table
from flows.ablation.variants import AblationRequest, asked_sample, parse_variant, parse_vary
from flows.cli.commands.common import (
    add_cost_arguments,
    add_pipeline_arguments,
    add_run_arguments,
    affordable,
    carry_out,
    exit_code,
    first_plan,
    needs_work,
    print_json,
)
from flows.console import Console, print_table
from flows.dispatch.base import BACKENDS, make_backend
from flows.runs.fitting import fitted
from foundry_core.config.overrides import parse_override
from foundry_core.evaluation.design import FAMILIES, SPENDINGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_pipeline_arguments(parser, "change the base, and so every variant")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="PATH=V,V",
        help="values of one setting; given several times, all combinations",
    )
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME:PATH=V,PATH=V",
        help="one named set of changes",
    )
    add_space_argument(parser)
    parser.add_argument(
        "--sample", type=int, metavar="N", help="so many variants drawn from the space at random"
    )
    parser.add_argument(
        "--sample-seed", type=int, default=0, metavar="N", help="another sample (0)"
    )
    parser.add_argument(
        "--seeds", type=int, help="runs per variant, each with its seed (1, or the study's)"
    )
    add_verdict_arguments(parser)
    parser.add_argument(
        "--family", choices=FAMILIES, help="which pairs are promised to be right (base)"
    )
    add_run_arguments(parser)
    add_cost_arguments(parser)


def add_space_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="PATH=VALUES",
        help="what is drawn from: [a, b], or {low: 1e-4, high: 1e-2, log: true}",
    )


def add_verdict_arguments(parser: argparse.ArgumentParser) -> None:
    """How what was evaluated is judged."""
    parser.add_argument(
        "--only-evaluations", metavar="STAGE", help="the evaluation that is compared"
    )
    parser.add_argument("--alpha", type=float, default=0.05, help="level of each family of tests")
    parser.add_argument(
        "--looks",
        type=int,
        metavar="N",
        help="look at the variants N times while they play; who is decided stops",
    )
    parser.add_argument(
        "--spending", choices=SPENDINGS, help="how the looks share alpha (obrien-fleming)"
    )


def run(options: argparse.Namespace) -> int:
    BACKENDS.module(options.dispatch)  # an unknown one is refused before anything is planned
    study = find_study(options.pipeline)
    space = space_of(map(parse_dimension, options.space))
    request = AblationRequest(
        pipeline=options.pipeline,
        overrides=tuple(parse_override(text) for text in options.override),
        vary=tuple(parse_vary(text) for text in options.vary),
        variants=tuple(parse_variant(text) for text in options.variant),
        sample=asked_sample(space, options.sample, options.sample_seed),
        seeds=1 if options.seeds is None else options.seeds,
        evaluation=options.only_evaluations,
        alpha=options.alpha,
        looks=options.looks,
        spending=options.spending,
        family=options.family,
        strict_code=options.strict_code,
        strict_env=options.strict_env,
        strict_reads=options.strict_reads,
    )
    if study is not None:
        request = study.request(request, options.seeds)
        if not options.json:
            print(" ".join((study.question, study.sizes)).strip())
    with first_plan():
        ablation = plan_ablation(request)
    if options.dry_run:
        fitted(ablation.merged, options.dispatch)
    rate = affordable(options, ablation.merged).gpu_rate
    quiet = options.json
    print_table(plan_table(ablation, rate), quiet)
    if ablation.merged.plan.to_run():
        print_table(cost_table(ablation, rate), quiet)
    if options.dry_run:
        if options.json:
            print_json(plan_json(ablation, rate))
        return 0
    result = run_all(ablation, Console(quiet=quiet), options.dispatch, options.prefect)
    if options.json:
        print_json(result)
    else:
        summarise(result)
    return exit_code(result["status"])


def run_all(
    ablation: Ablation, console: Console, dispatch: str = "inline", prefect: bool = False
) -> dict[str, Any]:
    """Carries out a planned ablation. Adds where the report lies."""
    from flows.ablation.known import report_of
    from flows.ablation.run import AblationRun

    merged = ablation.merged
    backend = make_backend(dispatch) if needs_work(merged) else None
    under_way = AblationRun(ablation, observe=console.observe, backend=backend)
    plan = plan_markdown(ablation)
    folder = under_way.run.folder
    result: dict[str, Any] = {**carry_out(under_way, merged, plan, console, folder, prefect)}
    return {**result, "report": str(report_of(result))}


def summarise(result: dict[str, Any]) -> None:
    """For a person: what was built and failed, the verdict, the seeds."""
    from rich.markup import escape
    from rich.table import Table

    from flows.ablation.verdict_table import effects_rows, seeds_text
    from flows.prefect.addresses import run_page, served

    built = [stage["name"] for stage in result["stages"] if stage["attempt"]]
    print(f"ablation {result['ablation_id']}: {result['status']} in {result['seconds']:.1f} s")
    print(f"  built: {', '.join(built) or 'nothing'}")
    for seed_run in result["seed_runs"]:
        if seed_run["error"]:
            print(f"  {seed_run['label']}: {seed_run['error']}")
    header, *body = effects_rows(result["effects"])
    table = Table(*header, title="verdict", title_justify="left")
    for row in body:
        table.add_row(*map(escape, row))
    print_table(table)
    if result["sequential"]:
        from foundry_core.evaluation.comparison.result import Sequential
        from foundry_core.evaluation.comparison.sentences import saved_text

        print(saved_text(Sequential(**result["sequential"])))
    if result["seeds"]:
        print(seeds_text(result["seeds"]))
    print(f"report: {result['report']}")
    if url := served():
        print(f"page: {url}{run_page(result['ablation_id'])}")
