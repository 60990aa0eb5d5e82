"""A policy against an exam: each way in which the two have been known to differ in silence is
converted where one conversion is right, and refused with both values where none is."""

import pytest

from foundry_core.data.config import ImageConfig
from foundry_core.data.contract.fields import FieldContract, canonical_field
from foundry_core.data.contract.matching import match
from foundry_core.data.contract.statements import (
    CameraContract,
    DataContract,
    ExamContract,
    PolicyContract,
    policy_contract,
)
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.errors import FoundryError

XYZ, ROT = "robot__actual__poses__right::panda__xyz", "robot__actual__poses__right::panda__rot_6d"
GRIPPER = "robot__actual__grippers__right::panda_hand"
ACTION_XYZ, ACTION_GRIPPER = (
    "robot__action__poses__right::panda__xyz",
    "robot__action__grippers__right::panda_hand",
)
LEFT = [name.replace("right", "left") for name in (ACTION_XYZ, ACTION_GRIPPER)]
METRES = FieldContract(dims=3, quantity="position", unit="m", frame="world")
ROWS = FieldContract(dims=6, quantity="rotation", form="rot6d_rows")
HAND = FieldContract(dims=1, quantity="gripper", closed=0.0, open=0.1)
VIEW = CameraContract(drawn=(64, 64), renderer="MuJoCo")

POLICY = PolicyContract(
    hz=16,
    cameras={"wrist": VIEW},
    observes={XYZ: METRES, ROT: ROWS, GRIPPER: HAND},
    commands={ACTION_XYZ: METRES, ACTION_GRIPPER: HAND},
    ahead=8,
    execute_steps=3,
)
EXAM = ExamContract(
    hz=16,
    cameras={"wrist": VIEW, "scene": VIEW},
    observes={XYZ: METRES, ROT: ROWS, GRIPPER: HAND},
    commands={ACTION_XYZ: METRES, ACTION_GRIPPER: HAND},
)


def fits(policy: PolicyContract = POLICY, exam: ExamContract = EXAM):
    return match(policy, exam, "policy 'vla'", "metaworld")


def changed(side, what, **fields):
    return side.model_copy(update={what: {**getattr(side, what), **fields}})


def field(meaning: FieldContract, **changes) -> FieldContract:
    return FieldContract.model_validate(meaning.model_dump() | changes)


def test_equal_sides_convert_nothing():
    assert fits().notes() == []


