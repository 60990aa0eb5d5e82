"""`foundry status`: what runs, what waits, who works."""

import argparse

from flows.cli.commands.common import print_json
from flows.service.status import Row, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing beyond --json."""


def run(options: argparse.Namespace) -> int:
    found = summary()
    if options.json:
        print_json(found)
        return 0
    _section("runs", found["runs"], ("run", "kind", "host", "pid", "state"))
    _section("stages in flight", found["leases"], ("key", "host", "pid", "state"))
    if found["server"] is None:
        print("no Prefect server (foundry serve starts one)")
        return 0
    print(f"server {found['server']}")
    _section("flow runs", found["queue"], ("name", "state", "pool", "since"))
    _section("pools", found["pools"], ("pool", "limit", "online"))
    return 0


def _section(title: str, rows: list[Row], columns: tuple[str, ...]) -> None:
    print(f"{title}: {len(rows) or 'none'}")
    cells = [[_text(row[column]) for column in columns] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))] if cells else []
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(padded)}".rstrip())


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "no worker online"
    return "no limit" if value is None else str(value)
