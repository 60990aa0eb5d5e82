"""Transformers modules by name, directory or config; without remote code, from safetensors."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFConfig
from foundry_core.models.huggingface.checkpoint import local_folder

C = TypeVar("C", bound=HFConfig)
_VOLATILE = ("transformers_version", "_name_or_path", "architectures", "dtype")


def load_or_build(auto_class: Any, config: HFConfig) -> PreTrainedModel:
    """float32 module of auto_class: pretrained weights with `source` or `path`, random ones with
    `config`."""
    if config.config is None:
        return _load(auto_class, config)
    return _build(auto_class, config.kind, config.config)


def _build(auto_class: Any, kind: str, architecture: Mapping[str, Any]) -> PreTrainedModel:
    settings = dict(architecture)
    model_type = settings.pop("model_type", None)
    if model_type is None:
        raise FoundryError(f"{kind}.config has no model_type", "e.g. {model_type: llama, ...}")
    try:
        resolved = AutoConfig.for_model(model_type, **settings)
    except (ValueError, TypeError) as error:
        raise FoundryError(f"{kind}.config: {error}") from error
    with quiet():
        return auto_class.from_config(_without_pooling(resolved), dtype=torch.float32)


def _load(auto_class: Any, config: HFConfig) -> PreTrainedModel:
    folder = str(local_folder(config))
    try:
        with quiet():
            return auto_class.from_pretrained(
                folder,
                config=_without_pooling(
                    AutoConfig.from_pretrained(folder, trust_remote_code=False)
                ),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError) as error:
        raise FoundryError(
            f"{config.kind}: weights {folder!r} cannot be loaded: {str(error).splitlines()[0]}",
            "a folder needs the config.json of an architecture that transformers knows, and "
            "safetensors weights",
        ) from error


@torch.no_grad()
def complete(module: nn.Module) -> None:
    """Ties weights and computes the buffers that no checkpoint holds (rotary frequencies,
    positions) of transformers modules that were built on the meta device and got their weights."""
    if isinstance(module, PreTrainedModel):
        module.tie_weights()
        _compute_buffers(module)
        return
    for part in module.children():
        complete(part)


def _compute_buffers(model: PreTrainedModel) -> None:
    for tensor in (*model.parameters(), *model.buffers()):
        tensor._is_hf_initialized = True  # type: ignore[attr-defined]  # not to be drawn again
    for part in model.modules():
        part._is_hf_initialized = True  # type: ignore[assignment]
    for name, buffer in list(model.named_non_persistent_buffers()):
        if buffer.is_meta:
            parent, _, last = name.rpartition(".")
            owner = model.get_submodule(parent)
            setattr(owner, last, torch.empty_like(buffer, device="cpu"))
            owner._is_hf_initialized = False  # type: ignore[assignment]
    model.initialize_weights()


def _without_pooling(settings: Any) -> Any:
    """SigLIP's pooling head feeds nothing here. Left out of random and pretrained towers alike: a
    saved model is built before its weights are read, and must have the same parts."""
    for part in (settings, getattr(settings, "vision_config", None)):
        if part is not None and hasattr(part, "vision_use_head"):
            part.vision_use_head = False
    return settings


def resolve(config: C, module: PreTrainedModel, **update: Any) -> C:
    """The config of a loaded module: self-contained, with the architecture instead of a name."""
    return config.model_copy(
        update={
            "config": architecture_of(module.config),
            "source": None,
            "path": None,
            "origin": config.origin or config.source,
            "revision": config.revision,
            **update,
        }
    )


def architecture_of(settings: Any) -> dict[str, Any]:
    """A transformers config as plain JSON, without what tells nothing of the architecture."""
    return {key: _plain(v) for key, v in settings.to_dict().items() if key not in _VOLATILE}


def _plain(value: Any) -> Any:
    """JSON types only; torch dtypes and the like become their names."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if k not in _VOLATILE}
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


class quiet:
    """Hides progress bars and warnings about heads we do not use."""

    def __enter__(self) -> None:
        self.level = logging.get_verbosity()
        self.bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        logging.set_verbosity(self.level)
        if self.bars:
            logging.enable_progress_bar()
