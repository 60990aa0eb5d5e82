"""What `foundry eval compare` prints and writes of a comparison."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.commands.common import print_json

if TYPE_CHECKING:  # statistics take a second to import
    from foundry_core.evaluation.comparison.result import Comparison

FORMATS = ("table", "csv", "markdown", "json")


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="NAME=TASK,TASK",
        help="report these tasks together too (a benchmark's own groups are known)",
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="of what is printed")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write the tables and the pictures here too"
    )


def show(
    options: argparse.Namespace,
    found: "Comparison",
    budgets: Mapping[str, int],
    unequal: Sequence[str],
) -> int:
    """Prints the comparison in the format that was asked for; writes --out. budgets: by label.
    unequal: a line for whatever the evaluations were asked differently."""
    from foundry_core.evaluation.comparison import tables

    if options.out is not None:
        from foundry_core.evaluation.comparison.files import write_all

        write_all(options.out, found)
    form = "json" if options.json else options.format
    if form == "json":
        print_json(found.to_json() | {"budgets": budgets, "unequal": unequal})
        return 0
    for line in unequal:
        print(f"warning: {line}", file=sys.stderr)
    if form == "csv":
        print(tables.as_csv(found), end="")
    elif form == "markdown":
        print(tables.markdown(found), end="")
    else:
        from flows.terminal import stdout

        console = stdout()
        for part in tables.terminal_tables(found, console.width):
            console.print(part)
    return 0
