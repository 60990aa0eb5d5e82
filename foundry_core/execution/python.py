"""Other processes of this program: they run the packages that this one runs.

`python -m` puts the current folder first on the path, where a user may keep a `flows/`, a `tasks/`
or a `foundry_core/` of their own. With -P (safe path) only what is installed and what PYTHONPATH
names can be imported, whatever the current folder holds.
"""

import importlib.util
import sys
from collections.abc import Mapping
from functools import cache

from foundry_core.errors import FoundryError


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `python -m module arguments` with the packages of this process."""
    return [sys.executable, "-P", "-m", module, *arguments]


@cache
def package_origins() -> Mapping[str, str]:
    """package → the file it comes from, for those that a stage's process shares with ours."""
    specs = {name: importlib.util.find_spec(name) for name in ("foundry_core", "tasks")}
    return {name: str(spec.origin) if spec else "nowhere" for name, spec in specs.items()}


def check_origins(expected: Mapping[str, str]) -> None:
    """Raises FoundryError when this process imports other packages than the one that gave
    `expected` (its `package_origins`)."""
    for name, origin in package_origins().items():
        if origin != expected.get(name):
            raise FoundryError(
                f"package {name} is {origin} here, but {expected.get(name)} in the process that "
                "started this one",
                "install foundry (pip install -e .), or name its folder in PYTHONPATH",
            )
