"""Demonstrations on top of a vision-language model → a policy."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from foundry_core.config.suggest import nearest
from foundry_core.data.loading.config import DataConfig
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.errors import FoundryError
from foundry_core.models.config import VLAConfig
from foundry_core.pipeline import stage
from foundry_core.training.config import TrainingConfig
from foundry_core.training.recipes import Inputs, TrainStage, check_source_of_tokens


class TrainVlaRecipe(stage.Recipe):
    model: VLAConfig
    data: DataConfig
    training: TrainingConfig
    images: bool = Field(True, description="false: the blind control, no image tokens")
    execute_steps: int = Field(3, ge=1, description="targets carried out before planning again")
    frozen: tuple[str, ...] = ()
    lr_scale: dict[str, float] = {}


class TrainVla(TrainStage):
    kind = "train_vla"
    output = stage.ArtifactType.POLICY
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "vlm": stage.slot(stage.ArtifactType.VISION_LANGUAGE_MODEL, optional=True),
        "robot": stage.slot(stage.ArtifactType.ROBOT_SHARDS, many=True),
        "stats": stage.slot(stage.ArtifactType.STATISTICS),
        "captions": stage.slot(stage.ArtifactType.CAPTION_SHARDS, many=True, optional=True),
        "text": stage.slot(stage.ArtifactType.TEXT_SHARDS, many=True, optional=True),
        "tokenizer": stage.slot(stage.ArtifactType.TOKENIZER, optional=True),
    }
    Recipe = TrainVlaRecipe

    @classmethod
    def check(cls, recipe: TrainVlaRecipe, inputs: Inputs) -> None:
        super().check(recipe, inputs)
        check_source_of_tokens("vlm", recipe.model.backbone, inputs)
        if recipe.data.robot is None:
            raise FoundryError(
                "data.robot is missing: a policy learns from demonstrations", "set it"
            )
        wanted = recipe.data.robot.inputs
        if recipe.execute_steps > wanted.horizon - wanted.action_past:
            raise FoundryError(
                f"execute_steps = {recipe.execute_steps} exceeds the {wanted.horizon} predicted "
                f"steps from -{wanted.action_past} on",
                "lower execute_steps or raise data.robot.inputs.horizon",
            )
        for label, robot in inputs["robot"].items():
            _check_shards(label, robot.recipe, wanted)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, float]:
        from foundry_core.training.launch import launch
        from foundry_core.training.stages.vla import train_policy

        return launch(train_policy, ctx)


def _check_shards(label: str, shards: stage.Recipe, wanted: RobotInputs) -> None:
    """Cameras and horizon of the policy against the conversion that will feed it; an imported
    artifact states neither."""
    cameras = getattr(shards, "cameras", wanted.cameras)
    for camera in wanted.cameras:
        if camera not in cameras:
            raise FoundryError(
                f"dataset {label!r} is converted without camera {camera!r}",
                nearest(camera, cameras),
            )
    window = getattr(shards, "window", None)
    future = wanted.horizon - wanted.action_past - 1
    if window and (future > window.future or wanted.action_past > window.past):
        raise FoundryError(
            f"horizon {wanted.horizon} reaches from -{wanted.action_past} to {future} around the "
            f"anchor, the windows of {label!r} from -{window.past} to {window.future}",
            "lower data.robot.inputs.horizon, or convert with a wider window",
        )


STAGE = TrainVla
