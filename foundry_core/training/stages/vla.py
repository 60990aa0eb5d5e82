"""Demonstrations → a policy."""

import logging

from foundry_core.data.contract.statements import PolicyContract, policy_contract
from foundry_core.data.loading.config import RobotData
from foundry_core.data.loading.loader import Loader
from foundry_core.data.robot.coverage import coverage, coverage_notes
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import OBS
from foundry_core.data.robot.transforms import RobotTransform
from foundry_core.data.shards.description import read_robot
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.files import sha256_of, write_json
from foundry_core.lineage.records import NOTES
from foundry_core.models.build import seeded
from foundry_core.models.config import VLAConfig
from foundry_core.models.heads.base import HeadConfig
from foundry_core.models.interfaces import Backbone
from foundry_core.models.policy_settings import NORMALIZER, PolicySettings
from foundry_core.models.vla import VLA
from foundry_core.pipeline.stage import StageContext
from foundry_core.training.distributed import World
from foundry_core.training.objectives import ActionLoss
from foundry_core.training.stages.job import (
    Metrics,
    Training,
    job_of,
    text_objectives,
)
from foundry_core.training.stages.upstream import observer_start
from foundry_core.training.validation.actions import ActionRuler
from foundry_core.training.validation.baselines import ActionBaselines
from foundry_core.training.words import words_notes

_log = logging.getLogger(__name__)


def train_policy(ctx: StageContext, world: World) -> Metrics:
    """Metrics of `policy_training`, carried out."""
    return policy_training(ctx, world).run()


def policy_training(ctx: StageContext, world: World) -> Training:
    """Of a policy on an upstream VLM, or from scratch with `model.backbone` given. What serving
    needs (normaliser, inputs, rate) is saved beside the weights."""
    job, recipe = job_of(ctx, world), ctx.recipe
    model = recipe.model.model_copy(update={"use_images": recipe.images})
    robot = job.data.robot
    assert robot is not None  # TrainVla.check refuses a recipe without it
    described = {label: read_robot(path) for label, path in job.sources["robot"].items()}
    notes = words_notes(model.backbone, (one.tasks for one in described.values()))
    for note in notes if world.main else ():
        _log.warning("%s", note)
    contract = policy_contract(
        robot.inputs,
        recipe.execute_steps,
        {label: one.stated for label, one in described.items()},
        mask_missing=robot.missing_fields == "mask",
    )
    statistics = DatasetStatistics.load(ctx.input("stats").path / "stats.json")
    normalizer = policy_normalizer(statistics, robot, contract, world)
    with seeded(ctx.seed):
        specials = (OBS, *model.head.new_tokens)
        start = observer_start(ctx, model.backbone, robot.inputs.images, *specials)
        backbone, tokenizer = start.model, start.tokenizer
        transform = RobotTransform(
            robot.inputs, normalizer, tokenizer, backbone.tokens_per_image, backbone.marks
        )
        obs = tokenizer.token_id(OBS)
        loader = job.loader(tokenizer, backbone=backbone, normalizer=normalizer)
        head = _informed(model.head, loader, tokenizer)
        resolved = _resolved(model.model_copy(update={"head": head}), transform, obs)
        module = VLA.from_vlm(resolved, backbone)
    objectives = text_objectives(job, backbone) if isinstance(backbone, Backbone) else {}
    objectives["robot"] = ActionLoss(
        image_token_id=backbone.image_token_id,
        obs_token_id=obs,
        tokens_per_image=backbone.tokens_per_image,
        sees=recipe.images,
        targets=module.head.prepare,
    )

    def leave() -> None:
        normalizer.save(ctx.out / NORMALIZER)
        settings = PolicySettings(
            contract=contract,
            inputs=robot.inputs,
            normalizer=sha256_of(ctx.out / NORMALIZER),
        )
        settings.save(ctx.out)
        if notes:
            write_json(ctx.out / NOTES, notes, durable=False)

    return Training(
        job=job,
        model=module,
        start=start,
        objectives=objectives,
        loader=loader,
        steps=job.steps,
        validator=job.validator(
            objectives,
            tokenizer,
            backbone=backbone,
            normalizer=normalizer,
            baselines=ActionBaselines.of(
                ActionRuler.of(transform, contract.commands),
                transform,
                contract,
                statistics,
                may_lack=robot.missing_fields == "mask",
            ),
        ),
        leave=leave,
    )


def policy_normalizer(
    statistics: DatasetStatistics, robot: RobotData, contract: PolicyContract, world: World
) -> Normalizer:
    """By the recipe, with floors in the units of the data; logs each dimension it clips a lot."""
    normalizer = Normalizer.from_statistics(
        statistics, robot.inputs.fields, robot.normalization, contract.fields
    )
    if world.main:
        for line in coverage_notes(coverage(statistics, normalizer)):
            _log.warning("%s", line)
    return normalizer


def _informed(head: HeadConfig, loader: Loader, tokenizer: Tokenizer) -> HeadConfig:
    """With what it learns from the training set's actions, and the ids of the tokens it speaks."""
    if head.fitted_on:
        head = head.fitted(loader.action_chunks(head.fitted_on))
    new = [tokenizer.token_id(token) for token in head.new_tokens]
    return head.speaking(tokenizer.text_ids, new)


def _resolved(model: VLAConfig, transform: RobotTransform, obs: int) -> VLAConfig:
    """With the sizes that follow from the data."""
    return model.model_copy(
        update={
            "horizon": transform.inputs.horizon,
            "action_dim": transform.action_dim,
            "proprio_dim": transform.proprio_dim,
            "proprio_steps": len(transform.inputs.proprio_steps),
            "obs_token_id": obs,
        }
    )
