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
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError

T = TypeVar("T")


class Registry(Generic[T]):
    """The members of one open set by name.

    group: the entry points' group. package: where ours lie. attribute: what a member's module
    defines. noun: what messages call a member. dashes: a member is called with `-` where its file
    has `_`. variable: an environment variable that names more such packages, separated by commas.
    """

    def __init__(
        self,
        *,
        group: str,
        package: str,
        attribute: str,
        noun: str,
        dashes: bool = False,
        variable: str = "",
    ) -> None:
        self.group = group
        self.package = package
        self.noun = noun
        self._attribute = attribute
        self._dashes = dashes
        self._variable = variable
        self._loaded: dict[str, T] = {}

    def names(self) -> list[str]:
        """Every member, ours and those of installed distributions, sorted. FoundryError when one
        name has two meanings."""
        found = {*self._by_file(), *_entry_points(self.group)}
        for name in found:
            self._check_single(name, self._by_file().get(name))
        return sorted(found)

    def module(self, name: str) -> str:
        """The dotted module of a member. FoundryError with the nearest name when there is none,
        or when it is defined twice."""
        module = self._by_file().get(name)
        if module is not None:
            return module
        modules = _entry_points(self.group).get(name, ())
        if not modules:
            raise FoundryError(f"unknown {self.noun} {name!r}", nearest(name, self.names()))
        self._check_single(name, None)
        return modules[0]

    def get(self, name: str) -> T:
        """The member; imports its module. FoundryError when that defines no such member."""
        module = self.module(name)
        if module not in self._loaded:
            member = getattr(_imported(module), self._attribute, None)
            if member is None:
                raise FoundryError(
                    f"{module} defines no {self._attribute}",
                    f"a module of {self.group} ends in {self._attribute} = <what it adds>",
                )
            self._loaded[module] = member
        return self._loaded[module]

    def _by_file(self) -> Mapping[str, str]:
        """name → module, of those found by their files."""
        named = os.environ.get(self._variable, "") if self._variable else ""
        packages = (self.package, *filter(None, named.split(",")))
        return _modules(packages, self._attribute, self._dashes, self._variable)

    def _check_single(self, name: str, file: str | None) -> None:
        modules = [*filter(None, [file]), *_entry_points(self.group).get(name, ())]
        if len(modules) > 1:
            raise FoundryError(
                f"{self.noun} {name!r} is defined by {' and by '.join(modules)}",
                "uninstall one of them, or rename its entry point",
            )


def _imported(module: str) -> ModuleType:
    """FoundryError for whatever goes wrong in a module that somebody else may have written."""
    try:
        return importlib.import_module(module)
    except FoundryError:
        raise
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise FoundryError(
            f"{module} cannot be imported ({problem})",
            f"mend it: `python -c 'import {module}'` tells more",
        ) from error


def _package_folder(package: str, where: str) -> Path:
    """Where the files of a package lie."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None  # a package around it is absent
    except (Exception, SystemExit) as error:  # one around it is broken, or it is no name
        problem = f"{type(error).__name__}: {error}"
        raise FoundryError(
            f"{where}{package!r} cannot be looked for ({problem})", "mend it"
        ) from error
    if spec is None or not spec.submodule_search_locations:
        raise FoundryError(f"{where}{package!r} is no importable package", "mend it")
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def _modules(
    packages: tuple[str, ...], attribute: str, dashes: bool, variable: str
) -> Mapping[str, str]:
    """name → module of the files in some packages that define an attribute. The first package is
    ours, the others come from an environment variable."""
    defines = re.compile(rf"^{attribute}\b", re.MULTILINE)
    found: dict[str, str] = {}
    for package in packages:
        folder = _package_folder(package, "" if package == packages[0] else f"{variable}: ")
        for file in sorted(folder.glob("*.py")):
            # One that cannot be read as text is named when it is imported.
            text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
            if not defines.search(text):
                continue
            name = file.stem.replace("_", "-") if dashes else file.stem
            module = f"{package}.{file.stem}"
            if name in found:
                raise FoundryError(
                    f"{variable}: {module} and {found[name]} are both {name!r}",
                    "rename one of the files",
                )
            found[name] = module
    return found


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

    def members(self) -> dict[str, type[BaseModel]]:
        """Every class of the set by its name; imports them all."""
        return {name: self.registry.get(name) for name in self.registry.names()}

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
                    "{tag} is required",
                    {"tag": self.tag, "hint": f"valid: {', '.join(self.registry.names())}"},
                )
            try:
                kind = self.member(data)
            except FoundryError as error:
                context = {"tag": self.tag, "message": error.message, "hint": error.hint}
                raise PydanticCustomError("unknown_tag", "{message}", context) from None
            return kind.model_validate(data)

        return core_schema.no_info_plain_validator_function(build)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        tag = {"enum": self.registry.names()}
        return {"type": "object", "properties": {self.tag: tag}, "required": [self.tag]}


def one_of(annotation: Any, metadata: Iterable[Any] = ()) -> OneOf | None:
    """The open set that an annotation, or a field with this metadata, chooses from."""
    marks = [*metadata, *getattr(annotation, "__metadata__", ())]
    return next((mark for mark in marks if isinstance(mark, OneOf)), None)
