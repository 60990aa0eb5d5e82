"""Files as this project reads and writes them, one rule each: digests, signatures, whole writes,
walks, JSON. Everything else goes through these, so that a rule is changed in one place.

JSON documents have one spelling (sorted keys, an indent of one, UTF-8, no NaN): equal values are
equal bytes, and a person can read what lies on the disk.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from foundry_core.errors import FoundryError

# size, mtime, ctime, inode. ctime is in it because a tool that restores mtime cannot set it back.
Signature = tuple[int, int, int, int]
# The coarsest clock of a file system in use (FAT).
_FRESH_SECONDS = 2.0
_ZARR_METADATA = frozenset({".zarray", ".zattrs", ".zgroup", ".zmetadata"})


def sha256_hex(data: bytes | str) -> str:
    """64 hex digits; text counts as UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The digest of a file's bytes, 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash64(data: bytes | str) -> int:
    """The first eight bytes of the digest as a number below 2**64: draws that depend on a name or
    a content alone, whoever asks."""
    encoded = data.encode() if isinstance(data, str) else data
    return int.from_bytes(hashlib.sha256(encoded).digest()[:8], "little")


def signature(stat: os.stat_result) -> Signature:
    """Tells two states of a file apart without reading it, as long as it is `settled`."""
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def settled(stat: os.stat_result) -> bool:
    """Whether a cache may know a file's content by its signature: one that was edited a moment ago
    could be edited again without the signature moving."""
    return time.time() - stat.st_ctime > _FRESH_SECONDS


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Replaces a file: whoever reads sees the old bytes or the new ones, whole.

    durable: after a crash of the machine too, for the price of two fsyncs. Makes missing folders.
    """
    with replacing(path) as temporary:
        _write_new(temporary, data, durable)
    if durable:
        sync(path.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file to; the file replaces `path` when the block ends, and is
    gone when the block raises."""
    temporary = _temporary(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def create(path: Path, data: bytes | str, *, durable: bool = True, mode: int = 0o666) -> bool:
    """Writes a file unless its name is taken, then False and nothing is changed. Of any number of
    callers at once, one gets True."""
    temporary = _temporary(path)
    try:
        _write_new(temporary, data, durable, mode)
        created = _linked(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if created and durable:
        sync(path.parent)
    return created


def create_all(files: Sequence[tuple[Path, bytes]]) -> list[bool]:
    """`create` of each, durably: after a crash a first part of them is there. The disk is waited
    for together, which for many small files costs a fraction of one after the other."""
    if len(files) == 1:
        return [create(*files[0])]
    from concurrent.futures import ThreadPoolExecutor  # 4 ms, of every plan

    temporaries = [_temporary(path) for path, _ in files]
    try:
        for temporary, (_, data) in zip(temporaries, files, strict=True):
            _write_new(temporary, data, durable=False)
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(sync, temporaries))
        done = [_linked(t, path) for t, (path, _) in zip(temporaries, files, strict=True)]
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
    for folder in {path.parent for path, _ in files}:
        sync(folder)
    return done


def _linked(temporary: Path, path: Path) -> bool:
    try:
        # link() refuses a taken name, which rename() would silently replace.
        os.link(temporary, path)
    except FileExistsError:
        return False
    return True


def sync(path: str | os.PathLike[str]) -> None:
    """Brings a file's bytes, or a folder's names, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")


def _write_new(path: Path, data: bytes | str, durable: bool, mode: int = 0o666) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


def names_in(folder: str | os.PathLike[str]) -> list[str]:
    """Sorted names directly below, hidden ones left out; [] when there is no such folder."""
    try:
        found = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in found if not name.startswith("."))


def extent(path: Path) -> tuple[int, float]:
    """(bytes, time of the newest change) of a file, or of a folder with all that lies in it. What
    is deleted meanwhile does not count."""
    below = (
        os.path.join(folder, name)
        for folder, folders, names in os.walk(path)
        for name in (*folders, *names)
    )
    size, newest = 0, 0.0
    for name in itertools.chain([os.fspath(path)], below):
        with contextlib.suppress(FileNotFoundError):
            stat = os.stat(name)
            newest = max(newest, stat.st_mtime)
            size += stat.st_size if S_ISREG(stat.st_mode) else 0
    return size, newest


def is_hidden(name: str) -> bool:
    """By a leading dot. What Zarr arrays are of lies in such files: these are data."""
    return name.startswith(".") and name not in _ZARR_METADATA


def walk(
    folder: str | os.PathLike[str],
    *,
    hidden: bool = True,
    odd: bool = True,
    loops: bool = False,
    named: bool = False,
) -> Iterator[tuple[str, str]]:
    """(relative posix name, real path) of every file that a reader of the folder finds, links
    followed, in no order.

    hidden: names that `is_hidden` calls so, too. odd: what has no bytes to read (pipes, sockets,
    links to nothing) raises FoundryError; else it is passed over. loops: passes over a link that
    leads back to a folder around it, whose files are found anyway. named: gives folders, too, a
    slash behind their names, and what is odd. Raises FoundryError for folders that may not be
    read, for names that are not UTF-8, and for such a link without `loops`.
    """
    real = os.path.realpath(folder)
    yield from _walk(os.fspath(folder), "", real, (real,), _Rules(hidden, odd, loops, named))


class _Rules(NamedTuple):
    hidden: bool
    odd: bool
    loops: bool
    named: bool


def _walk(
    folder: str, prefix: str, real: str, around: tuple[str, ...], rules: _Rules
) -> Iterator[tuple[str, str]]:
    """around: the real paths of the folders on the way here, this one included."""
    for entry in _entries(folder):
        if is_hidden(entry.name) and not rules.hidden:
            continue
        if not encodable(entry.name):
            raise FoundryError(f"{entry.path!a}: the name is not UTF-8", "rename it")
        link = entry.is_symlink()
        target = os.path.realpath(entry.path) if link else f"{real}/{entry.name}"
        kind = _kind(entry, target)
        if kind == "file":
            yield prefix + entry.name, target
        elif kind == "folder":
            if link and any(f"{one}/".startswith(f"{target.rstrip('/')}/") for one in around):
                if rules.loops:
                    continue
                raise _loop(entry.path, target)
            inside = f"{prefix}{entry.name}/"
            if rules.named:
                yield inside, target
            yield from _walk(entry.path, inside, target, (*around, target), rules)
        elif rules.named:
            yield prefix + entry.name, target
        elif rules.odd and link and not os.path.exists(target):
            raise FoundryError(f"{entry.path} links to nothing", "remove or mend it")
        elif rules.odd:
            raise FoundryError(f"{entry.path} is neither file nor folder", "remove it")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError:
        raise FoundryError(
            f"folder {folder!r} may not be read", "grant access, or take it out"
        ) from None


def _kind(entry: os.DirEntry[str], target: str) -> str:
    """'file', 'folder' or ''. What is no link costs no system call of its own."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else ""
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _loop(entry.path, target) from None


def _loop(link: str, target: str) -> FoundryError:
    return FoundryError(
        f"link {link!r} leads back to {target!r}: the folder has no end", "remove the link"
    )


def encodable(text: str) -> bool:
    """Whether a name or a text is UTF-8: file systems and JSON may hold lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_text(value: Any, *, nan: bool = False) -> str:
    """A document: TypeError for what is no JSON, ValueError for NaN and infinity.

    nan: spells them as Python reads them (other readers may not): the metrics of a training that
    diverged are a result, too.
    """
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=nan) + "\n"


def json_line(value: Any) -> str:
    """The same value as one line, for files that grow by lines."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    write_atomic(path, json_text(value), durable=durable)


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    write_atomic(path, "".join(map(json_line, values)))


def read_json(path: Path) -> Any:
    """Raises FileNotFoundError, and ValueError for what is no JSON in UTF-8."""
    return json.loads(path.read_bytes())


def read_cache(path: Path) -> Any:
    """The JSON of a cache file; None when there is none, or none that can be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
