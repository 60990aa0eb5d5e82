"""Meta-World as a benchmark: the same simulator, cameras and control as collection.

Success does not end an episode in Meta-World; here the rollout stops where `success` says.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

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
from foundry_core.simulation.catalog import (
    ACTION_GRIPPER,
    ACTION_XYZ,
    CONTROL_HZ,
    GRIPPER,
    PACKAGES,
    TASK_SETS,
    TASKS,
    XYZ,
    TaskSet,
)
from foundry_core.simulation.config import (
    COMMANDED,
    MEASURED,
    RenderConfig,
    cameras_contract,
)
from foundry_core.simulation.scenarios import check_evaluation


class MetaWorld(Benchmark):
    name: ClassVar[str] = "metaworld"
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    hz: ClassVar[float] = CONTROL_HZ
    # The gripper keeps its orientation, whatever is commanded.
    commands: ClassVar[Mapping[str, FieldContract]] = {
        name: COMMANDED[name] for name in (ACTION_XYZ, ACTION_GRIPPER)
    }
    observes: ClassVar[Mapping[str, FieldContract]] = MEASURED

    render: RenderConfig = Field(RenderConfig(), description="what the cameras see")
    task_set: TaskSet = Field("mini", description="what an evaluation that names no tasks plays")
    words: Literal["original", "held_out"] = Field(
        "original", description="held_out: instructions that no demonstration holds"
    )

    def tasks(self) -> Mapping[str, BenchmarkTask]:
        return {
            name: BenchmarkTask(
                name=name,
                instruction=getattr(spec, self.words),
                max_steps=spec.max_steps,
                given_away=spec.given_away,
            )
            for name, spec in TASKS.items()
        }

    def default_tasks(self) -> tuple[str, ...]:
        return TASK_SETS[self.task_set]

    def cameras(self) -> tuple[str, ...]:
        return self.render.cameras

    def environment(self, task: str) -> Environment:
        return self._simulated(task, draws=True)

    def unseen_environment(self, task: str) -> Environment:
        return self._simulated(task, draws=False)

    def still(self, observation: Observation) -> Mapping[str, Any]:
        """The measured pose. The hand hangs a few mm below its target: whoever commands again and
        again what is measured then lets it sink."""
        measured = observation["lowdim"]
        return {ACTION_XYZ: measured[XYZ], ACTION_GRIPPER: measured[GRIPPER]}

    def check_scenarios(self, first: int, count: int, tasks: Sequence[str] = ()) -> None:
        check_evaluation(first, count)

    def pictures(self) -> Mapping[str, CameraContract]:
        return cameras_contract(self.render)

    def _simulated(self, task: str, *, draws: bool) -> Environment:
        from foundry_core.simulation.simulator import Simulator

        return SimulatedEnvironment(
            self.task(task),
            Simulator(task, self.render),
            self.render.cameras[0],
            draws=draws,
            at_any_time=self.success == "ever",
        )


BENCHMARK = MetaWorld
