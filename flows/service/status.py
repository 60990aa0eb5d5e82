"""What is going on: runs of this home, stages that hold leases, Prefect's queue and workers."""

from typing import Any

from flows import processes
from foundry_core.errors import FoundryError
from foundry_core.home import store_uri
from foundry_core.store.lease import is_dead
from foundry_core.store.open import open_store

Row = dict[str, Any]


def runs() -> list[Row]:
    """Pipeline runs and Ray jobs whose process has not recorded its end."""
    rows = []
    for entry in (*processes.entries("run"), *processes.entries("ray-job")):
        process = entry.process
        rows.append(
            {
                "run": entry.id,
                "kind": entry.kind,
                "pipeline": entry.facts.get("pipeline", ""),
                "host": process["host"],
                "pid": process["pid"],
                "state": "dead: foundry reap" if entry.dead else "running",
                "flow_run": entry.facts.get("flow_run"),
            }
        )
    return rows


def leases() -> list[Row]:
    """Who works on which key."""
    return [
        {
            "key": key,
            "host": holder["host"],
            "pid": holder["pid"],
            "state": "dead: foundry reap" if is_dead(holder) else "held",
        }
        for key, holder in open_store(store_uri()).holders()
    ]


def queue() -> list[Row]:
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


def workers() -> list[Row]:
    """Pools with their limit and the workers that poll them."""
    from flows.prefect.pools import online_workers, pool_limits

    return [
        {"pool": pool, "limit": limit, "online": online_workers(pool) or []}
        for pool, limit in pool_limits().items()
    ]


def summary() -> Row:
    """Everything, as JSON. server: the URL, None without one, or why it does not answer."""
    from flows.prefect.api import configured, server_url

    found: Row = {"runs": runs(), "leases": leases(), "server": None, "queue": [], "pools": []}
    if configured():
        found["server"] = server_url()
        try:
            found |= {"queue": queue(), "pools": workers()}
        except FoundryError as error:
            found["server"] = error.message
    return found
