"""A policy that somebody else serves, as a rollout drives it: an openpi checkpoint or one behind
vla-eval's protocol meets our exams like ours.

Under vla-eval's protocol the server owns the chunk: one action per observation. A server of ours
says what its fields mean; of anybody else's a serving mapping does.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from foundry_core.config.validation import validate
from foundry_core.data.contract.statements import DataContract, PolicyContract
from foundry_core.errors import FoundryError
from foundry_core.serving.client import OpenPiClient, VlaEvalClient
from foundry_core.serving.mapping import ServingMapping, load_serving_mapping, plain

_OPEN = 64
"""Episodes of vla-eval that are open at a time; each has a connection of its own."""
_PREFIXES = {
    "openpi": {"images": "observation/", "fields": "observation/", "instruction": "prompt"},
    "vla_eval": {"images": "images/", "fields": "states/", "instruction": "task_description"},
}


class _Line(Protocol):
    """How one protocol is asked. said: what the server announced, {} of one that is not ours."""

    said: Mapping[str, Any]

    def reset(self, client: str, seed: int) -> None: ...

    def ask(self, client: str, raw: Mapping[str, Any]) -> np.ndarray: ...

    def forget(self, client: str) -> None: ...

    def close(self) -> None: ...


class RemotePolicy:
    """A PolicyProtocol. address: host:port. mapping: a serving mapping's name or file; "": as a
    server of ours says. execute_steps: of a chunk, default what the server says.

    FoundryError where nobody answers, or nothing says what its numbers mean."""

    history = 0

    def __init__(
        self,
        protocol: str,
        address: str,
        *,
        mapping: str = "",
        execute_steps: int | None = None,
        token: str = "",
    ) -> None:
        if protocol not in _PREFIXES:
            raise FoundryError(f"policies are asked by {', '.join(_PREFIXES)}, not {protocol!r}")
        host, port = _host_port(address)
        self._line: _Line = (
            _OpenPi(host, port, token) if protocol == "openpi" else _VlaEval(host, port, token)
        )
        self._mapping, self.contract = _meanings(protocol, mapping, self._line.said, address)
        steps = execute_steps or self.contract.execute_steps
        self.execute_steps = steps if protocol == "openpi" else 1
        self.hz = self.contract.hz
        self.cameras = tuple(self.contract.cameras)
        self.reads_words = bool(self._line.said.get("reads_words", True))

    def reset(self, client: str, seed: int) -> None:
        """Begins an episode of a client."""
        self._line.reset(client, seed)

    def forget(self, client: str) -> None:
        """Drops a client that is gone."""
        self._line.forget(client)

    def infer(
        self,
        requests: Sequence[tuple[str, Mapping[str, Any]]],
        absent: frozenset[str] = frozenset(),
    ) -> list[dict[str, np.ndarray]]:
        """{field: [K, D]} absolute for each, one after another."""
        return [self._one(client, observation) for client, observation in requests]

    def close(self) -> None:
        self._line.close()

    def _one(self, client: str, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        raw = self._mapping.raw_observation(observation)
        actions = np.atleast_2d(self._line.ask(client, raw))
        return self._mapping.targets(actions, observation["lowdim"])


class _OpenPi:
    """One connection: what it is asked does not depend on what it was asked before, but for the
    seeds of ours."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._client = OpenPiClient(host, port, token=token)
        self._place, self._clients = (host, port, token), OrderedDict[str, OpenPiClient]()
        self.said: Mapping[str, Any] = self._client.metadata.get("foundry", {})

    def reset(self, client: str, seed: int) -> None:
        if self.said:
            host, port, token = self._place
            connection = OpenPiClient(host, port, token=token)
            connection.reset(seed)
            _keep(self._clients, client, connection)

    def ask(self, client: str, raw: Mapping[str, Any]) -> np.ndarray:
        return self._clients.get(client, self._client).infer(raw)

    def forget(self, client: str) -> None:
        _drop(self._clients, client)

    def close(self) -> None:
        for one in (self._client, *self._clients.values()):
            one.close()


class _VlaEval:
    def __init__(self, host: str, port: int, token: str) -> None:
        self._place, self._clients = (host, port, token), OrderedDict[str, VlaEvalClient]()
        with VlaEvalClient(host, port, token=token) as first:
            self.said: Mapping[str, Any] = first.hello.get("foundry", {})

    def reset(self, client: str, seed: int) -> None:
        host, port, token = self._place
        connection = VlaEvalClient(host, port, token=token)
        connection.start({"name": client, "seed": seed}, seed=seed)
        _keep(self._clients, client, connection)

    def ask(self, client: str, raw: Mapping[str, Any]) -> np.ndarray:
        return self._clients[client].act(_nested(raw))

    def forget(self, client: str) -> None:
        _drop(self._clients, client)

    def close(self) -> None:
        for one in self._clients.values():
            one.close()


def _keep(clients: "OrderedDict[str, Any]", client: str, connection: Any) -> None:
    """The newest connections; an episode that is over says so to nobody."""
    _drop(clients, client)
    clients[client] = connection
    while len(clients) > _OPEN:
        clients.popitem(last=False)[1].close()


def _drop(clients: "OrderedDict[str, Any]", client: str) -> None:
    before = clients.pop(client, None)
    if before is not None:
        before.close()


def _nested(raw: Mapping[str, Any]) -> dict[str, Any]:
    """{"images/a": x} → {"images": {"a": x}}."""
    found: dict[str, Any] = {}
    for name, value in raw.items():
        first, slash, rest = name.partition("/")
        if slash:
            found.setdefault(first, {})[rest] = value
        else:
            found[name] = value
    return found


def _meanings(
    protocol: str, mapping: str, said: Mapping[str, Any], address: str
) -> tuple[ServingMapping, PolicyContract]:
    stated: PolicyContract | None = None
    if said:
        stated = validate(PolicyContract, said.get("contract"), f"the contract of {address}")
    if mapping:
        found = load_serving_mapping(mapping, protocol)
        return found, stated if stated is not None else _foreign(found)
    if stated is None:
        raise FoundryError(
            f"the policy at {address} does not say what its numbers mean",
            "name a serving mapping, e.g. --mapping libero",
        )
    stated = _in_order(stated, said.get("actions", ()))
    return plain(stated, **_PREFIXES[protocol]), stated


def _in_order(stated: PolicyContract, actions: Any) -> PolicyContract:
    """With its commands as the server lays them out in an action, where it says so of all. actions:
    whatever it sent."""
    parts = actions if isinstance(actions, list | tuple) else ()
    laid_out = [str(one.get("field")) for one in parts if isinstance(one, Mapping)]
    if sorted(laid_out) != sorted(stated.commands):
        return stated
    return stated.ordered(stated.cameras, stated.observes, laid_out)


def _foreign(mapping: ServingMapping) -> PolicyContract:
    """Of a policy that states nothing: what the mapping says of it."""
    exam = mapping.exam(DataContract())
    return PolicyContract(
        hz=exam.hz,
        cameras=exam.cameras,
        observes=exam.observes,
        commands=exam.commands,
        ahead=mapping.execute_steps,
        execute_steps=mapping.execute_steps,
    )


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise FoundryError(f"{address!r} is no address", "host:port, e.g. 127.0.0.1:8000")
    return host, int(port)
