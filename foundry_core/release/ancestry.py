"""What an artifact was made from, and which episodes it played, as its store knows."""

from collections.abc import Iterator, Mapping
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
        here = dict(_of_run(store, run, policy))
        if any(one.own for one in here.values()):
            found |= {key: one for key, one in here.items() if key not in found}
    asked = {one.scenarios for one in found.values() if one.own}
    kept = [one for one in found.values() if one.scenarios in asked]
    return sorted(kept, key=lambda one: (not one.own, one.run, one.stage))


def _of_run(store: Store, run: Mapping[str, Any], policy: Artifact) -> Iterator[tuple[str, Played]]:
    """(key, evaluation) of what is still there."""
    for stage, one in run["stages"].items():
        if one["kind"] not in _EVALUATIONS:
            continue
        artifact = store.read(one["kind"], one["key"])
        if artifact is None or not any(file.path == FILE for file in artifact.files):
            continue
        with store.reading(artifact) as folder:
            played = Played(
                stage=stage,
                run=str(run["run_id"]),
                own=any(i.slot == "policy" and i.content == policy.content for i in artifact.inputs)
                and not read_facts(folder).blank_images,
                evaluation=read_evaluation(folder),
                facts=read_facts(folder),
            )
        yield artifact.key, played
