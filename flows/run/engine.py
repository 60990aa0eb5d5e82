"""One run of one pipeline, without a word of Prefect: record, execute stage by stage, record.

The Prefect flow, the command line and tests drive the same object.
"""

import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from flows import processes
from flows.console import Console
from flows.dispatch.base import Dispatcher, Inline
from flows.dispatch.slots import Slots
from flows.run.planning import Prepared
from foundry_core.errors import FoundryError
from foundry_core.execution.job import Interrupted, Outcome, StageJob
from foundry_core.home import home_dir
from foundry_core.lineage.event_types import (
    PlannedInput,
    PlannedStage,
    RunFinished,
    RunStarted,
    StageResolved,
)
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.provenance import collect_provenance
from foundry_core.pipeline.plan import StagePlan
from foundry_core.store.catalog import record_run
from foundry_core.store.disk import naming_disk
from foundry_core.store.manifest import Artifact


def new_run_id(pipeline: str) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return f"{stamp}-{pipeline}-{secrets.token_hex(3)}"


class PipelineRun:
    """State of one run. Thread-safe where stages of one run execute concurrently."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        console: Console | None = None,
        job_ref: str | None = None,
        slots: Slots | None = None,
        dispatcher: Dispatcher | None = None,
        run_id: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """job_ref: what this is called where it runs. facts: more that
        the run's own record says (`parent`, `ablation`)."""
        self.prepared = prepared
        self.run_id = run_id or new_run_id(prepared.pipeline.name)
        self.folder = home_dir() / "runs" / self.run_id
        self.cancelled = threading.Event()
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, str] = {}
        self._console = console or Console(quiet=True)
        self._job_ref = job_ref
        self._facts = dict(facts or {})
        self._slots = slots or Slots()
        self._dispatcher = dispatcher or Inline()
        self._started = time.monotonic()
        self._events = EventLog(prepared.store.events_uri)

    def start(self) -> None:
        """Records what is about to happen, before anything happens. FoundryError when the store or
        the home cannot be written."""
        with naming_disk(self.prepared.store.workplace):
            self._record_start()

    def _record_start(self) -> None:
        prepared = self.prepared
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = {"pipeline": prepared.pipeline.name, "store": prepared.store.uri}
        # Under a worker, the flow run is what can be cancelled.
        hosted = {"flow_run": os.environ.get("PREFECT__FLOW_RUN_ID")}
        self._entry = processes.record("run", self.run_id, **facts, **hosted)
        prepared.store.publish_pending(self._events)
        self.announce()
        record_run(prepared.store, self.run_id, prepared.pipeline.name, prepared.specs)
        for row in prepared.plan.stages.values():
            if row.action == "reuse" and row.artifact and row.how == "recipe":
                self.resolved(row, row.artifact, "reuse", row.how)

    def announce(self) -> None:
        """The event that a run begins, with its plan."""
        prepared = self.prepared
        provenance = collect_provenance(sys.argv)
        self._events.append(
            RunStarted(
                run_id=self.run_id,
                pipeline=prepared.pipeline.name,
                overrides=[list(pair) for pair in prepared.request.overrides],
                argv=sys.argv,
                host=socket.gethostname(),
                pid=os.getpid(),
                git=provenance.get("git"),
                stages=[self._planned(row) for row in prepared.plan.stages.values()],
                job_ref=self._job_ref,
                **self._facts,
            )
        )

    def affected(self) -> list[str]:
        """Stages that run, and those downstream of one, whose reuse must be asked again once the
        new content is known; in topological order."""
        rows = self.prepared.plan.stages
        found: set[str] = set()
        for name, row in rows.items():
            upstream = {up for _, _, up in self.prepared.pipeline.stages[name].upstream()}
            linked = row.how == "content"
            if row.action == "run" or linked or upstream & found:
                found.add(name)
        return [name for name in rows if name in found]

    def stage(
        self,
        name: str,
        job_ref: str | None = None,
        watch: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Outcome:
        """Executes or reuses one stage whose upstream is settled. job_ref: what the caller is
        called where it runs.
        `watch` sees the progress, as the console does."""
        node = self.prepared.pipeline.stages[name]
        row = self.prepared.plan.stages[name]
        job = StageJob(
            spec=self.prepared.specs[name],
            resources=node.resources,
            inputs={
                slot: {label: self.artifact(up) for label, up in named.items()}
                for slot, named in node.inputs.items()
            },
            run_id=self.run_id,
            log=self.folder / "logs" / f"{name}.log",
            force=any(reason.category == "FORCED" for reason in row.reasons),
            job_ref=job_ref or self._job_ref,
        )

        def observe(state: Mapping[str, Any]) -> None:
            self._console.progress(name, state)
            if watch is not None:
                watch(state)

        # What runs elsewhere needs no CPU of this machine while it is waited for.
        elsewhere = self._dispatcher.remote(node.stage)
        hold = self._slots.hold(node.resources.cpus, self.cancelled.is_set)
        with contextlib.nullcontext(True) if elsewhere else hold as held:
            if not held or self.cancelled.is_set():
                raise Interrupted(f"stage {name!r} did not start: the run was cancelled")
            self._console.started(name, row)
            outcome = self._dispatcher.run(
                job,
                self.prepared.store,
                self._events,
                observe=observe,
                cancelled=self.cancelled,
            )
        self.outcomes[name] = outcome
        self.resolved(row, outcome.artifact.key, outcome.action, outcome.how)
        self._console.finished(name, outcome)
        return outcome

    def fail(self, name: str, error: str) -> None:
        self.failures[name] = error
        self._console.failed(name, error)

    def artifact(self, name: str) -> Artifact:
        """The committed artifact of a stage of this run."""
        if name in self.outcomes:
            return self.outcomes[name].artifact
        row, store = self.prepared.plan.stages[name], self.prepared.store
        artifact = store.read(row.kind, row.artifact or row.key)
        if artifact is None:
            raise FoundryError(
                f"stage {name!r}: {row.kind}/{(row.artifact or row.key)[:12]}, which this run "
                "reuses, was removed from the store since it was planned",
                "run again: it is rebuilt; `gc` keeps what runs at work use, `gc --grace-hours` "
                "what is young",
            )
        return artifact

    def finish(self, status: str, error: str = "") -> dict[str, Any]:
        """Records the end, brings the lineage index up to date, returns the run as JSON."""
        with naming_disk(self.prepared.store.workplace):
            result = self.conclude(status, error)
        self._entry.forget()
        self._advance_index()
        return result

    def _advance_index(self) -> None:
        """The index is derived: a disk without room for it is said, and fails no run."""
        import duckdb

        from foundry_core.lineage.index import Index

        try:
            Index(home_dir() / "lineage.duckdb", self._events).advance()
        except (OSError, duckdb.IOException) as error:
            self._console.note(
                f"the lineage index in {home_dir()} is behind: {error}"
                " (make room; the next run or `foundry lineage rebuild` brings it up to date)"
            )

    def conclude(self, status: str, error: str = "") -> dict[str, Any]:
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

    def to_json(self, status: str) -> dict[str, Any]:
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

    def resolved(self, row: StagePlan, artifact: str, action: str, how: str) -> None:
        """The event that a stage is settled: which artifact stands for it in this run."""
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

    def _planned(self, row: StagePlan) -> PlannedStage:
        spec = self.prepared.specs[row.name]
        node = self.prepared.pipeline.stages[row.name]
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
