"""An artifact's files as objects: uploaded and re-read by many threads, checked by one listing."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from foundry_core.objects import Listed, Objects
from foundry_core.store.cache import Download
from foundry_core.store.manifest import MANIFEST, File

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


def check(place: Objects, files: Sequence[File], *, complete: bool = False) -> str:
    """`compare` with what lies there now."""
    return compare(place.find(), files, complete=complete)


def compare(listing: Iterable[Listed], files: Sequence[File], *, complete: bool = False) -> str:
    """'' when a listing shows every file as it was committed, else what is wrong with the first
    bad one. Reads no file: sizes and entity tags decide. complete: more files are wrong too."""
    listed = {entry.name: entry for entry in listing}
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
    """Every object below with its digest (read once), sorted by path."""
    entries = [entry for entry in place.find() if entry.name != MANIFEST]
    with ThreadPoolExecutor(THREADS) as pool:
        digests = list(pool.map(lambda entry: place.digest(entry.name, entry.size), entries))
    return tuple(
        File(path=entry.name, size=entry.size, sha256=digest, tag=entry.tag)
        for entry, digest in zip(entries, digests, strict=True)
    )


def download(place: Objects) -> Download:
    """Fetches files from there, for a cache."""
    return lambda file, path: place.download(file.path, path, file.size)
