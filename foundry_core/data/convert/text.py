"""Text → token shards: documents are tokenised by workers, packed and written in order here.

A unit of work is the tokens of one piece of the source. Packing is one stream over all documents,
so the rows cannot depend on who tokenised what. It runs at some 10^7 tokens/s, far above what the
workers of one machine produce.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Literal

import numpy as np
from pydantic import TypeAdapter

from foundry_core.config.canonical import canonical
from foundry_core.data.config import SplitConfig
from foundry_core.data.convert.pace import Pace
from foundry_core.data.convert.read import read_documents
from foundry_core.data.convert.report import Report, Skip
from foundry_core.data.convert.split import VALIDATION, is_validation
from foundry_core.data.convert.units import SourceState, Unit, UnitStore
from foundry_core.data.shards.description import TextDescription
from foundry_core.data.shards.write import ShardFolderWriter
from foundry_core.data.sources.base import Broken, Document, SourceRef, TextFormat
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.files import hash64, write_json

_SIDES, _CHUNK = ("train.tokens", "validation.tokens"), "chunk.json"
# Characters. An encoding takes a hundred times as many bytes until its ids are taken out.
_ENCODED_AT_ONCE = 1 << 20
# Tokens that are in memory at once.
_PACKED_AT_ONCE = 1 << 22


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
    """A piece of the source to tokenise."""

    source: TextFormat
    tokenizer: Path | None
    vocabulary: Vocabulary
    split: SplitConfig | None
    ref: SourceRef


@dataclass(frozen=True, kw_only=True)
class TokenChunk:
    """What was seen of a piece. documents: for training, for validation. empty: documents without a
    word, which are left out."""

    documents: tuple[int, int]
    characters: int
    empty: int
    skipped: tuple[Skip, ...]


def tokenise(job: TokenJob, folder: Path) -> None:
    """Runs in a worker: reads a piece, tokenises, splits off validation documents by their hash (so
    that equal documents fall on one side, whatever else is in the source). Writes the tokens of
    each side, documents ended by eos, and chunk.json."""
    skipped: list[Skip] = []
    empty = 0
    with (folder / _SIDES[0]).open("wb") as train, (folder / _SIDES[1]).open("wb") as validation:
        sides = _Side(job, train), _Side(job, validation)
        for item in read_documents(job.source, job.ref):
            if isinstance(item, Broken):
                skipped.append((item.id, item.reason))
            elif item.tokens is None and not item.text.strip():
                empty += 1
            else:
                sides[is_validation(_content(item), job.split)].add(item)
        for side in sides:
            side.flush()
    chunk = TokenChunk(
        documents=(sides[0].documents, sides[1].documents),
        characters=sum(side.characters for side in sides),
        empty=empty,
        skipped=tuple(skipped),
    )
    (folder / _CHUNK).write_bytes(TypeAdapter(TokenChunk).dump_json(chunk))


class _Side:
    """Documents one after another as tokens, each ended by eos, into a stream of bytes. Holds few
    texts at once: a piece may be a compressed file of gigabytes."""

    def __init__(self, job: TokenJob, stream: BinaryIO) -> None:
        self._job, self._stream = job, stream
        self._waiting: list[Document] = []
        self._held = self.documents = self.characters = 0

    def add(self, document: Document) -> None:
        self._waiting.append(document)
        self.documents += 1
        self.characters += len(document.text)
        tokens = 0 if document.tokens is None else len(document.tokens)
        self._held += len(document.text) + tokens
        if self._held >= _ENCODED_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Tokenises what waits."""
        _stream(self._waiting, self._job).tofile(self._stream)
        self._waiting, self._held = [], 0


def convert_text(
    source: TextFormat,
    tokenizer: Path | None,
    out: Path,
    *,
    context: int,
    samples_per_shard: int,
    split: SplitConfig | None,
    tail: Literal["drop", "pad"],
    max_skipped: int,
    workers: int,
    progress: Callable[..., None],
    scratch: Path | None = None,
) -> dict[str, int]:
    """Writes shards (+ `validation/` where a split is given), dataset.json and report.json.
    scratch: where a killed conversion of the same goes on."""
    vocabulary = Vocabulary.of(source, tokenizer)
    report = Report("documents", max_skipped)
    folders = [out, out / VALIDATION] if split else [out]
    written = [_Written(folder, vocabulary, context, samples_per_shard) for folder in folders]
    characters = 0
    with (
        TemporaryDirectory(prefix="foundry-convert-") as temporary,
        UnitStore(scratch or Path(temporary), workers=workers) as store,
    ):
        refs, state = source.refs(), SourceState(source)
        pace = Pace(progress, len(refs), "documents")
        jobs = (_job(source, tokenizer, vocabulary, split, ref) for ref in refs)
        units = (_unit(job, state) for job in jobs)
        settings = canonical({"vocabulary": vars(vocabulary), "split": split})
        for done in store.results(tokenise, settings, units, configs=source):
            chunk = _chunk(done.folder)
            report.add(sum(chunk.documents), chunk.skipped)
            report.leave_out("empty text", chunk.empty)
            characters += chunk.characters
            # Without a split the other stream is empty.
            for number, side in enumerate(written):
                side.read(done.folder / _SIDES[number], chunk.documents[number])
            pace.step(
                f"{report.converted} documents, {written[0].tokens} tokens",
                reused=done.reused,
                each=report.converted / pace.next,
            )
        left_over = sum(side.close(tail) for side in written)
        report.write(out, tail_tokens=left_over, tail=tail, characters=characters)
    return {
        "documents": report.converted,
        "skipped": len(report.skipped),
        "characters": characters,
        "tokens": written[0].tokens,
        "sequences": written[0].rows,
        "validation_sequences": written[1].rows if split else 0,
        "tail_tokens": left_over,
    }


def _job(
    source: TextFormat,
    tokenizer: Path | None,
    vocabulary: Vocabulary,
    split: SplitConfig | None,
    ref: SourceRef,
) -> TokenJob:
    return TokenJob(
        source=source,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        split=split,
        ref=ref,
    )


def _unit(job: TokenJob, state: SourceState) -> Unit[TokenJob]:
    ref = job.ref
    needs = "" if job.source.reads(ref) is None else ref.files[0]
    return Unit(name=ref.name, work=job, state=lambda: state([ref]), needs=needs)


def _chunk(folder: Path) -> TokenChunk:
    found: TokenChunk = TypeAdapter(TokenChunk).validate_json((folder / _CHUNK).read_bytes())
    return found


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


class _Written:
    """One output folder: packs its stream into rows and rows into shards."""

    def __init__(
        self, folder: Path, vocabulary: Vocabulary, context: int, samples_per_shard: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._vocabulary, self._context = folder, vocabulary, context
        self._dtype = token_dtype(vocabulary.size)
        self._packer = Packer(context + 1, self._dtype)
        self._writer = ShardFolderWriter(folder, samples_per_shard)
        self._header = _npy_header(context + 1, self._dtype)
        self.rows = self.tokens = self.documents = 0

    def read(self, tokens: Path, documents: int) -> None:
        """Adds the tokens of a piece, some at a time."""
        self.documents += documents
        with tokens.open("rb") as stream:
            while len(some := np.fromfile(stream, self._dtype, _PACKED_AT_ONCE)):
                self.tokens += len(some)
                self._write(self._packer.add(some))

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


def _content(document: Document) -> bytes:
    """What decides on which side it falls: equal documents fall on one, whatever their ids."""
    return document.text.encode() if document.tokens is None else document.tokens.tobytes()


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
