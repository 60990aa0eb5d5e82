"""Somebody's results as evaluations of the store: what ours leave, and the files they came from.

The artifact of a model is a function of its files and of their format: the same results from
anywhere are the same artifact, and who brought them from where is its provenance.
"""

import getpass
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foundry_core import __version__
from foundry_core.evaluation.results.base import Results
from foundry_core.evaluation.score import (
    Evaluation,
    Score,
    total,
    write_episodes,
    write_evaluation,
)
from foundry_core.files import sha256_of
from foundry_core.lineage.events import EventLog
from foundry_core.masking import mask_command
from foundry_core.store.base import Store
from foundry_core.store.external import imported
from foundry_core.store.imports import import_files
from foundry_core.store.manifest import Artifact, content_digest, scan

KIND = "evaluate"
SOURCE = "source"
_RECORDS = "records"


@dataclass(frozen=True, kw_only=True)
class ModelImport:
    """One model's results, as its artifact has them. known: the store has it already."""

    model: str
    tasks: int
    score: Score
    crashes: dict[str, int]
    artifact: Artifact
    known: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "tasks": self.tasks,
            **self.score.to_json(),
            "crashes": self.crashes,
            "key": self.artifact.key,
            "digest": f"sha256:{self.artifact.content}",
            "known": self.known,
        }


def import_model(
    store: Store,
    log: EventLog,
    root: Path,
    results: Results,
    model: str,
    folder: Path,
    *,
    dry: bool,
) -> ModelImport:
    """Writes the evaluation of a model into the empty `folder` and commits it, unless dry. root:
    where the results were read."""
    evaluation = Evaluation.of(results.episodes_of(model), results.budget)
    metrics = _write(results, model, evaluation, folder)
    files = scan(folder)
    artifact = replace(
        imported(KIND, content_digest(files), files, "", files_at=""),
        metrics=metrics,
        provenance=_provenance(root, results, model),
    )
    if dry:
        known = store.state(KIND, artifact.key).status == "ok"
    else:
        known = not import_files(store, log, artifact, folder)
    return ModelImport(
        model=model,
        tasks=len(evaluation.outcomes),
        score=total(evaluation.scores.values()),
        crashes=dict(evaluation.causes),
        artifact=artifact,
        known=known,
    )


def _write(results: Results, model: str, evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """evaluation.json, the records, and copies of the files under source/; the metrics."""
    (folder / _RECORDS).mkdir()
    write_episodes(folder / _RECORDS, results.episodes_of(model))
    for path, name in _source_names(results.files[model]):
        copy = folder / SOURCE / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return write_evaluation(folder, folder / _RECORDS, evaluation, results.facts[model])


def _source_names(files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file with its path below the folder that holds them all: where that one lies is no part
    of what they are."""
    first, *others = [path.parent.parts for path in files]
    depth = next(
        (i for i, part in enumerate(first) if any(other[i : i + 1] != (part,) for other in others)),
        len(first),
    )
    return [(path, "/".join(path.parts[depth:])) for path in files]


def _provenance(root: Path, results: Results, model: str) -> dict[str, Any]:
    """Of artifact.json: who brought which files from where."""
    return {
        "imported": {
            "source": str(root.resolve()),
            "format": results.format,
            "model": model,
            "files": {str(path.resolve()): sha256_of(path) for path in results.files[model]},
            "by": _user(),
        },
        "foundry": __version__,
        "host": socket.gethostname(),
        "command": mask_command(sys.argv),
    }


def _user() -> str:
    """A container may run as a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
