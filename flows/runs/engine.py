"""One run of one pipeline, without a word of Prefect: record, execute stage by stage, record.

The Prefect flow, the command line and tests drive the same object. It prints nothing: an observer
is given what happens.
"""

import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict

from flows import processes
from flows.dispatch.base import Backend
from flows.dispatch.inline import Inline
from flows.dispatch.slots import Slots
from flows.runs import folders
from flows.runs.doubted import doubted
from flows.runs.events import (
    Note,
    RunObserver,
    StageFailedEvent,
    StageFinished,
    StageProgress,
    StageStarted,
    unobserved,
)
from flows.runs.planning import Prepared
from flows.runs.progress import ProgressFiles
from flows.runs.urgency import Urgencies
from flows.runs.walk import After, Pending, StagesFailed, Submit, in_order
from foundry_core.errors import FoundryError
from foundry_core.execution.job import (
    NAME_IT,
    UNDECLARED_READS,
    Interrupted,
    Outcome,
    StageJob,
    undeclared,
)
from foundry_core.home import home_dir
from foundry_core.lineage.checkout import git_state
from foundry_core.lineage.event_types import (
    PlannedInput,
    PlannedStage,
    RunFinished,
    RunStarted,
    StageResolved,
)
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.cost import learn
from foundry_core.pipeline.plan import StagePlan
from foundry_core.store.catalog import record_run
from foundry_core.store.disk import is_full, naming_disk
from foundry_core.store.manifest import Artifact
from foundry_core.store.trunks import continued, continued_step

Watch = Callable[[Mapping[str, Any]], None]


class RunResult(TypedDict):
    """A run as JSON. stages: rows of the plan with what became of them; metrics: by
    `<stage>.<name>`."""

    run_id: str
    pipeline: str
    status: str
    seconds: float
    stages: list[dict[str, Any]]
    metrics: dict[str, Any]


