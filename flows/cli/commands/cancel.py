"""`foundry cancel RUN`: stop a run, its children and its jobs within seconds."""

import argparse

from flows.cli.commands.common import answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run id, or a Prefect flow run's id or name (foundry status)")


def run(options: argparse.Namespace) -> int:
    from flows.service.cancel import cancel

    done = cancel(options.run)
    return answer(options, done, f"{done['run']}: {done['state']}")
