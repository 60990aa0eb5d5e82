"""`foundry reap`: close what killed processes left open."""

import argparse

from flows.cli.commands.common import answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing beyond --json."""


def run(options: argparse.Namespace) -> int:
    from flows.prefect.api import configured
    from flows.service.reaper import reap

    reaped = reap(server=configured())
    return answer(options, reaped, "\n".join(reaped.lines()) or "nothing to close")
