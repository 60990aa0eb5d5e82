"""`foundry status`: what runs, what waits, who works."""

import argparse
from collections.abc import Iterable
from typing import Any

from flows import processes
from flows.cli.commands.common import print_json
from foundry_core.errors import FoundryError
from foundry_core.home import store_uri
from foundry_core.store.lease import Process, is_dead
from foundry_core.store.open import open_store

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing beyond --json."""


def run(options: argparse.Namespace) -> int:
    found = _summary()
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


def _summary() -> Row:
    """Everything, as JSON. server: the URL, None without one, or why it does not answer."""
    from flows.prefect.api import configured, server_url

    entries = (*processes.entries("run"), *processes.entries("ray-job"))
    found: Row = {
        "runs": list(map(_run, entries)),
        "leases": [
            {"key": key} | _holder(holder, "held")
            for key, holder in open_store(store_uri()).holders()
        ],
        "server": None,
        "queue": [],
        "pools": [],
    }
    if configured():
        found["server"] = server_url()
        try:
            found |= {"queue": _queue(), "pools": _pools()}
        except FoundryError as error:
            found["server"] = error.message
    return found


def _run(entry: processes.Entry) -> Row:
    """A pipeline run or a Ray job whose process has not recorded its end."""
    return {
        "run": entry.id,
        "kind": entry.kind,
        "pipeline": entry.facts.get("pipeline", ""),
        **_holder(entry.process, "running"),
        "flow_run": entry.facts.get("flow_run"),
    }


def _holder(process: Process, alive: str) -> Row:
    state = "dead: foundry reap" if is_dead(process) else alive
    return {"host": process["host"], "pid": process["pid"], "state": state}


def _queue() -> list[Row]:
    """Flow runs of the server that have not ended, oldest first."""
    from flows.prefect.api import open_runs

    return [
        {
            "name": run.name,
            "id": str(run.id),
            "state": run.state.name if run.state else "",
            "pool": run.work_pool_name or "",
            "since": str(run.state.timestamp)[:19] if run.state else "",
        }
        for run in open_runs()
    ]


def _pools() -> list[Row]:
    """Pools with their limit and the workers that poll them."""
    from flows.prefect.pools import online_workers, pool_limits

    return [
        {"pool": pool, "limit": limit, "online": online_workers(pool) or []}
        for pool, limit in pool_limits().items()
    ]


def _section(title: str, rows: list[Row], columns: Iterable[str]) -> None:
    print(f"{title}: {len(rows) or 'none'}")
    cells = [[_text(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(padded)}".rstrip())


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "no worker online"
    return "no limit" if value is None else str(value)
