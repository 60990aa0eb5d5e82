"""What formats share: finding files, splitting them into pieces whose borders depend on the content
alone, tars of documents."""

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from foundry_core.config.suggest import nearest
from foundry_core.data.sources.base import (
    MAX_DOCUMENT,
    Broken,
    Document,
    PathSource,
    Reads,
    SourceRef,
    TextFormat,
)
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import source_entries, source_files

T = TypeVar("T")
# About what one worker reads at once.
PIECE_BYTES = 1 << 20
_MOST_FIELDS = 100
# How far a look goes that only asks what a folder may be.
LOOK_LEVELS, LOOK_ENTRIES = 12, 20_000
_MARK_LEVELS = 5


def look(root: Path, levels: int = LOOK_LEVELS) -> Iterator[Path]:
    """`root` itself where it is a file; else files at most `levels` folders below it, a folder's
    own first, none hidden. After LOOK_ENTRIES names it stops: whoever looks for a mark may miss it.
    """
    if root.is_file():
        yield root
    left = LOOK_ENTRIES
    folders = [(root, 1)] if root.is_dir() else []
    while folders and left > 0:
        folder, level = folders.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted(islice(entries, left), key=lambda entry: entry.name)
        except OSError:
            continue  # not ours to read: nothing that is known lies in it
        left -= len(found)
        shown = [entry for entry in found if not entry.name.startswith(".")]
        yield from (folder / entry.name for entry in shown if entry.is_file())
        if level < levels:
            below = [(folder / entry.name, level + 1) for entry in shown if entry.is_dir()]
            folders += reversed(below)


def find_files(path: str, endings: tuple[str, ...], *, odd: bool = False) -> list[Path]:
    """`path` itself, or the files below it with one of the endings, by relative name. odd: and what
    is called so and is no file, for readers that count it as damaged."""
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FoundryError(f"source {str(root)!r} does not exist", "check the path in the recipe")
    names = source_files(root)
    held = source_entries(root, endings) if odd else [n for n in names if n.endswith(endings)]
    files = [root / name for name in sorted(held)]
    if not files:
        others = sorted({Path(name).suffix for name in names})
        raise FoundryError(
            f"source {str(root)!r} holds no file that ends in {' or '.join(endings)}",
            f"it holds files ending in: {', '.join(others) or 'nothing'}",
        )
    return files


def has_files(path: Path, endings: tuple[str, ...]) -> bool:
    """Whether a look finds a file of one of the endings: `path` itself, or below it."""
    return any(file.name.endswith(endings) for file in look(path))


def marked_below(path: Path, mark: str) -> Path | None:
    """The first folder below `path` that holds a file of the name `mark`, some levels down."""
    parts = Path(mark).parts
    for file in look(path, _MARK_LEVELS):
        if file.parts[-len(parts) :] == parts:
            return file.parents[len(parts) - 1]
    return None


def groups_by_size(items: Iterable[tuple[T, int]], limit: int) -> list[tuple[T, ...]]:
    """Consecutive (item, size) pairs as groups of about `limit`; at least one item each."""
    groups: list[tuple[T, ...]] = []
    group: list[T] = []
    total = 0
    for item, size in items:
        if group and total + size > limit:
            groups.append(tuple(group))
            group, total = [], 0
        group.append(item)
        total += size
    return [*groups, tuple(group)] if group else groups


def tar_refs(path: str) -> list[SourceRef]:
    """Runs of neighbouring members of the tars at `path`."""
    from foundry_core.data.shards.index import scan_tar

    refs: list[SourceRef] = []
    for file in find_files(path, (".tar",)):
        sized = [(number, int(size)) for number, size in enumerate(scan_tar(file).sizes)]
        refs += [
            SourceRef(
                name=f"{file.name}[{group[0]}]",
                files=(str(file),),
                start=group[0],
                stop=group[-1] + 1,
            )
            for group in groups_by_size(sized, PIECE_BYTES)
        ]
    return refs


