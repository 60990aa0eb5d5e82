"""Recording ALOHA's expert: the same folder of demonstrations that the other simulators' leave."""

import numpy as np

from foundry_core.data.images import encode_jpeg
from foundry_core.errors import FoundryError
from foundry_core.simulation.aloha.config import CONTROL_HZ, TASKS
from foundry_core.simulation.aloha.expert import LAST_STEP, Expert
from foundry_core.simulation.aloha.simulator import AlohaSimulator, shared_aloha
from foundry_core.simulation.collection import CollectDemosRecipe, CollectJob
from foundry_core.simulation.demonstrations import JPEG_QUALITY, Demonstration
from foundry_core.simulation.experts.aloha import AlohaExpert
from foundry_core.simulation.scenarios import demonstration_scenario
from foundry_core.simulation.simulator import scenario_entropy

_RETRIES = 8


def record(config: AlohaExpert, job: CollectJob[CollectDemosRecipe]) -> Demonstration:
    """The slot's first success; every odd slot starts after the arms have drifted for some steps.
    FoundryError after eight failures in a row."""
    simulator = shared_aloha(job.task, config.scene)
    wander = job.recipe.random_start_steps if job.slot % 2 else 0
    for retry in range(_RETRIES):
        scenario = demonstration_scenario(job.seed, job.slot, retry)
        rng = np.random.default_rng(scenario_entropy(job.task, scenario, 1))
        simulator.reset(scenario)
        wandered = int(rng.integers(0, wander + 1))
        simulator.wander(wandered, rng)
        played = _play(simulator, job.recipe.tail_steps)
        if played is None:
            continue
        fields, images = played
        return Demonstration(
            task=job.task,
            episode_id=f"{job.task}_{job.seed}_{job.slot:05d}",
            instructions={"original": [TASKS[job.task]]},
            hz=CONTROL_HZ,
            scenario=scenario,
            attempts=retry + 1,
            fields=fields,
            images=images,
            wandered=wandered,
        )
    raise FoundryError(
        f"the expert of {job.task} failed {_RETRIES} times in a row (slot {job.slot})",
        "lower random_start_steps",
    )


def _play(
    simulator: AlohaSimulator, tail: int
) -> tuple[dict[str, np.ndarray], dict[str, list[bytes]]] | None:
    """(fields, images) until `tail` steps from success on; None if there is none."""
    expert = Expert(simulator)
    rows: dict[str, list[np.ndarray]] = {}
    images: dict[str, list[bytes]] = {}
    while tail:
        if simulator.steps >= LAST_STEP:
            return None
        tail -= simulator.success
        targets = expert.targets(simulator.steps)
        for name, value in (simulator.lowdim() | targets).items():
            rows.setdefault(name, []).append(value)
        for camera, frame in simulator.images().items():
            images.setdefault(camera, []).append(encode_jpeg(frame, JPEG_QUALITY))
        simulator.command_fields(targets)
    return {name: np.stack(values) for name, values in sorted(rows.items())}, images
