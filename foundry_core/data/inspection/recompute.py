"""Statistics of a robot dataset computed again from its shards."""

import json
import os
from collections.abc import Mapping

import numpy as np

from foundry_core.data.config import PoseGroup, WindowConfig
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.npy import read_npz
from foundry_core.data.robot.poses import add_relative_fields
from foundry_core.data.robot.transform_config import RELATIVE
from foundry_core.data.robot.windows import anchors, cut_windows
from foundry_core.data.shards.description import left_out
from foundry_core.data.statistics.builder import EpisodeWindows, compute_statistics
from foundry_core.data.statistics.dataset import DatasetStatistics


def dataset_statistics(source: str | os.PathLike[str]) -> DatasetStatistics:
    """Recomputed from the shards of a robot dataset, whatever its layout and stats.json say.

    Episodes are windowed as dataset.json says, and every `*__poses__*` pose is also taken relative
    to the measured pose of its arm at the anchor.
    """
    shards = CheckedShards(source)
    if shards.info.get("layout", "sample") == "episode":
        window = WindowConfig(**shards.info["window"])
        items = (_episode(shards, i, window) for i in range(len(shards)))
        return compute_statistics(items, past=window.past)
    first = json.loads(bytes(shards.member(0, "metadata.json")))
    items = (_sample(shards, i) for i in range(len(shards)))
    return compute_statistics(items, past=int(first["anchor_relative_idx"]))


def _episode(shards: CheckedShards, index: int, window: WindowConfig) -> EpisodeWindows:
    fields = _numeric(read_npz(shards.member(index, "lowdim.npz")))
    length = len(next(iter(fields.values())))
    at = anchors(length, window, left_out(shards.member(index, "metadata.json")))
    cut, past, future = cut_windows(fields, at, window)
    real = past | future
    return shards.key(index), add_relative_fields(cut, window.past, _groups(cut), real), real


def _sample(shards: CheckedShards, index: int) -> EpisodeWindows:
    arrays = read_npz(shards.member(index, "lowdim.npz"))
    real = arrays.pop("past_mask") | arrays.pop("future_mask")
    fields = {name: values[None] for name, values in _numeric(arrays).items()}
    return shards.key(index), fields, real[None]


def _numeric(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Signals [L, D]: no camera matrices, texts or masks."""
    return {
        name: values.astype(np.float64)
        for name, values in arrays.items()
        if values.ndim == 2 and values.dtype.kind in "fiu"
    }


def _groups(fields: Mapping[str, np.ndarray]) -> list[PoseGroup]:
    """Arms by LBM's naming, for which relative poses are not stored."""
    poses: dict[str, list[str]] = {}
    for name in sorted(fields):
        parts = name.split("__")
        if len(parts) == 5 and parts[2] == "poses" and parts[4] == "xyz":
            reference = "__".join([parts[0], "actual", *parts[2:4]])
            if f"{reference}__xyz" in fields and name + RELATIVE not in fields:
                poses.setdefault(reference, []).append(name.removesuffix("__xyz"))
    return [PoseGroup(reference=r, poses=tuple(names)) for r, names in poses.items()]
