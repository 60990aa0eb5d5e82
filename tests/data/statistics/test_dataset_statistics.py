"""Moments, digests, files and refusals of dataset statistics."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tdigest import TDigest

from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.statistics.dataset import DatasetStatistics, merge_report, merge_statistics
from foundry_core.data.statistics.summary import QUANTILES
from foundry_core.errors import FoundryError

SOURCES = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy-tailed": lambda rng, n: rng.standard_cauchy(n),
    "constant": lambda rng, n: np.full(n, 0.1),
    "two-valued": lambda rng, n: rng.choice([0.0, 0.1], n, p=[0.47, 0.53]),
    "7-mode": lambda rng, n: rng.integers(0, 7, n) + 0.01 * rng.normal(size=n),
    "atom in a continuum": lambda rng, n: np.where(rng.random(n) < 0.952, 0.1, rng.random(n)),
    "offset": lambda rng, n: 1e6 + rng.normal(size=n),
}


def of_values(values: np.ndarray, steps: int = 1) -> DatasetStatistics:
    windows = values.reshape(-1, steps, 1)
    return compute_statistics([("e", {"x": windows}, np.ones(windows.shape[:2], bool))])


def rank_error(ordered: np.ndarray, value: float, q: float) -> float:
    low = np.searchsorted(ordered, value, "left") / len(ordered)
    high = np.searchsorted(ordered, value, "right") / len(ordered)
    return max(0.0, low - q, q - high)


@pytest.mark.parametrize("kind", SOURCES)
def test_hundred_parts_in_twenty_orders(kind: str) -> None:
    rng = np.random.default_rng(7)
    raw = [SOURCES[kind](rng, 10_000) for _ in range(100)]
    parts = [of_values(values, steps=4) for values in raw]
    merged = merge_statistics(parts)
    text = merged.to_json()
    for _ in range(20):
        order = rng.permutation(100)
        assert merge_statistics([parts[i] for i in order]).to_json() == text
    halves = [merge_statistics(parts[:37]), merge_statistics(parts[37:])]
    assert merge_statistics(halves[::-1]).to_json() == text

    ordered = np.sort(np.concatenate(raw))
    field = merged["x"]
    for q in QUANTILES:
        assert rank_error(ordered, field.quantiles[q][0], q) <= 0.001, q
    spread = ordered.std(ddof=1)
    assert field.std[0] == pytest.approx(spread if kind != "constant" else 0.0, rel=1e-9)
    assert (field.min[0], field.max[0]) == (ordered[0], ordered[-1])
    if kind in ("constant", "two-valued"):
        assert {float(v[0]) for v in field.quantiles.values()} <= set(ordered.tolist())


def test_offset_keeps_the_spread_to_1e_9() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    parts = [of_values(1e6 + chunk) for chunk in np.split(values, 20)]
    assert merge_statistics(parts)["x"].std[0] == pytest.approx(values.std(ddof=1), rel=1e-9)


def test_stored_digest_is_one_the_tdigest_package_reads_and_writes(tmp_path: Path) -> None:
    values = np.random.default_rng(1).gamma(2.0, size=50_000)
    of_values(values, steps=5).save(tmp_path / "stats.json")
    state = json.loads((tmp_path / "stats.json").read_text())["x"]["tdigest"][0]
    digest = TDigest().update_from_dict(state)
    assert digest.n == 50_000
    assert digest.to_dict() == state
    ordered = np.sort(values)
    for q in QUANTILES:
        assert rank_error(ordered, digest.percentile(100 * q), q) <= 0.001


def test_a_file_round_trip_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    windows = rng.normal(size=(300, 6, 3))
    valid = rng.random((300, 6)) < 0.8
    valid[:, 5] = False
    stats = compute_statistics([("e", {"a": windows, "b": windows[..., :1]}, valid)], past=2)
    stats.save(tmp_path / "stats.json")
    again = DatasetStatistics.load(tmp_path)
    assert again.to_json() == stats.to_json()
    assert merge_statistics([again]).to_json() == stats.to_json()
    assert again["a"].past == 2
    assert again["a"].count[5] == 0 and np.isnan(again["a"].mean_per_timestep[5]).all()
    again.save(tmp_path / "copy.json")
    for name in ("stats.json", "stats.leaves.npz"):
        copied = tmp_path / name.replace("stats", "copy", 1)
        assert copied.read_bytes() == (tmp_path / name).read_bytes()


def test_padded_steps_do_not_count_and_grouping_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    windows = rng.normal(size=(90, 4, 2))
    valid = rng.random((90, 4)) < 0.7
    windows[~valid] = np.nan
    whole = compute_statistics([("e", {"x": windows}, valid)])
    pieces = compute_statistics(
        [(str(i), {"x": windows[i : i + 7]}, valid[i : i + 7]) for i in range(0, 90, 7)]
    )
    assert whole.to_json() == pieces.to_json()
    for step in range(4):
        column = windows[valid[:, step], step]
        assert whole["x"].count[step] == len(column)
        np.testing.assert_allclose(whole["x"].mean_per_timestep[step], column.mean(0), atol=1e-14)
        for q in QUANTILES:
            np.testing.assert_allclose(
                whole["x"].quantiles_per_timestep[q][step], np.quantile(column, q, axis=0)
            )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused_by_name(bad: float) -> None:
    windows = np.zeros((5, 4, 3))
    windows[2, 3, 1] = bad
    good = ("first", {"good": np.zeros((5, 4, 3)), "bad": np.zeros((5, 4, 3))}, np.ones((5, 4)))
    item = ("second", {"good": np.zeros((5, 4, 3)), "bad": windows}, np.ones((5, 4), bool))
    with pytest.raises(FoundryError, match=r"'second', field 'bad', step 3 of window 2"):
        compute_statistics([good, item])


def test_changing_fields_and_empty_datasets_are_refused() -> None:
    mask = np.ones((5, 4), bool)
    first = ("a", {"x": np.zeros((5, 4, 3))}, mask)
    with pytest.raises(FoundryError, match="'b'"):
        compute_statistics([first, ("b", {"x": np.zeros((5, 4, 2))}, mask)])
    with pytest.raises(FoundryError, match="no windows"):
        compute_statistics([])


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=3, max_size=6),
    seed=st.integers(0, 2**16),
    cut=st.integers(1, 2),
)
def test_merging_is_associative_and_commutative(sizes: list[int], seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [of_values(rng.normal(3, 2, size=n)) for n in sizes]
    whole = merge_statistics(parts)
    left = merge_statistics([merge_statistics(parts[:cut]), *parts[cut:]])
    right = merge_statistics([*parts[cut:], merge_statistics(parts[:cut])][::-1])
    assert whole.to_json() == left.to_json() == right.to_json()


def test_different_fields_and_horizons_merge_field_by_field() -> None:
    rng = np.random.default_rng(5)

    def made(past: int, steps: int, names: list[str]) -> DatasetStatistics:
        fields = {name: rng.normal(size=(40, steps, 2)) for name in names}
        return compute_statistics([("e", fields, np.ones((40, steps), bool))], past=past)

    parts = {"short": made(1, 4, ["x", "y"]), "long": made(3, 9, ["x", "z"])}
    merged = merge_statistics(parts)
    assert sorted(merged.fields) == ["x", "y", "z"]
    assert merged["x"].past == 3
    assert merged["x"].count.tolist() == [40, 40, 80, 80, 80, 80, 40, 40, 40]
    both = np.mean(
        [parts["short"]["x"].mean_per_timestep[1], parts["long"]["x"].mean_per_timestep[3]], axis=0
    )
    np.testing.assert_allclose(merged["x"].mean_per_timestep[3], both)
    report = merge_report(parts, "count")
    assert report["partial_fields"]["y"] == {"in": ["short"], "missing": ["long"]}
    assert report["horizons"]["x"] == {"short": [1, 2], "long": [3, 5]}
    other = compute_statistics([("e", {"x": np.zeros((4, 4, 5))}, np.ones((4, 4), bool))])
    with pytest.raises(FoundryError, match=r"'x' has 2 and 5 dimensions"):
        merge_statistics([parts["short"], other])


def test_mix_weights_are_shares_of_windows_and_zero_is_absence() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(0, 1, 10_000), rng.normal(10, 1, 2_000)
    parts = {"a": of_values(a), "b": of_values(b)}
    assert merge_statistics(parts).weighting == "count"
    mixed = merge_statistics(parts, {"a": 1.0, "b": 3.0})
    assert mixed.weighting == "mix"
    assert mixed["x"].mean[0] == pytest.approx((a.mean() + 3 * b.mean()) / 4)
    assert mixed["x"].quantiles[0.5][0] == pytest.approx(np.quantile(b, 1 / 3), abs=0.02)
    only = merge_statistics(parts, {"a": 1.0, "b": 0.0})
    assert only["x"].max[0] == a.max()
    nested = merge_statistics([merge_statistics(parts, {"a": 1, "b": 3})], [5.0])
    assert nested["x"].mean[0] == pytest.approx(mixed["x"].mean[0], rel=1e-14)
    for weights in ({"a": 1.0}, {"a": -1.0, "b": 2.0}, {"a": 0.0, "b": 0.0}):
        with pytest.raises(FoundryError):
            merge_statistics(parts, weights)


def test_collapsing_shards_of_one_dataset() -> None:
    rng = np.random.default_rng(8)
    raw = rng.normal(size=(12, 1000))
    merged = merge_statistics([of_values(values) for values in raw])
    collapsed = merged.collapse()
    assert (len(merged.leaves), len(collapsed.leaves)) == (12, 1)
    assert collapsed["x"].mean == pytest.approx(merged["x"].mean, rel=1e-12)
    ordered = np.sort(raw.ravel())
    for q in QUANTILES:
        assert rank_error(ordered, collapsed["x"].quantiles[q][0], q) <= 0.001
