"""Packed text → a language model."""

from pathlib import Path

from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.models.build import seeded
from foundry_core.pipeline.stage import StageContext
from foundry_core.training.distributed import World
from foundry_core.training.mixed_batch import Objective
from foundry_core.training.objectives import TextLoss
from foundry_core.training.stages.job import Metrics, Training, job_of
from foundry_core.training.stages.upstream import language_start
from foundry_core.training.trunk import text_steps


def train_language_model(ctx: StageContext, world: World) -> Metrics:
    """Metrics of `language_training`, carried out."""
    return language_training(ctx, world).run()


def language_training(ctx: StageContext, world: World) -> Training:
    """Of a decoder: the upstream one goes on, or the described one starts."""
    job = job_of(ctx, world)
    with seeded(ctx.seed):
        start = language_start(ctx, ctx.recipe.model)
        start.adapt(ctx.recipe.lora)
    for label, folder in job.sources["text"].items():
        _check_text(label, folder, start.tokenizer)
    loader = job.loader(start.tokenizer)
    objectives: dict[str, Objective] = {"text": TextLoss(z_loss=job.training.z_loss)}
    context = int(read_json(next(iter(job.sources["text"].values())) / "dataset.json")["context"])
    steps, tokens = text_steps(job.training, job.data, context)
    return Training(
        job=job,
        model=start.model,
        start=start,
        objectives=objectives,
        loader=loader,
        steps=steps,
        validator=job.validator(objectives, start.tokenizer),
        metrics={"tokens": steps * tokens},
    )


def _check_text(label: str, folder: Path, tokenizer: Tokenizer) -> None:
    digest = read_json(folder / "dataset.json").get("tokenizer")
    if digest and digest != tokenizer.digest:
        raise FoundryError(
            f"text dataset {label!r} was made with tokenizer {digest[:12]}, the model uses "
            f"{tokenizer.digest[:12]}",
            "convert the text with the model's tokenizer",
        )
