"""Packed rows of tokens."""

import contextlib
import gzip
import json
from collections.abc import Mapping, Sequence

import numpy as np

from foundry_core.data.loading.dataset import SampleDataset
from foundry_core.data.loading.pixels import OutputBuffer, new_buffer
from foundry_core.data.loading.shards import CheckedShards, UnreadableSample
from foundry_core.data.npy import read_npy
from foundry_core.data.robot.transforms import Sample
from foundry_core.errors import FoundryError

_NPY, _PUBLISHED = "tokens.npy", "json.gz"


class TextDataset(SampleDataset):
    """Rows of context + 1 tokens: our shards (.npy), or published ones (.json.gz lists)."""

    def __init__(self, shards: CheckedShards, *, eos_id: int, vocab_size: int) -> None:
        super().__init__(shards)
        info, self._eos_id = shards.info, eos_id
        if info.get("eos_id", eos_id) != eos_id or info.get("vocab_size", 0) > vocab_size:
            raise FoundryError(
                f"text shards {shards.source!r} were tokenised with eos {info.get('eos_id')} and "
                f"{info.get('vocab_size')} ids, the model's tokenizer has eos {eos_id} and "
                f"{vocab_size}",
                "convert the text with the model's tokenizer",
            )
        self._extension = _NPY
        self.row_length = info["context"] + 1 if "context" in info else self._probe()

    def read(self, index: int, sample_key: int, output: OutputBuffer = new_buffer) -> Sample:
        """{"tokens": unsigned [T+1]}, a view into the shard."""
        data = self.shards.member(index, self._extension)
        try:
            tokens = read_row({self._extension: data})
        except (FoundryError, ValueError, OSError, EOFError) as error:
            raise UnreadableSample(f"{self.shards.where(index)}: {error}") from error
        if tokens.shape != (self.row_length,):
            raise UnreadableSample(
                f"{self.shards.where(index)} has {tokens.shape} tokens, not {self.row_length}"
            )
        return {"tokens": tokens}

    def recordings(self, indices: Sequence[int]) -> int | None:
        """Documents: a row ends with one, or in the midst of one. What cannot be read has none."""
        found = 0
        for index in indices:
            with contextlib.suppress(UnreadableSample):
                ends = self.read(index, 0)["tokens"] == self._eos_id
                found += int(ends.sum()) + (not ends[-1])
        return found

    def _probe(self) -> int:
        if not len(self.shards):
            raise FoundryError(f"text shards {self.shards.source!r} are empty")
        present = self.shards.members(0)
        self._extension = _NPY if _NPY in present else _PUBLISHED
        if self._extension not in present:
            raise FoundryError(
                f"{self.shards.source!r} holds {sorted(present)}, neither {_NPY} nor {_PUBLISHED}",
                "is it a text dataset?",
            )
        return len(read_row(present))


def collate_text(samples: Sequence[Sample], eos_id: int) -> Sample:
    """tokens int64 [B, T+1], segments int32 [B, T+1]: number of the document within the row. The
    end-of-text token belongs to the document it ends."""
    tokens = np.stack([sample["tokens"] for sample in samples]).astype(np.int64)
    ends = tokens == eos_id
    segments = np.cumsum(ends, axis=1, dtype=np.int32) - ends
    return {"tokens": tokens, "segments": segments}


def read_row(members: Mapping[str, memoryview]) -> np.ndarray:
    """Tokens of one sample, in either layout."""
    if _NPY in members:
        return read_npy(members[_NPY])
    if _PUBLISHED not in members:
        raise FoundryError(f"neither {_NPY} nor {_PUBLISHED} among {sorted(members)}")
    return np.array(json.loads(gzip.decompress(members[_PUBLISHED])), dtype=np.uint32)
