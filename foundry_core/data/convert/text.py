"""Text → token shards: documents are tokenised by workers, packed and written in order here.

Packing is one stream over all documents, so the rows cannot depend on who tokenised what. It runs
at some 10^7 tokens/s, far above what the workers of one machine produce.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np

from foundry_core.data.convert.read import read_documents
from foundry_core.data.convert.report import Report, Skip
from foundry_core.data.shards.description import TextDescription
from foundry_core.data.shards.write import ShardFolderWriter
from foundry_core.data.sources.base import Broken, Document, SourceRef, TextFormat
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.files import hash64, write_json
from foundry_core.parallel import ray_map, ray_session

EVALUATION = "eval"
# Characters. An encoding takes a hundred times as many bytes until its ids are taken out.
_ENCODED_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What the shards declare about their ids; digest is "" for tokens that others made."""

    size: int
    eos_id: int
    pad_id: int
    digest: str

    @classmethod
    def of(cls, source: TextFormat, tokenizer: Path | None) -> "Vocabulary":
        """Of tokens that others made, or of our tokenizer."""
        ids = source.token_ids
        if ids is not None:
            return cls(size=ids.vocab_size, eos_id=ids.eos_id, pad_id=ids.eos_id, digest="")
        loaded = _tokenizer(tokenizer)
        size, eos, pad = loaded.vocab_size, loaded.eos_id, loaded.pad_id
        return cls(size=size, eos_id=eos, pad_id=pad, digest=loaded.digest)


@dataclass(frozen=True, kw_only=True)
class TokenJob:
    """What tokenising a piece of the source takes."""

    source: TextFormat
    tokenizer: Path | None
    vocabulary: Vocabulary
    eval_fraction: float


@dataclass(frozen=True, kw_only=True)
class TokenChunk:
    """One ref's stream(s), documents ended by eos, [train, evaluation]; counts and skips. empty:
    documents without a word, which are left out."""

    streams: tuple[np.ndarray, np.ndarray]
    documents: tuple[int, int]
    characters: int
    empty: int
    skipped: tuple[Skip, ...]


def tokenise(job: TokenJob, ref: SourceRef) -> TokenChunk:
    """Runs in a worker: reads a ref, tokenises, splits off evaluation documents by their hash (so
    that equal documents fall on one side, whatever else is in the source)."""
    sides = (_Stream(job), _Stream(job))
    skipped: list[Skip] = []
    empty = 0
    for item in read_documents(job.source, ref):
        if isinstance(item, Broken):
            skipped.append((item.id, item.reason))
        elif item.tokens is None and not item.text.strip():
            empty += 1
        else:
            sides[_is_evaluation(item, job.eval_fraction)].add(item)
    train, evaluation = sides
    return TokenChunk(
        streams=(train.finish(), evaluation.finish()),
        documents=(train.documents, evaluation.documents),
        characters=train.characters + evaluation.characters,
        empty=empty,
        skipped=tuple(skipped),
    )


class _Stream:
    """Documents one after another as tokens, each ended by eos. Holds few texts at once: a piece
    may be a compressed file of gigabytes."""

    def __init__(self, job: TokenJob) -> None:
        self._job = job
        self._waiting: list[Document] = []
        self._size = 0
        self._parts: list[np.ndarray] = []
        self.documents = self.characters = 0

    def add(self, document: Document) -> None:
        self._waiting.append(document)
        self.documents += 1
        self.characters += len(document.text)
        self._size += len(document.text)
        if self._size >= _ENCODED_AT_ONCE:
            self._encode()

    def finish(self) -> np.ndarray:
        """All tokens."""
        self._encode()
        return np.concatenate(self._parts)

    def _encode(self) -> None:
        self._parts.append(_stream(self._waiting, self._job))
        self._waiting, self._size = [], 0


def convert_text(
    source: TextFormat,
    tokenizer: Path | None,
    out: Path,
    *,
    context: int,
    samples_per_shard: int,
    eval_fraction: float,
    tail: Literal["drop", "pad"],
    max_skipped: int,
    workers: int,
    progress: Callable[..., None],
) -> dict[str, int]:
    """Writes shards (+ `eval/` where a fraction is set aside), dataset.json and report.json."""
    vocabulary = Vocabulary.of(source, tokenizer)
    refs = source.refs()
    job = TokenJob(
        source=source, tokenizer=tokenizer, vocabulary=vocabulary, eval_fraction=eval_fraction
    )
    report = Report("documents", max_skipped)
    folders = [out, out / EVALUATION] if eval_fraction else [out]
    splits = [_Split(folder, vocabulary, context, samples_per_shard) for folder in folders]
    characters = 0
    with ray_session(workers):
        for done, chunk in enumerate(ray_map(partial(tokenise, job), refs, workers=workers), 1):
            report.add(sum(chunk.documents), chunk.skipped)
            report.leave_out("empty text", chunk.empty)
            characters += chunk.characters
            # No evaluation split: its stream is empty.
            for split, stream, count in zip(splits, chunk.streams, chunk.documents, strict=False):
                split.add(stream, count)
            progress(done, len(refs), f"{report.converted} documents, {splits[0].tokens} tokens")
    left_over = sum(split.close(tail) for split in splits)
    report.write(out, tail_tokens=left_over, tail=tail, characters=characters)
    return {
        "documents": report.converted,
        "skipped": len(report.skipped),
        "characters": characters,
        "tokens": splits[0].tokens,
        "sequences": splits[0].rows,
        "eval_sequences": splits[1].rows if eval_fraction else 0,
        "tail_tokens": left_over,
    }


