"""Raw fields to canonical ones: known values, every ready mapping, and what is refused."""

import numpy as np
import pytest

from foundry_core.config.canonical import canonical
from foundry_core.config.validation import validate
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, DataContract
from foundry_core.data.images import encode_jpeg
from foundry_core.data.mapping.apply import mapped, raw_fields
from foundry_core.data.mapping.config import (
    AnyMapping,
    RobotMapping,
    load_mapping,
    mapping_names,
    relative_poses,
)
from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.robot.rotations import from_matrix, to_matrix
from foundry_core.errors import FoundryError
from foundry_core.pipeline.reasons import config_changes

HERE, GOAL = "robot__actual__poses__right::panda", "robot__action__poses__right::panda"
HAND = "robot__action__grippers__right::panda_hand"


def episode(length=3, images=None, **lowdim) -> Episode:
    fields = {name: np.asarray(values, np.float64) for name, values in lowdim.items()}
    return Episode(
        id="e", task="t", hz=10, success=None, instructions={}, lowdim=fields, images=images or {}
    )


def mapping(**parts) -> RobotMapping:
    return validate(RobotMapping, parts, "mapping")


def absolute(form="axis_angle", end=6, **more):
    return {
        "xyz": {"from": "state", "dims": [0, 3], **more},
        "rotation": {"from": "state", "dims": [3, end], "form": form},
    }


def test_slices_units_and_forms_become_metres_and_two_rows():
    quarter = [0, 0, 90]
    raw = episode(state=[[100, 200, 300, *quarter]] * 3)
    pose = absolute("euler_xyz", unit="mm")
    pose["rotation"]["unit"] = "deg"
    found = mapped(raw, mapping(poses={HERE: pose})).lowdim
    np.testing.assert_allclose(found[f"{HERE}__xyz"], [[0.1, 0.2, 0.3]] * 3)
    np.testing.assert_allclose(found[f"{HERE}__rot_6d"], [[0, -1, 0, 1, 0, 0]] * 3, atol=1e-12)


def test_a_pose_that_is_one_matrix_laid_flat():
    """Known: 90 degrees about z, at (100, 200, 300) mm; alone, and behind other numbers."""
    flat = [0, -1, 0, 100, 1, 0, 0, 200, 0, 0, 1, 300, 0, 0, 0, 1]
    whole = {"from": "pose", "form": "pose_4x4"}
    for dims, raw in ((None, flat), ([2, 18], [7, 7, *flat])):
        part = whole | ({"dims": dims} if dims else {})
        made = mapping(poses={HERE: {"xyz": {**part, "unit": "mm"}, "rotation": part}})
        found = mapped(episode(pose=[raw] * 2), made).lowdim
        np.testing.assert_allclose(found[f"{HERE}__xyz"], [[0.1, 0.2, 0.3]] * 2)
        np.testing.assert_allclose(found[f"{HERE}__rot_6d"], [[0, -1, 0, 1, 0, 0]] * 2, atol=1e-12)
        back = raw_fields(found, {}, made)["pose"]
        np.testing.assert_allclose(back[0, -16:], flat, atol=1e-9)
    columns = np.reshape(flat, (4, 4)).T.ravel()
    with pytest.raises(UnusableEpisode, match=r"'pose' at step 0 ends in \[100.0, 200.0, 300.0"):
        mapped(episode(pose=[columns]), mapping(poses={HERE: {"xyz": whole, "rotation": whole}}))
    nine = {"xyz": whole, "rotation": {"from": "pose", "form": "matrix"}}
    with pytest.raises(UnusableEpisode, match="are not 9") as refused:
        mapped(episode(pose=[flat]), mapping(poses={HERE: nine}))
    assert "pose_4x4" in refused.value.hint


def test_a_form_of_positions_leaves_older_keys_alone():
    part = canonical(mapping(poses={HERE: absolute()}))["poses"][HERE]["xyz"]
    assert part == {"source": "state", "dims": [0, 3], "scale": 1, "unit": "m"}


