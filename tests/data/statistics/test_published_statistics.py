"""Against statistics that another implementation computed for the same raw episodes."""

import json
from pathlib import Path

import numpy as np
import pytest

from foundry_core.data.config import PoseGroup, WindowConfig
from foundry_core.data.robot.poses import add_relative_fields
from foundry_core.data.robot.windows import anchors, cut_windows
from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.statistics.dataset import DatasetStatistics, merge_statistics

PARTS = (("xyz", 3), ("rot_6d", 6))


def episode_windows(folder: Path, fields: set[str], window: WindowConfig):
    with np.load(folder / "observations.npz", allow_pickle=False) as stored:
        lowdim = {k: np.asarray(stored[k], float) for k in stored.files if k in fields}
    lowdim = {name: values.reshape(len(values), -1) for name, values in lowdim.items()}
    with np.load(folder / "actions.npz", allow_pickle=False) as stored:
        actions, at = stored["actions"], 0
    names = [(f"poses__{side}::panda__{p}", d) for side in ("right", "left") for p, d in PARTS]
    names += [(f"grippers__{side}::panda_hand", 1) for side in ("right", "left")]
    for name, dims in names:
        lowdim[f"robot__action__{name}"] = actions[:, at : at + dims]
        at += dims
    cut, past, future = cut_windows(lowdim, anchors(len(actions), window), window)
    groups = [
        PoseGroup(
            reference=f"robot__actual__poses__{side}::panda",
            poses=tuple(
                f"robot__{kind}__poses__{side}::panda" for kind in ("actual", "desired", "action")
            ),
        )
        for side in ("left", "right")
    ]
    return folder.parent.name, add_relative_fields(cut, window.past, groups), past | future


@pytest.fixture(scope="module")
def both(shared_data: Path) -> tuple[dict, DatasetStatistics]:
    expected = json.loads(
        (shared_data / "lbm_raw" / "expected_stats_past1_future14_pad3_12.json").read_text()
    )
    window = WindowConfig(past=1, future=14, max_padding_left=3, max_padding_right=12)
    folders = sorted((shared_data / "lbm_raw/tasks/PutMugOnSaucer").glob("**/processed"))
    items = [episode_windows(folder, set(expected), window) for folder in folders]
    return expected, compute_statistics(items, past=1)


def test_every_published_number_but_two_conventions(both: tuple[dict, DatasetStatistics]) -> None:
    expected, ours = both
    assert sorted(ours.fields) == sorted(expected)
    for field, entry in expected.items():
        mine = ours[field].to_dict()
        for key, value in entry.items():
            if key == "std" or (key.startswith("percentile") and ours[field].discrete.any()):
                continue
            np.testing.assert_allclose(
                np.array(mine[key], float),
                np.array(value, float),
                atol=1e-12,
                err_msg=f"{field} {key}",
            )


def test_global_std_is_that_of_the_values_not_the_pooled_one(
    both: tuple[dict, DatasetStatistics],
) -> None:
    """The reference pools sample variances per step with weight n, which is 0.2-3 % too wide."""
    expected, ours = both
    for field, entry in expected.items():
        mine, counts = ours[field], np.array(entry["count"])[:, None]
        between = (mine.mean_per_timestep - mine.mean) ** 2
        pooled = np.sqrt((counts * (mine.std_per_timestep**2 + between)).sum(0) / counts.sum())
        np.testing.assert_allclose(pooled, entry["std"], rtol=1e-9, atol=1e-12)
        exact = ((counts - 1) * mine.std_per_timestep**2 + counts * between).sum(0)
        np.testing.assert_allclose(
            mine.std, np.sqrt(exact / (counts.sum() - 1)), rtol=1e-9, atol=1e-12
        )


def test_gripper_quantiles_are_observed_values(both: tuple[dict, DatasetStatistics]) -> None:
    _, ours = both
    field = ours["robot__desired__grippers__right::panda_hand"]
    assert field.discrete.all()
    observed = {c["m"] for c in field.tdigest[0]["centroids"]}
    assert len(observed) == 2
    for table in field.quantiles_per_timestep.values():
        assert set(table.ravel().tolist()) <= observed


def test_a_published_file_can_be_read(shared_data: Path) -> None:
    path = shared_data / "lbm_raw" / "expected_stats_past1_future14_pad3_12.json"
    stats = DatasetStatistics.load(path)
    field = stats["robot__actual__poses__right::panda__xyz"]
    assert field.mean_per_timestep.shape == (16, 3)
    assert field.quantiles[0.01][0] == -0.3
    assert stats.leaves == ()


def test_a_published_file_is_a_leaf_of_a_merge(
    both: tuple[dict, DatasetStatistics], shared_data: Path, tmp_path: Path
) -> None:
    """Moments as they stand; where its config lies beside it, steps are aligned by it."""
    _, ours = both
    published = shared_data / "lbm_raw" / "expected_stats_past1_future14_pad3_12.json"
    (tmp_path / "stats.json").write_bytes(published.read_bytes())
    (tmp_path / "preprocessing_config.yaml").write_text("past_lowdim_steps: 1\n")
    theirs = DatasetStatistics.load(tmp_path)
    again = merge_statistics([theirs])
    assert again.datasets == theirs.datasets and len(again.leaves) == 1
    for name, field in again.fields.items():
        stated, exact = theirs[name], ours[name]
        assert field.past == 1
        for key in ("count", "mean", "std", "min", "max"):
            suffix = "" if key == "count" else "_per_timestep"
            np.testing.assert_allclose(
                getattr(field, key + suffix), getattr(stated, key + suffix), atol=1e-9
            )
        np.testing.assert_allclose(field.std, exact.std, rtol=1e-6, atol=1e-12)
    gripper = "robot__desired__grippers__right::panda_hand"
    assert again[gripper].discrete.all()
    np.testing.assert_allclose(again[gripper].mode_share, ours[gripper].mode_share, atol=0.05)
    merged = merge_statistics({"ours": ours, "theirs": theirs})
    assert merged.windows == 2 * ours.windows
    np.testing.assert_allclose(merged[gripper].mean, ours[gripper].mean, atol=1e-12)


def test_quantiles_of_a_stats_json_without_digests_survive_a_merge(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = [rng.normal(size=(5000, 3)), rng.gamma(2, size=(5000, 3))]
    columns.append(np.where(rng.random((5000, 3)) < 0.005, 0.0, 0.1))
    values = np.stack(columns, axis=-1)
    entry = json.loads(
        compute_statistics([("e", {"x": values}, np.ones((5000, 3), bool))]).to_json()
    )["x"]
    ours = ("tdigest", "discrete", "mode_share", "distinct", "datasets", "percentile_50")
    entry = {key: value for key, value in entry.items() if not key.startswith(ours)}
    (tmp_path / "stats.json").write_text(json.dumps({"x": entry}))
    field = merge_statistics([DatasetStatistics.load(tmp_path)])["x"]
    for q, found in field.quantiles.items():
        for dim in (0, 1):
            rank = np.mean(values[..., dim] <= found[dim])
            assert q == 0.5 or rank == pytest.approx(q, abs=0.003)
        assert found[2] == 0.1
    assert field.discrete.tolist() == [False, False, True]
    assert field.mode_share[2] == pytest.approx(np.mean(values[..., 2] == 0.1), abs=1e-9)
