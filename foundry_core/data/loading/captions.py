"""Images with captions."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from foundry_core.data.loading.config import CaptionData
from foundry_core.data.loading.dataset import SampleDataset
from foundry_core.data.loading.pixels import ImageReader, OutputBuffer, Room, new_buffer
from foundry_core.data.loading.shards import CheckedShards, UnreadableSample
from foundry_core.data.robot.prompts import PromptBuilder
from foundry_core.data.robot.transforms import Sample, pad_tokens
from foundry_core.errors import FoundryError

_IMAGES = ("jpg", "jpeg", "png", "webp")


class CaptionDataset(SampleDataset):
    """One image per name in config.images, in that order, and a caption. Published img2dataset
    tars name their one image by its format alone; it is called "image" here. room: for
    decoded images."""

    def __init__(
        self,
        shards: CheckedShards,
        config: CaptionData,
        prompts: PromptBuilder,
        *,
        train: bool,
        room: Room,
    ) -> None:
        super().__init__(shards)
        self._config = config
        self._prompts = prompts
        self._names = config.images or self._probe()
        self._images = ImageReader(shards, config.image, config.augment if train else None, room)

    @property
    def images(self) -> int:
        return len(self._names)

    def read(self, index: int, sample_key: int, output: OutputBuffer = new_buffer) -> Sample:
        """images uint8 [N, 3, h, w], tokens int64 [T], targets bool [T]."""
        members = self.shards.members(index)
        where = self.shards.where(index)
        files = image_files(members)
        missing = [name for name in self._names if name not in files]
        if missing or "txt" not in members:
            raise UnreadableSample(
                f"{where} lacks {missing or 'its caption'}; it has {sorted(members)}"
            )
        try:
            caption = bytes(members["txt"]).decode()
        except UnicodeDecodeError as error:
            raise UnreadableSample(f"{where}: {error}") from error
        question = self._question(members, where) if self._config.question else None
        tokens, targets, cut = self._prompts.caption(
            caption, len(self._names), self._config.max_tokens, question
        )
        if cut:
            self.count("captions_cut")
        return {
            "images": self._images.read(index, [files[n] for n in self._names], sample_key, output),
            "tokens": np.array(tokens, dtype=np.int64),
            "targets": np.array(targets, dtype=bool),
        }

    def _question(self, members: Mapping[str, memoryview], where: str) -> str | None:
        """Of the sample's metadata; None where they have none."""
        assert self._config.question is not None
        try:
            metadata = json.loads(bytes(members.get("json", b"{}")))
        except ValueError as error:
            raise UnreadableSample(f"{where}: its metadata are no JSON: {error}") from error
        asked = metadata.get(self._config.question) if isinstance(metadata, dict) else None
        return asked if isinstance(asked, str) else None

    def _probe(self) -> tuple[str, ...]:
        if not len(self.shards):
            return ()
        names = sorted(image_files(self.shards.members(0)))
        if not names:
            raise FoundryError(
                f"the first sample of {self.shards.source!r} has no image "
                f"({sorted(self.shards.members(0))})",
                "is it a caption dataset?",
            )
        return tuple(names)


def collate_captions(samples: Sequence[Sample], pad_id: int, pad_multiple: int) -> Sample:
    """All but the images, which are in the batch already."""
    tokens, mask = pad_tokens([s["tokens"] for s in samples], pad_id, pad_multiple)
    targets = np.zeros(tokens.shape, dtype=bool)
    for row, sample in enumerate(samples):
        targets[row, : len(sample["targets"])] = sample["targets"]
    return {"tokens": tokens, "token_mask": mask, "target_mask": targets}


def image_files(members: Iterable[str]) -> dict[str, str]:
    """{name of an image: its member} of a sample's members."""
    return {_image_name(one): one for one in members if _is_image(one)}


def _is_image(extension: str) -> bool:
    return extension.rpartition(".")[2].lower() in _IMAGES


def _image_name(extension: str) -> str:
    return extension.rpartition(".")[0] or "image"
