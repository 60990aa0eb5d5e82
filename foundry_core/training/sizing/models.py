"""From a model's config to its parts. Only transformers modules need torch."""

from dataclasses import replace

from foundry_core.errors import FoundryError
from foundry_core.models.config import (
    ALL_LINEAR,
    ConvViTConfig,
    HFVLMConfig,
    LoRAConfig,
    TransformerConfig,
    ViTConfig,
    VLAConfig,
    VLMConfig,
)
from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.diffusion import DiffusionHeadConfig
from foundry_core.models.heads.flow import FlowHeadConfig
from foundry_core.models.heads.regression import RegressionHeadConfig
from foundry_core.models.sizes import kind_of, required
from foundry_core.pipeline.stage import Config
from foundry_core.training.sizing.parts import (
    DecoderPart,
    HeadPart,
    Part,
    language_part,
    projector_part,
    transformer_head_part,
    vision_part,
)
from foundry_core.training.sizing.workload import ImageTokens


def parts_of(model: Config, place: str = "") -> list[Part]:
    """In the order in which data pass through. place: of the model in a larger one. FoundryError
    for what no size is known of."""
    if isinstance(model, TransformerConfig):
        return [language_part(model, place)]
    if isinstance(model, ViTConfig | ConvViTConfig):
        return [vision_part(model, place)]
    if isinstance(model, VLMConfig):
        return _vlm_parts(model, f"{place}." if place else "")
    if isinstance(model, HFVLMConfig):
        from foundry_core.training.sizing.huggingface import vlm_parts

        return vlm_parts(model, place)
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
    parts = parts_of(required(model, "backbone", model.backbone), "backbone")
    decoder = next(part for part in parts if isinstance(part, DecoderPart))
    if model.lora is not None:
        parts = [_adapted(part, model.lora) for part in parts]
    return [*parts, head_part(model, decoder.dim)]


def head_part(model: VLAConfig, width: int) -> HeadPart:
    """Of a policy on a backbone of that width. FoundryError for a head of another make."""
    config = model.head
    if not isinstance(config, FlowHeadConfig | DiffusionHeadConfig | RegressionHeadConfig):
        raise FoundryError(f"the size of an action head {config.kind!r} is not known here")
    sizes = HeadSizes(
        condition_dim=model.tap_layers * width,
        proprio_dim=required(model, "proprio_dim", model.proprio_dim),
        proprio_steps=required(model, "proprio_steps", model.proprio_steps),
        horizon=required(model, "horizon", model.horizon),
        action_dim=required(model, "action_dim", model.action_dim),
    )
    return transformer_head_part(config, sizes)


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


def _adapted(part: Part, lora: LoRAConfig) -> Part:
    if not isinstance(part, DecoderPart):
        return replace(part, adapted=True)
    linears = part.linears
    dotted = [name for name in lora.targets or () if set(name) & set(".*?[")]
    if lora.targets == ALL_LINEAR or dotted or lora.whole:
        raise FoundryError(
            f"the size of adapters on {lora.targets} is not known here: only of those of the text "
            "layers, with nothing trained in full",
            "ask for it with lora.targets null or bare names, and without lora.whole",
        )
    chosen = [linears[name] for name in lora.targets or linears if name in linears]
    adapters = part.n_blocks * sum(lora.rank * (into + out) for into, out in chosen)
    return replace(part, adapted=True, adapters=adapters)
