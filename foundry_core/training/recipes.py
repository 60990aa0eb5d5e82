"""Cross-checks that the training stages share. No torch: planning imports this."""

from collections.abc import Mapping

from foundry_core.data.loading.config import CAPTIONS, ROBOT, TEXT
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config, Upstream

Inputs = Mapping[str, Mapping[str, Upstream]]
MODALITIES = (TEXT, CAPTIONS, ROBOT)


def labels_of(inputs: Inputs) -> dict[str, list[str]]:
    """modality → labels of the connected datasets."""
    return {name: list(inputs.get(name, {})) for name in MODALITIES}


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
