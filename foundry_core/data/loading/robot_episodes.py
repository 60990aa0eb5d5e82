"""What the dataset.json of whole episodes says, against the episodes and against what a model
asks for."""

import json

from foundry_core.config.suggest import nearest
from foundry_core.data.config import WindowConfig
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.data.robot.windows import anchors
from foundry_core.errors import FoundryError


def windows_per_episode(shards: CheckedShards, window: WindowConfig) -> list[int]:
    """Windows per episode, from the lengths in dataset.json or the episodes' metadata; checked
    against the stated total."""
    info = shards.info
    lengths = info.get("lengths")
    if lengths is None:
        try:
            lengths = [
                int(json.loads(bytes(shards.peek(i, "metadata.json")))["length"])
                for i in range(len(shards))
            ]
        except (ValueError, KeyError) as error:
            raise FoundryError(
                f"an episode of {shards.source!r} has no readable length: {error!r}",
                "convert the dataset again",
            ) from error
    counts = [len(anchors(length, window)) for length in lengths]
    if sum(counts) != info.get("windows", sum(counts)):
        raise FoundryError(
            f"{shards.source!r} states {info['windows']} windows, its episodes make {sum(counts)}",
            "its dataset.json and shards do not belong together: convert it again",
        )
    return counts


def check_inputs(shards: CheckedShards, inputs: RobotInputs) -> None:
    """Cameras, window and fields against what the dataset says it has."""
    info, window = shards.info, shards.info["window"]
    for camera in inputs.cameras:
        if camera not in info["cameras"]:
            raise FoundryError(
                f"{shards.source!r} has no camera {camera!r}",
                nearest(camera, info["cameras"]),
            )
    future = inputs.horizon - inputs.action_past - 1
    if future > window["future"] or inputs.action_past > window["past"]:
        raise FoundryError(
            f"actions from -{inputs.action_past} to {future} around the anchor exceed the "
            f"windows of {shards.source!r} (-{window['past']}..{window['future']})",
            "shorten data.robot.inputs.horizon, or convert with a wider window",
        )
