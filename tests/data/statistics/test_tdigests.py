"""Statistics and the package `tdigest`: what goes over and what comes back."""

from pathlib import Path

import numpy as np
import pytest
from tdigest import TDigest

from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.statistics.dataset import DatasetStatistics, merge_statistics
from foundry_core.data.statistics.digest import from_values
from foundry_core.data.statistics.summary import QUANTILES
from foundry_core.data.statistics.tdigests import (
    from_tdigest,
    load_tdigests,
    stored_digest,
    to_tdigest,
)
from foundry_core.errors import FoundryError


def of(values: np.ndarray, **more: np.ndarray) -> DatasetStatistics:
    """values [N, D]"""
    fields = {name: array[:, None] for name, array in {"x": values, **more}.items()}
    return compute_statistics([("e", fields, np.ones((len(values), 1), bool))])


def rank_error(ordered: np.ndarray, value: float, q: float) -> float:
    low, high = np.searchsorted(ordered, value, "left"), np.searchsorted(ordered, value, "right")
    return float(np.clip(q, low / len(ordered), high / len(ordered)) - q)


def test_centroids_go_over_and_come_back_unchanged() -> None:
    rows = from_values(np.random.default_rng(0).normal(size=(40_000, 3)), 200)
    theirs = [to_tdigest(stored_digest(*rows.row(i)[:2])) for i in range(3)]
    assert [digest.n for digest in theirs] == [40_000] * 3
    again = from_tdigest(theirs)
    np.testing.assert_array_equal(again.means, rows.means)
    np.testing.assert_array_equal(again.counts, rows.counts)


def test_exported_digests_give_the_same_quantiles_in_the_package(tmp_path: Path) -> None:
    values = np.random.default_rng(1).gamma(2.0, size=(30_000, 2))
    of(values).save(tmp_path / "x.tdigest.json")
    for dim, digest in enumerate(load_tdigests(tmp_path / "x.tdigest.json")["x"]):
        assert isinstance(digest, TDigest)
        ordered = np.sort(values[:, dim])
        for q in QUANTILES:
            assert abs(rank_error(ordered, digest.percentile(100 * q), q)) <= 1e-3


def test_digests_come_back_as_statistics(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    values, gripper = rng.normal(3, 2, size=(20_000, 2)), rng.integers(0, 2, size=(20_000, 1)) * 0.1
    stats = of(values, gripper=gripper)
    stats.save(tmp_path / "x.tdigest.json")
    again = DatasetStatistics.load(tmp_path / "x.tdigest.json")
    assert again.windows == 20_000
    np.testing.assert_allclose(again["x"].mean, stats["x"].mean, rtol=1e-9)
    np.testing.assert_allclose(again["x"].std, stats["x"].std, rtol=1e-2)
    for dim in range(2):
        ordered = np.sort(values[:, dim])
        for q in QUANTILES:
            assert abs(rank_error(ordered, again["x"].quantiles[q][dim], q)) <= 2e-3
    assert again["gripper"].discrete.all()
    for q in QUANTILES:
        assert again["gripper"].quantiles[q] == stats["gripper"].quantiles[q]


def test_somebodys_own_digests_merge_with_a_dataset(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(0, 1, size=(8000, 1)), rng.normal(5, 1, size=(2000, 1))
    digest = TDigest()
    digest.batch_update(theirs[:, 0].tolist())
    merged = merge_statistics([of(ours), _loaded(tmp_path, {"x": [digest.to_dict()]})])
    both = np.sort(np.concatenate([ours, theirs])[:, 0])
    assert merged.windows == 10_000
    assert merged["x"].mean[0] == pytest.approx(both.mean(), abs=1e-3)
    for q in QUANTILES:
        assert abs(rank_error(both, merged["x"].quantiles[q][0], q)) <= 0.01


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"x": [{"no": 1}]}, "is no file of digests"),
        ([1], "is no file of digests"),
        ({"x": [{"centroids": [{"m": 1.0, "c": 2.0}]}, {"centroids": []}]}, r"hold \[0, 2\]"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, document: object, message: str) -> None:
    with pytest.raises(FoundryError, match=message):
        _loaded(tmp_path, document)


def _loaded(folder: Path, document: object) -> DatasetStatistics:
    from foundry_core.files import write_json

    write_json(folder / "theirs.tdigest.json", document)
    return DatasetStatistics.load(folder / "theirs.tdigest.json")
