"""Recording LIBERO's scenes with captions from ground truth, as Meta-World's are."""

from collections.abc import Mapping

import numpy as np

from foundry_core.simulation.camera import CameraPose
from foundry_core.simulation.collection import CollectJob, CollectScenesRecipe
from foundry_core.simulation.experts.libero import LiberoExpert
from foundry_core.simulation.libero.config import VIEWS
from foundry_core.simulation.libero.expert import Expert, problem_goal
from foundry_core.simulation.libero.osc import STEP_M
from foundry_core.simulation.libero.simulator import LiberoSimulator, shared_libero
from foundry_core.simulation.scenarios import scene_scenario
from foundry_core.simulation.scene_words import Places, View, caption
from foundry_core.simulation.scenes import Scene, slot_scenes
from foundry_core.simulation.simulator import scenario_entropy

_ROOM_LOW = np.array([-0.15, -0.15, 0.0])
_ROOM_HIGH = np.array([0.15, 0.15, 0.25])
_EXPERT_STEPS = 80
"""A demonstration takes 66 to 133: some scenes have the thing in the hand or in its place."""
_OPENS, _CLOSES = -1.0, 1.0


def record_scenes(config: LiberoExpert, job: CollectJob[CollectScenesRecipe]) -> list[Scene]:
    """The slot's pictures, in order, each after `steps_between` more steps of a random walk. Some
    slots begin with a stretch of the expert's work and go on with the hand as it left it."""
    recipe = job.recipe
    simulator = shared_libero(job.task, config.scene)
    scenario = scene_scenario(job.seed, job.slot)
    rng = np.random.default_rng(scenario_entropy(job.task, scenario, 2))
    simulator.reset(scenario)
    effort = _OPENS if rng.random() < 0.5 else _CLOSES
    if rng.random() < recipe.expert_share:
        expert = Expert(simulator)
        for _ in range(int(rng.integers(1, _EXPERT_STEPS + 1))):
            action = expert.action()
            simulator.act(action)
            effort = float(action[6])

    def look() -> tuple[str, str, Mapping[str, np.ndarray]]:
        _roam(simulator, recipe.steps_between, effort, rng)
        return simulator.spec.instruction, describe(simulator), simulator.images()

    return slot_scenes(job, look)


def describe(simulator: LiberoSimulator) -> str:
    """The caption of the simulator's present state. The thing has the last word of its name: the
    instruction says which of two bowls it is."""
    thing, goal = problem_goal(simulator)
    hand, _ = simulator.pose()
    at = simulator.position(thing)
    forward, left, up = at - hand
    places = Places(
        thing=[part for part in thing.split("_") if not part.isdigit()][-1],
        hand=hand,
        object=at,
        goal=simulator.position(goal),
        offset=np.array([-left, forward, up]),
    )
    views: dict[str, View] = {
        camera: View(pose=camera_pose(simulator, camera), on_hand=camera == "wrist")
        for camera in simulator.render.cameras
    }
    return caption(simulator.spec.instruction, places, views)


def camera_pose(simulator: LiberoSimulator, camera: str) -> CameraPose:
    """Where the camera is now."""
    view = simulator.data.camera(VIEWS[camera])
    return CameraPose(
        position=view.xpos.copy(),
        axes=view.xmat.reshape(3, 3).copy(),
        fovy=float(simulator.model.camera(VIEWS[camera]).fovy[0]),
        mirrored=simulator.render.mirror,
    )


def _roam(simulator: LiberoSimulator, steps: int, effort: float, rng: np.random.Generator) -> None:
    """A random walk with a pull towards places around the thing: an even walk from the start would
    rarely show the hand where the task happens."""
    thing, _ = problem_goal(simulator)
    aim = simulator.position(thing) + rng.uniform(_ROOM_LOW, _ROOM_HIGH)
    for _ in range(steps):
        here, _ = simulator.pose()
        move = np.clip((aim - here) / STEP_M, -1, 1) + rng.uniform(-0.5, 0.5, 3)
        simulator.act(np.concatenate([np.clip(move, -1, 1), np.zeros(3), [effort]]))
