"""What the training stages share: their job, the training they build, the folder it leaves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from foundry_core.data.loading.build import build_loader, validation_side
from foundry_core.data.loading.config import DataConfig, LoaderResources
from foundry_core.data.loading.loader import Loader
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.transform_config import PromptMarks
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.files import write_json
from foundry_core.models.build import Model
from foundry_core.models.interfaces import Backbone, Observer
from foundry_core.models.io import RAW, WEIGHTS, save_config, save_weights
from foundry_core.models.processor_files import keep_processor
from foundry_core.objects import connect
from foundry_core.pipeline.stage import CONTINUED, StageContext
from foundry_core.training.config import MODALITIES, TrainingConfig, TrainResources
from foundry_core.training.distributed import World, local_batch_size, whole_pieces
from foundry_core.training.fp8 import check_fp8
from foundry_core.training.loop import Trainer
from foundry_core.training.mixed_batch import Objective, Probe
from foundry_core.training.object_place import CheckpointObjects
from foundry_core.training.objectives import ActionLoss, CaptionLoss, TextLoss
from foundry_core.training.packing import Packer
from foundry_core.training.recipes import check_packing
from foundry_core.training.stages.upstream import Start
from foundry_core.training.trunk import trunk_of
from foundry_core.training.validation.actions import ActionRuler
from foundry_core.training.validation.baselines import ActionBaselines
from foundry_core.training.validation.held_out import HeldOut, samples_of
from foundry_core.training.validation.probes import CaptionProbe, RobotProbe, TextProbe
from foundry_core.training.validation.validator import Validator

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
        backbone: Observer | None = None,
        normalizer: Normalizer | None = None,
        held_out: bool = False,
    ) -> Loader:
        """The loader of this run's data. backbone: what looks at its images. held_out: of the
        validation sides that there are, as serving sees samples."""
        resources: TrainResources = self.ctx.resources
        workers = 0 if held_out else resources.loader_workers
        sources = self._held_out() if held_out else self.sources
        return build_loader(
            self.data.held_out(sources) if held_out else self.data,
            sources,
            seed=self.ctx.seed,
            tokenizer=tokenizer,
            tokens_per_image=backbone.tokens_per_image if backbone else 1,
            marks=backbone.marks if backbone else PromptMarks(),
            normalizer=normalizer,
            resources=LoaderResources(workers=workers, pin_memory=resources.gpus > 0),
            train=not held_out,
        )

    def _held_out(self) -> Sources:
        """The datasets that have a validation side. FoundryError where none has."""
        found = {
            name: {label: path for label, path in parts.items() if _is_split(path)}
            for name, parts in self.sources.items()
        }
        if not any(found.values()):
            raise FoundryError(
                "training.validation is set, and no dataset of this training was converted with a "
                "split",
                "give a conversion `split: {fraction: 0.05}`, or leave training.validation out",
            )
        return {name: parts for name, parts in found.items() if parts}

    def validator(
        self,
        objectives: Mapping[str, Objective],
        tokenizer: Tokenizer,
        *,
        backbone: Observer | None = None,
        normalizer: Normalizer | None = None,
        baselines: ActionBaselines | None = None,
    ) -> Validator | None:
        """What looks at held-out samples; None where the recipe asks for none. Arguments as
        `loader`'s; baselines: of actions, with what measures them."""
        config = self.training.validation
        if config is None:
            return None
        loader = self.loader(tokenizer, backbone=backbone, normalizer=normalizer, held_out=True)
        passes = 2 if self.training.ema else 1
        counts = {}
        for name, modality in loader.modalities.items():
            sizes = {label: modality.order.drawn(i) for i, label in enumerate(modality.labels)}
            counts[name] = samples_of(config, modality.config.batch_size, sizes, passes)
        return Validator(
            config=config,
            held_out=HeldOut(loader=loader, counts=counts),
            probes=_probes(objectives, baselines.ruler if baselines else None, config.best_of),
            seed=self.ctx.seed,
            baselines=baselines,
        )


