"""YAML as values: strict, and bounded before anything of it is built.

A document is read as a stream of events first, which takes memory for its depth alone: what is
nested without end, or what aliases blow up, is refused there. Building it would overflow the stack
of the C parser, or fill the memory.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from foundry_core.errors import FoundryError
from foundry_core.files import encodable

MAX_BYTES = 2**20
MAX_DEPTH = 50
# Characters, with all aliases written out; each value counts for so many more.
MAX_SIZE = 8 * 2**20
_VALUE_SIZE = 60
_LONGEST_NUMBER = 100
# The one in C is ten times as fast; not every build has it.
if TYPE_CHECKING:
    from yaml import SafeLoader as _BaseLoader
else:
    _BaseLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_TAGS = (
    None,
    "!",
    *(_TAG + name for name in ("map", "seq", "str", "int", "float", "bool", "null")),
)


class _StrictLoader(_BaseLoader):
    """Safe YAML that refuses duplicate keys and reads 1e-3 as a number, as YAML 1.2 does."""


def _mapping(loader: _StrictLoader, node: yaml.Node) -> dict:
    if not isinstance(node, yaml.MappingNode):
        raise ConstructorError(None, None, "a mapping is expected", node.start_mark)
    merged: dict = {}
    mapping: dict = {}
    for key_node, value_node in node.value:
        if key_node.tag == f"{_TAG}merge":
            below = loader.construct_object(value_node, deep=True)
            for part in reversed(below if isinstance(below, list) else [below]):
                if not isinstance(part, dict):
                    raise ConstructorError(
                        None, None, "`<<` takes a mapping, or a list of them", key_node.start_mark
                    )
                merged |= part
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            key = str(key)
        if key in mapping:
            raise ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return merged | mapping


def _scalar(name: str) -> Any:
    """PyYAML's constructor of a type, for texts that it fails on, too."""
    construct = getattr(SafeConstructor, f"construct_yaml_{name}")

    def constructed(loader: _StrictLoader, node: yaml.Node) -> Any:
        try:
            if len(node.value) <= _LONGEST_NUMBER:
                return construct(loader, node)
        except (ValueError, LookupError):
            pass
        shown = f"{str(node.value)[:20]}... ({len(node.value)} characters)"
        shown = repr(node.value) if len(node.value) <= _LONGEST_NUMBER else shown
        raise ConstructorError(None, None, f"{shown} is no {name}", node.start_mark)

    return constructed


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
for _name in ("int", "float", "bool"):
    _StrictLoader.add_constructor(_TAG + _name, _scalar(_name))
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
    for first, resolvers in _BaseLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(
    f"{_TAG}float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a document, or a FoundryError that says where it is none or too much."""
    return parse_sized(text, where)[0]


def parse_sized(text: str, where: str) -> tuple[Any, int]:
    """(value, size in the unit of MAX_SIZE)."""
    if len(text) > MAX_BYTES:
        raise too_long(where)
    if not encodable(text):
        raise FoundryError(f"{where}: not UTF-8", "save it as UTF-8")
    try:
        size = _checked(text, where)
        return yaml.load(text, Loader=_StrictLoader), size
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise FoundryError(f"{where}{line}: {problem}", "mend the YAML syntax") from None


def too_long(where: str) -> FoundryError:
    return FoundryError(
        f"{where}: longer than {MAX_BYTES >> 20} MiB", "a document holds settings, and no data"
    )


def too_deep(where: str) -> FoundryError:
    return FoundryError(f"{where}: nested deeper than {MAX_DEPTH} levels", "flatten it")


def too_much(where: str) -> FoundryError:
    return FoundryError(
        f"{where}: with its aliases and includes written out, longer than {MAX_SIZE >> 20} MiB",
        "a document holds settings, and no data",
    )


@dataclass
class _Open:
    """A collection whose end was not read yet."""

    anchor: str | None
    size: int = _VALUE_SIZE


def _checked(text: str, where: str) -> int:
    """The size of a document with all aliases written out. FoundryError for one that is too deep,
    too much, or without an end."""
    sizes: dict[str, int] = {}
    around = [_Open(None, 0)]
    for event in yaml.parse(text, Loader=_StrictLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            done = around.pop()
        elif isinstance(event, yaml.NodeEvent):
            tag = getattr(event, "tag", None)
            if tag not in _TAGS:
                raise _unusable(event, f"tag {tag!r} has no use", where)
            if isinstance(event, yaml.CollectionStartEvent):
                around.append(_Open(event.anchor))
                if len(around) > MAX_DEPTH + 1:
                    raise too_deep(where)
                continue
            done = _Open(event.anchor, _size(event, sizes, around, where))
        else:
            continue
        if done.anchor and not isinstance(event, yaml.AliasEvent):
            sizes[done.anchor] = done.size
        around[-1].size += done.size
        if around[-1].size > MAX_SIZE:
            raise too_much(where)
    return around[0].size


def _size(event: yaml.NodeEvent, sizes: dict[str, int], around: list[_Open], where: str) -> int:
    """Of a scalar, or of what an alias stands for."""
    if isinstance(event, yaml.ScalarEvent):
        return len(event.value) + _VALUE_SIZE
    if event.anchor in sizes:
        return sizes[event.anchor]
    inside = any(one.anchor == event.anchor for one in around)
    problem = "stands within what it means" if inside else "has no anchor"
    raise _unusable(event, f"alias {event.anchor!r} {problem}", where)


def _unusable(event: yaml.NodeEvent, problem: str, where: str) -> FoundryError:
    line = f", line {event.start_mark.line + 1}" if event.start_mark else ""
    return FoundryError(f"{where}{line}: {problem}", "remove it")
