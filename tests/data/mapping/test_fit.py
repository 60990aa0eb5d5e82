"""A mapping that does not fit the data is refused before an episode is read, by its entry."""

from dataclasses import replace

import pytest

from foundry_core.config.canonical import canonical
from foundry_core.config.validation import validate
from foundry_core.data.convert.report import Report
from foundry_core.data.mapping.config import AnyMapping, RobotMapping
from foundry_core.data.mapping.fit import check_fit
from foundry_core.data.sources.base import Held
from foundry_core.data.sources.robot.lerobot import Lerobot
from foundry_core.errors import FoundryError
from tasks.convert_robot import ConvertRobot, ConvertRobotRecipe
from tests.lerobot_sets import FPS, make_old

FRONT = "observation.images.front"
STATE = "observation.state"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return make_old(tmp_path_factory.mktemp("set") / "set")


def planned(folder, **recipe):
    source = {"format": "lerobot", "path": str(folder)}
    ConvertRobot.check(validate(ConvertRobotRecipe, {"source": source, **recipe}, "robot"), {})


def test_a_dataset_says_what_it_holds(recorded):
    held = Lerobot(path=str(recorded)).holds()
    assert held is not None
    assert (held.cameras, held.depth) == ((FRONT,), ())
    assert {n: held.dims[n] for n in (STATE, "pose", "timestamp")} == {
        STATE: 3, "pose": 4, "timestamp": 1,
    }  # fmt: skip
    assert held.names == {STATE: ("a", "b", "c")} and "remark" not in held.dims
    assert Lerobot(path="s3://bucket/set").holds() is None


MISFITS = {
    "another rate": ({"hz": 30}, f"hz of the mapping is 30, the source states {FPS} Hz"),
    "a camera": (
        {"cameras": {"front": {"from": "observation.images.frnt"}}},
        f"mapping.cameras.front: there is no camera 'observation.images.frnt'.*mean '{FRONT}'",
    ),
    "depth": (
        {"cameras": {"front": {"from": FRONT, "depth": "deep"}}},
        "mapping.cameras.front: there is no depth 'deep'",
    ),
    "a field": (
        {"fields": {"robot__actual__joints": {"from": "observation.stat"}}},
        f"mapping.fields.robot__actual__joints: there is no field .*mean '{STATE}'",
    ),
    "dims": (
        {"fields": {"a": {"from": STATE, "dims": [2, 4]}}},
        r"mapping.fields.a: dims \[2, 4\) of 'observation.state', which has 3",
    ),
    "a rotation's dims": (
        {"poses": {"p": {"xyz": {"from": STATE}, "rotation": {"from": STATE, "form": "matrix"}}}},
        r"mapping.poses.p.rotation: dims \[0, 3\) .*are not 9",
    ),
    "a weight": ({"weight": {"from": STATE}}, "mapping.weight: .*which has 3, are not 1"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_what_does_not_fit_is_refused_while_planning(recorded, what):
    mapping, message = MISFITS[what]
    fits = {"fields": {"robot__action__x": {"from": STATE}}, "cameras": {"c": {"from": FRONT}}}
    planned(recorded, mapping=fits)
    with pytest.raises(FoundryError, match=message) as refused:
        planned(recorded, mapping={**fits, **mapping})
    assert refused.value.hint


def test_a_file_of_a_mapping_is_named(recorded, tmp_path):
    """And where it was read from is nothing of what it says."""
    file = tmp_path / "arm.yaml"
    file.write_text(f"fields: {{a: {{from: {STATE}, dims: [0, 9]}}}}")
    with pytest.raises(FoundryError, match=rf"^{file}: mapping.fields.a: dims"):
        planned(recorded, mapping=str(file))
    read = validate(AnyMapping, str(file), "mapping")
    held = validate(AnyMapping, read.model_dump(), "mapping")
    assert (read.called, held.called) == (str(file), "")
    assert read == held and canonical(read) == canonical(held)
    file.write_text(f"hz: 30\nfields: {{a: {{from: {STATE}}}}}")
    with pytest.raises(FoundryError, match=rf"^{file}: hz of the mapping is 30"):
        planned(recorded, mapping=str(file))


def test_fields_that_a_recipe_names_are_those_of_the_source(recorded):
    planned(recorded, fields=[STATE])
    with pytest.raises(FoundryError, match=r"the source has no field 'observation.stat'.*mean"):
        planned(recorded, fields=["observation.stat"])


def test_a_mapping_that_fits_is_taken():
    parts = {"fields": {"a": {"from": "x", "dims": [1, 3]}}, "weight": {"from": "w"}}
    mapping = validate(RobotMapping, parts, "mapping")
    held = Held(dims={"x": 3, "w": 1}, names={}, cameras=(), depth=())
    check_fit(mapping, held)
    with pytest.raises(FoundryError, match="there is no field 'w'"):
        check_fit(mapping, replace(held, dims={"x": 3}))


def test_what_all_episodes_lack_is_said_once():
    """And raising max_skipped is no advice then; of single ones it is, each by its name."""
    lacking = "mapping.cameras.front: there is no camera 'frnt' (did you mean 'front'?)"
    report = Report("episodes", 0)
    with pytest.raises(FoundryError, match=r"^3 episodes .*none could be, for one reason") as said:
        report.add(0, [(f"e{n}", lacking) for n in range(3)])
    assert said.value.message.count(lacking) == 1 and "mapping" in said.value.hint
    assert "max_skipped" not in said.value.hint
    own = [(f"e{n}", f"episode 'e{n}' has no camera 'front'") for n in range(3)]
    with pytest.raises(FoundryError, match=r"for one reason: has no camera 'front' "):
        Report("episodes", 1).add(0, own)
    with pytest.raises(FoundryError, match=r"= 0: e0: has no camera 'front'; e1: has") as said:
        Report("episodes", 0).add(1, own)
    assert "raise max_skipped" in said.value.hint
    named = [(f"e{n}", f"e{n}: a film is absent") for n in range(2)]
    with pytest.raises(FoundryError, match=r"= 0: e0: a film is absent; e1: a film"):
        Report("episodes", 0).add(1, named)
    with pytest.raises(FoundryError, match=r"for one reason: a film is absent "):
        Report("episodes", 0).add(0, named)
    with pytest.raises(FoundryError, match=r"= 0: a/e0: episode 'e0' has no camera"):
        Report("episodes", 0).add(1, [("a/e0", own[0][1])])
