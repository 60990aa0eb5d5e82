"""Units of work: what a conversion makes piece by piece, kept across kills and between sources.

A unit (a robot shard, a piece of text, a piece of captioned images) has a content key: what is done
(its code, the packages that this runs on, its settings) and to which bytes (of its own files). Its
result is a folder of files with their digests in `unit.json`, and is believed only with them.

    <scratch>/units/<key>/         the results of this conversion, until it has ended
    <scratch>/making/              what is being made; empty when a conversion begins
    <home>/cache/units/<key>/      hard links to them: other conversions find what has not changed

A conversion that was killed finds its units in the scratch, whatever their size. In the cache a
file that something else links to (a scratch, a dataset) takes no room of its own and is not
evicted; the others are held to FOUNDRY_CACHE_GB. Where home and scratch lie on two disks, or there
is no home, units serve resuming alone.

Workers write into the scratch where they see it. On a cluster without a common disk they hand the
files over as Ray objects, a unit at a time.
"""

import os
import secrets
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

from foundry_core.bounded_cache import BoundedCache
from foundry_core.config.canonical import canonical, digest
from foundry_core.data.sources.base import RawFormat, SourceRef
from foundry_core.errors import FoundryError
from foundry_core.files import names_in, read_cache, sha256_of, write_json
from foundry_core.home import cache_dir, home_dir
from foundry_core.identity.code import CodeIndex, fingerprint
from foundry_core.identity.packages import versions_of
from foundry_core.identity.sources import content
from foundry_core.parallel import ordered_map
from foundry_core.pipeline.spec import config_classes
from foundry_core.store.cache import cache_limit

UNIT = "unit.json"
_LOOK_AT_CODE_SECONDS = 5.0
# Units under way and finished ones that wait for a slow one before them, per worker.
_AHEAD = 8
W = TypeVar("W")
# Fills an empty folder with a unit's result; a function of a module, for workers import it.
Make = Callable[[W, Path], None]


@dataclass(frozen=True, kw_only=True)
class Unit(Generic[W]):
    """name: what messages call it. work: what `make` gets. state: the identity of the bytes that it
    works on, asked before and after. needs: a file that a worker must see."""

    name: str
    work: W
    state: Callable[[], Any]
    needs: str = ""


class Done(NamedTuple):
    """folder: of the result, until the store is closed. reused: it was there."""

    folder: Path
    reused: bool


class SourceState:
    """The bytes that pieces of a source are made of."""

    def __init__(self, source: RawFormat) -> None:
        self._source = source
        # Digests all files at one go, where nobody did: one by one would rewrite their cache.
        self._whole = dict(source.identity())

    def __call__(self, refs: Iterable[SourceRef]) -> Any:
        """JSON that is another one when anything is that these pieces read."""
        pieces = []
        for ref in refs:
            reads = self._source.reads(ref)
            if reads is None:
                held: Any = dict(self._source.identity())
            else:
                held = [[self._file(path) for path in reads.files], reads.facts]
            pieces.append([ref.name, ref.start, ref.stop, held])
        return [canonical(self._source), dict(self._source.named), pieces]

    def _file(self, path: str) -> list[str]:
        """[its name in the source, which may reach ids and reports, its content]. Of what is not
        there, or no file, reading says what is wrong."""
        file = Path(path)
        root: Path = getattr(self._source, "root", file.parent)
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        if file.is_file() or file.is_dir():
            with suppress(FoundryError):  # of an empty folder
                return [name, content(file)]
        return [name, ""]


