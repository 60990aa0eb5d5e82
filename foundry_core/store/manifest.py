"""artifact.json: the commit point of an artifact, and the digests it states."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from foundry_core.errors import FoundryError

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
    artifact.json: a folder below (one per attempt, in an object store), or an absolute path or
    s3:// address (adopted by reference)."""

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
    def adopted(self) -> bool:
        """Whether the files belong to somebody else: they are read and checked, never deleted."""
        return self.files_at.startswith("/") or "://" in self.files_at

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["files"] = [_file_json(file) for file in self.files]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Artifact":
        files = tuple(
            File(path=f["path"], size=f["size"], sha256=f["sha256"], tag=f.get("tag", ""))
            for f in data["files"]
        )
        inputs = tuple(ArtifactInput(**i) for i in data["inputs"])
        return cls(**{**data, "files": files, "inputs": inputs})


def _file_json(file: File) -> dict[str, Any]:
    data = {"path": file.path, "size": file.size, "sha256": file.sha256, "role": file.role}
    return data | {"tag": file.tag} if file.tag else data


def content_digest(files: tuple[File, ...]) -> str:
    """Digest over the sorted (path, size, sha256) of the outputs; records do not count."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.path):
        if file.role == "output":
            digest.update(f"{file.path}\0{file.size}\0{file.sha256}\n".encode())
    return digest.hexdigest()


def scan(folder: Path) -> tuple[File, ...]:
    """Every file below a folder with its digest, sorted by path; artifact.json is not one."""
    return tuple(
        File(path=name, size=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
        for name in files_below(folder)
    )


def files_below(folder: Path) -> list[str]:
    """The files that whoever reads the folder finds, links followed; artifact.json is not one.
    FoundryError for what has no bytes to digest: pipes, sockets, links to nothing."""
    return sorted(set(_walk(str(folder), "", ())) - {MANIFEST})


def _walk(top: str, below: str, around: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """around: the folders that this one lies in. A link back to one of them shows nothing new."""
    here = os.stat(os.path.join(top, below))
    if (here.st_dev, here.st_ino) in around:
        return
    for name in os.listdir(os.path.join(top, below)):
        path = f"{below}{name}"
        if not encodable(name):
            raise FoundryError(f"{top}/{path!a}: the name is not UTF-8", "rename it")
        try:
            mode = os.stat(os.path.join(top, path)).st_mode
        except FileNotFoundError:
            raise FoundryError(f"{top}/{path} links to nothing", "remove or mend it") from None
        if stat.S_ISDIR(mode):
            yield from _walk(top, f"{path}/", (*around, (here.st_dev, here.st_ino)))
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise FoundryError(f"{top}/{path} is neither file nor folder", "remove it")


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """tmp + fsync + rename: after a crash the file is whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def encode(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()
