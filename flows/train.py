"""The flow `train`: one stage, executed by a worker of the GPU pool (deployment train/gpu).

It does what an inline stage does (lease, child process, checkpoints, exclusive commit), so that a
training that was stopped anywhere is continued by the next attempt wherever that runs.
"""

import queue
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flows.prefect.flows import flow, job_ref
from flows.prefect.page import ProgressReport
from foundry_core.execution.job import Observer, Outcome, StageJob
from foundry_core.execution.runner import execute
from foundry_core.execution.transport import job_from_json
from foundry_core.lineage.events import EventLog
from foundry_core.store.base import Store
from foundry_core.store.open import open_store

States = queue.SimpleQueue[Mapping[str, Any]]
_POLL_SECONDS = 0.5
_STOP_SECONDS = 20.0


@flow(name="train", persist_result=False, log_prints=False)
def train(job: dict[str, Any], store: str) -> str:
    """Builds or reuses the job's artifact in the store both sides share; returns its key.

    job: as `foundry_core.execution.transport` writes it. Raises StageFailed with the stage's own
    error.
    """
    opened = open_store(store)
    ready = replace(job_from_json(job, opened), job_ref=job_ref())
    report = ProgressReport(ready.spec.key)
    outcome = supervised(ready, opened, EventLog(opened.events_uri), report.publish)
    report.publish({"done": 1, "total": 1, "message": outcome.how or "built"}, last=True)
    return outcome.artifact.key


def supervised(job: StageJob, store: Store, events: EventLog, publish: Observer) -> Outcome:
    """`foundry_core.execution.runner.execute` in a thread, while this one stays free for Prefect's
    SIGTERM: a cancelled flow ends its child, closes the attempt and frees the lease first."""
    states: States = queue.SimpleQueue()
    cancelled = threading.Event()
    ended: list[Outcome | BaseException] = []

    def work() -> None:
        try:
            done = execute(job, store, events, observe=states.put, cancelled=cancelled)
            ended.append(done)
        # Carried to the main thread and raised there.
        except BaseException as error:
            ended.append(error)

    worker = threading.Thread(target=work, name="stage")
    worker.start()
    try:
        while worker.is_alive():
            worker.join(_POLL_SECONDS)
            _publish_latest(states, publish)
    finally:
        cancelled.set()
        worker.join(_STOP_SECONDS)
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]


def _publish_latest(states: States, publish: Observer) -> None:
    state = None
    while not states.empty():
        state = states.get()
    if state is not None:
        publish(state)
