"""The flow `foundry`: plan, walk the graph, record.

One flow with four entry points: `full`, `ablation` and `search` for deployments, each with its
form, and `run_locally` for what a terminal has prepared. Stages are Prefect tasks; ready
branches run concurrently. Prefect's own caching is off: a stage's identity decides what is reused,
and a stage reaches Prefect only if it must run or lies downstream of one that must.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from flows import processes
from flows.ablation.known import report_of
from flows.ablation.plan import Ablation, plan_ablation
from flows.ablation.run import AblationResult, AblationRun
from flows.ablation.search import Rung, Search, plan_search
from flows.ablation.search_table import plan_json, rung_text
from flows.ablation.search_table import plan_markdown as search_markdown
from flows.ablation.table import plan_markdown as ablation_markdown
from flows.console import Console, plan_markdown
from flows.deployment import artifacts, forms
from flows.deployment.temporary_server import temporary_server
from flows.dispatch.base import make_backend
from flows.prefect.api import cancel_children, describe_run
from flows.prefect.flows import (
    NO_CACHE,
    PrefectFuture,
    TerminationSignal,
    allow_failure,
    flow,
    flow_run_id,
    get_run_logger,
    job_ref,
    no_tracebacks,
    task,
    threads,
)
from flows.reports.run_report import write_run_report
from flows.runs.engine import PipelineRun, RunResult
from flows.runs.local import carried_out, end_of
from flows.runs.planning import prepare
from flows.runs.walk import After, Pending, StagesFailed, Work
from foundry_core.pipeline.cost import check_affordable, stated_rate

# Waiting costs nothing: the machine's CPU slots bound what works at the same time.
MAX_THREADS = 32
_PIPELINE, _DISPATCH = forms.PipelineName("demo"), forms.DispatchName("gpu-pool")
_DRIVER = forms.DriverName("random")


def _foundry(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Makes an entry point of the flow."""
    return flow(name="foundry", task_runner=threads(MAX_THREADS), persist_result=False, **options)


def _cancel_trainings(_flow: Any, flow_run: Any, state: Any) -> None:
    """Hook: cancels what the run has started, since nobody waits for it any more. Runs in the
    worker, so it works for a coordinator that was killed, too."""
    cancel_children(flow_run.id, f"its coordinator {flow_run.name!r} is {state.name.lower()}")


_deployed = _foundry(on_cancellation=[_cancel_trainings], on_crashed=[_cancel_trainings])


