"""From a DataConfig and the connected datasets to a Loader."""

import os
from collections.abc import Mapping

from foundry_core.data.loading.captions import CaptionDataset
from foundry_core.data.loading.config import CAPTIONS, ROBOT, TEXT, DataConfig, LoaderResources
from foundry_core.data.loading.loader import Loader, SampleDataset
from foundry_core.data.loading.robot import RobotDataset
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.loading.text import TextDataset
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import PromptBuilder
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
    normalizer: Normalizer | None = None,
    resources: LoaderResources | None = None,
    train: bool = True,
) -> Loader:
    """sources: {"text" | "captions" | "robot": {label: folder or remote address}}.

    The tokenizer must already know <|image|> where captions or robot data are read, and <|obs|>
    for robot data. normalizer: required for robot data.
    """
    config.check_labels({name: list(parts) for name, parts in sources.items()})
    resources = resources or LoaderResources()
    parts = max(1, resources.workers) * max(1, len(sources.get(ROBOT, {})))
    datasets: dict[str, dict[str, SampleDataset]] = {}
    for name in config.modalities:
        datasets[name] = {}
        for label, source in sources[name].items():
            shards = CheckedShards(source, verify=resources.verify)
            if name == TEXT:
                datasets[name][label] = TextDataset(
                    shards, eos_id=tokenizer.eos_id, vocab_size=tokenizer.vocab_size
                )
            elif name == CAPTIONS:
                prompts = PromptBuilder(tokenizer, tokens_per_image, config.captions.prompt)
                datasets[name][label] = CaptionDataset(
                    shards, config.captions, prompts, train=train
                )
            else:
                if normalizer is None:
                    raise FoundryError("robot data needs a normaliser made from its statistics")
                transform = RobotTransform(
                    config.robot.inputs, normalizer, tokenizer, tokens_per_image
                )
                datasets[name][label] = RobotDataset(
                    shards,
                    config.robot,
                    transform,
                    train=train,
                    cache_bytes=resources.cache_bytes // parts,
                    window_bytes=resources.window_bytes // parts,
                )
    _check_alike(datasets)
    return Loader(
        config,
        datasets,
        seed=seed,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        resources=resources,
    )


def _check_alike(datasets: Mapping[str, Mapping[str, SampleDataset]]) -> None:
    """Rows of one batch must have one shape, whatever dataset they come from."""
    for name, attribute in ((TEXT, "row_length"), (CAPTIONS, "images")):
        found = {label: getattr(d, attribute) for label, d in datasets.get(name, {}).items()}
        if len(set(found.values())) > 1:
            raise FoundryError(
                f"{name} datasets of one mix differ in {attribute}: {found}",
                "convert them with one context length"
                if name == TEXT
                else "name the common images in data.captions.images",
            )
