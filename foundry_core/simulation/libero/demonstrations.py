"""Recording LIBERO's expert: the same folder of demonstrations that Meta-World's leave."""

import numpy as np

from foundry_core.simulation.collection import CollectDemosRecipe, CollectJob
from foundry_core.simulation.demonstrations import (
    Demonstration,
    Recorded,
    Recording,
    first_success,
)
from foundry_core.simulation.experts.libero import LiberoExpert
from foundry_core.simulation.libero.catalog import CONTROL_HZ
from foundry_core.simulation.libero.expert import Expert, absolute_targets
from foundry_core.simulation.libero.simulator import LiberoSimulator, shared_libero


def record(config: LiberoExpert, job: CollectJob[CollectDemosRecipe]) -> Demonstration:
    """As `first_success` says."""
    simulator = shared_libero(job.task, config.scene)
    return first_success(
        job,
        simulator,
        lambda rng: _play(simulator, config, job.recipe.tail_steps, rng),
        instruction=simulator.spec.instruction,
        hz=CONTROL_HZ,
        hint="lower noise or random_start_steps, or collect another task",
    )


def _play(
    simulator: LiberoSimulator, config: LiberoExpert, tail: int, rng: np.random.Generator
) -> Recorded | None:
    """Until `tail` steps from success on; None if there is none."""
    expert, recording = Expert(simulator), Recording()
    while tail:
        if simulator.steps >= config.max_steps:
            return None
        tail -= simulator.success
        action = expert.action()
        recording.add(simulator.lowdim() | absolute_targets(simulator, action), simulator.images())
        action[:6] += config.noise * rng.standard_normal(6)
        simulator.command_fields(absolute_targets(simulator, np.clip(action, -1, 1)))
    return recording.recorded()
