"""The artifact store in an object store: s3://bucket/prefix.

    <kind>/<key>/artifact.json            the commit point: a create-only put
    <kind>/<key>/files-<attempt>-<token>/ the files it names; two uploaders never mix
    work/<key>/a<n>, attempts, failure.json   attempts under way, their count, what failed
    leases/<key>/<number>, events/, content/<input-content key>, runs/, code/, aliases/, pins/

Work happens in $FOUNDRY_HOME/work/<store>/<key>, on this host. Reading goes through the cache. A
training's checkpoints lie in work/<key>/checkpoints-<what it was begun from>, for any host; beside
them, for a moment, what a process on another host hands over (`execution.elsewhere`).
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.files import json_text, sha256_hex
from foundry_core.home import home_dir
from foundry_core.objects import Listed, Objects, StoreUnavailable, connect
from foundry_core.store import external, s3_files
from foundry_core.store.base import (
    Check,
    State,
    Store,
    explained,
    inside_store,
    no_check,
    read_many,
)
from foundry_core.store.cache import CorruptFile, FileCache
from foundry_core.store.lease import LeaseBackend, process_identity
from foundry_core.store.manifest import MANIFEST, NOT_KINDS, Artifact
from foundry_core.store.s3_files import Manifests
from foundry_core.store.s3_lease import S3LeaseBackend
from foundry_core.store.verified import VerifiedDigests

_PLANNING_THREADS = 16
# A heartbeat must fail, or succeed, well within the TTL.
_LEASE_PATIENCE_SECONDS = 5.0
# No taker sleeps between its look at the numbers and its put for so long.
_TOMBSTONE_SECONDS = 86_400.0
_CHECKPOINTS = "checkpoints-"


class S3Store(Store):
    """The store below `objects`; `open` checks that it can be used."""

    lease_poll = 1.0

    def __init__(self, objects: Objects) -> None:
        super().__init__()
        self.uri = objects.uri
        self.documents = objects
        self._objects = objects
        self._leases = connect(f"{objects.uri}/leases", patience=_LEASE_PATIENCE_SECONDS)
        name = sha256_hex(self.uri)[:12]
        self._work = self.workplace = home_dir() / "work" / name
        self._manifests = Manifests(objects, name)
        self._cache = FileCache()
        self._uploads: dict[tuple[str, str], str] = {}

    @classmethod
    def open(cls, uri: str) -> "S3Store":
        store = cls(connect(uri))
        store._objects.check()
        return store

    def state(self, kind: str, key: str) -> State:
        """One listing: it shows artifact.json, whose bytes are cached under their entity tag, and
        the sizes and entity tags of the files."""
        folder = self._objects.below(f"{kind}/{key}")
        listed = {entry.name: entry for entry in folder.find()}
        if MANIFEST not in listed:
            return State(status="missing")
        try:
            artifact = self._known(kind, key, listed[MANIFEST].tag)
        except ValueError as error:
            return State.damaged(error)
        if artifact is None:
            return State(status="missing")
        if artifact.linked_to or artifact.external:
            problem = self._problem(artifact)
        else:
            below = f"{artifact.files_at}/"
            uploads = [
                replace(entry, name=name.removeprefix(below))
                for name, entry in listed.items()
                if name.startswith(below)
            ]
            problem = s3_files.compare(uploads, artifact.files)
            problem = problem or self._manifests.problem(artifact)
        return State.of(artifact, problem)

    def states(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], State]:
        """Listings take a round trip each: many at a time."""
        with ThreadPoolExecutor(_PLANNING_THREADS) as pool:
            states = pool.map(lambda place: self.state(*place), places)
            return dict(zip(places, states, strict=True))

    def verify(self, kind: str, key: str) -> State:
        known = self.state(kind, key)
        artifact = known.artifact
        if artifact is None:
            return known
        problem = self._problem(artifact, noted=False)
        if not problem and artifact.external:
            problem = external.check(artifact, VerifiedDigests(), read_all=True)
        elif not problem:
            owner = self._owner(artifact)
            problem = s3_files.rehash(self._place(owner), owner.files)
            self._manifests.note_problem(owner, problem)
        return State.of(artifact, problem)

    @contextlib.contextmanager
    def reading(self, artifact: Artifact) -> Iterator[Path]:
        if artifact.external:
            with external.reading(artifact) as folder:
                yield folder
            return
        owner = self._owner(artifact)
        source = s3_files.download(self._place(owner))
        try:
            with self._cache.reading(owner.files, source) as folder:
                yield folder
        except CorruptFile as error:
            self._manifests.note_problem(owner, error.message)
            raise

    def file_path(self, artifact: Artifact, name: str) -> Path | None:
        """Fetches this one file only."""
        if artifact.external:
            return super().file_path(artifact, name)
        owner = self._owner(artifact)
        for file in owner.files:
            if file.path == name:
                source = s3_files.download(self._place(owner))
                return self._reading.enter_context(self._cache.reading([file], source)) / name
        return None

    def scratch(self, key: str) -> Path:
        return self._work / key / "scratch"

    def attempt(self, key: str) -> tuple[str, Path, Path]:
        """The marker's create-only put makes the number unique, also where a lease was lost; no
        other process puts the same bytes."""
        number = self._attempts(key) + 1
        marker = json_text({"owner": process_identity(), "token": os.urandom(8).hex()}).encode()
        while not self._objects.create(f"work/{key}/a{number}", marker):
            number += 1
        self._objects.write(f"work/{key}/attempts", str(number).encode())
        folder, scratch = self._work / key / f"a{number}", self.scratch(key)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        return folder.name, folder, scratch

    def checkpoints(self, key: str, begun: str) -> str:
        return f"{self.uri}/work/{key}/{_CHECKPOINTS}{sha256_hex(begun)[:16]}"

    def abandoned(self, key: str) -> list[str]:
        return [name for name in self._objects.names(f"work/{key}") if name[1:].isdigit()]

    def discard(self, key: str, attempt: str) -> None:
        """Uploads of other processes stay, also of dead ones: a commit may still be on its way, and
        would find its files gone. `sweep` removes them by age."""
        for name in (attempt, f"control-{attempt}"):
            shutil.rmtree(self._work / key / name, ignore_errors=True)
        uploads = self._uploads.pop((key, attempt), None)
        with contextlib.suppress(StoreUnavailable):
            if uploads:
                self._delete_below(uploads)
            self._objects.delete(f"work/{key}/{attempt}")

    def commit(
        self, artifact: Artifact, folder: Path, verify: Check = no_check, *, replaces: bool = False
    ) -> bool:
        """Uploads, then publishes by one create-only put. When that put's outcome cannot be known
        (StoreUnavailable), the uploads stay: it may have happened. What is replaced goes by one
        conditional put; who reads its files may finish, `sweep` removes them by age."""
        tag = self._manifest_tag(artifact) if replaces else ""
        name = f"files-{folder.name}-{os.urandom(8).hex()}"
        uploads = f"{artifact.kind}/{artifact.key}/{name}"
        self._uploads[artifact.key, folder.name] = uploads
        files = s3_files.upload(self._objects.below(uploads), folder, artifact.files)
        verify()
        self._uploads.pop((artifact.key, folder.name))
        if not self._publish(replace(artifact, files=files, files_at=name), tag):
            self._delete_below(uploads)
            return False
        self._cache.put(files, folder)
        return True

    def _manifest_tag(self, artifact: Artifact) -> str:
        listed = self._objects.look(f"{artifact.kind}/{artifact.key}/{MANIFEST}")
        return listed.tag if listed else ""

    def check_place(self, place: str) -> None:
        if "://" not in place:
            raise FoundryError(
                f"{self.uri} cannot refer to {place}: other hosts do not see it",
                "copy the files to s3:// and import them there, or use a store on a shared disk",
            )
        folder, root = f"{place.rstrip('/')}/", f"{self.uri}/"
        if folder.startswith(root) or root.startswith(folder):
            raise inside_store(place)

    def link(self, artifact: Artifact) -> bool:
        return self._publish(artifact)

    def relink(self, artifact: Artifact) -> bool:
        return self._publish(artifact, self._manifest_tag(artifact))

    def set_aside(self, kind: str, key: str, wanted: Callable[[], bool] = lambda: False) -> bool:
        """Deleting artifact.json is the one step that counts; files go after it. Of uploads only
        those that artifact.json named: another's may belong to a commit that is late."""
        try:
            artifact = self._parsed(kind, key)
            uploads = artifact.files_at if artifact and not artifact.linked_to else ""
        except ValueError:
            artifact, uploads = None, ""
        name = f"{kind}/{key}/{MANIFEST}"
        there = self._objects.look(name) is not None
        self._objects.delete(name)
        if artifact and wanted():
            self._objects.create(name, artifact.encoded())
            return False
        if artifact and uploads and not artifact.external:
            self._delete_below(f"{kind}/{key}/{uploads}")
        if there:
            shutil.rmtree(self._work / key / "scratch", ignore_errors=True)
        return there

    def lease_backend(self, key: str) -> LeaseBackend:
        return S3LeaseBackend(self._leases, key)

    def lease_keys(self) -> list[str]:
        return self._leases.folders()

    def artifacts(self, beginning: str = "") -> list[tuple[str, str]]:
        listed = self._listed(beginning)
        return sorted((kind, key) for kind, key, there in listed if MANIFEST in there)

    def read_all(self) -> list[Artifact | FoundryError]:
        """Manifests that this host has read before are not fetched: a listing has their tags."""
        tags = {
            (kind, key): there[MANIFEST].tag
            for kind, key, there in self._listed()
            if MANIFEST in there
        }
        return read_many(tags, lambda kind, key: self._read_known(kind, key, tags[kind, key]))

    def sweep(self, protected: Callable[[str], bool], *, older_than: float, apply: bool) -> int:
        """Uploads that no artifact.json names, markers, and this host's work folders."""
        now = time.time()
        freed = 0
        committed = set()
        for kind, key, there in self._listed():
            if MANIFEST in there:
                committed.add(key)
            if not protected(key):
                freed += self._sweep_uploads(kind, key, there, now - older_than, apply)
        if apply:
            self._sweep_markers(committed, protected, now - older_than)
            self._sweep_leases(protected, now - max(older_than, _TOMBSTONE_SECONDS))
        for work in self._work.glob("*"):
            if not protected(work.name):
                freed += self._sweep_work(work, work.name in committed, older_than, apply)
        return freed

    def _sweep_markers(
        self, committed: set[str], protected: Callable[[str], bool], before: float
    ) -> None:
        for key in self._objects.folders("work"):
            if key in committed and not protected(key):
                listed = self._objects.find(f"work/{key}")
                self._objects.delete(*(o.name for o in listed if o.modified.timestamp() < before))

    def _sweep_leases(self, protected: Callable[[str], bool], before: float) -> None:
        for entry in self._leases.find():
            if entry.modified.timestamp() < before and not protected(entry.name.partition("/")[0]):
                self._leases.delete(entry.name)

    def _sweep_uploads(
        self, kind: str, key: str, there: Mapping[str, Listed], before: float, apply: bool
    ) -> int:
        """there: all objects of the key by their names below it. Of most keys nothing is asked:
        their uploads are young, or those of a manifest that this host knows."""
        uploads: dict[str, list[Listed]] = {}
        for name, entry in there.items():
            folder, below, _ = name.partition("/")
            if below:
                uploads.setdefault(folder, []).append(entry)
        old = {
            folder: entries
            for folder, entries in uploads.items()
            if all(entry.modified.timestamp() < before for entry in entries)
        }
        try:
            if old and MANIFEST in there:
                listed = self._read_known(kind, key, there[MANIFEST].tag)
                old.pop(listed.files_at if listed else "", None)
            if old:  # a commit may have come since the listing
                artifact = self.read(kind, key)
                old.pop(artifact.files_at if artifact else "", None)
        except FoundryError:
            return 0  # damaged: a run that needs it replaces it
        entries = [entry for folder in old.values() for entry in folder]
        if apply:
            self._objects.delete(*(entry.name for entry in entries))
        return sum(entry.size for entry in entries)

    def _publish(self, artifact: Artifact, replaced: str = "") -> bool:
        """The commit point. What comes after it may fail without harm: it is housekeeping.
        replaced: the entity tag of the manifest that is to go."""
        self._index(artifact)
        name = f"{artifact.kind}/{artifact.key}/{MANIFEST}"
        data = artifact.encoded()
        if replaced:
            done = self._objects.replace(name, data, replaced) is not None
        else:
            done = self._objects.create(name, data)
        if not done:
            return False
        with contextlib.suppress(StoreUnavailable):
            self._delete_below(f"work/{artifact.key}")
        # The attempt's own folder the cache takes over.
        for path in (self._work / artifact.key).glob("*"):
            if path.name != artifact.attempt:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        return True

    def _owner(self, artifact: Artifact) -> Artifact:
        """The artifact whose files these are. FoundryError when they were replaced or are gone."""
        kind, key = artifact.kind, artifact.linked_to or artifact.key
        owner = self.read(kind, key)
        if owner is None or owner.content != artifact.content:
            fate = "replaced" if owner else "removed"
            raise FoundryError(
                f"the files of {kind}/{artifact.key[:12]} were {fate} meanwhile",
                "run again: what is missing is rebuilt where it is needed",
            )
        return owner

    def _place(self, owner: Artifact) -> Objects:
        return self._objects.below(f"{owner.kind}/{owner.key}/{owner.files_at}")

    def _problem(self, artifact: Artifact, *, noted: bool = True) -> str:
        if artifact.external:
            return external.check(artifact, VerifiedDigests())
        try:
            owner = self._owner(artifact)
        except FoundryError as error:
            return error.message
        problem = s3_files.compare(self._place(owner).find(), owner.files)
        return problem or (self._manifests.problem(owner) if noted else "")

    def _delete_below(self, folder: str) -> None:
        self._objects.delete(*(listed.name for listed in self._objects.find(folder)))

    def _known(self, kind: str, key: str, tag: str) -> Artifact | None:
        """The artifact whose manifest has this entity tag, or what is there now; None when nothing
        is. ValueError when it is damaged."""
        artifact = self._manifests.read(kind, key, tag)
        return self._believed(artifact) if artifact else None

    def _read_known(self, kind: str, key: str, tag: str) -> Artifact | None:
        """As `read`."""
        with explained(kind, key):
            return self._known(kind, key, tag)

    def _listed(self, beginning: str = "") -> Iterator[tuple[str, str, dict[str, Listed]]]:
        """(kind, key, its objects by their names below it) of every key that begins so: a page of
        a listing for each 1,000 objects, however many keys there are."""
        for kind in self._kinds():
            keys: dict[str, dict[str, Listed]] = {}
            for entry in self._objects.find(kind, beginning):
                key, _, name = entry.name.removeprefix(f"{kind}/").partition("/")
                keys.setdefault(key, {})[name] = entry
            yield from ((kind, key, there) for key, there in keys.items())

    def _kinds(self) -> list[str]:
        return [name for name in self._objects.folders() if name not in NOT_KINDS]
