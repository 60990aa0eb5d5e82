"""Raw text + tokenizer → packed token shards."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from foundry_core.data.config import SplitConfig
from foundry_core.data.sources.base import TextSource
from foundry_core.errors import FoundryError
from foundry_core.pipeline import stage


class ConvertTextRecipe(stage.Recipe):
    source: TextSource = Field(description="raw data")
    context: int = Field(256, ge=1, description="rows hold context + 1 tokens")
    samples_per_shard: int = Field(4096, ge=1, description="rows of tokens in one shard")
    split: SplitConfig | None = Field(
        None, description="documents to set aside for validation, by the hash of their content"
    )
    tail: Literal["drop", "pad"] = Field("drop", description="the last, unfilled row; counted")
    max_skipped: int = Field(0, ge=0, description="unreadable documents to tolerate")


class ConvertText(stage.Stage):
    kind = "convert_text"
    output = stage.ArtifactType.TEXT_SHARDS
    seeded = False
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "tokenizer": stage.slot(
            stage.ArtifactType.TOKENIZER,
            stage.ArtifactType.LANGUAGE_MODEL,
            stage.ArtifactType.VISION_LANGUAGE_MODEL,
            optional=True,
        )
    }
    Recipe = ConvertTextRecipe

    @classmethod
    def sources(cls, recipe: ConvertTextRecipe) -> Mapping[str, str]:
        return recipe.source.identity()

    @classmethod
    def check(cls, recipe: ConvertTextRecipe, inputs: Mapping[str, Any]) -> None:
        source = recipe.source
        if recipe.split and recipe.split.group:
            raise FoundryError(
                "convert_text splits documents by their content, which has no groups",
                "leave split.group out",
            )
        if source.token_ids and inputs.get("tokenizer"):
            raise FoundryError(
                f"convert_text from {source.format} takes no tokenizer: its ids were made by "
                "another",
                "remove the tokenizer input",
            )
        if not source.token_ids and not inputs.get("tokenizer"):
            raise FoundryError(
                f"convert_text from {source.format} needs a tokenizer",
                "connect its input 'tokenizer' to a train_tokenizer stage, or to a model",
            )

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.data.convert.text import convert_text
        from foundry_core.data.sources.remote import local_source

        recipe = ctx.recipe
        tokenizer = ctx.optional_input("tokenizer")
        return convert_text(
            local_source(recipe.source, ctx.scratch, ctx.progress),
            tokenizer.path if tokenizer else None,
            ctx.out,
            context=recipe.context,
            samples_per_shard=recipe.samples_per_shard,
            split=recipe.split,
            tail=recipe.tail,
            max_skipped=recipe.max_skipped,
            workers=ctx.resources.cpus,
            progress=ctx.progress,
            scratch=ctx.scratch,
        )


STAGE = ConvertText