class UnitStore:
    """The units of one conversion in its scratch folder. Leaving the block ends it: its units go,
    but for those in the cache; an exception keeps them for whoever goes on."""

    def __init__(self, scratch: Path, *, workers: int) -> None:
        self._workers = workers
        self._place = _Place(
            units=scratch / "units",
            making=scratch / "making",
            cache=_cache_root(scratch),
            token=secrets.token_hex(16),
        )
        self._cache = unit_cache(self._place.cache) if self._place.cache else None

    def __enter__(self) -> Self:
        place = self._place
        shutil.rmtree(place.making, ignore_errors=True)
        for folder in (place.units, place.making):
            folder.mkdir(parents=True, exist_ok=True)
        (place.making / _TOKEN).write_text(place.token)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        shutil.rmtree(self._place.making, ignore_errors=True)
        if kind is None:
            shutil.rmtree(self._place.units, ignore_errors=True)
            if self._cache is not None:
                self._cache.make_room()

    def results(
        self, make: Make[W], settings: Any, units: Iterable[Unit[W]], *, configs: Any = ()
    ) -> Iterator[Done]:
        """Every unit's result, in order. settings: JSON of all that the result depends on beside
        its bytes. configs: whose methods do the work, too.

        Raises what `make` raises; FoundryError where code or source change meanwhile.
        """
        code = _Code(make, configs)
        waiting: deque[tuple[Unit[W], _Task[W], Any]] = deque()

        def tasks() -> Iterator[_Task[W]]:
            for unit in units:
                state = unit.state()
                key = digest({"code": code.identity, "settings": settings, "state": state})
                there = self._is_there(key)
                task = _Task(make, unit.work, key, self._place, there, unit.needs)
                waiting.append((unit, task, state))
                yield task

        ahead = _AHEAD * self._workers
        for made in ordered_map(_made, tasks(), workers=self._workers, in_flight=ahead):
            unit, task, state = waiting.popleft()
            if made.fresh or not self._pinned(task.key, made):
                self._keep(unit, task, state, made if made.fresh else _filled(task))
                code.note(self._place.units / task.key)
            yield Done(self._place.units / task.key, not made.fresh)
        code.check()

    def _is_there(self, key: str) -> bool:
        places = (self._place.units, self._place.cache)
        return any((root / key / UNIT).exists() for root in places if root is not None)

    def _pinned(self, key: str, made: "_Made") -> bool:
        """Brings a whole result from the cache into the scratch; False where there is none now."""
        mine = self._place.units / key
        if made.folder == mine or (not made.seen and _is_whole(mine, key)):
            self._publish(key)  # a kill may have come between the two
            return True
        if self._cache is None:
            return False
        with self._cache.using(key) as entry:
            if not made.seen and not _is_whole(entry, key):
                return False
            with suppress(OSError):
                shutil.rmtree(mine, ignore_errors=True)
                _link_files(entry, mine)
                return True
        return False

    def _keep(self, unit: Unit[W], task: "_Task[W]", state: Any, made: "_Made") -> None:
        """A fresh result gets its name if what it was made from is still what the name says."""
        folder = made.folder or self._place.making / secrets.token_hex(8)
        if made.folder is None:
            folder.mkdir()
            for name, data in made.files.items():
                (folder / name).write_bytes(data)
        if unit.state() != state:
            raise FoundryError(f"{unit.name} changed while it was converted", "run again")
        mine = self._place.units / task.key
        shutil.rmtree(mine, ignore_errors=True)
        os.rename(folder, mine)
        self._publish(task.key, afresh=True)

    def _publish(self, key: str, *, afresh: bool = False) -> None:
        """Links a result into the cache. A full or read-only disk does without."""
        cache, mine = self._cache, self._place.units / key
        if cache is None or (not afresh and (cache.root / key / UNIT).exists()):
            return
        with suppress(OSError), cache.using(key) as entry, cache.filling(key):
            shutil.rmtree(entry, ignore_errors=True)
            _link_files(mine, entry)


def unit_cache(root: Path | None = None) -> BoundedCache:
    """The units of this home."""
    return BoundedCache(root or cache_dir() / "units", cache_limit(), size=_own_bytes)


def _own_bytes(folder: Path) -> int:
    """Of the files that nothing else links to."""
    total = 0
    for name in names_in(folder):
        with suppress(FileNotFoundError):
            stat = os.stat(folder / name)
            total += stat.st_size if stat.st_nlink == 1 else 0
    return total


