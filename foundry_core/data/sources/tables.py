"""Tables that others wrote, as batches of rows: Parquet files, and what the library `datasets`
saves (Arrow streams). Read with pyarrow alone, a few rows at a time.
"""

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from foundry_core.config.suggest import nearest
from foundry_core.data.sources.base import PathSource, SourceRef
from foundry_core.data.sources.files import PIECE_BYTES, find_files, groups_by_size, has_files
from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.identity.sources import source_file

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_BYTES, _BATCH_ROWS = 1 << 24, 1024
_END_MARK = b"\xff\xff\xff\xff\0\0\0\0"
_STATE, _SPLITS = "state.json", "dataset_dict.json"


class DamagedTable(FoundryError):
    """A file, or a part of it, that is not readable."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Neighbouring rows of a file; `first` is the place of the first of them in the file."""

    first: int
    batch: "pa.RecordBatch"

    def column(self, name: str) -> "pa.Array":
        """A column, or one inside of structs by a path joined by dots."""
        import pyarrow as pa
        import pyarrow.compute as pc

        known = set(self.batch.schema.names)
        column, *inner = [name] if name in known else name.split(".")
        try:
            found = self.batch.column(column)
            return pc.struct_field(found, inner) if inner else found
        except (KeyError, pa.ArrowException) as error:
            raise DamagedTable(f"it has no column {name!r}") from error


class TableSource(PathSource):
    """Base of the formats that are tables."""

    @abstractmethod
    def pieces(self) -> list[SourceRef]:
        """Runs of row groups or batches. A file that does not open is a piece with stop -1."""

    @abstractmethod
    def rows(self, ref: SourceRef, columns: tuple[str, ...]) -> Iterator[Rows]:
        """The rows of a piece. Raises DamagedTable where they cannot be read."""

    @abstractmethod
    def table_schema(self) -> "pa.Schema":
        """Of the first file that opens."""

    @abstractmethod
    def counted(self) -> int:
        """All rows, by what the files say of themselves."""

    def column_type(self, name: str) -> "pa.DataType":
        """FoundryError where the first file has no such column."""
        schema = self.table_schema()
        found = leaf_types(schema)
        if name in schema.names:
            return schema.field(name).type
        if name not in found:
            raise FoundryError(f"{self.path!r} has no column {name!r}", nearest(name, found))
        return found[name]

    def column_types(self) -> Mapping[str, str]:
        """Name → type; what lies in structs by its path."""
        return {name: str(found) for name, found in leaf_types(self.table_schema()).items()}


def leaf_types(schema: "pa.Schema") -> "dict[str, pa.DataType]":
    """Path → type, of all columns; structs of image bytes are one column."""
    import pyarrow as pa

    found: dict[str, pa.DataType] = {}
    waiting = [(field.name, field.type) for field in schema]
    while waiting:
        path, kind = waiting.pop(0)
        if pa.types.is_struct(kind) and not is_image(kind):
            inner = [kind.field(n) for n in range(kind.num_fields)]
            waiting = [(f"{path}.{one.name}", one.type) for one in inner] + waiting
        else:
            found[path] = kind
    return found


def is_image(kind: "pa.DataType") -> bool:
    """Bytes, or the struct<bytes, path> of the library `datasets`; lists of them."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return is_image(kind.value_type)
    if pa.types.is_struct(kind):
        names = {kind.field(n).name for n in range(kind.num_fields)}
        return "bytes" in names and names <= {"bytes", "path"}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def is_text(kind: "pa.DataType") -> bool:
    """Strings of any width, encoded by a dictionary too."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in known)


