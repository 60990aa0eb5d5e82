"""What this host remembers of the manifests in an object store, so that planning downloads none of
them twice."""

import contextlib
import json
from pathlib import Path

from foundry_core.files import read_json, write_cache
from foundry_core.home import cache_dir
from foundry_core.objects import Objects
from foundry_core.store.base import parse_manifest
from foundry_core.store.manifest import MANIFEST, Artifact


class Manifests:
    """store: tells the stores of one home apart."""

    def __init__(self, objects: Objects, store: str) -> None:
        self._objects = objects
        self._folder = cache_dir() / "manifests" / store

    def read(self, kind: str, key: str, tag: str) -> Artifact | None:
        """The manifest with this entity tag, or what is there now; None when nothing is. Raises
        ValueError when it is damaged."""
        with contextlib.suppress(OSError, ValueError):
            return parse_manifest(read_json(self._cached(key, tag)))
        try:
            data, tag = self._objects.read_tagged(f"{kind}/{key}/{MANIFEST}")
        except FileNotFoundError:
            return None
        artifact = parse_manifest(json.loads(data))
        write_cache(self._cached(key, tag), data)
        return artifact

    def note_problem(self, owner: Artifact, problem: str) -> None:
        """Remembers that bytes are wrong which the listing shows as right; '' forgets it."""
        path = self._problem_file(owner)
        if problem:
            write_cache(path, problem)
        else:
            path.unlink(missing_ok=True)

    def problem(self, owner: Artifact) -> str:
        """What was noted of the artifact's files, or ''."""
        try:
            return self._problem_file(owner).read_text()
        except FileNotFoundError:
            return ""

    def _cached(self, key: str, tag: str) -> Path:
        return self._folder / f"{key}-{''.join(filter(str.isalnum, tag))}.json"

    def _problem_file(self, owner: Artifact) -> Path:
        return self._folder / f"{owner.key}-{owner.files_at}.problem"
