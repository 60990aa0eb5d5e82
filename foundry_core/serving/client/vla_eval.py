"""A client of vla-eval's protocol, version 1: one action per observation."""

import time
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from foundry_core.errors import FoundryError
from foundry_core.serving.client.socket import ANSWER_SECONDS, Socket
from foundry_core.serving.wire.arrays import pack_vla_eval, unpack_vla_eval

_PROTOCOL = 1


class VlaEvalClient:
    """hello: what the server said of itself."""

    def __init__(
        self, host: str, port: int, *, token: str = "", seconds: float = ANSWER_SECONDS
    ) -> None:
        self._socket = Socket(host, port, token=token, seconds=seconds)
        self._seq = 0
        said = {"harness_version": "foundry", "protocol_version": _PROTOCOL}
        self.hello = self._ask("hello", said)
        theirs = self.hello.get("protocol_version")
        if theirs != _PROTOCOL:
            raise FoundryError(
                f"the server speaks protocol_version {theirs}, this client {_PROTOCOL}"
            )

    def start(self, task: Mapping[str, Any], seed: int | None = None) -> None:
        """Begins an episode. seed: for servers of ours, in place of one that the task gives."""
        own = {} if seed is None else {"foundry/seed": seed}
        self._send("episode_start", {"task": dict(task), **own})

    def act(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The action [D] of this control step; some servers answer with several, [K, D]."""
        answer = self._ask("observation", observation)
        return np.asarray(answer.get("actions", answer.get("action")), np.float64)

    def end(self) -> None:
        """Ends the episode."""
        self._send("episode_end", {})

    def close(self) -> None:
        self._socket.close()

    def _send(self, kind: str, payload: Mapping[str, Any]) -> int:
        self._seq += 1
        message = {"type": kind, "payload": payload, "seq": self._seq, "timestamp": time.time()}
        self._socket.send(pack_vla_eval(message))
        return self._seq

    def _ask(self, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to this message; FoundryError with the server's words where it failed."""
        seq = self._send(kind, payload)
        while True:
            message = unpack_vla_eval(self._socket.receive())
            answer = message.get("payload")
            if message.get("type") == "error":
                raise FoundryError(f"the server says: {answer}")
            if message.get("seq") == seq and isinstance(answer, dict):
                return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