def new_run_id(pipeline: str) -> str:
    """Sorts by time, says what it is of, and is no one else's."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return f"{stamp}-{pipeline}-{secrets.token_hex(3)}"


class PipelineRun:
    """State of one run. Thread-safe where stages of one run execute concurrently."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        observe: RunObserver = unobserved,
        job_ref: str | None = None,
        slots: Slots | None = None,
        backend: Backend | None = None,
        run_id: str | None = None,
        parent: str | None = None,
        ablation: Mapping[str, str] | None = None,
        events: EventLog | None = None,
    ) -> None:
        """job_ref: what this is called where it runs. parent: the run that it is part of.
        ablation: {id, variant} of the ablation that it belongs to. events: the log, where who calls
        writes there, too."""
        self.prepared = prepared
        self.run_id = run_id or new_run_id(prepared.pipeline.name)
        self.folder = home_dir() / "runs" / self.run_id
        self.cancelled = threading.Event()
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, str] = {}
        self._observe = ProgressFiles(self.folder, observe)
        self._job_ref = job_ref
        self._parent, self._ablation = parent, ablation
        self._slots = slots or Slots()
        self._urgencies = Urgencies()
        self._backend = backend or Inline()
        self._started = time.monotonic()
        self._events = events or EventLog(prepared.store.events_uri)

    @property
    def title(self) -> str:
        return f"{self.prepared.pipeline.name} {self.run_id}"

    def start(self) -> None:
        """Records what is about to happen, before anything happens. FoundryError when the store or
        the home cannot be written, or a stage can never start where it would run."""
        prepared, name = self.prepared, self.prepared.pipeline.name
        self.check_resources()
        # Under a worker, the flow run is what can be cancelled.
        flow_run = os.environ.get("PREFECT__FLOW_RUN_ID")
        facts = {"pipeline": name, "store": prepared.store.uri, "flow_run": flow_run}
        with naming_disk(prepared.store.workplace):
            if self.affected():  # a cached run leaves no folder
                self.folder.mkdir(parents=True, exist_ok=True)
            self._entry = processes.record("run", self.run_id, facts=facts)
            prepared.store.publish_pending(self._events)
            self.git = git_state()
            record_run(prepared.store, self.run_id, name, prepared.specs)
            with self._events.together():
                self.record_started(self.git)
                for row in prepared.plan.stages.values():
                    if row.action == "reuse" and row.artifact and row.how == "recipe":
                        self.record_resolved(row, row.artifact, "reuse", row.how)

    def check_resources(self) -> None:
        """FoundryError when a stage that runs can never start where it would; tells what it will
        wait for."""
        stages = self.prepared.pipeline.stages
        for row in self.prepared.plan.to_run():
            self._backend.check(row.name, stages[row.name].resources)
        for row in self.prepared.plan.to_run():
            for note in self._backend.notes(row.name, stages[row.name].resources):
                self._observe(Note(f"stage {row.name}: {note}"))

    def record_started(self, git: Mapping[str, Any]) -> None:
        """The event that the run begins, with its plan. git: `git_state`."""
        prepared = self.prepared
        self._events.append(
            RunStarted(
                run_id=self.run_id,
                pipeline=prepared.pipeline.name,
                asked=prepared.request.pipeline,
                overrides=[list(pair) for pair in prepared.request.overrides],
                argv=sys.argv,
                host=socket.gethostname(),
                pid=os.getpid(),
                git=dict(git),
                stages=[_planned(prepared, row) for row in prepared.plan.stages.values()],
                parent=self._parent,
                ablation=self._ablation,
                job_ref=self._job_ref,
            )
        )

    def record_resolved(self, row: StagePlan, artifact: str | None, action: str, how: str) -> None:
        """The event that a stage has its artifact in this run, or needs none."""
        self._events.append(
            StageResolved(
                run_id=self.run_id,
                stage=row.name,
                key=row.key,
                artifact_key=artifact,
                action=action,
                how=how or None,
                reasons=row.to_json()["reasons"],
            )
        )

    def affected(self) -> list[str]:
        """Stages that run, and those downstream of one, whose reuse must be asked again once the
        new content is known; each after what it waits for."""
        found: dict[str, None] = {}
        for name, row in self.prepared.plan.stages.items():
            if (
                row.action == "run"
                or row.how == "content"
                or any(up in found for up in self._upstream(name))
            ):
                found[name] = None
        ordered: dict[str, None] = {}
        for name in found:
            self._place(name, found, ordered)
        return list(ordered)

    def _upstream(self, name: str) -> list[str]:
        return [up for _, _, up in self.prepared.pipeline.stages[name].upstream()]

    def _place(self, name: str, found: Collection[str], ordered: dict[str, None]) -> None:
        """After what it needs, and after the budget whose state it goes on from."""
        if name in ordered:
            return
        for up in (*self._upstream(name), self._before(name)):
            if up in found:
                self._place(up, found, ordered)
        ordered[name] = None

    def _before(self, name: str) -> str:
        """The stage of this plan that leaves the state which this one goes on from, if one does."""
        continues = self.prepared.plan.stages[name].continues
        return continues.stage if continues else ""

    def walk(self, submit: Submit = in_order, targets: Collection[str] | None = None) -> None:
        """Submits everything that the plan did not settle, upstream first, and waits for it: all,
        or what the targets need and no earlier walk has settled. A failed stage stops what needs it
        and nothing else; then StagesFailed."""
        submitted: dict[str, Pending] = {}
        affected = self.affected()
        if targets is not None:
            wanted = self.prepared.pipeline.with_ancestors(targets) - self.outcomes.keys()
            affected = [stage for stage in affected if stage in wanted]
        if submit is not in_order:  # there nobody competes for CPUs
            self._urgencies = self._how_urgent(affected)
            self._expect(self._urgencies.at_once())
        try:
            for stage in affected:
                upstream = [submitted[up] for up in self._upstream(stage) if up in submitted]
                if self._before(stage) in submitted:
                    upstream.append(After(submitted[self._before(stage)]))
                submitted[stage] = submit(self, stage, upstream)
            failed = [name for name, stage in submitted.items() if not stage.completed()]
        except BaseException:
            # Ctrl-C, or a cancellation: whoever waits for threads waits for stages, which look.
            self.cancelled.set()
            raise
        if failed:
            raise StagesFailed(f"stages not completed: {', '.join(failed)}")

    def stage(self, name: str, job_ref: str | None = None, watch: Watch | None = None) -> Outcome:
        """Executes or reuses one stage whose upstream is there. job_ref: what the caller is called
        where it runs. `watch` is given the stage's progress, as the observer is."""
        job = self._job(name, job_ref or self._job_ref)
        resources = self.prepared.pipeline.stages[name].resources

        def observe(state: Mapping[str, Any]) -> None:
            self._observe(StageProgress(name, state))
            if watch is not None:
                watch(state)

        # What runs elsewhere needs no CPU of this machine while it is waited for.
        elsewhere = self._backend.remote(resources)
        hold = self._slots.hold(
            resources.cpus,
            self.cancelled.is_set,
            name=name,
            urgency=self._urgencies.of(name),
        )
        with contextlib.nullcontext(True) if elsewhere else hold as held:
            if not held or self.cancelled.is_set():
                raise Interrupted(f"stage {name!r} did not start: the run was cancelled")
            self._observe(StageStarted(name))
            store, events = self.prepared.store, self._events
            outcome = self._backend.run(
                job, store, events, observe=observe, cancelled=self.cancelled
            )
            self.outcomes[name] = outcome
            # Who waits for it goes before others that want this CPU.
            self._expect(self._urgencies.begin_after(name, self.outcomes))
        row = self.prepared.plan.stages[name]
        self.record_resolved(row, outcome.artifact.key, outcome.action, outcome.how)
        self._observe(StageFinished(name, outcome))
        if outcome.action == "run":
            view = self.prepared.pipeline.views.get(name)
            inputs, artifact = (view.inputs if view else {}), outcome.artifact
            node = self.prepared.pipeline.stages[name]
            learn(node, inputs, artifact.seconds, continued_step(artifact))
        files = outcome.artifact.provenance.get(UNDECLARED_READS)
        if outcome.action == "run" and files:
            self._observe(Note(f"stage {name} {undeclared(files)}: {NAME_IT}"))
        if outcome.action == "run" and (said := continued(outcome.artifact)):
            self._observe(Note(f"stage {name}: {said}"))
        for doubt in doubted(store, outcome.artifact):  # before anything trains on it
            self._observe(Note(f"stage {name}: doubt: {doubt}"))
        return outcome

    def _how_urgent(self, stages: Sequence[str]) -> Urgencies:
        needs = {
            name: [up for up in (*self._upstream(name), self._before(name)) if up in stages]
            for name in stages
        }
        rows = self.prepared.plan.stages
        return Urgencies(needs, {name: rows[name].estimated_seconds for name in stages})

    def _expect(self, stages: Sequence[str]) -> None:
        """Tells the queue for CPUs which stages are about to ask."""
        for name in stages:
            resources = self.prepared.pipeline.stages[name].resources
            if not self._backend.remote(resources):
                self._slots.expect(name, resources.cpus, self._urgencies.of(name))

    def _job(self, name: str, job_ref: str | None) -> StageJob:
        node = self.prepared.pipeline.stages[name]
        return StageJob(
            spec=self.prepared.specs[name],
            resources=node.resources,
            inputs={
                slot: {label: self.artifact(up) for label, up in named.items()}
                for slot, named in node.inputs.items()
            },
            run_id=self.run_id,
            log=self.folder / "logs" / f"{name}.log",
            force=self.prepared.plan.stages[name].rebuilds,
            strict_reads=self.prepared.request.strict_reads,
            job_ref=job_ref,
        )

    def fail(self, name: str, error: Exception) -> None:
        """A stage did not come through: remembered for the result, and shown."""
        self.failures[name] = str(error)
        self._observe(StageFailedEvent(name, str(error), isinstance(error, Interrupted)))

    def artifact(self, name: str) -> Artifact:
        """The committed artifact of a stage of this run."""
        if name in self.outcomes:
            return self.outcomes[name].artifact
        row = self.prepared.plan.stages[name]
        key = row.artifact or row.key
        artifact = self.prepared.store.read(row.kind, key)
        if artifact is None:
            raise FoundryError(
                f"stage {name!r}: {row.kind}/{key[:12]}, which this run reuses, was removed from "
                "the store since it was planned",
                "run again: it is rebuilt; `gc` keeps what runs at work use, `gc --grace-hours` "
                "what is young",
            )
        return artifact

    def finish(self, status: str, error: str = "") -> RunResult:
        """Records the end, brings the lineage index up to date, returns the run as JSON."""
        with naming_disk(self.prepared.store.workplace):
            result = self.record_finished(status, error)
        self._entry.forget()
        self._advance_index()
        folders.prune()
        return result

    def _advance_index(self) -> None:
        """The index is derived: a disk without room for it is a note, and fails no run."""
        import duckdb

        from foundry_core.lineage.index import Index
        from foundry_core.lineage.queries import INDEX_NAME

        try:
            Index(home_dir() / INDEX_NAME, self._events).advance()
        except (OSError, duckdb.Error) as error:
            of_disk = isinstance(error, OSError | duckdb.IOException | duckdb.FatalException)
            if not (of_disk or is_full(error)):
                raise
            text = (
                f"the lineage index in {home_dir()} is behind: {error}"
                " (make room; the next run or `foundry lineage rebuild` brings it up to date)"
            )
            self._observe(Note(text))

    def record_finished(self, status: str, error: str = "") -> RunResult:
        """The event that the run ended, so; the run as JSON."""
        result = self.to_json(status)
        self._events.append(
            RunFinished(
                run_id=self.run_id,
                status=status,
                seconds=result["seconds"],
                metrics=result["metrics"],
                error=error,
            )
        )
        return result

    def to_json(self, status: str) -> RunResult:
        """The run as it is now, ended with `status`."""
        stages = []
        metrics: dict[str, Any] = {}
        for name, row in self.prepared.plan.stages.items():
            outcome = self.outcomes.get(name)
            artifact = outcome.artifact if outcome else None
            if artifact is None and row.artifact:
                artifact = self.prepared.store.read(row.kind, row.artifact)
            if artifact:
                metrics |= {f"{name}.{key}": value for key, value in artifact.metrics.items()}
            stages.append(
                row.to_json()
                | {
                    "action": outcome.action if outcome else row.action,
                    "attempt": outcome.attempt if outcome else None,
                    "seconds": round(outcome.seconds, 3) if outcome else 0.0,
                    "error": self.failures.get(name),
                }
            )
        return {
            "run_id": self.run_id,
            "pipeline": self.prepared.pipeline.name,
            "status": status,
            "seconds": round(time.monotonic() - self._started, 3),
            "stages": stages,
            "metrics": metrics,
        }


def _planned(prepared: Prepared, row: StagePlan) -> PlannedStage:
    spec = prepared.specs[row.name]
    node = prepared.pipeline.stages[row.name]
    return PlannedStage(
        name=row.name,
        kind=row.kind,
        key=row.key,
        action=row.action,
        reasons=row.to_json()["reasons"],
        recipe=spec.recipe_json,
        resources=node.resources.model_dump(mode="json"),
        seed=spec.seed,
        code=spec.code,
        code_fingerprint=spec.code_fingerprint,
        sources=spec.sources,
        inputs=[
            PlannedInput(slot=slot, label=label, stage=up, key=spec.inputs[slot][label])
            for slot, label, up in node.upstream()
        ],
    )