@pytest.mark.parametrize("axes", ["world", "hand"])
def test_a_step_ends_where_the_controller_would_aim(axes):
    """From (1, 2, 3), turned by 90 degrees about z: 0.5 along x of the world, or of the hand."""
    raw = episode(state=[[1, 2, 3, 0, 0, np.pi / 2]], actions=[[0.5, 0, 0, 0, 0, np.pi / 2]])
    step = {
        "xyz": {"from": "actions", "dims": [0, 3]},
        "rotation": {"from": "actions", "dims": [3, 6], "form": "axis_angle"},
        "delta": {"of": HERE, "axes": axes},
    }
    found = mapped(raw, mapping(poses={GOAL: step, HERE: absolute()})).lowdim
    where = {"world": [1.5, 2, 3], "hand": [1, 2.5, 3]}[axes]
    np.testing.assert_allclose(found[f"{GOAL}__xyz"], [where], atol=1e-12)
    np.testing.assert_allclose(found[f"{GOAL}__rot_6d"], [[-1, 0, 0, 0, -1, 0]], atol=1e-12)


def test_turns_of_the_world_and_of_the_hand_differ():
    generator = np.random.default_rng(0)
    state = np.concatenate([np.zeros((4, 3)), generator.normal(size=(4, 3))], axis=1)
    step = np.concatenate([np.zeros((4, 3)), 0.3 * generator.normal(size=(4, 3))], axis=1)
    start, turn = to_matrix(state[:, 3:], "axis_angle"), to_matrix(step[:, 3:], "axis_angle")
    for axes, wanted in (("world", turn @ start), ("hand", start @ turn)):
        delta = {
            "xyz": {"from": "actions", "dims": [0, 3]},
            "rotation": {"from": "actions", "dims": [3, 6], "form": "axis_angle"},
            "delta": {"of": HERE, "axes": axes},
        }
        poses = {HERE: absolute(), GOAL: delta}
        found = mapped(episode(state=state, actions=step), mapping(poses=poses)).lowdim
        rows = from_matrix(wanted, "rot6d_rows")
        np.testing.assert_allclose(found[f"{GOAL}__rot_6d"], rows, atol=1e-12)


@pytest.mark.parametrize(
    ("closed", "open_", "raw", "wanted"),
    [(1, -1, [1, -1, 0], [0, 1, 0.5]), (1, 0, [0, 1, 0.25], [1, 0, 0.75]), (0, 0.04, [0.05], [1])],
)
def test_a_gripper_is_open_at_one_whatever_its_sense(closed, open_, raw, wanted):
    value = {"from": "grip", "quantity": "gripper", "closed": closed, "open": open_}
    found = mapped(episode(grip=np.array(raw)[:, None]), mapping(fields={HAND: value}))
    np.testing.assert_allclose(found.lowdim[HAND][:, 0], wanted)


def test_cameras_are_renamed_and_swapped_only_when_looked_at():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    frames = [encode_jpeg(red, 100), b"never decoded"]
    made = mapping(
        cameras={"wrist": {"from": "cam", "bgr": True}, "scene": {"from": "cam", "rotate": 180}},
        fields={"robot__actual__x": {"from": "x"}},
    )
    found = mapped(episode(images={"cam": frames, "other": []}, x=[1, 2]), made)
    assert list(found.images) == ["wrist", "scene"]
    assert found.images["wrist"][0][0, 0].tolist() == [0, 0, 200]
    assert found.images["scene"][1] == b"never decoded"
    assert made.rotate == {"scene": 180}


def test_words_and_success_come_from_the_mapping_where_the_data_have_none():
    made = mapping(instruction="push", success=True, hz=9.98, fields={"a": {"from": "x"}})
    found = mapped(episode(x=[1, 2]), made)
    assert (found.instructions, found.success, found.hz) == ({"original": ["push"]}, True, 9.98)


@pytest.mark.parametrize(("hz", "fits"), [(8, True), (12.5, True), (7.9, False), (30, False)])
def test_a_rate_that_is_not_the_recordings_is_refused_with_both(hz, fits):
    """Before an episode is read where the source states it, else with the episode."""
    made, raw = mapping(hz=hz, fields={"a": {"from": "x"}}), DataContract(hz=10)
    assert made.contract(DataContract()).hz == hz  # nobody knows better
    if fits:
        assert made.contract(raw).hz == mapped(episode(x=[1, 2]), made).hz == hz
        return
    message = f"hz of the mapping is {hz:g}, the source states 10 Hz"
    with pytest.raises(FoundryError, match=message) as refused:
        made.contract(raw)
    assert "hz: 10" in refused.value.hint
    with pytest.raises(UnusableEpisode, match=message):
        mapped(episode(x=[1, 2]), made)


