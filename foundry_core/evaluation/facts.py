"""What an evaluation says beside its outcomes, so that its file can be understood alone, and which
of that must be equal for two evaluations to have asked the same question."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foundry_core.config.validation import read_as
from foundry_core.errors import FoundryError
from foundry_core.files import json_line

FILE = "evaluation.json"
# One benchmark of several that were read as one evaluation.
_AND = " + "


@dataclass(frozen=True, kw_only=True)
class ImportedFrom:
    """The results that somebody else wrote: their format, and what they call the model."""

    format: str
    model: str


@dataclass(frozen=True, kw_only=True)
class EvaluationFacts:
    """Fields of evaluation.json beside the Evaluation's own. None or empty: not known.

    benchmark, options, packages: what was played, with which settings, and the versions of the
    simulator's packages. success: the rule by which an episode counts (evaluation/success.py);
    criterion: the same in words. hz: control steps per second; max_steps: task → their limit.
    first_scenario, episodes_per_task: the scenarios asked for. execute_steps: targets carried out
    per plan. seed: of the policy's noise (that of each episode is in records/episodes.jsonl).
    blank_images: the policy saw grey pictures. control: what played, where nothing that has learned
    did. policy: its content digest, for an equal policy under another key makes an equal
    evaluation.
    """

    benchmark: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    hz: float | None = None
    success: str | Mapping[str, int] | None = None
    criterion: str | None = None
    max_steps: Mapping[str, int] = field(default_factory=dict)
    first_scenario: int | None = None
    episodes_per_task: int | None = None
    execute_steps: int | None = None
    seed: int | None = None
    blank_images: bool | None = None
    policy: str | None = None
    control: str | None = None
    imported: ImportedFrom | None = None

    def to_json(self) -> dict[str, Any]:
        """What is known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def asked(self) -> Iterator[tuple[str, Any]]:
        """(path, value) of what is known of the question: what the policy was asked, and how it
        was counted. `options.render`, `packages.mujoco`, `max_steps.push-v3` are such paths."""
        for name in ("success", "hz", "first_scenario", "execute_steps", "blank_images"):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)
        for name in ("options", "packages", "max_steps"):
            for key, value in getattr(self, name).items():
                yield f"{name}.{key}", value


def read_facts(folder: Path) -> EvaluationFacts:
    """Of an Evaluation's folder. FoundryError for a file of another form."""
    hint = "evaluate again: the file is of another form"
    found: EvaluationFacts = read_as(EvaluationFacts, folder / FILE, hint)
    return found


def several_benchmarks(names: set[str]) -> str | None:
    """How an evaluation over several benchmarks calls them."""
    return _AND.join(sorted(names)) or None


def differences(facts: Mapping[str, EvaluationFacts]) -> list[str]:
    """A line for whatever the evaluations, by label, were asked differently, as far as they say.

    FoundryError where two of them played benchmarks that have nothing in common.
    """
    known = {label: one.benchmark for label, one in facts.items() if one.benchmark}
    for label, benchmark in known.items():
        first, played = next(iter(known.items()))
        if not set(played.split(_AND)) & set(benchmark.split(_AND)):
            raise FoundryError(
                f"{first} was evaluated on benchmark {played}, {label} on {benchmark}",
                "compare evaluations of one benchmark",
            )
    answers: dict[str, dict[str, list[str]]] = {}
    for label, one in facts.items():
        for path, value in [("benchmark", one.benchmark), *one.asked()]:
            if value is not None:
                answers.setdefault(path, {}).setdefault(json_line(value).strip(), []).append(label)
    return [
        f"{path} differs: " + "; ".join(f"{value} in {', '.join(by[value])}" for value in by)
        for path, by in answers.items()
        if len(by) > 1
    ]
