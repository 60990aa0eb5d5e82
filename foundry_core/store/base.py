"""What every store offers, wherever it lies (`foundry_core.store.open.open_store` opens it).

Execution is at least once, commit exactly once, whatever the kind of store: of any number of
attempts at a key one is published, whole, and the others learn that they lost.
"""

import contextlib
import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from foundry_core.blobs import Blobs
from foundry_core.errors import FoundryError
from foundry_core.files import extent, json_text
from foundry_core.lineage.events import EventLog
from foundry_core.objects import StoreUnavailable
from foundry_core.store.lease import (
    TTL_SECONDS,
    Holder,
    Lease,
    LeaseBackend,
    acquire,
    free_if_dead,
    is_dead,
)
from foundry_core.store.manifest import MANIFEST, MOST_BYTES, Artifact, Manifests, is_key
from foundry_core.store.outbox import publish_pending

# A training that nobody resumes for so long is given up.
SCRATCH_SECONDS = 30 * 86_400.0
# Below work/<key>, followed by the kind: an artifact whose successor is about to be published.
REPLACED = "replaced-"
_READERS = 8
_OF_ATTEMPTS = ("a", "control-", "link-", "trash-")


# Raises what forbids a commit.
Check = Callable[[], None]


def no_check() -> None:
    """Forbids nothing."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What the store knows of a key. `problem` says what is wrong with a corrupt artifact."""

    status: Literal["ok", "missing", "corrupt"]
    artifact: Artifact | None = None
    problem: str = ""

    @classmethod
    def of(cls, artifact: Artifact, problem: str) -> "State":
        """Corrupt if there is a problem."""
        return cls(status="corrupt" if problem else "ok", artifact=artifact, problem=problem)

    @classmethod
    def damaged(cls, error: ValueError) -> "State":
        """Of a manifest that is not believed."""
        return cls(status="corrupt", problem=f"{MANIFEST} is damaged: {error}")