_TOKEN = "token"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where results lie on the driver's disk. token: the content of a file there, by which a worker
    tells whether it sees that disk."""

    units: Path
    making: Path
    cache: Path | None
    token: str

    def is_here(self) -> bool:
        try:
            return (self.making / _TOKEN).read_text() == self.token
        except OSError:
            return False


@dataclass(frozen=True)
class _Task(Generic[W]):
    make: Make[W]
    work: W
    key: str
    place: _Place
    there: bool
    needs: str


@dataclass(frozen=True, kw_only=True)
class _Made:
    """folder: of the result; None where the worker does not see the driver's disk (`seen`): then
    files are handed over, or nothing where the driver has the result."""

    fresh: bool
    seen: bool = True
    folder: Path | None = None
    files: dict[str, bytes] = field(default_factory=dict)


class _Code:
    """What converts: the code behind `make`, and the packages it runs on. A change of it while
    units are made takes those back that may be of either."""

    def __init__(self, make: Make[Any], configs: Any) -> None:
        self._make, self._configs = make, configs
        self._index = CodeIndex()
        self.identity = self._now(self._index)
        self._looked = time.monotonic()
        self._unsure: list[Path] = []

    def note(self, folder: Path) -> None:
        """A result was made."""
        self._unsure.append(folder)
        if time.monotonic() - self._looked > _LOOK_AT_CODE_SECONDS:
            self.check()

    def check(self) -> None:
        """FoundryError, and what was made since the last look is gone, where the code changed."""
        changed = not self._index.stands() and self._now(CodeIndex()) != self.identity
        if self._unsure and changed:
            for folder in self._unsure:
                (folder / UNIT).write_bytes(b"")  # of the cache's link too
            raise FoundryError("the code changed while it converted", "run again")
        self._unsure, self._looked = [], time.monotonic()

    def _now(self, index: CodeIndex) -> Any:
        classes = {(kind.__module__, kind.__qualname__) for kind in config_classes(self._configs)}
        make = self._make
        found = fingerprint(make.__module__, make.__name__, methods_of=classes, index=index)
        return [found.digest, versions_of(found.packages)]


def _made(task: _Task[Any]) -> _Made:
    """Runs in a worker."""
    place = task.place
    if not place.is_here():
        return _Made(fresh=False, seen=False) if task.there else _handed_over(task)
    for root in (place.units, place.cache) if task.there else ():
        if root is not None and _is_whole(root / task.key, task.key):
            return _Made(fresh=False, folder=root / task.key)
    return _filled(task)


def _filled(task: _Task[Any]) -> _Made:
    folder = task.place.making / secrets.token_hex(8)
    _fill(task, folder)
    return _Made(fresh=True, folder=folder)


def _handed_over(task: _Task[Any]) -> _Made:
    if task.needs and not os.path.exists(task.needs):
        raise FoundryError(
            f"worker {socket.gethostname()} does not see {task.needs!r}",
            "put the source on a disk that every node of the cluster mounts",
        )
    with tempfile.TemporaryDirectory(prefix="foundry-unit-") as temporary:
        folder = Path(temporary, "unit")
        _fill(task, folder)
        files = {name: (folder / name).read_bytes() for name in names_in(folder)}
    return _Made(fresh=True, seen=False, files=files)


def _fill(task: _Task[Any], folder: Path) -> None:
    folder.mkdir()
    task.make(task.work, folder)
    files = {name: sha256_of(folder / name) for name in names_in(folder)}
    write_json(folder / UNIT, {"key": task.key, "files": files}, durable=False)


def _is_whole(folder: Path, key: str) -> bool:
    """Whether a result is there with the digests of its files."""
    stated = read_cache(folder / UNIT)
    if not isinstance(stated, dict) or stated.get("key") != key:
        return False
    try:
        return all(sha256_of(folder / n) == sha for n, sha in stated["files"].items())
    except OSError:
        return False


def _link_files(source: Path, target: Path) -> None:
    """unit.json comes last: without it, a folder is no result."""
    target.mkdir(parents=True, exist_ok=True)
    names = [name for name in names_in(source) if name != UNIT]
    for name in (*names, UNIT):
        os.link(source / name, target / name)


def place_file(source: Path, target: Path) -> None:
    """The file under another name: a link, or a copy where the disk is another one."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _cache_root(scratch: Path) -> Path | None:
    """None where links cannot lead to it, or where there is no home: a conversion makes none."""
    if not home_dir().is_dir():
        return None
    root = cache_dir() / "units"
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(parents=True, exist_ok=True)
        return root if os.stat(root).st_dev == os.stat(scratch).st_dev else None
    except OSError:
        return None
