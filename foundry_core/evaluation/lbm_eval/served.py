"""A policy behind LBM Eval's protocol for as long as an evaluation lasts, and what it got wrong."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from foundry_core.data.contract.matching import match
from foundry_core.data.contract.statements import ExamContract
from foundry_core.errors import FoundryError
from foundry_core.serving.frontends.lbm import Lbm
from foundry_core.serving.options import ChunkOptions, ServingOptions
from foundry_core.serving.running import Running
from foundry_core.serving.server import PolicyServer, ServedPolicy

_MANY = 4096
"""LBM Eval's clients do not say when they are done; those of an hour may be known at a time."""
_IDLE_SECONDS = 3600.0


class ServedForLbm:
    """Serves inside the block. FoundryError where the policy does not fit LBM Eval.

    uri: where LBM Eval finds it.
    """

    def __init__(
        self, policy: ServedPolicy, exam: ExamContract, seed: int, execute_steps: int | None
    ) -> None:
        match(policy.contract, exam, "the policy", "LBM Eval")
        self._watched = _Watched(policy, seed)
        self._refusals: list[str] = []
        self._options = ServingOptions(
            chunks=ChunkOptions(execute_steps=execute_steps),
            max_clients=_MANY,
            idle_seconds=_IDLE_SECONDS,
        )

    def __enter__(self) -> Self:
        self._server = PolicyServer(
            self._watched, "evaluated", self._options, say=self._refusals.append
        )
        self._stop, front = threading.Event(), Lbm(port=0)
        try:
            front.check(self._server)
            self._server.warm_up()
            self._running = Running(front, self._server, self._stop, threading.Event())
            self._running.start()
            self._running.wait_ready()
        except BaseException:
            self._server.stop()
            raise
        self.uri = f"{front.host}:{self._running.port}"
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._running.join()
        self._server.stop()

    @property
    def asked(self) -> int:
        """Observations that came so far."""
        return int(self._server.stats()["observations"])

    def check(self) -> None:
        """Raises what the policy raised; FoundryError where LBM Eval's observations are such that
        the policy cannot take any."""
        if self._watched.error is not None:
            raise self._watched.error
        if self._refusals and not self._server.stats()["inferences"]:
            raise FoundryError(
                f"the policy cannot take what LBM Eval shows: {self._refusals[0]}",
                "train on data of LBM Eval's form",
            )

    def wrong(self, message: str) -> str | None:
        """What the policy commanded that cannot be carried out, in the episode of this traceback;
        None where it is not to blame."""
        return next(
            (why for client, why in list(self._watched.wrong.items()) if client in message), None
        )


class _Watched:
    """The policy, its noise by the evaluation's seed and LBM Eval's. error: the first that it
    raised; wrong: client → what it commanded that is no number."""

    def __init__(self, policy: ServedPolicy, seed: int) -> None:
        self._policy, self._seed = policy, seed
        self.contract, self.history = policy.contract, policy.history
        self.error: Exception | None = None
        self.wrong: dict[str, str] = {}

    def reset(self, client: str, seed: int) -> None:
        mixed = np.random.SeedSequence([self._seed, seed]).generate_state(1)
        self._policy.reset(client, int(mixed[0]))

    def forget(self, client: str) -> None:
        self._policy.forget(client)

    def infer(
        self,
        requests: Sequence[tuple[str, Mapping[str, Any]]],
        absent: frozenset[str] = frozenset(),
    ) -> list[dict[str, np.ndarray]]:
        try:
            chunks = self._policy.infer(requests, absent)
        except Exception as error:
            self.error = self.error or error
            raise
        for (client, _), chunk in zip(requests, chunks, strict=True):
            for name, values in chunk.items():
                if not np.isfinite(values).all():
                    # lbm/<uuid>#<episode>, as the server calls it.
                    uuid = client.rpartition("#")[0].rpartition("/")[2]
                    self.wrong.setdefault(uuid, f"target {name!r} is not finite")
        return chunks
