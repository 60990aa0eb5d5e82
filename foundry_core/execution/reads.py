"""Which files a stage's process opens that neither its key nor the program knows.

A stage of one's own with a path in its recipe and no `sources()` would be reused after its data
changed. Python's audit hook sees each `open`, here and in the processes that join.

Limits, what is NOT seen: files that libraries open beneath Python (safetensors, Arrow, DuckDB,
video readers), files listed or asked for and not opened, processes that are no Python, or that
start with another main module and without Ray, and Ray's workers of a cluster.
"""

import contextlib
import json
import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foundry_core.files import read_json, write_json
from foundry_core.home import cache_dir

# Names the folder to the processes that a stage starts.
_VARIABLE = "FOUNDRY_READS"
# What a worker of Ray calls when it starts. As `runtime_env` it would cost an agent's round trip,
# and be lost where `ray_session` keeps the current folder off the workers' path.
_RAY_HOOK = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
_KNOWN, _FOUND = "known.json", "found"
_CODE = (".py", ".pyc", ".so", ".pth")
# Of installed distributions, which an editable install keeps beside its sources.
_METADATA = (".dist-info/", ".egg-info/")
_SYSTEM = (
    *("/bin/", "/dev/", "/etc/", "/lib/", "/lib64/"),
    *("/proc/", "/run/", "/sbin/", "/sys/", "/usr/"),
)
_MOST_SEEN = 100_000
_MOST_TOLD = 100


class Reads:
    """Watches this process, from now to its end. folder: where it is told what was found.

    known: files and folders that the stage may read. tolerated: places of libraries and of the
    system, which count only where the recipe names something in them: `named`.
    """

    def __init__(
        self, folder: Path, known: Iterable[str], tolerated: Iterable[str], named: Iterable[str]
    ) -> None:
        self._known = _below(known)
        self._tolerated = (*_below(tolerated), *_SYSTEM)
        self._named = _below(named)
        self._seen: set[str | bytes] = set()
        self._own: set[str] = set()
        self._identifies = False
        self._out = os.open(folder / _FOUND, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        sys.addaudithook(self._heard)

    @contextlib.contextmanager
    def identifying(self) -> Iterator[None]:
        """What is opened in the block is what the stage's identity is made of."""
        self._identifies = True
        try:
            yield
        finally:
            self._identifies = False

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open":
            return
        path, _, flags = arguments
        if path in self._seen or len(self._seen) >= _MOST_SEEN:
            return
        if isinstance(path, str | bytes):
            self._opened(os.path.abspath(os.fsdecode(path)), flags)
            self._seen.add(path)

    def _opened(self, path: str, flags: int) -> None:
        if self._identifies or flags & (os.O_WRONLY | os.O_CREAT):
            self._own.add(path)
        elif (
            self._is_foreign(path)
            and path not in self._own
            and os.path.isfile(path)
            and self._is_foreign(os.path.realpath(path))
        ):
            with contextlib.suppress(OSError):  # a process that closed what it inherited
                os.write(self._out, f"{json.dumps(path)}\n".encode())

    def _is_foreign(self, path: str) -> bool:
        inside = f"{path}/"
        if inside.startswith(self._known) or path.endswith(_CODE):
            return False
        if any(mark in path for mark in _METADATA):
            return False
        return inside.startswith(self._named) or not inside.startswith(self._tolerated)


def watch(folder: Path, known: Iterable[str], recipe: Mapping[str, Any]) -> Reads:
    """Watches this process, and those that it starts and that `join`."""
    folder.mkdir()
    places = {
        "known": [*known, str(folder), *_packages()],
        "tolerated": [tempfile.gettempdir(), str(cache_dir()), *_hidden_in_home()],
        "named": [text for text in _texts(recipe) if text.strip("./") and os.path.exists(text)],
    }
    write_json(folder / _KNOWN, places, durable=False)
    os.environ[_VARIABLE] = str(folder)
    os.environ[_RAY_HOOK] = f"{__name__}.{join.__name__}"
    return Reads(folder, **places)


def join() -> None:
    """Watches this process for the stage that started it, if one did."""
    folder = Path(os.environ.get(_VARIABLE, "/nowhere"))
    with contextlib.suppress(OSError):  # it has ended since, or works on another machine
        Reads(folder, **read_json(folder / _KNOWN))


def found(folder: Path, known: Iterable[str]) -> list[str]:
    """The files that were opened, sorted, a hundred at most, less what lies in `known`."""
    below = _below(known)
    paths = {json.loads(line) for line in (folder / _FOUND).read_text().splitlines()}
    return sorted(path for path in paths if not f"{path}/".startswith(below))[:_MOST_TOLD]


def _below(places: Iterable[str]) -> tuple[str, ...]:
    """Prefixes of all that is, or lies in, one of these, under its own name or that of its goal."""
    paths = {path for place in places for path in (os.path.abspath(place), os.path.realpath(place))}
    return tuple(sorted(f"{path.rstrip('/')}/" for path in paths))


def _packages() -> Iterator[str]:
    """What is installed, and the packages of ours and of a lab."""
    yield from (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values())
    yield from (*site.getsitepackages(), site.getusersitepackages())
    labs = (name.partition(".")[0] for name in os.environ.get("FOUNDRY_KINDS", "").split(","))
    for name in ("foundry_core", "tasks", "flows", "stage_configs", *filter(None, labs)):
        spec = find_spec(name)
        yield from (spec.submodule_search_locations or ()) if spec else ()


def _hidden_in_home() -> list[str]:
    """Where applications keep their caches and settings."""
    home = os.path.expanduser("~")
    with contextlib.suppress(OSError):
        return [entry.path for entry in os.scandir(home) if entry.name.startswith(".")]
    return []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
