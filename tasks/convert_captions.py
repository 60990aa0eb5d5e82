"""Captioned images → caption shards."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from foundry_core.data.config import ImageConfig, SplitConfig
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.sources.base import CaptionSource
from foundry_core.errors import FoundryError
from foundry_core.pipeline import stage
from foundry_core.simulation.collection import recorded_work


class ConvertCaptionsRecipe(stage.Recipe):
    source: CaptionSource | None = Field(None, description="raw data; null takes input `scenes`")
    image: ImageConfig = Field(
        ImageConfig(), description="what becomes of pictures on their way into shards"
    )
    samples_per_shard: int = Field(1024, ge=1, description="captioned images in one shard")
    split: SplitConfig | None = Field(
        None, description="samples to set aside for validation; null sets none aside"
    )
    max_skipped: int = Field(0, ge=0, description="broken images or captions to tolerate")


class ConvertCaptions(stage.Stage):
    kind = "convert_captions"
    output = stage.ArtifactType.CAPTION_SHARDS
    seeded = False
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "scenes": stage.slot(stage.ArtifactType.SCENES, optional=True)
    }
    Recipe = ConvertCaptionsRecipe

    @classmethod
    def sources(cls, recipe: ConvertCaptionsRecipe) -> Mapping[str, str]:
        return recipe.source.identity() if recipe.source else {}

    @classmethod
    def check(cls, recipe: ConvertCaptionsRecipe, inputs: Mapping[str, Any]) -> None:
        if bool(recipe.source) == bool(inputs.get("scenes")):
            raise FoundryError(
                "convert_captions takes its images from exactly one of recipe.source and the "
                "input 'scenes'",
                "connect 'scenes' to a collect_scenes stage, or give a source",
            )

    @classmethod
    def states(cls, recipe: ConvertCaptionsRecipe, inputs: Mapping[str, Any]) -> DataContract:
        given = [scenes.states for scenes in inputs.get("scenes", {}).values()]
        known = next((one for one in given if isinstance(one, DataContract)), DataContract())
        return known.converted(known.cameras, (), recipe.image, {})

    @classmethod
    def work(cls, recipe: ConvertCaptionsRecipe, inputs: Mapping[str, Any]) -> stage.Work | None:
        recorded = (recorded_work(one.recipe) for one in inputs.get("scenes", {}).values())
        return next(recorded, None)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.data.convert.captions import convert_captions
        from foundry_core.data.sources.captions.scenes import SceneFolder
        from foundry_core.data.sources.remote import local_source

        recipe = ctx.recipe
        scenes = ctx.optional_input("scenes")
        source = SceneFolder(path=str(scenes.path)) if scenes else recipe.source
        return convert_captions(
            local_source(source, ctx.scratch, ctx.progress),
            ctx.out,
            image=recipe.image,
            samples_per_shard=recipe.samples_per_shard,
            max_skipped=recipe.max_skipped,
            split=recipe.split,
            workers=ctx.resources.cpus,
            progress=ctx.progress,
            scratch=ctx.scratch,
        )


STAGE = ConvertCaptions
