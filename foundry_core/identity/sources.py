"""The fingerprint of a raw source outside the store: installed packages, files, folders.

A source is identified by what it contains, never by where it lies; one on S3 by the names, sizes
and entity tags of its objects, which a listing tells without reading a byte; one on the Hugging
Face hub by its commit, without asking anybody. Hashing gigabytes at
every plan would cost minutes, so file digests are cached under a stat signature.

Limits, what is NOT seen: a file rewritten within the file system's clock tick with its old size
(which is why files younger than two seconds are never cached), an object that is overwritten by one
of the same entity tag, hidden files (a leading dot, see `is_hidden`), and links to nothing. Of a
package that says what it consists of (RECORD), edits by hand in its installed files.

What a reader reads must be what was hashed: readers list folders with `source_files`.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from foundry_core.errors import FoundryError
from foundry_core.files import is_hidden, settled, sha256_hex, sha256_of, signature, walk
from foundry_core.home import cached, keep
from foundry_core.hub import is_hub, parse

if TYPE_CHECKING:
    from foundry_core.objects import Listed, Objects

# What this process took for a source, by absolute path: a stage may read it.
looked_at: set[str] = set()
_EDITABLE = ("__editable__", "_editable_impl_")


def normalized(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def package_fingerprint(name: str) -> str:
    """sha256 over an installed distribution's RECORD, which lists the digest of each of its files.

    Byte-compiled files and installer notes are left out: they differ between equal installs. An
    editable install, or one without RECORD, is identified by the files of its import packages.
    """
    recorded, version, trees = _installed(normalized(name))
    return recorded or _joined(version, [f"{tree.name} {tree_digest(tree)}" for tree in trees])


@cache
def _installed(name: str) -> tuple[str | None, str, tuple[Path, ...]]:
    """A distribution's digest by RECORD, its version, and, where RECORD does not say what is
    imported, the folders and modules to hash instead."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise FoundryError(
            f"source package {name!r} is not installed", f"pip install {name}, or name another"
        ) from None
    version = _version(distribution)
    record = distribution.read_text("RECORD")
    if record is None or is_editable(distribution, record):
        return None, version, _import_trees(distribution, name)
    lines = sorted(
        line
        for line in record.splitlines()
        if ".pyc," not in line and ".dist-info/" not in line and not line.startswith("../")
    )
    return _joined(version, lines), version, ()


def _joined(version: str, lines: list[str]) -> str:
    return sha256_hex("\n".join([version, *lines]))


def is_editable(distribution: importlib.metadata.Distribution, record: str) -> bool:
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable")) or any(
        mark in record for mark in _EDITABLE
    )


def _import_trees(distribution: importlib.metadata.Distribution, name: str) -> tuple[Path, ...]:
    """Where its import packages lie. They are looked up, not imported."""
    stated = (distribution.read_text("top_level.txt") or "").split()
    trees: list[Path] = []
    for module in sorted(stated) or [name.replace("-", "_")]:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:
            trees += map(Path, spec.submodule_search_locations)
        elif spec is not None and spec.origin is not None:
            trees.append(Path(spec.origin))
    if not trees:
        raise FoundryError(
            f"installed package {name!r} does not say which files it consists of",
            f"pip install --force-reinstall {name}, not editable",
        )
    return tuple(trees)


def tree_digest(tree: Path) -> str:
    if tree.is_file():
        return _file_digests([os.path.realpath(tree)])[0]
    return _folder_digest([(n, real) for n, real in _visible(tree) if "__pycache__" not in n])


def _version(distribution: importlib.metadata.Distribution) -> str:
    """`distribution.version` without parsing the whole of METADATA, README included, as an email:
    ten times as fast, for each package at each plan."""
    for line in (distribution.read_text("METADATA") or "").splitlines():
        field, _, value = line.partition(":")
        if field == "Version":
            return value.strip()
        if not line:
            break
    return distribution.version


def is_remote(path: str | os.PathLike) -> bool:
    return "://" in os.fspath(path)


def fingerprint(path: str | os.PathLike) -> str:
    """Content digest of a file, or of a folder as sorted (relative path, sha256); of what lies on
    S3 over sorted (relative name, size, entity tag); of what lies on the hub over commit and place
    in the repository."""
    if is_hub(os.fspath(path)):
        return parse(os.fspath(path)).identity
    if is_remote(path):
        return listing_fingerprint(remote_objects(os.fspath(path))[1])
    root = Path(path).expanduser()
    looked_at.add(os.path.abspath(root))
    return content(root)


def content(root: Path) -> str:
    """`fingerprint` of a file or folder here that belongs to a source which was asked for."""
    if not root.exists():
        raise FoundryError(
            f"source {str(root)!r} does not exist", "check the path in the stage's recipe"
        )
    if root.is_file():
        return _file_digests([os.path.realpath(root)])[0]
    files = list(_visible(root))
    if not files:
        raise FoundryError(f"source folder {str(root)!r} holds no files", "check the path")
    return _folder_digest(files)


