"""Summaries of the modules of some packages, read once and kept by file signature."""

import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from foundry_core.files import settled, sha256_of, signature, walk
from foundry_core.home import cached, keep

Summary = dict[str, Any]
_CACHE = "code-6.json"


class Modules:
    """roots: package → the folder it lies in; more may be added.

    Everything that was looked at is noted, so that what was concluded can be kept for as long as
    all of it stands. `settled`: whether none of it was edited a moment ago.
    """

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self.roots = dict(roots)
        self.settled = True
        self.looked_at: dict[str, str] = {}
        self.data_digests: dict[str, str] = {}
        self._modules: dict[str, Summary | None] = {}
        self._dirty = False

    def module(self, module: str) -> Summary | None:
        """What a module holds; None when it has no source in these packages."""
        if module not in self._modules:
            self._modules[module] = self._load(module)
        return self._modules[module]

    def is_folder(self, module: str) -> bool:
        """Whether it is a package without an `__init__`."""
        self.looked_at[module] = state = self.state(module)
        return state == _FOLDER

    def state(self, module: str) -> str:
        """Tells any two states of a module's file apart."""
        found = self._find(module)
        if found:
            return _state(found[0], found[1])
        root = self.roots.get(module.partition(".")[0])
        folder = root is not None and root.joinpath(*module.split(".")).is_dir()
        return _FOLDER if folder else ""

    def data(self, module: str) -> str:
        """Digest over the files beside a module that are no code."""
        found = self._find(module)
        if found is None:
            return ""
        folder = Path(found[0]).parent
        digest = hashlib.sha256()
        for name, path in sorted(walk(folder, hidden=False, odd=False)):
            if not name.endswith(".py") and "__pycache__" not in name.split("/"):
                digest.update(f"{name} {sha256_of(path)}\n".encode())
        self.data_digests[module] = digest.hexdigest()[:16]
        return self.data_digests[module]

    def save(self) -> None:
        """Keeps the summaries for the next process."""
        if self._dirty:
            self._dirty = False
            keep(_CACHE, self._cache)

    def _find(self, module: str) -> tuple[str, os.stat_result, str] | None:
        """(file, its stat, what relative imports in it start from), as Python would find it."""
        root = self.roots.get(module.partition(".")[0])
        if root is None:
            return None
        base = f"{root}/{module.replace('.', '/')}"
        for path, package in (
            (f"{base}/__init__.py", module),
            (f"{base}.py", module.rpartition(".")[0]),
        ):
            try:
                return path, os.stat(path), package
            except OSError:
                continue
        return None

    def _load(self, module: str) -> Summary | None:
        self.looked_at[module] = ""
        found = self._find(module)
        if found is None:
            return None
        path, stat, package = found
        self.looked_at[module] = state = _state(path, stat)
        known = self._cache.get(path)
        if known and known["state"] == state:
            return known
        # 20 ms of a plan, for those whose code was edited
        from foundry_core.identity.code_summary import summarise

        info = summarise(Path(path).read_bytes(), package)
        if settled(stat):
            self._cache[path] = info | {"state": state}
            self._dirty = True
        else:
            self.settled = False
        return info

    @cached_property
    def _cache(self) -> dict[str, Any]:
        return cached(_CACHE)


_FOLDER = "folder"


def _state(path: str, stat: os.stat_result) -> str:
    return "|".join([path, *map(str, signature(stat))])