REFUSED = {
    "control rate": (
        EXAM.model_copy(update={"hz": 5}),
        r"policy 'vla' acts at 16 Hz, metaworld is controlled at 5 Hz",
    ),
    "state from another frame": (
        changed(EXAM, "observes", **{XYZ: field(METRES, frame="robot base")}),
        r"in the world frame.*in the robot base frame",
    ),
    "absolute taken for delta": (
        changed(EXAM, "commands", **{ACTION_XYZ: field(METRES, steps="delta")}),
        r"position, m, in the world frame \(3 values\).*delta \(3 values\): a change is no target",
    ),
    "state that is not sent": (
        EXAM.model_copy(update={"observes": {XYZ: METRES, ROT: ROWS}}),
        r"observes 'robot__actual__grippers__right::panda_hand', which metaworld does not measure",
    ),
    "a target that is not commanded": (
        changed(EXAM, "commands", robot__action__base=FieldContract(dims=2)),
        r"metaworld takes 'robot__action__base', which policy 'vla' does not command",
    ),
    "joints for a position": (
        changed(EXAM, "commands", **{ACTION_XYZ: FieldContract(dims=7, quantity="joints")}),
        "position.*joints.*not the same quantity",
    ),
    "radians for metres": (
        changed(EXAM, "observes", **{XYZ: field(METRES, quantity="other", unit="rad")}),
        "not the same unit",
    ),
    "another size": (
        changed(EXAM, "commands", **{ACTION_GRIPPER: field(HAND, dims=2)}),
        r"\(1 values\).*\(2 values\): not the same size",
    ),
    "a camera that is not there": (
        EXAM.model_copy(update={"cameras": {"scene": VIEW}}),
        "looks through camera 'wrist'; metaworld shows scene",
    ),
    "pictures drawn at another size": (
        changed(EXAM, "cameras", wrist=CameraContract(drawn=(128, 128), renderer="MuJoCo")),
        "drawn at 64x64, those of metaworld at 128x128",
    ),
    "pictures drawn otherwise": (
        changed(EXAM, "cameras", wrist=CameraContract(drawn=(64, 64), renderer="EGL")),
        "drawn by MuJoCo, those of metaworld by EGL",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_converted_is_refused_with_both_values(what):
    exam, message = REFUSED[what]
    with pytest.raises(FoundryError, match=message) as error:
        fits(exam=exam)
    assert error.value.hint


def test_chunks_longer_than_predicted_are_refused():
    with pytest.raises(FoundryError, match="execute_steps = 16 exceeds the 8 steps"):
        fits(POLICY.model_copy(update={"execute_steps": 16}))


CONVERTED = {
    "rot6d interleaved": (ROT, ROWS, field(ROWS, form="rot6d_rows_interleaved")),
    "rot6d of columns": (ROT, ROWS, field(ROWS, form="rot6d_columns")),
    "euler": (ROT, ROWS, field(ROWS, form="euler_xyz", dims=3)),
    "axis-angle": (ROT, ROWS, field(ROWS, form="axis_angle", dims=3)),
    "wxyz": (ROT, ROWS, field(ROWS, form="quaternion_wxyz", dims=4)),
    "gripper sense": (GRIPPER, HAND, field(HAND, closed=1.0, open=-1.0)),
    "millimetres": (XYZ, METRES, field(METRES, unit="mm")),
}


@pytest.mark.parametrize("what", CONVERTED)
def test_what_has_one_right_answer_is_converted_and_shown(what):
    name, ours, theirs = CONVERTED[what]
    found = fits(exam=changed(EXAM, "observes", **{name: theirs}))
    assert [(one.field, one.source, one.target) for one in found.observations] == [
        (name, theirs, ours)
    ]
    assert found.notes() == [f"{name}: {theirs.text()} → {ours.text()}"]


def test_targets_are_converted_the_other_way():
    exam = changed(EXAM, "commands", **{ACTION_GRIPPER: field(HAND, closed=1.0, open=-1.0)})
    (one,) = fits(exam=exam).targets
    assert (one.source, one.target.open) == (HAND, -1.0)


def test_the_policys_own_chain_of_sizes_is_shown():
    stored = VIEW.model_copy(update={"stored": ImageConfig(size=(48, 48)), "rotated": 180})
    policy = changed(POLICY, "cameras", wrist=stored).model_copy(update={"image_size": (64, 64)})
    assert fits(policy).notes() == [
        "wrist: 64x64 → turned by 180° → 48x48 (center_crop, as its data) → 64x64 (its own input)"
    ]


def test_an_arm_that_some_data_lacked_is_masked_where_the_robot_lacks_it():
    measured = {name.replace("action", "actual"): METRES for name in LEFT}
    policy = changed(POLICY, "commands", **dict.fromkeys(LEFT, METRES))
    policy = changed(policy, "observes", **measured)
    with pytest.raises(FoundryError, match="does not measure"):
        fits(policy)
    found = fits(policy.model_copy(update={"maskable": tuple(LEFT)}))
    assert found.absent == {*LEFT, *measured}


def contract_of(**datasets: DataContract) -> PolicyContract:
    inputs = RobotInputs(cameras=("wrist",), action_fields=(ACTION_XYZ, ACTION_GRIPPER))
    return policy_contract(inputs, 3, datasets)


DATA = DataContract(
    hz=16,
    cameras={"wrist": VIEW},
    fields={**POLICY.observes, **POLICY.commands},
)


def test_a_policy_takes_the_meanings_of_its_data():
    found = contract_of(one=DATA, other=DATA)
    assert found.commands == POLICY.commands
    assert found.cameras == POLICY.cameras
    assert (found.hz, found.ahead, found.maskable) == (16, 8, ())


MIXES = {
    "rates": (DATA.model_copy(update={"hz": 10}), "'one' 16 Hz, 'other' 10 Hz"),
    "gripper senses": (
        changed(DATA, "fields", **{GRIPPER: field(HAND, closed=0.1, open=0.0)}),
        r"closed 0, open 0.1 in dataset 'one'.*closed 0.1, open 0 in 'other'",
    ),
    "stored sizes": (
        changed(
            DATA, "cameras", wrist=VIEW.model_copy(update={"stored": ImageConfig(size=(32, 32))})
        ),
        "'wrist' is converted with stored = .* in 'one' and .*32",
    ),
    "an absent field": (
        DATA.model_copy(update={"fields": {k: v for k, v in DATA.fields.items() if k != XYZ}}),
        "dataset 'other' has no field 'robot__actual__poses__right::panda__xyz'",
    ),
}


@pytest.mark.parametrize("what", MIXES)
def test_data_of_one_mix_mean_one_thing(what):
    other, message = MIXES[what]
    with pytest.raises(FoundryError, match=message):
        contract_of(one=DATA, other=other)


def test_names_of_the_convention_say_what_they_hold():
    assert canonical_field(XYZ).text() == "position, m"
    assert canonical_field(ROT).text() == "rotation, rot6d_rows"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unit": "inch"}, "unit 'inch'"),
        ({"quantity": "rotation"}, "has form None"),
        ({"quantity": "rotation", "form": "axis_angle", "dims": 4}, "axis_angle has 3"),
        ({"quantity": "gripper", "open": 1.0}, "two unequal ends"),
    ],
)
def test_a_field_states_one_meaning(values, message):
    with pytest.raises(ValueError, match=message):
        FieldContract(**values)


