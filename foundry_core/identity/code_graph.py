"""What code leads to what: names resolved through imports, re-exports and packages."""

from collections.abc import Iterator

from foundry_core.errors import FoundryError
from foundry_core.identity.code_modules import Modules, Reached, Summary

WHOLE = "*"
EFFECTS = "<import>"
DATA = "<data>"
Reference = tuple[str, str]


class Graph:
    """What leads to what in the packages that are followed. Equal entries lead to equal code,
    whatever else was asked of the index."""

    def __init__(self, modules: Modules, packages: frozenset[str]) -> None:
        self._source = modules
        self._packages = packages
        self._links: dict[Reference, set[Reference]] = {}

    def reached(self, pending: list[Reference]) -> Reached:
        """Everything in code that `pending` leads to."""
        seen: set[Reference] = set()
        while pending:
            reference = pending.pop()
            if reference not in seen:
                seen.add(reference)
                pending += self._links_of(reference)
        items = [item for reference in seen if (item := self._item(*reference))]
        return Reached(
            functions=dict(sorted(found for r in seen for found in self._hashes(*r))),
            packages=sorted({name for item in items for name in self._outside(item)}),
            variables=sorted({name for item in items for name in item["variables"]}),
        )

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
        """The methods of a class and of its bases; all of a class that no statement defines."""
        found: list[Reference] = []
        pending = self._resolve(module, [name.partition(".")[0]])
        seen: set[Reference] = set()
        while pending:
            owner, at = reference = pending.pop()
            info = self._module(owner)
            if info is None or at == EFFECTS or reference in seen:
                continue
            seen.add(reference)
            definition = info["definitions"].get(at)
            if definition is None or definition["kind"] != "class" or "." in name:
                found.append(reference)
                continue
            if definition["methods"]:
                found.append((owner, f"{at}()"))
            for chain in info["subclasses"].get(at, []):
                pending += self._resolve_chain(owner, chain)
        return found

    def _links_of(self, reference: Reference) -> set[Reference]:
        if reference not in self._links:
            self._links[reference] = self._find_links(*reference)
        return self._links[reference]

    def _find_links(self, module: str, name: str) -> set[Reference]:
        info = self._module(module)
        if name == EFFECTS:
            return self._imports(module, info)
        if info is None:
            return set()
        found = {(module, EFFECTS)}
        if name == DATA:
            return found
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
        if name == DATA:
            yield f"{module}:{DATA}", self._source.data(module)
        item = self._item(module, name)
        if item is None:
            return
        if item["hash"]:
            yield f"{module}:{name}", item["hash"]
        if item["data"]:
            above = f"^{item['data']}" if item["data"] > 1 else ""
            yield f"{module}:{DATA}{above}", self._source.data(module, item["data"])

    def _item(self, module: str, name: str) -> Summary | None:
        info = self._module(module)
        if info is None or name in (WHOLE, DATA):
            return None
        return info["effects"] if name == EFFECTS else info["definitions"][name]

    def _outside(self, item: Summary) -> Iterator[str]:
        """What it imports that has no source in the packages that are followed."""
        named = [(chain[0], "") for chain in item["refs"] if chain[0]]
        for module, name in (*item["modules"], *named):
            if not self._known(module):
                yield module.partition(".")[0]
                continue
            for inner in (module, f"{module}.{name}") if name else (module,):
                if self._module(inner) is None and self._source.extension(inner):
                    yield inner

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
        if head in _PLACES:
            return [(module, DATA)]
        submodule = f"{module}.{head}"
        if self._module(submodule) is not None or self._source.is_folder(submodule):
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
        return self._source.module(module) if self._known(module) else None


_OF_EVERY_MODULE = ("__name__", "__doc__", "__package__", "__spec__")
_PLACES = ("__file__", "__path__")
