"""artifact.json: the commit point of an artifact, and the digests it states."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from foundry_core.files import json_text, sha256_of, walk

MANIFEST = "artifact.json"
RECORDS = "records/"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of an artifact. Records (logs, metrics) are digested but are not its content.
    tag: the entity tag it got in an object store, which moves when it is overwritten."""

    path: str
    size: int
    sha256: str
    tag: str = ""

    @property
    def role(self) -> Literal["output", "record"]:
        return "record" if self.path.startswith(RECORDS) else "output"


@dataclass(frozen=True, kw_only=True)
class ArtifactInput:
    """An upstream artifact as it was used: by recipe key and by content digest."""

    slot: str
    label: str
    stage: str
    kind: str
    key: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A committed artifact. `linked_to` is the key whose files it shares, after an early cutoff:
    its recipe differs upstream, its bytes do not. `files_at` is where its files lie if not beside
    artifact.json: a folder below (one per attempt, in an object store), or the absolute path or
    s3:// address that it was imported from."""

    kind: str
    key: str
    content: str
    input_content_key: str
    code: str
    code_fingerprint: str
    recipe: Mapping[str, Any]
    seed: int
    sources: Mapping[str, str]
    inputs: tuple[ArtifactInput, ...]
    files: tuple[File, ...]
    metrics: Mapping[str, Any]
    attempt: str
    run_id: str
    created: str
    seconds: float
    provenance: Mapping[str, Any] = field(default_factory=dict)
    linked_to: str | None = None
    files_at: str = ""
    schema: int = SCHEMA

    @property
    def external(self) -> bool:
        """Whether the files lie outside the store: they are read and checked, never deleted."""
        return self.files_at.startswith("/") or "://" in self.files_at

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["files"] = [_file_json(file) for file in self.files]
        return data

    def encoded(self) -> bytes:
        """The bytes of artifact.json."""
        return json_text(self.to_json(), nan=True).encode()

    @classmethod
    def from_json(cls, data: Any) -> "Artifact":
        """ValueError for what is no manifest."""
        try:
            files = tuple(
                File(path=f["path"], size=f["size"], sha256=f["sha256"], tag=f.get("tag", ""))
                for f in data["files"]
            )
            inputs = tuple(ArtifactInput(**i) for i in data["inputs"])
            named = {_RENAMED.get(name, name): value for name, value in data.items()}
            return cls(**{**named, "files": files, "inputs": inputs})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no manifest: {error}") from None


# Artifacts of earlier versions have other keys, but gc and lineage must be able to read them.
_RENAMED = {"closure": "code_fingerprint", "content_key": "input_content_key"}


def _file_json(file: File) -> dict[str, Any]:
    data = {"path": file.path, "size": file.size, "sha256": file.sha256, "role": file.role}
    return data | {"tag": file.tag} if file.tag else data


def content_digest(files: Iterable[File]) -> str:
    """The identity of the bytes: the outputs count, records do not."""
    return files_digest(file for file in files if file.role == "output")


def files_digest(files: Iterable[File]) -> str:
    """Digest over the sorted (path, size, sha256)."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.path):
        digest.update(f"{file.path}\0{file.size}\0{file.sha256}\n".encode())
    return digest.hexdigest()


def scan(folder: Path) -> tuple[File, ...]:
    """Every file below a folder with its digest, sorted by path; artifact.json is not one."""
    return tuple(
        File(path=name, size=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
        for name in files_below(folder)
    )


def files_below(folder: Path) -> list[str]:
    """The files that whoever reads the folder finds, links followed; artifact.json is not one. A
    link back to a folder around it adds nothing. FoundryError for what has no bytes to digest."""
    return sorted({name for name, _ in walk(folder, loops=True)} - {MANIFEST})
