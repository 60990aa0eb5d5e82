"""An episode in one of our embedded simulators, as every benchmark on one plays it."""

from collections.abc import Mapping
from typing import Any, Protocol

from foundry_core.evaluation.benchmarks.base import BenchmarkTask, Observation, Scenario


class EmbeddedSimulator(Protocol):
    """What is asked of it. solved: now; success: at any time since the reset."""

    @property
    def success(self) -> bool: ...

    @property
    def solved(self) -> bool: ...

    def reset(self, scenario: int) -> None: ...

    def images(self) -> Mapping[str, Any]: ...

    def lowdim(self) -> Mapping[str, Any]: ...

    def command_fields(self, targets: Mapping[str, Any]) -> None: ...

    def picture(self, camera: str) -> Any: ...

    def close(self) -> None: ...


class SimulatedEnvironment:
    """draws: whether observations have images. at_any_time: what success means."""

    def __init__(
        self,
        task: BenchmarkTask,
        simulator: EmbeddedSimulator,
        camera: str,
        *,
        draws: bool,
        at_any_time: bool,
    ) -> None:
        self._task, self._simulator, self._camera = task, simulator, camera
        self._draws, self._at_any_time = draws, at_any_time

    def reset(self, scenario: Scenario) -> None:
        self._simulator.reset(scenario.index)

    def observe(self) -> Observation:
        return Observation(
            images=self._simulator.images() if self._draws else {},
            lowdim=self.measured(),
            instruction=self._task.instruction,
        )

    def measured(self) -> Mapping[str, Any]:
        return self._simulator.lowdim()

    def act(self, targets: Mapping[str, Any]) -> None:
        self._simulator.command_fields(targets)

    @property
    def success(self) -> bool:
        return self._simulator.success if self._at_any_time else self._simulator.solved

    def picture(self) -> Any:
        return self._simulator.picture(self._camera)

    def close(self) -> None:
        self._simulator.close()
