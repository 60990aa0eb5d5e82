"""A WebSocket to a policy server, with errors of one line."""

from typing import Any

from foundry_core.errors import FoundryError

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120.0


class Socket:
    """Connects at once. token: what a server beyond loopback asks for. seconds: how long an answer
    may take."""

    def __init__(
        self, host: str, port: int, *, token: str = "", seconds: float = ANSWER_SECONDS
    ) -> None:
        from websockets.exceptions import InvalidStatus
        from websockets.sync.client import connect

        self._address, self._seconds = f"{host}:{port}", seconds
        headers = {"Authorization": f"Api-Key {token}"} if token else None
        try:
            self._socket = connect(
                f"ws://{host}:{port}",
                compression=None,
                max_size=None,
                ping_interval=None,
                open_timeout=CONNECT_SECONDS,
                additional_headers=headers,
                proxy=None,
            )
        except InvalidStatus as refused:
            text = refused.response.body.decode("utf-8", "replace").strip()
            status = refused.response.status_code
            raise FoundryError(f"{self._address} refuses: {status} {text}") from None
        except (OSError, TimeoutError) as error:
            raise FoundryError(
                f"no policy server answers at {self._address}: {error}",
                "start it, or mend the port",
            ) from None

    def send(self, data: bytes) -> None:
        self._call(self._socket.send, data)

    def receive(self) -> bytes:
        """The next binary message; FoundryError for a text, which tells of an error."""
        data = self._call(self._socket.recv, self._seconds)
        if isinstance(data, str):
            raise FoundryError(f"{self._address}: {data.strip().splitlines()[-1]}")
        return bytes(data)

    def close(self) -> None:
        self._socket.close()

    def _call(self, function: Any, *arguments: Any) -> Any:
        from websockets.exceptions import ConnectionClosed

        try:
            return function(*arguments)
        except ConnectionClosed as closed:
            reason = closed.rcvd.reason if closed.rcvd is not None else "the connection is lost"
            raise FoundryError(f"{self._address} closed the connection: {reason}") from None
        except TimeoutError:
            raise FoundryError(f"{self._address} has not answered in {self._seconds:g} s") from None
