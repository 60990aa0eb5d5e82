"""What may be wrong with the numbers of a conversion is told: a gripper beyond its stroke, a
position in another unit, a rate that two state unlike."""

import html
import json
from dataclasses import replace

import numpy as np
import pytest

from flows.cli import main
from flows.runs.doubted import doubted
from foundry_core.config.validation import validate
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.convert.doubts import Numbers, told, watched
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.mapping.config import RobotMapping
from foundry_core.data.robot.episodes import Episode, UnusableEpisode, check_episode
from tests.lerobot_sets import make_old

HAND, ARM = "robot__action__gripper", "robot__actual__poses__right::arm"
ASIDE = np.array([0, 0.3, 0])


def episode(hz=10.0, **fields):
    lowdim = {name: np.asarray(values, float) for name, values in fields.items()}
    return Episode(
        id="e", task="t", hz=hz, success=None, instructions={}, lowdim=lowdim, images={}
    )  # fmt: skip


def seen(document, *episodes):
    mapping = validate(RobotMapping, document, "mapping")
    fields = mapping.contract(DataContract()).fields
    found = Numbers()
    for one in episodes:
        found.add(watched(one, mapped(one, mapping), mapping, fields))
    return found


def gripper(closed, open_):
    entry = {"from": "g", "quantity": "gripper", "closed": closed, "open": open_}
    return {"fields": {HAND: entry}}


def pose(unit):
    rotation = {"from": "turn", "form": "euler_xyz"}
    return {"poses": {ARM: {"xyz": {"from": "xyz", "unit": unit}, "rotation": rotation}}}


def test_a_gripper_beyond_its_stroke_is_told_by_share_and_range():
    """Of 0 .. 1 in steps of 0.05, all above 0.08 + 2 % of it: 0.10 to 1, which is 19 of 21; of the
    second episode none."""
    raw = np.linspace(0, 1, 21)[:, None]
    found = seen(gripper(0, 0.08), episode(g=raw), episode(g=np.zeros((21, 1))))
    (said,) = found.doubts()
    assert said == (
        f"gripper {HAND}: 45 % of the values lie outside closed 0 .. open 0.08 (found 0 .. 1) and "
        "were clipped: check the mapping's closed and open"
    )
    assert found.clipped() == {HAND: {"values": 42, "outside": 19, "low": 0.0, "high": 1.0}}


def test_a_stroke_has_a_tolerance_of_2_percent_at_both_ends_and_either_way_round():
    for ends in ((0, 1), (1, 0)):
        assert seen(gripper(*ends), episode(g=[[-0.0199], [1.0199]])).doubts() == []
        assert seen(gripper(*ends), episode(g=[[-0.021], [1.021]])).strokes[HAND].outside == 2
    few = seen(gripper(0, 1), episode(g=[[2.0], *[[0.5]] * 999]))
    assert ": 0.1 % of the values" in few.doubts()[0]
    most = seen(gripper(0, 1), episode(g=[[0.5], *[[2.0]] * 999]))
    assert ": more than 99 % of the values" in most.doubts()[0]
    assert ": 100 % of the values" in seen(gripper(0, 1), episode(g=[[2.0]])).doubts()[0]


def test_a_stroke_of_which_a_moving_gripper_uses_little_is_told():
    """Metres under ends in millimetres: 0 to 0.08 of 80. One that never moves is no news."""
    metres = episode(g=[[0.0], [0.08]])
    (said,) = seen(gripper(0, 80), metres).doubts()
    assert said.startswith(
        f"gripper {HAND} moves (from 0 to 0.08) over 0.1 % of its stroke, closed 0 .. open 80: "
    )
    assert seen(gripper(0, 80), episode(g=[[0.08], [0.08]])).doubts() == []
    assert seen(gripper(0, 1), episode(g=[[0.2], [0.2501]])).doubts() == []
    assert len(seen(gripper(1, 0), episode(g=[[0.2], [0.2499]])).doubts()) == 1


def test_infinity_in_a_gripper_is_refused_and_not_clipped():
    document = gripper(0, 1)
    made = mapped(episode(g=[[0.5], [np.inf]]), validate(RobotMapping, document, "mapping"))
    with pytest.raises(UnusableEpisode, match=f"{HAND}' is not finite at step 1"):
        check_episode(made, (), (HAND,))


def test_a_position_in_another_unit_is_told():
    """An arm that moves 0.3 m in all, over two episodes that each rest."""
    metres = np.tile([0.4, 0.0, 0.2], (5, 1))
    both = [episode(xyz=one, turn=np.zeros((5, 3))) for one in (metres, metres + ASIDE)]
    assert seen(pose("m"), *both).doubts() == []
    (said,) = seen(pose("mm"), *both).doubts()
    assert said.startswith(f"position {ARM}__xyz moves by 0.3 mm in all: ")
    thousand = [replace(one, lowdim={**one.lowdim, "xyz": 1000 * metres}) for one in both]
    thousand.append(episode(xyz=1000 * (metres + ASIDE), turn=np.zeros((5, 3))))
    assert seen(pose("mm"), *thousand).doubts() == []
    (said,) = seen(pose("m"), *thousand).doubts()
    assert said.startswith(f"position {ARM}__xyz lies up to 400 m away: ")


