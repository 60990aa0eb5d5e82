"""`foundry data ...`: statistics of datasets."""

import argparse
from pathlib import Path

from flows.commands.common import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    stats = actions.add_parser("stats", help="statistics of a robot dataset, recomputed")
    stats.add_argument("folder")
    stats.add_argument("--field", action="append", default=[])
    stats.add_argument("--plot", type=Path, help="write one PNG per field to this folder")
    merge = actions.add_parser("merge-stats", help="merge the statistics of several datasets")
    merge.add_argument("folders", nargs="+")
    merge.add_argument("--out", type=Path, required=True, help="stats.json to write")
    for sub in (stats, merge):
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    from foundry_core.data import inspect

    if options.action == "merge-stats":
        merged, report = inspect.merge_folders({folder: folder for folder in options.folders})
        merged.save(options.out)
        print_json({"written": str(options.out), **report})
        return 0
    statistics = inspect.dataset_statistics(options.folder)
    if options.plot:
        inspect.plot_statistics(statistics, options.plot, options.field)
    description = inspect.describe(statistics, options.field)
    if options.json:
        print_json(description)
    else:
        from rich.console import Console

        Console().print(inspect.render_statistics(description))
    return 0
