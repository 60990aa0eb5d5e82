"""Recording ALOHA's expert: the same folder of demonstrations that the other simulators' leave."""

from foundry_core.simulation.aloha.config import CONTROL_HZ, TASKS
from foundry_core.simulation.aloha.expert import LAST_STEP, Expert
from foundry_core.simulation.aloha.simulator import AlohaSimulator, shared_aloha
from foundry_core.simulation.collection import CollectDemosRecipe, CollectJob
from foundry_core.simulation.demonstrations import (
    Demonstration,
    Recorded,
    Recording,
    first_success,
)
from foundry_core.simulation.experts.aloha import AlohaExpert


def record(config: AlohaExpert, job: CollectJob[CollectDemosRecipe]) -> Demonstration:
    """As `first_success` says; the arms drift in the random steps."""
    simulator = shared_aloha(job.task, config.scene)
    return first_success(
        job,
        simulator,
        lambda rng: _play(simulator, job.recipe.tail_steps),
        instruction=TASKS[job.task],
        hz=CONTROL_HZ,
        hint="lower random_start_steps",
    )


def _play(simulator: AlohaSimulator, tail: int) -> Recorded | None:
    """Until `tail` steps from success on; None if there is none."""
    expert, recording = Expert(simulator), Recording()
    while tail:
        if simulator.steps >= LAST_STEP:
            return None
        tail -= simulator.success
        targets = expert.targets(simulator.steps)
        recording.add(simulator.lowdim() | targets, simulator.images())
        simulator.command_fields(targets)
    return recording.recorded()
