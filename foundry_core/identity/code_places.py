"""What code reads beside itself: files reached from its own path, variables of the environment."""

import ast
from collections.abc import Mapping, Sequence

_Bindings = Mapping[str, Sequence[Sequence[str]]]
_READERS = ("get", "pop", "setdefault")


def folders_above(node: ast.AST) -> int | None:
    """How many folders above the module's own file a path leads: 1 for `Path(__file__).parent`,
    None for what is not built on `__file__`."""
    match node:
        case ast.Name(id="__file__"):
            return 0
        case ast.Attribute(value=inner, attr=name):
            return _plus(inner, name == "parent")
        case ast.Subscript(value=ast.Attribute(value=inner, attr="parents"), slice=ast.Constant(n)):
            return _plus(inner, n + 1 if isinstance(n, int) else 0)
        case ast.BinOp(left=inner, right=step):
            return _plus(inner, _steps_up(step))
        case ast.Call(func=func, args=[first, *more]) if (
            above := folders_above(first)
        ) is not None:
            called = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
            return above + (called == "dirname") + sum(map(_steps_up, more))
        case ast.Call(func=ast.Attribute(value=inner), args=steps):
            return _plus(inner, sum(map(_steps_up, steps)))
    return None


def _plus(inner: ast.AST, more: int) -> int | None:
    above = folders_above(inner)
    return None if above is None else above + more


def _steps_up(node: ast.AST) -> int:
    text = node.value if isinstance(node, ast.Constant) else None
    return text.split("/").count("..") if isinstance(text, str) else 0


def variable_read(node: ast.AST, imports: _Bindings, constants: Mapping[str, str]) -> str | None:
    """The environment variable that an expression reads by a name that stands in the module."""
    match node:
        case ast.Subscript(value=of, slice=name, ctx=ast.Load()) if _is(of, imports, "environ"):
            return _text(name, constants)
        case ast.Compare(left=name, comparators=[of]) if _is(of, imports, "environ"):
            return _text(name, constants)
        case ast.Call(func=func, args=[name, *_]) if _is(func, imports, "getenv"):
            return _text(name, constants)
        case ast.Call(func=ast.Attribute(value=of, attr=reader), args=[name, *_]):
            if reader in _READERS and _is(of, imports, "environ"):
                return _text(name, constants)
    return None


def _is(node: ast.AST, imports: _Bindings, name: str) -> bool:
    """Whether it is os.<name>, however it was imported."""
    match node:
        case ast.Attribute(value=ast.Name(id=module), attr=attribute):
            return attribute == name and ["os", ""] in imports.get(module, ())
        case ast.Name(id=bound):
            return ["os", name] in imports.get(bound, ())
    return False


def _text(node: ast.AST, constants: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    return constants.get(node.id) if isinstance(node, ast.Name) else None
