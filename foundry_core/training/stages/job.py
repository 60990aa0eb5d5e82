"""What the training stages share: their job, the run of the Trainer, the folder they leave."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from foundry_core.data.loading.config import DataConfig, LoaderResources
from foundry_core.data.loading.loader import Loader
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.files import write_json
from foundry_core.models.build import Model
from foundry_core.models.io import save_model
from foundry_core.pipeline.stage import Progress, StageContext
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.distributed import World, full, local_batch_size
from foundry_core.training.loop import Trainer
from foundry_core.training.mixed_loss import Objective
from foundry_core.training.objectives import CaptionLoss, TextLoss
from foundry_core.training.recipes import MODALITIES

Sources = Mapping[str, Mapping[str, Path]]
Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What every training stage needs. sources: modality → label → shard folder."""

    stage: str
    key: str
    data: DataConfig
    training: TrainingConfig
    resources: TrainResources
    sources: Sources
    seed: int
    out: Path
    scratch: Path
    progress: Progress
    lr_scale: Mapping[str, float]
    frozen: tuple[str, ...]
    world: World

    @property
    def loading(self) -> LoaderResources:
        return LoaderResources(
            workers=self.resources.loader_workers, pin_memory=self.resources.gpus > 0
        )

    @property
    def steps(self) -> int:
        """Of a budget that counts no tokens."""
        return self.training.total_steps(samples_per_step=self.data.samples_per_step)


def job_of(ctx: StageContext, world: World) -> TrainJob:
    """The job of one of the stages train_llm, train_vlm, train_vla."""
    recipe = ctx.recipe
    sources = {
        name: {label: artifact.path for label, artifact in ctx.inputs[name].items()}
        for name in MODALITIES
        if ctx.inputs.get(name) and name in recipe.data.modalities
    }
    return TrainJob(
        stage=ctx.name,
        key=ctx.key,
        data=recipe.data,
        training=recipe.training,
        resources=ctx.resources,
        sources=sources,
        seed=ctx.seed,
        out=ctx.out,
        scratch=ctx.scratch,
        progress=ctx.progress,
        lr_scale=getattr(recipe, "lr_scale", {}),
        frozen=getattr(recipe, "frozen", ()),
        world=world,
    )


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
    """Trains, then leaves weights, config and tokenizer in job.out."""
    for name, part in job.data.modalities.items():
        local_batch_size(part.batch_size, job.world, name)
    trainer = Trainer(
        stage=job.stage,
        key=job.key,
        model=module,
        objectives={name: objectives[name] for name in job.data.modalities},
        batches=partial(loader.batches, rank=job.world.rank, world=job.world.size),
        config=job.training,
        total_steps=steps,
        seed=job.seed,
        resources=job.resources,
        scratch=job.scratch,
        records=job.out / "records",
        progress=job.progress,
        weights=job.data.loss_weights,
        lr_scale=job.lr_scale,
        frozen=job.frozen,
        world=job.world,
    )
    result = trainer.train()
    # Rank 0 writes; sharded weights are gathered by all ranks together.
    state = {name: full(tensor) for name, tensor in module.state_dict().items()}
    if job.world.main:
        write_json(job.out / "records" / "data.json", loader.report(), durable=False)
        save_model(job.out, module, state=state)
        tokenizer.save(job.out)
    parameters = sum(p.numel() for p in module.parameters())
    return {**result.metrics(), "parameters": parameters}


def text_objectives(job: TrainJob, image: int, per_image: int) -> dict[str, Objective]:
    """Of text and captions, for a model that sees images as `per_image` tokens `image`."""
    z_loss = job.training.z_loss
    return {
        "text": TextLoss(z_loss=z_loss),
        "captions": CaptionLoss(image_token_id=image, tokens_per_image=per_image, z_loss=z_loss),
    }


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """New weights are a function of the seed; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
