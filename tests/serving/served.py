"""A policy whose chunks can be foretold, and front-ends that serve for the length of a block."""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import PolicyContract
from foundry_core.errors import FoundryError
from foundry_core.serving.adapted import Adapter
from foundry_core.serving.checks import own_exam
from foundry_core.serving.options import ChunkOptions, ServingOptions
from foundry_core.serving.server import PolicyServer

SEEN, TOLD = "robot__actual__line", "robot__action__line"
HORIZON = 8


class Foretold:
    """Target k of a client's plan p is 1000 · seed + 100 · p + k. What it observes as
    666 fails, what it observes as 667 it answers with NaN."""

    history = 0

    def __init__(self, execute_steps: int = 4, history: int = 0) -> None:
        gripper = FieldContract(dims=1, quantity="gripper", closed=0, open=1)
        self.contract = PolicyContract(
            hz=10,
            cameras={},
            observes={SEEN: FieldContract(dims=1)},
            commands={TOLD: FieldContract(dims=1), "grip": gripper},
            ahead=HORIZON,
            execute_steps=execute_steps,
        )
        self.history = history
        self.clients: dict[str, list[int]] = {}
        self.batches: list[int] = []
        self.observed: list[float] = []
        self.pasts: list[list[float]] = []
        self.threads: set[str] = set()
        self.gate: threading.Event | None = None

    def reset(self, client: str, seed: int) -> None:
        self.clients[client] = [seed, 0]

    def forget(self, client: str) -> None:
        self.clients.pop(client, None)

    def infer(self, requests, absent=frozenset()):
        if self.gate is not None:
            self.gate.wait(10)
        self.threads.add(threading.current_thread().name)
        values = [float(seen["lowdim"][SEEN][0]) for _, seen in requests]
        if 666.0 in values:
            raise FoundryError("the number of the beast")
        self.batches.append(len(requests))
        self.observed += values
        self.pasts += [
            [float(past["lowdim"][SEEN][0]) for past in seen.get("history", ())]
            for _, seen in requests
        ]
        return [self._chunk(client, v) for (client, _), v in zip(requests, values, strict=True)]

    def _chunk(self, client: str, value: float):
        seed, plan = self.clients[client]
        self.clients[client][1] += 1
        steps = 1000.0 * seed + 100.0 * plan + np.arange(HORIZON)
        if value == 667.0:
            steps = steps * np.nan
        return {TOLD: steps[:, None], "grip": np.full((HORIZON, 1), value % 1)}


def observed(value: float) -> dict:
    return {"images": {}, "lowdim": {SEEN: np.array([value])}, "instruction": "go"}


def adapter_of(policy) -> Adapter:
    return Adapter(policy.contract, own_exam(policy.contract), "a test")


@contextlib.contextmanager
def server_of(policy, **options) -> Iterator[PolicyServer]:
    chunks = ChunkOptions(**options.pop("chunks", {}))
    said: list[str] = []
    server = PolicyServer(
        policy, "tested", ServingOptions(chunks=chunks, **options), say=said.append
    )
    server.said = said
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def serving(front, server) -> Iterator[int]:
    """The port on which the front-end serves during the block."""
    stop, ready, ports, errors = threading.Event(), threading.Event(), [], []

    def run() -> None:
        try:
            front.check(server)
            front.serve(server, stop, lambda port: (ports.append(port), ready.set()))
        except Exception as error:
            errors.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        if errors:
            raise errors[0]
        yield ports[0]
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
