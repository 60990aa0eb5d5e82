"""Stop anywhere with some workers and ranks, go on with others: one sequence of global batches."""

import itertools
import random

import numpy as np
import pytest
import torch

from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import (
    CaptionData,
    DataConfig,
    LoaderResources,
    RobotData,
    TextData,
)
from foundry_core.data.loading.loader import Loader, MixedBatch
from foundry_core.data.loading.order import Draws
from foundry_core.data.robot.transform_config import Augment
from tests.synthetic import INPUTS

AUGMENT = Augment(shift=2, brightness=0.2, crop="random")
CONFIGS = {
    "one pool": DataConfig(robot=RobotData(batch_size=8, inputs=INPUTS, augment=AUGMENT)),
    "weighted": DataConfig(
        robot=RobotData(batch_size=4, inputs=INPUTS, weights={"lever": 0.3, "door": 0.7}),
        text=TextData(batch_size=8, weights={"web": 1.0, "docs": 0.0}),
    ),
    "three modalities": DataConfig(
        text=TextData(batch_size=4, weights={"web": 0.9, "docs": 0.1}),
        captions=CaptionData(batch_size=12, augment=AUGMENT),
        robot=RobotData(batch_size=8, inputs=INPUTS, augment=AUGMENT),
    ),
}
STEPS = 6


@pytest.fixture
def make(datasets, tokenizer, normalizer):
    def build(config: DataConfig, workers: int) -> Loader:
        return build_loader(
            config,
            {name: datasets[name] for name in config.modalities},
            seed=11,
            tokenizer=tokenizer,
            tokens_per_image=2,
            normalizer=normalizer,
            resources=LoaderResources(workers=workers, prefetch=2, cache_bytes=1 << 16),
        )

    return build


def rows(batch: MixedBatch) -> dict[str, list[tuple]]:
    """A batch as its samples, without the padding that depends on who their neighbours are."""
    found = {}
    for modality, part in batch.items():
        found[modality] = []
        for number in range(len(part["sample_ids"])):
            sample = {name: tensor[number] for name, tensor in part.items()}
            real = sample.pop("token_mask", torch.ones_like(sample["tokens"], dtype=torch.bool))
            for name in ("tokens", "target_mask"):
                if name in sample:
                    sample[name] = sample[name][real]
            values = (t.contiguous().numpy().tobytes() for _, t in sorted(sample.items()))
            found[modality].append(tuple(values))
    return found


def run(make, config: DataConfig, first: int, steps: int, workers: int, ranks: int) -> list[dict]:
    """Global batches of some steps, made by `ranks` loaders of their own."""
    made = []
    iterators = [make(config, workers).batches(first, rank, ranks) for rank in range(ranks)]
    for _ in range(steps):
        parts = [rows(next(iterator)) for iterator in iterators]
        made.append({m: list(itertools.chain(*(p[m] for p in parts))) for m in parts[0]})
    for iterator in iterators:
        iterator.close()
    return made


@pytest.fixture(scope="module")
def uninterrupted():
    return {}


@pytest.mark.parametrize("case", range(50))
def test_resuming_changes_nothing(case: int, make, uninterrupted) -> None:
    rng = random.Random(case)
    name = rng.choice(sorted(CONFIGS))
    config = CONFIGS[name]
    first = across_an_epoch(make(config, 0), rng) if case % 4 < 2 else rng.randrange(60)
    stop = rng.randrange(1, STEPS)
    ranks = [rng.choice([1, 2, 4]) for _ in range(2)]
    # Half of the cases have worker processes; those of four ranks would only be slow.
    workers = [rng.choice([1, 2]) if case % 2 and n < 4 else 0 for n in ranks]
    for step in range(first, first + STEPS):
        if (name, step) not in uninterrupted:
            uninterrupted[name, step] = rows(make(config, 0).batch(step))
    parts = run(make, config, first, stop, workers[0], ranks[0])
    parts += run(make, config, first + stop, STEPS - stop, workers[1], ranks[1])
    for step, part in enumerate(parts, start=first):
        assert part == uninterrupted[name, step], (name, step, workers, ranks)


def across_an_epoch(loader: Loader, rng: random.Random) -> int:
    """A first step whose run has an epoch's border of the robot data inside."""
    size, order = loader.config.robot.batch_size, loader.modalities["robot"].order
    found = [step for step in range(100) if _epochs(order.draws(step * size, STEPS * size)) > 1]
    return rng.choice(found)


def _epochs(draws: Draws) -> int:
    """Epochs of the first dataset among some draws."""
    return len(np.unique(draws.epoch[draws.dataset == 0]))
