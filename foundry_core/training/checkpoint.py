"""Checkpoints that are whole or absent, verified when read.

A checkpoint is a folder `step_<n>`: `shard_<rank>.safetensors`, what each rank wrote, and
`state.json`, which names their digests, what of which tensor lies where, and the scalars. Shards
are written to a folder beside it and flushed to the disk; rank 0 adds `state.json` and renames the
folder: a kill at any instant leaves the previous ones untouched. The last two are kept, so that one
found torn (a full or failing disk) costs a few steps and not the run.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from foundry_core.files import hash64, read_json, sha256_of, sync, write_atomic
from foundry_core.models.tensor_files import Written
from foundry_core.pipeline.trunks import step_name
from foundry_core.training.layout import Layout, parse_layout

_log = logging.getLogger(__name__)
STATE = "state.json"
_FORMAT, _VERSION = "foundry-checkpoint", 2
KEPT = 2


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State after `step` completed optimizer steps. `scalars` is JSON (floats survive exactly);
    files: by the rank that wrote them, here and verified."""

    step: int
    layout: Layout
    scalars: Mapping[str, Any]
    files: Mapping[int, Path]


class CheckpointPlace(Protocol):
    """Where the ranks of a run leave their checkpoints. Every method is one rank's own: what takes
    all of them is agreed on by the callers (`saving`, `resume`)."""

    @property
    def carries_rows(self) -> bool:
        """Whether the next start may be on another host, where no metrics.jsonl lies."""

    def building(self, name: str) -> Path:
        """The folder, made if missing, to write the shards of one save to; the same name on all
        ranks."""

    def written(self, name: str, shard: str) -> None:
        """Tells that a rank's shard lies whole in that folder. Called off the main thread."""

    def commit(self, name: str, step: int, state: Mapping[str, Any]) -> None:
        """Rank 0: makes a checkpoint of the shards that all ranks have written."""

    def prune(self, building: str = "", trunk: int | None = None) -> None:
        """Rank 0: removes all but the newest KEPT, that of step `trunk`, and what is being built
        under that name."""

    def take(self, step: int, folder: Path) -> bool:
        """Rank 0: makes a folder of the checkpoint of a step, as `trunk_document` has it. False
        when there is none, or a torn one."""

    def known(self) -> list[tuple[int, int]]:
        """(step, digest below 2**63 that tells its state from others) of each checkpoint, newest
        first, unread. What a killed process was building is removed."""

    def load(self, step: int, rank: int = 0, size: int = 1) -> Checkpoint | None:
        """The checkpoint of a step; None for one that is torn, which is reported and removed. Of
        the ranks that load it together each verifies its share of the shards."""


def shard_name(rank: int) -> str:
    return f"shard_{rank:05d}.safetensors"


def state_document(
    step: int, tensors: Mapping[str, Any], shards: Sequence[Written], scalars: Mapping[str, Any]
) -> dict[str, Any]:
    """What commits a checkpoint. tensors: the document of the layout, the same at every save."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "step": step,
        "shards": [{"sha256": s.sha256, "bytes": s.size} for s in shards],
        "tensors": tensors,
        "scalars": dict(scalars),
    }


def state_bytes(state: Mapping[str, Any]) -> bytes:
    """The document as it is stored: of 128 ranks it has a quarter of a million parts, and every
    rank reads it before it continues, so without the spaces of other documents."""
    return json.dumps(state, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def trunk_document(state: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's state without what tells how this run came to it: equal trainings leave equal
    bytes, continued or not."""
    scalars = {name: value for name, value in state["scalars"].items() if name != "continued"}
    plain = {name: value for name, value in state.items() if name != "shards_at"}
    return plain | {"scalars": scalars}


@dataclass(frozen=True)
class CheckpointFolder:
    """Below a folder that all ranks share."""

    root: Path
    carries_rows: bool = False

    def building(self, name: str) -> Path:
        folder = self._building(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _building(self, name: str) -> Path:
        return self.root / f".building_{name}"

    def written(self, name: str, shard: str) -> None:
        """It lies where it is read."""

    def commit(self, name: str, step: int, state: Mapping[str, Any]) -> None:
        building, final = self._building(name), self._final(step)
        for rank, shard in enumerate(state["shards"]):
            size = (building / shard_name(rank)).stat().st_size
            if size != shard["bytes"]:
                raise OSError(f"{building / shard_name(rank)}: {size} bytes, not {shard['bytes']}")
        write_atomic(building / STATE, state_bytes(state))
        sync(building)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(building, final)
        sync(self.root)

    def prune(self, building: str = "", trunk: int | None = None) -> None:
        for old in self._committed()[:-KEPT]:
            if trunk is None or old != self._final(trunk):
                shutil.rmtree(old)

    def take(self, step: int, folder: Path) -> bool:
        source = self._final(step)
        if not source.is_dir() or self.load(step) is None:
            _log.warning("the state of step %s is not kept: %s has none", step, self.root)
            return False
        plain = trunk_document(read_json(source / STATE))
        write_atomic(source / STATE, state_bytes(plain))
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, folder)
        return True

    def known(self) -> list[tuple[int, int]]:
        for path in self.root.glob(".building_*"):
            shutil.rmtree(path, ignore_errors=True)
        found = []
        for path in reversed(self._committed()):
            state = path / STATE
            data = state.read_bytes() if state.is_file() else b""
            found.append((int(path.name.removeprefix("step_")), hash64(data) >> 1))
        return found

    def load(self, step: int, rank: int = 0, size: int = 1) -> Checkpoint | None:
        path = self._final(step)
        try:
            return _read(path, rank, size)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("checkpoint %s is damaged (%s): falling back to an older one", path, error)
            shutil.rmtree(path, ignore_errors=True)
            return None

    def _final(self, step: int) -> Path:
        return self.root / step_name(step)

    def _committed(self) -> list[Path]:
        return sorted(self.root.glob("step_*"))


def _read(path: Path, rank: int, size: int) -> Checkpoint:
    state = read_json(path / STATE)
    layout = read_state(state)
    files = {i: path / shard_name(i) for i in range(len(state["shards"]))}
    for number, (file, shard) in enumerate(zip(files.values(), state["shards"], strict=True)):
        there = file.stat().st_size
        if there != shard["bytes"]:
            raise ValueError(f"{file.name}: {there} bytes, expected {shard['bytes']}")
        if number % size == rank and (found := sha256_of(file)) != shard["sha256"]:
            raise ValueError(f"{file.name}: digest {found[:12]}, expected {shard['sha256'][:12]}")
    return Checkpoint(
        step=state["step"],
        layout=layout,
        scalars=state["scalars"],
        files=files,
    )


def read_state(state: Any) -> Layout:
    """The layout of a state document; ValueError, KeyError or TypeError for what is none."""
    if (state["format"], state["version"]) != (_FORMAT, _VERSION):
        raise ValueError(f"format {state['format']!r} version {state['version']!r}")
    return parse_layout(state["tensors"], len(state["shards"]))
