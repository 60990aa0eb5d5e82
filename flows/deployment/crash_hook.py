"""What happens when a coordinator ends before its trainings: nobody waits for them any more."""

from typing import Any

from flows.prefect.api import cancel_children


def cancel_trainings(flow: Any, flow_run: Any, state: Any) -> None:
    """Hook of flows: cancels what the run has started. Runs in the worker, so it works for a
    coordinator that was killed, too."""
    cancel_children(flow_run.id, f"its coordinator {flow_run.name!r} is {state.name.lower()}")
