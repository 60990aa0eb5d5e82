"""Text sources: refs that split the work, and reading one ref into documents.

A ref is a piece of roughly `CHUNK` bytes; refs and their order depend on the source alone, never
on the number of workers.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundry_core.config.suggest import nearest
from foundry_core.data.shards.index import scan_tar
from foundry_core.data.shards.tar import read_span
from foundry_core.data.sources.config import (
    JsonLines,
    PackageDocs,
    Parquet,
    PlainText,
    TextSource,
    TextTars,
    TokenTars,
)
from foundry_core.data.sources.files import find_files, groups_by_size, line_ranges
from foundry_core.data.sources.packages import package_documents, package_modules
from foundry_core.errors import FoundryError

CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TextRef:
    """A piece of a source: files (paths as strings), or a range of one file.

    name: what reports call it. start/stop: bytes (jsonl), members (tars) or row groups (parquet).
    """

    name: str
    files: tuple[str, ...]
    start: int = 0
    stop: int = -1


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text; `tokens` (uint32) instead, where the source was tokenised by others."""

    id: str
    text: str = ""
    tokens: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A document that could not be read, and why: counted, recorded, and limited by the recipe."""

    id: str
    reason: str


def text_refs(source: TextSource) -> list[TextRef]:
    """The source's pieces in canonical order. Raises FoundryError where there is nothing."""
    match source:
        case PackageDocs():
            refs = [
                TextRef(name=f"{package}[{number}]", files=(package, *group))
                for package in source.packages
                for number, group in enumerate(groups_by_size(package_modules(package), CHUNK))
            ]
        case JsonLines():
            refs = _jsonl_refs(source)
        case PlainText():
            files = find_files(source.path, (".txt", ".md"))
            sized = [(str(file), file.stat().st_size) for file in files]
            groups = groups_by_size(sized, CHUNK)
            refs = [TextRef(name=Path(group[0]).name, files=group) for group in groups]
        case Parquet():
            refs = _parquet_refs(source)
        case TextTars() | TokenTars():
            refs = _tar_refs(source)
    if not refs:
        raise FoundryError(f"the {source.format} source yields no documents", "check the recipe")
    return refs


def read_text(source: TextSource, ref: TextRef) -> Iterator[Document | Broken]:
    match source:
        case PackageDocs():
            for name, text in package_documents(ref.files[0], ref.files[1:]):
                if len(text) >= source.min_characters:
                    yield Document(id=name, text=text)
        case JsonLines():
            yield from _read_jsonl(source, ref)
        case PlainText():
            for file in ref.files:
                yield _decoded(Path(file).name, Path(file).read_bytes())
        case Parquet():
            yield from _read_parquet(source, ref)
        case TextTars():
            for name, data in _tar_members(ref):
                yield _tar_document(name, data, source.field)
        case TokenTars():
            for name, data in _tar_members(ref):
                yield _token_document(name, data, source.vocab_size)


def _jsonl_refs(source: JsonLines) -> list[TextRef]:
    """Plain files by byte ranges that begin at lines; compressed ones whole (they cannot seek)."""
    refs: list[TextRef] = []
    for file in find_files(source.path, (".jsonl", ".jsonl.gz")):
        if file.name.endswith(".gz"):
            refs.append(TextRef(name=file.name, files=(str(file),)))
            continue
        refs += [
            TextRef(name=f"{file.name}@{start}", files=(str(file),), start=start, stop=stop)
            for start, stop in line_ranges(file, CHUNK)
        ]
    return refs


def _read_jsonl(source: JsonLines, ref: TextRef) -> Iterator[Document | Broken]:
    path = Path(ref.files[0])
    if path.name.endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            try:
                for number, line in enumerate(stream):
                    yield from _json_document(f"{path.name}:{number + 1}", line, source.field)
            except (OSError, EOFError, zlib.error) as error:
                raise FoundryError(f"{str(path)!r} is truncated or damaged: {error}") from error
        return
    with path.open("rb") as stream:
        stream.seek(ref.start)
        position = ref.start
        while position < ref.stop:
            line = stream.readline()
            yield from _json_document(f"{path.name}@{position}", line, source.field)
            position += len(line)


