"""Code identity: the AST hash of a stage's `run` and of all it calls inside our packages.

Read from the source files, never by importing them: planning must not load torch. What counts:
bodies, constants, default arguments, decorators, base classes, module-level values that are
referenced. What does not: docstrings, comments, formatting, annotations of parameters and
results, other packages (their versions are recorded with each attempt).

Names are resolved statically. A class counts whole once it is named; a module that is used in a
way that cannot be resolved (`getattr(module, x)`) counts whole too. Both err towards a re-run.
"""

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from foundry_core.home import cache_dir, settled, write_cache

PACKAGES = ("foundry_core", "tasks", "flows")
_WHOLE = "*"
Reference = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Closure:
    """digest over all functions; `functions` maps 'module:name' to each one's own digest."""

    digest: str
    functions: Mapping[str, str]


class CodeIndex:
    """Definitions and references of our packages' modules, cached by file signature."""

    def __init__(self, roots: Mapping[str, Path] | None = None) -> None:
        """roots: package → the folder it lies in; by default ours. The package of an entry that is
        asked for (a lab's own stage kinds) joins them."""
        here = Path(__file__).resolve().parents[2]
        self._roots = dict(roots) if roots else dict.fromkeys(PACKAGES, here)
        self._modules: dict[str, dict[str, Any] | None] = {}
        self._closures: dict[Reference, Closure] = {}
        self._dirty = False

    def closure(self, module: str, entry: str) -> Closure:
        """The closure of `entry`, a top-level name or 'Class.method', of `module`."""
        known = self._closures.get((module, entry))
        if known is None:
            known = self._closures[module, entry] = self._walk(module, entry)
        return known

    def _walk(self, module: str, entry: str) -> Closure:
        package = module.split(".")[0]
        if package not in self._roots:
            self._roots[package] = _folder_of(package)
        functions: dict[str, str] = {}
        pending: list[Reference] = [(module, entry)]
        seen: set[Reference] = set()
        while pending:
            reference = pending.pop()
            if reference in seen:
                continue
            seen.add(reference)
            for owner, name, definition in self._definitions(*reference):
                functions[f"{owner}:{name}"] = definition["hash"]
                pending += [tuple(r) for r in definition["refs"]]
        self._save()
        lines = "".join(f"{name} {sha}\n" for name, sha in sorted(functions.items()))
        digest = hashlib.sha256(lines.encode()).hexdigest()
        return Closure(digest=digest, functions=dict(sorted(functions.items())))

    def _definitions(self, module: str, name: str) -> list[tuple[str, str, dict[str, Any]]]:
        """What (module, name) stands for, following re-exports. Unknown names: a module's path."""
        info = self._module(module)
        if info is None:
            return []
        if name == _WHOLE:
            return [(module, n, d) for n, d in info["definitions"].items() if "." not in n]
        if name in info["definitions"]:
            return [(module, name, info["definitions"][name])]
        if name in info["imports"]:
            target_module, target = info["imports"][name]
            return self._definitions(target_module, target) if target else []
        return self._definitions(f"{module}.{name}", _WHOLE)

    def _module(self, module: str) -> dict[str, Any] | None:
        if module not in self._modules:
            self._modules[module] = self._load(module)
        return self._modules[module]

    def _load(self, module: str) -> dict[str, Any] | None:
        root = self._roots.get(module.split(".")[0])
        if root is None:
            return None
        base = f"{root}/{module.replace('.', '/')}"
        for path, package in (
            (f"{base}.py", module.rpartition(".")[0]),
            (f"{base}/__init__.py", module),
        ):
            try:
                stat = os.stat(path)
            except OSError:
                continue
            signature = f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"
            cached = self._cache.get(path)
            if cached and cached["signature"] == signature:
                return cached
            info = _summarise(Path(path).read_text(), module, package, self._roots)
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


def _folder_of(package: str) -> Path:
    """The folder on sys.path that holds an imported package or module."""
    file = Path(str(sys.modules[package].__file__)).resolve()
    return file.parents[1] if file.name == "__init__.py" else file.parent


_CACHE_VERSION = 2


@lru_cache(maxsize=1)
def _read_cache(path: str, mtime: int, inode: int) -> dict[str, Any]:
    """Modules by path. Parsing takes 5 ms, and some kinds hash code of their own while planning;
    sharing it is safe, for every entry is checked against its file's signature."""
    try:
        cache = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}
    return cache["modules"] if cache.get("version") == _CACHE_VERSION else {}


