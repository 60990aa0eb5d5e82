"""From a DataConfig and the connected datasets to a Loader."""

import os
from collections.abc import Iterator, Mapping
from typing import Literal

from foundry_core.data.convert.split import VALIDATION
from foundry_core.data.loading.captions import CaptionDataset
from foundry_core.data.loading.config import CAPTIONS, ROBOT, TEXT, DataConfig, LoaderResources
from foundry_core.data.loading.dataset import SampleDataset
from foundry_core.data.loading.loader import Loader
from foundry_core.data.loading.pixels import Room
from foundry_core.data.loading.robot import RobotDataset
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.loading.text import TextDataset
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import PromptBuilder
from foundry_core.data.robot.transform_config import PromptMarks
from foundry_core.data.robot.transforms import RobotTransform
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError

Sources = Mapping[str, Mapping[str, str | os.PathLike]]


def build_loader(
    config: DataConfig,
    sources: Sources,
    *,
    seed: int,
    tokenizer: Tokenizer,
    tokens_per_image: int = 1,
    marks: PromptMarks = PromptMarks(),
    normalizer: Normalizer | None = None,
    resources: LoaderResources | None = None,
    train: bool = True,
) -> Loader:
    """The loader of a run. sources: {"text" | "captions" | "robot": {label: folder or address}}.
    The tokenizer must know the image token where captions or robot data are read, and <|obs|> for
    robot data, which need the normalizer too.
    """
    config.check_labels({name: list(parts) for name, parts in sources.items()})
    resources = resources or LoaderResources()
    datasets: dict[str, dict[str, SampleDataset]] = {}
    workers = max(1, resources.workers)
    room = Room(resources.cache_bytes // workers)

    def opened(name: str) -> Iterator[tuple[str, CheckedShards]]:
        split = config.modalities[name].split
        for label, source in sources[name].items():
            yield label, opened_side(source, split, verify=resources.verify)

    if config.text:
        datasets[TEXT] = {
            label: TextDataset(shards, eos_id=tokenizer.eos_id, vocab_size=tokenizer.vocab_size)
            for label, shards in opened(TEXT)
        }
    if config.captions:
        prompts = PromptBuilder(tokenizer, tokens_per_image, config.captions.prompt, marks)
        datasets[CAPTIONS] = {
            label: CaptionDataset(shards, config.captions, prompts, train=train, room=room)
            for label, shards in opened(CAPTIONS)
        }
    if config.robot:
        if normalizer is None:
            raise FoundryError("robot data needs a normaliser made from its statistics")
        transform = RobotTransform(
            config.robot.inputs, normalizer, tokenizer, tokens_per_image, marks
        )
        datasets[ROBOT] = {
            label: RobotDataset(
                shards,
                config.robot,
                transform,
                train=train,
                room=room,
                window_bytes=resources.window_bytes // (workers * len(sources[ROBOT])),
            )
            for label, shards in opened(ROBOT)
        }
    _check_alike(datasets)
    return Loader(
        config,
        datasets,
        seed=seed,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        resources=resources,
    )


def opened_side(
    source: str | os.PathLike, split: Literal["train", "validation"], *, verify: bool
) -> CheckedShards:
    """One side of a dataset. FoundryError where nothing was set aside."""
    if split == "train":
        return CheckedShards(source, verify=verify)
    place = validation_side(source)
    try:
        return CheckedShards(place, verify=verify)
    except FoundryError as error:
        raise FoundryError(
            f"{os.fspath(source)!r} has no validation side: {error.message}",
            "convert it with a split, or read split: train",
        ) from error


def validation_side(source: str | os.PathLike) -> str:
    """Where a dataset's validation side lies, if it has one."""
    return f"{os.fspath(source).rstrip('/')}/{VALIDATION}"


def _check_alike(datasets: Mapping[str, Mapping[str, SampleDataset]]) -> None:
    """Rows of one batch must have one shape, whatever dataset they come from."""
    for name, attribute in ((TEXT, "row_length"), (CAPTIONS, "images")):
        values = {label: getattr(d, attribute) for label, d in datasets.get(name, {}).items()}
        if len(set(values.values())) > 1:
            raise FoundryError(
                f"{name} datasets of one mix differ in {attribute}: {values}",
                "convert them with one context length"
                if name == TEXT
                else "name the common images in data.captions.images",
            )
