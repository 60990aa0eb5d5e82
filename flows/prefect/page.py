"""What a run shows on its page in Prefect's UI: Markdown, links, and the progress of a long stage,
which the coordinator of a training on another machine shows its user.

Markdown and links only where a server is configured: a temporary one is gone before anybody could
look. A server that does not answer costs the display, never the run.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectHTTPStatusError

from flows.prefect.api import configured
from flows.terminal import values_text

_LOG = logging.getLogger(__name__)
_AWAY = (httpx.TransportError, PrefectHTTPStatusError)
_EVERY_SECONDS = 3.0


def show_markdown(key: str, title: str, text: str) -> None:
    """key: lower-case letters, digits and dashes."""
    publish(create_markdown_artifact, markdown=text, key=key, description=title)


def show_link(key: str, link: str, text: str, title: str) -> None:
    publish(create_link_artifact, link=link, link_text=text, key=key, description=title)


def publish(create: Callable[..., Any], **content: Any) -> None:
    """Calls one of Prefect's functions that create artifacts, where somebody may see the result."""
    if not configured():
        return
    try:
        create(**content)
    except _AWAY as error:
        _LOG.warning("%s is not shown: %s", content["key"], error)


def artifact_key(text: str) -> str:
    """Lower-case letters, digits and dashes, as Prefect wants keys."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


class ProgressReport:
    """A stage's bar and its numbers, published inside a flow run at most once in 3 s."""

    def __init__(self, stage: str) -> None:
        self._key, self._stage = artifact_key(f"progress-{stage}"), stage
        self._artifact: UUID | None = None
        self._next = 0.0

    def publish(self, state: Mapping[str, Any], *, last: bool = False) -> None:
        """last: shown whenever it comes."""
        now = time.monotonic()
        if now < self._next and not last:
            return
        self._next = now + _EVERY_SECONDS
        done, total = state.get("done", 0), state.get("total", 0)
        percent = max(0.0, min(100.0, 100.0 * done / (total or 1)))
        parts = (
            self._stage,
            f"{done:g} of {total:g}",
            state.get("message", ""),
            *values_text(state),
        )
        text = " · ".join(part for part in parts if part)
        try:
            if self._artifact is None:
                created = create_progress_artifact(percent, key=self._key, description=text)
                self._artifact = cast(UUID, created)  # a coroutine only inside an event loop
            else:
                update_progress_artifact(self._artifact, percent, text)
        except _AWAY as error:
            self._next = now + 10 * _EVERY_SECONDS
            _LOG.warning("progress is not shown: %s", error)
