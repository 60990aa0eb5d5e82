"""Summaries of the modules of some packages, read once and kept by file signature."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

from foundry_core.files import settled, sha256_of, signature, walk
from foundry_core.home import cached, keep

Summary = dict[str, Any]
_CACHE = "code-8.json"


class Reached(NamedTuple):
    """functions: 'module:name' → hash. packages: modules outside that are imported, by top-level
    name, and compiled ones inside, by whole name. variables: of the environment."""

    functions: Mapping[str, str]
    packages: Sequence[str]
    variables: Sequence[str]


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

    def extension(self, module: str) -> bool:
        """Whether it is compiled: there is a library where its source would lie."""
        root = self.roots.get(module.partition(".")[0])
        return root is not None and extension_file(root, module) is not None

    def data(self, module: str, above: int = 1) -> str:
        """Digest over the files that are no code in the folder of a module, or in one further
        above inside its package; '' for a folder outside."""
        folder = self._folder(module, above)
        if folder is None:
            return ""
        digest = hashlib.sha256()
        for name, path in sorted(walk(folder, hidden=False, odd=False)):
            if not name.endswith(".py") and "__pycache__" not in name.split("/"):
                digest.update(f"{name} {sha256_of(path)}\n".encode())
        at = f"{module}^{above}"
        self.data_digests[at] = digest.hexdigest()[:16]
        return self.data_digests[at]

    def data_at(self, at: str) -> str:
        """`data` of what a key of `data_digests` says."""
        module, _, above = at.partition("^")
        return self.data(module, int(above))

    def _folder(self, module: str, above: int) -> Path | None:
        package, *inner = module.split(".")
        root = self.roots.get(package)
        if root is None:
            return None
        found = self._find(module)
        folder = root.joinpath(package, *inner) if found is None else Path(found[0]).parent
        for _ in range(above - 1):
            folder = folder.parent
        inside = above == 1 or folder.is_relative_to(root / package)
        return folder if inside and folder.is_dir() else None

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


def extension_file(root: Path, module: str) -> Path | None:
    """The library that holds a compiled module below the folder of its top-level package."""
    base = str(root.joinpath(*module.split(".")))
    return next((p for s in EXTENSION_SUFFIXES if (p := Path(base + s)).is_file()), None)


def _state(path: str, stat: os.stat_result) -> str:
    return "|".join([path, *map(str, signature(stat))])
