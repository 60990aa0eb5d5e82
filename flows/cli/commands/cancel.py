"""`foundry cancel RUN`: stop a run, its children and its jobs within seconds."""

import argparse

from flows.cli.commands.common import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run id, or a Prefect flow run's id or name (foundry status)")


def run(options: argparse.Namespace) -> int:
    from flows.service.cancel import cancel

    done = cancel(options.run)
    if options.json:
        print_json(done)
    else:
        print(f"{done['run']}: {done['state']}")
    return 0