def remote_objects(uri: str) -> "tuple[Objects, list[Listed]]":
    """What lies at s3://bucket/prefix, or the one object of that name: the place the names are
    relative to, and the objects sorted by name. Markers of folders and what is hidden (a leading
    dot anywhere) are left out, as on disk."""
    # 7 ms of every plan, for the few that need it
    from foundry_core.objects import connect

    place = connect(uri.rstrip("/"))
    found = [listed for listed in place.find() if _is_visible(listed.name)]
    if not found:
        folder, _, name = uri.rstrip("/").rpartition("/")
        place = connect(folder)
        found = [listed for listed in (place.look(name),) if listed is not None]
    if not found:
        raise FoundryError(f"source {uri!r} holds no objects", "check the path and the credentials")
    return place, found


def _is_visible(name: str) -> bool:
    return not name.endswith("/") and not any(
        is_hidden(part) and part != ".." for part in name.split("/")
    )


def listing_fingerprint(found: "Iterable[Listed]") -> str:
    digest = hashlib.sha256(b"listing\0")
    for listed in found:
        digest.update(f"{listed.name}\0{listed.size}\0{listed.tag}\n".encode())
    return digest.hexdigest()


def source_files(root: Path) -> list[str]:
    """Names, relative to a source's folder, of the files it consists of: sorted, behind links too,
    none hidden (a leading dot in the name of the file or of a folder above it)."""
    return [name for name, _ in sorted(_visible(root), key=_by_parts)]


def source_entries(root: Path, endings: tuple[str, ...]) -> list[str]:
    """What ends so among `source_files`, and what is called like such a file and is none: pipes,
    links to nothing, folders without one. A reader that passed over these would lose them in
    silence."""
    found = [name for name, _ in walk(root, hidden=False, odd=False, named=True)]
    wanted = [name for name in found if name.rstrip("/").endswith(endings)]
    files = [name for name in wanted if not name.endswith("/")]
    empty = [
        folder.rstrip("/")
        for folder in wanted
        if folder.endswith("/") and not any(name.startswith(folder) for name in files)
    ]
    return sorted(files + empty, key=lambda name: name.split("/"))


def source_file(root: Path, name: str) -> Path:
    """The file of that name in a source's folder. Raises FoundryError for a name that the folder's
    identity cannot cover: it leads elsewhere, or is hidden."""
    inside = PurePosixPath(os.path.normpath(name))
    if inside.is_absolute() or any(part == ".." or is_hidden(part) for part in inside.parts):
        raise FoundryError(
            f"{name!r} is not a visible file inside the source's folder",
            "name it relative to that folder; a link inside may lead elsewhere",
        )
    return root / inside


def files_fingerprint(root: str, names: Sequence[str]) -> str:
    """Content digest of many small files below `root`. Remembered as a whole: an entry for each
    would make every plan parse all of them."""
    looked_at.update(os.path.abspath(os.path.join(root, name)) for name in names)
    key = _list_key(root, names)
    known = cached("file-lists.json")
    if key in known:
        return known[key]
    paths = [os.path.join(root, name) for name in names]
    all_settled = all(settled(os.stat(path)) for path in paths)
    digest = _digest_of(zip(names, map(sha256_of, paths), strict=True))
    if all_settled:
        keep("file-lists.json", known | {key: digest})
    return digest


def _list_key(root: str, names: Sequence[str]) -> str:
    """What a cache knows the files by. A plan asks for a thousand of them in 3 ms: relative to a
    descriptor, a third faster than by whole paths, and without mtime, which ctime follows."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        signatures = [
            f"{stat.st_size}|{stat.st_ctime_ns}|{stat.st_ino}"
            for stat in (os.stat(name, dir_fd=descriptor) for name in names)
        ]
    finally:
        os.close(descriptor)
    return sha256_hex("\n".join([root, *names, *signatures]))


def _by_parts(file: tuple[str, str]) -> list[str]:
    return file[0].split("/")


def _visible(root: Path) -> Iterator[tuple[str, str]]:
    """(relative name, real path) of each file that `source_files` names, unsorted."""
    return walk(root, hidden=False, odd=False)


def _folder_digest(files: list[tuple[str, str]]) -> str:
    """files: (relative name, real path)"""
    files = sorted(files, key=_by_parts)
    digests = _file_digests([real for _, real in files])
    return _digest_of((name, sha) for (name, _), sha in zip(files, digests, strict=True))


def _digest_of(files: Iterable[tuple[str, str]]) -> str:
    """files: (relative name, sha256)"""
    digest = hashlib.sha256()
    for name, sha in files:
        digest.update(f"{name}\0{sha}\n".encode())
    return digest.hexdigest()


# What this process learnt, for who has no home to keep it in.
_learnt: dict[str, str] = {}


def _file_digests(files: Iterable[str | os.PathLike]) -> list[str]:
    """sha256 of each file, through the cache of this home."""
    known = cached("source-digests.json")
    digests: list[str] = []
    learnt: dict[str, str] = {}
    for file in files:
        stat = os.stat(file)
        state = "|".join([os.fspath(file), *map(str, signature(stat))])
        sha = known.get(state) or _learnt.get(state)
        if sha is None:
            sha = sha256_of(file)
            if settled(stat):
                learnt[state] = sha
        digests.append(sha)
    if learnt:
        _learnt.update(learnt)
        keep("source-digests.json", known | learnt)
    return digests
