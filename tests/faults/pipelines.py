"""Pipelines under fault: which values may change between rounds, and how they are disturbed."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Drawn = Callable[[random.Random], Any]


@dataclass(frozen=True, kw_only=True)
class FaultPipeline:
    """path: a pipeline document. start: overrides of the first run. leaves: what may change.
    silent: a leaf that changes a recipe but no byte (early cutoff). weights: of campaign.WAYS.
    cli_share: how many of the timed kills go through `foundry run`, Prefect included.
    aimed: take the stages in turn. Each is made to run by a new leaf of its own, else by a new
    seed, alone, and is killed while its own process lives. Random instants of a whole run would
    leave out the stages that are quick.
    patience: seconds that processes of a killed run may need to notice.
    """

    path: str
    stages: tuple[str, ...]
    start: Mapping[str, Any] = field(default_factory=dict)
    leaves: Mapping[str, Drawn] = field(default_factory=dict)
    silent: str = ""
    weights: tuple[int, ...]
    cli_share: float = 0.0
    aimed: bool = False
    patience: float = 10.0
    environment: Mapping[str, str] = field(default_factory=dict)


def _word(draw: random.Random) -> str:
    return f"w{draw.randrange(10**9)}"


def _rate(draw: random.Random) -> float:
    return round(draw.uniform(0.01, 0.9), 6)


def _size(draw: random.Random) -> int:
    return draw.randrange(1000, 10**6)


def _vocabulary(draw: random.Random) -> int:
    return draw.randrange(262, 301)


WORDS = FaultPipeline(
    path=str(Path(__file__).parents[1] / "kinds" / "pipeline.yaml"),
    stages=("first", "second", "model", "total"),
    start={"model.seconds": 0.3, "first.word": "one"},
    leaves={"first.word": _word, "second.word": _word, "model.rate": _rate, "total.unit": _word},
    silent="first.comment",
    weights=(50, 15, 15, 10, 10),
    cli_share=0.1,
    environment={"FOUNDRY_KINDS": "tests.kinds"},
)

# Every real kind, each with as little work as it accepts.
REAL = FaultPipeline(
    path=str(Path(__file__).parent / "real.yaml"),
    stages=(
        *("demos", "scenes", "tokenizer", "text", "captions", "robot", "stats"),
        *("llm", "vlm", "vla", "evaluate", "verdict"),
    ),
    leaves={  # of those that take no seed
        "tokenizer.vocab_size": _vocabulary,
        "text.samples_per_shard": _size,
        "captions.samples_per_shard": _size,
        "robot.episodes_per_shard": lambda draw: draw.randrange(3, 10**6),
        "stats.weights": lambda draw: {"robot": _rate(draw)},
        "verdict.alpha": _rate,
    },
    weights=(0, 30, 25, 30, 15),
    cli_share=0.15,
    aimed=True,
    # Ray's agents that were just starting when their raylet died wait for it for a minute.
    patience=90.0,
)

PIPELINES = {"words": WORDS, "real": REAL}
