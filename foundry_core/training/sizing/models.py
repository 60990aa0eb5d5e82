"""From a model's config to its parts. Only transformers modules need torch."""

from collections.abc import Sequence
from dataclasses import replace

from foundry_core.errors import FoundryError
from foundry_core.models.config import (
    ALL_LINEAR,
    ConvViTConfig,
    EncoderConfig,
    HFConfig,
    HFVLMConfig,
    LoRAConfig,
    TransformerConfig,
    ViTConfig,
    VLAConfig,
    VLMConfig,
)
from foundry_core.models.heads.base import HeadSizes, KeyValueShape
from foundry_core.models.sizes import kind_of, required
from foundry_core.pipeline.stage import Config
from foundry_core.training.sizing.encoders import condition_tokens, encoder_parts
from foundry_core.training.sizing.heads import head_part, reading_of
from foundry_core.training.sizing.parts import (
    DecoderPart,
    Part,
    language_part,
    projector_part,
    vision_part,
)
from foundry_core.training.sizing.workload import ImageTokens


def parts_of(model: Config, place: str = "", lora: LoRAConfig | None = None) -> list[Part]:
    """In the order in which data pass through. place: of the model in a larger one. lora: of
    adapters on it, besides those of a policy's own config. FoundryError for what no size is known
    of."""
    if lora is not None:
        return _adapted(parts_of(model, place), model, lora)
    if isinstance(model, TransformerConfig):
        return [language_part(model, place)]
    if isinstance(model, ViTConfig | ConvViTConfig):
        return [vision_part(model, place)]
    if isinstance(model, VLMConfig):
        return _vlm_parts(model, f"{place}." if place else "")
    if isinstance(model, HFVLMConfig):
        from foundry_core.training.sizing.huggingface import vlm_parts

        return vlm_parts(model, place)
    if isinstance(model, EncoderConfig):
        return encoder_parts(model, place)
    if isinstance(model, VLAConfig):
        return _vla_parts(model)
    raise FoundryError(f"the size of a model of kind {kind_of(model)!r} is not known here")


def image_tokens(model: Config) -> ImageTokens:
    """Of the pictures in its rows. A blind policy's backbone sees those of captions."""
    if isinstance(model, VLAConfig):
        return image_tokens(required(model, "backbone", model.backbone))
    if isinstance(model, VLMConfig):
        return ImageTokens(each=model.tokens_per_image)
    if isinstance(model, HFVLMConfig):
        from foundry_core.training.sizing.huggingface import vlm_image_tokens

        return vlm_image_tokens(model)
    return ImageTokens()


def context_of(model: Config) -> int:
    """The longest text that it is trained on, where its data do not say."""
    if isinstance(model, VLAConfig):
        return context_of(required(model, "backbone", model.backbone))
    language = model.language if isinstance(model, VLMConfig) else model
    context: int = getattr(language, "context", 2048)
    return context


def _vla_parts(model: VLAConfig) -> list[Part]:
    backbone = required(model, "backbone", model.backbone)
    parts = parts_of(backbone, "backbone", model.lora)
    if isinstance(backbone, EncoderConfig):
        sizes = _head_sizes(model, backbone.width, None)
        return [*parts, head_part(model.head, sizes, condition_tokens(backbone))]
    return with_head(model, parts)


def with_head(model: VLAConfig, backbone: Sequence[Part]) -> list[Part]:
    """A policy's parts, from those of its VLM: as its head reads them, and the head. FoundryError
    for a head of another make."""
    decoder = next(part for part in backbone if isinstance(part, DecoderPart))
    sizes = _head_sizes(model, decoder.dim, decoder.keys_values)
    reading = reading_of(model.head, sizes)
    return [*(replace(part, reading=reading) for part in backbone), head_part(model.head, sizes)]


def _head_sizes(model: VLAConfig, width: int, keys: KeyValueShape | None) -> HeadSizes:
    layers = 1 if isinstance(model.backbone, EncoderConfig) else model.tap_layers
    sizes = HeadSizes(
        condition_dim=layers * width,
        proprio_dim=required(model, "proprio_dim", model.proprio_dim),
        proprio_steps=required(model, "proprio_steps", model.proprio_steps),
        horizon=required(model, "horizon", model.horizon),
        action_dim=required(model, "action_dim", model.action_dim),
    )
    return sizes if keys is None else {**sizes, "keys_values": keys}


def _vlm_parts(model: VLMConfig, place: str) -> list[Part]:
    language, vision = model.language, model.vision
    if not isinstance(language, TransformerConfig) or not isinstance(
        vision, ViTConfig | ConvViTConfig
    ):
        raise FoundryError(
            "the size of a vlm with a transformers module as one of its parts is not known here",
            "describe its parts as transformer, vit or conv_vit, or take a whole hf_vlm",
        )
    projector = projector_part(
        model.projector,
        f"{place}projector",
        patches=vision.grid**2,
        width=vision.width,
        out=language.dim,
    )
    bidirectional = model.image_attention == "bidirectional"
    decoder = replace(language_part(language, f"{place}language"), bidirectional=bidirectional)
    return [vision_part(vision, f"{place}vision"), projector, decoder]


def needs_torch(model: Config, lora: LoRAConfig | None) -> bool:
    """Whether the size of a model, or of adapters on it, is only known of modules."""
    backbone = model
    if isinstance(model, VLAConfig):
        backbone, lora = required(model, "backbone", model.backbone), model.lora
    if lora is not None and not _by_names(lora):
        return True
    language = backbone.language if isinstance(backbone, VLMConfig) else None
    if any(isinstance(part, HFConfig) for part in (backbone, language)):
        return True
    return isinstance(backbone, EncoderConfig) and not (
        isinstance(backbone.vision, ViTConfig | ConvViTConfig)
        and isinstance(backbone.text, TransformerConfig | None)
    )


def _by_names(lora: LoRAConfig) -> bool:
    """Whether its adapters are on linears of the text layers that are named, and nothing else
    learns."""
    dotted = any(set(name) & set(".*?[") for name in lora.targets or ())
    return not (lora.targets == ALL_LINEAR or dotted or lora.whole)


def _adapted(parts: list[Part], model: Config, lora: LoRAConfig) -> list[Part]:
    if not _by_names(lora):
        from foundry_core.training.sizing.measured import adapters_of

        found = adapters_of(model, lora)
        return [
            replace(part, adapted=True, adapters=found[part.name][0], whole=found[part.name][1])
            for part in parts
        ]
    return [_with_adapters(part, lora) for part in parts]


def _with_adapters(part: Part, lora: LoRAConfig) -> Part:
    if not isinstance(part, DecoderPart):
        return replace(part, adapted=True)
    linears = part.linears
    chosen = [linears[name] for name in lora.targets or linears if name in linears]
    adapters = part.n_blocks * sum(lora.rank * (into + out) for into, out in chosen)
    return replace(part, adapted=True, adapters=adapters)
