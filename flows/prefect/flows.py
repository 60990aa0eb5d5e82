"""What flows are made of: decorators, the run they are in, and the signal that ends them."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from prefect import allow_failure, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.flows import Flow
from prefect.futures import PrefectFuture
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import flow_run, task_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.prefect import QUIET

__all__ = [
    "NO_CACHE",
    "Flow",
    "PrefectFuture",
    "TerminationSignal",
    "allow_failure",
    "flow",
    "flow_run_id",
    "get_run_logger",
    "job_ref",
    "no_tracebacks",
    "task",
    "threads",
]


def threads(count: int) -> TaskRunner[Any]:
    """Runs a flow's tasks in so many threads of its process."""
    return ThreadPoolTaskRunner(max_workers=count)


def flow_run_id() -> str:
    """The id of the flow run that this is called in."""
    return str(flow_run.id)


def job_ref() -> str:
    """The task run, else the flow run, that this is called in, as the lineage records it."""
    if task_run.id:
        return f"prefect:task-run/{task_run.id}"
    return f"prefect:flow-run/{flow_run.id}"


@contextlib.contextmanager
def no_tracebacks() -> Iterator[None]:
    """A failed stage is one line, and recorded; on a person's console Prefect would add its own
    traceback of it, twice. Whoever sets PREFECT_LOGGING_LEVEL gets everything."""
    handlers = logging.getLogger().handlers
    levels = {h: h.level for h in handlers if isinstance(h, PrefectConsoleHandler)}
    if os.environ["PREFECT_LOGGING_LEVEL"] == QUIET:
        for handler in levels:
            handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in levels.items():
            handler.setLevel(level)
