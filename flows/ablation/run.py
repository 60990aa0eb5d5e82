"""One execution of an ablation, without a word of Prefect: the merged graph's run, a record per
seed run, the verdict over whoever came through.

The Prefect flow, the command line and tests drive the same object. The ablation's id is that of the
merged graph's run; every seed run has a record of its own in the lineage, so that it can be traced,
compared and reported like any other run.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from flows.ablation.merge import VERDICT, SeedRun
from flows.ablation.plan import Ablation, reduced, standing_of
from flows.dispatch.base import Backend
from flows.runs.engine import PipelineRun, RunResult, new_run_id
from flows.runs.events import Note, RunObserver, unobserved
from flows.runs.planning import Prepared, Request
from flows.runs.walk import StagesFailed, Submit, in_order
from foundry_core.evaluation.comparison.effect_rows import effects, seeds_of
from foundry_core.evaluation.comparison.result import Comparison, Effect, as_json, read_comparison
from foundry_core.evaluation.design import Standing
from foundry_core.evaluation.score import Score, total
from foundry_core.lineage.event_types import AblationFinished, AblationStarted
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.plan import Plan
from foundry_core.store.manifest import Artifact


class AblationResult(RunResult):
    """An ablation as JSON. effects: a row per variant and change; seeds: what the seeds say about
    noise, None without a verdict; sequential: what looking early did, None where nobody did."""

    ablation_id: str
    evaluation: str
    seed_runs: list[dict[str, Any]]
    effects: list[dict[str, Any]]
    seeds: dict[str, Any] | None
    sequential: dict[str, Any] | None
    comparison_key: str | None
    error: str


class AblationRun:
    """State of one execution. `run` walks the merged graph; it is an ordinary run of it."""

    def __init__(
        self,
        ablation: Ablation,
        *,
        observe: RunObserver = unobserved,
        job_ref: str | None = None,
        backend: Backend | None = None,
        looked: Callable[[Standing, int], None] | None = None,
    ) -> None:
        """looked: is told where the race stands after each look, and of how many rounds."""
        self.ablation = ablation
        self._looked = looked
        self.ablation_id = new_run_id(ablation.merged.pipeline.name)
        self._events = EventLog(ablation.merged.store.events_uri)
        self._observe, self._job_ref, self._backend = observe, job_ref, backend
        self.run = self._pipeline_run(ablation.merged, self.ablation_id, None)
        self._records = {}
        for r in ablation.seed_runs:
            run_id = f"{self.ablation_id}.{r.label.replace('/', '.')}"
            self._records[r.label] = self._pipeline_run(self._alone(r), run_id, r.variant)
        self._verdict_run = self.run
        self._standing = ablation.standing
        self._told = len(ablation.standing.decided) if ablation.standing else 0

    @property
    def title(self) -> str:
        return f"{self.ablation.request.title} {self.ablation_id}"

    def start(self) -> None:
        """Records the ablation, its run and its seed runs before anything happens."""
        self.run.check_resources()
        with self._events.together():
            self._record_started()

    def _record_started(self) -> None:
        request, seed_runs = self.ablation.request, self.ablation.seed_runs
        fixed = None
        if request.design is not None:
            fixed = request.design.model_dump() | {"rounds": seed_runs[0].rounds}
        overrides = {r.variant: r.overrides for r in reversed(seed_runs)}
        self._events.append(
            AblationStarted(
                ablation_id=self.ablation_id,
                base_pipeline=self.ablation.pipeline.name,
                variants=[
                    {"variant": name, "overrides": [list(pair) for pair in overrides[name]]}
                    for name in self.ablation.by_variant
                ],
                vary={one.path: list(one.values) for one in request.vary},
                seeds=request.seeds,
                design=fixed,
                search=None if request.search is None else dict(request.search),
                question=request.question or None,
            )
        )
        self.run.start()
        for record in self._records.values():
            record.record_started(self.run.git)

    def walk(self, submit: Submit = in_order) -> None:
        """Executes the merged graph, then a verdict over the variants that came through. Raises
        StagesFailed when one did not."""
        if self._standing is not None and VERDICT in self.run.affected():
            self._race(submit)
            return
        try:
            self.run.walk(submit)
        except StagesFailed:
            rest = self.survivors()
            if rest is not None:
                submit(rest, VERDICT, ()).completed()
            raise

    def failed(self) -> dict[str, str]:
        """SeedRun → why it has no evaluation."""
        unsettled = set(self.run.affected()) - self.run.outcomes.keys()
        errors = {}
        for seed_run in self.ablation.seed_runs:
            error = self._error(seed_run)
            if self._standing is None:
                missing = seed_run.names[seed_run.parts[0]] in unsettled
            else:
                asked = VERDICT in unsettled and seed_run.variant in self._standing.running
                missing = error is not None or asked
            if missing:
                errors[seed_run.label] = error or "was not reached"
        return errors

    def _error(self, seed_run: SeedRun) -> str | None:
        """Of the first stage that failed of those that its evaluation needs."""
        needed = seed_run.pipeline.with_ancestors(seed_run.parts)
        own = (self.run.failures.get(seed_run.names[x]) for x in seed_run.names if x in needed)
        return next(filter(None, own), None)

    def survivors(self) -> PipelineRun | None:
        """The run whose stage `verdict` judges without the variants that failed; None when it is
        not needed, or when the base failed or nothing is left to compare it with.

        A variant of which one seed failed is left out whole: seeds that diverge are part of what
        a change does, and a verdict over the lucky ones would hide them.
        """
        rest = self._without(self.failed())
        if rest is None:
            return None
        self._verdict_run = self._pipeline_run(rest.merged, self.ablation_id, None)
        return self._verdict_run

    def _without(self, failed: Collection[str]) -> Ablation | None:
        """The ablation without the variants of which one of these seed runs is."""
        left = {
            name: seed_runs
            for name, seed_runs in self.ablation.by_variant.items()
            if not any(r.label in failed for r in seed_runs)
        }
        base = self.ablation.seed_runs[0].variant
        if not failed or base not in left or sum(map(len, left.values())) < 2:
            return None
        return reduced(self.ablation, left)

    def _race(self, submit: Submit) -> None:
        """Look after look until nothing is open, then the verdict over what was played. A variant
        that fails drops out, and the rest is played on as if it had never been there."""
        ablation, run, failure = self.ablation, self.run, None
        while True:
            try:
                self._play(ablation, run, submit)
                break
            except StagesFailed as error:
                rest = self._without([r.label for r in self.ablation.seed_runs if self._error(r)])
                if rest is None:
                    raise
                ablation, run, failure = rest, self._continued(rest), error
        self._verdict_run = self._continued(reduced(self.ablation, ablation.by_variant))
        self._verdict_run.walk(submit, [VERDICT])
        if failure is not None:
            raise failure

    def _play(self, ablation: Ablation, run: PipelineRun, submit: Submit) -> None:
        def committed(stage: str) -> Artifact | None:
            row = run.prepared.plan.stages[stage]
            known = stage in run.outcomes or row.artifact is not None
            return run.artifact(stage) if known else None

        self._standing = standing_of(ablation, committed)
        self._tell(self._standing)
        while self._standing.running:
            run.walk(submit, ablation.next_parts(self._standing))
            self._standing = standing_of(ablation, committed)
            self._tell(self._standing)

    def _tell(self, standing: Standing) -> None:
        """Says what the last look has decided: to who shows it, and to who asked."""
        for one in standing.decided[self._told :]:
            self._observe(Note(f"look {one.look}: {one.text}"))
        self._told = len(standing.decided)
        if self._looked is not None and any(standing.needed.values()):
            self._looked(standing, self.ablation.seed_runs[0].rounds)

    def _continued(self, ablation: Ablation) -> PipelineRun:
        """This run, over a graph planned anew."""
        run = self._pipeline_run(ablation.merged, self.ablation_id, None)
        run.outcomes, run.failures = self.run.outcomes, self.run.failures
        return run

    def _stopped(self, seed_run: SeedRun) -> list[str]:
        """The planned parts that the design has left unplayed."""
        standing = self._standing
        if standing is None or standing.running or seed_run.variant not in standing.needed:
            return []
        return list(seed_run.parts[standing.needed[seed_run.variant] : seed_run.played])

    def verdict(self) -> tuple[Artifact, Comparison] | None:
        """The verdict's artifact and what it found; None when there is none."""
        run = self._verdict_run
        if VERDICT in run.affected() and VERDICT not in run.outcomes:
            return None
        artifact = run.artifact(VERDICT)
        folder = run.prepared.store.files_path(artifact)
        return artifact, read_comparison(folder / "comparison.json")

    def finish(self, status: str, error: str = "") -> AblationResult:
        """Records seed runs, effects and the end; returns the ablation as JSON. A status
        'failed' becomes 'partial' where there is a verdict over some variants."""
        failed, verdict = self.failed(), self.verdict()
        if VERDICT in self._verdict_run.outcomes:
            self.run.outcomes[VERDICT] = self._verdict_run.outcomes[VERDICT]
            self.run.failures.pop(VERDICT, None)
        if status == "failed" and verdict is not None:
            status = "partial"
        unfinished = "cancelled" if status == "cancelled" else "failed"
        stopped = {r.names[part] for r in self.ablation.seed_runs for part in self._stopped(r)}
        found = self._effects(failed, verdict[1] if verdict else None)
        comparison_key = verdict[0].key if verdict else None
        with self._events.together():
            seed_runs = [
                self._conclude(r, unfinished, failed.get(r.label, ""))
                for r in self.ablation.seed_runs
            ]
            self._events.append(
                AblationFinished(
                    ablation_id=self.ablation_id,
                    status=status,
                    comparison_key=comparison_key,
                    effects=found,
                )
            )
            for stage in stopped:
                self.run.record_resolved(self.run.prepared.plan.stages[stage], None, "stopped", "")
        result = self.run.finish("failed" if status == "partial" else status, error)
        for row in result["stages"]:
            row["action"] = "stopped" if row["name"] in stopped else row["action"]
        sequential = verdict[1].sequential if verdict else None
        return {
            **result,
            "ablation_id": self.ablation_id,
            "status": status,
            "evaluation": self.ablation.evaluation,
            "seed_runs": seed_runs,
            "effects": found,
            "seeds": seeds_of(verdict[1]) if verdict else None,
            "sequential": as_json(sequential),
            "comparison_key": comparison_key,
            "error": error,
        }

    def _effects(
        self, failed: Mapping[str, str], judged: Comparison | None
    ) -> list[dict[str, Any]]:
        rows = effects(judged, self.ablation.changes) if judged else []
        known = {row.variant for row in rows}
        for name, seed_runs in self.ablation.by_variant.items():
            if name in known:
                continue
            why = next((failed[r.label] for r in seed_runs if r.label in failed), "")
            decision = f"no verdict: {why.splitlines()[0]}" if why else "no verdict"
            row = Effect(variant=name, decision=decision, **self._finished_score(seed_runs))
            for path, old, new in self.ablation.changes[name] or [(None, None, None)]:
                rows.append(replace(row, path=path, old=old, new=new))
        return [asdict(row) for row in rows]

    def _finished_score(self, seed_runs: Sequence[SeedRun]) -> dict[str, Any]:
        """What a variant without a verdict reached, where all of its seeds were evaluated."""
        evaluated = [self._evaluated(r) for r in seed_runs]
        if not all(evaluated):
            return {}
        whole = _score([artifact for artifacts in evaluated for artifact in artifacts])
        low, high = whole.interval
        return {"success": whole.rate, "n": whole.n, "low": low, "high": high}

    def _evaluated(self, seed_run: SeedRun) -> list[Artifact]:
        """Its evaluation, or the parts that it played."""
        found = []
        for part in seed_run.evaluations.values():
            name = seed_run.names[part]
            row = self.run.prepared.plan.stages[name]
            if name in self.run.outcomes:
                found.append(self.run.outcomes[name].artifact)
            elif row.artifact and (known := self.run.prepared.store.read(row.kind, row.artifact)):
                found.append(known)
        return found

    def _conclude(self, seed_run: SeedRun, unfinished: str, error: str) -> dict[str, Any]:
        """Records what became of a seed run's stages, under the pipeline's own names. `unfinished`
        is its status where it has an error."""
        record, stopped = self._records[seed_run.label], self._stopped(seed_run)
        for stage, row in record.prepared.plan.stages.items():
            outcome = self.run.outcomes.get(seed_run.names[stage])
            if outcome is not None:
                if not self.ablation.first_needs(seed_run, stage):
                    outcome = replace(outcome, action="reuse", attempt=None, seconds=0.0)
                record.outcomes[stage] = outcome
                record.record_resolved(row, outcome.artifact.key, outcome.action, outcome.how)
            elif row.artifact is not None and row.how == "recipe":
                record.record_resolved(row, row.artifact, "reuse", row.how)
            elif seed_run.names[stage] in self.run.failures:
                record.failures[stage] = self.run.failures[seed_run.names[stage]]
            elif stage in stopped:
                record.record_resolved(row, None, "stopped", "")
        result = record.record_finished(unfinished if error else "succeeded", error)
        evaluated = self._evaluated(seed_run)
        return {
            "label": seed_run.label,
            "variant": seed_run.variant,
            "seed": seed_run.seed,
            "run_id": record.run_id,
            "status": result["status"],
            "error": error,
            "evaluations": [artifact.key for artifact in evaluated],
            "success_rate": _score(evaluated).rate,
        }

    def _pipeline_run(self, prepared: Prepared, run_id: str, variant: str | None) -> PipelineRun:
        return PipelineRun(
            prepared,
            observe=self._observe,
            job_ref=self._job_ref,
            backend=self._backend,
            run_id=run_id,
            parent=self.ablation_id if run_id != self.ablation_id else None,
            ablation={"id": self.ablation_id} | ({"variant": variant} if variant else {}),
            events=self._events,
        )

    def _alone(self, seed_run: SeedRun) -> Prepared:
        """A seed run as a pipeline of its own, planned: what another one builds, it reuses."""
        first = self.ablation.first_needs
        rows = {
            stage: row if first(seed_run, stage) else replace(row, action="reuse")
            for stage, row in self.ablation.rows(seed_run).items()
        }
        name = seed_run.pipeline.name
        return Prepared(
            request=Request(pipeline=name, overrides=seed_run.overrides),
            pipeline=seed_run.pipeline,
            specs=seed_run.specs,
            plan=Plan(pipeline=name, baseline=None, stages=rows, specs=seed_run.specs),
            store=self.ablation.merged.store,
        )


def _score(evaluations: Sequence[Artifact]) -> Score:
    """All their episodes together."""
    return total(
        Score(**{name: int(one.metrics.get(name, 0)) for name in ("n", "successes")})
        for one in evaluations
    )