def _summarise(source: str, module: str, package: str, roots: Mapping[str, Path]) -> dict[str, Any]:
    """{'definitions': name → {hash, refs}, 'imports': name → [module, name or '']}."""
    tree = ast.parse(source)
    imports: dict[str, list[str]] = {}
    nodes: dict[str, list[ast.stmt]] = {}
    for statement in _flat(tree.body):
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            imports |= _imported(statement, package)
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            nodes.setdefault(statement.name, []).append(statement)
            if isinstance(statement, ast.ClassDef):
                for item in statement.body:
                    if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                        nodes[f"{statement.name}.{item.name}"] = [item]
        else:
            for name in _bound_names(statement):
                nodes.setdefault(name, []).append(statement)
    resolver = _Resolver(module, package, imports, set(nodes), roots)
    definitions = {
        name: {
            "hash": hashlib.sha256("\n".join(map(_dump, found)).encode()).hexdigest()[:16],
            "refs": sorted(resolver.references(found)),
        }
        for name, found in nodes.items()
    }
    return {"definitions": definitions, "imports": imports}


def _flat(body: list[ast.stmt]) -> Iterable[ast.stmt]:
    """Top-level statements, looking into if/try blocks."""
    for statement in body:
        if isinstance(statement, (ast.If, ast.Try)):
            for field in ("body", "orelse", "finalbody"):
                yield from _flat(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", []):
                yield from _flat(handler.body)
        else:
            yield statement


def _imported(statement: ast.Import | ast.ImportFrom, package: str) -> dict[str, list[str]]:
    if isinstance(statement, ast.Import):
        return {
            (a.asname or a.name.split(".")[0]): [a.name if a.asname else a.name.split(".")[0], ""]
            for a in statement.names
        }
    base = statement.module or ""
    if statement.level:
        parents = package.split(".")[: len(package.split(".")) - statement.level + 1]
        base = ".".join([*parents, base] if base else parents)
    return {a.asname or a.name: [base, a.name] for a in statement.names}


def _bound_names(statement: ast.stmt) -> set[str]:
    return {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


@dataclass
class _Resolver:
    module: str
    package: str
    imports: dict[str, list[str]]
    names: set[str]
    roots: Mapping[str, Path]

    def references(self, nodes: list[ast.stmt]) -> set[Reference]:
        """(module, name) of everything inside our packages that the nodes may reach."""
        found: set[Reference] = set()
        for node in nodes:
            local = dict(self.imports)
            for inner in ast.walk(node):
                if isinstance(inner, (ast.Import, ast.ImportFrom)):
                    local |= _imported(inner, self.package)
            self._visit(node, local, found)
        return found

    def _visit(self, node: ast.AST, imports: dict[str, list[str]], found: set[Reference]) -> None:
        chain = _attribute_chain(node)
        if chain:
            reference = self._resolve(chain, imports)
            if reference:
                found.add(reference)
            return
        for _, value in _fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self._visit(child, imports, found)

    def _resolve(self, chain: list[str], imports: dict[str, list[str]]) -> Reference | None:
        head = chain[0]
        if head in imports:
            module, name = imports[head]
            if module.split(".")[0] not in self.roots:
                return None
            if name and not self._is_module(f"{module}.{name}"):
                return module, name
            path = [*module.split("."), *([name] if name else []), *chain[1:]]
            return self._split_module(path)
        if head in self.names:
            return self.module, head
        return None

    def _split_module(self, path: list[str]) -> Reference:
        """['foundry_core', 'data', 'poses', 'f', …] → ('foundry_core.data.poses', 'f')."""
        end = 1
        while end < len(path) and self._is_module(".".join(path[: end + 1])):
            end += 1
        return ".".join(path[:end]), path[end] if end < len(path) else _WHOLE

    def _is_module(self, dotted: str) -> bool:
        base = self.roots[dotted.split(".")[0]].joinpath(*dotted.split("."))
        return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def _attribute_chain(node: ast.AST) -> list[str]:
    """['a', 'b', 'c'] for a.b.c, [] for anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def _dump(node: Any) -> str:
    """A stable text of an AST: no positions, docstrings or annotations, empty fields left out (so
    that Python versions that add optional fields agree)."""
    if isinstance(node, ast.AST):
        inner = ",".join(f"{name}={_dump(value)}" for name, value in _fields(node))
        return f"{type(node).__name__}({inner})"
    if isinstance(node, list):
        return "[" + ",".join(map(_dump, node)) + "]"
    return repr(node)


def _fields(node: ast.AST) -> Iterable[tuple[str, Any]]:
    for name, value in ast.iter_fields(node):
        if (
            value is None
            or value == []
            or name in ("ctx", "returns", "type_comment", "type_params")
        ):
            continue
        if name == "annotation" and not isinstance(node, ast.AnnAssign):
            continue
        if name == "body" and isinstance(value, list):
            value = _without_docstring(value)
        yield name, value


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return body[1:] if isinstance(first.value.value, str) else body
    return body
