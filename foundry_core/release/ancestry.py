"""What an artifact was made from, and which episodes it played, as its store knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foundry_core.evaluation.facts import FILE, EvaluationFacts, read_facts
from foundry_core.evaluation.score import Evaluation, read_evaluation
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact
from foundry_core.store.run_records import all_runs

_EVALUATIONS = ("evaluate", "evaluate_control")


@dataclass(frozen=True, kw_only=True)
class Played:
    """An evaluation. stage, run: where it was played. own: of this policy; else of something that
    played beside it, such as a control."""

    stage: str
    run: str
    own: bool
    evaluation: Evaluation
    facts: EvaluationFacts

    @property
    def scenarios(self) -> tuple[str | None, int | None, tuple[str, ...]]:
        """What two evaluations share that were asked the same."""
        return (
            self.facts.benchmark,
            self.facts.first_scenario,
            tuple(sorted(self.evaluation.outcomes)),
        )


def ancestors(store: Store, artifact: Artifact) -> list[Artifact]:
    """The artifact and all that it was made from, as far as the store still has it, each once."""
    found, waiting = {artifact.key: artifact}, [artifact]
    while waiting:
        for one in waiting.pop().inputs:
            upstream = store.read(one.kind, one.key) if one.key not in found else None
            if upstream is not None:
                found[one.key] = upstream
                waiting.append(upstream)
    return list(found.values())


def lost(known: list[Artifact]) -> list[str]:
    """kind/key of what they were made from and the store no longer has."""
    keys = {one.key for one in known}
    return sorted(
        {f"{i.kind}/{i.key[:12]}" for one in known for i in one.inputs if i.key not in keys}
    )


def evaluations(store: Store, policy: Artifact) -> list[Played]:
    """Of this policy, by content, in any run, and in those runs of whatever met the same scenarios.
    Each once, the policy's own first."""
    found: dict[str, Played] = {}
    for run in all_runs(store.documents):
        artifacts = _evaluations_of(store, run)
        # Manifests say which run this policy played in: no other's results are read.
        if any(_plays(one, policy) for one in artifacts.values()):
            new = {stage: one for stage, one in artifacts.items() if one.key not in found}
            found |= {
                one.key: _played(store, one, stage, str(run["run_id"]), policy)
                for stage, one in new.items()
            }
    asked = {one.scenarios for one in found.values() if one.own}
    kept = [one for one in found.values() if one.scenarios in asked]
    return sorted(kept, key=lambda one: (not one.own, one.run, one.stage))


def _evaluations_of(store: Store, run: Mapping[str, Any]) -> dict[str, Artifact]:
    """Stage → what is still there of a run's evaluations."""
    named = {
        stage: store.read(one["kind"], one["key"])
        for stage, one in run["stages"].items()
        if one["kind"] in _EVALUATIONS
    }
    return {
        stage: artifact
        for stage, artifact in named.items()
        if artifact is not None and any(file.path == FILE for file in artifact.files)
    }


def _plays(evaluation: Artifact, policy: Artifact) -> bool:
    return any(i.slot == "policy" and i.content == policy.content for i in evaluation.inputs)


def _played(store: Store, artifact: Artifact, stage: str, run: str, policy: Artifact) -> Played:
    with store.reading(artifact) as folder:
        facts, evaluation = read_facts(folder), read_evaluation(folder)
    own = _plays(artifact, policy) and not facts.blank_images
    return Played(stage=stage, run=run, own=own, evaluation=evaluation, facts=facts)
