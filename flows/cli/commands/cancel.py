"""`foundry cancel RUN`: stop a run, its children and its jobs within seconds, wherever it runs."""

import argparse
import signal
from uuid import UUID

from flows import processes
from flows.cli.commands.common import answer
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError

# A stage has 10 s to end by itself, one elsewhere 20 s; a busy machine takes as long again.
PATIENCE_SECONDS = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run id, or a Prefect flow run's id or name (foundry status)")


def run(options: argparse.Namespace) -> int:
    state = _cancel(options.run)
    return answer(options, {"run": options.run, "state": state}, f"{options.run}: {state}")


def _cancel(name: str) -> str:
    """Stops a run and waits for its end, which it returns: under Prefect it is cancelled there (its
    children follow); another local one is interrupted as by Ctrl-C."""
    entries = [*processes.entries("run"), *processes.entries("ray-job")]
    entry = next((one for one in entries if one.kind == "run" and one.id == name), None)
    if entry is not None and not entry.facts.get("flow_run"):
        return _interrupt(entry)
    flow_run = UUID(entry.facts["flow_run"]) if entry is not None else _find(name)
    if flow_run is None:
        known = [one.id for one in entries]
        hint = nearest(name, known) if known else "nothing runs here; see `foundry status`"
        raise FoundryError(f"no run {name!r} is under way", hint)
    return _through_prefect(flow_run)


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
