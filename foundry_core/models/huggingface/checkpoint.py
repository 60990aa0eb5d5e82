"""Checkpoints of others: fetched from the hub at a commit, and their tokenizers.

What is fetched is safetensors and JSON: no pickled weights, no code.
"""

from pathlib import Path

import tokenizers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.models.config import Pretrained

_FETCHED = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")


def local_folder(
    weights: Pretrained, *, into: Path | None = None, endpoint: str | None = None
) -> Path:
    """The folder of a checkpoint; one of the hub is fetched first, into a folder or the hub's cache
    (HF_HOME). endpoint: the hub's address, default HF_ENDPOINT's.
    """
    if weights.source is None:
        # Absolute: a relative name that is no folder would be looked up on the hub.
        return Path(weights.path or "").expanduser().absolute()
    try:
        folder = snapshot_download(
            weights.source,
            revision=weights.revision,
            allow_patterns=list(_FETCHED),
            ignore_patterns=["*/*"],
            local_dir=into,
            endpoint=endpoint,
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise FoundryError(
            f"{weights.source!r} at {weights.revision or 'main'} cannot be fetched from the hub: "
            f"{str(error).splitlines()[0]}",
            "check name, revision and network (HF_TOKEN for a gated one), or give a folder as path",
        ) from error
    return Path(folder)


def pretrained_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The checkpoint's own tokenizer; None where it has none."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
    if not any((folder / name).is_file() for name in names):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise FoundryError(
            f"the tokenizer in {folder} cannot be read: {str(error).splitlines()[0]}",
            "save it as tokenizer.json with transformers",
        ) from error


def imported_tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's tokenizer as ours: the same ids, its end-of-sequence and padding tokens."""
    theirs = pretrained_tokenizer(folder)
    if theirs is None or not theirs.is_fast:
        raise FoundryError(
            f"{folder} holds no tokenizer.json", "save its tokenizer there with transformers"
        )
    if theirs.eos_token is None:
        raise FoundryError(
            f"the tokenizer in {folder} names no end-of-sequence token",
            "set eos_token in its tokenizer_config.json",
        )
    # A copy: ours encodes special tokens as plain text.
    backend = tokenizers.Tokenizer.from_str(theirs.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    return Tokenizer(backend, theirs.eos_token, theirs.pad_token or theirs.eos_token)
