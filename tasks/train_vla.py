"""Demonstrations on top of a vision-language model → a policy."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import (
    DataContract,
    PolicyContract,
    policy_contract,
)
from foundry_core.data.loading.config import CAPTIONS, TEXT, DataConfig
from foundry_core.data.robot.transform_config import (
    IMAGE,
    OBS,
    RELATIVE,
    RobotInputs,
    pose_prefix,
)
from foundry_core.errors import FoundryError
from foundry_core.models.config import (
    EncoderConfig,
    TransformerConfig,
    VLAConfig,
    VLMConfig,
    key_value_shape,
    offers,
)
from foundry_core.models.heads.base import check_needs
from foundry_core.models.sizes import kind_of
from foundry_core.pipeline import stage
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.recipes import (
    Frozen,
    Inputs,
    LrScale,
    ModelFacts,
    TrainStage,
    check_captions,
    check_pictures,
    check_source_of_tokens,
    check_texts,
    check_vocabulary_size,
    facts_of,
    image_size_of,
)
from foundry_core.training.words import planned_notes

if TYPE_CHECKING:
    from foundry_core.training.distributed import World
    from foundry_core.training.stages.job import Training


class TrainVlaRecipe(stage.Recipe):
    model: VLAConfig = Field(description="backbone, tap and action head")
    data: DataConfig = Field(description="what a batch holds")
    training: TrainingConfig = Field(description="budget, optimizer, schedule and precision")
    images: bool = Field(True, description="false: the blind control, no image tokens")
    execute_steps: int = Field(3, ge=1, description="targets carried out before planning again")
    frozen: Frozen = ()
    lr_scale: LrScale = {}


class TrainVla(TrainStage):
    kind = "train_vla"
    code = "4"
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
        described = recipe.model.backbone
        check_source_of_tokens("vlm", described, inputs)
        if isinstance(described, VLMConfig):
            where = "model.backbone.language"
            tokens = (IMAGE, OBS, *recipe.model.head.new_tokens)
            check_vocabulary_size(where, described.language, inputs, *tokens)
        if recipe.data.robot is None:
            raise FoundryError(
                "data.robot is missing: a policy learns from demonstrations", "set it"
            )
        wanted = recipe.data.robot.inputs
        if recipe.execute_steps > wanted.ahead:
            raise FoundryError(
                f"execute_steps = {recipe.execute_steps} exceeds the {wanted.ahead} steps that are "
                "predicted from the present on",
                "lower execute_steps or raise data.robot.inputs.horizon",
            )
        for label, robot in inputs["robot"].items():
            _check_windows(label, robot.recipe, wanted)
        facts = _backbone(recipe, inputs)
        _check_head(recipe.model, facts, inputs)
        contract = cls.states(recipe, inputs)
        sizes = {name: camera.size for name, camera in contract.cameras.items()}
        if recipe.images:
            check_pictures("the robot data", sizes, wanted.image.size, facts)
        check_texts(inputs, facts)
        check_captions(recipe, inputs, facts)
        if facts.n_layers is not None and recipe.model.tap_layers > facts.n_layers:
            raise FoundryError(
                f"model.tap_layers = {recipe.model.tap_layers}, the language model has "
                f"{facts.n_layers} layers",
                f"lower it to at most {facts.n_layers}",
            )

    @classmethod
    def check_resources(cls, recipe: TrainVlaRecipe, resources: TrainResources) -> None:
        super().check_resources(recipe, resources)
        head = recipe.model.head
        frozen = any(fnmatchcase("backbone.any", pattern) for pattern in recipe.frozen)
        if frozen or not head.teaches_keys_values:
            return
        # Blocks are gathered and run again when a gradient reaches their output; here it reaches
        # their keys and values, of the last block nothing else.
        if "language" in resources.recompute or resources.strategy != "ddp":
            raise FoundryError(
                f"gradients of the action head {head.kind!r} reach the backbone's keys and values, "
                "which sharded or recomputed language blocks do not give",
                "set resources.strategy to ddp, training.precision to bf16 and leave language out "
                "of resources.recompute; or set model.head.insulated, or freeze backbone.*",
            )

    @classmethod
    def states(cls, recipe: TrainVlaRecipe, inputs: Inputs) -> PolicyContract:
        robot = recipe.data.robot
        assert robot is not None  # `check` came first
        return policy_contract(
            robot.inputs,
            recipe.execute_steps,
            {label: _stated(one) for label, one in inputs["robot"].items()},
            mask_missing=robot.missing_fields == "mask",
        )

    @classmethod
    def architecture(cls, recipe: TrainVlaRecipe, inputs: Inputs) -> VLAConfig | None:
        backbone, robot = _backbone(recipe, inputs).model, recipe.data.robot
        assert robot is not None  # `check` came first
        if backbone is None:
            return None
        if isinstance(backbone, EncoderConfig):
            backbone = backbone.model_copy(update={"images": robot.inputs.images})
        fields = cls.states(recipe, inputs).fields
        dims = {name: _dims(fields[name.removesuffix(RELATIVE)]) for name in robot.inputs.fields}
        return recipe.model.model_copy(
            update={
                "backbone": backbone,
                "use_images": recipe.images,
                "horizon": robot.inputs.horizon,
                "action_dim": sum(dims[name] for name in robot.inputs.action_fields),
                "proprio_dim": sum(dims[name] for name in robot.inputs.proprio_fields),
                "proprio_steps": len(robot.inputs.proprio_steps),
            }
        )

    @classmethod
    def notes(cls, recipe: TrainVlaRecipe, inputs: Inputs) -> list[str]:
        notes = [*super().notes(recipe, inputs), *planned_notes(recipe.model.backbone)]
        (stats,) = inputs["stats"].values()
        described = {one.name for one in stats.inputs.get("datasets", {}).values()}
        trained = {one.name for one in inputs["robot"].values()}
        if not described or described == trained:
            return notes
        return [
            *notes,
            f"normalised with the statistics of {', '.join(sorted(described))}, trained on "
            f"{', '.join(sorted(trained))}",
        ]

    @staticmethod
    def training(ctx: stage.StageContext, world: "World") -> "Training":
        from foundry_core.training.stages.vla import policy_training

        return policy_training(ctx, world)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, float]:
        from foundry_core.training.launch import launch
        from foundry_core.training.stages.vla import train_policy

        return launch(train_policy, ctx)


def _stated(robot: stage.Upstream) -> DataContract:
    """Of a conversion; an imported dataset states nothing before it is read."""
    return robot.states if isinstance(robot.states, DataContract) else DataContract()


def _dims(field: FieldContract) -> int:
    """What is not known before the data are read is taken for one number, as a gripper's."""
    return field.dims or 1