def job_of(ctx: StageContext, world: World) -> TrainJob:
    """The job of one of the stages train_llm, train_vlm, train_vla. FoundryError, before any weight
    is read, where this process cannot compute as the recipe says."""
    check_fp8(ctx.recipe.training.fp8, world.device)
    sources = {
        name: {label: artifact.path for label, artifact in ctx.inputs[name].items()}
        for name in MODALITIES
        if ctx.inputs.get(name) and name in ctx.recipe.data.modalities
    }
    return TrainJob(ctx=ctx, world=world, sources=sources)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training stage does, built and not begun.

    validator: what the recipe's `training.validation` asks for.

    objectives: at least those of the job's modalities. leave: writes what the stage leaves besides
    the model; called by the main rank. metrics: what the stage says besides the training's own.
    """

    job: TrainJob
    model: Model
    start: Start
    objectives: Mapping[str, Objective]
    loader: Loader
    steps: int
    validator: Validator | None = None
    leave: Callable[[], None] = lambda: None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def trainer(self) -> Trainer:
        """The loop over it. FoundryError for a batch that the world's ranks cannot share."""
        job, ctx = self.job, self.job.ctx
        for name, part in job.data.modalities.items():
            local_batch_size(part.batch_size, job.world, name)
        trunk = trunk_of(ctx.recipe, ctx.resources, self.steps)
        raw = partial(_save_weights, job, self.model, RAW)
        return Trainer(
            stage=ctx.name,
            key=ctx.key,
            model=self.model,
            objectives={name: self.objectives[name] for name in job.data.modalities},
            batches=partial(self.loader.batches, rank=job.world.rank, world=job.world.size),
            config=job.training,
            total_steps=self.steps,
            seed=ctx.seed,
            resources=ctx.resources,
            scratch=ctx.scratch,
            records=ctx.out / "records",
            progress=ctx.progress,
            weights=job.data.loss_weights,
            datasets={n: m.labels for n, m in self.loader.modalities.items() if len(m.labels) > 1},
            lr_scale=getattr(ctx.recipe, "lr_scale", {}),
            frozen=getattr(ctx.recipe, "frozen", ()),
            world=job.world,
            checkpoints=_objects(ctx),
            trunk=trunk.step if trunk and trunk.keep else None,
            begin=ctx.begin,
            ground=ctx.ground,
            validator=self.validator,
            before_average=raw if job.training.keep_raw else None,
        )

    def run(self) -> Metrics:
        """Trains, then leaves weights, config, tokenizer and processor files in the artifact."""
        job, out = self.job, self.job.ctx.out
        result = self.trainer().train()
        _save_weights(job, self.model, WEIGHTS)
        if job.world.main:
            write_json(out / "records" / "data.json", self.loader.report(), durable=False)
            if result.continued is not None:
                write_json(out / CONTINUED, result.continued, durable=False)
            save_config(out, self.model)
            self.start.tokenizer.save(out)
            if self.start.processor is not None:
                keep_processor(self.start.processor, out)
            self.leave()
        parameters = sum(p.numel() for p in self.model.parameters())
        return {**result.metrics(), "parameters": parameters, **self.metrics}


def _objects(ctx: StageContext) -> CheckpointObjects | None:
    """Where checkpoints go that other hosts find."""
    if not ctx.checkpoints:
        return None
    return CheckpointObjects(connect(ctx.checkpoints), ctx.scratch / "checkpoints")


def _save_weights(job: TrainJob, module: Model, name: str) -> None:
    """Rank 0 writes; the others send it what they hold, a piece at a time."""
    path = job.ctx.out / name if job.world.main else None
    save_weights(path, module, pieces=partial(whole_pieces, world=job.world))


def text_objectives(job: TrainJob, backbone: Backbone) -> dict[str, Objective]:
    """Of text and captions."""
    z_loss = job.training.z_loss
    captions = CaptionLoss(
        image_token_id=backbone.image_token_id,
        tokens_per_image=backbone.tokens_per_image,
        z_loss=z_loss,
        packer=_packer(job, backbone),
    )
    return {"text": TextLoss(z_loss=z_loss), "captions": captions}


def _packer(job: TrainJob, backbone: Backbone) -> Packer | None:
    """What the recipe lays captions out with. FoundryError where the model does not read that."""
    packing = job.data.captions.packing if job.data.captions else None
    if packing is None:
        return None
    check_packing(backbone.packs)
    return Packer(length=packing.length, fixed=job.training.compile != "none")


def _is_split(folder: Path) -> bool:
    return Path(validation_side(folder)).is_dir()


def _probes(
    objectives: Mapping[str, Objective], ruler: ActionRuler | None, best_of: int
) -> dict[str, Probe]:
    """What is measured with these objectives, without their penalties."""
    probes: dict[str, Probe] = {}
    for name, objective in objectives.items():
        if isinstance(objective, TextLoss):
            probes[name] = TextProbe(objective=replace(objective, z_loss=0.0))
        elif isinstance(objective, CaptionLoss):
            probes[name] = CaptionProbe(objective=objective)
        elif isinstance(objective, ActionLoss) and ruler is not None:
            probes[name] = RobotProbe(objective=objective, ruler=ruler, draws=best_of)
    return probes
