"""Windows of demonstrations, from shards of whole episodes or of ready-cut samples.

Legend: N windows of an episode, K action steps, A action dims, S proprio steps, P proprio dims.

Episodes are the cheaper layout: their low-dimensional arrays are stored once, read once, and all
windows of an episode are cut, made relative and normalised in one vectorised pass that is kept
(an .npz of a dozen arrays costs more than two JPEG decodes). Images are decoded one by one, only
the cameras and steps the model takes.
"""

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from foundry_core.data.config import WindowConfig
from foundry_core.data.images import decode_image
from foundry_core.data.keyed import key
from foundry_core.data.loading.config import RobotData
from foundry_core.data.loading.npy import read_npz
from foundry_core.data.loading.remote import RemoteUnreachable
from foundry_core.data.loading.shards import CheckedShards, UnreadableSample
from foundry_core.data.transforms import RobotTransform, Sample
from foundry_core.data.windows import anchors, cut_windows, episode_length, image_steps
from foundry_core.errors import FoundryError
from foundry_core.pipeline.suggest import nearest


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Model-ready low-dimensional part of some windows.

    actions float32 [N, K, A], action_mask bool [N, K, A], proprio float32 [N, S, P];
    image_steps: for each window the episode's steps whose images it takes; instructions by type.
    """

    actions: np.ndarray
    action_mask: np.ndarray
    proprio: np.ndarray
    image_steps: list[list[int]]
    instructions: Mapping[str, list[str]]

    @property
    def nbytes(self) -> int:
        return self.actions.nbytes + self.action_mask.nbytes + self.proprio.nbytes + 2000


class ImageCache:
    """Decoded images up to a bound. Filled once, never evicted: under a random order every image
    is as likely as any other to come next, and eviction would only add work."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._images: dict[tuple[int, str], np.ndarray] = {}
        self.bytes = 0

    def get(self, at: tuple[int, str]) -> np.ndarray | None:
        return self._images.get(at)

    def put(self, at: tuple[int, str], image: np.ndarray) -> None:
        if self.bytes + image.nbytes <= self._limit:
            self._images[at] = image
            self.bytes += image.nbytes


