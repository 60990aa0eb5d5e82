"""What Foundry asks of a Prefect server: a few calls, with errors in plain words."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.prefect import secret
from foundry_core.errors import FoundryError

__all__ = ["FlowRun", "State", "StateType"]

PIPELINE_POOL = "foundry"
GPU_POOL = "gpu-pool"
TRAIN_DEPLOYMENT = "train/gpu"
_FLUSH_SECONDS = 10.0
OPEN_STATES = tuple(kind for kind in StateType if kind not in TERMINAL_STATES)
_UNREACHABLE = (httpx.TransportError, OSError)
# Servers that end with a run of this process: nobody looks at them.
_temporary: set[str] = set()


def server_url() -> str:
    """The server that is configured. Raises FoundryError when there is none: an ephemeral one dies
    with its client, so nothing could be left for a worker there."""
    url = PREFECT_API_URL.value()
    if not url:
        raise FoundryError(
            "no Prefect server is configured (PREFECT_API_URL is not set)",
            "start `foundry serve` in another shell, with the same FOUNDRY_HOME",
        )
    return url


@contextlib.contextmanager
def api() -> Iterator[SyncPrefectClient]:
    """A client of the configured server; FoundryError when it does not answer."""
    url = server_url()
    try:
        with get_client(sync_client=True) as client:
            yield client
    except PrefectHTTPStatusError as error:
        if error.response.status_code != httpx.codes.UNAUTHORIZED:
            raise
        raise FoundryError(
            f"the Prefect server at {url} asks for another password",
            f"set {secret.CLIENT} to it, or FOUNDRY_HOME to the home of its `foundry serve`",
        ) from error
    except _UNREACHABLE as error:
        raise FoundryError(
            f"the Prefect server at {url} does not answer ({type(error).__name__})",
            "start `foundry serve`, or unset PREFECT_API_URL to run without a server",
        ) from error


def away(error: Exception) -> bool:
    """Whether the server is away or overloaded: then the same call may succeed later."""
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, _UNREACHABLE) or isinstance(error.__cause__, _UNREACHABLE)


def open_runs(
    *, tags: Sequence[str] = (), parent: UUID | None = None, states: Iterable[StateType] = ()
) -> list[FlowRun]:
    """Flow runs that have not ended (or those in `states`), oldest first."""
    wanted: dict[str, Any] = {"state": {"type": {"any_": list(states or OPEN_STATES)}}}
    if tags:
        wanted["tags"] = {"all_": list(tags)}
    if parent:
        wanted["parent_flow_run_id"] = {"any_": [parent]}
    found = FlowRunFilter.model_validate(wanted)
    with api() as client:
        runs = client.read_flow_runs(flow_run_filter=found)
    return sorted(runs, key=lambda run: str(run.created))


def read_run(run_id: UUID) -> FlowRun | None:
    """None when it was deleted."""
    with api() as client, contextlib.suppress(ObjectNotFound):
        return client.read_flow_run(run_id)
    return None


def has_ended(run_id: UUID) -> bool:
    """Whether a run is in a final state, or is gone."""
    run = read_run(run_id)
    return run is None or run.state is None or run.state.is_final()


def set_state(run_id: UUID, kind: StateType, message: str, *, force: bool = False) -> None:
    """Proposes a state; `force` passes by Prefect's rules (closing what cannot close itself)."""
    names = {StateType.CANCELLING: "Cancelling", StateType.SCHEDULED: "AwaitingRetry"}
    state: State = State(type=kind, name=names.get(kind), message=message)
    with api() as client, contextlib.suppress(ObjectNotFound):
        client.set_flow_run_state(run_id, state, force=force)


def cancel_run(run_id: UUID, message: str) -> None:
    """Asks a run to end. One that no process has taken up ends at once."""
    set_state(run_id, StateType.CANCELLING, message)


def cancel_children(run_id: UUID, message: str) -> None:
    """Cancels the open runs that a flow run has started."""
    for child in open_runs(parent=run_id):
        if child.state and not child.state.is_cancelling():
            cancel_run(child.id, message)


def reschedule(run_id: UUID, message: str) -> None:
    """Back into the queue, whatever state it is in."""
    set_state(run_id, StateType.SCHEDULED, message, force=True)


def parent_of(run: FlowRun) -> FlowRun | None:
    """The flow run that started this one and waits for it; None when a person started it."""
    if run.parent_task_run_id is None:
        return None
    with api() as client, contextlib.suppress(ObjectNotFound):
        task = client.read_task_run(run.parent_task_run_id)
        return client.read_flow_run(task.flow_run_id) if task.flow_run_id else None
    return None


def configured() -> bool:
    """Whether there is a server that outlives this process."""
    url = PREFECT_API_URL.value()
    return bool(url) and url not in _temporary


@contextlib.contextmanager
def connected(url: str, password: str) -> Iterator[None]:
    """In the block, Prefect talks to the server at `url`, which ends after it. What is queued for
    it is sent before the block is left."""
    _temporary.add(url)
    with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: password}):
        try:
            yield
        finally:
            for worker in (EventsWorker, APILogWorker):
                worker.drain_all(timeout=_FLUSH_SECONDS, at_exit=False)
            _temporary.discard(url)


def start_training(
    parameters: dict[str, Any], *, name: str, tags: list[str], idempotency_key: str
) -> FlowRun:
    """A new run of train/gpu, or the one that exists with this idempotency key."""
    started = run_deployment(
        TRAIN_DEPLOYMENT,
        parameters=parameters,
        flow_run_name=name,
        tags=tags,
        idempotency_key=idempotency_key,
        timeout=0,
    )
    return cast(FlowRun, started)  # a coroutine only where an event loop runs in this thread


def read_run_and_progress(run_id: UUID) -> tuple[FlowRun | None, dict[str, Any] | None]:
    """A run, None when it was deleted, and the progress it shows, as an observer takes it."""
    mine = ArtifactFilter.model_validate(
        {"flow_run_id": {"any_": [run_id]}, "type": {"any_": ["progress"]}}
    )
    with api() as client, contextlib.suppress(ObjectNotFound):
        run = client.read_flow_run(run_id)
        for found in client.read_artifacts(artifact_filter=mine, limit=1):
            data: Any = found.data or 0.0
            return run, {"done": float(data), "total": 100.0, "message": found.description or ""}
        return run, None
    return None, None


def describe_run(run_id: str, tags: Iterable[str], title: str | None = None) -> None:
    """Adds tags to a flow run, and names it where there is a title."""
    with api() as client:
        known = client.read_flow_run(UUID(run_id)).tags
        client.update_flow_run(UUID(run_id), name=title, tags=sorted({*known, *tags}))
