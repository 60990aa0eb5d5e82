"""YAML documents: strict loading, includes, deep merge.

`include: path` (or a list) may stand in any mapping; the included documents are merged in order,
then the mapping's own keys on top. Paths are looked up beside the including file, then in the
packaged `stage_configs/`. A value of null removes nothing: it sets null; a stage set to null is
dropped when the graph is built.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import stage_configs
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError

CONFIG_ROOT = Path(stage_configs.__file__).parent
# What says which of several things a mapping is.
TAGS = ("kind", "format")
# The one in C is ten times as fast; not every build has it.
if TYPE_CHECKING:
    from yaml import SafeLoader as _BaseLoader
else:
    _BaseLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_BaseLoader):
    """Safe YAML that refuses duplicate keys and reads 1e-3 as a number, as YAML 1.2 does."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict:
    merged: dict = {}
    mapping: dict = {}
    for key_node, value_node in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            below = loader.construct_object(value_node, deep=True)
            for part in reversed(below if isinstance(below, list) else [below]):
                merged |= part
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            key = str(key)
        if key in mapping:
            line = key_node.start_mark.line + 1
            raise FoundryError(f"key {key!r} stands twice (line {line})", "keep one of them")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return merged | mapping


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _BaseLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise FoundryError(f"{where}{line}: {problem}", "mend the YAML syntax") from None
    except FoundryError as error:
        raise FoundryError(f"{where}: {error.message}", error.hint) from None


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


def load_document(path: Path) -> dict[str, Any]:
    """A YAML mapping with its includes merged in."""
    return _load(path.resolve(), ())


def _load(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    if path in chain:
        circle = " → ".join(p.name for p in (*chain, path))
        raise FoundryError(f"includes form a circle: {circle}", "remove one include")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FoundryError(f"cannot read {path}: {error.strerror}", "check the path") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise FoundryError(f"{path}, line {line}: not UTF-8", "save it as UTF-8") from None
    document = parse_yaml(text, str(path))
    if not isinstance(document, dict):
        raise FoundryError(f"{path}: a mapping is expected at the top", "start with `key: value`")
    return _expand(document, path, (*chain, path))


def _expand(value: Any, path: Path, chain: tuple[Path, ...]) -> Any:
    if isinstance(value, list):
        return [_expand(item, path, chain) for item in value]
    if not isinstance(value, dict):
        return value
    merged: Any = {}
    includes = value.get("include", [])
    for include in [includes] if isinstance(includes, str) else includes:
        merged = deep_merge(merged, _load(_find(include, path), chain))
    own = {key: _expand(item, path, chain) for key, item in value.items() if key != "include"}
    return deep_merge(merged, own)


def _find(include: str, includer: Path) -> Path:
    name = include if include.endswith((".yaml", ".yml")) else f"{include}.yaml"
    for folder in (includer.parent, CONFIG_ROOT):
        if (folder / name).is_file():
            return (folder / name).resolve()
    known = [str(p.relative_to(CONFIG_ROOT).with_suffix("")) for p in CONFIG_ROOT.rglob("*.yaml")]
    raise FoundryError(f"{includer}: include {include!r} is not found", nearest(include, known))


def find_pipeline(name: str) -> Path:
    """A pipeline by path, or by name among those `pipeline_names` lists."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    for folder in _pipeline_folders():
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise FoundryError(f"unknown pipeline {name!r}", nearest(name, pipeline_names()))


def pipeline_names() -> list[str]:
    """Ours, and those of the folders in FOUNDRY_PIPELINES: a lab's own beside the installation."""
    return sorted({p.stem for folder in _pipeline_folders() for p in folder.glob("*.yaml")})


def _pipeline_folders() -> list[Path]:
    own = filter(None, os.environ.get("FOUNDRY_PIPELINES", "").split(os.pathsep))
    return [CONFIG_ROOT / "pipelines", *map(Path, own)]
