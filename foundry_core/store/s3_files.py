"""An artifact's files as objects: uploaded and re-read by many threads, checked by one listing. And
the manifests that this host has read of them."""

import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from foundry_core.home import cache_dir, write_cache
from foundry_core.objects import Listed, Objects
from foundry_core.store.cache import Download
from foundry_core.store.manifest import MANIFEST, MOST_BYTES, Artifact, File, checked, parsed

THREADS = 8


def upload(place: Objects, folder: Path, files: Sequence[File]) -> tuple[File, ...]:
    """Puts the files; returns them with the entity tags they got. OSError when the store then
    lists other sizes than were sent."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda file: place.upload(folder / file.path, file.path), files))
    listed = {entry.name: entry for entry in place.find()}
    tagged = []
    for file in files:
        entry = listed.get(file.path)
        if entry is None or entry.size != file.size:
            raise OSError(f"{place.uri}/{file.path} is not there as it was uploaded")
        tagged.append(replace(file, tag=entry.tag))
    return tuple(tagged)


def compare(listing: Iterable[Listed], files: Sequence[File], *, complete: bool = False) -> str:
    """'' when a listing shows every file as it was committed, else what is wrong with the first
    bad one. Reads no file: sizes and entity tags decide. complete: more files are wrong too."""
    listed = {entry.name: entry for entry in listing if not _is_folder(entry)}
    for file in files:
        entry = listed.pop(file.path, None)
        if entry is None:
            return f"{file.path} is missing"
        if entry.size != file.size:
            return f"{file.path} has {entry.size} bytes, {file.size} were committed"
        if file.tag and entry.tag != file.tag:
            return f"{file.path} was overwritten after it was committed"
    if complete and listed.keys() - {MANIFEST}:
        return f"{min(listed)} was added"
    return ""


def rehash(place: Objects, files: Sequence[File]) -> str:
    """'' when every byte is as it was committed, else what is wrong with the first bad file."""
    with ThreadPoolExecutor(THREADS) as pool:
        digests = pool.map(lambda file: place.digest(file.path, file.size), files)
        for file, digest in zip(files, digests, strict=True):
            if digest != file.sha256:
                return f"{file.path} has another digest than was committed"
    return ""


def scan(place: Objects) -> tuple[File, ...]:
    """Every object below with its digest (read once), sorted by path. FoundryError for names that
    no artifact can have; they are looked at before anything is read."""
    found = [
        File(path=entry.name, size=entry.size, sha256="", tag=entry.tag)
        for entry in place.find()
        if entry.name != MANIFEST and not _is_folder(entry)
    ]
    files = checked(place.uri, tuple(found))
    with ThreadPoolExecutor(THREADS) as pool:
        digests = pool.map(lambda file: place.digest(file.path, file.size), files)
        return tuple(map(lambda file, digest: replace(file, sha256=digest), files, digests))


def _is_folder(entry: Listed) -> bool:
    """Consoles put empty objects where they show folders."""
    return entry.size == 0 and entry.name.endswith("/")


def download(place: Objects) -> Download:
    """Fetches files from there, for a cache."""
    return lambda file, path: place.download(file.path, path, file.size)


class Manifests:
    """What this host remembers of the manifests in an object store, so that planning downloads none
    of them twice. store: tells the stores of one home apart."""

    def __init__(self, objects: Objects, store: str) -> None:
        self._objects = objects
        self._folder = cache_dir() / "manifests" / store

    def read(self, kind: str, key: str, tag: str) -> Artifact | None:
        """The manifest with this entity tag, or what is there now; None when nothing is. Raises
        ValueError when it is damaged."""
        with contextlib.suppress(OSError, ValueError):
            return parsed(self._cached(key, tag).read_bytes(), kind, key)
        try:
            data, tag = self._objects.read_tagged(f"{kind}/{key}/{MANIFEST}", MOST_BYTES)
        except FileNotFoundError:
            return None
        artifact = parsed(data, kind, key)
        write_cache(self._cached(key, tag), data)
        return artifact

    def note_problem(self, owner: Artifact, problem: str) -> None:
        """Remembers that bytes are wrong which the listing shows as right; '' forgets it."""
        path = self._problem_file(owner)
        if problem:
            write_cache(path, problem)
        else:
            path.unlink(missing_ok=True)

    def problem(self, owner: Artifact) -> str:
        """What was noted of the artifact's files, or ''."""
        try:
            return self._problem_file(owner).read_text()
        except FileNotFoundError:
            return ""

    def _cached(self, key: str, tag: str) -> Path:
        return self._folder / f"{key}-{''.join(filter(str.isalnum, tag))}.json"

    def _problem_file(self, owner: Artifact) -> Path:
        return self._folder / f"{owner.key}-{owner.files_at}.problem"
