"""Byte-level BPE tokenizer with a fixed on-disk form.

Bytes are the alphabet, so every text round-trips; digits are single tokens, so numbers (image
coordinates, poses) are spelt the same way whatever stands beside them. Text never produces a
special token: "<|endoftext|>" inside a document is five ordinary pieces, not the end of it.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from foundry_core.errors import FoundryError
from foundry_core.files import read_json, sha256_hex, write_atomic, write_json

EOS = "<|endoftext|>"
PAD = "<|pad|>"
_FILE = "tokenizer.json"
_CONFIG = "tokenizer_config.json"


class Tokenizer:
    """Encodes and decodes text; knows its end-of-sequence and padding ids.

    Loads any Hugging Face `tokenizer.json`; its config must name eos (and pad, else eos pads).
    """

    def __init__(self, backend: tokenizers.Tokenizer, eos: str = EOS, pad: str = PAD) -> None:
        backend.encode_special_tokens = True  # as plain text
        self._backend = backend
        self.eos, self.pad = eos, pad
        self.eos_id, self.pad_id = self.token_id(eos), self.token_id(pad)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learns merges from `texts`; equal texts give equal tokenizers on any number of threads.

        vocab_size counts the 256 bytes and the two special tokens; a corpus too small to fill it
        is refused, since models would be built for ids that never occur.
        """
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[EOS, PAD],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        tokenizer = cls(backend)
        if tokenizer.vocab_size != vocab_size:
            raise FoundryError(
                f"the text fills a vocabulary of {tokenizer.vocab_size}, {vocab_size} were asked",
                "give more text or a smaller vocab_size (at least 258)",
            )
        return tokenizer

    @classmethod
    def of_bytes(cls) -> "Tokenizer":
        """Of bytes alone: for models that read no words, in whose rows there are words all the
        same."""
        return cls.train((), 258)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Tokenizer":
        """Of a folder. FoundryError for one that holds no tokenizer, or a damaged one."""
        folder = Path(folder)
        try:
            backend = tokenizers.Tokenizer.from_str((folder / _FILE).read_text())
            config = read_json(folder / _CONFIG)
        except FileNotFoundError as error:
            raise FoundryError(
                f"{str(folder)!r} is no tokenizer: {Path(error.filename).name} is missing",
                f"a tokenizer is {_FILE} + {_CONFIG}",
            ) from None
        except Exception as error:  # the Rust side raises bare Exception for any parse error
            raise FoundryError(f"the tokenizer in {str(folder)!r} is damaged: {error}") from error
        eos = _special(config, "eos")
        if eos is None:
            raise FoundryError(
                f"{str(folder / _CONFIG)!r} names no end-of-sequence token",
                'add "eos": "<|endoftext|>" or the like',
            )
        return cls(backend, eos, _special(config, "pad") or eos)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes tokenizer.json and tokenizer_config.json, as Hugging Face reads them."""
        folder = Path(folder)
        write_atomic(folder / _FILE, self._text())
        config = {
            "eos": self.eos,
            "eos_token": self.eos,
            "pad": self.pad,
            "pad_token": self.pad,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "vocab_size": self.vocab_size,
        }
        write_json(folder / _CONFIG, config)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no special tokens are added."""
        return self._backend.encode(text, add_special_tokens=False).ids

    @property
    def opening(self) -> list[int]:
        """Ids that a tokenizer of others puts before a text (`<bos>`); ours puts none."""
        text = "a"
        plain, marked = self.encode(text), self._backend.encode(text).ids
        starts = range(len(marked) - len(plain) + 1)
        return next((marked[:at] for at in starts if marked[at : at + len(plain)] == plain), [])

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`, on all cores unless TOKENIZERS_PARALLELISM is false."""
        batch = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self._backend.decode(list(map(int, ids)), skip_special_tokens=skip_special)

    def add_special(self, token: str) -> int:
        """Appends a special token (or finds it) and returns its id; existing ids never change."""
        self._backend.add_special_tokens([token])
        return self.token_id(token)

    def token_id(self, token: str) -> int:
        """FoundryError for a token that the vocabulary lacks."""
        id_ = self._backend.token_to_id(token)
        if id_ is None:
            raise FoundryError(
                f"the tokenizer has no token {token!r}",
                "add it with add_special, or mend its config",
            )
        return id_

    @property
    def text_ids(self) -> list[int]:
        """Ids that stand for text, in their order: no special tokens."""
        added = self._backend.get_added_tokens_decoder()
        special = {number for number, token in added.items() if token.special}
        return sorted(set(self._backend.get_vocab(True).values()) - special)

    @property
    def vocab_size(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def digest(self) -> str:
        """sha256 of tokenizer.json as saved."""
        return sha256_hex(self._text())

    def _text(self) -> str:
        return self._backend.to_str(pretty=True) + "\n"


def _special(config: Mapping[str, Any], name: str) -> str | None:
    """Ours ("eos"), or Hugging Face's ("eos_token", a string or an object with content)."""
    value = config.get(name) or config.get(f"{name}_token")
    return value.get("content") if isinstance(value, dict) else value
