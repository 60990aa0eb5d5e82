"""LIBERO and LIBERO-PRO as a benchmark: published starts, limits and rule of success, offline.

Scenarios are a task's published start states, 0 to 49. An episode waits ten steps, as published
evaluations do, and is solved once LIBERO says so at any time within its suite's limit.
"""

from collections.abc import Mapping, Sequence
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
)
from foundry_core.evaluation.benchmarks.simulated import SimulatedEnvironment
from foundry_core.simulation.catalog import (
    ACTION_GRIPPER,
    ACTION_ROT6D,
    ACTION_XYZ,
    GRIPPER,
    ROT6D,
    XYZ,
)
from foundry_core.simulation.libero.catalog import CONTROL_HZ, PACKAGES, max_steps, starts
from foundry_core.simulation.libero.config import COMMANDED, MEASURED, LiberoScene


class Libero(Benchmark, LiberoScene):
    """Options of LiberoScene, beside each other. max_steps: null is the published limit."""

    name: ClassVar[str] = "libero"
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    hz: ClassVar[float] = CONTROL_HZ
    observes: ClassVar[Mapping[str, FieldContract]] = MEASURED
    commands: ClassVar[Mapping[str, FieldContract]] = COMMANDED

    max_steps: int | None = Field(None, ge=1, description="null: the suite's published limit")

    @property
    def scene(self) -> LiberoScene:
        return LiberoScene(**{name: getattr(self, name) for name in LiberoScene.model_fields})

    def tasks(self) -> Mapping[str, BenchmarkTask]:
        return {name: self.task(name) for name in self.scene.problems()}

    def task(self, name: str) -> BenchmarkTask:
        """`name@perturbation` too, which `tasks` does not list: see `LiberoScene.problem`."""
        steps = self.max_steps or max_steps(self.suite)
        found = self.scene.problem(name)
        return BenchmarkTask(name=name, instruction=found.instruction, max_steps=steps)

    def cameras(self) -> tuple[str, ...]:
        return self.render.cameras

    def environment(self, task: str) -> Environment:
        return self._simulated(task, draws=True)

    def unseen_environment(self, task: str) -> Environment:
        return self._simulated(task, draws=False)

    def still(self, observation: Observation) -> Mapping[str, Any]:
        """The measured pose, the hand open or closed as it is."""
        measured = observation["lowdim"]
        return {
            ACTION_XYZ: measured[XYZ],
            ACTION_ROT6D: measured[ROT6D],
            ACTION_GRIPPER: measured[GRIPPER],
        }

    def check_scenarios(self, first: int, count: int, tasks: Sequence[str] = ()) -> None:
        for name in tasks or ("a task",):
            have = starts(name.partition("@")[2] or self.perturbation)
            if first < 0 or first + count > have:
                raise FoundryError(
                    f"libero has the start states 0..{have - 1} of {name}, not "
                    f"{first}..{first + count - 1}",
                    "lower episodes_per_task or first_scenario",
                )

    def pictures(self) -> Mapping[str, CameraContract]:
        return self.render.contract()

    def _simulated(self, task: str, *, draws: bool) -> Environment:
        from foundry_core.simulation.libero.simulator import LiberoSimulator

        return SimulatedEnvironment(
            self.task(task),
            LiberoSimulator(task, self.scene),
            self.render.cameras[0],
            draws=draws,
            at_any_time=self.success == "ever",
        )


BENCHMARK = Libero
