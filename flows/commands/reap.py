"""`foundry reap`: close what killed processes left open."""

import argparse

from flows.commands.common import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing beyond --json."""


def run(options: argparse.Namespace) -> int:
    from flows.prefect_api import configured
    from flows.reaper import reap

    reaped = reap(server=configured())
    if options.json:
        print_json(reaped.done)
    else:
        print("\n".join(reaped.lines()) or "nothing to close")
    return 0
