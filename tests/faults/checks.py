"""What must hold after any crash, checked from the bytes on disk.

Independent of foundry_core.store: it reads artifact.json and hashes files by itself. Lineage is
asked through the library, since the question is whether its two ways to the tables agree.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from foundry_core.lineage.connection import attach
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index

NOT_KINDS = {"work", "leases", "events", "content", "runs", "code", "aliases", "pins"}
TABLES = (
    *("pipeline_run", "stage_spec", "stage_input", "run_stage", "attempt", "artifact"),
    *("artifact_input", "file", "metric", "episode", "score", "event"),
)


class View(Protocol):
    """What of a store is visible, read without the store's own code."""

    def committed(self) -> dict[tuple[str, str], dict]:
        """(kind, key) → manifest. A link whose files were taken out of service is not committed:
        the store calls it corrupt."""

    def damage(self) -> dict[tuple[str, str], str]:
        """What is visible but not whole → the first thing that is wrong with it."""


class LocalView:
    def __init__(self, root: Path) -> None:
        self._root = root

    def _folders(self) -> Iterator[tuple[str, str, Path]]:
        for kind in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            if kind.is_dir() and kind.name not in NOT_KINDS:
                for folder in sorted(kind.iterdir()):
                    yield kind.name, folder.name, folder

    def committed(self) -> dict[tuple[str, str], dict]:
        found = {}
        for kind, key, folder in self._folders():
            manifest = json.loads((folder / "artifact.json").read_text())
            if not manifest["linked_to"] or (folder.parent / manifest["linked_to"]).exists():
                found[kind, key] = manifest
        return found

    def damage(self) -> dict[tuple[str, str], str]:
        found = {}
        for kind, key, folder in self._folders():
            problem = next(self._problems(folder), None)
            if problem:
                found[kind, key] = problem
        return found

    def _problems(self, folder: Path) -> Iterator[str]:
        try:
            manifest = json.loads((folder / "artifact.json").read_text())
        except (OSError, ValueError) as error:
            yield f"visible without a readable artifact.json ({error})"
            return
        if manifest["key"] != folder.name:
            yield f"says it is {manifest['key'][:12]}"
        files = folder.parent / (manifest["linked_to"] or folder.name)
        for file in manifest["files"] if files.exists() else ():
            if manifest["linked_to"] and file["role"] == "record":
                continue  # may have been rebuilt since; then the store builds the link again
            try:
                data = (files / file["path"]).read_bytes()
            except FileNotFoundError:
                yield f"{file['path']} is missing"
                continue
            if len(data) != file["size"] or hashlib.sha256(data).hexdigest() != file["sha256"]:
                yield f"{file['path']} is not what was committed"
        if not manifest["linked_to"]:
            named = {file["path"] for file in manifest["files"]} | {"artifact.json"}
            found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
            yield from (f"{extra} is not in its manifest" for extra in sorted(found - named))


def outputs(manifest: dict) -> list[tuple[str, str]]:
    """(path, sha256) of the files that count as content."""
    return sorted((f["path"], f["sha256"]) for f in manifest["files"] if f["role"] == "output")


def processes(home: Path) -> dict[int, str]:
    """pid → command line of living processes that were started with this home."""
    mark = f"FOUNDRY_HOME={home}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if state not in "ZX":
                    found[int(folder.name)] = command.strip()
        except OSError:
            continue
    return found


def leftover(home: Path, patience: float) -> dict[int, str]:
    """Processes that outlive a killed run by more than `patience` seconds."""
    deadline = time.monotonic() + patience
    while (found := processes(home)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def table_rows(index: Path) -> dict[str, list[tuple]]:
    with attach(index) as connection:
        return {
            table: connection.execute(f"select * from {table} order by all").fetchall()
            for table in TABLES
        }


def lineage_differences(home: Path, events: str, scratch: Path) -> list[str]:
    """Rows in which the incremental index and one rebuilt from the events alone differ."""
    log = EventLog(events)
    Index(home / "lineage.duckdb", log).advance()
    incremental = table_rows(home / "lineage.duckdb")
    rebuilt_path = scratch / "rebuilt.duckdb"
    Index(rebuilt_path, log).rebuild()
    rebuilt = table_rows(rebuilt_path)
    return [
        f"{table}: {len(incremental[table])} rows incrementally, {len(rebuilt[table])} rebuilt,"
        f" first difference {_first_difference(incremental[table], rebuilt[table])}"
        for table in TABLES
        if incremental[table] != rebuilt[table]
    ]


def _first_difference(left: list[tuple], right: list[tuple]) -> str:
    only = [row for row in left if row not in right] or [row for row in right if row not in left]
    return str(only[0])[:300] if only else "multiplicity"


def unlisted(index: Path, committed: set[str]) -> list[str]:
    """Committed keys that lineage does not list, and the reverse."""
    with attach(index) as connection:
        rows = connection.execute("select key from artifact where present").fetchall()
    known = {row[0] for row in rows}
    return [f"{key[:12]} is not in lineage" for key in sorted(committed - known)] + [
        f"{key[:12]} is in lineage only" for key in sorted(known - committed)
    ]


def unfinished_attempts(index: Path, keys: set[str]) -> list[str]:
    """Attempts of settled keys that lineage still calls running."""
    with attach(index) as connection:
        rows = connection.execute(
            "select key, attempt, stage from attempt where state = 'running'"
        ).fetchall()
    return [f"{stage} {key[:12]} {attempt}" for key, attempt, stage in rows if key in keys]


def stage_of(command: str) -> str:
    """The stage whose child process has this command line; '' when it is just ending."""
    try:
        return json.loads((Path(command.split()[-1]) / "job.json").read_text())["spec"]["name"]
    except (OSError, ValueError):
        return ""
