"""Raw text → a byte-level BPE tokenizer."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from foundry_core.data.sources.base import TextSource
from foundry_core.errors import FoundryError
from foundry_core.pipeline import stage


class TrainTokenizerRecipe(stage.Recipe):
    sources: tuple[TextSource, ...] = Field(min_length=1, description="text to learn merges from")
    vocab_size: int = Field(2048, ge=258, description="with 256 bytes and 2 special tokens")
    sample: float = Field(1.0, gt=0, le=1, description="fraction of the documents, by their hash")


class TrainTokenizer(stage.Stage):
    kind = "train_tokenizer"
    output = stage.ArtifactType.TOKENIZER
    seeded = False
    Recipe = TrainTokenizerRecipe

    @classmethod
    def sources(cls, recipe: TrainTokenizerRecipe) -> Mapping[str, str]:
        return {
            f"{number} {name}": identity
            for number, source in enumerate(recipe.sources)
            for name, identity in source.identity().items()
        }

    @classmethod
    def check(cls, recipe: TrainTokenizerRecipe, inputs: Mapping[str, Any]) -> None:
        for source in recipe.sources:
            if source.token_ids:
                raise FoundryError(
                    f"train_tokenizer cannot learn from {source.format}: they hold ids, not text",
                    "give a text source",
                )

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.data.convert.text import train_tokenizer
        from foundry_core.data.sources.remote import local_source

        return train_tokenizer(
            [local_source(source, ctx.scratch, ctx.progress) for source in ctx.recipe.sources],
            ctx.out,
            vocab_size=ctx.recipe.vocab_size,
            sample=ctx.recipe.sample,
            progress=ctx.progress,
        )


STAGE = TrainTokenizer