@contextmanager
def _readable(where: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DamagedTable(f"{where} is not readable: {error}", "fetch it again") from error


class ParquetFiles(TableSource):
    """.parquet files; a piece is a row group."""

    @classmethod
    def matches(cls, path: Path) -> bool:
        return has_files(path, (".parquet",))

    def _files(self) -> list[Path]:
        return find_files(self.path, (".parquet",))

    def pieces(self) -> list[SourceRef]:
        refs: list[SourceRef] = []
        for file in self._files():
            files = (str(file),)
            try:
                groups = _parquet(file).num_row_groups
            except DamagedTable:
                refs.append(SourceRef(name=file.name, files=files))
                continue
            refs += [
                SourceRef(name=f"{file.name}[{n}]", files=files, start=n, stop=n + 1)
                for n in range(groups)
            ]
        return refs

    def rows(self, ref: SourceRef, columns: tuple[str, ...]) -> Iterator[Rows]:
        table = _parquet(ref.path)
        groups = [table.metadata.row_group(n) for n in range(table.num_row_groups)]
        first = sum(group.num_rows for group in groups[: ref.start])
        group = groups[ref.start]
        per_row = max(1, group.total_byte_size // max(1, group.num_rows))
        size = max(1, min(_BATCH_ROWS, _BATCH_BYTES // per_row))
        with _readable(f"{ref.name} (rows {first} to {first + group.num_rows - 1})"):
            for batch in table.iter_batches(size, row_groups=[ref.start], columns=list(columns)):
                yield Rows(first=first, batch=batch)
                first += len(batch)

    def table_schema(self) -> "pa.Schema":
        return _first_schema(self._files(), lambda file: _parquet(file).schema_arrow)

    def counted(self) -> int:
        total = 0
        for file in self._files():
            try:
                total += _parquet(file).metadata.num_rows
            except DamagedTable:
                continue
        return total


def _parquet(file: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    with _readable(str(file)):
        return ParquetFile(file, buffer_size=PIECE_BYTES, pre_buffer=False)


class SavedDataset(TableSource):
    """What `save_to_disk` of the library `datasets` writes, or .arrow files; a piece is a run of
    batches. split: of a folder that holds several."""

    split: str | None = Field(
        None, min_length=1, description="of a folder that holds several; null: it holds one"
    )

    @classmethod
    def matches(cls, path: Path) -> bool:
        return has_files(path, (".arrow",))

    def _files(self) -> list[Path]:
        """In the order of state.json; of a folder without one by name."""
        folder = self._folder()
        if not (folder / _STATE).is_file():
            return find_files(str(folder), (".arrow",))
        state = _document(folder / _STATE)
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise FoundryError(
                f"{str(folder)!r} is a selection of rows, which datasets writes no more",
                "load and save it again with the library datasets",
            )
        listed = state.get("_data_files")
        names = [one.get("filename") for one in listed or [] if isinstance(one, dict)]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise FoundryError(f"{str(folder / _STATE)!r} lists no _data_files", "save it again")
        return [source_file(folder, str(name)) for name in names]

    def _folder(self) -> Path:
        if self.root.is_file() or not (self.root / _SPLITS).is_file():
            if self.split is not None:
                raise FoundryError(f"{self.path!r} has no splits", "leave out split")
            return self.root
        known = [str(name) for name in _document(self.root / _SPLITS).get("splits") or []]
        if self.split is None and len(known) == 1:
            return source_file(self.root, known[0])
        if self.split is None:
            raise FoundryError(
                f"{self.path!r} holds the splits {', '.join(known)}", "name one as split"
            )
        if self.split not in known:
            raise FoundryError(
                f"{self.path!r} has no split {self.split!r}", nearest(self.split, known)
            )
        return source_file(self.root, self.split)

    def pieces(self) -> list[SourceRef]:
        refs: list[SourceRef] = []
        for file in self._files():
            files = (str(file),)
            try:
                sized = [
                    # Not nbytes, which follows offsets that nobody has validated.
                    (n, batch.get_total_buffer_size())
                    for n, batch in enumerate(_batches(file))
                ]
            except DamagedTable:
                refs.append(SourceRef(name=file.name, files=files))
                continue
            refs += [
                SourceRef(
                    name=f"{file.name}[{group[0]}]", files=files, start=group[0], stop=group[-1] + 1
                )
                for group in groups_by_size(sized, PIECE_BYTES)
            ]
        return refs

    def rows(self, ref: SourceRef, columns: tuple[str, ...]) -> Iterator[Rows]:
        first = 0
        for number, batch in enumerate(_batches(ref.path)):
            if ref.start <= number and (ref.stop < 0 or number < ref.stop):
                known = [name for name in batch.schema.names if name in _roots(columns)]
                wanted = batch.select(known)
                with _readable(f"{ref.path.name} from row {first}"):
                    wanted.validate(full=True)
                yield Rows(first=first, batch=wanted)
            elif number >= ref.stop >= 0:
                return
            first += len(batch)

    def table_schema(self) -> "pa.Schema":
        return _first_schema(self._files(), lambda file: _stream(file).schema)

    def counted(self) -> int:
        total = 0
        for file in self._files():
            try:
                total += sum(len(batch) for batch in _batches(file))
            except DamagedTable:
                continue
        return total


def _roots(columns: tuple[str, ...]) -> set[str]:
    """The columns themselves, and those whose structs they lie in."""
    return {*columns, *(name.partition(".")[0] for name in columns)}


def _batches(file: Path) -> "Iterator[pa.RecordBatch]":
    """Of a stream, or of the file format; mapped, so that what is passed over is not read."""
    reader = _stream(file)
    with _readable(str(file)):
        if hasattr(reader, "num_record_batches"):
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
            return
        yield from reader
        if not _ended(file):
            raise OSError("it is cut short between two batches")


def _ended(file: Path) -> bool:
    """Whether a stream has its end mark: pyarrow takes a file that stops without one for whole.
    Streams of before 2019 begin otherwise and are not looked at."""
    with file.open("rb") as stream:
        if stream.read(4) != _END_MARK[:4]:
            return True
        stream.seek(-len(_END_MARK), os.SEEK_END)
        return stream.read() == _END_MARK


def _stream(file: Path) -> Any:
    import pyarrow as pa

    with _readable(str(file)):
        mapped = pa.memory_map(str(file))
        if mapped.read(6) == b"ARROW1":
            return pa.ipc.open_file(mapped)
        mapped.seek(0)
        return pa.ipc.open_stream(mapped)


def _first_schema(files: list[Path], schema: Any) -> "pa.Schema":
    problem: DamagedTable | None = None
    for file in files:
        try:
            with _readable(str(file)):
                found = schema(file)
                leaf_types(found)  # names are decoded when they are asked for
            return found
        except DamagedTable as error:
            problem = problem or error
    raise problem or FoundryError("there is no table", "check the path")


def _document(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise FoundryError(f"{str(path)!r} is not readable: {error}", "save it again") from error
    if not isinstance(found, dict):
        raise FoundryError(f"{str(path)!r} is no JSON object", "save it again")
    return found
