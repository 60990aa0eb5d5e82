"""Weights of windows: from a field of the data and by rules, in both layouts, mixed too."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from foundry_core.config.validation import validate as checked
from foundry_core.data.config import ImageConfig, Shuffle, StillConfig, WeightRule
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.convert.weights import applies, runs_of, step_weights
from foundry_core.data.inspection.validate import validate
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.mapping.config import RobotMapping
from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.robot.demonstrations import Demonstrations
from foundry_core.errors import FoundryError
from tasks.convert_robot import ConvertRobot
from tests.data.convert.test_robot import FIELDS, convert, write_episode


def episode(length=4, weight=None, success=None, task="pour", hz=2.0, **lowdim):
    fields = {"state": np.zeros((length, 2))} | lowdim
    return Episode(
        id="e", task=task, hz=hz, success=success, instructions={}, lowdim=fields, images={},
        weight=None if weight is None else np.array(weight, np.float64),
    )  # fmt: skip


def test_factors_of_all_rules_that_apply():
    rules = [
        WeightRule(weight=0.5, success="unknown"),
        WeightRule(weight=0.5, longer_than_s=1.9),
        WeightRule(weight=9, shorter_than_s=2.0),
        WeightRule(weight=9, task="wipe*"),
    ]
    found = step_weights(episode(weight=[1, 2, 0, 0.1]), "lab/0", rules)
    assert found.tolist() == [0.25, 0.5, 0, 0.025]
    assert step_weights(episode(), "lab/0", rules).tolist() == [0.25] * 4
    assert step_weights(episode(), "lab/0", []) is None


def test_a_weight_beyond_what_shares_can_tell_is_an_unusable_episode():
    with pytest.raises(UnusableEpisode, match="the weight 2e-10 at step 1, with the factors"):
        step_weights(episode(weight=[1, 2e-10, 1, 1]), "lab/0", [])
    tiny = [WeightRule(weight=1e-6, success="unknown")] * 2
    with pytest.raises(UnusableEpisode, match="the weight 1e-12 at step 0"):
        step_weights(episode(), "lab/0", tiny)
    assert step_weights(episode(weight=[0, 1, 1, 1]), "lab/0", []).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"success": False}, False),
        ({"success": True}, True),
        ({"success": "unknown"}, False),
        ({"task": "pour*"}, True),
        ({"source": "lab_b/*"}, True),
        ({"source": "lab_a/*"}, False),
        ({"longer_than_s": 2.0}, False),  # it is of 2 s
        ({"shorter_than_s": 2.0}, False),
        ({"shorter_than_s": 2.1, "task": "pour tea"}, True),
        ({"shorter_than_s": 2.1, "task": "wipe"}, False),
    ],
)
def test_which_episodes_a_rule_is_of(rule, wanted):
    of = WeightRule(weight=0.5, **rule)
    assert applies(of, episode(success=True, task="pour tea"), "lab_b/7") is wanted


@pytest.mark.parametrize("rule", [{"weight": 1}, {"weight": -1, "task": "x"}, {"task": "x"}])
def test_rules_that_say_nothing_are_refused(rule):
    with pytest.raises(ValidationError):
        WeightRule(**rule)


def test_weights_keep_two_digits():
    found = step_weights(episode(weight=[0.9, 1 / 3, 12.345, 0.00449]), "", [])
    assert found.tolist() == [0.9, 0.33, 12, 0.0045]
    assert runs_of([1, 1, 0.5, 1]) == [(2, 1.0), (1, 0.5), (1, 1.0)]


@pytest.mark.parametrize(
    ("weight", "words"),
    [([1, -1, 1, 1], "weight -1.0 at step 1"), ([1, 1, np.nan, 1], "weight nan at step 2")],
)
def test_weights_that_are_none_make_the_episode_unusable(weight, words):
    with pytest.raises(UnusableEpisode, match=words):
        step_weights(episode(weight=weight), "", [])


def test_a_mapping_names_the_field():
    mapping = checked(RobotMapping, {"weight": {"from": "quality", "dims": [1, 2]}}, "mapping")
    raw = episode(quality=np.array([[9, 0.0], [9, 1], [9, 2], [9, 3]]))
    assert mapped(raw, mapping).weight.tolist() == [0, 1, 2, 3]
    with pytest.raises(UnusableEpisode, match="no field 'quality'"):
        mapped(episode(), mapping)
    two = checked(RobotMapping, {"weight": {"from": "state"}}, "mapping")
    with pytest.raises(UnusableEpisode, match="are not 1"):
        mapped(raw, two)


def test_failures_that_are_left_out_have_no_weight():
    recipe = {"mapping": "libero", "source": {"format": "libero_hdf5", "path": "x"}}
    recipe["weights"] = [{"success": False, "weight": 0.2}]
    with pytest.raises(FoundryError, match="keep_failures: true"):
        ConvertRobot.check(checked(ConvertRobot.Recipe, recipe, "recipe"), {})


@pytest.fixture
def demos(tmp_path):
    """Seven of 6 steps, the third a failure."""
    root = tmp_path / "demos"
    for number in range(7):
        write_episode(root, number, success=number != 2)
    (root / "demos.json").write_text("{}")
    return Demonstrations(path=str(root))


GRIPPER = FIELDS[2]
RULES = (
    WeightRule(weight=0.0, source="*file_001*"),
    WeightRule(weight=0.25, success="false"),
)


def weighted_mapping():
    """Fields and camera as they are; each window weighs what its gripper's number is, in size."""
    keep = {name: {"from": name} for name in FIELDS}
    document = {"fields": keep, "cameras": {"scene": {"from": "scene"}}}
    return checked(RobotMapping, document | {"weight": {"from": "w"}}, "mapping")


