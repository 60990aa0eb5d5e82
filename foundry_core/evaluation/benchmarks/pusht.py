"""Push-T (gym-pusht): a disc pushes a T-shaped block onto its outline, on a plane of 512 pixels.

Fields as the mapping `pusht` names those of its demonstrations. Solved once the block covers 95 %
of the outline. Needs the extra `pusht`.
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

MEASURED, COMMANDED = "robot__actual__plane", "robot__action__plane"
_PLANE = FieldContract(dims=2)
_SIDE = 512.0


class PushT(Benchmark):
    """size: pixels of the picture, square; 96 are the published ones. Scenario n is the
    environment's seed n."""

    name: ClassVar[str] = "pusht"
    packages: ClassVar[tuple[str, ...]] = ("gym-pusht", "pymunk", "pygame", "shapely")
    hz: ClassVar[float] = 10.0
    observes: ClassVar[Mapping[str, FieldContract]] = {MEASURED: _PLANE}
    commands: ClassVar[Mapping[str, FieldContract]] = {COMMANDED: _PLANE}

    size: int = Field(
        96,
        ge=16,
        le=512,
        description="side of the square picture, in pixels; 96 is the published one",
    )
    max_steps: int = Field(
        300, ge=1, description="control steps, at 10 Hz, after which an episode has failed"
    )

    def tasks(self) -> Mapping[str, BenchmarkTask]:
        words = "push the T-shaped block onto the target"
        return {"pusht": BenchmarkTask(name="pusht", instruction=words, max_steps=self.max_steps)}

    def cameras(self) -> tuple[str, ...]:
        return ("scene",)

    def environment(self, task: str) -> Environment:
        return _Environment(self, draws=True)

    def unseen_environment(self, task: str) -> Environment:
        return _Environment(self, draws=False)

    def still(self, observation: Observation) -> Mapping[str, Any]:
        return {COMMANDED: observation["lowdim"][MEASURED]}

    def pictures(self) -> Mapping[str, CameraContract]:
        return {"scene": CameraContract(drawn=(self.size, self.size))}


class _Environment:
    def __init__(self, benchmark: PushT, *, draws: bool) -> None:
        try:
            from gym_pusht.envs.pusht import PushTEnv
        except ImportError as error:
            raise FoundryError(
                f"gym-pusht cannot be imported: {error}", "pip install 'foundry-robotics[pusht]'"
            ) from error
        size = benchmark.size
        self._env = PushTEnv(obs_type="state", observation_width=size, observation_height=size)
        self._env.visualization_width = self._env.visualization_height = 256
        self._draws = draws
        (self._task,) = benchmark.tasks().values()
        self.success = False

    def reset(self, scenario: Scenario) -> None:
        self._state, _ = self._env.reset(seed=scenario.index)
        self.success = False

    def observe(self) -> Observation:
        return Observation(
            images={"scene": self._env._render(visualize=False)} if self._draws else {},
            lowdim=self.measured(),
            instruction=self._task.instruction,
        )

    def measured(self) -> Mapping[str, Any]:
        return {MEASURED: self._state[:2].astype(float)}

    def act(self, targets: Mapping[str, Any]) -> None:
        self._state, _, _, _, info = self._env.step(targets[COMMANDED].clip(0.0, _SIDE))
        self.success = bool(info["is_success"])

    def picture(self) -> Any:
        return self._env._render(visualize=True)

    def close(self) -> None:
        self._env.close()


BENCHMARK = PushT
