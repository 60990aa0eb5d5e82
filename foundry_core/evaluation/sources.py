"""Evaluations by what a person calls them: published results, folders, artifacts, runs.

SOURCE        a results tree or file, a folder with evaluation.json, an artifact's key or name,
              or a run's id (its evaluations, by stage)
LABEL=SOURCE  the same under another label; of several evaluations LABEL/<label>
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.evaluation.facts import FILE, EvaluationFacts, differences, read_facts
from foundry_core.evaluation.results.base import read_results
from foundry_core.evaluation.score import Evaluation, read_evaluation
from foundry_core.evaluation.together import one_spelling
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact
from foundry_core.store.references import find
from foundry_core.store.run_records import load_run, run_ids

_KEY_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class SourcedEvaluation:
    """An evaluation and where it was found. place: the file or artifact, for messages."""

    label: str
    place: str
    evaluation: Evaluation
    facts: EvaluationFacts


def load_sources(
    sources: Sequence[str], store: Callable[[], Store]
) -> tuple[dict[str, SourcedEvaluation], list[str]]:
    """label → evaluation of all sources, in their order, and a line for whatever they were asked
    differently. store: asked only for what is no path.

    FoundryError for a source that is nothing, for two evaluations of one label, and for benchmarks
    that have nothing in common.
    """
    found: dict[str, SourcedEvaluation] = {}
    for source in sources:
        for one in _load(source, store):
            if one.label in found:
                raise FoundryError(
                    f"{one.label!r} is both {found[one.label].place} and {one.place}",
                    "give them labels: LABEL=SOURCE",
                )
            found[one.label] = one
    lines = differences({label: one.facts for label, one in found.items()})
    evaluations = one_spelling({label: one.evaluation for label, one in found.items()})
    return {
        label: replace(one, evaluation=evaluations[label]) for label, one in found.items()
    }, lines


def _load(source: str, store: Callable[[], Store]) -> list[SourcedEvaluation]:
    if Path(source).exists():
        return _of_path(Path(source))
    label, equals, place = source.partition("=")
    if not equals:
        return _of_reference(source, store())
    if not (label and place):
        raise FoundryError(f"{source!r} has no label or no source", "LABEL=SOURCE")
    path = Path(place)
    found = _of_path(path) if path.exists() else _of_reference(place, store())
    if len(found) == 1:
        return [replace(found[0], label=label)]
    return [replace(one, label=f"{label}/{one.label}") for one in found]


def _of_path(path: Path) -> list[SourcedEvaluation]:
    if path.name == FILE or (path / FILE).is_file():
        folder = path.parent if path.name == FILE else path
        return [_read(folder.resolve().name, str(path), folder)]
    results = read_results(path)
    return [
        SourcedEvaluation(
            label=model,
            place=f"{model} of {path}",
            evaluation=evaluation,
            facts=results.facts[model],
        )
        for model, evaluation in results.evaluations().items()
    ]


def _of_reference(ref: str, store: Store) -> list[SourcedEvaluation]:
    if ref in run_ids(store.documents):
        return _of_run(ref, store)
    try:
        artifact = find(store, ref)
    except FoundryError as error:
        raise FoundryError(
            f"{ref!r} is no path, no artifact and no run: {error.message}",
            error.hint or "`foundry lineage runs` lists runs",
        ) from None
    found = _of_artifact(ref if "@" in ref else None, artifact, store)
    if found is None:
        raise FoundryError(
            f"{artifact.kind}/{artifact.key[:_KEY_DIGITS]} is no evaluation: it has no {FILE}",
            "name an evaluation, or the run that made it",
        )
    return [found]


def _of_run(run_id: str, store: Store) -> list[SourcedEvaluation]:
    """By stage; what the store has of them now."""
    stages = load_run(store.documents, run_id)["stages"]
    artifacts = ((name, store.read(s["kind"], s["key"])) for name, s in stages.items())
    found = [_of_artifact(name, one, store) for name, one in artifacts if one is not None]
    evaluations = [one for one in found if one is not None]
    if not evaluations:
        raise FoundryError(
            f"run {run_id} has no evaluation that is still there", "run it again, or name another"
        )
    return evaluations


def _of_artifact(label: str | None, artifact: Artifact, store: Store) -> SourcedEvaluation | None:
    """None for what is no evaluation. label: by default the model of an imported one, else the
    key."""
    if not any(file.path == FILE for file in artifact.files):
        return None
    path = store.file_path(artifact, FILE)
    assert path is not None, f"{FILE} is among the files"
    place = f"{artifact.kind}/{artifact.key[:_KEY_DIGITS]}"
    found = _read(artifact.key[:_KEY_DIGITS], place, path.parent)
    if label is None and found.facts.imported is not None:
        label = found.facts.imported.model
    return replace(found, label=label or found.label)


def _read(label: str, place: str, folder: Path) -> SourcedEvaluation:
    return SourcedEvaluation(
        label=label, place=place, evaluation=read_evaluation(folder), facts=read_facts(folder)
    )
