"""The low-dimensional part of windows: out of the shards, cut, made relative, normalised.

Legend: N windows, K action steps, A action dims, S proprio steps, P proprio dims.

Everything here costs per call, not per window: poses of 16 windows take as long as those of one.
So whole episodes are prepared in one pass, and ready-cut samples in groups of a batch.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from foundry_core.config.suggest import nearest
from foundry_core.data.config import Runs, WindowConfig
from foundry_core.data.loading.config import RobotData
from foundry_core.data.loading.shards import CheckedShards, UnreadableSample
from foundry_core.data.npy import read_npz
from foundry_core.data.robot.transforms import RobotTransform
from foundry_core.data.robot.windows import anchors, cut_windows, episode_length, image_steps
from foundry_core.data.shards.description import left_out
from foundry_core.errors import FoundryError

Table = Mapping[str, list[str]]


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
    instructions: Table

    @property
    def nbytes(self) -> int:
        """What it takes in memory, its Python objects included."""
        steps = sum(64 + 40 * len(some) for some in self.image_steps)
        words = sum(80 + len(text) for texts in self.instructions.values() for text in texts)
        arrays = self.actions.nbytes + self.action_mask.nbytes + self.proprio.nbytes
        return arrays + steps + words + 2000

    def one(self, number: int, instructions: Table) -> "Windows":
        """Window `number` of a group, with memory of its own: a view would keep the group alive."""
        here = slice(number, number + 1)
        return Windows(
            actions=self.actions[here].copy(),
            action_mask=self.action_mask[here].copy(),
            proprio=self.proprio[here].copy(),
            image_steps=[[]],
            instructions=instructions,
        )


class WindowReader:
    """Reads windows of one dataset. window: as dataset.json has it; None reads ready-cut samples
    (the published layout), each of which is its own episode."""

    def __init__(
        self,
        shards: CheckedShards,
        config: RobotData,
        transform: RobotTransform,
        window: WindowConfig | None,
    ) -> None:
        self._shards, self._config, self._inputs = shards, config, config.inputs
        self._transform, self._window = transform, window
        self._wanted = {*transform.measured_fields, *transform.target_fields}

    def episode(self, episode: int) -> Windows:
        """All windows of an episode, or the one of a ready-cut sample."""
        if self._window is None:
            return self.samples([episode])[episode]
        fields, table = self._stored(episode, ())
        length = episode_length(fields)
        at = anchors(length, self._window, self._left_out(episode))
        reach = self._reach(self._window.padding)
        cut, past, future = cut_windows(fields, at, reach)
        steps = image_steps(length, at, self._inputs.image_steps).tolist()
        return self._prepare(cut, past | future, reach.past, steps, table)

    def _left_out(self, episode: int) -> Runs:
        """Runs of steps of an episode that are no anchors."""
        if self._shards.info.get("anchors") is None:
            return ()
        try:
            return left_out(self._shards.member(episode, "metadata.json"))
        except ValueError as error:
            raise UnreadableSample(f"{self._shards.where(episode)}: {error}") from error

    def samples(self, samples: Collection[int]) -> dict[int, Windows]:
        """Ready-cut samples, prepared together."""
        cuts = {sample: self._cut(sample) for sample in samples}
        groups: dict[tuple[str, ...], list[int]] = {}
        for sample, (stored, _, _) in cuts.items():
            groups.setdefault(tuple(sorted(stored)), []).append(sample)
        made: dict[int, Windows] = {}
        for names, members in groups.items():
            fields = {name: np.stack([cuts[m][0][name] for m in members]) for name in names}
            real = np.stack([cuts[m][1] for m in members])
            windows = self._prepare(fields, real, self._reach("copy").past, [], {})
            for number, member in enumerate(members):
                made[member] = windows.one(number, cuts[member][2])
        return made

    def _stored(self, episode: int, masks: Collection[str]) -> tuple[dict[str, np.ndarray], Table]:
        lowdim, words = self._shards.several(episode, ("lowdim.npz", "language_instructions.json"))
        try:
            arrays = read_npz(lowdim, {*self._wanted, *masks})
            table = json.loads(bytes(words))
        except (FoundryError, ValueError) as error:
            raise UnreadableSample(f"{self._shards.where(episode)}: {error}") from error
        absent = self._wanted - set(arrays)
        if absent and self._config.missing_fields == "error":
            name = min(absent)
            raise FoundryError(
                f"{self._shards.source!r} lacks the field {name!r}",
                nearest(name, arrays) + ' or set data.robot.missing_fields to "mask"',
            )
        return arrays, table

    def _cut(self, sample: int) -> tuple[dict[str, np.ndarray], np.ndarray, Table]:
        """(fields, which steps are real, instructions) of a ready-cut window, reduced to the steps
        the model needs: [T, D] each. The anchor's place is in the metadata."""
        arrays, table = self._stored(sample, ("past_mask", "future_mask"))
        (stored,) = self._shards.several(sample, ("metadata.json",))
        try:
            anchor = int(json.loads(bytes(stored))["anchor_relative_idx"])
            real = arrays.pop("past_mask") | arrays.pop("future_mask")
        except (ValueError, KeyError) as error:
            raise UnreadableSample(f"{self._shards.where(sample)}: {error!r}") from error
        reach = self._reach("copy")
        first, last = anchor - reach.past, anchor + reach.future
        if first < 0 or last >= len(real):
            raise FoundryError(
                f"{self._shards.where(sample)} holds the steps {-anchor}.."
                f"{len(real) - 1 - anchor} around its anchor, the model needs "
                f"{-reach.past}..{reach.future}",
                "shorten data.robot.inputs.horizon, or convert with a wider window",
            )
        needed = slice(first, last + 1)
        return {name: values[needed] for name, values in arrays.items()}, real[needed], table

    def _prepare(
        self,
        cut: Mapping[str, np.ndarray],
        real: np.ndarray,
        past: int,
        steps_of_images: list[list[int]],
        table: Table,
    ) -> Windows:
        inputs, transform = self._inputs, self._transform
        measured = {n: cut[n][:, past] for n in transform.measured_fields if n in cut}
        action_steps = slice(past - inputs.action_past, past - inputs.action_past + inputs.horizon)
        targets = {n: cut[n][:, action_steps] for n in transform.target_fields if n in cut}
        actions, known = transform.actions(targets, measured, real[:, action_steps])
        steps = [past + step for step in inputs.proprio_steps]
        history = {n: cut[n][:, steps] for n in measured}
        proprio = transform.proprio(history, measured, lead=(len(real),), real=real[:, steps])
        mask = real[:, action_steps, None] & known
        return Windows(
            actions=np.where(mask, actions, np.float32(0)),
            action_mask=mask,
            proprio=proprio,
            image_steps=steps_of_images,
            instructions=table,
        )

    def _reach(self, padding: str) -> WindowConfig:
        """The steps this model needs around an anchor."""
        inputs = self._inputs
        past = max(inputs.action_past, -min(inputs.proprio_steps))
        future = inputs.horizon - inputs.action_past - 1
        return WindowConfig(past=past, future=future, padding=padding)
