"""`foundry run PIPELINE`."""

import argparse
from typing import Any

from flows.cli.commands.common import add_request_arguments, print_json, request
from flows.console import Console, plan_table, print_table
from flows.dispatch.base import DISPATCHERS, make_dispatcher
from flows.run.planning import Prepared, prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_request_arguments(parser)
    parser.add_argument(
        "--dispatch", default="inline", choices=DISPATCHERS, help="where training runs"
    )
    parser.add_argument("--dry-run", action="store_true", help="stop after the plan")


def run(options: argparse.Namespace) -> int:
    prepared = prepare(request(options))
    quiet = options.json
    print_table(plan_table(prepared.plan), quiet)
    if options.dry_run:
        if options.json:
            print_json(prepared.plan.to_json())
        return 0
    console = Console(quiet=quiet)
    result = run_all(prepared, console, options.dispatch)
    if options.json:
        print_json(result)
    else:
        summarise(result)
    return {"succeeded": 0, "interrupted": 130}.get(result["status"], 1)


def run_all(prepared: Prepared, console: Console, dispatch: str = "inline") -> dict[str, Any]:
    """A fully cached request never starts Prefect."""
    if needs_work(prepared):
        from flows.foundry import run_prepared

        return run_prepared(prepared, console, make_dispatcher(dispatch))
    from flows.run.engine import PipelineRun

    cached = PipelineRun(prepared, console=console)
    cached.start()
    return cached.finish("succeeded")


def needs_work(prepared: Prepared) -> bool:
    return any(row.action == "run" or row.how == "content" for row in prepared.plan.stages.values())


def summarise(result: dict[str, Any]) -> None:
    built = [stage["name"] for stage in result["stages"] if stage["attempt"]]
    reused = [stage["name"] for stage in result["stages"] if stage["action"] == "reuse"]
    print(f"run {result['run_id']}: {result['status']} in {result['seconds']:.1f} s")
    print(f"  built:  {', '.join(built) or 'nothing'}")
    print(f"  reused: {', '.join(reused) or 'nothing'}")
    for stage in result["stages"]:
        if stage["error"]:
            print(f"  {stage['name']}: {stage['error']}")
