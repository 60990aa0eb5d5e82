"""A chunk in, one action per control step out."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from foundry_core.errors import FoundryError


class ChunkPolicy(Protocol):
    def reset(self, seed: int) -> None: ...

    def infer(self, observation: Mapping[str, Any]) -> np.ndarray: ...


class ChunkBroker:
    """Carries out the first `execute_steps` of every chunk, then asks with that step's observation:
    M steps of an episode take ceil(M / execute_steps) inferences, the first at its first step."""

    def __init__(self, policy: ChunkPolicy, execute_steps: int) -> None:
        if execute_steps < 1:
            raise FoundryError(f"execute_steps is {execute_steps}, at least 1")
        self._policy, self._execute = policy, execute_steps
        self._chunk: np.ndarray | None = None
        self._at = 0

    def reset(self, seed: int) -> None:
        """Begins an episode."""
        self._policy.reset(seed)
        self._chunk = None

    def step(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The action [D] of this step."""
        if self._chunk is None or self._at == self._execute:
            self._chunk, self._at = self._policy.infer(observation), 0
            if len(self._chunk) < self._execute:
                raise FoundryError(
                    f"the policy predicts {len(self._chunk)} steps, {self._execute} are to be "
                    "carried out",
                    "lower execute_steps",
                )
        self._at += 1
        action: np.ndarray = self._chunk[self._at - 1]
        return action