@_deployed
def full(
    pipeline: forms.PipelineName = _PIPELINE,
    overrides: list[forms.Override] = [],  # noqa: B006  (None would render as a null in the form)
    stages: list[str] = [],  # noqa: B006
    force: list[str] = [],  # noqa: B006
    dispatch: forms.DispatchName = _DISPATCH,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Runs a pipeline. What is valid is reused; the rest is built, as the plan says.

    Args:
        pipeline: What to run; FOUNDRY_PIPELINES names folders with more.
        overrides: Values that differ from the pipeline's, by path.
        stages: Stages to end with, with all that they need; none means the whole pipeline.
        force: Stages to build anew although they are valid.
        dispatch: Where stages run that ask for GPUs.
        dry_run: Show the plan and stop before anything runs.
    """
    prepared = prepare(forms.request(pipeline, overrides, stages, force))
    name = prepared.pipeline.name
    changes = ", ".join(f"{path}={value}" for path, value in prepared.request.overrides)
    describe_run(flow_run_id(), [f"pipeline:{name}"], f"{name} {changes}".strip())
    artifacts.show_plan(plan_markdown(prepared.plan))
    if dry_run:
        return prepared.plan.to_json()
    run = PipelineRun(prepared, **_here(dispatch))
    run.start()
    artifacts.show_run(run.run_id)
    result = _carried_out(lambda: run.walk(_submit), run.finish)
    artifacts.show_report(write_run_report(run.run_id))
    return result


@_deployed
def ablation(
    pipeline: forms.PipelineName = _PIPELINE,
    vary: list[forms.Axis] = [],  # noqa: B006
    variants: list[forms.NamedVariant] = [],  # noqa: B006
    space: list[forms.Drawn] = [],  # noqa: B006
    sample: forms.Count = 0,
    sample_seed: forms.Count = 0,
    seeds: forms.Seeds = 1,
    overrides: list[forms.Override] = [],  # noqa: B006
    evaluation: str = "",
    looks: forms.Count = 0,
    spending: forms.Rule = "obrien-fleming",
    family: forms.Family = "base",
    study: str = "",
    max_gpu_hours: forms.Hours = 0.0,
    dispatch: forms.DispatchName = _DISPATCH,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Runs variants of a pipeline, sharing what is equal, and ends in a verdict against the
    unchanged pipeline. A failing variant stops no other one.

    Args:
        pipeline: The base: what every variant changes.
        vary: Settings and the values each takes; several rows make all combinations.
        variants: Named sets of changes, beside the combinations.
        space: Settings to draw from at random, where all combinations are too many.
        sample: So many variants drawn from the space; 0 draws none, or as many as the study says.
        sample_seed: Another number draws others.
        seeds: Runs of every variant, each with a seed of its own. With 3 or more the verdict is
            about the recipe, and not about one lucky training.
        overrides: Changes of the base, and so of every variant.
        evaluation: The stage that is compared; empty means the base of the pipeline's comparison.
        looks: How often variants are judged while they play: who is decided stops. 0 plays all to
            the end and judges once.
        spending: How the looks share the error; e-value needs no budget.
        family: Which pairs are promised to be right: those with the base, all, or only that the
            best variant does not stop.
        study: A written-down study (stage_configs/ablations): the pipeline and what is varied are
            its own, and what else is set here comes on top. One seed means as many as it states.
        max_gpu_hours: Refuses a plan of more, and one of which nobody can say; 0 allows any.
        dispatch: Where stages run that ask for GPUs.
        dry_run: Show the plan and stop before anything runs.
    """
    planned = plan_ablation(
        forms.ablation_request(
            pipeline, vary, variants, seeds, overrides, evaluation, looks=looks,
            spending=spending, family=family, study=study, space=space, sample=sample,
            sample_seed=sample_seed,
        )
    )  # fmt: skip
    rate, title = stated_rate(), planned.request.title
    describe_run(flow_run_id(), [f"pipeline:{planned.pipeline.name}", "ablation"], title)
    artifacts.show_plan(ablation_markdown(planned, rate))
    check_affordable(planned.cost(rate), max_gpu_hours or None)
    if dry_run:
        return {"title": title, "to_run": len(planned.merged.plan.to_run())}

    def show(result: AblationResult) -> None:
        artifacts.show_effects(result["effects"], result["seeds"])
        artifacts.show_report(report_of(result))

    return _ablated(planned, dispatch, show)


@_deployed
def search(
    pipeline: forms.PipelineName = _PIPELINE,
    space: list[forms.Drawn] = [],  # noqa: B006
    variants: forms.Count = 0,
    driver: forms.DriverName = _DRIVER,
    rungs: forms.Rungs = [],  # noqa: B006
    reduction: forms.Reduction = 3,
    finalists: forms.Some = 1,
    seeds: forms.Seeds = 1,
    batch: forms.Some = 4,
    search_seed: forms.Count = 0,
    overrides: list[forms.Override] = [],  # noqa: B006
    evaluation: str = "",
    looks: forms.Count = 0,
    spending: forms.Rule = "obrien-fleming",
    study: str = "",
    max_gpu_hours: forms.Hours = 0.0,
    dispatch: forms.DispatchName = _DISPATCH,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Tries variants out of a space, the better of them with larger budgets, and judges the best on
    scenarios that nobody has played. A failing variant drops out.

    Args:
        pipeline: The base: what every variant changes.
        space: Settings and what each may be.
        variants: How many are tried; 0 means 16, or as many as the study says.
        driver: Who says which: drawn at random, or one that learns from what came out.
        rungs: A training budget that grows from rung to rung, in one row; none plays one rung at
            the pipeline's own.
        reduction: One of so many goes on to the next rung.
        finalists: How many are judged at the end.
        seeds: New trainings of each finalist and of the base; 3 or more for a verdict about
            recipes.
        batch: Variants at a time, where the driver learns from the ones before.
        search_seed: Another number tries other variants.
        overrides: Changes of the base, and so of every variant.
        evaluation: The stage that is compared; empty means the base of the pipeline's comparison.
        looks: How often the variants of a rung are judged while they play: who is shown to be worse
            stops. 0 plays all to the end.
        spending: How the looks share the error; e-value needs no budget.
        study: A written-down study (stage_configs/ablations): the pipeline, the base and the space
            are its own, and what else is set here comes on top.
        max_gpu_hours: Refuses a plan of more at most, and one of which nobody can say; 0 allows
            any.
        dispatch: Where stages run that ask for GPUs.
        dry_run: Show the plan and stop before anything runs.
    """
    asked = forms.search_request(
        pipeline, space, variants, driver, rungs, seeds, overrides, evaluation, looks=looks,
        spending=spending, study=study, reduction=reduction, finalists=finalists, batch=batch,
        search_seed=search_seed,
    )  # fmt: skip
    plan = plan_search(asked, stated_rate())
    tags = [f"pipeline:{plan.first.pipeline.name}", f"search:{asked.id}"]
    describe_run(flow_run_id(), tags, asked.title)
    artifacts.show_plan(search_markdown(plan))
    check_affordable(plan.cost, max_gpu_hours or None)
    if dry_run:
        return plan_json(plan)
    reports: dict[str, Path] = {}

    def carry(planned: Ablation, rung: str) -> AblationResult:
        def show(result: AblationResult) -> None:
            reports[result["ablation_id"]] = report_of(result)

        get_run_logger().info("%s: %d variants and the base", rung, len(planned.by_variant) - 1)
        return _ablated(planned, dispatch, show, of=f"{rung}: ", goes_on=StagesFailed)

    def told(rungs: Sequence[Rung]) -> None:
        get_run_logger().info(rung_text(rungs[-1], len(asked.sizes)))
        artifacts.show_rungs(rungs, len(asked.sizes), reports)

    found = Search(asked, told).run(carry)
    if found.verdict is not None:
        artifacts.show_effects(found.verdict["effects"], found.verdict["seeds"], found.promise)
        artifacts.show_report(reports[found.verdict["ablation_id"]])
    if found.status != "succeeded":
        raise StagesFailed(found.error or (found.verdict or {})["error"])
    return found.to_json()


def _ablated(
    planned: Ablation,
    dispatch: Enum,
    show: Callable[[AblationResult], None],
    *,
    of: str = "",
    goes_on: type[Exception] | tuple[()] = (),
) -> Any:
    """Carries out an ablation; its result, which `show` is given however it ends. of: before the
    names of its stages, where the flow run has others that are called so. goes_on: as of
    `_carried_out`."""
    running = AblationRun(planned, looked=artifacts.show_looks, **_here(dispatch))
    running.start()
    describe_run(flow_run_id(), [f"ablation:{running.ablation_id}"])
    artifacts.show_run(running.ablation_id)

    def finish(status: str, error: str = "") -> AblationResult:
        result = running.finish(status, error)
        show(result)
        return result

    return _carried_out(lambda: running.walk(partial(_submit, of=of)), finish, goes_on)


def run_locally(work: Work, plan: str, console: Console, folder: Path) -> RunResult:
    """Carries out prepared work inside Prefect, with a temporary server where none is configured.
    plan: the work's plan in Markdown. folder: of the run. Ends as `carried_out` does."""

    def walk() -> None:
        with no_tracebacks(), temporary_server(folder / "logs" / "prefect-server.log"):
            _local(work, plan, folder.name, name=work.title)

    return carried_out(work, console, walk)


@_foundry(flow_run_name="{name}", validate_parameters=False)
def _local(work: Any, plan: str, run_id: str, name: str) -> None:
    """work: Work, a type of which Prefect can make no form."""
    artifacts.show_plan(plan)
    artifacts.show_run(run_id)
    with processes.recorded("flow-run", flow_run_id()):
        work.walk(_submit)


def _carried_out(
    walk: Callable[[], None],
    finish: Callable[[str, str], RunResult],
    goes_on: type[Exception] | tuple[()] = (),
) -> Any:
    """Walks and records the end, whichever it is; a failure or a cancellation goes on to Prefect,
    whose state of the run it decides, unless it is one after which the flow goes on."""
    try:
        walk()
    except (KeyboardInterrupt, TerminationSignal, Exception) as error:
        cancelled = isinstance(error, TerminationSignal)
        result = finish(*(("cancelled", "terminated") if cancelled else end_of(error)))
        if isinstance(error, goes_on):
            return result
        raise
    return finish(*end_of(None))


@dataclass(frozen=True)
class _Task(Pending):
    """A stage as a Prefect task."""

    future: PrefectFuture[str]

    def completed(self) -> bool:
        self.future.wait()
        return self.future.state.is_completed()


def _waited(one: Pending) -> Any:
    """What Prefect lets a task wait for."""
    if isinstance(one, After):
        return allow_failure(_waited(one.other))
    assert isinstance(one, _Task)  # nothing else is submitted here
    return one.future


def _submit(run: PipelineRun, name: str, upstream: Sequence[Pending], of: str = "") -> _Task:
    needed = [_waited(one) for one in upstream]
    return _Task(run_stage.submit(run, name, of, wait_for=needed, return_state=False))


@task(name="stage", task_run_name="{of}{name}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(run: PipelineRun, name: str, of: str = "") -> str:
    """Executes one stage; the result is its artifact's key. of: before its name, where the flow run
    has others that are called so."""
    try:
        watch = artifacts.progress_of(of + name)
        key = run.stage(name, job_ref(), watch).artifact.key
    except Exception as error:
        run.fail(name, error)
        raise
    artifacts.show_stage(run, name, of + name)
    return key


def _here(dispatch: Enum) -> dict[str, Any]:
    """What a run inside this flow run works with; the flow run's log shows its events."""
    console = Console(file=artifacts.LogLines(get_run_logger().info))
    backend = make_backend(dispatch.value)
    return {"observe": console.observe, "job_ref": job_ref(), "backend": backend}
