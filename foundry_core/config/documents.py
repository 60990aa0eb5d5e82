"""YAML documents: strict loading, includes, deep merge.

`include: path` (or a list) may stand in any mapping; the included documents are merged in order,
then the mapping's own keys on top. Paths are looked up beside the including file, then in the
packaged `stage_configs/`. A value of null removes nothing: it sets null; a stage set to null is
dropped when the graph is built.
"""

import os
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any

import stage_configs
from foundry_core.config.parsing import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_SIZE,
    parse_sized,
    too_deep,
    too_long,
    too_much,
)
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError
from foundry_core.project import project_folder

CONFIG_ROOT = Path(stage_configs.__file__).parent
# What says which of several things a mapping is.
TAGS = ("kind", "format")
_MAX_DOCUMENTS = 100


def deep_merge(base: Any, top: Any) -> Any:
    """Mappings merge key by key; anything else on top replaces what is below, and so does a mapping
    that is another thing: of another kind or format, an import in the place of a stage."""
    if isinstance(base, dict) and isinstance(top, dict) and not _replaces(top, base):
        merged = dict(base)
        for key, value in top.items():
            merged[key] = deep_merge(base[key], value) if key in base else value
        return merged
    return top


def _replaces(top: dict, base: dict) -> bool:
    if any(tag in base and base[tag] != top.get(tag, base[tag]) for tag in TAGS):
        return True
    return ("import" in top) != ("import" in base) and ("kind" in top or "kind" in base)


@dataclass(frozen=True)
class Located:
    """A value that is no mapping and no list, and who says so. Equal where the values are."""

    value: Any
    origin: str = field(compare=False)


def load_document(path: Path) -> dict[str, Any]:
    """A YAML mapping with its includes merged in. FoundryError for one without an end, and for more
    than a pipeline can need: `parsing` bounds a document, this all of them together."""
    return _load(Path(os.path.realpath(path)), _Reading((), [], 0, lambda value, _: value))


def load_located(path: Path) -> dict[str, Any]:
    """The same document with each value but null, which means that nothing stands there, as
    `Located` in the file that has the last word on it."""
    return _load(Path(os.path.realpath(path)), _Reading((), [], 0, _located))


def _located(value: Any, path: Path) -> Any:
    return None if value is None else Located(value, _shown(path))


def _shown(path: Path) -> str:
    """A packaged document as an include names it, another file as its path."""
    if path.is_relative_to(CONFIG_ROOT):
        return str(path.relative_to(CONFIG_ROOT).with_suffix(""))
    return str(path)


def read_yaml(path: Path) -> Any:
    """The value of one YAML file of whatever origin, within the bounds of a document; `include` is
    a key like any other. FoundryError for what is none, and for what is too much."""
    return parse_sized(_text(path), str(path))[0]


@dataclass(frozen=True)
class _Reading:
    """chain: the documents around the one that is read. sizes: of all that were read, for every
    time that they were. depth: how many levels lie around. leaf: what becomes of a value that is
    no mapping and no list, and of the file it stands in."""

    chain: tuple[Path, ...]
    sizes: list[int]
    depth: int
    leaf: Callable[[Any, Path], Any]


def _load(path: Path, reading: _Reading) -> dict[str, Any]:
    if path in reading.chain:
        circle = " → ".join(p.name for p in (*reading.chain, path))
        raise FoundryError(f"includes form a circle: {circle}", "remove one include")
    if len(reading.sizes) == _MAX_DOCUMENTS:
        raise FoundryError(f"{path}: more than {_MAX_DOCUMENTS} includes", "write fewer documents")
    document, size = parse_sized(_text(path), str(path))
    reading.sizes.append(size)
    if sum(reading.sizes) > MAX_SIZE:
        raise too_much(str(path))
    if not isinstance(document, dict):
        raise FoundryError(f"{path}: a mapping is expected at the top", "start with `key: value`")
    return _expand(document, path, replace(reading, chain=(*reading.chain, path)))


def _text(path: Path) -> str:
    """Of a file; what else may stand under the name, and never ends, is not read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            if not S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise FoundryError(f"{path} is no file", "name a YAML file")
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise FoundryError(f"cannot read {path}: {problem}", "check the path") from None
    if len(data) > MAX_BYTES:
        raise too_long(str(path))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise FoundryError(f"{path}, line {line}: not UTF-8", "save it as UTF-8") from None


def _expand(value: Any, path: Path, reading: _Reading) -> Any:
    if not isinstance(value, (dict, list)):
        return reading.leaf(value, path)
    if reading.depth > MAX_DEPTH:
        raise too_deep(str(path))
    inside = replace(reading, depth=reading.depth + 1)
    if isinstance(value, list):
        return [_expand(item, path, inside) for item in value]
    merged: Any = {}
    for include in _includes(value, path):
        merged = deep_merge(merged, _load(_find(include, path), reading))
    own = {key: _expand(item, path, inside) for key, item in value.items() if key != "include"}
    return deep_merge(merged, own)


def _includes(value: dict, path: Path) -> list[str]:
    named = value.get("include", [])
    includes = [named] if isinstance(named, str) else named
    if isinstance(includes, list) and all(isinstance(one, str) for one in includes):
        return includes
    raise FoundryError(
        f"{path}: include = {reprlib.repr(named)}: expected a document's name, or a list of names",
        "e.g. include: training/demo",
    )


def _find(include: str, includer: Path) -> Path:
    name = include if include.endswith((".yaml", ".yml")) else f"{include}.yaml"
    for folder in (includer.parent, CONFIG_ROOT):
        # pathlib's is_file raises for names that no file system takes
        if os.path.isfile(folder / name):
            return Path(os.path.realpath(folder / name))
    known = [str(p.relative_to(CONFIG_ROOT).with_suffix("")) for p in CONFIG_ROOT.rglob("*.yaml")]
    beside = os.path.basename(name)  # it may be written as seen from where a command runs
    near = f"did you mean {beside!r}?" if os.path.isfile(includer.parent / beside) else ""
    raise FoundryError(
        f"{includer}: include {include[:200]!r} is not found, neither in {includer.parent}, "
        "the folder of the file that includes it, nor among the shipped documents",
        near or nearest(include, known),
    )


def find_pipeline(name: str) -> Path:
    """A pipeline by path, or by name among those `pipeline_names` lists."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    for folder in _pipeline_folders():
        if os.path.isfile(folder / f"{name}.yaml"):
            return folder / f"{name}.yaml"
    hint = nearest(name, pipeline_names())
    if hint.startswith("valid") and project_folder() is None:
        hint += "; a project's own are known inside its folder"
    raise FoundryError(f"unknown pipeline {name!r}", hint)


def pipeline_names() -> list[str]:
    """Ours, and those of the folders in FOUNDRY_PIPELINES: a lab's own beside the installation."""
    return sorted({p.stem for folder in _pipeline_folders() for p in folder.glob("*.yaml")})


def _pipeline_folders() -> list[Path]:
    own = filter(None, os.environ.get("FOUNDRY_PIPELINES", "").split(os.pathsep))
    return [CONFIG_ROOT / "pipelines", *map(Path, own)]
