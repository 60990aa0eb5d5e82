"""Captioned images → a vision-language model."""

from foundry_core.data.robot.prompts import IMAGE
from foundry_core.models.build import seeded
from foundry_core.models.config import BackboneConfig, VLMConfig
from foundry_core.models.interfaces import Backbone
from foundry_core.models.vlm import VLM
from foundry_core.pipeline.stage import StageContext
from foundry_core.training.distributed import World
from foundry_core.training.stages.job import Metrics, Training, job_of, text_objectives
from foundry_core.training.stages.upstream import (
    Start,
    backbone_start,
    language_start,
    optional_path,
)


def train_vision_language_model(ctx: StageContext, world: World) -> Metrics:
    """Metrics of `vision_language_training`, carried out."""
    return vision_language_training(ctx, world).run()


def vision_language_training(ctx: StageContext, world: World) -> Training:
    """Of a VLM on an upstream language model, on from an upstream VLM, or as described."""
    job = job_of(ctx, world)
    with seeded(ctx.seed):
        start = _start(ctx, ctx.recipe.model)
        start.adapt(ctx.recipe.lora)
    loader = job.loader(start.tokenizer, backbone=start.model)
    objectives = text_objectives(job, start.model)
    return Training(
        job=job,
        model=start.model,
        start=start,
        objectives=objectives,
        loader=loader,
        steps=job.steps,
        validator=job.validator(objectives, start.tokenizer, backbone=start.model),
    )


def _start(ctx: StageContext, described: BackboneConfig | None) -> Start[Backbone]:
    if optional_path(ctx, "llm") is None or not isinstance(described, VLMConfig):
        return backbone_start(ctx, described)
    language = language_start(ctx, None)
    (image,) = language.add_special(IMAGE)
    config = described.model_copy(update={"image_token_id": image})
    model = VLM.from_language_model(config, language.model)
    return Start(model=model, tokenizer=language.tokenizer)