def test_a_rate_beside_the_sources_is_told():
    one = {"fields": {"robot__actual__x": {"from": "x"}}, "hz": 12}
    (said,) = seen(one, episode(x=[[1.0]]), episode(hz=11, x=[[1.0]])).doubts()
    assert said.startswith("hz of the mapping is 12, the source states 10 to 11 Hz: the mapping's")
    assert seen(one | {"hz": 10}, episode(x=[[1.0]])).doubts() == []
    assert seen(one | {"hz": None}, episode(x=[[1.0]])).doubts() == []


MAPPING = """
hz: 12
cameras: {front: {from: observation.images.front}}
fields:
  robot__action__gripper:
    {from: observation.state, dims: [0, 1], quantity: gripper, closed: 1000, open: 1001}
"""


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    (tmp_path / "arm.yaml").write_text(MAPPING)
    return make_old(tmp_path / "set")


def test_a_conversion_tells_and_reports(recorded, tmp_path, capsys):
    out, mapping = tmp_path / "out", tmp_path / "arm.yaml"
    words = ["-o", f"mapping={mapping}", "-o", "keep_failures=true"]
    assert main(["data", "convert", "--from", "lerobot", str(recorded), str(out), *words]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["doubts"] == 2
    told_on_console = printed.err.replace("\n", " ")
    assert f"doubt: gripper {HAND}: 100 % of the values lie outside closed 1000" in told_on_console
    assert "doubt: hz of the mapping is 12, the source states 10 Hz" in told_on_console
    report = json.loads((out / "report.json").read_text())
    assert len(report["doubts"]) == 2 and report["doubts"] == told(out.joinpath)
    assert report["clipped"][HAND]["outside"] == report["clipped"][HAND]["values"] > 0
    assert json.loads((out / "dataset.json").read_text())["hz"] == 12


def test_one_episode_tells_too(recorded, tmp_path, capsys):
    check = ["data", "inspect", str(recorded), "--check", str(tmp_path / "arm.yaml")]
    assert main([*check, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["doubts"]
    assert first.startswith(f"gripper {HAND}: 100 %") and second.startswith("hz of the mapping")
    assert main(check) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "fits, with doubts" in shown and "doubt: gripper" in shown


def test_only_what_counts_doubts_is_read(tmp_path):
    class Kept:
        metrics: dict = {"doubts": 0, "validation_doubts": 1}

    class Store:
        def file_path(self, _, name):
            path = tmp_path / name
            return path if path.is_file() else None

    (tmp_path / "validation").mkdir()
    (tmp_path / "report.json").write_text('{"doubts": []}')
    (tmp_path / "validation/report.json").write_text('{"doubts": ["a"]}')
    assert doubted(Store(), Kept()) == ["validation: a"]
    (tmp_path / "validation/report.json").write_text("[")
    assert doubted(Store(), Kept()) == []
    lies = {"doubts": ["\x1b[2J", 7, {}, *("b" for _ in range(30))]}
    (tmp_path / "validation/report.json").write_text(json.dumps(lies))
    said = doubted(Store(), Kept())
    assert said[0] == "validation: \\x1b[2J" and said[1] == "validation: b"
    assert len(said) == 21 and said[-1] == "validation: 11 more in validation/report.json"
    Kept.metrics = {"episodes": 3}
    assert doubted(None, Kept()) == []


def test_a_run_tells_when_it_has_converted_and_at_its_end(recorded, tmp_path, capfd):
    """Of both sides of a split; reused data are told at the end alone."""
    recipe = {
        "source": {"format": "lerobot", "path": str(recorded)},
        "mapping": str(tmp_path / "arm.yaml"),
        "keep_failures": True,
        "split": {"fraction": 0.5, "salt": "b"},  # one of two
    }
    (tmp_path / "arm.pipeline.yaml").write_text(
        json.dumps(
            {"name": "arm", "stages": {"robot": {"kind": "convert_robot", "recipe": recipe}}}
        )
    )
    told_first = "foundry: stage robot: doubt: gripper robot__action__gripper: 100 % of the values"
    for built in (True, False):
        assert main(["run", str(tmp_path / "arm.pipeline.yaml")]) == 0
        said = capfd.readouterr()
        assert (told_first in said.err) is built
        assert "  doubt, robot: gripper robot__action__gripper: 100 %" in said.out
        assert "  doubt, robot: validation: hz of the mapping is 12" in said.out
    run = max((tmp_path / "home" / "runs").iterdir())
    assert main(["report", run.name]) == 0
    page = html.unescape((run / "report.html").read_text())
    assert "<li>robot: doubt: gripper robot__action__gripper: 100 %" in page
