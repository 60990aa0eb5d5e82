"""Windows in which nothing moves: which anchors go, by hand; and what a conversion makes of it."""

import json

import numpy as np
import pytest

from foundry_core.data.config import StillConfig, WindowConfig
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.motion import tolerances
from foundry_core.data.convert.still import still_runs
from foundry_core.data.inspection.recompute import dataset_statistics
from foundry_core.data.inspection.validate import validate
from foundry_core.data.loading.config import RobotData
from foundry_core.data.loading.pixels import Room
from foundry_core.data.loading.robot import RobotDataset
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.npy import read_npz
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.data.robot.transforms import RobotTransform
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.robot.demonstrations import Demonstrations
from foundry_core.data.sources.robot.spartan import Spartan
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from tests.data.convert.test_robot import FIELDS, convert, settings, write_episode

XYZ = FieldContract(dims=3, quantity="position", unit="m")
HAND = FieldContract(dims=1, quantity="gripper", closed=0.0, open=1.0)
WINDOW = WindowConfig(past=0, future=2, max_padding_right=2)


def positions(*x):
    values = np.zeros((len(x), 3))
    values[:, 0] = x
    return values


def test_an_anchor_goes_where_its_whole_window_is_still():
    # Moves between the steps 2 and 3, and rests from 3 on: anchors 1 and 2 see the motion, and the
    # windows of 6 and 7 are taken for that of 5.
    values = {"x": positions(0, 0, 0, 1, 1, 1, 1, 1)}
    assert still_runs(values, {"x": XYZ}, WINDOW, StillConfig()) == ((0, 1), (3, 8))
    assert still_runs(values, {"x": XYZ}, WINDOW, StillConfig(keep=1)) == ((4, 8),)
    assert still_runs(values, {"x": XYZ}, WINDOW, StillConfig(keep=2)) == ((5, 8),)
    wide = WindowConfig(past=2, future=2, max_padding_left=2, max_padding_right=2)
    assert still_runs(values, {"x": XYZ}, wide, StillConfig()) == ((5, 8),)


def test_slow_motion_is_motion():
    """Steps below the tolerance add up within a window of three: 0.6 mm each, 1 mm allowed."""
    values = {"x": positions(*(0.0006 * np.arange(6)))}
    assert still_runs(values, {"x": XYZ}, WINDOW, StillConfig()) == ()
    slower = {"x": positions(*(0.0004 * np.arange(6)))}
    assert still_runs(slower, {"x": XYZ}, WINDOW, StillConfig()) == ((0, 6),)


def test_a_gripper_that_changes_is_motion_whatever_is_watched():
    values = {"x": positions(*[0] * 5), "hand": np.array([0, 0, 0, 1, 1.0])[:, None]}
    chosen = StillConfig(fields=("x",))
    meanings = {"x": XYZ, "hand": HAND}
    assert still_runs(values, meanings, WINDOW, chosen) == ((0, 1),)
    assert tolerances(meanings, chosen) == {"x": 0.001, "hand": 0.01}


def test_tolerances_are_in_the_fields_own_units():
    meanings = {
        "m": XYZ,
        "mm": FieldContract(quantity="position", unit="mm"),
        "deg": FieldContract(quantity="joints", unit="deg"),
        "turn": FieldContract(dims=6, quantity="rotation", form="rot6d_rows"),
        "wide": FieldContract(quantity="gripper", unit="m", closed=0.0, open=0.08),
        "force": FieldContract(quantity="other"),
    }
    found = tolerances(meanings, StillConfig(tolerance={"m*": 2.0, "mm": 3.0}))
    assert found == pytest.approx(
        {"m": 2, "mm": 3, "deg": 0.5729578, "turn": 0.01, "wide": 0.0008}, rel=1e-6
    )


def test_rotations_move_by_their_angle():
    def about_z(*degrees):
        a = np.deg2rad(degrees)
        zero = np.zeros_like(a)
        return np.stack([np.cos(a), -np.sin(a), zero, np.sin(a), np.cos(a), zero], axis=1)

    meaning = {"r": FieldContract(dims=6, quantity="rotation", form="rot6d_rows")}
    for allowed, runs in ((0.0523, ()), (0.0524, ((0, 4),))):  # 3 degrees are 0.05236
        still = StillConfig(tolerance={"r": allowed})
        assert still_runs({"r": about_z(0, 3, 0, 0)}, meaning, WINDOW, still) == runs
    turned = {"r": FieldContract(dims=3, quantity="rotation", form="euler_xyz", unit="deg")}
    for allowed, runs in ((2.9, ()), (3.1, ((0, 4),))):
        values = np.array([[0, 0, 0], [0, 0, 3], [0, 0, 0], [0, 0, 0.0]])
        assert (
            still_runs({"r": values}, turned, WINDOW, StillConfig(tolerance={"r": allowed})) == runs
        )


