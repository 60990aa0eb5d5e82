"""Progress of a long stage as a Prefect progress artifact: a bar and its numbers on the run's page,
and what the coordinator of a training on another machine shows its user."""

import logging
import time
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectHTTPStatusError

_LOG = logging.getLogger(__name__)
_EVERY_SECONDS = 3.0


def progress_key(key: str) -> str:
    return f"progress-{key[:20]}"


def percent(state: Mapping[str, Any]) -> float:
    return max(0.0, min(100.0, 100.0 * state.get("done", 0) / (state.get("total") or 1)))


def describe(state: Mapping[str, Any]) -> str:
    """Message and values (loss, learning rate, ...) in one line."""
    values = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in state.get("values", {}).items()
    )
    parts = [f"{state.get('done', 0):g} of {state.get('total', 0):g}", state.get("message", "")]
    return " · ".join(part for part in (*parts, *values) if part)


def read_progress(data: Any, description: str | None) -> dict[str, Any]:
    """An artifact's content as an observer takes it."""
    return {"done": float(data or 0.0), "total": 100.0, "message": description or ""}


class ProgressReport:
    """Publishes states inside a flow run, at most one in 3 s. A server that is away costs the
    display, not the training."""

    def __init__(self, key: str) -> None:
        self._key = progress_key(key)
        self._artifact: UUID | None = None
        self._next = 0.0

    def publish(self, state: Mapping[str, Any], *, last: bool = False) -> None:
        """last: shown whenever it comes."""
        now = time.monotonic()
        if now < self._next and not last:
            return
        self._next = now + _EVERY_SECONDS
        try:
            if self._artifact is None:
                created = create_progress_artifact(
                    percent(state), key=self._key, description=describe(state)
                )
                self._artifact = cast(UUID, created)  # a coroutine only inside an event loop
            else:
                update_progress_artifact(self._artifact, percent(state), describe(state))
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            self._next = now + 10 * _EVERY_SECONDS
            _LOG.warning("progress is not shown: %s", error)
