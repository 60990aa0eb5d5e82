"""The training stages of a pipeline, sized from their declarations: no data are read."""

from foundry_core.errors import FoundryError
from foundry_core.models.config import VLAConfig, VLMConfig
from foundry_core.pipeline.graph import Pipeline, StageNode
from foundry_core.pipeline.stage import Config
from foundry_core.training.config import TrainResources
from foundry_core.training.recipes import Inputs, TrainStage
from foundry_core.training.sizing.cost import StageCost, stage_cost
from foundry_core.training.sizing.models import context_of, image_tokens, parts_of
from foundry_core.training.sizing.workload import rows_of, total_steps


def training_stages(pipeline: Pipeline) -> list[str]:
    """Their names, upstream first; imported artifacts are none."""
    return [
        name
        for name, node in pipeline.stages.items()
        if issubclass(node.stage, TrainStage) and isinstance(node.resources, TrainResources)
    ]


def cost_of(pipeline: Pipeline, name: str) -> StageCost:
    """FoundryError for a stage that trains nothing, and where a size is not known."""
    node = pipeline.stages[name]
    if name not in training_stages(pipeline):
        raise FoundryError(
            f"stage {name!r} ({node.kind}) trains no model",
            f"the training stages are {', '.join(training_stages(pipeline)) or 'none'}",
        )
    try:
        return _cost(node, pipeline.views[name].inputs)
    except FoundryError as error:
        raise FoundryError(f"stage {name!r}: {error.message}", error.hint) from None


def _cost(node: StageNode, inputs: Inputs) -> StageCost:
    assert issubclass(node.stage, TrainStage) and isinstance(node.resources, TrainResources)
    recipe = node.recipe
    model = node.stage.architecture(recipe, inputs)
    if model is None or _lacks_language(model):
        raise FoundryError(
            "what it starts from is not known here: an imported artifact says nothing of itself",
            "describe the model in the recipe to size it",
        )
    data = recipe.data  # type: ignore[attr-defined]
    blind = isinstance(model, VLAConfig) and not model.use_images
    rows = list(rows_of(data, inputs, image_tokens(model), context_of(model), blind=blind))
    return stage_cost(
        parts_of(model),
        rows,
        total_steps(recipe, rows),
        recipe.training,  # type: ignore[attr-defined]
        node.resources,
        getattr(recipe, "frozen", ()),
    )


def _lacks_language(model: Config) -> bool:
    backbone = model.backbone if isinstance(model, VLAConfig) else model
    return isinstance(backbone, VLMConfig) and backbone.language is None
