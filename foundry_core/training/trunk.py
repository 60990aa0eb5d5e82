"""What trainings of one recipe and different budgets share: the trunk, from which budgets branch.

The state after n steps is a function of all that the key knows and of the learning rates of those n
steps. Where two budgets give the same rates, the state is the same, and the larger one goes on from
what the smaller one left. Imports no torch: planning asks.
"""

from collections.abc import Mapping
from typing import Any

from foundry_core.config.canonical import canonical
from foundry_core.data.loading.config import TEXT, DataConfig
from foundry_core.pipeline.stage import Trunk
from foundry_core.training.config import ScheduleConfig, TrainingConfig, TrainResources

BUDGETS = ("steps", "samples", "tokens")


def decay_start(config: ScheduleConfig, total: int) -> int:
    """The first step of wsd whose rate is below the peak."""
    return max(config.warmup, total - round(config.decay_fraction * total))


def shared_schedule(config: ScheduleConfig, total: int) -> tuple[Mapping[str, Any], int]:
    """(what decides the rates of the shared steps, how many these are). Before it falls, wsd is the
    constant schedule."""
    if config.length is not None:
        return config.model_dump(mode="json"), total
    held = {"kind": "constant", "warmup": config.warmup}
    if config.kind == "constant":
        return held, total
    if config.kind == "wsd":
        return held, min(total, decay_start(config, total))
    return held, 0


def text_steps(training: TrainingConfig, data: DataConfig, context: int) -> tuple[int, int]:
    """(optimizer steps, tokens per step) on text whose rows have `context` tokens."""
    tokens = data.modalities[TEXT].batch_size * context
    samples = data.samples_per_step
    return training.total_steps(samples_per_step=samples, tokens_per_step=tokens), tokens


def trunk_of(recipe: Any, resources: TrainResources, total: int | None) -> Trunk | None:
    """Of a recipe with `training`, whose budget is `total` steps (None: not known before it runs).
    None where its schedule shares nothing."""
    if total is None:
        return None
    schedule, steps = shared_schedule(recipe.training.schedule, total)
    if steps <= 0:
        return None
    plain = canonical(recipe)
    training = {name: plain["training"][name] for name in plain["training"] if name not in BUDGETS}
    shared = {**plain, "training": {**training, "schedule": schedule}}
    return Trunk(
        recipe=canonical(shared),
        step=steps,
        total=total,
        keep=resources.keep_trunk,
        extend=resources.extend,
    )
