"""`foundry report RUN`."""

import argparse

from flows.commands.common import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run id; `foundry lineage runs` lists them")


def run(options: argparse.Namespace) -> int:
    from flows.reporting import write_run_report

    path = write_run_report(options.run)
    if options.json:
        print_json({"report": str(path)})
    else:
        print(path)
    return 0
