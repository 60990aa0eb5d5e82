"""What a module's source defines, what each definition refers to, and what importing it does.

Everything is plain JSON, unresolved: which module a name leads to is settled by `code`, so that a
summary depends on nothing but its own file.
"""

import ast
import hashlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from foundry_core.identity.code_places import folders_above, variable_read

# A reference: ['', name, …] is a name of the module itself, [module, name, …] comes from an import.
Chain = tuple[str, ...]
Bindings = dict[str, list[list[str]]]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_UNITS = (ast.With, ast.AsyncWith, ast.For, ast.AsyncFor, ast.While, ast.Match)
# A module with one of these in it may behave by its docstrings and annotations.
_INSPECTS = (b"__doc__", b"__annotations__", b"get_type_hints", b"getdoc", b"signature(")
# Decorators that do not look at annotations; others (validate_call) may.
_BLIND = frozenset(
    (
        *("abstractmethod", "asynccontextmanager", "cache", "cached_property", "classmethod"),
        *("compile", "computed_field", "contextmanager", "deleter", "field_serializer"),
        *("field_validator", "fixture", "getter", "inference_mode", "lru_cache", "overload"),
        *("model_serializer", "model_validator", "no_grad", "override", "property", "setter"),
        *("staticmethod", "total_ordering", "wraps"),
    )
)
# What makes a config's field: its `description` is for readers, like a docstring.
_DESCRIBES = frozenset(("Field", "positive"))
# Which annotations count: none, those of fields, or those of parameters and results too.
_Annotations = Literal["none", "fields", "all"]