def _backbone(recipe: TrainVlaRecipe, inputs: Inputs) -> ModelFacts:
    described = recipe.model.backbone
    added = [OBS, *recipe.model.head.new_tokens]
    if not inputs.get("vlm") and not isinstance(described, EncoderConfig):
        added.append(IMAGE)
    return facts_of(inputs, "vlm", described, image_size_of(described), *added)


def _check_head(model: VLAConfig, facts: ModelFacts, inputs: Inputs) -> None:
    """What the head needs against what the backbone has, as far as that is known."""
    described = None if inputs.get("vlm") else model.backbone
    if inputs.get("vlm") and isinstance(model.backbone, EncoderConfig):
        raise FoundryError(
            "a VLM is connected and model.backbone describes encoders",
            "disconnect the input 'vlm', or leave model.backbone out",
        )
    check_needs(model.head, offers(described), kind_of(described) if described else "vlm")
    language = facts.model.language if isinstance(facts.model, VLMConfig) else None
    if "keys_values" in model.head.needs and isinstance(language, TransformerConfig):
        model.head.check_keys_values(key_value_shape(language))
    if isinstance(described, EncoderConfig):
        _check_encoder(model, inputs)


def _check_encoder(model: VLAConfig, inputs: Inputs) -> None:
    for name in (CAPTIONS, TEXT):
        if inputs.get(name):
            raise FoundryError(
                f"{name} are connected to a policy whose backbone is encoders, which say nothing",
                f"disconnect {name}, or take a vision-language model as backbone",
            )
    if model.lora is not None:
        raise FoundryError(
            "model.lora adapts the layers of a language model, of which encoders have none",
            "leave lora out: encoders are trained in full, or frozen by `frozen`",
        )


def _check_windows(label: str, shards: stage.Recipe, wanted: RobotInputs) -> None:
    """Horizon and relative poses of the policy against the conversion that will feed it; an
    imported artifact states neither."""
    window = getattr(shards, "window", None)
    future = wanted.ahead - 1
    if window and (future > window.future or wanted.action_past > window.past):
        raise FoundryError(
            f"horizon {wanted.horizon} reaches from -{wanted.action_past} to {future} around the "
            f"anchor, the windows of {label!r} from -{window.past} to {window.future}",
            "lower data.robot.inputs.horizon, or convert with a wider window",
        )
    groups = getattr(shards, "relative", None)
    if groups is None:
        return
    references = {pose: group.reference for group in groups for pose in group.poses}
    for field in wanted.fields:
        if not field.endswith(RELATIVE):
            continue
        pose, reference = pose_prefix(field), wanted.reference(field)
        if references.get(pose) != reference:
            given = references.get(pose)
            stated = f"takes it relative to {given!r}" if given else "takes it relative to nothing"
            raise FoundryError(
                f"{field!r} is relative to {reference!r}; the conversion of {label!r} {stated}",
                "name both alike: data.robot.inputs.references, and `relative` of the conversion",
            )


STAGE = TrainVla
