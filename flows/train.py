"""The flow `train`: one stage, executed by a worker of the GPU pool (deployment train/gpu).

It does what an inline stage does (lease, child process, checkpoints, exclusive commit), so that a
training that was stopped anywhere is continued by the next attempt wherever that runs.
"""

import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from flows.prefect.flows import flow, job_ref
from flows.prefect.page import ProgressReport
from foundry_core.execution.job import Observer, Outcome, StageJob
from foundry_core.execution.runner import execute
from foundry_core.lineage.events import EventLog
from foundry_core.store.base import Store
from foundry_core.store.open import open_store

_POLL_SECONDS = 0.5
_STOP_SECONDS = 20.0


@flow(name="train", persist_result=False, log_prints=False)
def train(job: dict[str, Any], store: str) -> str:
    """Builds or reuses the job's artifact in the store both sides share; returns its key.

    job: as `StageJob.to_json` writes it. Raises StageFailed with the stage's own
    error.
    """
    opened = open_store(store)
    ready = replace(StageJob.from_json(job, opened), job_ref=job_ref())
    report = ProgressReport(ready.spec.name)
    outcome = supervised(ready, opened, EventLog(opened.events_uri), report.publish)
    report.publish({"done": 1, "total": 1, "message": outcome.how or "built"}, last=True)
    return outcome.artifact.key


def supervised(job: StageJob, store: Store, events: EventLog, publish: Observer) -> Outcome:
    """`foundry_core.execution.runner.execute` in a thread, while this one stays free for Prefect's
    SIGTERM: a cancelled flow ends its child, closes the attempt and frees the lease first."""
    states: deque[Mapping[str, Any]] = deque(maxlen=1)
    cancelled = threading.Event()
    pool = ThreadPoolExecutor(1, thread_name_prefix="stage")
    stage = pool.submit(execute, job, store, events, observe=states.append, cancelled=cancelled)
    try:
        while not stage.done():
            wait([stage], _POLL_SECONDS)
            if states:
                publish(states.pop())
    finally:
        cancelled.set()
        wait([stage], _STOP_SECONDS)
    return stage.result(0)
