"""The training stages of a pipeline, sized from their declarations: no data are read."""

from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.models.config import LoRAConfig, VLAConfig, VLMConfig
from foundry_core.pipeline.graph import Pipeline
from foundry_core.pipeline.stage import Config, Work
from foundry_core.training.config import TrainResources
from foundry_core.training.peaks import GPU, MFU, peak_of
from foundry_core.training.recipes import Inputs, TrainStage
from foundry_core.training.sizing.cost import StageCost, stage_cost
from foundry_core.training.sizing.models import context_of, image_tokens, needs_torch, parts_of
from foundry_core.training.sizing.workload import rows_of, total_steps

# FLOP/s of a CPU core in bf16 at the demo's sizes: 0.7e11 to 1.1e11 (design of the demo, AVX-512).
_CORE_FLOPS = 8e10


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
        assert issubclass(node.stage, TrainStage) and isinstance(node.resources, TrainResources)
        return _cost(node.stage, node.recipe, node.resources, pipeline.views[name].inputs)
    except FoundryError as error:
        raise FoundryError(f"stage {name!r}: {error.message}", error.hint) from None


def training_work(stage: type[TrainStage], recipe: Any, inputs: Inputs) -> Work | None:
    """FLOPs of the whole budget, forward and backward; samples where a model's sizes need torch or
    are not known before it is built; None where the budget is not known either."""
    try:
        cost = _native_cost(stage, recipe, TrainResources(), inputs)
    except FoundryError:
        steps = _steps(stage, recipe)
        if steps is None:
            return None
        samples = float(steps * recipe.data.samples_per_step)
        return Work(unit="samples", amount=samples, steps=steps)
    return Work(unit="FLOPs", amount=cost.flops, steps=cost.steps)


def _steps(stage: type[TrainStage], recipe: Any) -> int | None:
    try:
        return stage.steps(recipe, lambda slot, setting, file: None)
    except FoundryError:
        return None


def expected_seconds(
    stage: type[TrainStage], recipe: Any, resources: TrainResources, inputs: Inputs
) -> float | None:
    """On GPUs at MFU of the peak of those that the resources state, else of a GPU; on CPUs at what
    a core does. None for what cannot be sized without torch."""
    try:
        cost = _native_cost(stage, recipe, resources, inputs)
    except FoundryError:
        return None
    if not resources.gpus:
        return cost.flops / (_CORE_FLOPS * resources.cpus * resources.workers)
    stated = resources.peak_tflops
    peak = 1e12 * stated if stated else peak_of(GPU) or 0.0
    return 3600 * cost.gpu_hours(peak, MFU) / cost.workers


def _native_cost(
    stage: type[TrainStage], recipe: Any, resources: TrainResources, inputs: Inputs
) -> StageCost:
    """FoundryError for a model of transformers as well, whose parts need torch."""
    model = stage.architecture(recipe, inputs)
    if model is not None and needs_torch(model, _lora(recipe)):
        raise FoundryError("the sizes of a model of transformers need torch")
    return _cost(stage, recipe, resources, inputs)


def _cost(
    stage: type[TrainStage], recipe: Any, resources: TrainResources, inputs: Inputs
) -> StageCost:
    model = stage.architecture(recipe, inputs)
    if model is None or _lacks_language(model):
        raise FoundryError(
            "what it starts from is not known here: an imported artifact says nothing of itself",
            "describe the model in the recipe to size it",
        )
    data = recipe.data
    blind = isinstance(model, VLAConfig) and not model.use_images
    rows = list(rows_of(data, inputs, image_tokens(model), context_of(model), blind=blind))
    return stage_cost(
        parts_of(model, lora=_lora(recipe)),
        rows,
        total_steps(recipe, rows),
        recipe.training,
        resources,
        getattr(recipe, "frozen", ()),
    )


def _lora(recipe: Any) -> LoRAConfig | None:
    """Of stages that adapt the whole model; a policy's stands in its own config."""
    found: LoRAConfig | None = getattr(recipe, "lora", None)
    return found


def _lacks_language(model: Config) -> bool:
    backbone = model.backbone if isinstance(model, VLAConfig) else model
    return isinstance(backbone, VLMConfig) and backbone.language is None
