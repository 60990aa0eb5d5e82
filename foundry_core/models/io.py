"""Models on disk: `config.json` and `model.safetensors`, loaded strictly."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.files import read_json, write_json
from foundry_core.models.build import Model, build_model, is_native
from foundry_core.models.config import LoRAConfig, ModelConfig
from foundry_core.models.interfaces import Backbone, Decoder, LanguageModel
from foundry_core.models.lora import apply_lora
from foundry_core.models.sizes import kind_of
from foundry_core.models.tensor_files import entries_of, flat_pieces, write_tensors
from foundry_core.models.vla import VLA

WEIGHTS = "model.safetensors"
# The weights that a moving average followed, beside the average.
RAW = "raw.safetensors"
FORMAT = "foundry-model"
VERSION = 1
M = TypeVar("M")


Pieces = Callable[[Tensor], Iterator[Tensor]]


def save_model(
    directory: Path, module: Model, *, state: Mapping[str, Tensor] | None = None
) -> None:
    """Writes config.json and model.safetensors; equal weights give equal bytes.

    state: default module.state_dict(). Tied weights are stored once, under their first name.
    """
    save_config(directory, module)
    save_weights(directory / WEIGHTS, module, state=state)


def save_config(directory: Path, module: Model) -> None:
    """Writes config.json: the model's config and, where adapters are on it, theirs. A policy's own
    config has those of its backbone."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model": module.config.model_dump(mode="json"),
    }
    if isinstance(module, Decoder) and module.lora is not None:
        document["lora"] = module.lora.model_dump(mode="json")
    write_json(directory / "config.json", document)


def save_weights(
    path: Path | None,
    module: nn.Module,
    *,
    state: Mapping[str, Tensor] | None = None,
    pieces: Pieces = flat_pieces,
) -> None:
    """Writes a module's weights piece by piece: no more than a piece is copied at once.

    pieces: a tensor's values in order, on the CPU; of sharded ones it is collective, and the ranks
    that do not write (path None) take part in it.
    """
    state = module.state_dict() if state is None else state
    names = _unique_names(module)
    missing = sorted(set(names) - set(state))
    if missing:
        raise FoundryError(f"the state to save lacks {missing[0]!r} ({len(missing)} in all)")
    tensors = {name: state[name] for name in names}
    entries = entries_of(tensors)
    if path is None:
        for entry in entries:
            for _ in pieces(tensors[entry.name]):
                """Another rank writes it."""
        return
    write_tensors(path, entries, lambda name: pieces(tensors[name]), metadata={"format": "pt"})


def load_config(directory: Path) -> ModelConfig:
    """The model config of a saved model, without its weights."""
    config, _ = _configs(directory)
    return config


def _configs(directory: Path) -> tuple[ModelConfig, LoRAConfig | None]:
    """Of a saved model, and of the adapters on it."""
    path = Path(directory) / "config.json"
    try:
        document = read_json(path)
    except FileNotFoundError:
        raise FoundryError(f"{path} is missing: {directory} is not a saved model") from None
    except ValueError as error:
        raise FoundryError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise FoundryError(f"{path} is not a mapping: {directory} is not a saved model")
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        raise FoundryError(
            f"{path}: format {document.get('format')!r} version {document.get('version')!r}, "
            f"expected {FORMAT!r} version {VERSION}"
        )
    config: ModelConfig = validate(ModelConfig, document.get("model"), f"{path}: model")
    if document.get("lora") is None:
        return config, None
    return config, validate(LoRAConfig, document["lora"], f"{path}: lora")


def load_model(directory: Path, *, device: str = "cpu") -> tuple[Model, ModelConfig]:
    """(module, config). Every weight must be there, in its shape, and nothing else. Adapters that
    were saved beside the weights are on it."""
    directory = Path(directory)
    config, lora = _configs(directory)
    path = directory / WEIGHTS
    if not path.is_file():
        raise FoundryError(f"{path} is missing: {directory} has a config but no weights")
    tensors = load_file(path)
    # On the meta device nothing is allocated or initialised only to be overwritten.
    with torch.device("meta"):
        module = build_model(config)
        if lora is not None and isinstance(module, Decoder):
            apply_lora(module, lora)
    _check_state(path, module, tensors)
    first = _first_names(module)
    module.load_state_dict({name: tensors[first[name]] for name in first}, assign=True)
    if not is_native(config):
        from foundry_core.models.huggingface.load import complete

        complete(module)
    return module.to(device), config


def load_as(kind: type[M], directory: Path, *, device: str = "cpu") -> M:
    """The saved model, which must be of a class: VLA, Backbone or LanguageModel."""
    module, config = load_model(directory, device=device)
    if not isinstance(module, kind):
        raise FoundryError(
            f"{str(directory)!r} holds a {kind_of(config)}, not a {_NOUNS[kind]}",
            "check what is connected",
        )
    return module


_NOUNS: Mapping[type, str] = {
    VLA: "policy",
    Backbone: "vision-language model",
    LanguageModel: "language model",
}


def _check_state(path: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    expected = _unique_names(module)
    missing, extra = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    wrong = [
        f"{n}: {list(tensors[n].shape)} for {list(expected[n].shape)}"
        for n in sorted(expected.keys() & tensors.keys())
        if tensors[n].shape != expected[n].shape
    ]
    problems = [
        f"{kind} {names[:3]}{' …' if len(names) > 3 else ''} ({len(names)})"
        for kind, names in (("missing", missing), ("unexpected", extra), ("misshapen", wrong))
        if names
    ]
    if problems:
        raise FoundryError(
            f"{path} does not fit its config.json: " + "; ".join(problems),
            "the two files come from different models",
        )


def _unique_names(module: nn.Module) -> dict[str, Tensor]:
    """State names without aliases: of tensors that are one object, the first name in order."""
    state = module.state_dict(keep_vars=True)
    return {name: state[name] for name, first in _first_names(module).items() if name == first}


def _first_names(module: nn.Module) -> dict[str, str]:
    """State name → the first in order of the names that the same tensor has."""
    seen: dict[int, str] = {}
    state = module.state_dict(keep_vars=True)
    return {name: seen.setdefault(id(state[name]), name) for name in sorted(state)}
