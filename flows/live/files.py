"""Pictures and videos of artifacts, as bytes: those that a manifest states, by their digest, and
those that an evaluation under way has kept so far."""

import os
from pathlib import Path

from flows.live.lineage import opened
from flows.live.rollouts import FILMSTRIP, PICTURES
from flows.reports.episodes_page import VIDEO
from foundry_core.errors import FoundryError
from foundry_core.files import sha256_hex
from foundry_core.store.manifest import is_key

TYPES = {
    ".mp4": b"video/mp4",
    ".webp": b"image/webp",
    ".png": b"image/png",
    ".jpg": b"image/jpeg",
    ".svg": b"image/svg+xml",
}
MOST_BYTES = 32 * 2**20
_NONE = "there is no such picture or video"


def committed_file(kind: str, key: str, name: str) -> tuple[bytes, bytes]:
    """(content type, bytes) of a file of an artifact. FoundryError for what is none of these types,
    is too large, or is not what was committed."""
    store = opened()
    artifact = store.read(kind, key) if is_key(key) else None
    stated = next((one for one in artifact.files if one.path == name), None) if artifact else None
    if artifact is None or stated is None or Path(name).suffix not in TYPES:
        raise FoundryError(_NONE)
    if stated.size > MOST_BYTES:
        raise FoundryError(f"{name} has {stated.size} bytes, {MOST_BYTES} are shown at most")
    path = store.file_path(artifact, name)
    data = _read(path) if path else None
    if data is None or sha256_hex(data) != stated.sha256:
        raise FoundryError(f"{name} is not what was committed", "foundry lineage verify")
    return TYPES[path.suffix] if path else b"", data


def file_under_way(key: str, name: str) -> tuple[bytes, bytes]:
    """The same of an evaluation that goes on: a video or a filmstrip below its scratch, no link."""
    if not is_key(key) or not (VIDEO.fullmatch(name) or FILMSTRIP.fullmatch(name)):
        raise FoundryError(_NONE)
    folder = (opened().scratch(key) / PICTURES).resolve()
    path = folder / name
    try:
        inside = path.resolve(strict=True) == path
    except (OSError, RuntimeError):
        inside = False
    data = _read(path) if inside else None
    if data is None:
        raise FoundryError(_NONE)
    return TYPES[path.suffix], data


def _read(path: Path) -> bytes | None:
    """None for what is gone, no file, or too large. A pipe is not waited for."""
    try:
        if not path.is_file():
            return None
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError:
        return None
    return data if len(data) <= MOST_BYTES else None
