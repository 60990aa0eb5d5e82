"""Demonstrations → robot shards: whole episodes with images, poses, statistics of their windows."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from foundry_core.config.canonical import Location, OmitWhen
from foundry_core.config.suggest import nearest
from foundry_core.data.config import (
    DepthConfig,
    ImageConfig,
    PoseGroup,
    Shuffle,
    SplitConfig,
    StillConfig,
    Turn,
    WeightRule,
    WindowConfig,
)
from foundry_core.data.contract.motion import tolerances
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.mapping.config import AnyMapping, relative_poses
from foundry_core.data.mapping.fit import check_fit
from foundry_core.data.sources.base import RobotSource
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import fingerprint
from foundry_core.pipeline import stage
from foundry_core.simulation.collection import recorded_work


class ConvertRobotRecipe(stage.Recipe):
    source: RobotSource | None = Field(None, description="raw data; null takes the input `demos`")
    mapping: AnyMapping | None = Field(
        None, description="raw to canonical fields: a ready mapping's name, a file, or its content"
    )
    cameras: tuple[str, ...] | None = Field(
        None, min_length=1, description="null: all that the mapping or the source states"
    )
    fields: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="low-dimensional fields to keep; null: all that the mapping or source states",
    )
    relative: tuple[PoseGroup, ...] | None = Field(
        None,
        description="poses that are also described relative to the measured pose at the anchor; "
        "null: all of each arm, relative to its measured one",
    )
    window: WindowConfig = Field(
        WindowConfig(), description="steps around an anchor that make a training window"
    )
    image_steps: tuple[int, ...] = Field((0,), min_length=1, description="around the anchor")
    image: ImageConfig = Field(
        ImageConfig(), description="what becomes of pictures on their way into shards"
    )
    depth: DepthConfig | None = Field(None, description="depth to keep; null keeps none")
    rotate: dict[str, Turn] = Field(
        {}, description="degrees counter-clockwise per camera, before anything else"
    )
    layout: Literal["episode", "sample"] = Field(
        "episode", description="whole episodes, or the published one-sample-per-window layout"
    )
    episodes_per_shard: int = Field(25, ge=1, description="episodes in one shard; layout episode")
    shuffle: Annotated[Shuffle | None, OmitWhen(None)] = Field(
        None, description="mix the samples of all episodes over all shards; for layout sample"
    )
    keep_failures: bool = Field(False, description="keep demonstrations that did not succeed")
    still: StillConfig | None = Field(
        None, description="leave out windows in which nothing moves; null keeps them"
    )
    paraphrases: Location[str | None] = Field(
        None, description="YAML or JSON file of other words: {task or instruction: [texts]}"
    )
    weights: Annotated[tuple[WeightRule, ...], OmitWhen(())] = Field(
        (), description="how often windows are drawn in training: factors on what the mapping says"
    )
    split: SplitConfig | None = Field(
        None, description="episodes to set aside for validation; null sets none aside"
    )
    max_skipped: int = Field(0, ge=0, description="unusable episodes to tolerate, on each side")


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
        found = dict(recipe.source.identity()) if recipe.source else {}
        if recipe.paraphrases:
            found["paraphrases"] = fingerprint(recipe.paraphrases)
        return found

    @classmethod
    def check(cls, recipe: ConvertRobotRecipe, inputs: Mapping[str, Any]) -> None:
        if bool(recipe.source) == bool(inputs.get("demos")):
            raise FoundryError(
                "convert_robot takes its episodes from exactly one of recipe.source and the input "
                "'demos'",
                "connect 'demos' to a collect_demos stage, or give a source",
            )
        if recipe.shuffle and recipe.layout != "sample":
            raise FoundryError(
                "convert_robot shuffles samples; in the layout 'episode' a sample is an episode",
                "set layout: sample, or leave shuffle out: loaders shuffle by themselves",
            )
        if not recipe.keep_failures and any(one.success == "false" for one in recipe.weights):
            raise FoundryError(
                "a rule of `weights` is of episodes that failed, which are left out",
                "set keep_failures: true, or leave the rule out",
            )
        held = recipe.source.holds() if recipe.source else None
        if recipe.mapping and held:
            check_fit(recipe.mapping, held)
        given = _given(recipe, inputs)
        for camera in (*(recipe.cameras or ()), *recipe.rotate) if given.cameras else ():
            if camera not in given.cameras:
                raise FoundryError(
                    f"the source has no camera {camera!r}", nearest(camera, given.cameras)
                )
        made = given.fields if recipe.mapping else held and held.dims
        for field in (recipe.fields or ()) if made is not None else ():
            if field not in made:
                what = "the mapping makes" if recipe.mapping else "the source has"
                raise FoundryError(f"{what} no field {field!r}", nearest(field, made))

    @classmethod
    def states(cls, recipe: ConvertRobotRecipe, inputs: Mapping[str, Any]) -> DataContract:
        given = _given(recipe, inputs)
        if not _is_known(recipe, inputs):  # the run will know what to keep
            return given.converted(
                recipe.cameras or (), recipe.fields or (), recipe.image, {}, recipe.depth
            )
        return _chosen(recipe, given)

    @classmethod
    def work(cls, recipe: ConvertRobotRecipe, inputs: Mapping[str, Any]) -> stage.Work | None:
        recorded = (recorded_work(one.recipe) for one in inputs.get("demos", {}).values())
        return next(recorded, None)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.data.convert.paraphrases import read_paraphrases
        from foundry_core.data.convert.robot import convert_sides
        from foundry_core.data.convert.robot_samples import RobotSettings
        from foundry_core.data.sources.remote import local_source
        from foundry_core.data.sources.robot.demonstrations import Demonstrations

        recipe = ctx.recipe
        words = read_paraphrases(recipe.paraphrases) if recipe.paraphrases else {}
        demos = ctx.optional_input("demos")
        source = Demonstrations(path=str(demos.path)) if demos else recipe.source
        local = local_source(source, ctx.scratch, ctx.progress)
        stated = local.contract()
        if recipe.mapping:
            if held := local.holds():
                check_fit(recipe.mapping, held)
            stated = recipe.mapping.contract(stated)
        contract = _chosen(recipe, stated)
        groups = recipe.relative
        settings = RobotSettings(
            mapping=recipe.mapping,
            contract=contract,
            groups=relative_poses(contract.fields) if groups is None else groups,
            window=recipe.window,
            image_steps=recipe.image_steps,
            image=recipe.image,
            layout=recipe.layout,
            keep_failures=recipe.keep_failures,
            still=recipe.still,
            paraphrases=words,
            weights=recipe.weights,
        )
        return convert_sides(
            local,
            settings,
            ctx.out,
            recipe.split,
            episodes_per_shard=recipe.episodes_per_shard,
            max_skipped=recipe.max_skipped,
            workers=ctx.resources.cpus,
            progress=ctx.progress,
            scratch=ctx.scratch,
            shuffle=recipe.shuffle,
        )


def _given(
    recipe: ConvertRobotRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
) -> DataContract:
    """What is known of the raw data before they are read."""
    states = [demos.states for demos in inputs.get("demos", {}).values()]
    given = next((one for one in states if isinstance(one, DataContract)), DataContract())
    if recipe.source is not None:
        given = recipe.source.contract()
    return recipe.mapping.contract(given) if recipe.mapping else given


def _is_known(
    recipe: ConvertRobotRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
) -> bool:
    """Whether what the source states can be read while planning: not of what lies elsewhere, nor of
    imported demonstrations."""
    if recipe.mapping is not None:
        return True
    if recipe.source is not None:
        return recipe.source.remote is None
    return any(isinstance(one.states, DataContract) for one in inputs.get("demos", {}).values())


def _chosen(recipe: ConvertRobotRecipe, given: DataContract) -> DataContract:
    """What is kept of it, and what becomes of its pictures. FoundryError where the recipe leaves
    the choice to a source that states nothing."""
    chosen = {}
    for name in ("cameras", "fields"):
        chosen[name] = getattr(recipe, name) or tuple(getattr(given, name))
        if not chosen[name]:
            raise FoundryError(
                f"which {name} to keep is not known: the source states none",
                f"name them in {name}, or give a mapping (`foundry data inspect` drafts one)",
            )
    deep = recipe.depth.cameras if recipe.depth else ()
    if recipe.mapping:
        for name in deep:
            if name not in given.depth:
                raise FoundryError(
                    f"the mapping names no depth of camera {name!r}",
                    f"set cameras.{name}.depth of the mapping to the source's name of it",
                )
    for name in (*chosen["cameras"], *deep):
        if not name.replace("_", "").replace("-", "").isalnum():
            raise FoundryError(
                f"camera {name!r} cannot name a member of a shard",
                "give it another name with a mapping (`foundry data inspect` drafts one)",
            )
    rotate = (recipe.mapping.rotate if recipe.mapping else {}) | recipe.rotate
    made = given.converted(chosen["cameras"], chosen["fields"], recipe.image, rotate, recipe.depth)
    if recipe.still:
        tolerances(made.fields, recipe.still)
    return made


STAGE = ConvertRobot
