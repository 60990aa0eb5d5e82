"""Stopping a run from outside, wherever it runs."""

import signal
import time
from uuid import UUID

from flows import processes
from flows.service.status import runs
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError

# A stage has 10 s to end by itself, one elsewhere 20 s; a busy machine takes as long again.
PATIENCE_SECONDS = 60.0


def cancel(name: str) -> dict[str, str]:
    """Stops a run given by run id, flow run id or flow run name, and waits for its end.

    A run under Prefect is cancelled there (its children follow); another local one is interrupted
    as by Ctrl-C. Raises FoundryError when there is no such run, or it runs on another host.
    """
    for entry in processes.entries("run"):
        if entry.id == name:
            if entry.facts.get("flow_run"):
                return {"run": name, "state": _through_prefect(UUID(entry.facts["flow_run"]))}
            return {"run": name, "state": _interrupt(entry)}
    flow_run = _find(name)
    if flow_run is None:
        known = [row["run"] for row in runs()]
        hint = nearest(name, known) if known else "nothing runs here; see `foundry status`"
        raise FoundryError(f"no run {name!r} is under way", hint)
    return {"run": name, "state": _through_prefect(flow_run)}


def _interrupt(entry: processes.Entry) -> str:
    if entry.dead:
        return "its process had died already: foundry reap closes it"
    if not entry.local:
        host = entry.process["host"]
        raise FoundryError(f"run {entry.id} runs on {host}", f"cancel it there: ssh {host}")
    processes.stop(entry, signal.SIGINT, PATIENCE_SECONDS)
    return "interrupted"


def _find(name: str) -> UUID | None:
    from flows.prefect.api import configured, open_runs

    if not configured():
        return None
    for run in open_runs():
        if name in (str(run.id), run.name):
            return run.id
    return None


def _through_prefect(run_id: UUID) -> str:
    """Its worker ends it; its children are cancelled at once as well, in case it cannot do that."""
    from flows.prefect.api import cancel_children, cancel_run, read_run

    cancel_run(run_id, "foundry cancel")
    cancel_children(run_id, "foundry cancel of its parent")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        run = read_run(run_id)
        if run is None or run.state is None or run.state.is_final():
            return (run.state.name or "ended").lower() if run and run.state else "deleted"
        time.sleep(0.5)
    return "cancelling: the reaper forces it within two minutes"
