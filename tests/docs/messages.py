"""Every message that the code raises or prints, with `…` where a value stands."""

import ast
from collections.abc import Iterator
from functools import cache

from tests.conftest import REPOSITORY


@cache
def messages() -> frozenset[str]:
    found: set[str] = set()
    for package in ("flows", "tasks", "foundry_core"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            found.update(_texts(ast.parse(path.read_text(encoding="utf-8"))))
    return frozenset(found)


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        text = _text(node)
        if text:
            yield text


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
    return ""
