"""Scenes with captions from ground truth: where hand, object and goal are, in words.

A caption ties the instruction to places in each view and to metres, which is what a policy has to
read from its pictures. Places are cells of a 48 x 48 grid over the picture (column, row; from the
left, from the top), written with two digits each. Every character counts: a digit is a token, and
what a caption costs in training is its length.
"""

from dataclasses import dataclass

import numpy as np

from foundry_core.data.images import encode_jpeg
from foundry_core.simulation import catalog
from foundry_core.simulation.camera import CameraPose
from foundry_core.simulation.collection import CollectJob, CollectScenesRecipe
from foundry_core.simulation.demonstrations import JPEG_QUALITY
from foundry_core.simulation.scenarios import scene_scenario
from foundry_core.simulation.scene_words import AXES, BINS, GOAL, HAND, OUTSIDE
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
    scenes = []
    before = job.slot * recipe.frames_per_scenario
    for frame in range(min(recipe.frames_per_scenario, recipe.frames_per_task - before)):
        _roam(simulator, recipe.steps_between, rng)
        instruction = _instruction(simulator.spec, recipe.randomized_share, rng)
        images = simulator.images()
        scenes.append(
            Scene(
                task=job.task,
                slot=job.slot,
                frame=frame,
                caption=describe(simulator, instruction),
                instruction=instruction,
                images={c: encode_jpeg(image, JPEG_QUALITY) for c, image in images.items()},
            )
        )
    return scenes


def describe(simulator: Simulator, instruction: str) -> str:
    """The caption of the simulator's present state. A camera on the hand sees that hand always
    at the same place, so of its view only the thing is named."""
    points = simulator.points()
    thing = {simulator.spec.thing: points["object"]}
    everything = {HAND: points["hand"], **thing, GOAL: points["goal"]}
    views = []
    for camera in simulator.render.cameras:
        pose = simulator.camera_pose(camera)
        named = thing if catalog.CAMERAS[camera].on_hand else everything
        views.append(f"{camera}: " + ", ".join(f"{n} {place(pose, p)}" for n, p in named.items()))
    offset = direction(points["object"] - points["hand"])
    return f"{instruction}. {'. '.join(views)}. {offset}."


def place(pose: CameraPose, point: np.ndarray) -> str:
    """ "0731" (column, row of the grid), or "outside"."""
    seen = pose.project(point)
    if seen is None:
        return OUTSIDE
    return "".join(f"{int(part * BINS):02d}" for part in seen)


def direction(offset: np.ndarray) -> str:
    """[3] m → "left 03, forward 12, down 04" as the robot sees it, rounded to centimetres."""
    parts = []
    for value, (positive, negative) in zip(offset, AXES, strict=True):
        centimetres = round(float(value) * 100)
        parts.append(f"{positive if centimetres >= 0 else negative} {abs(centimetres):02d}")
    return ", ".join(parts)


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
