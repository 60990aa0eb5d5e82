"""`foundry plan PIPELINE`."""

import argparse

from flows.cli.commands.common import (
    add_cost_arguments,
    add_dispatch_argument,
    add_request_arguments,
    affordable,
    first_plan,
    print_json,
    request,
)
from flows.dispatch.base import BACKENDS
from flows.runs.fitting import fitted
from flows.runs.planning import prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_request_arguments(parser)
    add_dispatch_argument(parser)
    add_cost_arguments(parser)


def run(options: argparse.Namespace) -> int:
    BACKENDS.module(options.dispatch)  # an unknown one is refused before anything is planned
    with first_plan():
        prepared = fitted(prepare(request(options)), options.dispatch)
    cost = affordable(options, prepared)
    if options.json:
        print_json(prepared.plan.to_json() | {"cost": cost.to_json()})
        return 0
    from flows.console import plan_table, print_table

    print_table(plan_table(prepared.plan, cost))
    return 0
