"""The artifact store on a local or shared file system.

    <root>/<kind>/<key>/...            a committed artifact: its files and artifact.json
    <root>/work/<key>/a<n>/            an attempt in progress
    <root>/work/<key>/scratch/         survives attempts: training checkpoints
    <root>/leases/<key>, events/, content/<content key>, runs/

Execution is at least once, commit exactly once: a finished attempt is renamed onto its final name,
which fails if another attempt got there first. Nothing under <kind>/ is ever half written.
"""

import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foundry_core.errors import FoundryError
from foundry_core.store.artifact import (
    MANIFEST,
    Artifact,
    encode,
    fsync_folder,
    write_durably,
)
from foundry_core.store.seal import Seals


@dataclass(frozen=True, kw_only=True)
class State:
    """What the store knows of a key. `problem` says what is wrong with a corrupt artifact."""

    status: Literal["ok", "missing", "corrupt"]
    artifact: Artifact | None = None
    problem: str = ""


class Store:
    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._seals = Seals()

    @classmethod
    def open(cls, uri: str) -> "Store":
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

    def files_path(self, artifact: Artifact) -> Path:
        """The folder that holds an artifact's files; links are followed."""
        return self.path(artifact.kind, artifact.linked_to or artifact.key)

    def read(self, kind: str, key: str) -> Artifact | None:
        """The committed artifact, without checking its files."""
        try:
            return self._manifest(kind, key)
        except (ValueError, OSError) as error:
            raise FoundryError(
                f"store: {kind}/{key[:12]}/{MANIFEST} cannot be read ({error})",
                "restore the file, or delete the folder to have it rebuilt",
            ) from None

    def _manifest(self, kind: str, key: str) -> Artifact | None:
        """ValueError when the bytes are not a manifest."""
        try:
            return Artifact.from_json(json.loads((self.path(kind, key) / MANIFEST).read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no manifest: {error}") from None

    def state(self, kind: str, key: str) -> State:
        """Present, absent, or corrupt by size or by digest of any file changed since it was last
        verified. Costs one stat per file when nothing changed."""
        try:
            artifact = self._manifest(kind, key)
        except ValueError:
            return State(status="corrupt", problem=f"{MANIFEST} is damaged")
        except OSError:
            artifact = self.read(kind, key)
        if artifact is None:
            return State(status="missing")
        if artifact.linked_to and self.read(kind, artifact.linked_to) is None:
            problem = f"its files were those of {artifact.linked_to[:12]}, which is gone"
            return State(status="corrupt", artifact=artifact, problem=problem)
        problem = self._seals.check(self.files_path(artifact), artifact.files)
        return State(status="corrupt" if problem else "ok", artifact=artifact, problem=problem)

    def by_content(self, kind: str, content_key: str) -> Artifact | None:
        """An intact artifact computed from the same recipe and the same input bytes."""
        try:
            key = (self.root / "content" / content_key).read_text().strip()
        except FileNotFoundError:
            return None
        state = self.state(kind, key)
        if state.artifact is None or state.artifact.content_key != content_key:
            return None  # the key was built again since, from other bytes
        return state.artifact if state.status == "ok" else None

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

    def abandoned(self, key: str) -> list[Path]:
        """Attempt folders left by workers that died. Call only under the key's lease."""
        folders = (self.root / "work" / key).glob("a[0-9]*")
        return sorted(path for path in folders if path.is_dir())

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

    def commit(self, artifact: Artifact, folder: Path) -> bool:
        """Publishes an attempt. False when another attempt was committed first: its files stand
        and this attempt is discarded. The content index is written before: what it points to
        counts only once it is committed, so a crash in between costs nothing."""
        final = self.path(artifact.kind, artifact.key)
        final.parent.mkdir(parents=True, exist_ok=True)
        if not artifact.linked_to:
            for file in artifact.files:
                _fsync_file(folder / file.path)
        write_durably(folder / MANIFEST, encode(artifact.to_json()))
        self._index_content(artifact)
        try:
            os.rename(folder, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(folder, ignore_errors=True)
            return False
        fsync_folder(final.parent)
        if not artifact.linked_to:
            self._seals.seal(final, artifact.files)
        shutil.rmtree(self.root / "work" / artifact.key, ignore_errors=True)
        return True

    def link(self, artifact: Artifact) -> bool:
        """Commits an artifact that shares another key's files (early cut-off)."""
        folder = self.root / "work" / artifact.key / f"link-{os.urandom(4).hex()}"
        folder.mkdir(parents=True)
        return self.commit(artifact, folder)

    def _index_content(self, artifact: Artifact) -> None:
        folder = self.root / "content"
        folder.mkdir(exist_ok=True)
        key = artifact.linked_to or artifact.key
        write_durably(folder / artifact.content_key, f"{key}\n".encode())

    def set_aside(self, kind: str, key: str) -> None:
        """Takes an artifact out of service (forced, corrupt): the folder is renamed away at once
        and then deleted, so no reader finds half of it. Scratch that a crash left beside a
        committed artifact goes too: its successor starts from nothing."""
        work = self.root / "work" / key
        work.mkdir(parents=True, exist_ok=True)
        if not self._trash(self.path(kind, key), work):
            return
        self._seals.forget(self.path(kind, key))
        self._trash(work / "scratch", work)

    def _trash(self, folder: Path, work: Path) -> bool:
        trash = work / f"trash-{os.urandom(4).hex()}"
        try:
            os.rename(folder, trash)
        except FileNotFoundError:
            return False
        shutil.rmtree(trash, ignore_errors=True)
        return True

    def verify(self, kind: str, key: str) -> State:
        """Re-reads every byte, whatever the stat signatures say."""
        artifact = self.read(kind, key)
        if artifact is None:
            return State(status="missing")
        folder = self.files_path(artifact)
        self._seals.forget(folder)
        problem = self._seals.check(folder, artifact.files, read_all=True)
        return State(status="corrupt" if problem else "ok", artifact=artifact, problem=problem)

    def lease_path(self, key: str) -> Path:
        return self.root / "leases" / key

    def artifacts(self) -> list[tuple[str, str]]:
        """(kind, key) of everything committed."""
        found = self.root.glob(f"*/*/{MANIFEST}")
        return sorted((p.parent.parent.name, p.parent.name) for p in found)


def _fsync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
