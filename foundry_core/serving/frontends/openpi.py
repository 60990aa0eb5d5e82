"""openpi's WebSocket protocol: the server speaks first, then one chunk per observation.

The client plays the chunk, so chunk options of the server (ensemble, delay) do not apply, and the
noise goes on from chunk to chunk of a connection. A map with `foundry/reset` begins an episode with
that seed; openpi's own clients never send one.
"""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.serving.frontends.base import FrontEnd

if TYPE_CHECKING:
    from foundry_core.serving.mapping import ServingMapping
    from foundry_core.serving.server import PolicyServer

RESET = "foundry/reset"
_ERROR = 1011
_MOST_SEED = (1 << 32) - 1


class OpenPi(FrontEnd):
    kind: Literal["openpi"] = "openpi"
    port: int = Field(8000, ge=0, le=65535, description="0: a free one")

    def check(self, server: "PolicyServer") -> None:
        if server.policy.history:
            raise FoundryError(
                f"the policy looks back {server.policy.history} steps, and openpi's clients show "
                "one observation per chunk",
                "serve it by --vla-eval or --lbm",
            )
        chunks = server.options.chunks
        if chunks.ensemble is not None or chunks.delay:
            raise FoundryError(
                "openpi's clients play chunks themselves: ensemble and delay cannot apply",
                "leave them out, or serve by --vla-eval or --lbm",
            )
        self._adapter(server)

    def serve(
        self,
        server: "PolicyServer",
        stop: threading.Event,
        ready: Callable[[int], None] = lambda port: None,
    ) -> None:
        from foundry_core.serving.frontends.announce import announcement
        from foundry_core.serving.frontends.websocket import serve_websocket
        from foundry_core.serving.wire.arrays import pack_openpi

        mapping, adapter = self._adapter(server)
        metadata = pack_openpi({"foundry": announcement(server, mapping)})

        async def handler(connection: Any, client: str) -> None:
            await connection.send(metadata)
            talk = _Talk(server, client, mapping, adapter)
            async for data in connection:
                try:
                    answer = await talk.infer(data)
                except Exception as error:
                    await talk.refuse(connection, error)
                    return
                await connection.send(answer)

        pages = {"/healthz": lambda: "OK\n", "/stats": server.stats}
        serve_websocket(self, server, handler, pages, stop, ready)

    def _adapter(self, server: "PolicyServer") -> "tuple[ServingMapping, Any]":
        from foundry_core.serving.mapping import served_as

        return served_as(
            server.contract,
            self.mapping,
            "openpi",
            images="observation/",
            fields="observation/",
            instruction="prompt",
        )


class _Talk:
    """One connection."""

    def __init__(
        self, server: "PolicyServer", client: str, mapping: "ServingMapping", adapter: Any
    ) -> None:
        self._server, self._client = server, client
        self._mapping, self._adapter = mapping, adapter
        self._before: float | None = None

    async def infer(self, data: bytes) -> bytes:
        from foundry_core.serving.frontends.websocket import answer_of
        from foundry_core.serving.wire.arrays import flat, pack_openpi, unpack_openpi

        begun = time.perf_counter()
        raw = flat(unpack_openpi(data))
        seed = _seed(raw.pop(RESET, None))
        if seed is not None or not self._server.knows(self._client):
            seed = self._server.options.seed if seed is None else seed
            self._server.reset(self._client, seed, self._adapter)
        observation = self._mapping.observation(raw)
        waiting = time.perf_counter()
        targets = await answer_of(self._server.chunk(self._client, observation))
        timing = {"infer_ms": 1e3 * (time.perf_counter() - waiting)}
        if self._before is not None:
            timing["prev_total_ms"] = 1e3 * self._before
        actions = self._mapping.actions(targets, observation["lowdim"])
        answer = pack_openpi({"actions": actions, "server_timing": timing})
        self._before = time.perf_counter() - begun
        return answer

    async def refuse(self, connection: Any, error: Exception) -> None:
        """The protocol's way: a text frame, then the end."""
        from foundry_core.serving.frontends.websocket import one_line

        text = one_line(error)
        self._server.complain(self._client, text)
        await connection.send(text)
        await connection.close(_ERROR, "the request failed")


def _seed(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_SEED:
        raise FoundryError(f"{RESET} = {value!r:.40} is no seed", f"0 to {_MOST_SEED}")
    return value


FRONTEND = OpenPi
