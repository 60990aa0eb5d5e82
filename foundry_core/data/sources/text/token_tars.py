"""Tars of token ids."""

import gzip
import io
import json
import zlib
from typing import Literal

from pydantic import Field

from foundry_core.data.sources.base import MAX_DOCUMENT, Broken, Document, TokenIds
from foundry_core.data.sources.files import DocumentTars
from foundry_core.errors import FoundryError


class TokenTars(DocumentTars):
    """Tars of `<key>.json.gz`, each a list of token ids, tokenised by others. Taken as one stream:
    no eos is added, so lists of context+1 ids become exactly the rows."""

    format: Literal["token_tars"] = "token_tars"
    vocab_size: int = Field(ge=2, description="of the tokenizer that made the ids")
    eos_id: int = Field(ge=0, description="id that ends a document")

    @property
    def token_ids(self) -> TokenIds:
        return TokenIds(vocab_size=self.vocab_size, eos_id=self.eos_id)

    def _document(self, name: str, data: bytes) -> Document | Broken:
        import numpy as np

        try:
            values = json.loads(_unpacked(data) if name.endswith(".gz") else data)
            tokens = np.asarray(values, dtype=np.int64)
        except (OSError, EOFError, ValueError, TypeError, ArithmeticError, RecursionError,
                zlib.error) as error:  # fmt: skip
            return Broken(id=name, reason=f"not a list of token ids: {error}")
        if tokens.ndim != 1 or not len(tokens):
            return Broken(
                id=name, reason=f"not a flat, non-empty list of token ids: {tokens.shape}"
            )
        if tokens.min() < 0 or tokens.max() >= self.vocab_size:
            raise FoundryError(
                f"{name} holds the token id {int(tokens[np.abs(tokens).argmax()])}, outside the "
                f"vocabulary of {self.vocab_size}",
                "set the source's vocab_size to that of the tokenizer that wrote it",
            )
        return Document(id=name, tokens=tokens.astype(np.uint32))


def _unpacked(data: bytes) -> bytes:
    with gzip.open(io.BytesIO(data)) as stream:
        found = stream.read(MAX_DOCUMENT + 1)
    if len(found) > MAX_DOCUMENT:
        raise ValueError(f"it unpacks to more than {MAX_DOCUMENT} bytes")
    return found


FORMAT = TokenTars
