"""A client of openpi's protocol."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from foundry_core.errors import FoundryError
from foundry_core.serving.client.socket import ANSWER_SECONDS, Socket
from foundry_core.serving.wire.arrays import pack_openpi, unpack_openpi

RESET = "foundry/reset"


class OpenPiClient:
    """metadata: what the server said of itself; `foundry` in it is our servers' announcement."""

    def __init__(
        self, host: str, port: int, *, token: str = "", seconds: float = ANSWER_SECONDS
    ) -> None:
        self._socket = Socket(host, port, token=token, seconds=seconds)
        self.metadata = unpack_openpi(self._socket.receive())
        self._seed: int | None = None

    def reset(self, seed: int) -> None:
        """Begins an episode; a server that is not ours knows no episodes and hears nothing."""
        self._seed = seed if "foundry" in self.metadata else None

    def infer(self, observation: Mapping[str, Any]) -> np.ndarray:
        """A chunk of actions [K, D]."""
        if self._seed is not None:
            observation, self._seed = {**observation, RESET: self._seed}, None
        self._socket.send(pack_openpi(observation))
        answer = unpack_openpi(self._socket.receive())
        actions = answer.get("actions")
        if not isinstance(actions, np.ndarray) or actions.ndim != 2:
            raise FoundryError("the server's answer has no `actions` [K, D]")
        return actions

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
