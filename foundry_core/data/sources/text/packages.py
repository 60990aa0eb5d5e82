"""English from what is installed: documentation files and docstrings of Python distributions.

Source files are parsed, never imported. One module gives one document: its docstring, then each
public class and function as its signature followed by its docstring.
"""

import ast
import csv
import importlib.metadata
import inspect
import os
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from foundry_core.data.sources.base import Document, SourceRef, TextFormat
from foundry_core.data.sources.files import PIECE_BYTES, groups_by_size
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import files_fingerprint, normalized

_ENDINGS = (".py", ".md", ".rst", ".txt")
_NOT_PROSE = ("test_", "license", "licence", "copying", "notice", "authors", "entry_points",
              "top_level", "requirements", "cmakelists", "sources", "third",
              "record")  # fmt: skip
_NOT_DOCUMENTED = {"..", "tests", "test", "testing", "_vendor", "vendor", "vendored", "thirdparty"}


class PackageDocs(TextFormat):
    """Docstrings and documentation files of installed Python distributions: English that every
    installation has. Nothing is imported or run."""

    format: Literal["packages"] = "packages"
    packages: tuple[Annotated[str, AfterValidator(normalized)], ...] = Field(
        min_length=1, description="distribution names"
    )
    min_characters: int = Field(200, ge=1, description="leave out shorter documents")

    @classmethod
    def options(cls, source: str) -> dict[str, Any]:
        return {"packages": source.split(",")}

    def identity(self) -> Mapping[str, str]:
        """Of the files that are read. RECORD says what was installed, not what lies there."""
        digests = {}
        for package in self.packages:
            try:
                digest = files_fingerprint(_root(package), _documented(package))
            except FileNotFoundError as error:
                raise _missing(package, error.filename) from None
            digests[f"package {package}"] = digest
        return digests

    def refs(self) -> list[SourceRef]:
        return [
            SourceRef(name=f"{package}[{number}]", files=(package, *group))
            for package in self.packages
            for number, group in enumerate(groups_by_size(package_modules(package), PIECE_BYTES))
        ]

    def read(self, ref: SourceRef) -> Iterator[Document]:
        """Of each file that has any documentation."""
        package, *files = ref.files
        for name in files:
            try:
                content = Path(_root(package), name).read_text(encoding="utf-8")
            except FileNotFoundError:
                raise _missing(package, name) from None
            except UnicodeDecodeError:
                continue  # data that only looks like a text file by its name
            text = _docstrings(name, content) if name.endswith(".py") else content.strip()
            if len(text) >= self.min_characters:
                yield Document(id=name, text=text)


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
    root = _root(package)
    sized = [(name, os.stat(os.path.join(root, name)).st_size) for name in _documented(package)]
    return [(name, size) for name, size in sized if size]


@lru_cache(maxsize=64)
def _root(package: str) -> str:
    return os.path.realpath(str(_distribution(package).locate_file("")))


@lru_cache(maxsize=64)
def _documented(package: str) -> tuple[str, ...]:
    """What may hold documentation, sorted. Lines of RECORD are cut and not parsed as by
    `Distribution.files`, which takes 20 ms of a plan for SciPy."""
    distribution = _distribution(package)
    record = distribution.read_text("RECORD")
    files = _recorded(record) if record is not None else map(str, distribution.files or ())
    return tuple(sorted(filter(_is_documentation, files)))


def _recorded(record: str) -> Iterator[str]:
    """The files of a RECORD, without the two thirds that are never documentation."""
    for line in record.splitlines():
        if ".pyc," in line or "/tests/" in line:
            continue
        file = next(csv.reader([line]))[0] if line[:1] == '"' else line.partition(",")[0]
        if file.lower().endswith(_ENDINGS):
            yield file


def _is_documentation(file: str) -> bool:
    folder, _, base = file.rpartition("/")
    name = base.lower()
    return (
        name.endswith(_ENDINGS)
        and not name.startswith(_NOT_PROSE)
        and _NOT_DOCUMENTED.isdisjoint(folder.split("/"))
    )


def _missing(package: str, name: str) -> FoundryError:
    return FoundryError(
        f"{name!r} of the installed package {package!r} is missing",
        f"pip install --force-reinstall {package}",
    )


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


FORMAT = PackageDocs
