"""English from what is installed: documentation files and docstrings of Python distributions.

Source files are parsed, never imported. One module gives one document: its docstring, then each
public class and function as its signature followed by its docstring.
"""

import ast
import importlib.metadata
import inspect
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath

from foundry_core.errors import FoundryError

_DOCUMENTS = (".md", ".rst", ".txt")
_NOT_PROSE = ("license", "licence", "copying", "notice", "authors", "entry_points", "top_level",
              "requirements", "cmakelists", "sources", "third", "record")  # fmt: skip
_NOT_DOCUMENTED = {"tests", "test", "testing", "_vendor", "vendor", "vendored", "thirdparty"}


@lru_cache(maxsize=64)
def _distribution(package: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise FoundryError(
            f"source package {package!r} is not installed", f"pip install {package}"
        ) from None


def package_modules(package: str) -> list[tuple[str, int]]:
    """(file name relative to the installation, bytes) of what may hold documentation, sorted."""
    found: list[tuple[str, int]] = []
    for file in _distribution(package).files or []:
        path = PurePosixPath(file)
        name = path.name.lower()
        if _NOT_DOCUMENTED & set(path.parts) or ".." in path.parts:
            continue
        if name.startswith(("test_", *_NOT_PROSE)) or not name.endswith((".py", *_DOCUMENTS)):
            continue
        size = file.size if file.size is not None else file.locate().stat().st_size
        if size:
            found.append((path.as_posix(), size))
    return sorted(found)


def package_documents(package: str, files: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(document id, text) of each named file that has any documentation."""
    distribution = _distribution(package)
    for name in files:
        try:
            content = distribution.locate_file(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise FoundryError(
                f"{name!r} of the installed package {package!r} is missing",
                f"pip install --force-reinstall {package}",
            ) from None
        except UnicodeDecodeError:
            continue  # data that only looks like a text file by its name
        text = _docstrings(name, content) if name.endswith(".py") else content.strip()
        if text:
            yield name, text


def _docstrings(name: str, source: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ""  # templates and Python 2 files are shipped as .py
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    parts = list(_described(tree, ""))
    if not parts:
        return ""
    head = ast.get_docstring(tree)
    return "\n\n".join([module, *([head] if head else []), *(part for part in parts if part)])


def _described(node: ast.AST, prefix: str) -> Iterator[str]:
    """Signature + docstring of the public definitions below `node`, in source order.

    An empty string stands for the module's own docstring, so that a module with only that one
    still counts.
    """
    if isinstance(node, ast.Module) and ast.get_docstring(node):
        yield ""
    for child in getattr(node, "body", []):
        if isinstance(child, (ast.If, ast.Try)):
            yield from _described(child, prefix)
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if child.name.startswith("_") and child.name != "__init__":
            continue
        name = f"{prefix}{child.name}"
        doc = ast.get_docstring(child, clean=False)
        if doc and len(doc) > 20:
            yield f"{name}{_signature(child)}\n\n{inspect.cleandoc(doc)}"
        if isinstance(child, ast.ClassDef):
            yield from _described(child, f"{name}.")


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        return ""
    names = [
        a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")
    ]
    names += [f"*{node.args.vararg.arg}"] if node.args.vararg else []
    names += [a.arg for a in node.args.kwonlyargs]
    names += [f"**{node.args.kwarg.arg}"] if node.args.kwarg else []
    return f"({', '.join(names)})"
