"""Meta-World as a benchmark: the same simulator, cameras and control as collection.

Success does not end an episode in Meta-World; here the rollout stops where `success` says.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import (
    Benchmark,
    BenchmarkTask,
    Environment,
    Observation,
    Scenario,
)
from foundry_core.simulation.catalog import (
    ACTION_GRIPPER,
    ACTION_XYZ,
    CONTROL_HZ,
    GRIPPER,
    PACKAGES,
    TASKS,
    XYZ,
)
from foundry_core.simulation.config import DEFAULT_TASKS, RenderConfig
from foundry_core.simulation.scenarios import check_evaluation


class MetaWorld(Benchmark):
    name: ClassVar[str] = "metaworld"
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    hz: ClassVar[float] = CONTROL_HZ
    # The gripper keeps its orientation, whatever is commanded.
    actions: ClassVar[Mapping[str, int]] = {ACTION_XYZ: 3, ACTION_GRIPPER: 1}

    render: RenderConfig = RenderConfig()

    def tasks(self) -> Mapping[str, BenchmarkTask]:
        return {
            name: BenchmarkTask(name=name, instruction=spec.original, max_steps=spec.max_steps)
            for name, spec in TASKS.items()
        }

    def default_tasks(self) -> tuple[str, ...]:
        return DEFAULT_TASKS

    def cameras(self) -> tuple[str, ...]:
        return self.render.cameras

    def environment(self, task: str) -> Environment:
        return _Environment(self.task(task), self, draws=True)

    def unseen_environment(self, task: str) -> Environment:
        return _Environment(self.task(task), self, draws=False)

    def still(self, observation: Observation) -> Mapping[str, Any]:
        """The measured pose. The hand hangs a few mm below its target: whoever commands again and
        again what is measured then lets it sink."""
        measured = observation["lowdim"]
        return {ACTION_XYZ: measured[XYZ], ACTION_GRIPPER: measured[GRIPPER]}

    def check_scenarios(self, first: int, count: int) -> None:
        check_evaluation(first, count)

    def check_training(self, kind: str, recipe: Any) -> None:
        if kind != "collect_demos":
            return
        trained: RenderConfig = recipe.render
        drawn = (self.render.size, self.render.supersample)
        if (trained.size, trained.supersample) != drawn:
            raise FoundryError(
                f"the policy's demonstrations are drawn at size {trained.size} x supersample "
                f"{trained.supersample}, the evaluation at {drawn[0]} x {drawn[1]}",
                "set the evaluation's options.render to the demonstrations' render",
            )
        missing = sorted(set(trained.cameras) - set(self.render.cameras))
        if missing:
            raise FoundryError(
                f"the demonstrations' cameras {missing} are missing from the evaluation",
                "add them to the evaluation's options.render.cameras",
            )


class _Environment:
    def __init__(self, task: BenchmarkTask, benchmark: MetaWorld, *, draws: bool) -> None:
        from foundry_core.simulation.simulator import Simulator

        self._task, self._draws = task, draws
        self._at_any_time = benchmark.success == "ever"
        self._simulator = Simulator(task.name, benchmark.render)

    def reset(self, scenario: Scenario) -> None:
        self._simulator.reset(scenario.index)

    def observe(self) -> Observation:
        return Observation(
            images=self._simulator.images() if self._draws else {},
            lowdim=self._simulator.lowdim(),
            instruction=self._task.instruction,
        )

    def act(self, targets: Mapping[str, Any]) -> None:
        self._simulator.command_fields(targets)

    @property
    def success(self) -> bool:
        return self._simulator.success if self._at_any_time else self._simulator.solved

    def picture(self) -> Any:
        return self._simulator.picture(self._simulator.render.cameras[0])

    def close(self) -> None:
        self._simulator.close()


BENCHMARK = MetaWorld
