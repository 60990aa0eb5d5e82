"""Where the time of a pipeline's training stage goes, without a run: nothing enters the store or
the lineage."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.runs.built import built
from flows.runs.planning import Prepared, Request, prepare
from foundry_core.errors import FoundryError
from foundry_core.execution.supervise import stage_variables
from foundry_core.pipeline.graph import StageNode
from foundry_core.pipeline.stage import InputArtifact, Progress, StageContext
from foundry_core.store.manifest import Artifact
from foundry_core.training.config import TrainResources
from foundry_core.training.profiling.wanted import Wanted
from foundry_core.training.recipes import TrainStage

if TYPE_CHECKING:
    from foundry_core.training.profiling.result import Profile


@dataclass(frozen=True, kw_only=True)
class StageProfile:
    pipeline: str
    stage: str
    kind: str
    profile: "Profile"

    def to_json(self) -> dict[str, Any]:
        named = {"pipeline": self.pipeline, "stage": self.stage, "kind": self.kind}
        return {**named, **self.profile.to_json()}


@dataclass(frozen=True, kw_only=True)
class ReadyStage:
    """A stage that can be profiled: what it reads is built. artifacts: by upstream stage."""

    prepared: Prepared
    node: StageNode
    artifacts: Mapping[str, Artifact]


def ready_stage(request: Request, stage: str) -> ReadyStage:
    """FoundryError where the stage trains nothing, and where what it reads is not built."""
    prepared = prepare(replace(request, only=(stage,)))
    node = prepared.pipeline.stages[stage]
    if not issubclass(node.stage, TrainStage):
        others = prepared.pipeline.stages.values()
        trained = [n.name for n in others if issubclass(n.stage, TrainStage)]
        raise FoundryError(
            f"stage {stage!r} ({node.kind}) trains nothing",
            f"stages that do: {', '.join(trained)}" if trained else "nor does any other stage",
        )
    artifacts = built(prepared, (up for _, _, up in node.upstream()))
    return ReadyStage(prepared=prepared, node=node, artifacts=artifacts)


def profile_stage(ready: ReadyStage, wanted: Wanted, progress: Progress) -> StageProfile:
    """Of the training that the stage would do. FoundryError where its device is not here."""
    node = ready.node
    assert isinstance(node.resources, TrainResources) and issubclass(node.stage, TrainStage)
    # Before torch is imported: its threads and its profiler's notes are decided then.
    os.environ.update(stage_variables(node.resources.cpus))
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    from foundry_core.training.distributed import World
    from foundry_core.training.launch import device_of, threads
    from foundry_core.training.profiling.measure import profile_training

    world = World(device=device_of(node.resources))
    with (
        tempfile.TemporaryDirectory(prefix="foundry-profile-") as folder,
        threads(node.resources.cpus),
    ):
        training = node.stage.training(_context(ready, Path(folder), progress), world)
        found = profile_training(training, wanted, progress)
    pipeline = ready.prepared.pipeline.name
    return StageProfile(pipeline=pipeline, stage=node.name, kind=node.kind, profile=found)


def _context(ready: ReadyStage, folder: Path, progress: Progress) -> StageContext:
    """As its process would have it, with a folder of its own for whatever it writes."""
    node, store = ready.node, ready.prepared.store
    spec = ready.prepared.specs[node.name]

    def read(up: str) -> InputArtifact:
        artifact = ready.artifacts[up]
        return InputArtifact(
            path=store.files_path(artifact),
            stage=up,
            kind=artifact.kind,
            key=artifact.key,
            content=artifact.content,
        )

    return StageContext(
        name=node.name,
        key=spec.key,
        seed=spec.seed,
        recipe=spec.recipe,
        resources=node.resources,
        inputs={
            slot: {label: read(up) for label, up in named.items()}
            for slot, named in node.inputs.items()
        },
        out=folder,
        scratch=folder,
        progress=progress,
    )