class RobotDataset:
    """Windows of one dataset. cache_bytes bounds the decoded images that are kept, window_bytes the
    cut windows (least recently used go first)."""

    def __init__(
        self,
        shards: CheckedShards,
        config: RobotData,
        transform: RobotTransform,
        *,
        train: bool,
        cache_bytes: int,
        window_bytes: int,
    ) -> None:
        self.shards = shards
        self.counters: dict[str, int] = {}
        self.transform = transform
        self._config, self._inputs = config, config.inputs
        self._augment = config.augment if train else None
        self._train = train
        self._images = ImageCache(cache_bytes)
        self._windows: OrderedDict[int, Windows] = OrderedDict()
        self._windows_bytes, self._windows_limit = 0, window_bytes
        info = shards.info
        self.layout = info.get("layout", "sample")
        if self.layout == "episode":
            self._check(info)
            self._window = WindowConfig(**info["window"])
            self._ends = list(accumulate(self._count(info)))
        else:
            self._ends = list(range(1, len(shards) + 1))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, index: int, sample_key: int) -> Sample:
        """images, tokens, proprio [S, P], actions [K, A], action_mask [K, A] of window `index`."""
        episode = bisect_right(self._ends, index)
        number = index - (self._ends[episode - 1] if episode else 0)
        windows = self._lowdim(episode)
        tokens, cut = self.transform.tokens(self._instruction(episode, windows, sample_key))
        if cut:
            self.counters["instructions_cut"] = self.counters.get("instructions_cut", 0) + 1
        names = self._image_names(windows, number)
        pictures = [self._image(episode, name) for name in names]
        return {
            "images": self.transform.images(pictures, self._augment, sample_key),
            "tokens": tokens,
            "proprio": windows.proprio[number],
            "actions": windows.actions[number],
            "action_mask": windows.action_mask[number],
        }

    def _image_names(self, windows: Windows, number: int) -> list[str]:
        cameras, offsets = self._inputs.cameras, self._inputs.image_steps
        if self.layout == "sample":
            return [f"{camera}_t{offset}.jpg" for camera in cameras for offset in offsets]
        steps = windows.image_steps[number]
        return [f"{camera}_{step:06d}.jpg" for camera in cameras for step in steps]

    def _image(self, episode: int, name: str) -> np.ndarray:
        cached = self._images.get((episode, name))
        if cached is not None:
            return cached
        data = self.shards.member(episode, name)
        try:
            image = decode_image(data, where=f"{name} of {self.shards.where(episode)}")
        except FoundryError as error:
            raise UnreadableSample(error.message, error.hint) from error
        self._images.put((episode, name), image)
        return image

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
            return choices[0]
        return choices[key(sample_key, "instruction") % len(choices)]

    def _lowdim(self, episode: int) -> Windows:
        if episode in self._windows:
            self._windows.move_to_end(episode)
            return self._windows[episode]
        windows = self._read_windows(episode)
        self._windows[episode] = windows
        self._windows_bytes += windows.nbytes
        while self._windows_bytes > self._windows_limit and len(self._windows) > 1:
            self._windows_bytes -= self._windows.popitem(last=False)[1].nbytes
        return windows

    def _read_windows(self, episode: int) -> Windows:
        wanted = {*self.transform.measured_fields, *self.transform.target_fields}
        masks = {"past_mask", "future_mask"} if self.layout == "sample" else set()
        try:
            arrays = read_npz(self.shards.member(episode, "lowdim.npz"), wanted | masks)
            table = json.loads(bytes(self.shards.member(episode, "language_instructions.json")))
        except (UnreadableSample, RemoteUnreachable):
            raise
        except (FoundryError, ValueError) as error:
            raise UnreadableSample(f"{self.shards.where(episode)}: {error}") from error
        absent = wanted - set(arrays)
        if absent and self._config.missing_fields == "error":
            name = min(absent)
            raise FoundryError(
                f"{self.shards.source!r} lacks the field {name!r}",
                nearest(name, arrays) + ' or set data.robot.missing_fields to "mask"',
            )
        fields = {name: arrays[name] for name in arrays if name in wanted}
        if self.layout == "sample":
            return self._one_window(episode, fields, arrays, table)
        length = episode_length(fields)
        at = anchors(length, self._window)
        reach = self._reach()
        cut, past, future = cut_windows(fields, at, reach)
        steps = image_steps(length, at, self._inputs.image_steps).tolist()
        return self._prepare(cut, past | future, reach.past, steps, table)

    def _one_window(
        self, episode: int, fields: Mapping, arrays: Mapping, table: Mapping
    ) -> Windows:
        """Published layout: the window is the sample; the anchor's place is in its metadata."""
        try:
            metadata = json.loads(bytes(self.shards.member(episode, "metadata.json")))
            anchor = int(metadata["anchor_relative_idx"])
            real = arrays["past_mask"] | arrays["future_mask"]
        except (ValueError, KeyError) as error:
            raise UnreadableSample(f"{self.shards.where(episode)}: {error!r}") from error
        reach = self._reach()
        first, last = anchor - reach.past, anchor + reach.future
        if first < 0 or last >= len(real):
            raise FoundryError(
                f"{self.shards.where(episode)} holds the steps {-anchor}..{len(real) - 1 - anchor} "
                f"around its anchor, the model needs {-reach.past}..{reach.future}",
                "shorten data.robot.inputs.horizon, or convert with a wider window",
            )
        cut = {name: values[None, first : last + 1] for name, values in fields.items()}
        return self._prepare(cut, real[None, first : last + 1], reach.past, [[]], table)

    def _prepare(
        self,
        cut: Mapping[str, np.ndarray],
        real: np.ndarray,
        past: int,
        steps_of_images: list[list[int]],
        table: Mapping[str, list[str]],
    ) -> Windows:
        inputs, transform = self._inputs, self.transform
        measured = {n: cut[n][:, past] for n in transform.measured_fields if n in cut}
        action_steps = slice(past - inputs.action_past, past - inputs.action_past + inputs.horizon)
        targets = {n: cut[n][:, action_steps] for n in transform.target_fields if n in cut}
        actions, known = transform.actions(targets, measured)
        steps = [past + step for step in inputs.proprio_steps]
        history = {n: cut[n][:, steps] for n in measured}
        proprio = transform.proprio(history, measured, lead=(len(real),))
        mask = real[:, action_steps, None] & known
        return Windows(
            actions=np.where(mask, actions, np.float32(0)),
            action_mask=mask,
            proprio=proprio,
            image_steps=steps_of_images,
            instructions=table,
        )

    def _reach(self) -> WindowConfig:
        """The steps this model needs around an anchor."""
        inputs = self._inputs
        past = max(inputs.action_past, -min(inputs.proprio_steps))
        future = inputs.horizon - inputs.action_past - 1
        padding = self._window.padding if self.layout == "episode" else "copy"
        return WindowConfig(past=past, future=future, padding=padding)

    def _count(self, info: Mapping[str, Any]) -> list[int]:
        """Windows per episode, from the lengths in dataset.json or the episodes' metadata; checked
        against the stated total."""
        lengths = info.get("lengths")
        if lengths is None:
            try:
                lengths = [
                    int(json.loads(bytes(self.shards.peek(i, "metadata.json")))["length"])
                    for i in range(len(self.shards))
                ]
            except (ValueError, KeyError) as error:
                raise FoundryError(
                    f"an episode of {self.shards.source!r} has no readable length: {error!r}",
                    "convert the dataset again",
                ) from error
        counts = [len(anchors(length, self._window)) for length in lengths]
        if sum(counts) != info.get("windows", sum(counts)):
            raise FoundryError(
                f"{self.shards.source!r} states {info['windows']} windows, its episodes make "
                f"{sum(counts)}",
                "its dataset.json and shards do not belong together: convert it again",
            )
        return counts

    def _check(self, info: Mapping[str, Any]) -> None:
        """Cameras, window and fields against what the dataset says it has."""
        window, inputs = info["window"], self._inputs
        for camera in inputs.cameras:
            if camera not in info["cameras"]:
                raise FoundryError(
                    f"{self.shards.source!r} has no camera {camera!r}",
                    nearest(camera, info["cameras"]),
                )
        future = inputs.horizon - inputs.action_past - 1
        if future > window["future"] or inputs.action_past > window["past"]:
            raise FoundryError(
                f"actions from -{inputs.action_past} to {future} around the anchor exceed the "
                f"windows of {self.shards.source!r} (-{window['past']}..{window['future']})",
                "shorten data.robot.inputs.horizon, or convert with a wider window",
            )
