"""Code identity: the AST hash of a stage's `run` and of all it calls inside our packages.

Read from the source files, never by importing them: planning must not load torch. What counts:
bodies, constants, default arguments, decorators, base classes, module-level values that are
referenced, what a module does when it is imported (registrations, patches), the methods of the
recipe, data files beside a module that asks for its `__file__`. What does not: docstrings,
comments, formatting, annotations of parameters and results (unless the module inspects them),
other packages (their versions are recorded with each attempt).

Names are resolved statically. A class counts whole once it is named; a module counts whole when a
name in it cannot be resolved (`getattr(module, x)`, a module's `__getattr__`). Both err towards a
re-run. Not seen: modules whose names are put together at run time, and `__subclasses__()`; a kind
that imports so says what it loads in its `sources`.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.files import write_cache
from foundry_core.home import cache_dir
from foundry_core.identity.code_modules import Modules, read_cache

PACKAGES = ("foundry_core", "tasks", "flows")
_CACHE_VERSION = 1
Functions = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Closure:
    """digest over all functions; `functions` maps 'module:name' to each one's own digest."""

    digest: str
    functions: Functions


class CodeIndex:
    """The closures of entries in our packages and a lab's."""

    def __init__(self, roots: Mapping[str, Path] | None = None) -> None:
        """roots: package → the folder it lies in; by default ours and those of FOUNDRY_KINDS. The
        package of an entry that is asked for belongs to its closure too."""
        roots = dict(roots) if roots else _default_roots(os.environ.get("FOUNDRY_KINDS", ""))
        self._modules = Modules(roots)
        self._own = frozenset(roots)
        self._graphs: dict[frozenset[str], Any] = {}

    def closure(self, module: str, entry: str, *behaviour: tuple[str, str]) -> Closure:
        """The closure of `entry`, a top-level name or 'Class.method', of `module`.

        behaviour: (module, class) of recipes: their methods count, their fields do not, since the
        values of those are in the key. Raises FoundryError when there is no such entry.
        """
        package = module.partition(".")[0]
        if package not in self._modules.roots:
            self._modules.roots[package] = _folder_of(package)
        packages = self._own | {package}
        name = json.dumps([module, entry, *behaviour, sorted(packages)])
        functions = self._known.get(name)
        if functions is None:
            functions = self._known[name] = self._walk(module, entry, behaviour, packages)
            self._save()
        lines = "".join(f"{name} {sha}\n" for name, sha in functions.items())
        return Closure(digest=hashlib.sha256(lines.encode()).hexdigest(), functions=functions)

    def _walk(
        self,
        module: str,
        entry: str,
        behaviour: tuple[tuple[str, str], ...],
        packages: frozenset[str],
    ) -> Functions:
        # 5 ms of every plan, for those whose code was edited
        from foundry_core.identity.code_graph import Graph

        graph = self._graphs.setdefault(packages, Graph(self._modules, packages))
        start = graph.entry(module, entry)
        for recipe in behaviour:
            start += graph.methods(*recipe)
        return graph.reached(start)

    @cached_property
    def _known(self) -> dict[str, Functions]:
        """Closures of earlier processes, when nothing that they were found in has changed since."""
        kept = read_cache(_cache_file())
        modules = self._modules
        current = (
            kept.get("version") == _CACHE_VERSION
            and all(modules.state(m) == state for m, state in kept["modules"].items())
            and all(modules.data(m) == digest for m, digest in kept["data"].items())
        )
        if not current:
            return {}
        modules.looked_at.update(kept["modules"])
        return dict(kept["closures"])

    def _save(self) -> None:
        self._modules.save()
        if self._modules.settled:
            kept = {
                "version": _CACHE_VERSION,
                "modules": self._modules.looked_at,
                "data": self._modules.data_digests,
                "closures": self._known,
            }
            write_cache(_cache_file(), json.dumps(kept))


def _cache_file() -> Path:
    return cache_dir() / "closures.json"


@lru_cache(maxsize=4)
def _default_roots(kinds: str) -> dict[str, Path]:
    here = Path(__file__).resolve().parents[2]
    labs = {package.partition(".")[0] for package in kinds.split(",") if package}
    return {**{package: _folder_of(package) for package in labs}, **dict.fromkeys(PACKAGES, here)}


def _folder_of(package: str) -> Path:
    """The folder that holds a top-level package or module."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise FoundryError(f"package {package!r} cannot be found", "check PYTHONPATH")
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve().parent
    return Path(str(spec.origin)).resolve().parent
