"""Stopping a run from outside, wherever it runs."""

import signal
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
    entry = next((one for one in processes.entries("run") if one.id == name), None)
    if entry is not None and not entry.facts.get("flow_run"):
        return {"run": name, "state": _interrupt(entry)}
    flow_run = UUID(entry.facts["flow_run"]) if entry is not None else _find(name)
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

    runs = open_runs() if configured() else []
    return next((run.id for run in runs if name in (str(run.id), run.name)), None)


def _through_prefect(run_id: UUID) -> str:
    """Its worker ends it; its children are cancelled at once as well, in case it cannot do that."""
    from flows.prefect.api import cancel_children, cancel_run, has_ended, read_run

    cancel_run(run_id, "foundry cancel")
    cancel_children(run_id, "foundry cancel of its parent")
    if not processes.wait_until(lambda: has_ended(run_id), PATIENCE_SECONDS, 0.5):
        return "cancelling: the reaper forces it within two minutes"
    run = read_run(run_id)
    return (run.state.name or "ended").lower() if run and run.state else "deleted"
