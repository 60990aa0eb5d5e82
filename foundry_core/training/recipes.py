"""What the kinds of training stages share. No torch: planning imports this."""

from collections.abc import Mapping
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.models.config import weight_sources
from foundry_core.pipeline.stage import Config, Stage, Upstream
from foundry_core.training.config import MODALITIES, TrainResources, check_divides

Inputs = Mapping[str, Mapping[str, Upstream]]


class TrainStage(Stage):
    """A kind whose recipe has `model`, `data` and `training`: pretrained weights that the model
    names are sources, and the data's modalities must be connected."""

    code = "1"
    Resources = TrainResources

    @classmethod
    def sources(cls, recipe: Any) -> Mapping[str, str]:
        return weight_sources(recipe.model)

    @classmethod
    def numerics(cls, resources: TrainResources) -> Mapping[str, str]:
        split = {
            "workers": resources.workers if resources.workers > 1 else None,
            "strategy": resources.strategy if resources.workers > 1 else None,
            "micro_batch": resources.micro_batch,
        }
        # A GPU adds without the threads of its process.
        threads = {} if resources.gpus else {"threads": str(resources.cpus)}
        return threads | {name: str(value or "none") for name, value in split.items()}

    @classmethod
    def check_resources(cls, recipe: Any, resources: TrainResources) -> None:
        for name, part in recipe.data.modalities.items():
            check_divides(part.batch_size, resources.workers, name)

    @classmethod
    def check(cls, recipe: Any, inputs: Inputs) -> None:
        recipe.data.check_labels({name: list(inputs.get(name, {})) for name in MODALITIES})


def check_source_of_tokens(slot: str, described: Config | None, inputs: Inputs) -> None:
    """A model builds on the upstream one, or is described and given a tokenizer."""
    if inputs.get(slot):
        return
    if described is None:
        raise FoundryError(
            f"no {slot} is connected and the recipe does not describe one",
            f"connect the input {slot!r}, or give the part of `model` it would replace",
        )
    if not inputs.get("tokenizer"):
        raise FoundryError(
            f"without {slot} the vocabulary is unknown", "connect the input 'tokenizer'"
        )
