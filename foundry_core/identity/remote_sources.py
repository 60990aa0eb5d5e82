"""What a source on S3 consists of, from a listing."""

import hashlib
from collections.abc import Iterable

from foundry_core.errors import FoundryError
from foundry_core.objects import Listed, Objects, connect


def remote_objects(uri: str) -> tuple[Objects, list[Listed]]:
    """What lies at s3://bucket/prefix, or the one object of that name: the place the names are
    relative to, and the objects sorted by name. Markers of folders and what is hidden (a leading
    dot anywhere) are left out, as on disk."""
    place = connect(uri.rstrip("/"))
    found = [listed for listed in place.find() if _is_visible(listed.name)]
    if not found:
        folder, _, name = uri.rstrip("/").rpartition("/")
        place = connect(folder)
        found = [listed for listed in (place.look(name),) if listed is not None]
    if not found:
        raise FoundryError(f"source {uri!r} holds no objects", "check the path and the credentials")
    return place, found


def _is_visible(name: str) -> bool:
    return not name.endswith("/") and not any(
        part.startswith(".") and part != ".." for part in name.split("/")
    )


def listing_fingerprint(found: Iterable[Listed]) -> str:
    digest = hashlib.sha256(b"listing\0")
    for listed in found:
        digest.update(f"{listed.name}\0{listed.size}\0{listed.tag}\n".encode())
    return digest.hexdigest()