def _json_document(name: str, line: bytes, field: str) -> Iterator[Document | Broken]:
    if not line.strip():
        return
    try:
        record = json.loads(line)
    except ValueError as error:
        yield Broken(id=name, reason=f"not JSON: {error}")
        return
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        names = record if isinstance(record, dict) else ()
        yield Broken(id=name, reason=f"no string field {field!r}: {nearest(field, names)}")
        return
    yield Document(id=name, text=record[field])


def _parquet_refs(source: Parquet) -> list[TextRef]:
    import pyarrow.parquet as pq

    refs: list[TextRef] = []
    for file in find_files(source.path, (".parquet",)):
        table = pq.ParquetFile(file)
        if source.field not in table.schema_arrow.names:
            raise FoundryError(
                f"{str(file)!r} has no column {source.field!r}",
                nearest(source.field, table.schema_arrow.names),
            )
        refs += [
            TextRef(name=f"{file.name}[{group}]", files=(str(file),), start=group, stop=group + 1)
            for group in range(table.num_row_groups)
        ]
    return refs


def _read_parquet(source: Parquet, ref: TextRef) -> Iterator[Document | Broken]:
    import pyarrow.parquet as pq

    column = pq.ParquetFile(ref.files[0]).read_row_group(ref.start, columns=[source.field])
    for number, value in enumerate(column[source.field].to_pylist()):
        name = f"{ref.name}:{number}"
        if isinstance(value, str):
            yield Document(id=name, text=value)
        else:
            yield Broken(id=name, reason=f"{source.field!r} is {value!r}, not a string")


def _tar_refs(source: TextTars | TokenTars) -> list[TextRef]:
    refs: list[TextRef] = []
    for file in find_files(source.path, (".tar",)):
        index = scan_tar(file)
        sized = [(number, int(size)) for number, size in enumerate(index.sizes)]
        refs += [
            TextRef(
                name=f"{file.name}[{group[0]}]",
                files=(str(file),),
                start=group[0],
                stop=group[-1] + 1,
            )
            for group in groups_by_size(sized, CHUNK)
        ]
    return refs


def _tar_members(ref: TextRef) -> Iterator[tuple[str, bytes]]:
    path = Path(ref.files[0])
    index = scan_tar(path)
    with path.open("rb") as stream:
        for member in range(ref.start, ref.stop):
            data = read_span(stream, int(index.offsets[member]), int(index.sizes[member]))
            yield f"{path.name}/{index.names[member]}", data


def _tar_document(name: str, data: bytes, field: str) -> Document | Broken:
    if data[:1] == b"{":
        try:
            record = json.loads(data)
        except ValueError:
            record = None  # plain text that happens to begin with a brace
        if isinstance(record, dict) and isinstance(record.get(field), str):
            return Document(id=name, text=record[field])
        if isinstance(record, dict):
            return Broken(id=name, reason=f"no string field {field!r}: {nearest(field, record)}")
    return _decoded(name, data)


def _token_document(name: str, data: bytes, vocab_size: int) -> Document | Broken:
    try:
        values = json.loads(gzip.decompress(data) if name.endswith(".gz") else data)
        tokens = np.asarray(values, dtype=np.int64)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        return Broken(id=name, reason=f"not a list of token ids: {error}")
    if tokens.ndim != 1 or not len(tokens):
        return Broken(id=name, reason=f"not a flat, non-empty list of token ids: {tokens.shape}")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise FoundryError(
            f"{name} holds the token id {int(tokens[np.abs(tokens).argmax()])}, outside the "
            f"vocabulary of {vocab_size}",
            "set the source's vocab_size to that of the tokenizer that wrote it",
        )
    return Document(id=name, tokens=tokens.astype(np.uint32))


def _decoded(name: str, data: bytes) -> Document | Broken:
    try:
        return Document(id=name, text=data.decode())
    except UnicodeDecodeError as error:
        return Broken(id=name, reason=f"not UTF-8: {error.reason} at byte {error.start}")
