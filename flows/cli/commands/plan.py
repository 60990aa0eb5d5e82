"""`foundry plan PIPELINE`."""

import argparse

from flows.cli.commands.common import add_request_arguments, print_json, request
from flows.runs.planning import prepare

add_arguments = add_request_arguments


def run(options: argparse.Namespace) -> int:
    prepared = prepare(request(options))
    if options.json:
        print_json(prepared.plan.to_json())
        return 0
    from flows.console import plan_table, print_table

    print_table(plan_table(prepared.plan))
    return 0
