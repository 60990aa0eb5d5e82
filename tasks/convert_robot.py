"""Demonstrations → robot shards: whole episodes with images, poses, statistics of their windows."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from foundry_core.config.suggest import nearest
from foundry_core.data.config import ImageConfig, PoseGroup, Turn, WindowConfig
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.sources.base import RobotSource
from foundry_core.errors import FoundryError
from foundry_core.pipeline import stage
from foundry_core.simulation.catalog import ACTION_FIELDS, MEASURED_FIELDS

_ARM = "poses__right::panda"


class ConvertRobotRecipe(stage.Recipe):
    source: RobotSource | None = Field(None, description="raw data; null takes the input `demos`")
    cameras: tuple[str, ...] = Field(("workspace", "wrist"), min_length=1)
    fields: tuple[str, ...] = Field(
        (*MEASURED_FIELDS, *ACTION_FIELDS),
        min_length=1,
        description="low-dimensional fields to keep",
    )
    relative: tuple[PoseGroup, ...] = Field(
        (
            PoseGroup(
                reference=f"robot__actual__{_ARM}",
                poses=(f"robot__actual__{_ARM}", f"robot__action__{_ARM}"),
            ),
        ),
        description="poses that are also described relative to the measured pose at the anchor",
    )
    window: WindowConfig = WindowConfig()
    image_steps: tuple[int, ...] = Field((0,), min_length=1, description="around the anchor")
    image: ImageConfig = ImageConfig()
    rotate: dict[str, Turn] = Field(
        {}, description="degrees counter-clockwise per camera, before anything else"
    )
    layout: Literal["episode", "sample"] = Field(
        "episode", description="whole episodes, or the published one-sample-per-window layout"
    )
    episodes_per_shard: int = Field(25, ge=1)
    keep_failures: bool = Field(False, description="keep demonstrations that did not succeed")
    max_skipped: int = Field(0, ge=0, description="unusable episodes to tolerate")


class ConvertRobot(stage.Stage):
    kind = "convert_robot"
    output = stage.ArtifactType.ROBOT_SHARDS
    seeded = False
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "demos": stage.slot(stage.ArtifactType.DEMONSTRATIONS, optional=True)
    }
    Recipe = ConvertRobotRecipe

    @classmethod
    def sources(cls, recipe: ConvertRobotRecipe) -> Mapping[str, str]:
        return recipe.source.identity() if recipe.source else {}

    @classmethod
    def check(cls, recipe: ConvertRobotRecipe, inputs: Mapping[str, Any]) -> None:
        if bool(recipe.source) == bool(inputs.get("demos")):
            raise FoundryError(
                "convert_robot takes its episodes from exactly one of recipe.source and the input "
                "'demos'",
                "connect 'demos' to a collect_demos stage, or give a source",
            )
        given = _given(recipe, inputs)
        for camera in (*recipe.cameras, *recipe.rotate) if given.cameras else ():
            if camera not in given.cameras:
                raise FoundryError(
                    f"the source has no camera {camera!r}", nearest(camera, given.cameras)
                )

    @classmethod
    def states(cls, recipe: ConvertRobotRecipe, inputs: Mapping[str, Any]) -> DataContract:
        given = _given(recipe, inputs)
        return given.converted(recipe.cameras, recipe.fields, recipe.image, recipe.rotate)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.data.convert.robot import convert_robot
        from foundry_core.data.convert.robot_samples import RobotSettings
        from foundry_core.data.sources.remote import local_source
        from foundry_core.data.sources.robot.demonstrations import Demonstrations

        recipe = ctx.recipe
        demos = ctx.optional_input("demos")
        source = Demonstrations(path=str(demos.path)) if demos else recipe.source
        settings = RobotSettings(
            cameras=recipe.cameras,
            fields=recipe.fields,
            groups=recipe.relative,
            window=recipe.window,
            image_steps=recipe.image_steps,
            image=recipe.image,
            rotate=recipe.rotate,
            layout=recipe.layout,
            keep_failures=recipe.keep_failures,
        )
        return convert_robot(
            local_source(source, ctx.scratch, ctx.progress),
            settings,
            ctx.out,
            episodes_per_shard=recipe.episodes_per_shard,
            max_skipped=recipe.max_skipped,
            workers=ctx.resources.cpus,
            progress=ctx.progress,
        )


def _given(
    recipe: ConvertRobotRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
) -> DataContract:
    """What is known of the raw data before they are read."""
    if recipe.source is not None:
        return recipe.source.contract()
    states = [demos.states for demos in inputs.get("demos", {}).values()]
    return next((one for one in states if isinstance(one, DataContract)), DataContract())


STAGE = ConvertRobot
