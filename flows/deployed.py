"""What deployments run: `foundry/full` and `foundry/ablation`, one flow name, two entry points.

Both plan first and show the plan; both walk in the flow run that Prefect started, so that stages
are its tasks and cancelling it stops them.
"""

from collections.abc import Callable
from typing import Any

import flows.prefect.settings  # noqa: F401  (Prefect reads its settings once, on import)

# isort: split
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.ablation.plan import plan_ablation
from flows.ablation.report import write_ablation_report
from flows.ablation.run import AblationRun
from flows.ablation.table import plan_markdown
from flows.console import Console, plan_markdown_of
from flows.deployment import artifacts
from flows.deployment.crash_hook import cancel_trainings
from flows.deployment.forms import (
    Axis,
    NamedVariant,
    Override,
    PipelineName,
    Seeds,
    ablation_request,
    request,
)
from flows.dispatch.base import DispatchName, make_dispatcher
from flows.foundry import MAX_THREADS, walk_ablation, walk_stages
from flows.reports.run_report import write_run_report
from flows.run.engine import PipelineRun
from flows.run.planning import prepare

_DEFAULT = PipelineName("demo")


@flow(
    name="foundry",
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_THREADS),
    persist_result=False,
    on_cancellation=[cancel_trainings],
    on_crashed=[cancel_trainings],
)
def full(
    pipeline: PipelineName = _DEFAULT,
    overrides: list[Override] = [],  # noqa: B006  (None would render as a null in the form)
    stages: list[str] = [],  # noqa: B006
    force: list[str] = [],  # noqa: B006
    dispatch: DispatchName = "gpu-pool",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Runs a pipeline. What is valid is reused; the rest is built, as the plan says.

    Args:
        pipeline: What to run; FOUNDRY_PIPELINES names folders with more.
        overrides: Values that differ from the pipeline's, by path.
        stages: Stages to end with, with all that they need; none means the whole pipeline.
        force: Stages to build anew although they are valid.
        dispatch: Where training runs.
        dry_run: Show the plan and stop before anything runs.
    """
    prepared = prepare(request(pipeline, overrides, stages, force))
    name = prepared.pipeline.name
    changes = ", ".join(f"{path}={value}" for path, value in prepared.request.overrides)
    _introduce(f"{name} {changes}".strip(), [f"pipeline:{name}"])
    artifacts.show_plan(plan_markdown_of(prepared.plan))
    if dry_run:
        return prepared.plan.to_json()
    run = PipelineRun(
        prepared, console=_console(), origin=_origin(), dispatcher=make_dispatcher(dispatch)
    )
    run.start()
    result = _conducted(lambda: walk_stages(run), run.finish)
    artifacts.show_report(write_run_report(run.run_id))
    return result


@flow(
    name="foundry",
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_THREADS),
    persist_result=False,
    on_cancellation=[cancel_trainings],
    on_crashed=[cancel_trainings],
)
def ablation(
    pipeline: PipelineName = _DEFAULT,
    vary: list[Axis] = [],  # noqa: B006
    variants: list[NamedVariant] = [],  # noqa: B006
    seeds: Seeds = 1,
    overrides: list[Override] = [],  # noqa: B006
    evaluation: str = "",
    dispatch: DispatchName = "gpu-pool",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Runs variants of a pipeline, sharing what is equal, and ends in a verdict against the
    unchanged pipeline. A failing variant stops no other one.

    Args:
        pipeline: The base: what every variant changes.
        vary: Settings and the values each takes; several rows make all combinations.
        variants: Named sets of changes, beside the combinations.
        seeds: Replicates of every variant. With 3 or more the verdict is about the recipe, and
            not about one lucky training.
        overrides: Changes of the base, and so of every variant.
        evaluation: The stage that is compared; empty means the base of the pipeline's comparison.
        dispatch: Where training runs.
        dry_run: Show the plan and stop before anything runs.
    """
    planned = plan_ablation(
        ablation_request(pipeline, vary, variants, seeds, overrides, evaluation)
    )
    name = planned.pipeline.name
    _introduce(planned.request.title, [f"pipeline:{name}", "ablation"])
    artifacts.show_plan(plan_markdown(planned))
    if dry_run:
        return {"title": planned.request.title, "to_run": len(planned.united.plan.to_run())}
    running = AblationRun(
        planned, console=_console(), origin=_origin(), dispatcher=make_dispatcher(dispatch)
    )
    running.start()
    _introduce(planned.request.title, [f"pipeline:{name}", f"ablation:{running.ablation_id}"])

    def finish(status: str, error: str = "") -> dict[str, Any]:
        result = running.finish(status, error)
        artifacts.show_effects(result["effects"], result["seeds"])
        artifacts.show_report(write_ablation_report(running.ablation_id))
        return result

    return _conducted(lambda: walk_ablation(running), finish)


def _conducted(walk: Callable[[], Any], finish: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Walks and records the end, whichever it is; a failure or a cancellation goes on to Prefect,
    whose state of the run it decides."""
    try:
        walk()
    except (KeyboardInterrupt, TerminationSignal):
        finish("interrupted", "cancelled")
        raise
    except Exception as error:
        finish("failed", str(error))
        raise
    return finish("succeeded")


def _console() -> Console:
    return Console(file=artifacts.LogLines(get_run_logger().info))


def _origin() -> dict[str, str]:
    return {"prefect_flow_run_id": str(flow_run.id)}


def _introduce(title: str, tags: list[str]) -> None:
    """The run's name and tags say what it is, once the parameters turned out to be valid."""
    with get_client(sync_client=True) as client:
        known = client.read_flow_run(flow_run.id).tags
        client.update_flow_run(flow_run.id, name=title, tags=sorted({*known, *tags}))