class Numbered(Demonstrations):
    """With a raw field that counts the steps."""

    def read_episode(self, ref):
        found = super().read_episode(ref)
        vars(found)["lowdim"] = {**found.lowdim, "w": np.arange(6.0)[:, None]}
        return found


def expected():
    """Of the windows in order, by hand: 0..5 per episode, times 0 and 0.25."""
    factors = np.array([1, 0, 0.25, 1, 1, 1, 1])
    # 1.25 keeps two digits.
    return [float(f"{x:.1e}") for x in np.outer(factors, np.arange(6)).ravel()]


def spread(folder):
    runs = json.loads((folder / "dataset.json").read_text())["weights"]
    return [weight for count, weight in runs for _ in range(count)]


@pytest.mark.parametrize("layout", ["episode", "sample"])
def test_they_reach_the_dataset_from_a_field_and_by_rules(demos, tmp_path, layout):
    source = Numbered(path=demos.path)
    out = tmp_path / "out"
    out.mkdir()
    made = {"mapping": weighted_mapping(), "contract": contract(), "groups": ()}
    convert(source, out, layout=layout, keep_failures=True, weights=RULES, **made)
    assert spread(out) == expected()
    report = json.loads((out / "report.json").read_text())
    assert (report["weight_rule_1"], report["weight_rule_2"]) == (1, 1)
    stored = [json.loads(bytes(ShardSet(out).member(i, "metadata.json"))) for i in range(7)]
    if layout == "episode":
        assert stored[1]["weights"] == [[6, 0.0]]
        assert stored[2]["weights"][0] == [1, 0.0] and stored[2]["weights"][4] == [1, 1.0]
    else:
        assert [one["weight"] for one in stored] == [0, 1, 2, 3, 4, 5, 0]
    assert validate(out, samples=0)["findings"] == []


def test_mixed_samples_keep_their_own(demos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    made = {"mapping": weighted_mapping(), "contract": contract(), "groups": ()}
    convert(
        Numbered(path=demos.path), out, layout="sample", keep_failures=True, weights=RULES,
        shuffle=Shuffle(seed=1, samples_per_shard=16), **made,
    )  # fmt: skip
    shards = ShardSet(out)
    own = [json.loads(bytes(shards.member(i, "metadata.json")))["weight"] for i in range(42)]
    assert spread(out) == own
    assert sorted(own) == sorted(expected()) and own != expected()


def test_anchors_that_are_left_out_take_theirs_along(tmp_path):
    root = tmp_path / "demos"
    write_episode(root, 0)
    write_episode(root, 1, rest_from=2)
    (root / "demos.json").write_text("{}")
    out = tmp_path / "out"
    out.mkdir()
    made = {"mapping": weighted_mapping(), "contract": contract(), "groups": ()}
    still = StillConfig(fields=FIELDS[:1], tolerance={"*": 0.001})
    convert(Numbered(path=str(root)), out, still=still, **made)
    assert spread(out) == [0, 1, 2, 3, 4, 5, 0, 1]


def test_without_weights_nothing_is_said_of_them(demos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    convert(demos, out)
    assert "weights" not in json.loads((out / "dataset.json").read_text())
    assert "weights" not in json.loads(bytes(ShardSet(out).member(0, "metadata.json")))


def test_validate_finds_weights_of_other_windows(demos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    convert(demos, out, weights=(WeightRule(weight=2, task="t"),))
    info = json.loads((out / "dataset.json").read_text())
    assert info["weights"] == [[36, 2.0]]
    (out / "dataset.json").write_text(json.dumps(info | {"weights": [[35, 2.0]]}))
    findings = validate(out, samples=0)["findings"]
    assert findings == [{"where": "dataset.json", "problem": "weights of 35 samples, there are 36"}]


def contract():
    given = weighted_mapping().contract(DataContract())
    return given.converted(("scene",), FIELDS, ImageConfig(), {}, None)
