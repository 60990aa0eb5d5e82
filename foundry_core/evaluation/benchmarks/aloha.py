"""ALOHA in simulation (gym-aloha): two arms of six joints each, 14 absolute targets at 50 Hz.

Fields as the mapping `aloha` names those of its demonstrations: joints in radians, grippers 0 when
closed and 1 when open, a policy of other ends is converted. Solved at the task's full reward. Needs
the extra `aloha`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import (
    Benchmark,
    BenchmarkTask,
    Environment,
    Observation,
    Scenario,
)

_JOINTS = FieldContract(dims=6, quantity="joints", unit="rad")
_GRIPPER = FieldContract(dims=1, quantity="gripper", closed=0.0, open=1.0)
# Left arm first, as gym-aloha orders its numbers.
_PARTS = {
    "joint_position__left::vx300s": _JOINTS,
    "grippers__left::vx300s_hand": _GRIPPER,
    "joint_position__right::vx300s": _JOINTS,
    "grippers__right::vx300s_hand": _GRIPPER,
}
_WORDS = {
    "transfer_cube": "pick up the red cube with the right arm and hand it to the left arm",
    "insertion": "insert the peg into the socket",
}
_FULL_REWARD = 4


class Aloha(Benchmark):
    """height, width: of the picture from above; the published ones are 480 x 640. Scenario n draws
    the things' places with seed n."""

    name: ClassVar[str] = "aloha"
    packages: ClassVar[tuple[str, ...]] = ("gym-aloha", "dm-control", "mujoco")
    hz: ClassVar[float] = 50.0
    observes: ClassVar[Mapping[str, FieldContract]] = {
        f"robot__actual__{part}": field for part, field in _PARTS.items()
    }
    commands: ClassVar[Mapping[str, FieldContract]] = {
        f"robot__action__{part}": field for part, field in _PARTS.items()
    }

    height: int = Field(480, ge=16, le=480, description="of the picture from above, in pixels")
    width: int = Field(640, ge=16, le=640, description="of the picture from above, in pixels")
    max_steps: int = Field(
        400, ge=1, description="control steps, at 50 Hz, after which an episode has failed"
    )

    def tasks(self) -> Mapping[str, BenchmarkTask]:
        return {
            name: BenchmarkTask(name=name, instruction=words, max_steps=self.max_steps)
            for name, words in _WORDS.items()
        }

    def cameras(self) -> tuple[str, ...]:
        return ("top",)

    def environment(self, task: str) -> Environment:
        return _Environment(self.task(task), self, draws=True)

    def unseen_environment(self, task: str) -> Environment:
        return _Environment(self.task(task), self, draws=False)

    def still(self, observation: Observation) -> Mapping[str, Any]:
        """The measured joints: arms that hang a little below their targets sink."""
        measured = observation["lowdim"]
        return {f"robot__action__{part}": measured[f"robot__actual__{part}"] for part in _PARTS}

    def pictures(self) -> Mapping[str, CameraContract]:
        return {"top": CameraContract(drawn=(self.height, self.width))}


class _Environment:
    """gym-aloha's tasks on dm_control. Its own environment draws three pictures a step and keeps
    where things begin in a variable of the module; here one is drawn where it is asked for."""

    def __init__(self, task: BenchmarkTask, benchmark: Aloha, *, draws: bool) -> None:
        from foundry_core.simulation.backend import load_mujoco

        load_mujoco()
        try:
            from gym_aloha.env import AlohaEnv
        except ImportError as error:
            raise FoundryError(
                f"gym-aloha cannot be imported: {error}", "pip install 'foundry-robotics[aloha]'"
            ) from error
        self._task, self._draws = task, draws
        self._size = {"height": benchmark.height, "width": benchmark.width}
        self._control = AlohaEnv(task.name)._env
        self._physics, self._rules = self._control.physics, self._control.task
        self._rules.get_observation = lambda physics: {}
        self.success = False

    def reset(self, scenario: Scenario) -> None:
        import numpy as np
        from gym_aloha.tasks.sim import BOX_POSE
        from gym_aloha.utils import sample_box_pose, sample_insertion_pose

        if self._task.name == "transfer_cube":
            BOX_POSE[0] = sample_box_pose(scenario.index)
        else:
            BOX_POSE[0] = np.concatenate(sample_insertion_pose(scenario.index))
        self._control.reset()
        self.success = False

    def observe(self) -> Observation:
        return Observation(
            images={"top": self._drawn(**self._size)} if self._draws else {},
            lowdim=self._measured(),
            instruction=self._task.instruction,
        )

    def act(self, targets: Mapping[str, Any]) -> None:
        import numpy as np

        action = np.concatenate([targets[f"robot__action__{part}"] for part in _PARTS])
        self.success = self._control.step(action).reward == _FULL_REWARD

    def picture(self) -> Any:
        return self._drawn(height=240, width=320)

    def close(self) -> None:
        self._control.close()

    def _drawn(self, height: int, width: int) -> Any:
        return self._physics.render(height=height, width=width, camera_id="top")

    def _measured(self) -> dict[str, Any]:
        values, at, found = self._rules.get_qpos(self._physics), 0, {}
        for part, field in _PARTS.items():
            found[f"robot__actual__{part}"] = values[at : at + field.dims].astype(float)
            at += field.dims
        return found


BENCHMARK = Aloha
