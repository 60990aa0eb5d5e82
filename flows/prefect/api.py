"""What Foundry asks of a Prefect server: a few calls, with errors in plain words."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from uuid import UUID

import flows.prefect.settings  # noqa: F401  (Prefect reads its settings once, on import)

# isort: split
import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from foundry_core.errors import FoundryError

PIPELINE_POOL = "foundry"
GPU_POOL = "gpu-pool"
TRAIN_DEPLOYMENT = "train/gpu"
OPEN_STATES = (
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
)
OUTAGE_SECONDS = 600.0
_UNREACHABLE = (httpx.TransportError, OSError)
T = TypeVar("T")


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
    except _UNREACHABLE as error:
        raise FoundryError(
            f"the Prefect server at {url} does not answer ({type(error).__name__})",
            "start `foundry serve`, or unset PREFECT_API_URL to run without a server",
        ) from error


def patiently(call: Callable[[], T], told: Callable[[str], None], seconds: float) -> T:
    """call(), again and again while the server is away or overloaded, for at most `seconds`: a
    restart of the server must not end a training of days. Other errors are raised at once."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except (FoundryError, PrefectHTTPStatusError, *_UNREACHABLE) as error:
            if not _away(error) or time.monotonic() > deadline:
                raise
            told("waits for the Prefect server")
            time.sleep(min(5.0, seconds / 10))


def _away(error: Exception) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, _UNREACHABLE) or isinstance(error.__cause__, _UNREACHABLE)


def open_runs(
    *, tags: Iterable[str] = (), parent: UUID | None = None, states: Iterable[StateType] = ()
) -> list[FlowRun]:
    """Flow runs that have not ended (or those in `states`), oldest first."""
    names = list(tags)
    filters: dict[str, Any] = {
        "state": FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states or OPEN_STATES)))
    }
    if names:
        filters["tags"] = FlowRunFilterTags(all_=names)
    if parent:
        filters["parent_flow_run_id"] = FlowRunFilterParentFlowRunId(any_=[parent])
    with api() as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(**filters))
    return sorted(runs, key=lambda run: str(run.created))


def read_run(run_id: UUID) -> FlowRun | None:
    with api() as client:
        try:
            return client.read_flow_run(run_id)
        except ObjectNotFound:
            return None


def set_state(run_id: UUID, kind: StateType, message: str, *, force: bool = False) -> None:
    """Proposes a state; `force` passes by Prefect's rules (closing what cannot close itself)."""
    name = "Cancelling" if kind is StateType.CANCELLING else None
    state: State = State(type=kind, name=name, message=message)
    with api() as client, contextlib.suppress(ObjectNotFound):
        client.set_flow_run_state(run_id, state, force=force)


def cancel_run(run_id: UUID, message: str) -> None:
    """Asks a run to end. One that no process has taken up ends at once."""
    set_state(run_id, StateType.CANCELLING, message)


def cancel_children(run_id: UUID, message: str) -> int:
    """Cancels the open runs that a flow run has started; how many."""
    children = open_runs(parent=run_id)
    for child in children:
        if child.state and not child.state.is_cancelling():
            cancel_run(child.id, message)
    return len(children)


def reschedule(run_id: UUID, message: str) -> None:
    """Back into the queue, whatever state it is in."""
    state: State = State(type=StateType.SCHEDULED, name="AwaitingRetry", message=message)
    with api() as client, contextlib.suppress(ObjectNotFound):
        client.set_flow_run_state(run_id, state, force=True)


def process_pools() -> set[str]:
    """Names of the pools whose workers start plain processes."""
    with api() as client:
        return {pool.name for pool in client.read_work_pools() if pool.type == "process"}


def parent_of(run: FlowRun) -> FlowRun | None:
    """The flow run that started this one and waits for it; None when a person started it."""
    if run.parent_task_run_id is None:
        return None
    with api() as client:
        try:
            task = client.read_task_run(run.parent_task_run_id)
            return client.read_flow_run(task.flow_run_id) if task.flow_run_id else None
        except ObjectNotFound:
            return None


def configured() -> bool:
    """Whether there is a server that outlives this process."""
    return bool(PREFECT_API_URL.value())
