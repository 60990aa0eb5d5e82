"""What a training stage starts from: the model in one of its inputs, or the one its recipe
describes, and the tokenizer that belongs to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.models.build import build_model
from foundry_core.models.config import (
    BackboneConfig,
    EncoderConfig,
    HFConfig,
    HFLanguageConfig,
    HFTextConfig,
    HFVLMConfig,
    LanguageConfig,
    LoRAConfig,
    TextConfig,
    TransformerConfig,
    VLMConfig,
)
from foundry_core.models.interfaces import Backbone, LanguageModel, Observer
from foundry_core.models.io import load_as
from foundry_core.models.lora import apply_lora, merge_lora
from foundry_core.models.processor_files import processor_of
from foundry_core.models.vlm import check_same_architecture, check_vocabulary
from foundry_core.pipeline.stage import StageContext

M = TypeVar("M", LanguageModel, Backbone, Observer)
D = TypeVar("D", LanguageModel, Backbone)


@dataclass(frozen=True, kw_only=True)
class Start(Generic[M]):
    """processor: folder of the processor files that the model was imported with."""

    model: M
    tokenizer: Tokenizer
    processor: Path | None = None

    def add_special(self, *tokens: str) -> list[int]:
        """Ids of tokens that are added where they are new, with a row each in the model."""
        assert isinstance(self.model, LanguageModel | Backbone)
        used = self.tokenizer.vocab_size
        ids = [self.tokenizer.add_special(token) for token in tokens]
        self.model.resize_vocabulary(self.tokenizer.vocab_size, used)
        return ids

    def adapt(self, lora: LoRAConfig | None) -> None:
        """Freezes the model and puts fresh adapters on it; None leaves it as it is. After all
        tokens have their rows."""
        if lora is not None:
            assert isinstance(self.model, LanguageModel | Backbone)
            apply_lora(self.model, lora)


def language_start(ctx: StageContext, described: LanguageConfig | None) -> Start[LanguageModel]:
    """Of an upstream language model (input `llm`), else of the described one."""
    llm = optional_path(ctx, "llm")
    if llm is not None:
        found = _upstream(ctx, LanguageModel, llm)  # type: ignore[type-abstract]
        if described is not None:
            check_same_architecture("model", described, found.model.config)
        return found
    if described is None:
        raise FoundryError(
            "no language model is connected and the recipe describes none",
            "connect the input 'llm', or describe the language model in the recipe",
        )
    if isinstance(described, HFLanguageConfig) and described.has_weights:
        tokenizer, folder = _checkpoint_tokenizer(ctx, described)
        model = build_model(described)
        assert isinstance(model, LanguageModel)
        model.resize_vocabulary(tokenizer.vocab_size, model.vocab_size)
        return Start(model=model, tokenizer=tokenizer, processor=folder)
    tokenizer = connected_tokenizer(ctx)
    model = build_model(with_vocabulary(described, tokenizer))
    assert isinstance(model, LanguageModel)
    return Start(model=model, tokenizer=tokenizer)


def backbone_start(
    ctx: StageContext, described: BackboneConfig | None, *specials: str
) -> Start[Backbone]:
    """Of an upstream VLM (input `vlm`), else of the described one. specials: tokens that the model
    must know besides the image token."""
    vlm = optional_path(ctx, "vlm")
    if vlm is not None:
        found = _upstream(ctx, Backbone, vlm)  # type: ignore[type-abstract]
        found.add_special(*specials)
        return found
    if described is None:
        raise FoundryError(
            "model.backbone is null and no VLM is connected",
            "connect the input 'vlm', or describe a backbone in the recipe",
        )
    if isinstance(described, HFVLMConfig) and described.has_weights:
        tokenizer, folder = _checkpoint_tokenizer(ctx, described)
        model = build_model(described)
        assert isinstance(model, Backbone)
        model.resize_vocabulary(tokenizer.vocab_size, model.vocab_size)
        start = Start(model=model, tokenizer=tokenizer, processor=folder)
        start.add_special(*specials)
        return start
    assert not isinstance(described, EncoderConfig)  # `observer_start` takes these
    tokenizer = connected_tokenizer(ctx)
    for token in specials:
        tokenizer.add_special(token)
    image = tokenizer.add_special(IMAGE)
    model = build_model(_scratch_backbone(described, tokenizer, image))
    assert isinstance(model, Backbone)
    return Start(model=model, tokenizer=tokenizer)


def observer_start(
    ctx: StageContext, described: BackboneConfig | None, images: int, *specials: str
) -> Start[Backbone] | Start[Observer]:
    """As `backbone_start`, or of encoders that the recipe describes, for so many images."""
    if not isinstance(described, EncoderConfig):
        return backbone_start(ctx, described, *specials)
    text = described.text
    folder = None
    if isinstance(text, HFTextConfig) and text.has_weights:
        tokenizer, folder = _checkpoint_tokenizer(ctx, text)
    elif text is None and optional_path(ctx, "tokenizer") is None:
        tokenizer = Tokenizer.of_bytes()
    else:
        tokenizer = connected_tokenizer(ctx)
    for token in specials:
        tokenizer.add_special(token)
    update = {"images": images, "text": _scratch_text(text, tokenizer)}
    model = build_model(described.model_copy(update=update))
    assert isinstance(model, Observer)
    return Start(model=model, tokenizer=tokenizer, processor=folder)


def _scratch_text(text: TextConfig | None, tokenizer: Tokenizer) -> TextConfig | None:
    """With the tokenizer's vocabulary, where it has no weights yet."""
    if isinstance(text, TransformerConfig):
        grown = with_vocabulary(text, tokenizer)
        assert isinstance(grown, TransformerConfig)
        return grown
    if text is None or text.has_weights:
        return text
    # `<obs>` ends what is read, as the end-of-text token does for what CLIP was trained on.
    size = {"vocab_size": tokenizer.vocab_size, "eos_token_id": tokenizer.token_id(OBS)}
    ends = {"bos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    return text.model_copy(update={"config": {**(text.config or {}), **size, **ends}})


def _scratch_backbone(
    described: VLMConfig | HFVLMConfig, tokenizer: Tokenizer, image: int
) -> BackboneConfig:
    if isinstance(described, HFVLMConfig):
        architecture = {**(described.config or {}), "image_token_id": image}
        size = tokenizer.vocab_size
        return described.model_copy(update={"config": architecture, "vocab_size": size})
    return described.model_copy(
        update={"language": scratch_language(described, tokenizer), "image_token_id": image}
    )


def scratch_language(model: VLMConfig, tokenizer: Tokenizer) -> LanguageConfig:
    """The recipe's own language model, with the tokenizer's vocabulary."""
    if model.language is None:
        raise FoundryError(
            "model.language is null and no language model is connected",
            "connect the input 'llm', or describe the language model in the recipe",
        )
    return with_vocabulary(model.language, tokenizer)


def with_vocabulary(config: LanguageConfig, tokenizer: Tokenizer) -> LanguageConfig:
    """With a row for every token; a stated size pads the table, and must be enough."""
    size = tokenizer.vocab_size
    if isinstance(config, TransformerConfig) and config.vocab_size is not None:
        if config.vocab_size < size:
            raise FoundryError(
                f"vocab_size = {config.vocab_size} is less than the {size} tokens of the model "
                "(its tokenizer's, and those for images and observations)",
                "leave vocab_size out, or raise it",
            )
        size = config.vocab_size
    return config.model_copy(update={"vocab_size": size})


def _upstream(ctx: StageContext, kind: type[D], folder: Path) -> Start[D]:
    tokenizer = Tokenizer.load(folder)
    other = optional_path(ctx, "tokenizer")
    if other is not None:
        _check_equal(Tokenizer.load(other), tokenizer)
    model = load_as(kind, folder)
    merge_lora(model)
    check_vocabulary(
        tokenizer=(tokenizer.digest, tokenizer.vocab_size), model=(None, model.vocab_size)
    )
    return Start(model=model, tokenizer=tokenizer, processor=processor_of(folder))


def _checkpoint_tokenizer(ctx: StageContext, weights: HFConfig) -> tuple[Tokenizer, Path]:
    from foundry_core.models.huggingface.checkpoint import imported_tokenizer, local_folder

    folder = local_folder(weights)
    tokenizer = imported_tokenizer(folder)
    other = optional_path(ctx, "tokenizer")
    if other is not None:
        _check_equal(Tokenizer.load(other), tokenizer)
    return tokenizer, folder


def _check_equal(connected: Tokenizer, own: Tokenizer) -> None:
    check_vocabulary(
        tokenizer=(connected.digest, connected.vocab_size), model=(own.digest, own.vocab_size)
    )


def connected_tokenizer(ctx: StageContext) -> Tokenizer:
    """Of the input `tokenizer`, which a model from scratch needs."""
    path = optional_path(ctx, "tokenizer")
    if path is None:
        raise FoundryError(
            "a model from scratch needs a tokenizer", "connect the input 'tokenizer'"
        )
    return Tokenizer.load(path)


def optional_path(ctx: StageContext, slot: str) -> Path | None:
    """The folder of an optional input."""
    artifact = ctx.optional_input(slot)
    return artifact.path if artifact else None
