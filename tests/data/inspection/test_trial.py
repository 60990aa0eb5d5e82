"""`foundry data inspect RAW --check MAPPING`: a mapping tried on one episode."""

import json

import pytest

from flows.cli import main
from tests.lerobot_sets import make_old
from tests.real_data import ABSENT, FORMATS

STATE = "observation.state"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return make_old(tmp_path_factory.mktemp("set") / "set")


@pytest.fixture
def tried(recorded, tmp_path, monkeypatch, capsys):
    """{code, what is printed as JSON, what is said} of a mapping's text."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    (tmp_path / "arm.yaml").write_text("")

    def call(text: str, *words: str, code: int = 0):
        (tmp_path / "arm.yaml").write_text(text)
        check = ["--check", str(tmp_path / "arm.yaml")]
        assert main(["data", "inspect", str(recorded), *check, *words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return call


GOOD = """
cameras: {front: {from: observation.images.front}}
fields:
  robot__actual__joints: {from: observation.state, dims: [1, 3], quantity: joints, unit: deg}
  robot__action__done: {from: next.done, quantity: gripper, closed: 0, open: 1}
"""


def test_what_a_mapping_makes_of_the_first_episode(tried, recorded):
    found = tried(GOOD)
    assert (found["episode"], found["steps"], found["hz"]) == ("episode_000000", 12, 10)
    assert found["cameras"] == {"front": [64, 64]} and found["instructions"][0] == "close"
    joints = found["fields"]["robot__actual__joints"]
    assert [one["name"] for one in joints["dimensions"]] == ["b", "c"]
    raw = tried("fields: {x: {from: observation.state, dims: [1, 2]}}")["fields"]["x"]
    assert joints["dimensions"][0]["high"] == pytest.approx(raw["high"] * 3.141592653589793 / 180)
    assert found["meanings"]["robot__actual__joints"] == "joints, rad"
    assert found["fields"]["robot__action__done"]["values"] == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("images.front", "images.frnt"), "mapping.cameras.front: there is no camera"),
        (("[1, 3]", "[1, 4]"), "mapping.fields.robot__actual__joints: dims [1, 4)"),
        (("cameras", "hz: 30\ncameras"), "hz of the mapping is 30, the source states 10 Hz"),
        (("unit: deg", "unit: m"), "unit 'm' does not fit joints"),
    ],
)
def test_what_does_not_fit_names_the_file_and_the_entry(tried, change, says):
    answer = tried(GOOD.replace(*change), code=2)
    assert "arm.yaml" in answer["error"] and says in answer["error"]
    assert answer["hint"]


def test_poses_are_tried_too(tried):
    pose = "poses: {p: {xyz: {from: observation.state}, rotation: {from: pose, form: %s}}}"
    answer = tried(pose % "quaternion_xyzw")
    assert answer["meanings"]["p__rot_6d"] == "rotation, rot6d_rows"
    answer = tried(pose.replace("from: pose", "from: timestamp") % "euler_xyz", code=2)
    assert "mapping.poses.p.rotation: dims [0, 1) of 'timestamp'" in answer["error"]


def test_a_table_shows_it(recorded, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    (tmp_path / "arm.yaml").write_text(GOOD)
    assert main(["data", "inspect", str(recorded), "--check", str(tmp_path / "arm.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "arm.yaml fits" in shown and "joints, rad" in shown and "0 b" in shown
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("words")
    code = main(["data", "inspect", str(tmp_path / "texts"), "--check", str(tmp_path / "arm.yaml")])
    assert code == 2 and "only robot data" in capsys.readouterr().err


@pytest.mark.skipif(not FORMATS.is_dir(), reason=ABSENT)
def test_a_rate_that_the_format_requires_is_the_mappings(capsys, tmp_path, monkeypatch):
    """RLDS holds none; what -o says goes before it, and a mapping without one is no help."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    look = ["data", "inspect", str(FORMATS / "rlds_droid/tfds"), "--json", "--check"]
    assert main([*look, "droid"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["hz"] == 15 and not any("hz of the mapping" in one for one in found["doubts"])
    assert main([*look, "mappings/droid", "-o", "hz=14"]) == 0
    (said,) = [one for one in json.loads(capsys.readouterr().out)["doubts"] if "hz" in one]
    assert "mapping is 15, the source states 14 Hz" in said
    (tmp_path / "none.yaml").write_text("include: mappings/droid\nhz: null\n")
    assert main([*look, str(tmp_path / "none.yaml")]) == 2
    assert "'source.hz' is required" in capsys.readouterr().out
