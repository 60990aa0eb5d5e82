"""Checkpoints that are whole or absent, verified when read.

A checkpoint is a folder `step_<n>` with `tensors.safetensors` and `state.json`, which names the
digest of the former. It is written beside its final name, flushed to the disk, then renamed: a
kill at any instant leaves the previous ones untouched. The last two are kept, so that one found
torn (a full or failing disk) costs a few steps and not the run.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from foundry_core.files import hash64, read_json, sha256_of, sync, write_json

_log = logging.getLogger(__name__)
_TENSORS, _STATE = "tensors.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State after `step` completed optimizer steps. `scalars` is JSON (floats survive exactly)."""

    step: int
    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, Any]


def save_checkpoint(root: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Commits a checkpoint under `root` and removes all but the newest `keep`."""
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"step_{checkpoint.step:09d}"
    building = root / f".building_{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    tensors = {name: t.detach().contiguous() for name, t in checkpoint.tensors.items()}
    safetensors.torch.save_file(tensors, building / _TENSORS)
    state = {
        "format": "foundry-checkpoint",
        "version": 1,
        "step": checkpoint.step,
        "tensors_sha256": sha256_of(building / _TENSORS),
        "scalars": dict(checkpoint.scalars),
    }
    write_json(building / _STATE, state)
    sync(building / _TENSORS)
    sync(building)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(building, final)
    sync(root)
    for old in _committed(root)[:-keep]:
        shutil.rmtree(old)
    return final


def load_latest_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None. Torn ones are reported and removed."""
    for step, _ in known_checkpoints(root):
        checkpoint = load_checkpoint(root, step)
        if checkpoint is not None:
            return checkpoint
    return None


def known_checkpoints(root: Path) -> list[tuple[int, int]]:
    """(step, digest of its state below 2**63) of each checkpoint, newest first, unread. What a
    killed process was building is removed."""
    for path in root.glob(".building_*"):
        shutil.rmtree(path, ignore_errors=True)
    found = []
    for path in reversed(_committed(root)):
        state = path / _STATE
        data = state.read_bytes() if state.is_file() else b""
        found.append((int(path.name.removeprefix("step_")), hash64(data) >> 1))
    return found


def load_checkpoint(root: Path, step: int) -> Checkpoint | None:
    """The checkpoint of a step; None for one that is torn, which is reported and removed."""
    path = root / f"step_{step:09d}"
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        _log.warning("checkpoint %s is damaged (%s): falling back to an older one", path, error)
        shutil.rmtree(path, ignore_errors=True)
        return None


def _read(path: Path) -> Checkpoint:
    state = read_json(path / _STATE)
    found = sha256_of(path / _TENSORS)
    if found != state["tensors_sha256"]:
        raise ValueError(f"digest {found[:12]}, expected {state['tensors_sha256'][:12]}")
    tensors = safetensors.torch.load_file(path / _TENSORS)
    return Checkpoint(step=state["step"], tensors=tensors, scalars=state["scalars"])


def _committed(root: Path) -> list[Path]:
    return sorted(root.glob("step_*"))
