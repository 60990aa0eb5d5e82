"""A lab's own project: a folder with a `foundry.toml`, found upward from the current one.

    [project]
    kinds = ["my_lab_kinds"]    # packages beside the file whose modules are stage kinds
    pipelines = ["pipelines"]   # folders of pipelines beside the file

Entering it says by the environment (FOUNDRY_KINDS, FOUNDRY_PIPELINES, FOUNDRY_PATH) what a person
would have to say in every shell, so that workers and stages, which inherit it, know it too. Code of
a project runs as a Makefile's does: only a file that this user owns counts, and only where not
everybody may write.
"""

import os
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from stat import S_ISREG, S_IWOTH
from typing import Any

from foundry_core.errors import FoundryError

MARKER = "foundry.toml"
_KEYS = ("kinds", "pipelines")


def project_folder() -> Path | None:
    """The nearest folder that is a project, from the current one upwards."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_ours(folder / MARKER)), None)


def enter() -> None:
    """Makes the kinds and pipelines of the project known to this process and its children; nothing
    where there is none. Entering twice changes nothing. FoundryError for a file that is wrong."""
    folder = project_folder()
    if folder is None:
        return
    said = _read(folder / MARKER)
    kinds, pipelines = said.get("kinds", []), said.get("pipelines", [])
    _extend("FOUNDRY_PIPELINES", (str(folder / name) for name in pipelines), os.pathsep)
    _extend("FOUNDRY_KINDS", kinds, ",")
    if kinds:
        _extend("FOUNDRY_PATH", [str(folder)], os.pathsep)
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def _read(path: Path) -> dict[str, list[str]]:
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FoundryError(f"{path}: {error}", "write it as TOML, or remove it") from None
    said = document.pop("project", {})
    for key in document:
        raise FoundryError(f"{path}: unknown key {key!r}", "it holds one table, [project]")
    if not isinstance(said, dict):
        raise FoundryError(f"{path}: project is no table", "start with a line [project]")
    for key, value in said.items():
        if key not in _KEYS:
            raise FoundryError(f"{path}: unknown key project.{key!r}", f"valid: {', '.join(_KEYS)}")
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise FoundryError(f"{path}: project.{key} is no list of names", f'e.g. {key} = ["a"]')
    return said


def _extend(variable: str, names: Iterable[str], separator: str) -> None:
    """Adds what a variable lacks at its end: what the shell says comes first."""
    present = list(filter(None, os.environ.get(variable, "").split(separator)))
    wanted = [*present, *(name for name in names if name not in present)]
    if wanted:
        os.environ[variable] = separator.join(wanted)


def _is_ours(path: Path) -> bool:
    """A file of this user, no link, in a folder where not everybody may write: code that lies
    beside it will run."""
    try:
        file, folder = os.lstat(path), os.stat(path.parent)
    except OSError:
        return False
    return S_ISREG(file.st_mode) and file.st_uid == os.geteuid() and not folder.st_mode & S_IWOTH
