"""ALOHA in simulation (gym-aloha): two arms at 50 Hz, commanded by 14 joint targets or by the poses
of both hands, 20 numbers.

Fields of joints as the mapping `aloha` names those of its demonstrations: radians, grippers 0 when
closed and 1 when open. Poses are of the hand's body in the world. Solved at the task's full reward.
Needs the extra `aloha`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract
from foundry_core.evaluation.benchmarks.base import (
    Benchmark,
    BenchmarkTask,
    Environment,
    Observation,
)
from foundry_core.evaluation.benchmarks.simulated import SimulatedEnvironment
from foundry_core.simulation.aloha.config import (
    CAMERA,
    CONTROL_HZ,
    PACKAGES,
    TASKS,
    AlohaScene,
)


class Aloha(Benchmark, AlohaScene):
    """Options of AlohaScene, beside each other. Scenario n draws the things' places with seed n."""

    name: ClassVar[str] = "aloha"
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    hz: ClassVar[float] = CONTROL_HZ
    max_steps: int = Field(
        400, ge=1, description="control steps, at 50 Hz, after which an episode has failed"
    )

    @property
    def scene(self) -> AlohaScene:
        return AlohaScene(**{name: getattr(self, name) for name in AlohaScene.model_fields})

    @property
    def observes(self) -> Mapping[str, FieldContract]:  # type: ignore[override]
        return self.measured()

    @property
    def commands(self) -> Mapping[str, FieldContract]:  # type: ignore[override]
        return self.commanded()

    def tasks(self) -> Mapping[str, BenchmarkTask]:
        return {
            name: BenchmarkTask(name=name, instruction=words, max_steps=self.max_steps)
            for name, words in TASKS.items()
        }

    def cameras(self) -> tuple[str, ...]:
        return (CAMERA,)

    def environment(self, task: str) -> Environment:
        return self._simulated(task, draws=True)

    def unseen_environment(self, task: str) -> Environment:
        return self._simulated(task, draws=False)

    def still(self, observation: Observation) -> Mapping[str, Any]:
        """What is measured: arms that hang a little below their targets sink."""
        measured = observation["lowdim"]
        return {name: measured[name.replace("action", "actual")] for name in self.commands}

    def pictures(self) -> Mapping[str, CameraContract]:
        return self.drawn()

    def _simulated(self, task: str, *, draws: bool) -> Environment:
        from foundry_core.simulation.aloha.simulator import AlohaSimulator

        return SimulatedEnvironment(
            self.task(task),
            AlohaSimulator(task, self.scene),
            CAMERA,
            draws=draws,
            at_any_time=self.success == "ever",
        )


BENCHMARK = Aloha
