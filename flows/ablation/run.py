"""One execution of an ablation, without a word of Prefect: the union's run, a record per replicate,
the verdict over whoever came through.

The Prefect flow, the command line and tests drive the same object. The ablation's id is that of the
union's run; every replicate has a run of its own in the lineage, so that it can be traced, compared
and reported like any other.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flows.ablation.merge import VERDICT, Replicate
from flows.ablation.plan import Ablation, reduced
from flows.console import Console
from flows.dispatch.base import Dispatcher
from flows.run.engine import PipelineRun, new_run_id
from flows.run.planning import Prepared, Request
from foundry_core.evaluation.comparison.result import Comparison, Effect, read_comparison
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.plan import Plan
from foundry_core.store.manifest import Artifact


class AblationRun:
    """State of one execution. `run` walks the union; it is an ordinary run of it."""

    def __init__(
        self,
        ablation: Ablation,
        *,
        console: Console | None = None,
        origin: Mapping[str, str] | None = None,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self.ablation = ablation
        self.ablation_id = new_run_id(ablation.united.pipeline.name)
        self._common = {"console": console, "origin": origin, "dispatcher": dispatcher}
        self.run = self._pipeline_run(ablation.united, self.ablation_id, None)
        self._records = {
            r.label: self._pipeline_run(self._alone(r), self._run_id(r), r.variant)
            for r in ablation.replicates
        }  # fmt: skip
        self._verdict_run = self.run
        self._events = EventLog(ablation.united.store.events_uri)

    def start(self) -> None:
        """Records the ablation, its run and its replicates before anything happens."""
        request = self.ablation.request
        overrides = {r.variant: r.overrides for r in reversed(self.ablation.replicates)}
        self._events.append(
            "ablation_started",
            {
                "ablation_id": self.ablation_id,
                "base_pipeline": self.ablation.pipeline.name,
                "variants": [
                    {"variant": name, "overrides": [list(pair) for pair in overrides[name]]}
                    for name in self.ablation.by_variant
                ],
                "vary": {one.path: list(one.values) for one in request.vary},
                "seeds": request.seeds,
            },
        )
        self.run.start()
        for record in self._records.values():
            record.announce()

    def failed(self) -> dict[str, str]:
        """Replicate → why it has no evaluation."""
        unsettled = set(self.run.affected()) - self.run.outcomes.keys()
        errors = {}
        for replicate in self.ablation.replicates:
            if replicate.names[self.ablation.evaluation] in unsettled:
                own = (self.run.failures.get(stage) for stage in replicate.names.values())
                errors[replicate.label] = next(filter(None, own), "was not reached")
        return errors

    def survivors(self) -> PipelineRun | None:
        """The run whose stage `verdict` judges without the variants that failed; None when it is
        not needed, or when the base failed or nothing is left to compare it with.

        A variant of which one seed failed is left out whole: seeds that diverge are part of what
        a change does, and a verdict over the lucky ones would hide them.
        """
        failed = self.failed()
        left = {
            name: replicates
            for name, replicates in self.ablation.by_variant.items()
            if not any(r.label in failed for r in replicates)
        }
        base = self.ablation.replicates[0].variant
        if not failed or base not in left or sum(map(len, left.values())) < 2:
            return None
        united = reduced(self.ablation, left).united
        self._verdict_run = self._pipeline_run(united, self.ablation_id, None)
        return self._verdict_run

    def verdict(self) -> tuple[Artifact, Comparison] | None:
        """The verdict's artifact and what it found; None when there is none."""
        run = self._verdict_run
        if VERDICT in run.affected() and VERDICT not in run.outcomes:
            return None
        artifact = run.artifact(VERDICT)
        folder = run.prepared.store.files_path(artifact)
        return artifact, read_comparison(folder / "comparison.json")

    def finish(self, status: str, error: str = "") -> dict[str, Any]:
        """Records replicates, effects and the end; returns the ablation as JSON. A status
        'failed' becomes 'partial' where a verdict over some variants stands."""
        failed, verdict = self.failed(), self.verdict()
        if VERDICT in self._verdict_run.outcomes:
            self.run.outcomes[VERDICT] = self._verdict_run.outcomes[VERDICT]
            self.run.failures.pop(VERDICT, None)
        if status == "failed" and verdict is not None:
            status = "partial"
        unfinished = "interrupted" if status == "interrupted" else "failed"
        replicates = [
            self._conclude(r, unfinished, failed.get(r.label, ""))
            for r in self.ablation.replicates
        ]  # fmt: skip
        effects = self._effects(failed, verdict[1] if verdict else None)
        payload = {"ablation_id": self.ablation_id, "status": status, "effects": effects}
        if verdict:
            payload["comparison_key"] = verdict[0].key
        self._events.append("ablation_finished", payload)
        result = self.run.finish("failed" if status == "partial" else status, error)
        return result | {
            "ablation_id": self.ablation_id,
            "status": status,
            "evaluation": self.ablation.evaluation,
            "replicates": replicates,
            "effects": effects,
            "seeds": verdict[1].seeds.to_json() if verdict and verdict[1].seeds else None,
            "comparison_key": verdict[0].key if verdict else None,
            "error": error,
        }

    def _effects(
        self, failed: Mapping[str, str], judged: Comparison | None
    ) -> list[dict[str, Any]]:
        from foundry_core.evaluation.comparison.verdict import effects

        rows = effects(judged, self.ablation.changes) if judged else []
        known = {row.variant for row in rows}
        for name, replicates in self.ablation.by_variant.items():
            if name in known:
                continue
            why = next((failed[r.label] for r in replicates if r.label in failed), "")
            decision = f"no verdict: {why.splitlines()[0]}" if why else "no verdict"
            for path, old, new in self.ablation.changes[name] or [(None, None, None)]:
                rows.append(Effect(variant=name, path=path, old=old, new=new, decision=decision))
        return [row.to_json() for row in rows]

    def _conclude(self, replicate: Replicate, unfinished: str, error: str) -> dict[str, Any]:
        """Tells what became of a replicate's stages, in the pipeline's own names. `unfinished` is
        its status where it has an error."""
        record = self._records[replicate.label]
        for stage, row in record.prepared.plan.stages.items():
            outcome = self.run.outcomes.get(replicate.names[stage])
            if outcome is not None:
                if not self.ablation.owns(replicate, stage):
                    outcome = replace(outcome, action="reuse", attempt=None, seconds=0.0)
                record.outcomes[stage] = outcome
                record.resolved(row, outcome.artifact.key, outcome.action, outcome.how)
            elif row.artifact is not None and row.how == "recipe":
                record.resolved(row, row.artifact, "reuse", row.how)
            elif replicate.names[stage] in self.run.failures:
                record.failures[stage] = self.run.failures[replicate.names[stage]]
        result = record.conclude(unfinished if error else "succeeded", error)
        evaluation = self.ablation.evaluation
        return {
            "label": replicate.label,
            "variant": replicate.variant,
            "seed": replicate.seed,
            "run_id": record.run_id,
            "status": result["status"],
            "error": error,
            "evaluation": record.prepared.plan.stages[evaluation].key,
            "success_rate": result["metrics"].get(f"{evaluation}.success_rate"),
        }

    def _pipeline_run(self, prepared: Prepared, run_id: str, variant: str | None) -> PipelineRun:
        facts: dict[str, Any] = {"ablation": {"id": self.ablation_id, "variant": variant}}
        if run_id != self.ablation_id:
            facts["parent"] = self.ablation_id
        return PipelineRun(prepared, run_id=run_id, facts=facts, **self._common)

    def _run_id(self, replicate: Replicate) -> str:
        return f"{self.ablation_id}.{replicate.label.replace('/', '.')}"

    def _alone(self, replicate: Replicate) -> Prepared:
        """A replicate as a pipeline of its own, planned: what another one builds, it reuses."""
        rows = {
            stage: row if self.ablation.owns(replicate, stage) else replace(row, action="reuse")
            for stage, row in self.ablation.rows(replicate).items()
        }
        name = replicate.pipeline.name
        return Prepared(
            request=Request(pipeline=name, overrides=replicate.overrides),
            pipeline=replicate.pipeline,
            specs=replicate.specs,
            plan=Plan(pipeline=name, baseline=None, stages=rows, specs=replicate.specs),
            store=self.ablation.united.store,
        )
