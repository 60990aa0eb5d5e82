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
import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.store.base import State, Store
from foundry_core.store.documents import LocalDocuments
from foundry_core.store.lease import Board, FileBoard
from foundry_core.store.manifest import MANIFEST, Artifact, encode, fsync_folder, write_durably
from foundry_core.store.verified import Seals

__all__ = ["LocalStore", "State", "Store"]

# A training that nobody resumes for so long is given up.
SCRATCH_SECONDS = 30 * 86_400.0
# Below work/<key>, followed by the kind: an artifact whose successor is about to be published.
REPLACED = "replaced-"


class LocalStore(Store):
    def __init__(self, root: str | Path) -> None:
        super().__init__()
        self.root = self.workplace = Path(root).absolute()
        self.uri = str(self.root)
        self.documents = LocalDocuments(self.root)
        self._seals = Seals()

    @classmethod
    def open(cls, uri: str) -> "LocalStore":
        """The store at a path; created when absent. Unreadable or unwritable: FoundryError."""
        store = cls(uri)
        try:
            store.root.mkdir(parents=True, exist_ok=True)
            next(store.root.iterdir(), None)
        except OSError as error:
            raise FoundryError(
                f"store {uri!r} is not usable: {error.strerror}",
                "check the path and its permissions, or set FOUNDRY_STORE",
            ) from None
        return store

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def reading(self, artifact: Artifact) -> contextlib.AbstractContextManager[Path]:
        if artifact.adopted:
            return _adopted().reading(artifact)
        return contextlib.nullcontext(self._own_files(artifact))

    def _own_files(self, artifact: Artifact) -> Path:
        return self.path(artifact.kind, artifact.linked_to or artifact.key)

    def manifest(self, kind: str, key: str) -> dict[str, Any] | None:
        try:
            return json.loads((self.path(kind, key) / MANIFEST).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def state(self, kind: str, key: str) -> State:
        """Present, absent, or corrupt by size or by digest of any file changed since it was last
        verified. Costs one stat per file when nothing changed."""
        try:
            artifact = self._parsed(kind, key)
        except ValueError:
            return State(status="corrupt", problem=f"{MANIFEST} is damaged")
        except OSError:
            artifact = self.read(kind, key)
        if artifact is None:
            return State(status="missing")
        if artifact.linked_to and self.read(kind, artifact.linked_to) is None:
            problem = f"its files were those of {artifact.linked_to[:12]}, which is gone"
            return State(status="corrupt", artifact=artifact, problem=problem)
        problem = self._problem(artifact)
        return State(status="corrupt" if problem else "ok", artifact=artifact, problem=problem)

    def _problem(self, artifact: Artifact, *, read_all: bool = False) -> str:
        if artifact.adopted:
            return _adopted().check(artifact, self._seals, read_all=read_all)
        return self._seals.check(self._own_files(artifact), artifact.files, read_all=read_all)

    def attempt(self, key: str) -> tuple[str, Path, Path]:
        """(attempt name, its empty folder, the key's scratch folder). Needs the key's lease."""
        work = self.root / "work" / key
        scratch = work / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        counter = work / "attempts"
        number = int(counter.read_text()) + 1 if counter.exists() else 1
        write_durably(counter, str(number).encode())
        folder = work / f"a{number}"
        folder.mkdir()
        return folder.name, folder, scratch

    def abandoned(self, key: str) -> list[str]:
        folders = (self.root / "work" / key).glob("a[0-9]*")
        return sorted(path.name for path in folders if path.is_dir())

    def discard(self, key: str, attempt: str) -> None:
        for name in (attempt, f"control-{attempt}"):
            shutil.rmtree(self.root / "work" / key / name, ignore_errors=True)

    def record_failure(self, key: str, error: str) -> None:
        """Remembers why the last attempt failed; forgotten with the work folder at the commit."""
        folder = self.root / "work" / key
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / "failure.json", encode({"error": error}))

    def last_failure(self, key: str) -> str | None:
        try:
            return json.loads((self.root / "work" / key / "failure.json").read_text())["error"]
        except (FileNotFoundError, ValueError):
            return None

    def commit(
        self,
        artifact: Artifact,
        folder: Path,
        verify: Callable[[], None] = lambda: None,
        *,
        replaces: bool = False,
    ) -> bool:
        """The content index is written before: what it points to counts only once it is committed,
        so a crash in between costs nothing. What is replaced moves aside for the instant between
        two renames; `restore` brings it back after a crash there."""
        final = self.path(artifact.kind, artifact.key)
        final.parent.mkdir(parents=True, exist_ok=True)
        owner = not (artifact.linked_to or artifact.adopted)
        if owner:
            for file in artifact.files:
                _fsync_file(folder / file.path)
        write_durably(folder / MANIFEST, encode(artifact.to_json()))
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
        fsync_folder(final.parent)
        if owner:
            self._seals.seal(final, artifact.files)
        shutil.rmtree(self.root / "work" / artifact.key, ignore_errors=True)
        return True

    def _index(self, artifact: Artifact) -> None:
        content = f"{artifact.linked_to or artifact.key}\n".encode()
        self.documents.write(f"content/{artifact.input_content_key}", content)

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
        write_durably(path, encode(artifact.to_json()))
        return True

    def check_place(self, place: str) -> None:
        """A store on disk refers to any place but itself; whoever cannot see it finds the artifact
        corrupt."""
        folder, root = Path(os.path.expanduser(place)), self.root.resolve()
        if "://" in place or not folder.is_dir():
            return
        folder = folder.resolve()
        if folder.is_relative_to(root) or root.is_relative_to(folder):
            raise own_place(place)

    def set_aside(self, kind: str, key: str, wanted: Callable[[], bool] = lambda: False) -> bool:
        """The folder is renamed away at once and then deleted. Scratch that a crash left beside a
        committed artifact goes too: its successor starts from nothing."""
        work = self.root / "work" / key
        work.mkdir(parents=True, exist_ok=True)
        if not self._trash(self.path(kind, key), work, wanted):
            return False
        self._seals.forget(self.path(kind, key))
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
        problem = self._problem(artifact, read_all=True)
        return State(status="corrupt" if problem else "ok", artifact=artifact, problem=problem)

    def board(self, key: str) -> Board:
        return FileBoard(self.root / "leases" / key)

    def lease_keys(self) -> list[str]:
        return self.documents.names("leases")

    def artifacts(self) -> list[tuple[str, str]]:
        """(kind, key) of everything committed."""
        found = self.root.glob(f"*/*/{MANIFEST}")
        return sorted((p.parent.parent.name, p.parent.name) for p in found)

    def sweep(self, protected: Callable[[str], bool], *, older_than: float, apply: bool) -> int:
        """Attempts, links and trash of dead processes go by age; scratch, from which training
        resumes, only when its key is committed or nothing was written for `SCRATCH_SECONDS`."""
        committed = {key for _, key in self.artifacts()}
        freed = 0
        for work in (self.root / "work").glob("*"):
            if not protected(work.name):
                freed += sweep_work(work, work.name in committed, older_than, apply)
        return freed


