"""From a stage's context to a TrainJob."""

from pathlib import Path

from foundry_core.pipeline.stage import StageContext
from foundry_core.training.distributed import World
from foundry_core.training.recipes import MODALITIES
from foundry_core.training.stages import TrainJob


def job_of(ctx: StageContext, world: World) -> TrainJob:
    recipe = ctx.recipe
    sources = {
        name: {label: artifact.path for label, artifact in ctx.inputs[name].items()}
        for name in MODALITIES
        if ctx.inputs.get(name) and name in recipe.data.modalities
    }
    return TrainJob(
        data=recipe.data,
        training=recipe.training,
        resources=ctx.resources,
        sources=sources,
        seed=ctx.seed,
        out=ctx.out,
        scratch=ctx.scratch,
        progress=ctx.progress,
        lr_scale=getattr(recipe, "lr_scale", {}),
        frozen=getattr(recipe, "frozen", ()),
        world=world,
    )


def optional_path(ctx: StageContext, slot: str) -> Path | None:
    artifact = ctx.optional_input(slot)
    return artifact.path if artifact else None