def tar_members(ref: SourceRef) -> Iterator[tuple[str, bytes]]:
    """("tar/member", bytes) of a piece that `tar_refs` gave; of a member beyond MAX_DOCUMENT that
    many and one more."""
    from foundry_core.data.shards.index import scan_tar
    from foundry_core.data.shards.tar import read_span

    index = scan_tar(ref.path)
    with ref.path.open("rb") as stream:
        for member in range(ref.start, ref.stop):
            size = min(int(index.sizes[member]), MAX_DOCUMENT + 1)
            data = read_span(stream, int(index.offsets[member]), size)
            yield f"{ref.path.name}/{index.names[member]}", data


class DocumentTars(TextFormat, PathSource):
    """Base of the formats whose documents are the members of tars."""

    def refs(self) -> list[SourceRef]:
        return tar_refs(self.path)

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read(self, ref: SourceRef) -> Iterator[Document | Broken]:
        from foundry_core.data.shards.walk import DamagedTar

        try:
            for name, data in tar_members(ref):
                if len(data) > MAX_DOCUMENT:
                    yield Broken(id=name, reason=f"the member is longer than {MAX_DOCUMENT} bytes")
                else:
                    yield self._document(name, data)
        except DamagedTar as error:
            yield Broken(id=ref.name, reason=f"{error.message}; what follows is lost")

    @abstractmethod
    def _document(self, name: str, data: bytes) -> Document | Broken: ...


def text_field(name: str, record: object, field: str) -> Document | Broken:
    """A document of a JSON value: an object with the text under `field`."""
    if not isinstance(record, dict):
        return Broken(id=name, reason=f"a {type(record).__name__}, not an object with {field!r}")
    value = value_at(record, field)
    if isinstance(value, str):
        return Document(id=name, text=value)
    if value is None:
        return Broken(
            id=name, reason=f"no string field {field!r}: {nearest(field, leaves(record))}"
        )
    return Broken(id=name, reason=f"{field!r} is of type {type(value).__name__}, not a string")


def value_at(record: object, field: str) -> Any:
    """What an object holds under a name, or under a path of names joined by dots; None where there
    is nothing."""
    if not isinstance(record, dict):
        return None
    if field in record or "." not in field:
        return record.get(field)
    first, _, rest = field.partition(".")
    return value_at(record.get(first), rest)


def leaves(record: object) -> dict[str, Any]:
    """Path → value of all that an object and the objects in it hold; the first hundred."""
    found: dict[str, Any] = {}
    waiting = [("", record)] if isinstance(record, dict) else []
    while waiting and len(found) < _MOST_FIELDS:
        path, value = waiting.pop(0)
        if isinstance(value, dict) and value:
            waiting += [(f"{path}.{name}" if path else name, one) for name, one in value.items()]
        elif path:
            found[path] = value
    return found


def field_types(records: Iterable[object]) -> dict[str, str]:
    """Path → type, of what some records hold; null where none has a value."""
    found: dict[str, str] = {}
    for record in records:
        for path, value in leaves(record).items():
            if value is not None:
                found[path] = type(value).__name__
            found.setdefault(path, "null")
    return found


def tar_files(path: Path, start: int = 0, stop: int = -1) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every file of a tar, or of what lies between two ends of members; of a file
    beyond MAX_DOCUMENT that many and one more. Raises DamagedTar behind the last whole one."""
    from foundry_core.data.shards.tar import read_span
    from foundry_core.data.shards.walk import walk_tar

    with path.open("rb") as stream:
        for member in walk_tar(path, start, stop):
            yield member.name, read_span(stream, member.offset, min(member.size, MAX_DOCUMENT + 1))


def decoded(name: str, data: bytes) -> Document | Broken:
    """A document of UTF-8 bytes."""
    try:
        return Document(id=name, text=data.decode())
    except UnicodeDecodeError as error:
        return Broken(id=name, reason=f"not UTF-8: {error.reason} at byte {error.start}")