def summarise(source: bytes, package: str) -> dict[str, Any]:
    """{definitions: name → {hash, refs, modules, kind, methods, data, …}, imports: name → [module,
    name or ''] each, stars: modules, effects: {hash, refs, modules}, subclasses and decorated:
    name → references}. package: what relative imports of the module start from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # Python itself shows them, once
        tree = ast.parse(source)
    module = _Module(package, "all" if any(word in source for word in _INSPECTS) else "fields")
    if module.annotations == "all" and ast.get_docstring(tree):
        module.nodes["__doc__"] = [tree.body[0]]
    for statement, context in _flat(tree.body):
        module.take(statement, context)
    return module.summary()


@dataclass
class _Module:
    package: str
    annotations: _Annotations
    nodes: dict[str, list[ast.AST]] = field(default_factory=dict)
    methods: dict[str, list[ast.AST]] = field(default_factory=dict)
    static: set[str] = field(default_factory=set)
    classes: dict[str, list[ast.ClassDef]] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    decorators: dict[str, list[ast.expr]] = field(default_factory=dict)
    imports: Bindings = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    modules: list[tuple[str, str]] = field(default_factory=list)
    effects: list[ast.AST] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)

    def take(self, statement: ast.stmt, context: list[ast.AST]) -> None:
        whole = [*context, statement]
        if isinstance(statement, _UNITS):
            inner = list(_inside(statement))
            for part in inner:
                self._import(part)
                self._define(part, whole)
            self._bind(_bound_names(statement), whole)
            if any(_has_effect(part) for part in inner):
                self.effects += whole
            return
        self._import(statement)
        self._define(statement, whole)
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            for name in _bound_names(statement):
                self.constants[name] = str(statement.value.value)
        if not isinstance(statement, (*_FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom)):
            self._bind(_bound_names(statement), whole)
        if _has_effect(statement):
            self.effects += whole

    def _import(self, statement: ast.AST) -> None:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            modules, stars = _imported(statement, self.package, self.imports)
            self.modules += modules
            self.stars += stars

    def _define(self, statement: ast.AST, whole: list[ast.AST]) -> None:
        if isinstance(statement, _FUNCTIONS):
            self.functions.add(statement.name)
        elif isinstance(statement, ast.ClassDef):
            self.classes.setdefault(statement.name, []).append(statement)
            for item, context in _flat(statement.body):
                if isinstance(item, _FUNCTIONS):
                    name = f"{statement.name}.{item.name}"
                    self._bind([name], [*whole[:-1], *context, item])
                    self.methods.setdefault(statement.name, []).extend([*context, item])
                    if any(_chain(d) == ["staticmethod"] for d in item.decorator_list):
                        self.static.add(name)
        else:
            return
        self._bind([statement.name], whole)
        self.decorators.setdefault(statement.name, []).extend(statement.decorator_list)

    def _bind(self, names: Iterable[str], whole: list[ast.AST]) -> None:
        for name in names:
            self.nodes.setdefault(name, []).extend(whole)

    def summary(self) -> dict[str, Any]:
        definitions = {name: self._definition(name, nodes) for name, nodes in self.nodes.items()}
        for name, nodes in self.methods.items():
            definitions[f"{name}()"] = self._item(nodes) | _VALUE
        effects = self._item(self.effects)
        effects["modules"] = sorted({*effects["modules"], *self.modules})
        return {
            "definitions": definitions,
            "imports": self.imports,
            "stars": sorted(set(self.stars)),
            "effects": effects,
            "subclasses": {
                name: self._item([base for c in found for base in c.bases])["refs"]
                for name, found in self.classes.items()
                if any(c.bases for c in found)
            },
            "decorated": {
                name: self._item([d.func if isinstance(d, ast.Call) else d for d in found])["refs"]
                for name, found in self.decorators.items()
                if found
            },
        }

    def _definition(self, name: str, nodes: list[ast.AST]) -> dict[str, Any]:
        classes = self.classes.get(name, [])
        kind = "class" if classes else "function" if name in self.functions else "value"
        more = {"kind": kind, "methods": name in self.methods}
        if name in self.static:
            more["static"] = True
        if any(_registers(found) for found in classes):
            more["registers"] = True
        return self._item(nodes) | more

    def _item(self, nodes: list[ast.AST]) -> dict[str, Any]:
        found = _References(self.package, frozenset(self.nodes), self.annotations, self.constants)
        for node in nodes:
            found.visit(node, self.imports)
        for star in self.stars if nodes else ():
            found.chains.add((star,))
        text = "\n".join(_dump(node, self.annotations) for node in nodes)
        return {
            "hash": hashlib.sha256(text.encode()).hexdigest()[:16] if nodes else "",
            "refs": sorted(map(list, found.chains)),
            "modules": sorted(found.modules),
            "data": found.data,
            "variables": sorted(found.variables),
        }


_VALUE = {"kind": "value", "methods": False}


@dataclass
class _References:
    """What nodes may reach, collected."""

    package: str
    names: frozenset[str]
    annotations: _Annotations
    constants: dict[str, str]
    chains: set[Chain] = field(default_factory=set)
    modules: set[tuple[str, str]] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    # How many folders up from the module's file data is read; 0: none.
    data: int = 0

    def visit(
        self, node: ast.AST, imports: Bindings, annotations: _Annotations | None = None
    ) -> None:
        annotations = _inside_of(node, annotations or self.annotations)
        above = folders_above(node)
        if above is not None:
            self.data = max(self.data, above, 1)
        variable = variable_read(node, imports, self.constants)
        if variable:
            self.variables.add(variable)
        chain = _chain(node)
        if chain:
            self._name(chain, imports)
            return
        if isinstance(node, ast.Call):
            self._call(node, imports)
        if isinstance(node, ast.AnnAssign):
            self._text_annotations(node, imports)
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            imports = self._local(node, imports)
        for _, value in _fields(node, annotations):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child, imports, annotations)

    def _name(self, chain: list[str], imports: Bindings) -> None:
        head, *rest = chain
        if head in ("globals", "eval", "exec"):
            self.chains.add(("",))
        for module, name in imports.get(head, []):
            self.chains.add((module, *([name] if name else []), *rest))
            if _reads_resources(module, name):
                self.data = max(self.data, 1)
        if head in self.names:
            self.chains.add(("", head))

    def _call(self, node: ast.Call, imports: Bindings) -> None:
        """`import_module("a.b")`, `files("a.b")`; a name that is put together cannot be seen."""
        called = _chain(node.func)[-1:]
        first = node.args[0] if node.args else None
        text = first.value if isinstance(first, ast.Constant) else None
        if called in (["import_module"], ["__import__"]) and isinstance(text, str):
            dots = len(text) - len(text.lstrip("."))
            base = _relative(self.package, dots)
            self.chains.add((".".join(filter(None, [base, text[dots:]])),))
        head, *_ = _chain(node.func) or [""]
        if any(_reads_resources(module, name) for module, name in imports.get(head, [])):
            if isinstance(text, str):
                self.chains.add((text, "__file__"))
            elif first is not None and (package := _chain(first)):
                self._name([*package, "__file__"], imports)

    def _text_annotations(self, node: ast.AnnAssign, imports: Bindings) -> None:
        for part in ast.walk(node.annotation):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                try:
                    self.visit(ast.parse(part.value, mode="eval"), imports)
                except SyntaxError:
                    continue

    def _local(self, node: ast.AST, imports: Bindings) -> Bindings:
        """`imports` as they are inside a function or class with imports of its own."""
        own: Bindings = {}
        for part in _inside(node):
            if isinstance(part, (ast.Import, ast.ImportFrom)):
                modules, stars = _imported(part, self.package, own)
                self.modules.update(modules)
                self.chains.update((star,) for star in stars)
        return {**imports, **own}


def _reads_resources(module: str, name: str) -> bool:
    return f"{module}.{name}".startswith(("importlib.resources", "pkgutil."))


def _flat(
    body: list[ast.stmt], context: tuple[ast.AST, ...] = ()
) -> Iterator[tuple[ast.stmt, list[ast.AST]]]:
    """Statements with the conditions they stand under, looking into if and try."""
    for statement in body:
        if isinstance(statement, ast.If):
            if _chain(statement.test)[-1:] == ["TYPE_CHECKING"]:
                yield from _flat(statement.orelse, context)
            else:
                inner = (*context, statement.test)
                yield from _flat([*statement.body, *statement.orelse], inner)
        elif isinstance(statement, (ast.Try, ast.TryStar)):
            yield from _flat(statement.body, context)
            for handler in statement.handlers:
                caught = (handler.type,) if handler.type else ()
                yield from _flat(handler.body, (*context, *caught))
            yield from _flat([*statement.orelse, *statement.finalbody], context)
        else:
            yield statement, list(context)


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node that runs with it: not what functions and classes in it hold."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            yield from _inside(child)


def _has_effect(statement: ast.AST) -> bool:
    """Whether it does something beyond giving a name of the module a value."""
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    if isinstance(statement, (ast.Delete, ast.Assert, ast.Raise)):
        return True
    if isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return any(
            isinstance(part, (ast.Attribute, ast.Subscript)) and isinstance(part.ctx, ast.Store)
            for target in targets
            for part in ast.walk(target)
        )
    return False


def _imported(
    statement: ast.Import | ast.ImportFrom, package: str, bound: Bindings
) -> tuple[list[tuple[str, str]], list[str]]:
    """(the (module, name) of all that is imported, starred modules). Adds to `bound` what each name
    stands for."""
    if isinstance(statement, ast.Import):
        for a in statement.names:
            top = a.name.partition(".")[0]
            bound.setdefault(a.asname or top, []).append([a.name if a.asname else top, ""])
        return [(a.name, "") for a in statement.names], []
    base = ".".join(filter(None, [_relative(package, statement.level), statement.module]))
    names = [a for a in statement.names if a.name != "*"]
    for a in names:
        bound.setdefault(a.asname or a.name, []).append([base, a.name])
    stars = [base] if len(names) < len(statement.names) else []
    return [(base, ""), *((base, a.name) for a in names)], stars


def _relative(package: str, dots: int) -> str:
    """Where an import with so many leading dots starts."""
    parts = package.split(".")
    return ".".join(parts[: len(parts) - dots + 1]) if dots else ""


def _bound_names(statement: ast.AST) -> set[str]:
    names: set[str | None] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.MatchAs, ast.MatchStar)):
            names.add(node.name)
        elif isinstance(node, ast.MatchMapping):
            names.add(node.rest)
    return {name for name in names if name}


def _registers(definition: ast.ClassDef) -> bool:
    methods = [item.name for item in definition.body if isinstance(item, _FUNCTIONS)]
    metaclasses = [k.value for k in definition.keywords if k.arg == "metaclass"]
    strange = [m for m in metaclasses if _chain(m)[-1:] != ["ABCMeta"]]
    return "__init_subclass__" in methods or bool(strange)


def _chain(node: ast.AST) -> list[str]:
    """['a', 'b', 'c'] for a.b.c, [] for anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def _inside_of(node: ast.AST, annotations: _Annotations) -> _Annotations:
    """Which annotations count below a node: those of a function are for readers, unless something
    inspects them."""
    if annotations == "all" or not isinstance(node, _FUNCTIONS):
        return annotations
    decorators = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    blind = all((_chain(d) or [""])[-1] in _BLIND for d in decorators)
    return "none" if blind else "all"


