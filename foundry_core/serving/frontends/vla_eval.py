"""vla-eval's WebSocket protocol, version 1: one action per observation, the server owns the chunk.

A client's episode lives with its connection. The seed of an episode is a function of the server's
seed and of what the client says of the task, so that it does not matter which worker plays it when.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from foundry_core import __version__
from foundry_core.errors import FoundryError
from foundry_core.files import sha256_hex
from foundry_core.serving.frontends.base import FrontEnd

if TYPE_CHECKING:
    from foundry_core.serving.mapping import ServingMapping
    from foundry_core.serving.server import PolicyServer

PROTOCOL = 1
SEED = "foundry/seed"
_LIVE = ("live", "realtime")
_CODED = b"__image__"


class VlaEval(FrontEnd):
    kind: Literal["vla_eval"] = "vla_eval"
    port: int = Field(8000, ge=0, le=65535, description="0: a free one")

    def check(self, server: "PolicyServer") -> None:
        self._adapter(server)

    def serve(
        self,
        server: "PolicyServer",
        stop: threading.Event,
        ready: Callable[[int], None] = lambda port: None,
    ) -> None:
        from foundry_core.serving.frontends.announce import announcement, specs
        from foundry_core.serving.frontends.websocket import serve_websocket

        mapping, adapter = self._adapter(server)
        said = announcement(server, mapping)
        hello = {
            "harness_version": __version__,
            "protocol_version": PROTOCOL,
            "model_server": server.name,
            "capabilities": {},
            **specs(server, mapping),
            **({"observation_params": dict(mapping.asks)} if mapping.asks else {}),
            "foundry": said,
        }

        async def handler(connection: Any, client: str) -> None:
            talk = _Talk(server, client, mapping, adapter, hello, connection)
            try:
                async for data in connection:
                    await talk.take(data)
            finally:
                talk.close()

        pages = {
            "/health": lambda: {"status": "ok"},
            "/config": lambda: {"config": said, "stats": server.stats()},
        }
        serve_websocket(self, server, handler, pages, stop, ready)

    def _adapter(self, server: "PolicyServer") -> "tuple[ServingMapping, Any]":
        from foundry_core.serving.mapping import served_as

        return served_as(
            server.contract,
            self.mapping,
            self.kind,
            images="images/",
            fields="states/",
            instruction="task_description",
        )


class _Talk:
    """One connection. Observations are answered in a task of their own, so that another one that
    comes meanwhile is seen: refused, or, in live mode, the next to be answered."""

    def __init__(
        self,
        server: "PolicyServer",
        client: str,
        mapping: "ServingMapping",
        adapter: Any,
        hello: Mapping[str, Any],
        connection: Any,
    ) -> None:
        self._server, self._client, self._connection = server, client, connection
        self._mapping, self._adapter, self._hello = mapping, adapter, hello
        self._live = False
        self._at_work: asyncio.Task[None] | None = None
        self._newest: tuple[int, Mapping[str, Any]] | None = None

    def close(self) -> None:
        if self._at_work is not None:
            self._at_work.cancel()

    async def take(self, data: bytes) -> None:
        """One message of the client; a mistake is answered and harms nothing."""
        seq = 0
        try:
            message = await _unpacked(data)
            kind, payload, seq = _checked(message)
            await self._dispatch(kind, payload, seq)
        except Exception as error:
            await self._refuse(seq, "message_failed", error)

    async def _dispatch(self, kind: str, payload: Mapping[str, Any], seq: int) -> None:
        if kind == "hello":
            theirs = payload.get("protocol_version", PROTOCOL)
            if theirs != PROTOCOL:
                raise FoundryError(
                    f"the client speaks protocol_version {theirs!r:.20}, this server {PROTOCOL}"
                )
            await self._send("hello", self._hello, seq)
        elif kind == "episode_start":
            self._live = payload.get("mode") in _LIVE
            self._newest = None
            seed = episode_seed(self._server.options.seed, payload)
            self._server.reset(self._client, seed, self._adapter)
        elif kind == "observation":
            await self._observe(seq, payload)
        elif kind == "episode_end":
            self._server.forget(self._client)
        elif kind != "error":
            raise FoundryError(f"a message of type {kind!r:.40} is unknown")

    async def _observe(self, seq: int, payload: Mapping[str, Any]) -> None:
        if self._at_work is None or self._at_work.done():
            self._at_work = asyncio.create_task(self._answer(seq, payload))
        elif self._live:
            self._newest = (seq, payload)
        else:
            error = FoundryError(
                f"an observation of client {self._client!r} is in flight, and another one came",
                "wait for the action, or begin the episode in live mode",
            )
            await self._refuse(seq, "observation_failed", error)

    async def _answer(self, seq: int, payload: Mapping[str, Any]) -> None:
        while True:
            try:
                await self._send("action", await self._action(payload), seq)
            except Exception as error:
                await self._refuse(seq, "observation_failed", error)
            if self._newest is None:
                return
            (seq, payload), self._newest = self._newest, None

    async def _action(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        from foundry_core.serving.frontends.websocket import answer_of
        from foundry_core.serving.wire.arrays import flat

        observation = self._mapping.observation(flat(payload))
        targets = await answer_of(self._server.step(self._client, observation))
        chunk = {name: value[None] for name, value in targets.items()}
        return {"actions": self._mapping.actions(chunk, observation["lowdim"])[0]}

    async def _refuse(self, seq: int, what: str, error: Exception) -> None:
        from websockets.exceptions import ConnectionClosed

        from foundry_core.serving.frontends.websocket import one_line

        if isinstance(error, ConnectionClosed):
            return
        text = one_line(error)
        self._server.complain(self._client, text)
        await self._send("error", {"error": f"{what}: {text}"}, seq)

    async def _send(self, kind: str, payload: Mapping[str, Any], seq: int) -> None:
        from foundry_core.serving.wire.arrays import pack_vla_eval

        message = {"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}
        await self._connection.send(pack_vla_eval(message))


def episode_seed(seed: int, payload: Mapping[str, Any]) -> int:
    """uint32 of the server's seed and of the task that the client names; what only records the
    episode does not count. A client of ours may say it itself."""
    own = payload.get(SEED)
    if isinstance(own, int) and 0 <= own < 1 << 32:
        return own
    task = {name: value for name, value in payload.items() if name not in ("recording", "mode")}
    text = json.dumps(task, sort_keys=True, default=str)
    return int(sha256_hex(f"{seed}:{text}")[:8], 16)


async def _unpacked(data: bytes) -> dict[str, Any]:
    from foundry_core.serving.wire.arrays import unpack_vla_eval

    if isinstance(data, bytes) and _CODED in data:
        # Coded pictures take milliseconds, in libraries that let others work meanwhile.
        return await asyncio.to_thread(unpack_vla_eval, data)
    return unpack_vla_eval(data)


def _checked(message: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], int]:
    """(type, payload, seq) of a message."""
    missing = [name for name in ("type", "payload", "seq") if name not in message]
    if missing:
        raise FoundryError(f"a message without {', '.join(missing)}", "type, payload, seq")
    kind, payload, seq = message["type"], message["payload"], message["seq"]
    if not isinstance(kind, str) or not isinstance(payload, Mapping) or not isinstance(seq, int):
        raise FoundryError(
            f"a message of type {type(kind).__name__}, payload {type(payload).__name__}, seq "
            f"{type(seq).__name__}",
            "text, map, int",
        )
    return kind, payload, seq


FRONTEND = VlaEval
