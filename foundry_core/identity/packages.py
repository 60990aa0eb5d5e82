"""What is installed: the version of whatever provides a module, by the name it is imported by."""

import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypedDict

from foundry_core.files import settled, sha256_hex, signature
from foundry_core.home import cached, keep
from foundry_core.identity.code_modules import extension_file
from foundry_core.identity.sources import is_editable, normalized, tree_digest

_CACHE = "packages-2.json"
_FOLDER_NAME = re.compile(
    r"^(?P<name>[^-]+(?:-[^-\d][^-]*)*)-(?P<version>\d[^-]*)(?:-.*)?\.(dist|egg)-info$"
)


class _Provider(NamedTuple):
    """editable: its files may change while its version stays."""

    distribution: str
    version: str
    editable: bool


def package_versions(paths: Iterable[str] | None = None) -> dict[str, str]:
    """name → version of every installed distribution, from the names of the *.dist-info folders:
    5 ms where importlib.metadata, which opens each METADATA, takes 300."""
    found: dict[str, str] = {}
    for folder in sys.path if paths is None else paths:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            match = _FOLDER_NAME.match(name)
            if match:
                found.setdefault(normalized(match["name"]), match["version"])
    return dict(sorted(found.items()))


def versions_of(modules: Iterable[str]) -> dict[str, str]:
    """distribution (or module, where none provides it) → version, of modules outside the standard
    library; '' for what is not installed.

    What can change under one version (editable installs, modules that only lie on the path,
    compiled modules of our own packages, by dotted name) has a digest of its files in it.
    """
    found: dict[str, str] = {}
    for module in modules:
        if module in sys.stdlib_module_names:
            continue
        providers = _providers().get(module, ())
        for name, version, editable in providers:
            found[name] = version + (f"+{_digest(module)}" if editable else "")
        if not providers:
            found[module] = _digest(module)
    return found


class _Folder(TypedDict):
    """What the distributions of one folder of the path provide. editable: by their names."""

    signature: list[int]
    versions: dict[str, str]
    editable: list[str]
    modules: dict[str, list[str]]


@cache
def _providers() -> Mapping[str, list[_Provider]]:
    """Top-level module → what provides it, over all folders of the path."""
    folders = _folders()
    versions: dict[str, str] = {}
    editable: set[str] = set()
    modules: dict[str, set[str]] = {}
    for one in folders:
        versions = {**one["versions"], **versions}  # the first on the path counts
        editable.update(one["editable"])
        for module, names in one["modules"].items():
            modules.setdefault(module, set()).update(names)
    return {
        module: [_Provider(name, versions[name], name in editable) for name in sorted(names)]
        for module, names in modules.items()
    }


def _folders() -> list[_Folder]:
    """Of the path. Known from earlier processes as long as nothing was installed or removed there:
    asking takes half a second. By folder, since a command, the stages that it starts and one in
    another current folder have most of their paths in common, and no more."""
    kept, found, new = cached(_CACHE), [], {}
    for path in dict.fromkeys(map(os.path.abspath, filter(os.path.isdir, sys.path))):
        stat = os.stat(path)
        one = kept.get(path)
        if one is None or one["signature"] != list(signature(stat)):
            one = _folder(path, stat)
            if one["versions"] and settled(stat):
                new[path] = one
        found.append(one)
    if new:
        keep(_CACHE, {path: one for path, one in kept.items() if os.path.isdir(path)} | new)
    return found


def _folder(path: str, stat: os.stat_result) -> _Folder:
    """A distribution that stands on the path twice is editable where one of them is: a checkout in
    the current folder holds what its build left there (*.egg-info), too, and not every process has
    that folder on its path."""
    versions: dict[str, str] = {}
    editable, modules = set(), dict[str, set[str]]()
    for entry in sorted(os.listdir(path)):
        match = _FOLDER_NAME.match(entry)
        if match is None:
            continue
        name = normalized(match["name"])
        versions.setdefault(name, match["version"])
        distribution = importlib.metadata.Distribution.at(Path(path, entry))
        record = distribution.read_text("RECORD") or ""
        if is_editable(distribution, record):
            editable.add(name)
        stated = (distribution.read_text("top_level.txt") or "").split()
        for module in stated or _recorded(record):
            modules.setdefault(module, set()).add(name)
    return _Folder(
        signature=list(signature(stat)),
        versions=versions,
        editable=sorted(editable),
        modules={module: sorted(names) for module, names in modules.items()},
    )


def _recorded(record: str) -> set[str]:
    """Top-level modules by a distribution's list of files: where Python lies."""
    files = (line.partition(",")[0] for line in record.splitlines())
    return {file.partition("/")[0].removesuffix(".py") for file in files if file.endswith(".py")}


def _digest(module: str) -> str:
    """Of the files of a package or of a compiled module; '' when there is none."""
    package = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # `__main__`, and what was made without a file
        return ""
    if spec is None:
        return ""
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    if package != module:
        files = (extension_file(place.parent, module) for place in places)
        places = [file for file in files if file]
    elif not places and spec.has_location:
        places = [Path(str(spec.origin))]
    return sha256_hex("\n".join(map(tree_digest, places)))[:12] if places else ""
