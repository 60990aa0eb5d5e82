"""Open sets: what a name in a config leads to, found and never listed.

A member is one module that defines the set's attribute (`FORMAT`, `HEAD`, `BENCHMARK`, ...). Ours
are the files of one package, called as the member is. Anybody else's come with an installed
distribution, by one line of its pyproject.toml:

    [project.entry-points."foundry.robot_formats"]
    our_robot = "our_package.our_robot"

Looking a name up imports that member's module and no other: planning stays quick. docs/extending.md
walks through one addition of each set.
"""

import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError

T = TypeVar("T")


class Registry(Generic[T]):
    """The members of one open set by name.

    group: the entry points' group. package: where ours lie. attribute: what a member's module
    defines. noun: what messages call a member. dashes: a member is called with `-` where its file
    has `_`.
    """

    def __init__(
        self, *, group: str, package: str, attribute: str, noun: str, dashes: bool = False
    ) -> None:
        self.group = group
        self.package = package
        self.noun = noun
        self._attribute = attribute
        self._dashes = dashes
        self._loaded: dict[str, T] = {}

    def names(self) -> list[str]:
        """Every member, ours and those of installed distributions, sorted."""
        return sorted({*self._ours, *_entry_points(self.group)})

    def module(self, name: str) -> str:
        """The dotted module of a member. FoundryError with the nearest name when there is none,
        or when two distributions call a member alike."""
        if name in self._ours:
            return self._ours[name]
        modules = _entry_points(self.group).get(name, ())
        if not modules:
            raise FoundryError(f"unknown {self.noun} {name!r}", nearest(name, self.names()))
        if len(modules) > 1:
            raise FoundryError(
                f"{self.noun} {name!r} is defined by {' and by '.join(modules)}",
                "uninstall one of them, or rename its entry point",
            )
        return modules[0]

    def get(self, name: str) -> T:
        """The member; imports its module. FoundryError when that defines no such member."""
        if name not in self._loaded:
            module = self.module(name)
            member = getattr(importlib.import_module(module), self._attribute, None)
            if member is None:
                raise FoundryError(
                    f"{module} defines no {self._attribute}",
                    f"a module of {self.group} ends in {self._attribute} = <what it adds>",
                )
            self._loaded[name] = member
        return self._loaded[name]

    @cached_property
    def _ours(self) -> dict[str, str]:
        spec = importlib.util.find_spec(self.package)
        folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else None
        if folder is None:
            raise FoundryError(f"{self.package} is no package", "reinstall foundry")
        defines = re.compile(rf"^{self._attribute}\b", re.MULTILINE)
        stems = [
            file.stem
            for file in folder.glob("*.py")
            if defines.search(file.read_text(encoding="utf-8"))
        ]
        return {
            stem.replace("_", "-") if self._dashes else stem: f"{self.package}.{stem}"
            for stem in stems
        }


@cache
def _entry_points(group: str) -> Mapping[str, tuple[str, ...]]:
    """name → modules. Reads the metadata of every installed distribution: 30 ms, so it is asked
    for names that are not ours, and for lists."""
    from importlib.metadata import entry_points

    found: dict[str, tuple[str, ...]] = {}
    for entry in entry_points(group=group):
        found[entry.name] = tuple(sorted({*found.get(entry.name, ()), entry.module}))
    return found


@dataclass(frozen=True)
class OneOf:
    """Marks a config's field as a member of an open set, chosen by the value of its `tag`:

        Head = Annotated[HeadConfig, OneOf(HEADS, "kind")]

    What pydantic's discriminated unions are for closed sets. A value is a mapping, or a member.
    """

    registry: Registry[type[BaseModel]]
    tag: str

    def member(self, data: Any) -> type[BaseModel]:
        """The class that a mapping asks for. Raises FoundryError for an unknown name."""
        return self.registry.get(data[self.tag])

    def members(self) -> list[type[BaseModel]]:
        """Every class of the set; imports them all."""
        return [self.registry.get(name) for name in self.registry.names()]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        base = getattr(source, "__origin__", source)

        def build(data: Any) -> BaseModel:
            if isinstance(data, base):
                return data
            if not isinstance(data, Mapping):
                raise PydanticCustomError("model_type", "a mapping is expected")
            name = data.get(self.tag)
            if not isinstance(name, str):
                raise PydanticCustomError(
                    "missing_tag",
                    "{tag} is required; valid: {names}",
                    {"tag": self.tag, "names": ", ".join(self.registry.names())},
                )
            try:
                kind = self.member(data)
            except FoundryError as error:
                raise PydanticCustomError(
                    "unknown_tag", "{message}", {"message": str(error)}
                ) from None
            return kind.model_validate(data)

        return core_schema.no_info_plain_validator_function(build)
