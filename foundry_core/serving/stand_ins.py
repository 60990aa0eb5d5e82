"""Policies without a model: one that only waves, to try a connection; one that does nothing, to
measure what a server costs by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foundry_core.data.contract.statements import ExamContract, PolicyContract
from foundry_core.simulation.config import COMMANDED, MEASURED

_STEPS = 8
_METRES = 0.02
_PERIOD = 32
"""Control steps of one wave."""


def stand_in_contract(exam: ExamContract | None = None) -> PolicyContract:
    """Commands what the exam takes and observes what it measures, by default one arm's pose and
    gripper as Meta-World has them; no cameras, any rate."""
    return PolicyContract(
        hz=exam.hz if exam else None,
        cameras={},
        observes=exam.observes if exam else MEASURED,
        commands=exam.commands if exam else COMMANDED,
        ahead=_STEPS,
        execute_steps=_STEPS,
    )


class NullPolicy:
    """Answers with zeros at once, and rotations with none."""

    history = 0
    reads_words = False

    def __init__(self, contract: PolicyContract) -> None:
        self.contract = contract
        self._chunk = {
            name: np.tile(_rest(name, one), (contract.ahead, 1))
            for name, one in contract.commands.items()
        }

    def reset(self, client: str, seed: int) -> None:
        """There is nothing to forget."""

    def forget(self, client: str) -> None:
        """There is nothing to forget."""

    def infer(
        self,
        requests: Sequence[tuple[str, Mapping[str, Any]]],
        absent: frozenset[str] = frozenset(),
    ) -> list[dict[str, np.ndarray]]:
        return [dict(self._chunk) for _ in requests]


class WavePolicy(NullPolicy):
    """Moves every arm whose pose is measured up and down by 2 cm around where its episode began; a
    gripper keeps what is measured."""

    def __init__(self, contract: PolicyContract) -> None:
        super().__init__(contract)
        self._began: dict[str, dict[str, np.ndarray]] = {}
        self._steps: dict[str, int] = {}

    def reset(self, client: str, seed: int) -> None:
        self.forget(client)

    def forget(self, client: str) -> None:
        self._began.pop(client, None)
        self._steps.pop(client, None)

    def infer(
        self,
        requests: Sequence[tuple[str, Mapping[str, Any]]],
        absent: frozenset[str] = frozenset(),
    ) -> list[dict[str, np.ndarray]]:
        return [self._wave(client, seen["lowdim"]) for client, seen in requests]

    def _wave(self, client: str, measured: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        held = self._began.setdefault(client, {k: np.array(v) for k, v in measured.items()})
        step = self._steps.get(client, 0)
        self._steps[client] = step + self.contract.execute_steps
        chunk = dict(self._chunk)
        for name in chunk:
            origin = name.replace("robot__action__", "robot__actual__")
            if origin in held:
                chunk[name] = np.tile(held[origin], (self.contract.ahead, 1))
            if origin in held and self.contract.commands[name].quantity == "position":
                phase = 2 * np.pi * (step + 1 + np.arange(self.contract.ahead)) / _PERIOD
                chunk[name][:, 2] += _METRES * np.sin(phase)
        return chunk


def _rest(name: str, field: Any) -> np.ndarray:
    from foundry_core.data.robot.rotations import from_matrix

    if field.form is not None:
        return from_matrix(np.eye(3), field.form)
    return np.zeros(field.dims or 1)
