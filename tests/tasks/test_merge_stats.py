"""The merge_stats stage: files, weights, checks."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from training_stages import run_stage

from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.errors import FoundryError
from tasks.merge_stats import STAGE, MergeStatsRecipe


def run(tmp_path: Path, recipe: MergeStatsRecipe, order: list[str]) -> Path:
    out = tmp_path / f"out-{'-'.join(order)}"
    folders = {label: tmp_path / label for label in order}
    for label, folder in folders.items():
        rng = np.random.default_rng(len(label))
        windows = rng.normal(len(label), 1, size=(40, 3, 2))
        fields = {"x": windows} if label == "a" else {"x": windows, "only_here": windows}
        item = ("e", fields, np.ones((40, 3), bool))
        compute_statistics([item]).save(folder / "stats.json")
    metrics = run_stage(STAGE, out, tmp_path, recipe, {"datasets": folders})
    assert metrics["datasets"] == len(order)
    drawn = [label for label in order if (recipe.weights or {}).get(label, 1) > 0]
    assert metrics["windows"] == 40 * len(drawn)
    assert metrics["clipped_dimensions"] == 0 and metrics["largest_clipped_share"] <= 0.01
    return out


def test_order_of_inputs_leaves_no_trace_and_the_report_names_what_differs(tmp_path: Path) -> None:
    one = run(tmp_path, MergeStatsRecipe(), ["a", "long", "longer"])
    two = run(tmp_path, MergeStatsRecipe(), ["longer", "a", "long"])
    for name in ("stats.json", "stats.leaves.npz", "report.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    report = json.loads((one / "report.json").read_text())
    assert report["partial_fields"] == {"only_here": {"in": ["long", "longer"], "missing": ["a"]}}
    assert report["weighting"] == "count"
    assert set(report["normalization"]) == {"x", "only_here"}
    assert report["normalization"]["x"]["constant"] == [False, False]
    (dataset,) = report["parts"]["a"]["datasets"]
    merged = DatasetStatistics.load(one)
    assert dataset in merged["x"].datasets and dataset not in merged["only_here"].datasets


def test_weights_follow_the_mix(tmp_path: Path) -> None:
    recipe = MergeStatsRecipe(weights={"a": 0.0, "long": 1.0})
    merged = DatasetStatistics.load(run(tmp_path, recipe, ["a", "long"]))
    alone = DatasetStatistics.load(tmp_path / "long")
    assert merged["x"].mean.tolist() == alone["x"].mean.tolist()


def test_impossible_weights_are_refused_before_anything_runs() -> None:
    with pytest.raises(ValidationError, match="negative"):
        MergeStatsRecipe(weights={"a": -1.0})
    with pytest.raises(FoundryError, match="connected are"):
        STAGE.check(MergeStatsRecipe(weights={"a": 1.0}), {"datasets": {"b": None}})
