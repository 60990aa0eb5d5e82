"""Content identities of what lies outside the store: installed packages, files, folders.

A source is identified by what it contains, never by where it lies; one on S3 by the names, sizes
and entity tags of its objects, which a listing tells without reading a byte. Hashing gigabytes at
every plan would cost minutes, so file digests are cached under a stat signature (path, size,
mtime_ns, inode); a file rewritten within the file system's clock tick keeps its signature only if
its size stays equal too, which is why files younger than two seconds are never cached.

What a reader reads must be what was hashed: readers list folders with `source_files`.
"""

import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from foundry_core.errors import FoundryError
from foundry_core.files import settled, write_cache
from foundry_core.home import cache_dir

_EDITABLE = ("__editable__", "_editable_impl_")


def normalized(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def package_identity(name: str) -> str:
    """sha256 over an installed distribution's RECORD, which lists the digest of each of its files.

    Byte-compiled files and installer notes are left out: they differ between equal installs. An
    editable install, or one without RECORD, is identified by the files of its import packages.
    """
    recorded, version, trees = _installed(normalized(name))
    if recorded is not None:
        return recorded
    lines = [f"{tree.name} {_tree_identity(tree)}" for tree in trees]
    return _joined(version, lines)


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
    if record is None or _is_editable(distribution, record):
        return None, version, _import_trees(distribution, name)
    lines = sorted(
        line
        for line in record.splitlines()
        if ".pyc," not in line and ".dist-info/" not in line and not line.startswith("../")
    )
    return _joined(version, lines), version, ()


def _joined(version: str, lines: list[str]) -> str:
    return hashlib.sha256("\n".join([version, *lines]).encode()).hexdigest()


def _is_editable(distribution: importlib.metadata.Distribution, record: str) -> bool:
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


def _tree_identity(tree: Path) -> str:
    if tree.is_file():
        return _file_digests([os.path.realpath(tree)])[0]
    return _folder_digest([(n, real) for n, real in _walk(tree) if "__pycache__" not in n])


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


def path_identity(path: str | os.PathLike) -> str:
    """Content digest of a file, or of a folder as sorted (relative path, sha256); of what lies on
    S3 over sorted (relative name, size, entity tag)."""
    if is_remote(path):
        # 7 ms of every plan, for the few that need it
        from foundry_core.identity.remote_sources import listing_identity, remote_objects

        return listing_identity(remote_objects(os.fspath(path))[1])
    root = Path(path).expanduser()
    if not root.exists():
        raise FoundryError(
            f"source {str(root)!r} does not exist", "check the path in the stage's recipe"
        )
    if root.is_file():
        return _file_digests([os.path.realpath(root)])[0]
    files = list(_walk(root))
    if not files:
        raise FoundryError(f"source folder {str(root)!r} holds no files", "check the path")
    return _folder_digest(files)


def source_files(root: Path) -> list[str]:
    """Names, relative to a source's folder, of the files it consists of: sorted, behind links too,
    none hidden (a leading dot in the name of the file or of a folder above it)."""
    return [name for name, _ in sorted(_walk(root), key=_by_parts)]


def source_file(root: Path, name: str) -> Path:
    """The file of that name in a source's folder. Raises FoundryError for a name that the folder's
    identity cannot cover: it leads elsewhere, or is hidden."""
    inside = PurePosixPath(os.path.normpath(name))
    if inside.is_absolute() or any(part.startswith(".") for part in inside.parts):
        raise FoundryError(
            f"{name!r} is not a visible file inside the source's folder",
            "name it relative to that folder; a link inside may lead elsewhere",
        )
    return root / inside


def files_identity(root: str, names: Sequence[str]) -> str:
    """Content digest of many small files below `root`. Remembered as a whole: an entry for each
    would make every plan parse all of them."""
    key = _list_key(root, names)
    known = _known("file-lists.json")
    if key in known:
        return known[key]
    paths = [os.path.join(root, name) for name in names]
    all_settled = all(settled(os.stat(path)) for path in paths)
    digest = _digest_of(zip(names, map(_sha256, paths), strict=True))
    if all_settled:
        _learn("file-lists.json", known | {key: digest})
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
    return hashlib.sha256("\n".join([root, *names, *signatures]).encode()).hexdigest()


def _by_parts(file: tuple[str, str]) -> list[str]:
    return file[0].split("/")


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """(relative name, real path) of each file that `source_files` names, unsorted."""
    real = os.path.realpath(root)
    return _walk_folder(str(root), "", real, (real,))


def _walk_folder(
    folder: str, prefix: str, real: str, above: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """above: the real paths of the folders on the way here, this one included."""
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        link = entry.is_symlink()
        target = os.path.realpath(entry.path) if link else f"{real}/{entry.name}"
        try:
            is_folder = entry.is_dir()
            is_file = not is_folder and entry.is_file()
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise _loop(entry.path, target) from None
        if is_file:
            yield prefix + entry.name, target
        elif is_folder:
            if link and any(f"{one}/".startswith(f"{target.rstrip('/')}/") for one in above):
                raise _loop(entry.path, target)
            inside = f"{prefix}{entry.name}/"
            yield from _walk_folder(entry.path, inside, target, (*above, target))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError:
        raise FoundryError(
            f"source folder {folder!r} may not be read", "grant access, or take it out"
        ) from None


def _loop(link: str, target: str) -> FoundryError:
    return FoundryError(
        f"link {link!r} leads back to {target!r}: the source has no end", "remove the link"
    )


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


def _file_digests(files: Iterable[str | os.PathLike]) -> list[str]:
    """sha256 of each file, through the cache of this home."""
    known = _known("source-digests.json")
    digests: list[str] = []
    learnt: dict[str, str] = {}
    for file in files:
        stat = os.stat(file)
        signature = f"{file}|{_signature(stat)}"
        sha = known.get(signature)
        if sha is None:
            sha = _sha256(file)
            if settled(stat):
                learnt[signature] = sha
        digests.append(sha)
    if learnt:
        _learn("source-digests.json", known | learnt)
    return digests


def _signature(stat: os.stat_result) -> str:
    return f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"


def _sha256(file: str | os.PathLike) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _known(cache_file: str) -> dict[str, str]:
    try:
        return json.loads((cache_dir() / cache_file).read_text())
    except (OSError, ValueError):
        return {}


def _learn(cache_file: str, known: dict[str, str]) -> None:
    write_cache(cache_dir() / cache_file, json.dumps(known))
