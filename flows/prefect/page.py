"""What a run shows on its page in Prefect's UI: Markdown and links.

Only where a server is configured: a temporary one is gone before anybody could look. A server that
does not answer costs the display, never the run.
"""

import logging
from collections.abc import Callable
from typing import Any

import httpx
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.exceptions import PrefectHTTPStatusError

from flows.prefect.api import configured

_LOG = logging.getLogger(__name__)


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
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        _LOG.warning("%s is not shown: %s", content["key"], error)
