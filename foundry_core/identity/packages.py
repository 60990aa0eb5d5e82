"""What is installed: the version of whatever provides a module, by the name it is imported by."""

import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from foundry_core.files import settled, sha256_hex, signature
from foundry_core.home import cached, keep
from foundry_core.identity.code_modules import extension_file
from foundry_core.identity.sources import is_editable, normalized, tree_digest

_CACHE = "packages-1.json"
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


@cache
def _providers() -> Mapping[str, list[_Provider]]:
    """Top-level module → what provides it. Known from earlier processes as long as nothing was
    installed or removed: asking takes a second."""
    stats = [(path, os.stat(path)) for path in sys.path if os.path.isdir(path)]
    state = sha256_hex("\n".join(f"{path} {signature(stat)}" for path, stat in stats))
    kept = cached(_CACHE)
    if kept.get("state") != state:
        versions = package_versions()
        editable = {name for name in versions if _is_editable(name)}
        kept = {
            "state": state,
            "modules": {
                module: [
                    _Provider(name, versions[name], name in editable)
                    for name in sorted(set(map(normalized, distributions)))
                    if name in versions
                ]
                for module, distributions in importlib.metadata.packages_distributions().items()
            },
        }
        if all(settled(stat) for _, stat in stats):
            keep(_CACHE, kept)
    return kept["modules"]


def _is_editable(name: str) -> bool:
    """Of a name that may stand on the path twice: a checkout in the current folder holds what its
    build left there (*.egg-info), too, and not every process has that folder on its path."""
    found = importlib.metadata.distributions(name=name)
    return any(is_editable(one, one.read_text("RECORD") or "") for one in found)


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
