"""What the training stages share: their job, what it builds on, the run, the folder it leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import DataConfig, LoaderResources
from foundry_core.data.loading.loader import Loader
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import IMAGE
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.files import write_json
from foundry_core.models.build import Model
from foundry_core.models.config import LanguageConfig, VLAConfig, VLMConfig
from foundry_core.models.io import RAW, WEIGHTS, save_config, save_weights
from foundry_core.models.vlm import check_vocabulary
from foundry_core.objects import connect
from foundry_core.pipeline.stage import StageContext
from foundry_core.training.config import MODALITIES, TrainingConfig, TrainResources
from foundry_core.training.distributed import World, local_batch_size, whole_pieces
from foundry_core.training.loop import Trainer
from foundry_core.training.mixed_batch import Objective
from foundry_core.training.object_place import CheckpointObjects
from foundry_core.training.objectives import CaptionLoss, TextLoss

Sources = Mapping[str, Mapping[str, Path]]
Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What every training stage needs. sources: modality → label → shard folder."""

    ctx: StageContext
    world: World
    sources: Sources

    @property
    def data(self) -> DataConfig:
        return self.ctx.recipe.data

    @property
    def training(self) -> TrainingConfig:
        return self.ctx.recipe.training

    @property
    def steps(self) -> int:
        """Of a budget that counts no tokens."""
        return self.training.total_steps(samples_per_step=self.data.samples_per_step)

    def loader(
        self,
        tokenizer: Tokenizer,
        *,
        tokens_per_image: int = 1,
        normalizer: Normalizer | None = None,
    ) -> Loader:
        """The loader of this run's data."""
        resources: TrainResources = self.ctx.resources
        return build_loader(
            self.data,
            self.sources,
            seed=self.ctx.seed,
            tokenizer=tokenizer,
            tokens_per_image=tokens_per_image,
            normalizer=normalizer,
            resources=LoaderResources(
                workers=resources.loader_workers, pin_memory=resources.gpus > 0
            ),
        )


def job_of(ctx: StageContext, world: World) -> TrainJob:
    """The job of one of the stages train_llm, train_vlm, train_vla."""
    sources = {
        name: {label: artifact.path for label, artifact in ctx.inputs[name].items()}
        for name in MODALITIES
        if ctx.inputs.get(name) and name in ctx.recipe.data.modalities
    }
    return TrainJob(ctx=ctx, world=world, sources=sources)


def optional_path(ctx: StageContext, slot: str) -> Path | None:
    """The folder of an optional input."""
    artifact = ctx.optional_input(slot)
    return artifact.path if artifact else None


def train_and_save(
    job: TrainJob,
    module: Model,
    tokenizer: Tokenizer,
    objectives: Mapping[str, Objective],
    loader: Loader,
    steps: int,
) -> Metrics:
    """Trains, then leaves weights, config and tokenizer in the artifact."""
    for name, part in job.data.modalities.items():
        local_batch_size(part.batch_size, job.world, name)
    ctx = job.ctx
    trainer = Trainer(
        stage=ctx.name,
        key=ctx.key,
        model=module,
        objectives={name: objectives[name] for name in job.data.modalities},
        batches=partial(loader.batches, rank=job.world.rank, world=job.world.size),
        config=job.training,
        total_steps=steps,
        seed=ctx.seed,
        resources=ctx.resources,
        scratch=ctx.scratch,
        records=ctx.out / "records",
        progress=ctx.progress,
        weights=job.data.loss_weights,
        lr_scale=getattr(ctx.recipe, "lr_scale", {}),
        frozen=getattr(ctx.recipe, "frozen", ()),
        world=job.world,
        checkpoints=_objects(ctx),
        before_average=partial(_save_weights, job, module, RAW) if job.training.keep_raw else None,
    )
    result = trainer.train()
    _save_weights(job, module, WEIGHTS)
    if job.world.main:
        write_json(ctx.out / "records" / "data.json", loader.report(), durable=False)
        save_config(ctx.out, module)
        tokenizer.save(ctx.out)
    parameters = sum(p.numel() for p in module.parameters())
    return {**result.metrics(), "parameters": parameters}


def _objects(ctx: StageContext) -> CheckpointObjects | None:
    """Where checkpoints go that other hosts find."""
    if not ctx.checkpoints:
        return None
    return CheckpointObjects(connect(ctx.checkpoints), ctx.scratch / "checkpoints")


def _save_weights(job: TrainJob, module: Model, name: str) -> None:
    """Rank 0 writes; the others send it what they hold, a piece at a time."""
    path = job.ctx.out / name if job.world.main else None
    save_weights(path, module, pieces=partial(whole_pieces, world=job.world))


def text_objectives(job: TrainJob, image: int, per_image: int) -> dict[str, Objective]:
    """Of text and captions, for a model that sees images as `per_image` tokens `image`."""
    z_loss = job.training.z_loss
    return {
        "text": TextLoss(z_loss=z_loss),
        "captions": CaptionLoss(image_token_id=image, tokens_per_image=per_image, z_loss=z_loss),
    }


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
