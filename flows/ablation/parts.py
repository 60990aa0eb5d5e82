"""An ablation that looks early: its evaluation in parts, one per look, and who must play the next.

A part is a stage of its own, so that a decided variant leaves the rest unplayed, and what was
played is reused by any ablation whose looks fall on the same scenarios. The budget and the design
stand in the verdict's recipe, which is recorded before the first episode.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.evaluation.design import Design, Standing
from foundry_core.pipeline.graph import Pipeline
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact

_SCENARIOS = ("first_scenario", "episodes_per_task")
_PICTURES = "record_per_task"


def in_parts(pipeline: Pipeline, evaluation: str, design: Design) -> tuple[Pipeline, list[str]]:
    """The pipeline with the parts as stages beside the evaluation; their names, by look.
    FoundryError for an evaluation that has no parts, or a budget or design of its own."""
    node = pipeline.stages[evaluation]
    values = node.recipe.model_dump()
    for name in _SCENARIOS:
        if name not in values:
            raise FoundryError(
                f"{evaluation!r} ({node.kind}) cannot be played in parts: it has no {name}",
                "leave out --looks",
            )
    whole = values["episodes_per_task"]
    for name, other in (("budget", whole), ("design", None)):
        if values.get(name) not in (None, other):
            raise FoundryError(
                f"{evaluation}.{name} is set, and --looks divides the {whole} episodes_per_task "
                "by a design of its own",
                f"leave out {evaluation}.{name} or --looks",
            )
    stages, views = dict(pipeline.stages), dict(pipeline.views)
    names = []
    for number, (begin, end) in enumerate(pairwise((0, *design.ends(whole))), 1):
        changed: dict[str, Any] = {
            "first_scenario": values["first_scenario"] + begin,
            "episodes_per_task": end - begin,
            "budget": None,
        }
        if number > 1:
            changed[_PICTURES] = 0  # the first part shows what the policy does
        changed = {name: value for name, value in changed.items() if name in values}
        names.append(f"{evaluation}.{number}")
        recipe = validate(type(node.recipe), values | changed, names[-1])
        stages[names[-1]] = replace(node, name=names[-1], recipe=recipe)
        views[names[-1]] = replace(views[evaluation], name=names[-1], recipe=recipe)
    return replace(pipeline, stages=stages, views=views), names


def standing(
    design: Design,
    rounds: int,
    parts: Mapping[str, Sequence[str]],
    artifact: Callable[[str], Artifact | None],
    store: Store,
    started: int,
) -> Standing:
    """Where the race stands. parts: variant → its parts' stages, the base first. artifact: of a
    stage that is committed. started: variants there were, where some dropped out."""
    known: dict[str, list[Artifact]] = {}
    for variant, stages in parts.items():
        known[variant] = []
        for found in map(artifact, stages):
            if found is None:
                break
            known[variant].append(found)
    if not all(known.values()):  # before statistics are loaded
        return Standing(needed=dict.fromkeys(parts, 0), look=1, running=tuple(parts))
    from foundry_core.evaluation.comparison.race import replay
    from foundry_core.evaluation.score import FILE, read_evaluation

    played = {
        variant: [
            read_evaluation((store.file_path(one, FILE) or store.files_path(one) / FILE).parent)
            for one in artifacts
        ]
        for variant, artifacts in known.items()
    }
    return replay(design, rounds, played, started)