def own_place(place: str) -> FoundryError:
    return FoundryError(
        f"{place} is the store's own, or holds it",
        "`foundry lineage tag KEY name@tag` names what is in the store; adopt other folders",
    )


def _adopted() -> ModuleType:
    # It brings thread pools and S3 along: 20 ms that a plan without adopted artifacts saves.
    from foundry_core.store import adopted

    return adopted


def sweep_work(work: Path, committed: bool, older_than: float, apply: bool) -> int:
    """Bytes of a key's work folder that nobody will ask for; removed if `apply`."""
    freed = 0
    for path in [*work.iterdir()] if work.is_dir() else []:
        if path.name.startswith(REPLACED) and not committed:
            continue
        leftover = path.name.startswith(("a", "control-", "link-", "trash-")) and path.is_dir()
        limit = older_than if committed or leftover else max(older_than, SCRATCH_SECONDS)
        size, newest = _extent(path)
        if time.time() - newest > limit:
            freed += size
            if apply:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if apply and work.is_dir() and not any(work.iterdir()):
        work.rmdir()
    return freed


def _extent(path: Path) -> tuple[int, float]:
    """(bytes, time of the newest write) of a file or folder."""
    stats = [p.stat() for p in (path, *path.rglob("*")) if p.exists()]
    size = sum(s.st_size for s in stats if stat.S_ISREG(s.st_mode))
    return size, max((s.st_mtime for s in stats), default=0.0)


def _fsync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
