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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.home import cache_dir, settled, write_cache

PACKAGES = ("foundry_core", "tasks", "flows")
WHOLE = "*"
EFFECTS = "<import>"
DATA = "<data>"
Reference = tuple[str, str]
Summary = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Closure:
    """digest over all functions; `functions` maps 'module:name' to each one's own digest."""

    digest: str
    functions: Mapping[str, str]


class CodeIndex:
    """Definitions and references of our packages' modules, cached by file signature."""

    def __init__(self, roots: Mapping[str, Path] | None = None) -> None:
        """roots: package → the folder it lies in; by default ours and those of FOUNDRY_KINDS. The
        package of an entry that is asked for belongs to its closure too."""
        self._roots = dict(roots) if roots else _default_roots(os.environ.get("FOUNDRY_KINDS", ""))
        self._own = frozenset(self._roots)
        self._modules: dict[str, Summary | None] = {}
        self._closures: dict[tuple[Reference, ...], Closure] = {}
        self._graphs: dict[frozenset[str], _Graph] = {}
        self._dirty = False

    def closure(self, module: str, entry: str, *behaviour: Reference) -> Closure:
        """The closure of `entry`, a top-level name or 'Class.method', of `module`.

        behaviour: (module, class) of recipes: their methods count, their fields do not, since the
        values of those are in the key. Raises FoundryError when there is no such entry.
        """
        wanted = ((module, entry), *behaviour)
        known = self._closures.get(wanted)
        if known is None:
            known = self._closures[wanted] = self._closure(wanted)
        return known

    def _closure(self, wanted: tuple[Reference, ...]) -> Closure:
        entry, *behaviour = wanted
        package = entry[0].partition(".")[0]
        if package not in self._roots:
            self._roots[package] = _folder_of(package)
        packages = self._own | {package}
        graph = self._graphs.setdefault(packages, _Graph(self, packages))
        start = graph.entry(*entry)
        for recipe in behaviour:
            start += graph.methods(*recipe)
        functions = graph.reached(start)
        self._save()
        lines = "".join(f"{name} {sha}\n" for name, sha in functions.items())
        return Closure(digest=hashlib.sha256(lines.encode()).hexdigest(), functions=functions)

    def module(self, module: str) -> Summary | None:
        """What a module holds; None when it has no source in the packages known here."""
        if module not in self._modules:
            self._modules[module] = self._load(module)
        return self._modules[module]

    def is_folder(self, module: str) -> bool:
        """Whether it is a package without an `__init__`."""
        root = self._roots.get(module.partition(".")[0])
        return root is not None and root.joinpath(*module.split(".")).is_dir()

    def data(self, module: str) -> str:
        """Digest over the files beside a module that are no code."""
        from foundry_core.pipeline.sources import _file_digests as file_digests

        folder = Path(self.module(module)["path"]).parent  # type: ignore[index]
        files = sorted(
            path
            for path in folder.rglob("*")
            if path.is_file()
            and path.suffix not in (".py", ".pyc", ".so")
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
        lines = (
            f"{path.relative_to(folder).as_posix()} {sha}\n"
            for path, sha in zip(files, file_digests(files), strict=True)
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]

    def _load(self, module: str) -> Summary | None:
        root = self._roots.get(module.partition(".")[0])
        if root is None:
            return None
        base = f"{root}/{module.replace('.', '/')}"
        # In the order in which Python looks.
        for path, package in (
            (f"{base}/__init__.py", module),
            (f"{base}.py", module.rpartition(".")[0]),
        ):
            try:
                stat = os.stat(path)
            except OSError:
                continue
            signature = f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"
            cached = self._cache.get(path)
            if cached and cached["signature"] == signature:
                return cached
            # 20 ms of every plan, for those whose code was edited
            from foundry_core.pipeline.code_summary import summarise

            info = summarise(Path(path).read_bytes(), package) | {"path": path}
            if settled(stat):
                self._cache[path] = info | {"signature": signature}
                self._dirty = True
            return info
        return None

    @cached_property
    def _cache(self) -> dict[str, Any]:
        try:
            stat = os.stat(self._cache_file)
        except OSError:
            return {}
        return _read_cache(str(self._cache_file), stat.st_mtime_ns, stat.st_ino)

    @property
    def _cache_file(self) -> Path:
        return cache_dir() / "code.json"

    def _save(self) -> None:
        if not self._dirty:
            return
        self._dirty = False
        cache = {"version": _CACHE_VERSION, "modules": self._cache}
        write_cache(self._cache_file, json.dumps(cache))


class _Graph:
    """What leads to what in the packages that are followed. Equal entries have equal closures,
    whatever else was asked of the index."""

    def __init__(self, index: CodeIndex, packages: frozenset[str]) -> None:
        self._index = index
        self._packages = packages
        self._links: dict[Reference, tuple[Reference, ...]] = {}
        self._modules: dict[str, Summary | None] = {}

    def reached(self, pending: list[Reference]) -> dict[str, str]:
        """The hash of everything in code that `pending` leads to."""
        seen: set[Reference] = set()
        while pending:
            reference = pending.pop()
            if reference not in seen:
                seen.add(reference)
                pending += self._links_of(reference)
        return dict(sorted(found for r in seen for found in self._hashes(*r)))

    def entry(self, module: str, name: str) -> list[Reference]:
        """Where a walk starts. A method that is no plain static one may use all of its class."""
        info = self._module(module)
        top = name.partition(".")[0]
        if info is None or top not in (*info["definitions"], *info["imports"]):
            raise FoundryError(
                f"the code of {module}:{name} cannot be read",
                f"define {top} at the top level of a module {module} that has a source file",
            )
        static = info["definitions"].get(name, {}).get("static", False)
        return [(module, EFFECTS), *([(module, name)] if static else self._resolve(module, [top]))]

    def methods(self, module: str, name: str) -> list[Reference]:
        """The methods of a class, of its bases and of the classes of its fields."""
        found: list[Reference] = []
        pending = self._resolve(module, [name])
        seen: set[Reference] = set()
        while pending:
            owner, at = reference = pending.pop()
            info = self._module(owner)
            definition = info and info["definitions"].get(at)
            if reference in seen or not definition or definition["kind"] == "function":
                continue
            seen.add(reference)
            if definition["methods"]:
                found.append((owner, f"{at}()"))
            pending += self._links_of(reference)
        return found

    def _links_of(self, reference: Reference) -> tuple[Reference, ...]:
        links = self._links.get(reference)
        if links is None:
            links = self._links[reference] = tuple(self._find_links(*reference))
        return links

    def _find_links(self, module: str, name: str) -> set[Reference]:
        info = self._module(module)
        if name == EFFECTS:
            return self._imports(module, info)
        if info is None:
            return set()
        found = {(module, EFFECTS)}
        if name == WHOLE:
            found.update((module, n) for n in info["definitions"] if n.isidentifier())
            for bound in info["imports"]:
                found.update(self._imported(info, bound, []))
            return found
        return found | self._followed(module, info["definitions"][name])

    def _imports(self, module: str, info: Summary | None) -> set[Reference]:
        """What importing a module does, to it and through what it imports in turn."""
        parent = module.rpartition(".")[0]
        found = {(parent, EFFECTS)} if parent else set()
        if info is None:
            return found
        found |= self._followed(module, info["effects"])
        for name, chains in info["decorated"].items():
            if any(self._resolve_chain(module, chain) for chain in chains):
                found.add((module, name))
        for name, chains in info["subclasses"].items():
            bases = [base for chain in chains for base in self._resolve_chain(module, chain)]
            if any(self._registers(base) for base in bases):
                found.add((module, name))
        return found

    def _hashes(self, module: str, name: str) -> Iterator[tuple[str, str]]:
        info = self._module(module)
        if info is None or name == WHOLE:
            return
        item = info["effects"] if name == EFFECTS else info["definitions"][name]
        if item["hash"]:
            yield f"{module}:{name}", item["hash"]
        if item["data"]:
            yield f"{module}:{DATA}", self._index.data(module)

    def _registers(self, base: Reference, depth: int = 8) -> bool:
        """Whether a class learns of its subclasses."""
        info = self._module(base[0])
        definition = info and info["definitions"].get(base[1])
        if not definition or not depth:
            return False
        if definition.get("registers"):
            return True
        bases = info["subclasses"].get(base[1], []) if info else []
        return any(
            self._registers(b, depth - 1) for c in bases for b in self._resolve_chain(base[0], c)
        )

    def _followed(self, module: str, item: Summary) -> set[Reference]:
        found = {r for chain in item["refs"] for r in self._resolve_chain(module, chain)}
        for imported, name in item["modules"]:
            if self._known(imported):
                found.add((imported, EFFECTS))
                if name and not self._defines(imported, name):
                    found.add((f"{imported}.{name}", EFFECTS))
        return found

    def _defines(self, module: str, name: str) -> bool:
        info = self._module(module)
        return info is not None and (name in info["definitions"] or name in info["imports"])

    def _resolve_chain(self, module: str, chain: list[str]) -> list[Reference]:
        """chain: ['', 'f', …] is local, ['m', 'f', …] starts at an imported module."""
        head, *names = chain
        if not head:
            return self._resolve(module, names)
        return self._resolve(head, names) if self._known(head) else []

    def _resolve(
        self, module: str, names: list[str], trail: frozenset[Reference] = frozenset()
    ) -> list[Reference]:
        """What `module.a.b.c` reaches: definitions, through re-exports and submodules. `trail`:
        names on the way here, for a package may import from itself."""
        info = self._module(module)
        if info is None and not self._known(module):
            return []
        if not names:
            return [(module, WHOLE)] if info else []
        head, rest = names[0], names[1:]
        new = (module, head) not in trail
        trail |= {(module, head)}
        found: list[Reference] = []
        if info is not None:
            if head in info["definitions"]:
                found.append((module, head))
            if head in info["imports"] and new:
                found += [(module, EFFECTS), *self._imported(info, head, rest, trail)]
            if found:
                return found
        submodule = f"{module}.{head}"
        if self._module(submodule) is not None or self._index.is_folder(submodule):
            return self._resolve(submodule, rest, trail)
        if info is None or head in _OF_EVERY_MODULE:
            return []
        for star in info["stars"]:
            if new and self._known(star):
                found += [(module, EFFECTS), *self._resolve(star, names, trail)]
        return found or [(module, WHOLE)]

    def _imported(
        self, info: Summary, bound: str, rest: list[str], trail: frozenset[Reference] = frozenset()
    ) -> list[Reference]:
        found: list[Reference] = []
        for target, name in info["imports"][bound]:
            found += self._resolve(target, [name, *rest] if name else rest, trail)
        return found

    def _known(self, module: str) -> bool:
        return module.partition(".")[0] in self._packages

    def _module(self, module: str) -> Summary | None:
        try:
            return self._modules[module]
        except KeyError:
            known = self._known(module)
            info = self._modules[module] = self._index.module(module) if known else None
            return info


_OF_EVERY_MODULE = ("__name__", "__file__", "__doc__", "__package__", "__path__", "__spec__")


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


_CACHE_VERSION = 4


@lru_cache(maxsize=1)
def _read_cache(path: str, mtime: int, inode: int) -> dict[str, Any]:
    """Modules by path. Parsing takes 5 ms, and some kinds hash code of their own while planning;
    sharing it is safe, for every entry is checked against its file's signature."""
    try:
        cache = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}
    return cache["modules"] if cache.get("version") == _CACHE_VERSION else {}
