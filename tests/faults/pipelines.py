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
    silent: a leaf that changes a recipe but no byte (early cut-off). weights: of campaign.WAYS.
    cli_share: how many of the timed kills go through `foundry run`, Prefect included.
    span, steps: seconds and file operations from which the instant of a kill is drawn; 0: measured
    on a whole run.
    patience: seconds that processes of a killed run may need to notice.
    chain: kill run after run until one gets through, rather than one or a few times.
    """

    path: str
    stages: tuple[str, ...]
    start: Mapping[str, Any]
    leaves: Mapping[str, Drawn]
    silent: str = ""
    weights: tuple[int, ...]
    cli_share: float = 0.0
    span: float = 0.0
    steps: int = 0
    patience: float = 10.0
    chain: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def _word(draw: random.Random) -> str:
    return f"w{draw.randrange(10**9)}"


def _rate(draw: random.Random) -> float:
    return round(draw.uniform(0.01, 0.9), 6)


def _seed(draw: random.Random) -> int:
    return draw.randrange(10**6)


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
    stages=("tokenizer", "vla"),
    start={},
    leaves={"demos.seed": _seed, "scenes.seed": _seed, "llm.seed": _seed, "vla.seed": _seed},
    weights=(20, 25, 25, 20, 10),
    span=50.0,
    steps=1000,
    patience=60.0,  # Ray's agents look for their raylet now and then
    chain=True,
)

PIPELINES = {"words": WORDS, "real": REAL}
