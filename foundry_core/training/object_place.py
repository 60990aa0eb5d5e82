"""Checkpoints in an object store: whoever continues the training finds them, on whichever host.

    <uri>/<name>/shard_<rank>.safetensors    what each rank uploaded
    <uri>/step_<n>.json                      the commit point: digests, and where the shards are

Shards are downloaded by the ranks that need parts of them, once per host, and held against their
digests; nothing of them is executed (`layout`).
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foundry_core.files import hash64, write_atomic
from foundry_core.objects import Objects
from foundry_core.pipeline.trunks import step_name
from foundry_core.training.checkpoint import (
    KEPT,
    STATE,
    Checkpoint,
    read_state,
    shard_name,
    state_bytes,
    trunk_document,
)

_log = logging.getLogger(__name__)
_MOST_STATE_BYTES = 1 << 30


class CheckpointObjects:
    """A CheckpointPlace below an address in an object store. local: a folder of this host, which
    its ranks may share."""

    carries_rows = True

    def __init__(self, objects: Objects, local: Path) -> None:
        self._objects, self._local = objects, local

    def building(self, name: str) -> Path:
        folder = self._local / f".building_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def written(self, name: str, shard: str) -> None:
        path = self.building(name) / shard
        self._objects.upload(path, f"{name}/{shard}")
        path.unlink()

    def commit(self, name: str, step: int, state: Mapping[str, Any]) -> None:
        there = {entry.name: entry.size for entry in self._objects.find(name)}
        for rank, shard in enumerate(state["shards"]):
            if there.get(f"{name}/{shard_name(rank)}") != shard["bytes"]:
                raise OSError(f"{self._objects.uri}/{name}/{shard_name(rank)} is not as uploaded")
        data = state_bytes({**state, "shards_at": name})
        self._objects.write(_state_name(step), data)

    def prune(self, building: str = "", trunk: int | None = None) -> None:
        """What no state names is from a save that was never committed."""
        steps = self._steps()
        old = [step for step in steps[KEPT:] if step != trunk]
        kept = {building, *(self._shards_at(step) for step in steps if step not in old)}
        self._objects.delete(*map(_state_name, old))
        for folder in self._objects.folders():
            if folder not in kept:
                self._objects.delete(*(entry.name for entry in self._objects.find(folder)))

    def take(self, step: int, folder: Path) -> bool:
        """Downloads it: what lies here goes when the artifact is committed."""
        checkpoint = self.load(step) if step in self._steps() else None
        if checkpoint is None:
            _log.warning("the state of step %s is not kept: %s has none", step, self._objects.uri)
            return False
        building = folder.with_name(f".building_{folder.name}")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        for rank, path in checkpoint.files.items():
            shutil.move(path, building / shard_name(rank))
        write_atomic(building / STATE, state_bytes(trunk_document(self._state(step))))
        os.rename(building, folder)
        return True

    def known(self) -> list[tuple[int, int]]:
        shutil.rmtree(self._local, ignore_errors=True)
        return [(step, hash64(tag) >> 1) for step, tag in self._states().items()]

    def load(self, step: int, rank: int = 0, size: int = 1) -> Checkpoint | None:
        try:
            state = self._state(step)
            layout = read_state(state)
            files = _Downloads(
                self._objects.below(_plain(state["shards_at"])),
                self._local / step_name(step),
                [(str(shard["sha256"]), int(shard["bytes"])) for shard in state["shards"]],
            )
            for number in range(rank, len(files), size):
                files[number]
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning(
                "checkpoint %s/%s is damaged (%s): falling back to an older one",
                self._objects.uri,
                _state_name(step),
                error,
            )
            self._objects.delete(_state_name(step))
            return None
        return Checkpoint(step=step, layout=layout, scalars=state["scalars"], files=files)

    def _state(self, step: int) -> Any:
        return json.loads(self._objects.read(_state_name(step), _MOST_STATE_BYTES))

    def _shards_at(self, step: int) -> str:
        try:
            return _plain(self._state(step)["shards_at"])
        except (ValueError, KeyError, TypeError):
            return ""

    def _steps(self) -> list[int]:
        """Newest first."""
        return [*self._states()]

    def _states(self) -> dict[int, str]:
        """Step → entity tag of its state, newest first, by one listing: all ranks ask at once, and
        what they would read is megabytes."""
        found = {
            int(entry.name[5:-5]): entry.tag
            for entry in self._objects.find()
            if entry.name.startswith("step_")
            and entry.name.endswith(".json")
            and entry.name[5:-5].isdigit()
        }
        return dict(sorted(found.items(), reverse=True))


class _Downloads(Mapping[int, Path]):
    """Shards by rank, fetched when asked for. ValueError for one that has another digest."""

    def __init__(self, objects: Objects, folder: Path, shards: list[tuple[str, int]]) -> None:
        self._objects, self._folder, self._shards = objects, folder, shards

    def __getitem__(self, rank: int) -> Path:
        sha256, size = self._shards[rank]
        name = shard_name(rank)
        path = self._folder / name
        if path.exists():
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{name}.{os.getpid()}")
        try:
            found = self._objects.download(name, part, size)
            if found != sha256:
                raise ValueError(f"{name}: digest {found[:12]}, expected {sha256[:12]}")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._shards)))

    def __len__(self) -> int:
        return len(self._shards)


def _state_name(step: int) -> str:
    return f"{step_name(step)}.json"


def _plain(name: Any) -> str:
    """A folder directly below, and nothing else."""
    if not isinstance(name, str) or not name.replace("_", "").isalnum():
        raise ValueError(f"no folder of shards: {name!r}")
    return name
