"""The flow `foundry`: plan, walk the graph, record.

Stages are Prefect tasks of this one flow; ready branches run concurrently. Prefect's own caching is
off: a stage's identity decides what is reused, and a stage reaches Prefect only if it must run or
lies downstream of one that must.
"""

from typing import Any

import flows.settings  # noqa: F401  (Prefect reads its settings once, on import)

# isort: split
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run, task_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.console import Console
from flows.dispatch import Dispatcher
from flows.engine import PipelineRun
from flows.planning import Prepared

# Waiting costs nothing: the machine's CPU slots bound what works at the same time.
_MAX_THREADS = 32


def prefect_ids() -> dict[str, str]:
    """The ids of the flow and task run this is called in, for the lineage."""
    ids = {"prefect_flow_run_id": flow_run.id, "prefect_task_run_id": task_run.id}
    return {name: str(value) for name, value in ids.items() if value}


@task(name="stage", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(run: PipelineRun, name: str) -> str:
    """Executes one stage; the result is its artifact's key."""
    try:
        return run.stage(name, prefect_ids()).artifact.key
    except Exception as error:
        run.fail(name, str(error))
        raise


@flow(
    name="foundry",
    flow_run_name="{name}",
    task_runner=ThreadPoolTaskRunner(max_workers=_MAX_THREADS),
    validate_parameters=False,
    persist_result=False,
)
def walk(run: PipelineRun, name: str) -> dict[str, str]:
    """Stage name → artifact key for everything that was not settled by the plan. A failed stage
    stops what needs it and nothing else; the flow then fails."""
    futures: dict[str, PrefectFuture] = {}
    for stage in run.affected():
        node = run.prepared.pipeline.stages[stage]
        upstream = [futures[up] for _, _, up in node.upstream() if up in futures]
        futures[stage] = run_stage.submit(run, stage, wait_for=upstream)
    try:
        states = {name: future.wait() or future.state for name, future in futures.items()}
    except BaseException:
        # Ctrl-C, or Prefect's cancellation: the task runner waits for its threads, which wait for
        # stages. They are told before it does.
        run.cancelled.set()
        raise
    failed = [name for name, state in states.items() if not state.is_completed()]
    if failed:
        raise RuntimeError(f"stages not completed: {', '.join(failed)}")
    return {name: future.result() for name, future in futures.items()}


def run_prepared(
    prepared: Prepared, console: Console, dispatcher: Dispatcher | None = None
) -> dict[str, Any]:
    """Runs a prepared request inside Prefect; the run as JSON. Never raises for a failed stage:
    the status says so."""
    run = PipelineRun(prepared, console=console, dispatcher=dispatcher)
    run.start()
    status, error = "succeeded", ""
    try:
        with console:
            walk(run, name=f"{prepared.pipeline.name} {run.run_id}")
    except (KeyboardInterrupt, TerminationSignal):
        status, error = "interrupted", "interrupted"
    # Whatever a stage or Prefect raised: the run is recorded as failed, with the error.
    except Exception as failure:
        status, error = "failed", str(failure)
    return run.finish(status, error)
