"""`foundry report RUN|ABLATION`."""

import argparse

from flows.cli.commands.common import answer
from foundry_core.home import home_dir
from foundry_core.store.disk import naming_disk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="id of a run or an ablation; `foundry lineage runs` lists them")


def run(options: argparse.Namespace) -> int:
    from flows.ablation.report import ablation_ids, write_ablation_report
    from flows.reports.run_report import write_run_report

    write = write_ablation_report if options.run in ablation_ids() else write_run_report
    with naming_disk(home_dir()):
        path = str(write(options.run))
    return answer(options, {"report": path}, path)
