"""External artifacts: their files stay where somebody put them, the store has the digests.

Identity is the content: the same bytes anywhere are the same artifact, whoever imports them.
"""

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.files import encodable
from foundry_core.objects import connect
from foundry_core.pipeline.imports import CODE, imported_key
from foundry_core.store import s3_files
from foundry_core.store.cache import FileCache
from foundry_core.store.manifest import Artifact, File, content_digest, files_below, scan
from foundry_core.store.verified import VerifiedDigests


def describe(kind: str, place: str, run_id: str = "") -> Artifact:
    """The artifact of a folder or s3:// prefix, every byte read. FoundryError when there is none.

    Its key is its only identity: no recipe, no code, no inputs are known of it.
    """
    location, files = _scan(place)
    return imported(kind, content_digest(files), files, run_id, files_at=location)


def imported(
    kind: str, content: str, files: tuple[File, ...], run_id: str, *, files_at: str
) -> Artifact:
    """An artifact of which nothing but its bytes is known."""
    key = imported_key(kind, content)
    return Artifact(
        kind=kind,
        key=key,
        content=content,
        input_content_key=key,
        code=CODE,
        code_fingerprint="",
        recipe={"digest": content},
        seed=0,
        sources={},
        inputs=(),
        files=files,
        metrics={},
        attempt="",
        run_id=run_id,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=0.0,
        files_at=files_at,
    )


def reading(artifact: Artifact) -> contextlib.AbstractContextManager[Path]:
    """A local folder with the files: the very folder, or verified copies of objects."""
    if "://" not in artifact.files_at:
        return contextlib.nullcontext(Path(artifact.files_at))
    source = s3_files.download(connect(artifact.files_at))
    return FileCache().reading(artifact.files, source)


def check(artifact: Artifact, verified: VerifiedDigests, *, read_all: bool = False) -> str:
    """'' when the files are as they were imported, else what is wrong. Files that were added count:
    a stage may read all that lies in a folder."""
    if "://" in artifact.files_at:
        place = connect(artifact.files_at)
        problem = s3_files.compare(place.find(), artifact.files, complete=True)
        if not problem and read_all:
            problem = s3_files.rehash(place, artifact.files)
        return problem
    folder = Path(artifact.files_at)
    try:
        problem = verified.check(folder, artifact.files, read_all=read_all, links_out=True)
        if problem:
            return f"{artifact.files_at}: {problem}"
        added = set(files_below(folder)) - {file.path for file in artifact.files}
    except PermissionError as error:
        return f"{error.filename} may not be read"
    except FoundryError as error:
        return error.message
    return f"{artifact.files_at}: {min(added)} was added" if added else ""


def _scan(place: str) -> tuple[str, tuple[File, ...]]:
    if not place:
        raise FoundryError("no folder is named", "name the folder that holds the files")
    if "://" in place:
        objects = connect(place)
        location, files = objects.uri, s3_files.scan(objects)
    else:
        folder = Path(os.path.expanduser(place))
        if not folder.is_dir():
            raise FoundryError(f"{place!r} is not a folder", "name the folder that holds the files")
        location = str(folder.resolve())
        if not encodable(location):
            raise FoundryError(f"{location!a}: the name is not UTF-8", "rename the folder")
        try:
            files = scan(folder)
        except PermissionError as error:
            raise FoundryError(f"{error.filename} may not be read", "check who may") from None
    if not files:
        raise FoundryError(f"{place!r} holds no files", "name the folder that holds the files")
    return location, files


def summary(artifact: Artifact) -> dict[str, Any]:
    """What is shown of an import: kind, key, digest, files, bytes, at."""
    return {
        "kind": artifact.kind,
        "key": artifact.key,
        "digest": f"sha256:{artifact.content}",
        "files": len(artifact.files),
        "bytes": sum(file.size for file in artifact.files),
        "at": artifact.files_at,
    }
