"""artifact.json: the commit point of an artifact, and the digests it states.

Whoever can write to a store can write one, so none is believed: `parsed` is the one way in. What it
lets through names files below the artifact's own folder, under its own kind and key.
"""

import hashlib
import json
import re
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter
from pydantic import ValidationError as PydanticError

from foundry_core.errors import FoundryError
from foundry_core.files import json_text, sha256_of, walk
from foundry_core.pipeline.imports import CODE, imported_key

MANIFEST = "artifact.json"
RECORDS = "records/"
# What lies beside the kinds in a store.
NOT_KINDS = frozenset(
    {"work", "leases", "events", "content", "runs", "code", "aliases", "pins", "trunks"}
)
# A manifest is read whole, by every plan that meets its key.
MOST_BYTES = 64 * 2**20
MOST_FILES = 250_000
_LONGEST_PATH, _LONGEST_NAME, _DEEPEST = 1024, 255, 32
# Control characters, lone surrogates, and the parts "", "." and "..", so absolute paths, too.
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]|(?:^|/)\.{0,2}(?:/|$)")


def _kind(name: str) -> str:
    if name in NOT_KINDS:
        raise ValueError("this folder of a store holds no artifacts")
    return name


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _files_at(place: str) -> str:
    path = place.removeprefix("s3://") if "://" in place else place.removeprefix("/")
    odd = "\0" in path or "://" in path or {"", ".", ".."} & set(path.split("/"))
    if place and (odd or ("/" in path and path == place)):
        raise ValueError("neither a name, nor an absolute path, nor an s3:// address")
    return place


Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Kind = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=100),
    AfterValidator(_kind),
]
_HEX = re.compile(r"[0-9a-f]{64}")
# What is shown and compared, never a path.
_Label = Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f\x7f]*$", max_length=300)]
# An ablation calls a seed's evaluation base/0 and its stages base/0:model.
_Named = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=300)]
_Size = Annotated[int, Field(strict=True, ge=0, le=2**50)]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an artifact lies in a store."""

    kind: Kind
    key: Digest


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of an artifact. Records (logs, metrics) are digested but are not its content.
    tag: the entity tag it got in an object store, which moves when it is overwritten."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    path: str
    size: _Size
    sha256: Digest
    tag: _Label = ""

    @property
    def role(self) -> Literal["output", "record"]:
        return "record" if self.path.startswith(RECORDS) else "output"


@dataclass(frozen=True, kw_only=True)
class ArtifactInput:
    """An upstream artifact as it was used: by recipe key and by content digest."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    slot: _Label
    label: _Named
    stage: _Named
    kind: Kind
    key: Digest
    content: Digest


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A committed artifact. `linked_to` is the key whose files it shares, after an early cutoff:
    its recipe differs upstream, its bytes do not. `files_at` is where its files lie if not beside
    artifact.json: a folder below (one per attempt, in an object store), or the absolute path or
    s3:// address that it was imported from."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: Kind
    key: Digest
    content: Digest
    input_content_key: Digest
    code: _Label
    code_fingerprint: _Label
    recipe: Mapping[str, Any]
    seed: int
    sources: Mapping[str, str]
    inputs: tuple[ArtifactInput, ...]
    files: tuple[File, ...]
    metrics: Mapping[str, Any]
    attempt: _Label
    run_id: _Label
    created: Annotated[str, AfterValidator(_moment)]
    seconds: float
    provenance: Mapping[str, Any] = field(default_factory=dict)
    linked_to: Digest | None = None
    files_at: Annotated[str, AfterValidator(_files_at)] = ""
    schema: Literal[1] = 1

    @property
    def external(self) -> bool:
        """Whether the files lie outside the store: they are read and checked, never deleted."""
        return self.files_at.startswith("/") or "://" in self.files_at

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["files"] = [_file_json(file) for file in self.files]
        return data

    def encoded(self) -> bytes:
        """The bytes of artifact.json. FoundryError for more than can be read again."""
        data = json_text(self.to_json(), nan=True).encode()
        if len(data) > MOST_BYTES:
            raise FoundryError(
                f"{self.kind}/{self.key[:12]}: its {MANIFEST} has {len(data)} bytes, "
                f"{MOST_BYTES} at most are read",
                "pack its files into fewer, e.g. shards",
            )
        return data

    @classmethod
    def from_json(cls, data: Any) -> "Artifact":
        """ValueError for what is no manifest, or contradicts itself."""
        if not isinstance(data, dict) or not isinstance(data.get("files"), list):
            raise ValueError("no manifest: not a JSON object with files")
        named = {RENAMED.get(name, name): value for name, value in data.items()}
        named["files"] = [_without_role(file) for file in data["files"]]
        try:
            artifact = _adapter().validate_python(named)
        except PydanticError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"no manifest: {where}: {first['msg']}") from None
        check_paths(file.path for file in artifact.files)
        if artifact.content != content_digest(artifact.files):
            raise ValueError("its content is not the digest of its files")
        if artifact.code == CODE and artifact.key != imported_key(artifact.kind, artifact.content):
            raise ValueError("its key is not that of imported bytes")
        return artifact


