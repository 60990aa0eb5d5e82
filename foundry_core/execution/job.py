"""What a stage is when it is ready to run, and what comes of it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from foundry_core.errors import FoundryError
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import ByInput, StageSpec, check_fields
from foundry_core.pipeline.stage import Resources
from foundry_core.store.base import Store
from foundry_core.store.catalog import known_functions
from foundry_core.store.manifest import Artifact, ArtifactInput, File, content_digest

Observer = Callable[[Mapping[str, Any]], None]
_FIELDS = {"spec", "resources", "inputs", "run_id", "log", "force", "strict_reads", "job_ref"}
# Where an artifact's provenance holds them.
UNDECLARED_READS = "undeclared_reads"
NAME_IT = "name it in sources(), or make it an input"
_SHARED = "coordinator and workers must share one store: set FOUNDRY_STORE alike for both"


class StageFailed(RuntimeError):
    """A stage's own failure. `log` is where its output lies."""

    def __init__(self, stage: str, error: str, hint: str, log: Path) -> None:
        known = [hint, f"its log: {log}" if log.is_file() else ""]
        more = "; ".join(filter(None, known))
        super().__init__(f"stage {stage!r} failed: {error}" + (f" ({more})" if more else ""))
        self.stage, self.error, self.hint, self.log = stage, error, hint, log


class Interrupted(RuntimeError):
    """The stage was stopped from outside; its scratch is kept for the next attempt."""


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """A stage ready to run: its identity, its resources, its committed inputs.

    inputs: slot → label → committed artifact. log: where the stage's output goes. force: build it
    although it is committed. strict_reads: refuse what read files that its key does not know.
    job_ref: where it runs for somebody who waits for it, as events say.
    """

    spec: StageSpec
    resources: Resources
    inputs: Mapping[str, Mapping[str, Artifact]]
    run_id: str
    log: Path
    force: bool = False
    strict_reads: bool = False
    job_ref: str | None = None

    @property
    def contents(self) -> ByInput:
        """The content digests of the inputs."""
        return {
            slot: {label: artifact.content for label, artifact in named.items()}
            for slot, named in self.inputs.items()
        }

    @property
    def input_content_key(self) -> str:
        return self.spec.input_content_key(self.contents)

    def manifest(
        self,
        files: tuple[File, ...],
        *,
        attempt: str,
        metrics: Mapping[str, Any],
        provenance: Mapping[str, Any],
        created: str,
        seconds: float,
    ) -> Artifact:
        """The job's artifact, with these files."""
        spec = self.spec
        return Artifact(
            kind=spec.kind,
            key=spec.key,
            content=content_digest(files),
            input_content_key=self.input_content_key,
            code=spec.code,
            code_fingerprint=spec.code_fingerprint,
            recipe=spec.recipe_json,
            seed=spec.seed,
            sources=spec.sources,
            inputs=tuple(
                ArtifactInput(
                    slot=slot,
                    label=label,
                    stage=spec.upstream[slot][label],
                    kind=artifact.kind,
                    key=artifact.key,
                    content=artifact.content,
                )
                for slot, named in self.inputs.items()
                for label, artifact in named.items()
            ),
            files=files,
            metrics=metrics,
            attempt=attempt,
            run_id=self.run_id,
            created=created,
            seconds=seconds,
            provenance=provenance,
        )

    def linked(self, equal: Artifact, created: str) -> Artifact:
        """The job's artifact, sharing the files of one that was computed from the same bytes."""
        own = self.manifest(
            equal.files,
            attempt="",
            metrics=equal.metrics,
            provenance=equal.provenance,
            created=created,
            seconds=equal.seconds,
        )
        return replace(own, linked_to=equal.linked_to or equal.key, files_at=equal.files_at)

    def to_json(self) -> dict[str, Any]:
        """For a worker in another process or on another machine. Inputs travel as (kind, key), and
        the spec without its per-function digests, for the store that both sides share has them: a
        job stays a few kilobytes and fits into a request's parameters."""
        return {
            "spec": self.spec.to_json() | {"functions": {}},
            "resources": self.resources.model_dump(mode="json"),
            "inputs": {
                slot: {label: [artifact.kind, artifact.key] for label, artifact in named.items()}
                for slot, named in self.inputs.items()
            },
            "run_id": self.run_id,
            "log": str(self.log),
            "force": self.force,
            "strict_reads": self.strict_reads,
            "job_ref": self.job_ref,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], store: Store) -> "StageJob":
        """Raises FoundryError for an unknown or missing field and for inputs the store lacks."""
        check_fields("a stage job", data, _FIELDS)
        functions = known_functions(store, data["spec"]["code_fingerprint"])
        spec = StageSpec.from_json(data["spec"] | {"functions": functions})

        def artifact(kind: str, key: str) -> Artifact:
            found = store.read(kind, key)
            if found is None:
                missing = f"its input {kind}/{key[:12]} is not in the store {store.uri}"
                raise FoundryError(f"stage {spec.name!r}: {missing}", _SHARED)
            return found

        inputs = {
            slot: {label: artifact(*place) for label, place in named.items()}
            for slot, named in data["inputs"].items()
        }
        resources = stage_kind(spec.kind).Resources.model_validate(data["resources"])
        plain = {name: data[name] for name in ("run_id", "force", "strict_reads", "job_ref")}
        return cls(spec=spec, resources=resources, inputs=inputs, log=Path(data["log"]), **plain)


@dataclass(frozen=True, kw_only=True)
class Work:
    """A job in the hands of a process: what it reads and writes, who watches, who may stop it."""

    job: StageJob
    store: Store
    events: EventLog
    observe: Observer
    cancelled: threading.Event


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage came to. action: 'run' when this call did the work."""

    artifact: Artifact
    action: Literal["run", "reuse"]
    how: str = ""
    seconds: float = 0.0
    attempt: str | None = None


def undeclared(files: Sequence[str]) -> str:
    """What is said of a stage that read these."""
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"read {', '.join(files[:3])}{more}, which its key does not know"


def outcome_of(job: StageJob, store: Store) -> Outcome:
    """What a job that ended well elsewhere came to, read from the store both sides share."""
    artifact = store.read(job.spec.kind, job.spec.key)
    if artifact is None:
        lost = f"its worker reports success, but {store.uri} has no {job.spec.key[:12]}"
        raise StageFailed(job.spec.name, lost, _SHARED, job.log)
    if artifact.run_id == job.run_id and not artifact.linked_to:
        return Outcome(
            artifact=artifact, action="run", seconds=artifact.seconds, attempt=artifact.attempt
        )
    how = "content" if artifact.linked_to else "recipe"
    return Outcome(artifact=artifact, action="reuse", how=how, seconds=artifact.seconds)
