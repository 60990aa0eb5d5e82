"""Captions say what the simulator knows."""

import re

import numpy as np

from foundry_core.simulation.camera import CameraPose
from foundry_core.simulation.collection import CollectJob, CollectScenesRecipe
from foundry_core.simulation.config import RenderConfig
from foundry_core.simulation.scene_words import direction, place
from foundry_core.simulation.scenes import describe, record_scenes
from foundry_core.simulation.simulator import shared_simulator

RENDER = RenderConfig(size=32, supersample=1)
RECIPE = CollectScenesRecipe(render=RENDER, frames_per_scenario=3, steps_between=2)
JOB = CollectJob(task="lever-pull-v3", slot=3, seed=0, recipe=RECIPE)


def test_direction_names_the_side_and_rounds_to_centimetres():
    assert direction(np.array([-0.031, 0.124, -0.04])) == "left 03, forward 12, down 04"
    assert direction(np.array([0.001, -0.2, 0.0])) == "right 00, back 20, up 00"


def test_place_is_a_cell_of_the_grid():
    pose = CameraPose(position=np.zeros(3), axes=np.eye(3), fovy=90.0, upside_down=False)
    assert place(pose, np.array([-0.99, 0.99, -1.0])) == "0000"
    assert place(pose, np.array([0.99, 0.0, -1.0])) == "4724"
    assert place(pose, np.array([0.0, 2.0, -1.0])) == "outside"


def test_caption_holds_instruction_places_and_offset():
    simulator = shared_simulator("lever-pull-v3", RENDER)
    simulator.reset(8)
    caption = describe(simulator, "pull the lever up")
    points = simulator.points()
    assert re.fullmatch(
        r"pull the lever up\. workspace: hand \d{4}, lever (\d{4}|outside), "
        r"goal (\d{4}|outside)\. wrist: lever (\d{4}|outside)\. "
        r"(right|left) \d\d, (forward|back) \d\d, (up|down) \d\d\.",
        caption,
    )
    assert f"hand {place(simulator.camera_pose('workspace'), points['hand'])}, lever" in caption
    assert caption.endswith(direction(points["object"] - points["hand"]) + ".")


def test_scenes_repeat_and_move():
    first, again = record_scenes(JOB), record_scenes(JOB)
    assert first == again
    assert len({scene.caption.split(". ", 1)[1] for scene in first}) == 3
    assert len({scene.images["workspace"] for scene in first}) == 3
