"""What a serving front-end is. Torch-free: `--help` and planning read it."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from foundry_core.pipeline.stage import Config

if TYPE_CHECKING:
    from foundry_core.serving.server import PolicyServer

LOOPBACK = "127.0.0.1"


class FrontEnd(Config):
    """Base of every front-end's config, chosen by `kind`. mapping: what its keys mean, a ready
    serving mapping or a YAML file; "": by their own names. token: what clients must show; "":
    nothing."""

    kind: str
    host: str = Field(LOOPBACK, description="address to listen on; by default this machine's")
    port: int = Field(ge=0, le=65535, description="0: a free one")
    mapping: str = Field(
        "",
        description="what a client's keys mean: a ready serving mapping or a YAML file; empty: by "
        "their own names",
    )
    token: str = Field("", repr=False, description="what clients must show; empty: nothing")

    def check(self, server: "PolicyServer") -> None:
        """FoundryError, before any socket is opened, where the policy cannot be served so."""

    def serve(
        self,
        server: "PolicyServer",
        stop: threading.Event,
        ready: Callable[[int], None] = lambda port: None,
    ) -> None:
        """Answers requests until `stop` is set, then closes its socket and returns. ready: told the
        port once clients can come. Imports here what the protocol needs."""
        raise NotImplementedError
