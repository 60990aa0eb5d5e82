"""Normalisers: known values, floors, overrides, exact inverse, files."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.transform_config import FieldOverride, NormalizationConfig
from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.errors import FoundryError


@pytest.fixture(scope="module")
def stats() -> DatasetStatistics:
    """ramp: 0..100 in dim 0, constant 5 in dim 1; step s adds 10·s to dim 0. past 1."""
    ramp = np.zeros((101, 3, 2))
    ramp[..., 0] = np.arange(101)[:, None] + 10 * np.arange(3)
    ramp[..., 1] = 5.0
    valid = np.ones((101, 3), bool)
    return compute_statistics([("e", {"ramp": ramp, "arm__xyz": ramp}, valid)], past=1)


@pytest.mark.parametrize(
    ("mode", "low", "high"),
    [("percentile_1_99", 11, 109), ("percentile_5_95", 15, 105), ("min_max", 10, 110)],
)
def test_bounds_become_plus_minus_one_at_the_anchor(
    stats: DatasetStatistics, mode: str, low: float, high: float
) -> None:
    norm = Normalizer.from_statistics(stats, ["ramp"], NormalizationConfig(mode=mode))
    values = np.array([[low, 5.0], [high, 5.0]])[:, None]  # [2, K=1, D]
    np.testing.assert_allclose(norm.normalize("ramp", values)[:, 0, 0], [-1, 1], atol=1e-12)
    earlier = values - [10.0, 0.0]
    np.testing.assert_allclose(
        norm.normalize("ramp", earlier, first_step=-1)[:, 0, 0], [-1, 1], atol=1e-12
    )


def test_std_and_identity(stats: DatasetStatistics) -> None:
    config = NormalizationConfig(mode="std", per_timestep=False, clip=None)
    norm = Normalizer.from_statistics(stats, ["ramp"], config)
    field = stats["ramp"]
    got = norm.normalize("ramp", np.array([field.mean[0] + 2 * field.std[0], 5.0]))
    np.testing.assert_allclose(got, [2, 0], atol=1e-12)
    plain = Normalizer.from_statistics(stats, ["ramp"], NormalizationConfig(mode="identity"))
    np.testing.assert_array_equal(plain.normalize("ramp", np.array([1e9, -7.0])), [1e9, -7.0])


def test_clip_and_floor(stats: DatasetStatistics) -> None:
    norm = Normalizer.from_statistics(stats, ["ramp"], NormalizationConfig(floor=0.5))
    np.testing.assert_allclose(norm.normalize("ramp", np.array([1e6, 5.25])), [1.5, 0.5])
    free = Normalizer.from_statistics(stats, ["ramp"], NormalizationConfig(clip=None, floor=1e-2))
    assert free.normalize("ramp", np.array([60.0, 6.0]))[1] == pytest.approx(100)


def test_overrides_by_name_and_glob(stats: DatasetStatistics) -> None:
    config = NormalizationConfig(
        fields={
            "*": FieldOverride(floor=2.0),
            "*__xyz": FieldOverride(floor=4.0, no_clip=True),
            "ramp": FieldOverride(mode="identity"),
        }
    )
    assert config.rule("ramp").mode == "identity"
    assert config.rule("arm__xyz").floor == 4.0 and config.rule("arm__xyz").clip is None
    assert config.rule("other").floor == 2.0 and config.rule("other").clip == 1.5
    norm = Normalizer.from_statistics(stats, ["ramp", "arm__xyz"], config)
    assert norm.normalize("arm__xyz", np.array([60.0, 9.0]))[1] == pytest.approx(1.0)
    typo = NormalizationConfig(fields={"*_xzy": FieldOverride(floor=1.0)})
    with pytest.raises(FoundryError, match=r"\*_xzy"):
        Normalizer.from_statistics(stats, ["ramp"], typo)


@settings(max_examples=50, deadline=None)
@given(
    position=st.floats(-1.49, 1.49),
    mode=st.sampled_from(["percentile_1_99", "percentile_5_95", "min_max", "std", "identity"]),
    per_timestep=st.booleans(),
)
def test_inverse_is_exact_inside_the_clip(
    stats: DatasetStatistics, position: float, mode: str, per_timestep: bool
) -> None:
    config = NormalizationConfig(mode=mode, per_timestep=per_timestep)
    norm = Normalizer.from_statistics(stats, ["ramp"], config)
    inside = np.full((4, 3, 2), position)
    raw = norm.denormalize("ramp", inside, first_step=-1)
    again = norm.denormalize("ramp", norm.normalize("ramp", raw, -1), -1)
    np.testing.assert_allclose(again, raw, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(norm.normalize("ramp", raw, -1), inside, atol=1e-12)


def test_unseen_steps_use_global_numbers_and_steps_outside_are_refused() -> None:
    rng = np.random.default_rng(0)
    valid = np.ones((50, 4), bool)
    valid[:, 3] = False
    stats = compute_statistics([("e", {"x": rng.normal(size=(50, 4, 1))}, valid)])
    norm = Normalizer.from_statistics(stats, ["x"])
    whole = Normalizer.from_statistics(stats, ["x"], NormalizationConfig(per_timestep=False))
    value = np.array([0.3])
    assert norm.normalize("x", value, 3) == whole.normalize("x", value)
    with pytest.raises(FoundryError, match=r"steps 3\.\.4"):
        norm.normalize("x", np.zeros((2, 1)), 3)
    with pytest.raises(FoundryError, match="2 dimensions"):
        norm.normalize("x", np.zeros((2, 2)))
    with pytest.raises(FoundryError, match="'y'"):
        norm.normalize("y", np.zeros((2, 2)))


def test_files_round_trip_exactly(stats: DatasetStatistics, tmp_path: Path) -> None:
    norm = Normalizer.from_statistics(stats, ["ramp", "arm__xyz"])
    norm.save(tmp_path / "normalizer.json")
    again = Normalizer.load(tmp_path)
    assert again.to_json() == norm.to_json()
    values = np.random.default_rng(0).normal(50, 40, size=(7, 2, 2))
    np.testing.assert_array_equal(again.normalize("ramp", values), norm.normalize("ramp", values))
    document = json.loads(norm.to_json())
    del document["fields"]["ramp"]["by_range"]  # as earlier releases wrote it
    (tmp_path / "normalizer.json").write_text(json.dumps(document))
    assert Normalizer.load(tmp_path)["ramp"].by_range == ()


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("version",), 99, r"version \('foundry-normalizer', 99\)"),
        (("format",), None, "format and version"),
        (("fields",), None, "damaged"),
        (("fields", "ramp", "centre", 0, 1), float("-inf"), "'ramp': .*not finite"),
        (("fields", "ramp", "centre", 0, 1), None, "'ramp': .*not finite"),
        (("fields", "ramp", "scale", 2, 0), float("nan"), "'ramp': .*not finite"),
        (("fields", "ramp", "scale", 2, 0), 0.0, "'ramp': a scale is 0"),
        (("fields", "ramp", "scale", 2, 0), -2.0, "'ramp': a scale is -2"),
        (("fields", "ramp", "scale"), [1.0, 1.0], r"'ramp': centre \(3, 2\) and scale \(2,\)"),
        (("fields", "ramp", "centre", 1), [1.0], "damaged"),
        (("fields", "ramp", "past"), 3, "'ramp': the anchor lies at step 3"),
        (("fields", "ramp", "past"), 0.5, r"'ramp': the anchor lies at step 0\.5"),
        (("fields", "ramp", "clip"), 0.0, r"'ramp': the clip is 0\.0"),
        (("fields", "ramp", "clip"), float("nan"), "'ramp': the clip is nan"),
    ],
)
def test_what_normalises_nothing_is_refused(
    stats: DatasetStatistics, tmp_path: Path, where: tuple, value: object, message: str
) -> None:
    document = json.loads(Normalizer.from_statistics(stats, ["ramp"]).to_json())
    *way, last = where
    place = document
    for key in way:
        place = place[key]
    place[last] = value
    (tmp_path / "normalizer.json").write_text(json.dumps(document))
    with pytest.raises(FoundryError, match=message):
        Normalizer.load(tmp_path)
