"""What a person should know of a policy that reads no words, before it trains. Torch-free."""

from collections.abc import Iterable

from foundry_core.models.config import BackboneConfig, reads_words

PLANNED = "reads no words: prompts change nothing (model.backbone.text is null)"


def planned_notes(backbone: BackboneConfig | None) -> list[str]:
    """Of a plan, which knows the recipe and not the data. backbone: null: that of a VLM."""
    return [] if reads_words(backbone) else [PLANNED]


def words_notes(backbone: BackboneConfig | None, tasks: Iterable[Iterable[str]]) -> list[str]:
    """Of a training. tasks: of each dataset, by their first instruction (`tasks` of dataset.json;
    none where it does not say). One task needs no words."""
    found = {task for of_one in tasks for task in of_one}
    if reads_words(backbone) or len(found) < 2:
        return []
    return [
        f"the data has {len(found)} tasks, each with an instruction of its own, and this policy "
        "reads no words: it learns them as one, and prompts will change nothing (to tell it, give "
        "model.backbone a text)"
    ]