def test_a_step_that_is_no_change_is_still():
    """Targets that are steps rest at 0, not at any constant."""
    meaning = {"d": FieldContract(dims=3, quantity="position", unit="m", steps="delta")}
    assert still_runs({"d": positions(0, 0, 0, 0.1, 0.1)}, meaning, WINDOW, StillConfig()) == (
        (0, 1),
    )


@pytest.mark.parametrize(
    ("meanings", "still", "message"),
    [
        ({"x": XYZ}, {"fields": ("y",)}, "'y' is not stored"),
        ({"f": FieldContract()}, {}, "no stored field is known to be a position"),
        ({"f": FieldContract()}, {"fields": ("f",)}, "how far 'f' may move .* not known"),
        ({"x": XYZ}, {"tolerance": {"z*": 1}}, r"'z\*' is none of the watched fields x"),
    ],
)
def test_refusals(meanings, still, message):
    with pytest.raises(FoundryError, match=message):
        tolerances(meanings, StillConfig(**still))


@pytest.fixture
def resting(tmp_path):
    """Three episodes of 6, 9 and 12 steps; the second rests from step 3 on."""
    root = tmp_path / "demos"
    write_episode(root, 0)
    write_episode(root, 1, length=9, rest_from=3)
    write_episode(root, 2, length=12)
    (root / "demos.json").write_text("{}")
    return Demonstrations(path=str(root))


TOLERANCE = {"*grippers*": 0.001}


@pytest.mark.parametrize("layout", ["episode", "sample"])
def test_a_conversion_leaves_them_out_and_says_how_many(resting, tmp_path, layout):
    out = tmp_path / "out"
    out.mkdir()
    still = StillConfig(tolerance=TOLERANCE)
    # Windows of 4 steps: anchors 3..8 of the second episode are still, 27 - 6 stay.
    metrics = convert(resting, out, layout=layout, still=still)
    assert metrics["windows"] == 21
    report = json.loads((out / "report.json").read_text())
    assert (report["anchors_seen"], report["anchors_still"]) == (27, 6)
    stored = ShardSet(out)
    assert len(stored) == (3 if layout == "episode" else 21)
    if layout == "episode":
        assert len(read_npz(stored.members(1)["lowdim.npz"])[FIELDS[0]]) == 9
        assert json.loads(bytes(stored.member(1, "metadata.json")))["left_out"] == [[3, 9]]
    assert validate(out, samples=0)["findings"] == []
    kept, again = DatasetStatistics.load(out), dataset_statistics(out)
    # At step 3 of the window the last three anchors of each moving episode are padded.
    for count in (kept.fields[FIELDS[0]].count, again.fields[FIELDS[0]].count):
        assert count.tolist() == [21, 19, 17, 15]


def test_the_loader_gives_the_windows_that_are_left(resting, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    convert(resting, out, still=StillConfig(tolerance=TOLERANCE, keep=1))
    inputs = RobotInputs(
        cameras=("scene",), horizon=4, proprio_fields=FIELDS[:1], action_fields=FIELDS[3:4]
    )
    statistics = DatasetStatistics.load(out)
    config = RobotData(inputs=inputs, normalization={"mode": "identity"})
    normalizer = Normalizer.from_statistics(statistics, inputs.fields, config.normalization)
    tokenizer = Tokenizer.train(["some text"], 258)
    tokenizer.add_special(IMAGE)
    tokenizer.add_special(OBS)
    dataset = RobotDataset(
        CheckedShards(out),
        config,
        RobotTransform(inputs, normalizer, tokenizer, 1),
        train=False,
        room=Room(0),
        window_bytes=1 << 20,
    )
    assert len(dataset) == 6 + 4 + 12
    whole = read_npz(ShardSet(out).members(1)["lowdim.npz"])[FIELDS[3]]
    for number, anchor in enumerate((0, 1, 2, 3)):  # 3 is the one that is kept of the rest
        sample = dataset.read(6 + number, 0)
        np.testing.assert_allclose(sample["actions"], whole[anchor : anchor + 4], atol=1e-6)


def test_lbm_episodes_rest_nowhere_by_default_and_everywhere_by_a_metre(shared_data, tmp_path):
    source = Spartan(path=str(shared_data / "lbm_raw" / "tasks" / "PutMugOnSaucer"))
    cameras, counts = ("scene_right_0",), {}
    for name, allowed in (("default", {}), ("metre", {"*": 10.0})):
        out = tmp_path / name
        out.mkdir()
        contract = source.contract().converted(cameras, FIELDS, settings().image, {})
        made = {"contract": contract, "cameras": cameras, "groups": ()}
        still = StillConfig(tolerance=allowed, keep=1)
        counts[name] = convert(source, out, still=still, **made)["windows"]
    assert counts == {"default": 20 + 12, "metre": 2}
