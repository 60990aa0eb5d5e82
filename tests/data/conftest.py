"""Datasets, tokenizer and normaliser of the loader's tests."""

from pathlib import Path

import pytest

from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.statistics.dataset import DatasetStatistics, merge_statistics
from foundry_core.data.text.tokenizer import Tokenizer
from tests.synthetic import INPUTS, make_captions, make_robot, make_text


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    made = Tokenizer.train(["some text"], 258)
    made.add_special(IMAGE)
    made.add_special(OBS)
    return made


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    root = tmp_path_factory.mktemp("datasets")
    return {
        "text": {"web": make_text(root / "web"), "docs": make_text(root / "docs", seed=1)},
        "captions": {"scenes": make_captions(root / "scenes")},
        "robot": {
            "lever": make_robot(root / "lever"),
            "door": make_robot(root / "door", episodes=3, seed=1),
        },
    }


@pytest.fixture(scope="session")
def normalizer(datasets: dict[str, dict[str, Path]]) -> Normalizer:
    parts = {k: DatasetStatistics.load(path) for k, path in datasets["robot"].items()}
    return Normalizer.from_statistics(merge_statistics(parts), INPUTS.fields)
