"""What a training stage builds on: upstream tokenizers and models, or their descriptions."""

from pathlib import Path

from foundry_core.data.robot.prompts import IMAGE
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.models.config import LanguageConfig, VLAConfig, VLMConfig
from foundry_core.models.vlm import check_vocabulary


def upstream_tokenizer(model: Path | None, tokenizer: Path | None) -> Tokenizer:
    """The upstream model's, else the connected one; two must agree."""
    found = [Tokenizer.load(path) for path in (model, tokenizer) if path is not None]
    if not found:
        raise FoundryError(
            "a model from scratch needs a tokenizer", "connect the input 'tokenizer'"
        )
    if len(found) == 2:
        check_vocabulary(
            tokenizer=(found[1].digest, found[1].vocab_size),
            model=(found[0].digest, found[0].vocab_size),
        )
    return found[0]


def scratch_language(model: VLMConfig, vocab_size: int) -> LanguageConfig:
    """The recipe's own language model, with the tokenizer's vocabulary."""
    if model.language is None:
        raise FoundryError(
            "model.language is null and no language model is connected",
            "connect the input 'llm', or describe the language model in the recipe",
        )
    return model.language.model_copy(update={"vocab_size": vocab_size})


def scratch_vlm(model: VLAConfig, tokenizer: Tokenizer) -> VLMConfig:
    """The recipe's own backbone, with the tokenizer's vocabulary and image token."""
    if not isinstance(model.backbone, VLMConfig):
        raise FoundryError(
            "model.backbone is null and no VLM is connected",
            "connect the input 'vlm', or describe a vlm backbone in the recipe",
        )
    image = tokenizer.add_special(IMAGE)
    language = scratch_language(model.backbone, tokenizer.vocab_size)
    return model.backbone.model_copy(update={"language": language, "image_token_id": image})
