"""Captioned images → a vision-language model."""

from foundry_core.data.robot.prompts import IMAGE
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.models.build import Model, build_model, seeded
from foundry_core.models.interfaces import LanguageModel
from foundry_core.models.io import load_as
from foundry_core.models.vlm import VLM, check_vocabulary
from foundry_core.pipeline.stage import StageContext
from foundry_core.training.distributed import World
from foundry_core.training.stages.job import (
    Metrics,
    job_of,
    optional_path,
    scratch_language,
    text_objectives,
    train_and_save,
    upstream_tokenizer,
)


def train_vision_language_model(ctx: StageContext, world: World) -> Metrics:
    """A VLM on an upstream language model, or from scratch with `model.language` given."""
    job, model = job_of(ctx, world), ctx.recipe.model
    llm = optional_path(ctx, "llm")
    tokenizer = upstream_tokenizer(llm, optional_path(ctx, "tokenizer"))
    used = tokenizer.vocab_size
    image = tokenizer.add_special(IMAGE)
    config = model.model_copy(update={"image_token_id": image})
    module: Model
    if llm is not None:
        language = load_as(LanguageModel, llm)  # type: ignore[type-abstract]  # found, never made
        check_vocabulary(
            tokenizer=(Tokenizer.load(llm).digest, used), model=(None, language.vocab_size)
        )
        with seeded(ctx.seed):
            module = VLM.from_language_model(config, language, vocab_size=tokenizer.vocab_size)
    else:
        described = scratch_language(model, tokenizer.vocab_size)
        module = build_model(config.model_copy(update={"language": described}), ctx.seed)
    loader = job.loader(tokenizer, tokens_per_image=config.tokens_per_image)
    objectives = text_objectives(job, image, config.tokens_per_image)
    return train_and_save(job, module, tokenizer, objectives, loader, job.steps)
