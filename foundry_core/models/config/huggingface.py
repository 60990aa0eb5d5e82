"""What every part that transformers builds has in common."""

from typing import Any

from pydantic import Field, model_validator

from foundry_core.config.canonical import Location
from foundry_core.identity.sources import is_remote
from foundry_core.pipeline.stage import Config


class HFConfig(Config):
    """Base of what transformers builds: pretrained, from the hub or a folder, or random.

    After loading, `config` holds the resolved transformers config and `origin` the hub name, so
    that a saved model needs neither hub nor folder again. A folder leaves no trace there: where
    it lay must not change the bytes of what was trained on it.
    """

    kind: str
    source: str | None = Field(
        None, description="hub name; what begins with '/', '.' or '~' is taken as `path`"
    )
    revision: str | None = Field(None, description="commit of the hub; training asks for one")
    path: Location[str | None] = Field(
        None, description="folder of config.json and safetensors; identified by content"
    )
    config: dict[str, Any] | None = Field(None, description="architecture, for random weights")
    origin: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _folder_as_path(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("path") is not None:
            return values
        source = values.get("source")
        if isinstance(source, str) and source.startswith(("/", ".", "~")):
            return {**values, "source": None, "path": source}
        return values

    @model_validator(mode="after")
    def _one_source(self) -> "HFConfig":
        given = [x for x in (self.source, self.path, self.config) if x is not None]
        if len(given) != 1:
            raise ValueError(
                "give either source (hub name), path (folder) or config (random weights)"
            )
        if self.path is not None and self.revision is not None:
            raise ValueError("revision belongs to a hub name: a folder is what it contains")
        if is_remote(self.source or self.path or ""):
            raise ValueError("weights load from the hub or a local folder: download these first")
        return self
