"""What identifies the pretrained weights that a model config names. Torch-free: planning asks."""

import re
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.identity.sources import fingerprint
from foundry_core.models.config import HFConfig
from foundry_core.pipeline.stage import Config

_COMMIT = re.compile(r"[0-9a-f]{40}")


def weight_sources(model: Config, where: str = "model") -> dict[str, str]:
    """Dotted path in the recipe → content identity of each folder of weights.

    A hub name is identified by its commit, which is in the recipe: one without raises
    FoundryError, since the weights would change under an unchanged key.
    """
    if isinstance(model, HFConfig):
        if model.path is not None:
            return {where: fingerprint(model.path)}
        if model.source is not None:
            _check_pinned(model.source, model.revision, where)
        return {}
    parts = {name: getattr(model, name) for name in type(model).model_fields}
    return {
        found: identity
        for name, part in parts.items()
        if isinstance(part, Config)
        for found, identity in weight_sources(part, f"{where}.{name}").items()
    }


def _check_pinned(source: str, revision: str | None, where: str) -> None:
    # Transformers would load it, whatever the revision says.
    if Path(source).is_dir():
        raise FoundryError(
            f"{where}.source = {source!r} is a folder here, and a hub name elsewhere",
            f"give the folder as {where}.path",
        )
    if not _COMMIT.fullmatch(revision or ""):
        raise FoundryError(
            f"{where}.source = {source!r} has revision {revision or 'null'}, which may mean other "
            "weights tomorrow: a commit hash of 40 hex digits is needed",
            f"set {where}.revision to the commit (https://huggingface.co/{source}/commits), or "
            f"{where}.source to a folder of the weights",
        )
