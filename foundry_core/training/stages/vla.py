"""Demonstrations → a policy."""

from foundry_core.data.contract.statements import policy_contract
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import OBS
from foundry_core.data.robot.transforms import RobotTransform
from foundry_core.data.shards.description import read_robot
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.files import sha256_of
from foundry_core.models.build import seeded
from foundry_core.models.config import VLAConfig, VLMConfig
from foundry_core.models.interfaces import Backbone
from foundry_core.models.io import load_as
from foundry_core.models.policy_settings import NORMALIZER, PolicySettings
from foundry_core.models.sizes import required
from foundry_core.models.vla import VLA
from foundry_core.pipeline.stage import StageContext
from foundry_core.training.distributed import World
from foundry_core.training.objectives import ActionLoss
from foundry_core.training.stages.job import (
    Metrics,
    job_of,
    optional_path,
    scratch_vlm,
    text_objectives,
    train_and_save,
    upstream_tokenizer,
)


def train_policy(ctx: StageContext, world: World) -> Metrics:
    """A policy on an upstream VLM, or from scratch with `model.backbone` given. What serving
    needs (normaliser, inputs, rate) is saved beside the weights."""
    job, recipe = job_of(ctx, world), ctx.recipe
    model = recipe.model.model_copy(update={"use_images": recipe.images})
    vlm = optional_path(ctx, "vlm")
    robot = job.data.robot
    assert robot is not None  # TrainVla.check refuses a recipe without it
    contract = policy_contract(
        robot.inputs,
        recipe.execute_steps,
        {label: read_robot(path).stated for label, path in job.sources["robot"].items()},
        mask_missing=robot.missing_fields == "mask",
    )
    tokenizer = upstream_tokenizer(vlm, optional_path(ctx, "tokenizer"))
    obs = tokenizer.add_special(OBS)
    backbone: Backbone | VLMConfig
    if vlm is not None:
        backbone = load_as(Backbone, vlm)  # type: ignore[type-abstract]  # found, never made
    else:
        backbone = scratch_vlm(model, tokenizer)
    image = required(model, "backbone.image_token_id", backbone.image_token_id)
    statistics = DatasetStatistics.load(ctx.input("stats").path / "stats.json")
    normalizer = Normalizer.from_statistics(statistics, robot.inputs.fields, robot.normalization)
    transform = RobotTransform(robot.inputs, normalizer, tokenizer, backbone.tokens_per_image)
    config = _resolved(model, transform, obs)
    with seeded(ctx.seed):
        module = _policy(config, backbone, tokenizer.vocab_size)
    loader = job.loader(
        tokenizer, tokens_per_image=backbone.tokens_per_image, normalizer=normalizer
    )
    objectives = text_objectives(job, image, backbone.tokens_per_image)
    objectives["robot"] = ActionLoss(
        image_token_id=image, obs_token_id=obs, tokens_per_image=backbone.tokens_per_image
    )
    metrics = train_and_save(job, module, tokenizer, objectives, loader, job.steps)
    if job.world.main:
        normalizer.save(ctx.out / NORMALIZER)
        settings = PolicySettings(
            contract=contract,
            inputs=robot.inputs,
            normalizer=sha256_of(ctx.out / NORMALIZER),
        )
        settings.save(ctx.out)
    return metrics


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


def _policy(config: VLAConfig, backbone: Backbone | VLMConfig, vocab_size: int) -> VLA:
    if isinstance(backbone, Backbone):
        return VLA.from_vlm(config, backbone, vocab_size=vocab_size)
    module = VLA(config.model_copy(update={"backbone": backbone}))
    module.backbone.resize_vocabulary(vocab_size)
    return module
