"""Recording LIBERO's expert: the same folder of demonstrations that Meta-World's leave."""

import numpy as np

from foundry_core.data.images import encode_jpeg
from foundry_core.errors import FoundryError
from foundry_core.simulation.collection import CollectDemosRecipe, CollectJob
from foundry_core.simulation.demonstrations import JPEG_QUALITY, Demonstration
from foundry_core.simulation.experts.libero import LiberoExpert
from foundry_core.simulation.libero.catalog import CONTROL_HZ
from foundry_core.simulation.libero.expert import Expert, absolute_targets
from foundry_core.simulation.libero.simulator import LiberoSimulator, shared_libero
from foundry_core.simulation.scenarios import MAX_RETRIES, demonstration_scenario
from foundry_core.simulation.simulator import scenario_entropy

_RETRIES = min(8, MAX_RETRIES)


def record(config: LiberoExpert, job: CollectJob[CollectDemosRecipe]) -> Demonstration:
    """The slot's first success; every odd slot starts after some random steps. FoundryError after
    eight failures in a row."""
    simulator = shared_libero(job.task, config.scene)
    wander = job.recipe.random_start_steps if job.slot % 2 else 0
    for retry in range(_RETRIES):
        scenario = demonstration_scenario(job.seed, job.slot, retry)
        rng = np.random.default_rng(scenario_entropy(job.task, scenario, 1))
        simulator.reset(scenario)
        wandered = int(rng.integers(0, wander + 1))
        simulator.wander(wandered, rng)
        if simulator.success:
            continue
        played = _play(simulator, config, job.recipe.tail_steps, rng)
        if played is None:
            continue
        fields, images = played
        return Demonstration(
            task=job.task,
            episode_id=f"{job.task}_{job.seed}_{job.slot:05d}",
            instructions={"original": [simulator.spec.instruction]},
            hz=CONTROL_HZ,
            scenario=scenario,
            attempts=retry + 1,
            fields=fields,
            images=images,
            wandered=wandered,
        )
    raise FoundryError(
        f"the expert of {job.task} failed {_RETRIES} times in a row (slot {job.slot})",
        "lower noise or random_start_steps, or collect another task",
    )


def _play(
    simulator: LiberoSimulator, config: LiberoExpert, tail: int, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, list[bytes]]] | None:
    """(fields, images) until `tail` steps from success on; None if there is none. Drawn as it goes:
    an expert that hardly fails wastes few pictures."""
    expert = Expert(simulator)
    rows: dict[str, list[np.ndarray]] = {}
    images: dict[str, list[bytes]] = {}
    while tail:
        if simulator.steps >= config.max_steps:
            return None
        tail -= simulator.success
        action = expert.action()
        for name, value in (simulator.lowdim() | absolute_targets(simulator, action)).items():
            rows.setdefault(name, []).append(value)
        for camera, frame in simulator.images().items():
            images.setdefault(camera, []).append(encode_jpeg(frame, JPEG_QUALITY))
        action[:6] += config.noise * rng.standard_normal(6)
        simulator.command_fields(absolute_targets(simulator, np.clip(action, -1, 1)))
    return {name: np.stack(values) for name, values in sorted(rows.items())}, images
