"""Rare actions keep their values through normalisation, and a policy can learn them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.robot.coverage import coverage, coverage_notes
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.transform_config import FieldOverride, NormalizationConfig
from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.statistics.dataset import DatasetStatistics, merge_statistics

GRIPPER = "robot__action__grippers__right::panda_hand"
TURN = "robot__action__poses__right::panda__rot_6d_relative"
OLD = NormalizationConfig(sparse="percentile", floor=1e-2)


def stats_of(fields: Mapping[str, np.ndarray], past: int = 0) -> DatasetStatistics:
    """{field: [N, T, D]}"""
    first = next(iter(fields.values()))
    return compute_statistics([("e", fields, np.ones(first.shape[:2], bool))], past=past)


def rare_grip(n: int = 300) -> np.ndarray:
    """[n, 1, 1]: open at 0.1, closed in two steps."""
    values = np.full((n, 1, 1), 0.1)
    values[[n // 3, n // 2]] = 0.0
    return values


def rare_turn(n: int = 2000, noise: float = 0.0) -> np.ndarray:
    """[n, 2, 6]: no turn, but 0.3 rad about z in half a percent of the steps."""
    rng = np.random.default_rng(0)
    angle = noise * rng.normal(size=(n, 2))
    angle[:: n // 10] = 0.3
    zero = np.zeros_like(angle)
    rows = [np.cos(angle), -np.sin(angle), zero, np.sin(angle), np.cos(angle), zero]
    return np.stack(rows, axis=-1)


CASES = {
    "gripper": (GRIPPER, rare_grip()),
    "turn": (TURN, rare_turn()),
    "turn of a sensor with noise": (TURN, rare_turn(noise=1e-3)),
}


@pytest.mark.parametrize("per_timestep", [True, False])
@pytest.mark.parametrize("mode", ["percentile_1_99", "percentile_5_95", "std", "min_max"])
@pytest.mark.parametrize("case", CASES)
def test_rare_values_come_back(case: str, mode: str, per_timestep: bool) -> None:
    name, values = CASES[case]
    config = NormalizationConfig(mode=mode, per_timestep=per_timestep)
    norm = Normalizer.from_statistics(stats_of({name: values}), [name], config)
    normalised = norm.normalize(name, values)
    assert np.abs(normalised).max() <= 1 + 1e-12
    np.testing.assert_allclose(norm.denormalize(name, normalised), values, atol=1e-12)


def test_without_the_rule_they_do_not() -> None:
    grip = Normalizer.from_statistics(stats_of({GRIPPER: rare_grip()}), [GRIPPER], OLD)
    shut = grip.denormalize(GRIPPER, grip.normalize(GRIPPER, np.array([0.0])))
    assert shut == pytest.approx(0.085)
    turn = Normalizer.from_statistics(stats_of({TURN: rare_turn()}), [TURN], OLD)
    turned = turn.denormalize(TURN, turn.normalize(TURN, rare_turn()))
    assert np.abs(turned[..., 3]).max() == pytest.approx(0.015)


def test_what_is_sparse() -> None:
    """Few values, and an atom among many; not a continuum, however it is merged."""
    rng = np.random.default_rng(1)
    cont = rng.normal(size=(4000, 1))
    idle = np.where(rng.random((4000, 1)) < 0.8, 0.0, cont)
    steps = np.concatenate([cont, idle, np.sign(cont)], axis=1)[:, None]
    parts = [stats_of({"x": part}) for part in np.split(steps, 4)]
    field = merge_statistics(parts)["x"]
    assert field.distinct.tolist() == [65, 65, 2]
    assert field.mode_share[1:].tolist() == [
        np.mean(idle == 0),
        max(np.mean(cont > 0), np.mean(cont < 0)),
    ]
    assert field.mode_share[0] < 0.01
    assert merge_statistics(parts[::-1])["x"].to_dict() == field.to_dict()
    rule = Normalizer.from_statistics(merge_statistics(parts), ["x"])["x"]
    assert rule.by_range == (False, True, True)
    assert rule.scale[0].tolist()[1:] == [np.ptp(idle) / 2, 1.0]


def test_old_files_without_the_numbers_still_load(tmp_path: Path) -> None:
    stats = stats_of({GRIPPER: rare_grip(), TURN[:-9]: rare_turn()[:300, :1]})
    stats.save(tmp_path / "stats.json")
    (tmp_path / "stats.leaves.npz").unlink()
    document = json.loads((tmp_path / "stats.json").read_text())
    for entry in document.values():
        for key in ("mode_share", "distinct", "datasets", "discrete"):
            del entry[key]
    (tmp_path / "stats.json").write_text(json.dumps(document))
    old = DatasetStatistics.load(tmp_path)
    assert np.isnan(old[GRIPPER].mode_share).all() and not old[GRIPPER].distinct.any()
    norm = Normalizer.from_statistics(old, [GRIPPER])  # it rests within its floor
    assert norm.normalize(GRIPPER, np.array([[0.0], [0.1]])[:, None]).ravel().tolist() == [-1, 1]


def test_floors_are_in_the_units_of_the_field() -> None:
    still = np.full((50, 1, 1), 5.0)
    names = {
        "arm__xyz": (FieldContract(quantity="position", unit="mm"), 10.0),
        "joint": (FieldContract(quantity="joints", unit="deg"), np.rad2deg(0.01)),
        "move": (FieldContract(quantity="position", unit="m", steps="delta"), 1e-3),
        "hand": (FieldContract(quantity="gripper", closed=-1.0, open=1.0), 1.0),
        "plain": (FieldContract(), 1e-2),
    }
    stats = stats_of(dict.fromkeys(names, still))
    meanings = {name: meaning for name, (meaning, _) in names.items()}
    norm = Normalizer.from_statistics(stats, names, None, meanings)
    for name, (_, floor) in names.items():
        np.testing.assert_allclose(norm[name].scale, floor, err_msg=name)
    given = NormalizationConfig(fields={"arm__xyz": FieldOverride(floor=3.0)})
    assert Normalizer.from_statistics(stats, names, given, meanings)["arm__xyz"].scale == 3.0


def test_shares_outside_the_clip_are_those_of_the_values() -> None:
    """A dimension with few values far out: percentiles lose them, and say so."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(20_000, 2, 3))
    far = rng.random((20_000, 2)) < 0.015
    values[..., 1] = np.where(far, 9.0, 0.1) + 0.1 * values[..., 1]
    values[..., 2] = 7.0
    stats = stats_of({"x": values}, past=1)
    config = NormalizationConfig(mode="percentile_5_95")
    norm = Normalizer.from_statistics(stats, ["x"], config)
    found = coverage(stats, norm)["x"]
    free = Normalizer.from_statistics(stats, ["x"], config.model_copy(update={"clip": None}))
    true = (np.abs(free.normalize("x", values, -1)) > 1.5).mean(axis=(0, 1))
    np.testing.assert_allclose(found.clipped, true, atol=1e-3)
    assert true[1] > 0.014
    assert (found.constant, found.dead) == ((False, False, True), (False, False, True))
    (note,) = [line for line in coverage_notes({"x": found}) if "dimension 1" in line]
    assert note.startswith(f"{true[1]:.1%} of dimension 1 of x lies outside")
    assert coverage(stats, free)["x"].clipped == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("config", "learns"), [(NormalizationConfig(), True), (OLD, False)])
def test_a_small_policy_learns_to_close(config: NormalizationConfig, learns: bool) -> None:
    """The hand closes where the observation says so, in 2 of 300 steps. Regressed through the
    normaliser, targets and outputs alike, as training and serving do."""
    torch.manual_seed(0)
    targets = rare_grip()
    norm = Normalizer.from_statistics(stats_of({GRIPPER: targets}), [GRIPPER], config)
    seen = torch.linspace(-0.2, 0.2, 300)[:, None]
    shut = torch.from_numpy(targets[:, 0] == 0.0)
    seen = torch.cat([seen, shut.float() + 0.05 * torch.randn(300, 1)], dim=1)
    wanted = torch.from_numpy(norm.normalize(GRIPPER, targets)[:, 0]).float()
    policy = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.GELU(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(policy(seen), wanted).backward()
        optimizer.step()
    said = norm.denormalize(GRIPPER, policy(seen).detach().double().numpy()[:, None])[:, 0]
    closed, opened = said[shut.numpy()], said[~shut.numpy()]
    assert opened.min() > 0.08
    assert (closed.max() < 0.02) == learns