def test_as_many_steps_as_are_predicted_may_be_carried_out():
    fits(POLICY.model_copy(update={"execute_steps": 8}))
    with pytest.raises(FoundryError, match="execute_steps = 9 exceeds the 8 steps"):
        fits(POLICY.model_copy(update={"execute_steps": 9}))


def test_an_exam_may_draw_at_the_stored_size_at_once():
    stored = CameraContract(drawn=(128, 128), renderer="MuJoCo", stored=ImageConfig(size=(64, 64)))
    assert fits(changed(POLICY, "cameras", wrist=stored)).notes() == []


def test_what_a_side_does_not_say_is_not_held_against_the_other():
    """An exam without commands masks nothing; one that names no measurements gives them all."""
    maskable = POLICY.model_copy(update={"maskable": (ACTION_XYZ,)})
    assert fits(maskable, EXAM.model_copy(update={"commands": {}})).absent == frozenset()
    assert fits(exam=EXAM.model_copy(update={"observes": {}})).observations == ()
    other = changed(EXAM, "observes", **{XYZ: field(METRES, quantity="other", frame="")})
    assert fits(exam=other).observations == ()


def test_what_the_robot_measures_is_not_masked_with_the_command_that_it_lacks():
    policy = POLICY.model_copy(update={"maskable": (ACTION_XYZ,)})
    exam = EXAM.model_copy(update={"commands": {ACTION_GRIPPER: HAND}})
    assert fits(policy, exam).absent == {ACTION_XYZ}


def test_cameras_of_one_mix_are_turned_alike_and_known_where_they_are_equal():
    turned = changed(DATA, "cameras", wrist=VIEW.model_copy(update={"rotated": 180}))
    with pytest.raises(FoundryError, match="with rotated = 0 in 'one' and 180 in 'other'"):
        contract_of(one=DATA, other=turned)
    wide = changed(DATA, "cameras", wrist=CameraContract(drawn=(64, 96), renderer="EGL"))
    found = contract_of(one=DATA, other=wide).cameras["wrist"]
    assert (found.drawn, found.renderer) == (None, "")


@pytest.mark.parametrize(("turn", "size"), [(0, (2, 3)), (90, (3, 2)), (180, (2, 3))])
def test_a_quarter_turn_swaps_height_and_width(turn, size):
    assert CameraContract(drawn=(2, 3), rotated=turn).size == size


def test_a_command_that_one_dataset_lacks_can_be_masked():
    inputs = RobotInputs(cameras=("wrist",), action_fields=(ACTION_XYZ, ACTION_GRIPPER))
    poorer = DATA.model_copy(
        update={"fields": {k: v for k, v in DATA.fields.items() if k != ACTION_XYZ}}
    )
    datasets = {"one": DATA, "other": poorer}
    assert policy_contract(inputs, 3, datasets, mask_missing=True).maskable == (ACTION_XYZ,)
