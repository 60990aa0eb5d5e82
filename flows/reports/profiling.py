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


def profile_stage(request: Request, stage: str, wanted: Wanted, progress: Progress) -> StageProfile:
    """Of the training that the stage would do. FoundryError where it trains nothing, where what it
    reads is not built, and where its device is not here."""
    prepared = prepare(replace(request, only=(stage,)))
    node = prepared.pipeline.stages[stage]
    if not issubclass(node.stage, TrainStage):
        others = prepared.pipeline.stages.values()
        trained = [n.name for n in others if issubclass(n.stage, TrainStage)]
        raise FoundryError(
            f"stage {stage!r} ({node.kind}) trains nothing",
            f"stages that do: {', '.join(trained)}" if trained else "nor does any other stage",
        )
    assert isinstance(node.resources, TrainResources)
    artifacts = built(prepared, (up for _, _, up in node.upstream()))
    # Before torch is imported: its threads and its profiler's notes are decided then.
    os.environ.update(stage_variables(node.resources.cpus))
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    from foundry_core.training.distributed import World
    from foundry_core.training.launch import device_of, threads
    from foundry_core.training.profiling.measure import profile_training

    with (
        tempfile.TemporaryDirectory(prefix="foundry-profile-") as folder,
        threads(node.resources.cpus),
    ):
        context = _context(prepared, stage, artifacts, Path(folder), progress)
        world = World(device=device_of(node.resources))
        training = node.stage.training(context, world)
        found = profile_training(training, wanted, progress)
    return StageProfile(pipeline=prepared.pipeline.name, stage=stage, kind=node.kind, profile=found)


def _context(
    prepared: Prepared,
    stage: str,
    artifacts: Mapping[str, Artifact],
    folder: Path,
    progress: Progress,
) -> StageContext:
    """As its process would have it, with a folder of its own for whatever it writes."""
    spec, node = prepared.specs[stage], prepared.pipeline.stages[stage]
    places = {name: prepared.store.files_path(a) for name, a in artifacts.items()}
    return StageContext(
        name=stage,
        key=spec.key,
        seed=spec.seed,
        recipe=spec.recipe,
        resources=node.resources,
        inputs={
            slot: {
                label: InputArtifact(
                    path=places[up],
                    stage=up,
                    kind=artifacts[up].kind,
                    key=artifacts[up].key,
                    content=artifacts[up].content,
                )
                for label, up in named.items()
            }
            for slot, named in node.inputs.items()
        },
        out=folder,
        scratch=folder,
        progress=progress,
    )
