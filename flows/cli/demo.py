"""`make demo`: one run from text to a verdict, then a tour of what changing one value costs.

Everything shown is measured here and now: the run, the plans, and the cheap re-run.
"""

import argparse
import json
import sys
from typing import Any

from rich.console import Console as RichConsole

from flows.cli import reported
from flows.cli.commands.common import exit_code, first_plan
from flows.cli.commands.run import print_verdict, run_all, summarise
from flows.console import Console, plan_table, print_table
from flows.runs.planning import Prepared, Request, prepare
from flows.terminal import stdout
from foundry_core.config.overrides import parse_override
from foundry_core.pipeline.cost import stated_rate


def main() -> int:
    parser = argparse.ArgumentParser(prog="foundry-demo", description=__doc__)
    parser.add_argument("pipeline", nargs="?", default="demo", choices=("demo", "demo-fast"))
    name = parser.parse_args().pipeline
    out = stdout()
    return reported(lambda: _run(out, name) or _cascade(out, name))


def _request(name: str, *overrides: str) -> Prepared:
    pairs = tuple(parse_override(text) for text in overrides)
    return prepare(Request(pipeline=name, overrides=pairs))


def _run(out: RichConsole, name: str) -> int:
    """The whole pipeline; prints the verdict."""
    with first_plan():
        prepared = _request(name)
    print_table(plan_table(prepared.plan, prepared.cost(stated_rate())))
    result = run_all(prepared, Console(), prefect=True)
    summarise(result, report=False)
    if result["status"] != "succeeded":
        return exit_code(result["status"])
    from flows.reports.run_report import write_run_report
    from flows.reports.verdict import comparison_in, settled_comparisons
    from foundry_core.evaluation.comparison.tables import terminal_tables

    for artifact in settled_comparisons(prepared.store, result).values():
        for part in terminal_tables(comparison_in(prepared.store, artifact), out.width):
            out.print(part)
    print_verdict(prepared, result)
    out.print(f"report: {write_run_report(result['run_id'])}")
    if name == "demo-fast":
        out.print(
            "demo-fast shows the way from text to a verdict in minutes: its models have learned "
            "next to nothing. `make demo` trains ones that have."
        )
    return 0


def _cascade(out: RichConsole, name: str) -> int:
    """One upstream value, one that is no part of the recipe, one cheap re-run, and back again."""
    llm: Any = prepare(Request(pipeline=name)).pipeline.stages["llm"].recipe
    steps = llm.training.steps
    change = f"llm.training.steps={2 * steps}"
    out.print("\n[bold]what would one changed value of the language model re-run?")
    out.print(f"foundry plan {name} -o {change}")
    changed = _request(name, change)
    print_table(plan_table(changed.plan, changed.cost(stated_rate())))

    out.print("\n[bold]and a changed cadence of logs?")
    cadence = "llm.resources.log_every=7"
    idle = _request(name, cadence).plan
    out.print(f"foundry plan {name} -o {cadence}: {len(idle.to_run())} stages to run")

    out.print("\n[bold]a cheap change, really run: other scenarios for the policy's evaluation")
    cheap = "evaluate.first_scenario=1000"
    few = "evaluate.episodes_per_task=5"
    # Without a server of its own, whose start would take half as long as the run.
    result = run_all(_request(name, cheap, few), Console())
    summarise(result, report=False)
    if result["status"] != "succeeded":
        return 1

    out.print("\n[bold]the original configuration again")
    back = run_all(_request(name), Console())
    summarise(back, report=False)
    built = [stage["name"] for stage in back["stages"] if stage["attempt"]]
    if built:
        out.print(f"unexpected: {json.dumps(built)} ran again")
        return 1
    keys = {stage["name"]: stage["key"][:12] for stage in back["stages"]}
    out.print("next:")
    for line in (
        ". .venv/bin/activate    # once in a shell: then `foundry` is a command",
        f"foundry lineage trace {keys['evaluate']}    # from the success rate to bytes and code",
        f"foundry lineage sql \"FROM upstream('{keys['evaluate']}')\"",
        f"foundry policy serve {keys['vla']} --openpi 8000    # the policy, to robots and exams",
    ):
        out.print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
