"""Which held-out samples are read, and in which batches: the same ones each time, on any number of
ranks."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foundry_core.data.loading.config import CAPTIONS, ROBOT, TEXT
from foundry_core.data.loading.loader import Loader
from foundry_core.data.loading.robot import RobotDataset
from foundry_core.data.loading.shards import UnreadableSample
from foundry_core.data.robot.transforms import Sample
from foundry_core.training.distributed import World
from foundry_core.training.validation.config import ValidationConfig


def samples_of(
    config: ValidationConfig, batch_size: int, sizes: Mapping[str, int], passes: int
) -> dict[str, int]:
    """How many samples of each dataset of a modality are read: as many as are asked for, or all.
    passes: how often each is read in one validation."""
    if config.samples is not None:
        each = config.samples
    else:
        trained = config.every * batch_size
        each = max(1, int(config.share * trained / passes / max(1, len(sizes))))
    return {label: min(each, size) for label, size in sizes.items()}


def evenly(count: int, size: int) -> list[int]:
    """`count` indices below `size`: neighbours are alike, windows of one episode above all."""
    return [(2 * number + 1) * size // (2 * count) for number in range(count)]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """loader: of the validation sides, without augmentation. counts: modality → label → samples."""

    loader: Loader
    counts: Mapping[str, Mapping[str, int]]

    def batches(
        self, name: str, label: str, rows: int, world: World
    ) -> Iterator[dict[str, Tensor]]:
        """This rank's, of at most `rows` samples; as many on every rank, for FSDP's sake. Rows
        beyond the last sample repeat it and carry no loss."""
        chosen = self.chosen(name, label)
        rows = min(rows, -(-len(chosen) // world.size))
        together = rows * world.size
        for start in range(0, len(chosen), together):
            first = start + world.rank * rows
            mine = range(first, first + rows)
            indices = [chosen[min(at, len(chosen) - 1)] for at in mine]
            batch = self.loader.rows(name, label, indices)
            spare = torch.tensor([at >= len(chosen) for at in mine])
            yield without_loss(name, batch, spare) if bool(spare.any()) else batch

    def chosen(self, name: str, label: str) -> list[int]:
        """The samples of a dataset that are read."""
        order, number = self.loader.modalities[name].order, self._number(name, label)
        places = evenly(self.counts[name][label], order.drawn(number))
        return order.drawn_samples(number, places)

    def windows(self, label: str) -> Iterator[Sample]:
        """What `RobotDataset.lowdim` says of those of a robot dataset, each alone; what cannot be
        read is left out."""
        dataset = self.loader.modalities[ROBOT].datasets[self._number(ROBOT, label)]
        assert isinstance(dataset, RobotDataset)
        for sample in self.chosen(ROBOT, label):
            with contextlib.suppress(UnreadableSample):
                yield dataset.lowdim(sample)

    def facts(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Modality → label → what is read of it: `samples`, `of` so many, and from how many
        `recordings` (episodes, documents) they come, null where that is not known."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for name, labels in self.counts.items():
            modality = self.loader.modalities[name]
            for label in labels:
                number, chosen = self._number(name, label), self.chosen(name, label)
                found.setdefault(name, {})[label] = {
                    "samples": len(chosen),
                    "of": modality.order.drawn(number),
                    "recordings": modality.datasets[number].recordings(chosen),
                }
        return found

    def _number(self, name: str, label: str) -> int:
        return self.loader.modalities[name].labels.index(label)


def without_loss(name: str, batch: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The batch with nothing to predict in these rows, bool [B]."""
    if name == TEXT:  # each token a document of its own
        own = torch.arange(batch["segments"].shape[1], dtype=batch["segments"].dtype)
        segments = torch.where(rows[:, None], own, batch["segments"])
        return {**batch, "segments": segments}
    mask = {CAPTIONS: "target_mask", ROBOT: "action_mask"}[name]
    kept = ~rows.view(-1, *[1] * (batch[mask].dim() - 1))
    return {**batch, mask: batch[mask] & kept}
