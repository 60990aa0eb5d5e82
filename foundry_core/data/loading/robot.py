"""Windows of demonstrations, from shards of whole episodes or of ready-cut samples.

Legend: K action steps, A action dims, S proprio steps, P proprio dims.

Episodes are the cheaper layout: their low-dimensional arrays are stored once, read once, and all
windows of an episode are prepared in one pass that is kept (an .npz of a dozen arrays costs more
than two JPEG decodes). Images are decoded one by one, only the cameras and steps the model takes.
"""

import json
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np

from foundry_core.config.suggest import nearest
from foundry_core.data.config import WindowConfig
from foundry_core.data.keyed import key
from foundry_core.data.loading.config import RobotData
from foundry_core.data.loading.dataset import SampleDataset
from foundry_core.data.loading.lowdim import WindowReader, Windows
from foundry_core.data.loading.pixels import (
    DepthReader,
    ImageReader,
    OutputBuffer,
    Room,
    new_buffer,
)
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.data.robot.transforms import RobotTransform, Sample
from foundry_core.data.robot.windows import anchors
from foundry_core.data.shards.description import depth_member
from foundry_core.errors import FoundryError


class RobotDataset(SampleDataset):
    """Windows of one dataset. room: for decoded images; window_bytes bounds the cut windows (least
    recently used go first)."""

    def __init__(
        self,
        shards: CheckedShards,
        config: RobotData,
        transform: RobotTransform,
        *,
        train: bool,
        room: Room,
        window_bytes: int,
    ) -> None:
        super().__init__(shards)
        self.transform = transform
        self._config, self._inputs = config, config.inputs
        self._train = train
        self._images = ImageReader(
            shards, config.inputs.image, config.augment if train else None, room
        )
        self._depth = DepthReader(shards, config.inputs.image, config.augment if train else None)
        self._windows: OrderedDict[int, Windows] = OrderedDict()
        self._windows_bytes, self._windows_limit = 0, window_bytes
        info = shards.info
        self.layout = info.get("layout", "sample")
        window = None
        self._ends: Sequence[int]
        if self.layout == "episode":
            _check_inputs(shards, self._inputs)
            window = WindowConfig(**info["window"])
            self._ends = array("q", accumulate(_windows_per_episode(shards, window)))
        else:
            self._ends = range(1, len(shards) + 1)
        self._reader = WindowReader(shards, config, transform, window)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def ahead(self, indices: Iterable[int]) -> None:
        """Prepares the windows that a batch is about to read where doing it together is cheaper.
        What goes wrong is left for `read` to say, of the sample it concerns."""
        if self.layout == "episode":
            return
        absent = sorted(set(indices) - self._windows.keys())
        try:
            made = self._reader.samples(absent)
        except FoundryError:
            return
        for sample, windows in made.items():
            self._keep(sample, windows)

    def read(self, index: int, sample_key: int, output: OutputBuffer = new_buffer) -> Sample:
        """images, tokens, proprio [S, P], actions [K, A], action_mask [K, A] of window `index`, and
        depth float32 [N, h, w] of the images where the inputs ask for it. output: memory for the
        images."""
        episode = bisect_right(self._ends, index)
        number = index - (self._ends[episode - 1] if episode else 0)
        windows = self._lowdim(episode)
        tokens, cut = self.transform.tokens(self._instruction(episode, windows, sample_key))
        if cut:
            self.count("instructions_cut")
        names = self._image_names(windows, number)
        depth = (
            {"depth": self._read_depth(episode, names, sample_key)} if self._inputs.depth else {}
        )
        return depth | {
            "images": self._images.read(episode, names, sample_key, output),
            "tokens": tokens,
            "proprio": windows.proprio[number],
            "actions": windows.actions[number],
            "action_mask": windows.action_mask[number],
        }

    def lowdim(self, index: int) -> Sample:
        """proprio, actions and action_mask of window `index`, as `read` has them. No image is
        read."""
        episode = bisect_right(self._ends, index)
        number = index - (self._ends[episode - 1] if episode else 0)
        windows = self._lowdim(episode)
        return {
            "proprio": windows.proprio[number],
            "actions": windows.actions[number],
            "action_mask": windows.action_mask[number],
        }

    def actions(self, index: int) -> np.ndarray:
        """Of window `index`: float32 [K, A], normalised, 0 at masked elements. No image is read."""
        found = self.lowdim(index)
        return np.where(found["action_mask"], found["actions"], np.float32(0))

    def recordings(self, indices: Sequence[int]) -> int | None:
        """Episodes; samples that were cut before do not say theirs."""
        if self.layout != "episode":
            return None
        return len({bisect_right(self._ends, index) for index in indices})

    def _read_depth(self, episode: int, names: Sequence[str], sample_key: int) -> np.ndarray:
        stated = (self.shards.info.get("contract") or {}).get("depth", {})
        offsets = len(self._inputs.image_steps)
        files = [
            (depth_member(name.removesuffix(".jpg")), stated.get(camera, {}).get("metres", 1e-3))
            for number, name in enumerate(names)
            for camera in [self._inputs.cameras[number // offsets]]
        ]
        return self._depth.read(episode, files, sample_key)

    def _image_names(self, windows: Windows, number: int) -> list[str]:
        cameras, offsets = self._inputs.cameras, self._inputs.image_steps
        if self.layout == "sample":
            return [f"{camera}_t{offset}.jpg" for camera in cameras for offset in offsets]
        steps = windows.image_steps[number]
        return [f"{camera}_{step:06d}.jpg" for camera in cameras for step in steps]

    def _instruction(self, episode: int, windows: Windows, sample_key: int) -> str:
        wanted = self._config.instruction
        table = windows.instructions
        if wanted == "any":
            choices = [text for kind in sorted(table) for text in table[kind]]
        else:
            choices = table.get(wanted, [])
        if not choices:
            raise FoundryError(
                f"{self.shards.where(episode)} has no {wanted!r} instruction; it has "
                f"{ {kind: len(texts) for kind, texts in table.items()} }",
                "set data.robot.instruction to one that every episode has",
            )
        if not self._train:
            return (
                next(iter(table.get("original", ())), choices[0]) if wanted == "any" else choices[0]
            )
        return choices[key(sample_key, "instruction") % len(choices)]

    def _lowdim(self, episode: int) -> Windows:
        if episode not in self._windows:
            self._keep(episode, self._reader.episode(episode))
        self._windows.move_to_end(episode)
        return self._windows[episode]

    def _keep(self, episode: int, windows: Windows) -> None:
        self._windows[episode] = windows
        self._windows_bytes += windows.nbytes
        while self._windows_bytes > self._windows_limit and len(self._windows) > 1:
            self._windows_bytes -= self._windows.popitem(last=False)[1].nbytes


def _windows_per_episode(shards: CheckedShards, window: WindowConfig) -> list[int]:
    """As dataset.json states them, or from the lengths there or in the episodes' metadata; checked
    against the stated total."""
    info = shards.info
    counts = info.get("anchors")
    if counts is None:
        counts = [len(anchors(length, window)) for length in _lengths(shards)]
    if sum(counts) != info.get("windows", sum(counts)):
        raise FoundryError(
            f"{shards.source!r} states {info['windows']} windows, its episodes make {sum(counts)}",
            "its dataset.json and shards do not belong together: convert it again",
        )
    return counts


def _lengths(shards: CheckedShards) -> list[int]:
    """Steps of each episode."""
    lengths = shards.info.get("lengths")
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
    return lengths


def _check_inputs(shards: CheckedShards, inputs: RobotInputs) -> None:
    """Cameras, window and fields against what the dataset says it has."""
    info, window = shards.info, shards.info["window"]
    for camera in inputs.cameras:
        if camera not in info["cameras"]:
            raise FoundryError(
                f"{shards.source!r} has no camera {camera!r}",
                nearest(camera, info["cameras"]),
            )
        if inputs.depth and camera not in info.get("depth", {}):
            raise FoundryError(
                f"{shards.source!r} has no depth of camera {camera!r}",
                "name it in the conversion's depth.cameras",
            )
    future = inputs.horizon - inputs.action_past - 1
    if future > window["future"] or inputs.action_past > window["past"]:
        raise FoundryError(
            f"actions from -{inputs.action_past} to {future} around the anchor exceed the "
            f"windows of {shards.source!r} (-{window['past']}..{window['future']})",
            "shorten data.robot.inputs.horizon, or convert with a wider window",
        )
