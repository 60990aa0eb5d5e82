"""What a serving front-end is. Torch-free: `--help` and planning read it."""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from foundry_core.pipeline.stage import Config

if TYPE_CHECKING:
    from foundry_core.serving.policy import Policy


class FrontEnd(Config):
    """Base of every front-end's config, chosen by `kind`."""

    kind: str
    host: str = Field("127.0.0.1", description="address to listen on; by default this machine's")
    port: int = Field(ge=0, le=65535, description="0: a free one")

    def serve(self, policies: "Mapping[str, Policy]", stop: threading.Event) -> None:
        """Answers requests for policies by name until `stop` is set, then closes its socket and
        returns. Imports here what the protocol needs."""
        raise NotImplementedError