def train_tokenizer(
    sources: Sequence[TextFormat],
    out: Path,
    *,
    vocab_size: int,
    sample: float,
    progress: Callable[..., None],
) -> dict[str, float]:
    """Streams the documents once. Unreadable ones are counted: merges do not miss a few."""
    counts = {"documents": 0, "unreadable": 0, "characters": 0}

    def texts() -> Iterator[str]:
        pieces = [(source, ref) for source in sources for ref in source.refs()]
        for done, (source, ref) in enumerate(pieces, start=1):
            for item in read_documents(source, ref):
                if isinstance(item, Broken):
                    counts["unreadable"] += 1
                elif sample == 1.0 or hash64(item.text) < sample * 2**64:
                    counts["documents"] += 1
                    counts["characters"] += len(item.text)
                    yield item.text
            progress(done, len(pieces), f"{counts['documents']} documents")

    tokenizer = Tokenizer.train(texts(), vocab_size)
    tokenizer.save(out)
    write_json(out / "report.json", counts)
    return {**counts, "vocab_size": tokenizer.vocab_size}


class _Split:
    """One output folder: packs its stream into rows and rows into shards."""

    def __init__(
        self, folder: Path, vocabulary: Vocabulary, context: int, samples_per_shard: int
    ) -> None:
        self._folder, self._vocabulary, self._context = folder, vocabulary, context
        dtype = token_dtype(vocabulary.size)
        self._packer = Packer(context + 1, dtype)
        self._writer = ShardFolderWriter(folder, samples_per_shard)
        self._header = _npy_header(context + 1, dtype)
        self.rows = self.tokens = self.documents = 0

    def add(self, stream: np.ndarray, documents: int) -> None:
        self.tokens += len(stream)
        self.documents += documents
        self._write(self._packer.add(stream))

    def close(self, tail: Literal["drop", "pad"]) -> int:
        """Writes the last row padded ("pad") or leaves it out ("drop"); returns its tokens."""
        rest = self._packer.finish()
        if len(rest) and tail == "pad":
            row = np.full((1, self._context + 1), self._vocabulary.pad_id, dtype=rest.dtype)
            row[0, : len(rest)] = rest
            self._write(row)
        elif len(rest):
            self.tokens -= len(rest)
        self._writer.close()
        TextDescription(
            context=self._context,
            vocab_size=self._vocabulary.size,
            tokenizer=self._vocabulary.digest,
            eos_id=self._vocabulary.eos_id,
            pad_id=self._vocabulary.pad_id,
            tokens=self.tokens,
            sequences=self.rows,
            documents=self.documents,
        ).write(self._folder)
        return len(rest)

    def _write(self, rows: np.ndarray) -> None:
        for row in rows:
            members = {"tokens.npy": self._header + row.tobytes()}
            self._writer.add(f"{self.rows:09d}", members)
            self.rows += 1


def _npy_header(length: int, dtype: np.dtype) -> bytes:
    """The .npy preamble every row shares; np.save per row would cost more than the packing."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(length, dtype=dtype), allow_pickle=False)
    return buffer.getvalue()[: -length * dtype.itemsize]


def _stream(documents: list[Document], job: TokenJob) -> np.ndarray:
    """Tokens of the documents one after another, each ended by eos."""
    dtype = token_dtype(job.vocabulary.size)
    if not documents:
        return np.empty(0, dtype=dtype)
    tokenised = [document.tokens for document in documents if document.tokens is not None]
    if tokenised:  # eos included, as others wrote them
        return np.concatenate(tokenised).astype(dtype)
    ids = _tokenizer(job.tokenizer).encode_batch([document.text for document in documents])
    return join_documents(ids, job.vocabulary.eos_id, dtype)


def _is_evaluation(document: Document, fraction: float) -> bool:
    if not fraction:
        return False
    data = document.text.encode() if document.tokens is None else document.tokens.tobytes()
    return hash64(data) < fraction * 2**64


@lru_cache(maxsize=2)
def _tokenizer(folder: Path | None) -> Tokenizer:
    if folder is None:
        raise FoundryError("texts need a tokenizer", "connect the stage's input 'tokenizer'")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core per worker
    return Tokenizer.load(folder)


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 as long as every id fits (half the bytes), else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def join_documents(documents: list[list[int]], eos_id: int, dtype: np.dtype) -> np.ndarray:
    """One array: each document followed by eos."""
    lengths = np.array([len(document) + 1 for document in documents], dtype=np.int64)
    stream = np.empty(int(lengths.sum()), dtype=dtype)
    ends = np.cumsum(lengths) - 1
    inside = np.ones(len(stream), dtype=bool)
    inside[ends] = False
    stream[ends] = eos_id
    stream[inside] = np.fromiter(
        (token for document in documents for token in document), dtype, len(stream) - len(documents)
    )
    return stream


class Packer:
    """Cuts a stream that arrives in pieces into rows [n, row_length]; where a piece ends leaves no
    trace in the rows. `finish` gives what is left over, which the caller pads or counts."""

    def __init__(self, row_length: int, dtype: np.dtype) -> None:
        if row_length < 2:
            raise FoundryError(f"a row of {row_length} tokens has nothing to predict")
        self._row = row_length
        self._rest = np.empty(0, dtype=dtype)

    def add(self, stream: np.ndarray) -> np.ndarray:
        """Rows [n, row_length] that are full now."""
        joined = np.concatenate([self._rest, stream.astype(self._rest.dtype, copy=False)])
        whole = len(joined) // self._row * self._row
        self._rest = joined[whole:].copy()
        return joined[:whole].reshape(-1, self._row)

    def finish(self) -> np.ndarray:
        """The tokens that fill no row; the packer is empty then."""
        rest, self._rest = self._rest, self._rest[:0]
        return rest