BAD = {
    "a field that is not there": ({"fields": {"a": {"from": "stat"}}}, "no field 'stat'.*'state'"),
    "too few dims": ({"fields": {"a": {"from": "state", "dims": [4, 9]}}}, r"\[4, 9\).*has 6"),
    "a position of two": (
        {"poses": {HERE: {**absolute(), "xyz": {"from": "state", "dims": [0, 2]}}}},
        "are not 3",
    ),
    "no rotation": ({"poses": {HERE: absolute("quaternion_xyzw", 7)}}, r"\[3, 7\).*has 6"),
    "a camera that is not there": ({"cameras": {"a": {"from": "cam"}}}, "no camera 'cam'"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_the_data_lack_is_one_unusable_episode(what):
    parts, message = BAD[what]
    with pytest.raises(UnusableEpisode, match=message):
        mapped(episode(state=np.ones((2, 6))), mapping(**parts))


REFUSED = {
    "a step from nowhere": (
        {"poses": {GOAL: {**absolute(), "delta": {"of": HERE}}}},
        "no absolute pose",
    ),
    "dims the wrong way": ({"fields": {"a": {"from": "x", "dims": [3, 3]}}}, "first below end"),
    "a gripper without ends": (
        {"fields": {"a": {"from": "x", "quantity": "gripper"}}},
        "`closed` and `open`",
    ),
    "joints in metres": (
        {"fields": {"a": {"from": "x", "quantity": "joints", "unit": "m"}}},
        "unit 'm' does not fit joints: say rad or deg .*slides is a field of its own",
    ),
    "a unit that there is not": ({"fields": {"a": {"from": "x", "unit": "inch"}}}, "none of m, mm"),
    "a position in radians": ({"poses": {HERE: absolute(unit="rad")}}, "'m', 'cm' or 'mm'"),
    "a quaternion in degrees": (
        {
            "poses": {
                HERE: {
                    "xyz": {"from": "p"},
                    "rotation": {"from": "q", "form": "quaternion_xyzw", "unit": "deg"},
                }
            }
        },
        "unit 'deg' does not fit quaternion_xyzw.*axis_angle and euler_xyz",
    ),
    "an unknown key": ({"camera": {}}, "did you mean 'cameras'"),
    "a key of a part": (
        {"fields": {"a": {"from": "x", "zzzz": 1}}},
        "'mapping.fields.a.zzzz'.*valid: closed, dims, from, open, quantity, scale, unit",
    ),
    "what is written `from`": ({"cameras": {"a": {"form": "x"}}}, "did you mean 'from'"),
    "a part of a pose": (
        {"poses": {HERE: {"xyz": {"from": "p", "zzzz": 1}, "rotation": {"from": "q"}}}},
        "xyz.zzzz'.*valid: dims, form, from, scale, unit",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_mapping_is_checked_before_anything_is_read(what):
    parts, message = REFUSED[what]
    with pytest.raises(FoundryError, match=message):
        mapping(**parts)


@pytest.mark.parametrize("name", mapping_names())
def test_ready_mappings_are_whole(name):
    """Each makes targets for a policy, and states what they are."""
    made = validate(RobotMapping, load_mapping(name), name)
    contract = made.contract(DataContract())
    assert contract.hz
    assert contract.cameras
    commanded = {field for field in contract.fields if field.startswith("robot__action__")}
    assert commanded
    for group in relative_poses(contract.fields):
        assert group.reference.startswith("robot__actual__poses__")
    grippers = [one for one in contract.fields.values() if one.quantity == "gripper"]
    # LBM's stay what their source states.
    ends = (None, None) if name.startswith("lbm") else (0, 1)
    assert all((one.closed, one.open) == ends for one in grippers)


def test_a_change_is_named_as_a_document_writes_it():
    """In the reasons of a plan: `from`, not the attribute."""
    before, after = (mapping(fields={"a.b": {"from": raw, "scale": 2}}) for raw in ("x", "y"))
    (reason,) = config_changes("robot.mapping", canonical(before), canonical(after), after)
    assert reason.sentence() == "robot.mapping.fields.a.b.from: x → y"
    both = config_changes("m", canonical(before), canonical(mapping()), mapping())
    assert [one.path for one in both] == ["m.fields.a.b"]


def test_a_ready_mapping_has_two_spellings():
    assert load_mapping("mappings/droid") == load_mapping("droid")
    with pytest.raises(FoundryError, match=r"no mapping 'mappings/driod'.*mean 'droid'"):
        load_mapping("mappings/driod")


def test_units_fit_quantities():
    """A sliding joint is `other`; a gripper's raw unit is gone with its scale."""
    fits = [("joints", "deg"), ("joints", ""), ("other", "m"), ("other", "rad")]
    for quantity, unit in fits:
        mapping(fields={"a": {"from": "x", "quantity": quantity, "unit": unit}})
    for unit in ("", "mm", "rad"):
        grip = {"from": "x", "quantity": "gripper", "unit": unit, "closed": 0, "open": 80}
        meant = mapping(fields={"a": grip}).contract(DataContract()).fields["a"]
        assert meant == FieldContract(quantity="gripper", closed=0, open=1)
    for quantity, unit in (("joints", "cm"), ("position", "deg")):
        with pytest.raises(ValueError, match=f"unit '{unit}' does not fit {quantity}"):
            FieldContract(quantity=quantity, unit=unit)


def test_a_contract_renames_cameras_and_keeps_what_is_known_of_them():
    raw = DataContract(hz=10, cameras={"cam": CameraContract(drawn=(8, 8))})
    made = mapping(cameras={"wrist": {"from": "cam"}}, poses={HERE: absolute(unit="cm")})
    contract = made.contract(raw)
    assert contract.cameras == {"wrist": CameraContract(drawn=(8, 8))}
    assert contract.fields[f"{HERE}__xyz"] == FieldContract(dims=3, quantity="position", unit="m")


def test_a_name_stands_for_what_the_mapping_holds(tmp_path):
    libero = validate(AnyMapping, "libero", "mapping")
    assert libero == validate(RobotMapping, load_mapping("libero"), "mapping")
    own = tmp_path / "mine.yaml"
    own.write_text("include: mappings/libero\nhz: 7\n")
    assert validate(AnyMapping, str(own), "mapping") == libero.model_copy(update={"hz": 7})
    with pytest.raises(FoundryError, match="did you mean 'libero'"):
        validate(AnyMapping, "libro", "mapping")
    with pytest.raises(FoundryError, match="no mapping file"):
        validate(AnyMapping, str(tmp_path / "other.yaml"), "mapping")


def test_two_rows_stay_to_the_bit_where_they_are_orthonormal():
    """Also rounded ones; others become the rows of the rotation that they stand for."""
    rng = np.random.default_rng(4)
    matrix, _ = np.linalg.qr(rng.normal(size=(50, 3, 3)))
    rows = matrix[:, :2].reshape(-1, 6)
    pose = {"xyz": {"from": "p"}, "rotation": {"from": "r", "form": "rot6d_rows"}}
    given = mapping(poses={"arm": pose})
    for stored in (rows, rows.astype(np.float32).astype(np.float64)):
        raw = episode(p=np.zeros((50, 3)), r=stored)
        assert np.array_equal(mapped(raw, given).lowdim["arm__rot_6d"], stored)
    raw = episode(p=np.zeros((50, 3)), r=2 * rows)
    np.testing.assert_allclose(mapped(raw, given).lowdim["arm__rot_6d"], rows, atol=1e-12)


def test_what_keeps_its_name_means_what_it_meant():
    grip = "robot__actual__grippers__right::panda_hand"
    pose = "robot__actual__poses__right::panda"
    stated = FieldContract(quantity="gripper", unit="m", closed=0, open=0.1)
    placed = FieldContract(dims=3, quantity="position", unit="m", frame="world")
    raw = DataContract(fields={grip: stated, f"{pose}__xyz": placed})
    document = {
        "poses": {
            pose: {
                "xyz": {"from": f"{pose}__xyz"},
                "rotation": {"from": f"{pose}__rot_6d", "form": "rot6d_rows"},
            }
        },
        "fields": {grip: {"from": grip}, "other": {"from": grip}},
    }
    meant = mapping(**document).contract(raw).fields
    assert (meant[grip], meant[f"{pose}__xyz"]) == (stated, placed)
    assert meant["other"] == FieldContract()
    unstated = mapping(**document).contract(DataContract()).fields
    assert unstated[grip] == FieldContract(quantity="gripper")  # what the name says
