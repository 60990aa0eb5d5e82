"""Checkpoints of transformers as saved models: the work of the stages import_llm and import_vlm."""

from pathlib import Path

from transformers import AutoConfig

from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.models.config import HFLanguageConfig, HFVLMConfig, Pretrained
from foundry_core.models.huggingface.causal_lm import from_causal_lm, not_native
from foundry_core.models.huggingface.checkpoint import imported_tokenizer, local_folder
from foundry_core.models.huggingface.language import HFLanguage
from foundry_core.models.huggingface.vlm import HFVLM
from foundry_core.models.interfaces import Backbone, LanguageModel
from foundry_core.models.io import save_model
from foundry_core.models.processor_files import keep_processor


def import_language(
    weights: Pretrained, out: Path, scratch: Path, native: bool | None
) -> dict[str, float]:
    """A causal LM. native null: as a native model where that computes the same."""
    folder = local_folder(weights, into=scratch / "hub")
    settings = _settings(folder)
    if native or (native is None and not not_native(settings)):
        model: LanguageModel = from_causal_lm(folder, settings)
    else:
        model = HFLanguage(HFLanguageConfig(path=str(folder), origin=weights.source))
    return _saved(model, folder, out)


def import_vlm(described: HFVLMConfig, out: Path, scratch: Path) -> dict[str, float]:
    """A whole VLM, with what its processor and chat template say; described: its weights and what
    the recipe states instead."""
    folder = local_folder(described, into=scratch / "hub")
    fetched = {"path": str(folder), "source": None, "revision": None, "origin": described.source}
    return _saved(HFVLM(described.model_copy(update=fetched)), folder, out)


def _settings(folder: Path) -> object:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise FoundryError(
            f"{folder} cannot be imported: {str(error).splitlines()[0]}",
            "it needs the config.json of an architecture that transformers knows",
        ) from error


def _saved(model: LanguageModel | Backbone, folder: Path, out: Path) -> dict[str, float]:
    tokenizer = imported_tokenizer(folder)
    fit_vocabulary(model, tokenizer)
    save_model(out, model)
    tokenizer.save(out)
    keep_processor(folder, out)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": tokenizer.vocab_size,
    }


def fit_vocabulary(model: LanguageModel | Backbone, tokenizer: Tokenizer) -> None:
    """Gives rows to tokens that were added to a tokenizer and not to its model."""
    model.resize_vocabulary(tokenizer.vocab_size, model.vocab_size)
