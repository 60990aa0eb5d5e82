"""What the loader asks of a dataset."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from foundry_core.data.loading.pixels import OutputBuffer, new_buffer
from foundry_core.data.loading.sample_weights import SampleWeights
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.robot.transforms import Sample


class SampleDataset(ABC):
    """One dataset of one modality. `counters` counts what it had to change in samples (captions
    cut, say); `fetched` the shards that came from a remote source."""

    def __init__(self, shards: CheckedShards) -> None:
        self.shards = shards
        self.counters: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def weights(self) -> SampleWeights | None:
        """Of its samples, where its dataset.json has some."""
        runs = self.shards.info.get("weights")
        return None if runs is None else SampleWeights(runs)

    @abstractmethod
    def read(self, index: int, sample_key: int, output: OutputBuffer = new_buffer) -> Sample:
        """One sample. output gives the memory for its images, if it has any. Raises
        UnreadableSample for bytes that are not what was written."""

    def recordings(self, indices: Sequence[int]) -> int | None:
        """From how many episodes, or documents, these samples are; None where nobody knows."""
        return None

    @property
    def fetched(self) -> int:
        return self.shards.fetched

    def ahead(self, indices: Iterable[int]) -> None:  # noqa: B027, most need not know
        """Called with what a batch is about to read, for datasets that prepare samples together."""

    def count(self, counter: str) -> None:
        """Adds one to a counter."""
        self.counters[counter] = self.counters.get(counter, 0) + 1
