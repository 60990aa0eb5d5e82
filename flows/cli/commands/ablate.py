"""`foundry ablate PIPELINE --vary PATH=V1,V2 ...`."""

import argparse
from typing import Any

from flows.ablation.plan import Ablation, AblationRequest, plan_ablation
from flows.ablation.table import plan_json, plan_table
from flows.ablation.variants import parse_variant, parse_vary
from flows.cli.commands.common import print_json
from flows.console import Console, print_table
from flows.dispatch.base import DISPATCHERS, make_dispatcher
from foundry_core.config.overrides import parse_override


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="a name (see stage_configs/pipelines) or a YAML file")
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
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change the base, and so every variant",
    )
    parser.add_argument("--seeds", type=int, default=1, help="replicates per variant")
    parser.add_argument(
        "--only-evaluations", metavar="STAGE", help="the evaluation that is compared"
    )
    parser.add_argument("--alpha", type=float, default=0.05, help="level of each family of tests")
    parser.add_argument(
        "--strict-code", action="store_true", help="changed training code re-runs training"
    )
    parser.add_argument(
        "--dispatch", default="inline", choices=DISPATCHERS, help="where training runs"
    )
    parser.add_argument("--dry-run", action="store_true", help="stop after the plan")


def run(options: argparse.Namespace) -> int:
    ablation = plan_ablation(_request(options))
    quiet = options.json
    print_table(plan_table(ablation), quiet)
    if options.dry_run:
        if options.json:
            print_json(plan_json(ablation))
        return 0
    result = run_all(ablation, Console(quiet=quiet), options.dispatch)
    if options.json:
        print_json(result)
    else:
        summarise(result)
    return {"succeeded": 0, "interrupted": 130}.get(result["status"], 1)


def _request(options: argparse.Namespace) -> AblationRequest:
    return AblationRequest(
        pipeline=options.pipeline,
        overrides=tuple(parse_override(text) for text in options.override),
        vary=tuple(parse_vary(text) for text in options.vary),
        variants=tuple(parse_variant(text) for text in options.variant),
        seeds=options.seeds,
        evaluation=options.only_evaluations,
        alpha=options.alpha,
        strict_code=options.strict_code,
    )


def run_all(ablation: Ablation, console: Console, dispatch: str = "inline") -> dict[str, Any]:
    """Plans that are known to the last stage never start Prefect. Adds where the report lies."""
    from flows.ablation.report import write_ablation_report

    if ablation.united.plan.to_run() or any(
        row.how == "content" for row in ablation.united.plan.stages.values()
    ):
        from flows.foundry import run_ablation

        result = run_ablation(ablation, console, make_dispatcher(dispatch))
    else:
        from flows.ablation.run import AblationRun

        known = AblationRun(ablation, console=console)
        known.start()
        result = known.finish("succeeded")
    return result | {"report": str(write_ablation_report(result["ablation_id"]))}


def summarise(result: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from flows.ablation.report import effects_rows, seeds_text

    built = [stage["name"] for stage in result["stages"] if stage["attempt"]]
    print(f"ablation {result['ablation_id']}: {result['status']} in {result['seconds']:.1f} s")
    print(f"  built: {', '.join(built) or 'nothing'}")
    for replicate in result["replicates"]:
        if replicate["error"]:
            print(f"  {replicate['label']}: {replicate['error']}")
    header, *body = effects_rows(result["effects"])
    table = Table(*header, title="verdict", title_justify="left")
    for row in body:
        table.add_row(*map(escape, row))
    print_table(table)
    if result["seeds"]:
        print(seeds_text(result["seeds"]))
    print(f"report: {result['report']}")
