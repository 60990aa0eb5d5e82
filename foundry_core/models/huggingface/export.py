"""Saved models as plain transformers checkpoints: causal_lm.py and idefics.py say which."""

from pathlib import Path

from transformers import AutoConfig, PreTrainedTokenizerFast

from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.models.config.sizes import kind_of
from foundry_core.models.huggingface.causal_lm import to_causal_lm
from foundry_core.models.huggingface.idefics import to_idefics3
from foundry_core.models.huggingface.language import HFLanguage
from foundry_core.models.huggingface.vlm import HFVLM
from foundry_core.models.io import load_model
from foundry_core.models.transformer import Transformer
from foundry_core.models.vlm import VLM


def export_hf(model_dir: Path, out_dir: Path) -> None:
    """Writes a saved LLM or VLM as a transformers checkpoint directory, its tokenizer included."""
    model, config = load_model(model_dir)
    if isinstance(model, Transformer):
        exported = to_causal_lm(model)
    elif isinstance(model, VLM):
        exported = to_idefics3(model)
    elif isinstance(model, HFLanguage | HFVLM):
        exported = model.model
    else:
        raise FoundryError(
            f"{model_dir} is a {kind_of(config)}, transformers has no architecture for it",
            "export the language model or the vision-language model it was made from",
        )
    exported.save_pretrained(out_dir, safe_serialization=True)
    _export_tokenizer(Path(model_dir), Path(out_dir))


def _export_tokenizer(model_dir: Path, out_dir: Path) -> None:
    path = model_dir / "tokenizer.json"
    if not path.is_file():
        return
    names = read_json(model_dir / "tokenizer_config.json")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(path), eos_token=names.get("eos"), pad_token=names.get("pad")
    )
    tokenizer.save_pretrained(out_dir)
    config = AutoConfig.from_pretrained(out_dir)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.save_pretrained(out_dir)