def parsed(data: bytes, kind: str, key: str) -> Artifact:
    """The manifest that lies under a kind and a key. ValueError for every other one."""
    try:
        artifact = Artifact.from_json(json.loads(data))
    except RecursionError:
        raise ValueError("no manifest: nested too deeply") from None
    if (artifact.kind, artifact.key) != (kind, key):
        raise ValueError(f"it is that of {artifact.kind}/{artifact.key[:12]}")
    return artifact


class Manifests:
    """`parsed`, which checks every path of an artifact, once for bytes that come again and again.
    Thread-safe; the latest of some megabytes are kept."""

    def __init__(self, most: int = 16 * 2**20) -> None:
        self._most, self._bytes = most, 0
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], tuple[bytes, Artifact]] = OrderedDict()

    def parsed(self, data: bytes, kind: str, key: str) -> Artifact:
        """As the function."""
        with self._lock:
            known = self._known.get((kind, key))
        if known is not None and known[0] == data:
            return known[1]
        artifact = parsed(data, kind, key)
        with self._lock:
            self._keep((kind, key), data, artifact)
        return artifact

    def _keep(self, place: tuple[str, str], data: bytes, artifact: Artifact) -> None:
        before, _ = self._known.pop(place, (b"", None))
        self._known[place] = (data, artifact)
        self._bytes += len(data) - len(before)
        while self._bytes > self._most:
            _, (gone, _) = self._known.popitem(last=False)
            self._bytes -= len(gone)


def is_key(text: str) -> bool:
    """Whether a text that was read somewhere is a key, so that a path may be made of it."""
    return _HEX.fullmatch(text) is not None


@cache
def _adapter() -> TypeAdapter[Artifact]:
    return TypeAdapter(Artifact)


def _without_role(file: Any) -> Any:
    """The role follows from the path."""
    if not isinstance(file, dict):
        return file
    return {name: value for name, value in file.items() if name != "role"}


# Artifacts of earlier versions have other keys, but gc and lineage must be able to read them.
RENAMED = {"closure": "code_fingerprint", "content_key": "input_content_key"}


def check_paths(paths: Iterable[str]) -> None:
    """ValueError unless they can be the files of one artifact on any file system: relative, none
    twice or in two Unicode spellings, none both file and folder, all within bounds."""
    files: set[str] = set()
    folders: dict[str, str] = {"": ""}
    for path in paths:
        if _ODD.search(path) or path == MANIFEST:
            raise ValueError(f"{path!a} is no path of an artifact's file")
        parts = path.split("/")
        longest = max(len(part.encode()) for part in parts)
        if longest > _LONGEST_NAME or len(path.encode()) > _LONGEST_PATH or len(parts) > _DEEPEST:
            raise ValueError(
                f"{path[:80]!a}… is too long: {_LONGEST_PATH} bytes, {_LONGEST_NAME} a part and "
                f"{_DEEPEST} parts at most"
            )
        name = unicodedata.normalize("NFC", path)
        if name in files:
            raise ValueError(f"{path!a} is there twice, or in two spellings of Unicode")
        files.add(name)
        folder, folder_name = path.rpartition("/")[0], name.rpartition("/")[0]
        while folders.get(folder_name) != folder:
            if folders.setdefault(folder_name, folder) != folder:
                raise ValueError(f"{folder!a} is there in two spellings of Unicode")
            folder, folder_name = folder.rpartition("/")[0], folder_name.rpartition("/")[0]
    if len(files) > MOST_FILES:
        raise ValueError(f"it has {len(files)} files, {MOST_FILES} at most")
    both = files & folders.keys()
    if both:
        raise ValueError(f"{min(both)!a} is both a file and a folder")


def checked(place: str, files: tuple[File, ...]) -> tuple[File, ...]:
    """The files that were found in a place. FoundryError when no artifact can have them."""
    try:
        check_paths(file.path for file in files)
    except ValueError as error:
        raise FoundryError(f"{place}: {error}", "rename it, or pack the files into fewer") from None
    return files


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
    """Every file below a folder with its digest, sorted by path; artifact.json is not one.
    FoundryError for what no artifact can have."""
    names = files_below(folder)
    return checked(
        str(folder),
        tuple(
            File(path=name, size=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
            for name in names
        ),
    )


def files_below(folder: Path) -> list[str]:
    """The files that whoever reads the folder finds, links followed; artifact.json is not one. A
    link back to a folder around it adds nothing. FoundryError for what has no bytes to digest."""
    return sorted({name for name, _ in walk(folder, loops=True)} - {MANIFEST})