def _dump(node: Any, annotations: _Annotations) -> str:
    """A stable text of an AST: no positions, docstrings or annotations, empty fields left out (so
    that Python versions that add optional fields agree)."""
    if isinstance(node, ast.AST):
        annotations = _inside_of(node, annotations)
        fields = _fields(node, annotations)
        inner = ",".join(f"{name}={_dump(value, annotations)}" for name, value in fields)
        return f"{type(node).__name__}({inner})"
    if isinstance(node, list):
        return "[" + ",".join(_dump(item, annotations) for item in node) + "]"
    return repr(node)


def _fields(node: ast.AST, annotations: _Annotations) -> Iterator[tuple[str, Any]]:
    for name, value in ast.iter_fields(node):
        if annotations != "all":
            value = _undescribed(node, name, value)
        if value is None or value == [] or name in ("ctx", "type_comment", "type_params"):
            continue
        if name == "kind" and isinstance(node, ast.Constant):
            continue
        is_field = isinstance(node, ast.AnnAssign) and annotations == "fields"
        if name in ("returns", "annotation") and annotations != "all" and not is_field:
            continue
        if name == "body" and isinstance(value, list) and annotations != "all":
            value = [statement for statement in value if not _is_remark(statement)]
        yield name, value


def _undescribed(node: ast.AST, name: str, value: Any) -> Any:
    """A part of a node without descriptions: `x: int = Field(3, description=…)` is `x: int = 3`."""
    if name == "keywords" and _called(node) in _DESCRIBES:
        return [keyword for keyword in value if keyword.arg != "description"]
    if name == "value" and isinstance(node, ast.AnnAssign) and _called(value) == "Field":
        says_more = any(keyword.arg != "description" for keyword in value.keywords)
        if not says_more and len(value.args) <= 1:
            return next(iter(value.args), None)
    return value


def _called(node: Any) -> str:
    """'c' for a call of a.b.c, '' for anything else."""
    return (_chain(node.func) or [""])[-1] if isinstance(node, ast.Call) else ""


def _is_remark(statement: Any) -> bool:
    """A docstring, or what stands where a body needs something."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return isinstance(statement.value.value, str)
    return isinstance(statement, ast.Pass)
