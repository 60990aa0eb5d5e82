"""The flow `foundry`: plan, walk the graph, record.

Stages are Prefect tasks of this one flow; ready branches run concurrently. Prefect's own caching is
off: a stage's identity decides what is reused, and a stage reaches Prefect only if it must run or
lies downstream of one that must.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import flows.prefect.settings  # (Prefect reads its settings once, on import)

# isort: split
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import flow_run, task_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows import processes
from flows.ablation.merge import VERDICT
from flows.ablation.plan import Ablation
from flows.ablation.run import AblationRun
from flows.ablation.table import plan_markdown
from flows.console import Console, plan_markdown_of
from flows.deployment import artifacts
from flows.deployment.shutdown import in_time
from flows.deployment.temporary_server import tie
from flows.dispatch.base import Dispatcher
from flows.run.engine import PipelineRun
from flows.run.planning import Prepared

# Waiting costs nothing: the machine's CPU slots bound what works at the same time.
MAX_THREADS = 32


def prefect_ids() -> dict[str, str]:
    """The ids of the flow and task run this is called in, for the lineage."""
    ids = {"prefect_flow_run_id": flow_run.id, "prefect_task_run_id": task_run.id}
    return {name: str(value) for name, value in ids.items() if value}


@task(name="stage", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(run: PipelineRun, name: str) -> str:
    """Executes one stage; the result is its artifact's key."""
    try:
        watch = artifacts.progress_of(run.prepared.specs[name].key)
        key = run.stage(name, prefect_ids(), watch).artifact.key
    except Exception as error:
        run.fail(name, str(error))
        raise
    artifacts.show_stage(run, name)
    return key


@flow(
    name="foundry",
    flow_run_name="{name}",
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_THREADS),
    validate_parameters=False,
    persist_result=False,
)
def walk(run: PipelineRun, name: str) -> dict[str, str]:
    """The flow of one run; see `walk_stages`."""
    artifacts.show_plan(plan_markdown_of(run.prepared.plan))
    with processes.recorded("flow-run", str(flow_run.id)):
        return walk_stages(run)


def walk_stages(run: PipelineRun) -> dict[str, str]:
    """Inside a flow: stage name → artifact key for everything that was not settled by the plan. A
    failed stage stops what needs it and nothing else; then RuntimeError."""
    futures: dict[str, PrefectFuture] = {}
    try:
        for stage in run.affected():
            node = run.prepared.pipeline.stages[stage]
            upstream = [futures[up] for _, _, up in node.upstream() if up in futures]
            futures[stage] = run_stage.submit(run, stage, wait_for=upstream)
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
    name = f"{prepared.pipeline.name} {run.run_id}"
    return run.finish(*attempt(run, console, lambda: walk(run, name=name)))


@contextlib.contextmanager
def _no_tracebacks() -> Iterator[None]:
    """A stage that failed is told in one line, and recorded; on this console, Prefect would add
    its own traceback of it, twice. Whoever sets PREFECT_LOGGING_LEVEL gets everything."""
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, PrefectConsoleHandler)]
    levels = [handler.level for handler in handlers]
    if os.environ["PREFECT_LOGGING_LEVEL"] == flows.prefect.settings.QUIET:
        for handler in handlers:
            handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


@flow(
    name="foundry",
    flow_run_name="{name}",
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_THREADS),
    validate_parameters=False,
    persist_result=False,
)
def walk_united(ablation: AblationRun, name: str) -> None:
    """The flow of one ablation; see `walk_ablation`."""
    artifacts.show_plan(plan_markdown(ablation.ablation))
    with processes.recorded("flow-run", str(flow_run.id)):
        walk_ablation(ablation)


def walk_ablation(ablation: AblationRun) -> None:
    """Inside a flow: the union, then a verdict over the variants that came through. Raises
    RuntimeError when one did not."""
    try:
        walk_stages(ablation.run)
    except RuntimeError:
        rest = ablation.survivors()
        if rest is not None:
            run_stage.submit(rest, VERDICT).wait()
        raise


def run_ablation(
    ablation: Ablation, console: Console, dispatcher: Dispatcher | None = None
) -> dict[str, Any]:
    """Runs a planned ablation inside Prefect; the ablation as JSON. Never raises for a failed
    variant: the status says so."""
    running = AblationRun(ablation, console=console, dispatcher=dispatcher)
    running.start()
    name = f"{ablation.request.title} {running.ablation_id}"
    ended = attempt(running.run, console, lambda: walk_united(running, name=name))
    return running.finish(*ended)


def attempt(run: PipelineRun, console: Console, walk_it: Callable[[], Any]) -> tuple[str, str]:
    """(status, error) of a walk, whatever a stage or Prefect raised."""
    tie()
    try:
        with in_time(), console, _no_tracebacks():
            walk_it()
    except (KeyboardInterrupt, TerminationSignal):
        return "interrupted", "interrupted"
    # Whatever a stage or Prefect raised: recorded with the run, never swallowed.
    except Exception as failure:
        return "failed", str(failure)
    return "succeeded", ""
