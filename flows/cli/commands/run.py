"""`foundry run PIPELINE`."""

import argparse
from typing import Any

from flows.cli.commands.common import (
    add_cost_arguments,
    add_request_arguments,
    add_run_arguments,
    affordable,
    carry_out,
    exit_code,
    first_plan,
    needs_work,
    print_json,
    request,
)
from flows.console import Console, plan_markdown, plan_table, print_table
from flows.dispatch.base import BACKENDS, make_backend
from flows.runs.engine import PipelineRun, RunResult
from flows.runs.fitting import fitted
from flows.runs.planning import Prepared, prepare
from flows.terminal import print_lines
from foundry_core.errors import FoundryError

# Of the metrics of an evaluation (`score.write_evaluation`).
_COUNTS = ("n", "successes", "crashed", "pending")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_request_arguments(parser)
    add_run_arguments(parser)
    add_cost_arguments(parser)


def run(options: argparse.Namespace) -> int:
    BACKENDS.module(options.dispatch)  # an unknown one is refused before anything is planned
    with first_plan():
        prepared = prepare(request(options))
    if options.dry_run:
        prepared = fitted(prepared, options.dispatch)
    cost = affordable(options, prepared)
    quiet = options.json
    print_table(plan_table(prepared.plan, cost), quiet)
    if options.dry_run:
        if options.json:
            print_json(prepared.plan.to_json() | {"cost": cost.to_json()})
        return 0
    result = run_all(prepared, Console(quiet=quiet), options.dispatch, options.prefect)
    if options.json:
        print_json(result)
    else:
        summarise(result)
        print_verdict(prepared, result)
    return exit_code(result["status"])


def run_all(
    prepared: Prepared, console: Console, dispatch: str = "inline", prefect: bool = False
) -> RunResult:
    """Carries out a prepared request; the result says how it ended. prefect: see `carry_out`."""
    backend = make_backend(dispatch) if needs_work(prepared) else None
    under_way = PipelineRun(prepared, observe=console.observe, backend=backend)
    plan = plan_markdown(prepared.plan)
    return carry_out(under_way, prepared, plan, console, under_way.folder, prefect)


def held_out_lines(result: RunResult) -> list[str]:
    """A line per training that was validated: its last measures, with units."""
    from foundry_core.training.validation.measures import last_measures

    lines = []
    for stage in result["stages"]:
        measures = last_measures(result["metrics"], stage["name"])
        if measures:
            from flows.reports.held_out import in_a_line

            said = in_a_line(stage["kind"], stage["artifact"] or stage["key"], measures)
            lines.append(f"  held out, {stage['name']}: {said}")
    return lines


def doubt_lines(result: RunResult) -> list[str]:
    """A line per doubt that a conversion has of its data, built or reused."""
    from flows.runs.doubted import COUNTS, doubted

    lines: list[str] = []
    for stage in result["stages"]:
        if any(result["metrics"].get(f"{stage['name']}.{name}") for name in COUNTS):
            from foundry_core.home import store_uri
            from foundry_core.store.open import open_store

            store = open_store(store_uri())
            artifact = store.read(stage["kind"], stage["artifact"] or stage["key"])
            said = doubted(store, artifact) if artifact else []
            lines += [f"  doubt, {stage['name']}: {one}" for one in said]
    return lines


def rate_lines(result: RunResult) -> list[str]:
    """A line per evaluation that was played or reused: its rate with count and exact interval."""
    found: dict[str, dict[str, Any]] = {}
    metrics = result["metrics"]
    for stage in result["stages"]:
        counts = {name: metrics.get(f"{stage['name']}.{name}") for name in _COUNTS}
        if None not in counts.values():
            found[stage["name"]] = counts
    if not found:
        return []
    from foundry_core.evaluation.score import Score

    return [f"  {name}: {Score(**counts).sentence()}" for name, counts in found.items()]


def written_report(run_id: str) -> str:
    """Where the report of a finished run was written; how to write it where it could not be."""
    from flows.reports.run_report import write_run_report

    try:
        return str(write_run_report(run_id))
    except (FoundryError, OSError) as error:
        return f"not written ({error}); foundry report {run_id}"


def print_verdict(prepared: Prepared, result: RunResult) -> None:
    """What the comparisons of a finished run say, if it has any: its last lines."""
    from flows.reports.verdict import verdict_lines

    print_lines(verdict_lines(prepared.store, result))


def summarise(result: RunResult, *, report: bool = True) -> None:
    """For a person: what was built, reused and failed, how well it works, and where to look at it.
    report: whether the report of a run with an evaluation is written, and its place said."""
    from flows.prefect.addresses import run_page, served

    built = [stage["name"] for stage in result["stages"] if stage["attempt"]]
    reused = [stage["name"] for stage in result["stages"] if stage["action"] == "reuse"]
    print(f"run {result['run_id']}: {result['status']} in {result['seconds']:.1f} s")
    print(f"  built:  {', '.join(built) or 'nothing'}")
    print(f"  reused: {', '.join(reused) or 'nothing'}")
    for stage in result["stages"]:
        if stage["error"]:
            print(f"  {stage['name']}: {stage['error']}")
    for line in doubt_lines(result):
        print(line)
    for line in (held_out := held_out_lines(result)):
        print(line)
    for line in (rates := rate_lines(result)):
        print(line)
    if rates and report and built:
        print(f"  report: {written_report(result['run_id'])}")
    elif held_out or (rates and report):  # a second that a run of nothing has no use for
        print(f"  report: foundry report {result['run_id']}")
    if url := served():
        print(f"  page:   {url}{run_page(result['run_id'])}")
