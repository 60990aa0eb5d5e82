"""The artifact store on a local or shared file system.

    <root>/<kind>/<key>/...            a committed artifact: its files and artifact.json
    <root>/work/<key>/a<n>/            an attempt in progress
    <root>/work/<key>/scratch/         survives attempts: training checkpoints
    <root>/leases/<key>, events/, content/<input-content key>, runs/

Execution is at least once, commit exactly once: a finished attempt is renamed onto its final name,
which fails if another attempt got there first. Nothing under <kind>/ is ever half written.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from foundry_core.blobs import FolderBlobs
from foundry_core.errors import FoundryError
from foundry_core.files import sync, write_atomic
from foundry_core.store.base import REPLACED, Check, State, Store, inside_store, no_check
from foundry_core.store.lease import FileLeaseBackend, LeaseBackend
from foundry_core.store.manifest import MANIFEST, NOT_KINDS, Artifact
from foundry_core.store.verified import VerifiedDigests


class LocalStore(Store):
    """The folder `root`; `open` checks that it can be used."""

    def __init__(self, root: str | Path) -> None:
        super().__init__()
        self.root = self.workplace = Path(root).absolute()
        self.uri = str(self.root)
        self.documents = FolderBlobs(self.root)
        self._verified = VerifiedDigests()

    @classmethod
    def open(cls, uri: str) -> "LocalStore":
        """The store at a path; the first write makes it. Unreadable: FoundryError."""
        store = cls(uri)
        try:
            next(store.root.iterdir(), None)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise FoundryError(
                f"store {uri!r} is not usable: {error.strerror}",
                "check the path and its permissions, or set FOUNDRY_STORE",
            ) from None
        return store

    def path(self, kind: str, key: str) -> Path:
        """Where a committed artifact lies."""
        return self.root / kind / key

    def reading(self, artifact: Artifact) -> contextlib.AbstractContextManager[Path]:
        if artifact.external:
            from foundry_core.store import external  # see _problem

            return external.reading(artifact)
        return contextlib.nullcontext(self._own_files(artifact))

    def _own_files(self, artifact: Artifact) -> Path:
        return self.path(artifact.kind, artifact.linked_to or artifact.key)

    def state(self, kind: str, key: str) -> State:
        """Present, absent, or corrupt by size or by digest of any file changed since it was last
        verified. Costs one stat per file when nothing changed."""
        try:
            artifact = self._parsed(kind, key)
        except ValueError as error:
            return State.damaged(error)
        except OSError:
            artifact = self.read(kind, key)
        if artifact is None:
            return State(status="missing")
        if artifact.linked_to and self.read(kind, artifact.linked_to) is None:
            gone = f"its files were those of {artifact.linked_to[:12]}, which is gone"
            return State.of(artifact, gone)
        return State.of(artifact, self._problem(artifact))

    def _problem(self, artifact: Artifact, *, read_all: bool = False) -> str:
        if artifact.external:
            # It brings thread pools and S3 along: 20 ms that a plan without imports saves.
            from foundry_core.store import external

            return external.check(artifact, self._verified, read_all=read_all)
        return self._verified.check(self._own_files(artifact), artifact.files, read_all=read_all)

    def scratch(self, key: str) -> Path:
        return self.root / "work" / key / "scratch"

    def attempt(self, key: str) -> tuple[str, Path, Path]:
        work, scratch = self.root / "work" / key, self.scratch(key)
        scratch.mkdir(parents=True, exist_ok=True)
        number = self._attempts(key) + 1
        self.documents.write(f"work/{key}/attempts", str(number).encode())
        folder = work / f"a{number}"
        folder.mkdir()
        return folder.name, folder, scratch

    def abandoned(self, key: str) -> list[str]:
        folders = (self.root / "work" / key).glob("a[0-9]*")
        return sorted(path.name for path in folders if path.is_dir())

    def discard(self, key: str, attempt: str) -> None:
        for name in (attempt, f"control-{attempt}"):
            shutil.rmtree(self.root / "work" / key / name, ignore_errors=True)

    def commit(
        self, artifact: Artifact, folder: Path, verify: Check = no_check, *, replaces: bool = False
    ) -> bool:
        """What is replaced moves aside for the instant between two renames; `restore` brings it
        back after a crash there."""
        final = self.path(artifact.kind, artifact.key)
        final.parent.mkdir(parents=True, exist_ok=True)
        owner = not (artifact.linked_to or artifact.external)
        if owner:
            for file in artifact.files:
                sync(folder / file.path)
        write_atomic(folder / MANIFEST, artifact.encoded())
        self._index(artifact)
        verify()
        try:
            if replaces:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(final, self._replaced(artifact.kind, artifact.key))
            os.rename(folder, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(folder, ignore_errors=True)
            return False
        finally:
            if replaces:
                self.restore(artifact.kind, artifact.key)
        sync(final.parent)
        if owner:
            self._verified.record(final, artifact.files)
        shutil.rmtree(self.root / "work" / artifact.key, ignore_errors=True)
        return True

    def _replaced(self, kind: str, key: str) -> Path:
        return self.root / "work" / key / f"{REPLACED}{kind}"

    def replacing(self) -> list[tuple[str, str]]:
        found = (self.root / "work").glob(f"*/{REPLACED}*")
        return sorted((path.name.removeprefix(REPLACED), path.parent.name) for path in found)

    def restore(self, kind: str, key: str) -> None:
        """Of one whose successor did come, only the removal is finished."""
        kept = self._replaced(kind, key)
        if kept.is_dir() and not self.path(kind, key).exists():
            os.rename(kept, self.path(kind, key))
        shutil.rmtree(kept, ignore_errors=True)

    def link(self, artifact: Artifact) -> bool:
        folder = self.root / "work" / artifact.key / f"link-{os.urandom(4).hex()}"
        folder.mkdir(parents=True)
        return self.commit(artifact, folder)

    def relink(self, artifact: Artifact) -> bool:
        self._index(artifact)
        path = self.path(artifact.kind, artifact.key) / MANIFEST
        write_atomic(path, artifact.encoded())
        return True

    def check_place(self, place: str) -> None:
        """A store on disk refers to any place but itself; whoever cannot see it finds the artifact
        corrupt."""
        folder, root = Path(os.path.expanduser(place)), self.root.resolve()
        if "://" in place or not folder.is_dir():
            return
        folder = folder.resolve()
        if folder.is_relative_to(root) or root.is_relative_to(folder):
            raise inside_store(place)

    def set_aside(self, kind: str, key: str, wanted: Callable[[], bool] = lambda: False) -> bool:
        """The folder is renamed away at once and then deleted. Scratch that a crash left beside a
        committed artifact goes too: its successor starts from nothing."""
        work = self.root / "work" / key
        work.mkdir(parents=True, exist_ok=True)
        if not self._trash(self.path(kind, key), work, wanted):
            return False
        self._verified.forget(self.path(kind, key))
        self._trash(work / "scratch", work)
        return True

    def _trash(self, folder: Path, work: Path, wanted: Callable[[], bool] = lambda: False) -> bool:
        trash = work / f"trash-{os.urandom(4).hex()}"
        try:
            os.rename(folder, trash)
        except FileNotFoundError:
            return False
        if wanted():
            os.rename(trash, folder)
            return False
        shutil.rmtree(trash, ignore_errors=True)
        return True

    def verify(self, kind: str, key: str) -> State:
        known = self.state(kind, key)
        artifact = known.artifact
        if artifact is None or (artifact.linked_to and known.status != "ok"):
            return known
        return State.of(artifact, self._problem(artifact, read_all=True))

    def lease_backend(self, key: str) -> LeaseBackend:
        return FileLeaseBackend(self.root / "leases" / key)

    def lease_keys(self) -> list[str]:
        return self.documents.names("leases")

    def artifacts(self, beginning: str = "") -> list[tuple[str, str]]:
        found = self.root.glob(f"*/*/{MANIFEST}")
        places = ((path.parent.parent.name, path.parent.name) for path in found)
        wanted = (place for place in places if place[1].startswith(beginning))
        return sorted(place for place in wanted if place[0] not in NOT_KINDS)

    def sweep(self, protected: Callable[[str], bool], *, older_than: float, apply: bool) -> int:
        committed = {key for _, key in self.artifacts()}
        freed = 0
        for work in (self.root / "work").glob("*"):
            if not protected(work.name):
                freed += self._sweep_work(work, work.name in committed, older_than, apply)
        return freed
