"""Content identities of what lies outside the store: installed packages, files, folders.

A source is identified by what it contains, never by where it lies; one on S3 by the names, sizes
and entity tags of its objects, which a listing tells without reading a byte. Hashing gigabytes at
every plan would cost minutes, so file digests are cached under a stat signature (path, size,
mtime_ns, inode); a file rewritten within the file system's clock tick keeps its signature only if
its size stays equal too, which is why files younger than two seconds are never cached.
"""

import hashlib
import importlib.metadata
import json
import os
from functools import cache
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.home import cache_dir, settled, write_cache


@cache
def package_identity(name: str) -> str:
    """sha256 over an installed distribution's RECORD, which lists the digest of each of its files.

    Byte-compiled files and installer notes are left out: they differ between equal installs.
    """
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise FoundryError(
            f"source package {name!r} is not installed", f"pip install {name}, or name another"
        ) from None
    version = _version(distribution)
    record = distribution.read_text("RECORD")
    if record is None:
        return hashlib.sha256(f"{name}=={version}".encode()).hexdigest()
    lines = sorted(
        line
        for line in record.splitlines()
        if ".pyc," not in line and ".dist-info/" not in line and not line.startswith("../")
    )
    return hashlib.sha256("\n".join([version, *lines]).encode()).hexdigest()


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
        from foundry_core.pipeline.remote_sources import listing_identity, remote_objects

        return listing_identity(remote_objects(os.fspath(path))[1])
    root = Path(path).expanduser()
    if not root.exists():
        raise FoundryError(
            f"source {str(root)!r} does not exist", "check the path in the stage's recipe"
        )
    if root.is_file():
        return _file_digests([root])[0]
    files = sorted(p for p in root.rglob("*") if p.is_file())
    if not files:
        raise FoundryError(f"source folder {str(root)!r} holds no files", "check the path")
    digest = hashlib.sha256()
    for file, sha in zip(files, _file_digests(files), strict=True):
        digest.update(f"{file.relative_to(root).as_posix()}\0{sha}\n".encode())
    return digest.hexdigest()


def _file_digests(files: list[Path]) -> list[str]:
    """sha256 of each file, through the cache of this home."""
    cache_file = cache_dir() / "source-digests.json"
    try:
        known: dict[str, str] = json.loads(cache_file.read_text())
    except (OSError, ValueError):
        known = {}
    digests: list[str] = []
    learnt: dict[str, str] = {}
    for file in files:
        stat = file.stat()
        signature = (
            f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"
        )
        sha = known.get(signature)
        if sha is None:
            with file.open("rb") as stream:
                sha = hashlib.file_digest(stream, "sha256").hexdigest()
            if settled(stat):
                learnt[signature] = sha
        digests.append(sha)
    if learnt:
        write_cache(cache_file, json.dumps(known | learnt))
    return digests
