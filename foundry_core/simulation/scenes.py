"""Recording Meta-World's scenes with captions from ground truth: where hand, thing and goal are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from foundry_core.data.images import encode_jpeg
from foundry_core.simulation import catalog
from foundry_core.simulation.collection import CollectJob, CollectScenesRecipe
from foundry_core.simulation.demonstrations import JPEG_QUALITY
from foundry_core.simulation.scenarios import scene_scenario
from foundry_core.simulation.scene_words import Places, View, caption
from foundry_core.simulation.simulator import (
    OPEN_M,
    Simulator,
    scenario_entropy,
    shared_simulator,
)

_ROOM_LOW = np.array([-0.25, -0.10, -0.10])
_ROOM_HIGH = np.array([0.25, 0.10, 0.20])


@dataclass(frozen=True, kw_only=True)
class Scene:
    """images: camera → JPEG."""

    task: str
    slot: int
    frame: int
    caption: str
    instruction: str
    images: dict[str, bytes]


def record_scenes(job: CollectJob[CollectScenesRecipe]) -> list[Scene]:
    """The slot's pictures, in order, each after `steps_between` more steps of a random walk. Some
    slots begin with a stretch of the expert's work: drawers stand half open in their pictures."""
    recipe = job.recipe
    simulator = shared_simulator(job.task, recipe.render)
    scenario = scene_scenario(job.seed, job.slot)
    rng = np.random.default_rng(scenario_entropy(job.task, scenario, 2))
    simulator.reset(scenario)
    if rng.random() < recipe.expert_share:
        for _ in range(int(rng.integers(1, 21))):
            simulator.command(*simulator.expert_target(), judged=False)

    def look() -> tuple[str, str, Mapping[str, np.ndarray]]:
        _roam(simulator, recipe.steps_between, rng)
        instruction = _instruction(simulator.spec, recipe.randomized_share, rng)
        return instruction, describe(simulator, instruction), simulator.images()

    return slot_scenes(job, look)


def slot_scenes(
    job: CollectJob[CollectScenesRecipe],
    look: Callable[[], tuple[str, str, Mapping[str, np.ndarray]]],
) -> list[Scene]:
    """The slot's pictures: `look` goes on to the next and returns (instruction, caption, camera →
    uint8 [H, W, 3])."""
    recipe, scenes = job.recipe, []
    before = job.slot * recipe.frames_per_scenario
    for frame in range(min(recipe.frames_per_scenario, recipe.frames_per_task - before)):
        instruction, told, images = look()
        scenes.append(
            Scene(
                task=job.task,
                slot=job.slot,
                frame=frame,
                caption=told,
                instruction=instruction,
                images={c: encode_jpeg(image, JPEG_QUALITY) for c, image in images.items()},
            )
        )
    return scenes


def describe(simulator: Simulator, instruction: str) -> str:
    """The caption of the simulator's present state."""
    points = simulator.points()
    places = Places(
        thing=simulator.spec.thing,
        hand=points["hand"],
        object=points["object"],
        goal=points["goal"],
        offset=points["object"] - points["hand"],
    )
    views = {
        camera: View(pose=simulator.camera_pose(camera), on_hand=catalog.CAMERAS[camera].on_hand)
        for camera in simulator.render.cameras
    }
    return caption(instruction, places, views)


def _roam(simulator: Simulator, steps: int, rng: np.random.Generator) -> None:
    """A random walk with a pull towards places around the object: an even walk from the start
    would rarely show the hand where the task happens."""
    aim = simulator.points()["object"] + rng.uniform(_ROOM_LOW, _ROOM_HIGH)
    opening = float(rng.uniform(0, OPEN_M))
    for _ in range(steps):
        here = simulator.lowdim()[catalog.XYZ]
        step = np.clip(aim - here, -simulator.reach, simulator.reach)
        jitter = rng.uniform(-0.5, 0.5, 3) * simulator.reach
        simulator.command(here + step + jitter, opening, judged=False)


def _instruction(spec: catalog.TaskSpec, share: float, rng: np.random.Generator) -> str:
    if rng.random() >= share:
        return spec.original
    return spec.randomized[int(rng.integers(len(spec.randomized)))]
