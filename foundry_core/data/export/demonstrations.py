"""Stored episodes as exports need them: whole, with pictures decoded when they are asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foundry_core.data.images import decode_image
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.npy import read_npz
from foundry_core.data.robot.episodes import Frames
from foundry_core.data.shards.description import RobotDescription
from foundry_core.errors import FoundryError


@dataclass(frozen=True, kw_only=True)
class StoredDemonstration:
    """An episode of L steps. lowdim: {name: [L, D]}, matrices of cameras too, laid flat. images:
    {camera: L times uint8 [H, W, 3]}; files: the same as they are stored. task: what was told, the
    original words where there are some; instructions: all words by kind.
    """

    name: str
    lowdim: Mapping[str, np.ndarray]
    images: Mapping[str, Sequence[np.ndarray]]
    files: Mapping[str, Sequence[memoryview]]
    task: str
    instructions: Mapping[str, list[str]]
    success: bool | None

    @property
    def length(self) -> int:
        return len(next(iter(self.lowdim.values())))


def stored_demonstration(
    source: CheckedShards, number: int, description: RobotDescription
) -> StoredDemonstration:
    """One sample of the layout "episode". FoundryError for one that is not whole."""
    members, where = source.members(number), source.where(number)
    try:
        arrays = read_npz(members["lowdim.npz"])
        instructions = json.loads(bytes(members["language_instructions.json"]))
        metadata = json.loads(bytes(members["metadata.json"]))
        length = len(next(iter(arrays.values())))
        files = {
            camera: [members[f"{camera}_{step:06d}.jpg"] for step in range(length)]
            for camera in description.cameras
        }
        images = {name: _decoded(some, f"{name} of {where}") for name, some in files.items()}
        kinds = ("original", *sorted(instructions))
        told = [text for kind in kinds for text in instructions.get(kind, ())]
        return StoredDemonstration(
            name=where,
            lowdim={name: values.reshape(length, -1) for name, values in arrays.items()},
            images=images,
            files=files,
            task=told[0] if told else metadata["task"],
            instructions=instructions,
            success=metadata.get("success"),
        )
    except (KeyError, ValueError, AttributeError, StopIteration) as error:
        raise FoundryError(
            f"{where} is no whole episode: {error!r}", "convert the dataset again"
        ) from error


def _decoded(files: list[memoryview], where: str) -> Frames[np.ndarray]:
    return Frames(len(files), lambda step: decode_image(files[step], where))