class Store(ABC):
    """uri: where it lies, absolute. workplace: the local folder where attempts work. documents: the
    small files beside the artifacts."""

    uri: str
    workplace: Path
    # Seconds between two looks at a lease that another one holds.
    lease_poll = 0.2
    documents: Blobs

    def __init__(self) -> None:
        self._reading = contextlib.ExitStack()
        self._paths: dict[tuple[str, str, str], Path] = {}
        self._manifests = Manifests()

    @property
    def events_uri(self) -> str:
        """Where the lineage's event log lies."""
        return f"{self.uri}/events"

    def read(self, kind: str, key: str) -> Artifact | None:
        """The committed artifact, its files unchecked. FoundryError when it is unreadable."""
        with explained(kind, key):
            return self._parsed(kind, key)

    def _parsed(self, kind: str, key: str) -> Artifact | None:
        """ValueError or OSError when it cannot be read."""
        try:
            data = self.documents.read(f"{kind}/{key}/{MANIFEST}", most=MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self._believed(self._manifests.parsed(data, kind, key))

    def _believed(self, artifact: Artifact) -> Artifact:
        """A manifest of this store. ValueError when its files lie where this store has none."""
        if artifact.external:
            try:
                self.check_place(artifact.files_at)
            except FoundryError as error:
                raise ValueError(error.message) from None
        return artifact

    @abstractmethod
    def state(self, kind: str, key: str) -> State:
        """Present, absent, or corrupt as far as that can be told without reading everything."""

    def states(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], State]:
        """`state` of several (kind, key)."""
        return {place: self.state(*place) for place in places}

    @abstractmethod
    def verify(self, kind: str, key: str) -> State:
        """Like `state`, after re-reading every byte."""

    def by_content(self, kind: str, input_content_key: str) -> Artifact | None:
        """An intact artifact computed from the same recipe and the same input bytes."""
        try:
            key = self.documents.read(_content(input_content_key), most=100).decode().strip()
        except (FileNotFoundError, ValueError):
            return None
        if not is_key(key):
            return None
        state = self.state(kind, key)
        if state.artifact is None or state.artifact.input_content_key != input_content_key:
            return None  # the key was built again since, from other bytes
        return state.artifact if state.status == "ok" else None

    def _index(self, artifact: Artifact) -> None:
        """What `by_content` finds counts only once it is committed: written before."""
        key = artifact.linked_to or artifact.key
        self.documents.write(_content(artifact.input_content_key), f"{key}\n".encode())

    def forget_content(self, artifact: Artifact) -> None:
        """Takes it out of what `by_content` finds."""
        name = _content(artifact.input_content_key)
        with contextlib.suppress(FileNotFoundError):
            if self.documents.read(name).decode().strip() == artifact.key:
                self.documents.delete(name)

    @abstractmethod
    def reading(self, artifact: Artifact) -> contextlib.AbstractContextManager[Path]:
        """A local folder with the artifact's files, links followed, that stays while the block
        runs. Downloads them if need be."""

    def files_path(self, artifact: Artifact) -> Path:
        """The same folder, for as long as this store object lives."""
        name = (artifact.kind, artifact.key, artifact.content)
        if name not in self._paths:
            self._paths[name] = self._reading.enter_context(self.reading(artifact))
        return self._paths[name]

    def file_path(self, artifact: Artifact, name: str) -> Path | None:
        """A local copy of one file, or None when the artifact has no such file. No other file of an
        object store is fetched."""
        if "://" in artifact.files_at:
            from foundry_core.store import external  # S3: 20 ms that most plans save

            files = tuple(file for file in artifact.files if file.path == name)
            if not files:
                return None
            one = replace(artifact, files=files)
            return self._reading.enter_context(external.reading(one)) / name
        path = self.files_path(artifact) / name
        return path if path.is_file() else None

    def record(self, artifact: Artifact, name: str) -> Path | None:
        """A local copy of a file of this artifact's own (a link has none)."""
        return None if artifact.linked_to else self.file_path(artifact, name)

    @abstractmethod
    def attempt(self, key: str) -> tuple[str, Path, Path]:
        """(attempt name, its empty local folder, the key's scratch folder). Under the lease."""

    @abstractmethod
    def scratch(self, key: str) -> Path:
        """The key's scratch folder on this machine, which may not be there: what attempts at it
        leave for the next one, and where others watch them."""

    def checkpoints(self, key: str, begun: str) -> str:
        """Where checkpoints of a key go that other hosts shall find: an address that is gone after
        the commit, another one for each `begun`; "" where the scratch is such a place."""
        return ""

    @abstractmethod
    def abandoned(self, key: str) -> list[str]:
        """Attempts left by workers that died. Call only under the key's lease."""

    @abstractmethod
    def discard(self, key: str, attempt: str) -> None:
        """Removes what an attempt left, but for the scratch. No error when there is nothing."""

    def _attempts(self, key: str) -> int:
        """How many were begun since the last commit."""
        try:
            return int(self.documents.read(f"work/{key}/attempts"))
        except FileNotFoundError:
            return 0

    def record_failure(self, key: str, error: str) -> None:
        """Remembers why the last attempt failed; forgotten at the commit."""
        self.documents.write(f"work/{key}/failure.json", json_text({"error": error}).encode())

    def last_failure(self, key: str) -> str | None:
        """What `record_failure` wrote since the last commit, or None."""
        try:
            return json.loads(self.documents.read(f"work/{key}/failure.json"))["error"]
        except (FileNotFoundError, ValueError):
            return None

    @abstractmethod
    def commit(
        self, artifact: Artifact, folder: Path, verify: Check = no_check, *, replaces: bool = False
    ) -> bool:
        """Publishes an attempt. False when another was committed first: this attempt is discarded.
        `verify` is called right before the publication and may refuse it. replaces: the artifact
        under the key goes as this one comes; needs the key's lease."""

    def replacing(self) -> list[tuple[str, str]]:
        """(kind, key) of artifacts that a killed `commit` took away before their successor came;
        none where a replacement is one step."""
        return []

    def restore(self, kind: str, key: str) -> None:  # noqa: B027 - by default there is none
        """Puts such an artifact back; no error when there is none. Needs the key's lease."""

    @abstractmethod
    def link(self, artifact: Artifact) -> bool:
        """Commits an artifact without files of its own: a link, or an external one."""

    @abstractmethod
    def relink(self, artifact: Artifact) -> bool:
        """`link` in place of a committed one that has no files of its own either, so that the key
        is never without an artifact. Needs the key's lease."""

    @abstractmethod
    def check_place(self, place: str) -> None:
        """FoundryError when this store cannot refer to files there."""

    @abstractmethod
    def set_aside(self, kind: str, key: str, wanted: Callable[[], bool] = lambda: False) -> bool:
        """Takes an artifact out of service at once, so that no reader finds half of it. External
        files stay. wanted: asked once nobody finds it any more; when it is, it is put back. False
        when there was none, or it was put back. Needs the key's lease."""

    @abstractmethod
    def lease_backend(self, key: str) -> LeaseBackend:
        """Where a key's lease is kept, for one waiter."""

    def acquire(
        self,
        key: str,
        *,
        ttl: float = TTL_SECONDS,
        done: Callable[[], bool] = lambda: False,
        waiting: Callable[[Holder], None] = lambda holder: None,
    ) -> Lease | None:
        """The key's lease; see `foundry_core.store.lease.acquire`."""
        backend = self.lease_backend(key)
        return acquire(backend, ttl=ttl, done=done, waiting=waiting, poll=self.lease_poll)

    @abstractmethod
    def lease_keys(self) -> list[str]:
        """Every key that has ever been leased and not tidied up."""

    def holders(self) -> list[tuple[str, Holder]]:
        """(key, who holds its lease), dead or alive."""
        held = ((key, self.lease_backend(key).holder()) for key in self.lease_keys())
        return [(key, holder) for key, holder in held if holder is not None]

    def leased(self) -> set[str]:
        """Keys whose lease is held by a process that is not known to be dead."""
        return {key for key, holder in self.holders() if not is_dead(holder)}

    def free_dead_leases(self) -> list[str]:
        """Frees what processes known to be dead still hold; the keys."""
        return [key for key in self.lease_keys() if free_if_dead(self.lease_backend(key))]

    def publish_pending(self, log: EventLog) -> list[str]:
        """Tells the lineage what killed processes committed or removed; see
        `foundry_core.store.outbox`."""
        return publish_pending(log, self.read)

    @abstractmethod
    def artifacts(self, beginning: str = "") -> list[tuple[str, str]]:
        """(kind, key) of everything committed. beginning: of keys that begin so."""

    def read_all(self) -> list[Artifact | FoundryError]:
        """Every committed artifact, or why it cannot be read. StoreUnavailable is raised."""
        return read_many(self.artifacts(), self.read)

    @abstractmethod
    def sweep(self, protected: Callable[[str], bool], *, older_than: float, apply: bool) -> int:
        """Bytes of what dead attempts left and is older than so many seconds; removed if `apply`.
        `protected` keys are passed over."""

    def _sweep_work(self, folder: Path, committed: bool, older_than: float, apply: bool) -> int:
        """`sweep` of a key's local work folder. Scratch, from which training resumes, goes only
        when the key is committed or after SCRATCH_SECONDS."""
        freed = 0
        for path in [*folder.iterdir()] if folder.is_dir() else []:
            if path.name.startswith(REPLACED) and not committed:
                continue
            leftover = path.name.startswith(_OF_ATTEMPTS) and path.is_dir()
            limit = older_than if committed or leftover else max(older_than, SCRATCH_SECONDS)
            size, newest = extent(path)
            if time.time() - newest > limit:
                freed += size
                if apply:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if apply and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        return freed


def _content(input_content_key: str) -> str:
    return f"content/{input_content_key}"


def read_many(
    places: Iterable[tuple[str, str]], read: Callable[[str, str], Artifact | None]
) -> list[Artifact | FoundryError]:
    """What `read` finds at each (kind, key), or why it cannot be read; what is gone is left out."""

    def one(place: tuple[str, str]) -> Artifact | FoundryError | None:
        try:
            return read(*place)
        except StoreUnavailable:
            raise
        except FoundryError as error:
            return error

    with ThreadPoolExecutor(_READERS) as pool:
        return [found for found in pool.map(one, places) if found is not None]


@contextlib.contextmanager
def explained(kind: str, key: str) -> Iterator[None]:
    """What is wrong with a manifest that is read in the block, as a FoundryError."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise FoundryError(
            f"store: {kind}/{key[:12]}/{MANIFEST} cannot be read ({error})",
            "restore the file, or delete the folder to have it rebuilt",
        ) from None


def inside_store(place: str) -> FoundryError:
    """Of `check_place`: these files cannot be imported."""
    return FoundryError(
        f"{place} is the store's own, or holds it",
        "`foundry lineage tag KEY name@tag` names what is in the store; import other folders",
    )
