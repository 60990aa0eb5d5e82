"""The code fingerprint of a stage: the AST hash of its `run` and of all it calls in our packages.

Read from the source files, never by importing them: planning must not load torch. What counts:
bodies, constants, default arguments, decorators, base classes, module-level values that are
referenced, what a module does when it is imported (registrations, patches), the methods of the
classes whose instances a recipe holds, data files beside a module that asks for its `__file__`.
What does not: docstrings, comments, formatting, `description=` of a config's fields, annotations of
parameters and results (unless the module inspects them), other packages (their versions are drift:
`identity.environment`).

Names are resolved statically. A class counts whole once it is named; a module counts whole when a
name in it cannot be resolved (`getattr(module, x)`, a module's `__getattr__`). Both err towards a
re-run.

Limits, what is NOT seen: modules whose names are put together at run time, `__subclasses__()`, and
whatever a stage reads from a network. A kind that loads so says what it loads in its `sources`. The
members of open sets (`foundry_core.config.registry`) are no such case: the one that a recipe chose
is an instance in it, and counts by its class.
"""

import contextlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_core.errors import FoundryError
from foundry_core.files import sha256_hex
from foundry_core.home import cached, keep
from foundry_core.identity.code_modules import Modules, Reached

if TYPE_CHECKING:
    from foundry_core.identity.code_graph import Graph

PACKAGES = ("foundry_core", "tasks", "flows")
_CACHE = "fingerprints-4.json"
Functions = Mapping[str, str]
# (module, a name in it)
Named = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class CodeFingerprint:
    """digest over all functions; `functions` maps 'module:name' to each one's own digest.

    Not in the digest: `packages`, the modules that this code imports from elsewhere (and compiled
    ones of ours), and `variables`, what it reads of the environment; see `identity.environment`.
    """

    digest: str
    functions: Functions
    packages: Sequence[str] = ()
    variables: Sequence[str] = ()


_SHARED: ContextVar["CodeIndex | None"] = ContextVar("the index of a plan", default=None)


@contextlib.contextmanager
def sharing(index: "CodeIndex") -> Iterator[None]:
    """In the block, fingerprints that are given no index take this one."""
    token = _SHARED.set(index)
    try:
        yield
    finally:
        _SHARED.reset(token)


def fingerprint(
    module: str,
    entry: str,
    *,
    methods_of: Iterable[Named] = (),
    index: "CodeIndex | None" = None,
) -> CodeFingerprint:
    """The code that `entry`, a top-level name or 'Class.method', of `module` leads to.

    methods_of: (module, class) of the values that are in the key already: their methods and those
    of their bases count, their fields do not. The packages of all that is named are followed
    beside ours. index: by default that of `sharing`, else one of its own, which looks at every
    module again (10 ms). Raises FoundryError when there is no such entry.
    """
    index = index or _SHARED.get() or CodeIndex()
    return index.fingerprint(module, entry, tuple(sorted(set(methods_of))))


def is_known() -> bool:
    """Whether this home has kept what an earlier process found in code: else all of it is read and
    parsed, which takes seconds."""
    return bool(cached(_CACHE))


class CodeIndex:
    """What is known of the code in our packages and a lab's; one serves any number of entries."""

    def __init__(self, roots: Mapping[str, Path] | None = None) -> None:
        """roots: package → the folder it lies in; by default ours and those of FOUNDRY_KINDS."""
        roots = dict(roots) if roots else _default_roots(os.environ.get("FOUNDRY_KINDS", ""))
        self._modules = Modules(roots)
        self._packages = frozenset(roots)
        self._graphs: dict[frozenset[str], Graph] = {}
        self._fingerprints: dict[tuple[Any, ...], CodeFingerprint] = {}

    def fingerprint(
        self, module: str, entry: str, methods_of: tuple[Named, ...]
    ) -> CodeFingerprint:
        """As the function of that name. Of one index it does not change."""
        asked = (module, entry, methods_of)
        if asked not in self._fingerprints:
            found = self.reached(module, entry, methods_of)
            lines = "".join(f"{name} {sha}\n" for name, sha in found.functions.items())
            self._fingerprints[asked] = CodeFingerprint(digest=sha256_hex(lines), **found._asdict())
        return self._fingerprints[asked]

    def reached(self, module: str, entry: str, methods_of: Sequence[Named] = ()) -> Reached:
        """What the entry leads to; see `fingerprint`."""
        named = {name.partition(".")[0] for name in (module, *(m for m, _ in methods_of))}
        for package in named - self._modules.roots.keys():
            self._modules.roots[package] = _folder_of(package)
        packages = self._packages | named
        question = json.dumps([module, entry, methods_of, sorted(packages)])
        if question not in self._known:
            self._known[question] = self._walk(module, entry, methods_of, packages)
            self._save()
        return Reached(*self._known[question])

    def stands(self) -> bool:
        """Whether every file that was looked at is as it was then; costs a stat of each."""
        modules = self._modules
        return all(modules.state(m) == state for m, state in modules.looked_at.items()) and all(
            modules.data_at(at) == digest for at, digest in list(modules.data_digests.items())
        )

    def _walk(
        self, module: str, entry: str, methods_of: Sequence[Named], packages: frozenset[str]
    ) -> Reached:
        # 5 ms of every plan, for those whose code was edited
        from foundry_core.identity.code_graph import Graph

        graph = self._graphs.setdefault(packages, Graph(self._modules, packages))
        start = graph.entry(module, entry)
        for owner, name in methods_of:
            start += graph.methods(owner, name)
        return graph.reached(start)

    @cached_property
    def _known(self) -> dict[str, Reached]:
        """Answers of earlier processes, when nothing that they were found in has changed since."""
        kept, modules = cached(_CACHE), self._modules
        current = (
            bool(kept)
            and self._finds(kept["roots"])
            and all(modules.state(m) == state for m, state in kept["modules"].items())
            and all(modules.data_at(at) == digest for at, digest in kept["data"].items())
        )
        if not current:
            return {}
        modules.looked_at.update(kept["modules"])
        return dict(kept["reached"])

    def _finds(self, roots: Mapping[str, str]) -> bool:
        """Whether the packages that were followed lie where they lay."""
        known = self._modules.roots
        with contextlib.suppress(FoundryError):
            for package in roots.keys() - known.keys():
                known[package] = _folder_of(package)
        return all(str(known.get(package)) == root for package, root in roots.items())

    def _save(self) -> None:
        self._modules.save()
        if self._modules.settled:
            kept = {
                "roots": {package: str(root) for package, root in self._modules.roots.items()},
                "modules": self._modules.looked_at,
                "data": self._modules.data_digests,
                "reached": self._known,
            }
            keep(_CACHE, kept)


def _default_roots(kinds: str) -> dict[str, Path]:
    here = Path(__file__).resolve().parents[2]
    labs = {package.partition(".")[0] for package in kinds.split(",") if package}
    return {**{package: _folder_of(package) for package in labs}, **dict.fromkeys(PACKAGES, here)}


def _folder_of(package: str) -> Path:
    """The folder that holds a top-level package or module."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # `__main__`, and what was made without a file
        spec = None
    if spec is None:
        raise FoundryError(f"package {package!r} cannot be found", "check PYTHONPATH")
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve().parent
    return Path(str(spec.origin)).resolve().parent
