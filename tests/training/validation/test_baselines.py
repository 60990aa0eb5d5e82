"""What actions that need no training are worth: values worked out by hand."""

import numpy as np
import pytest

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import PolicyContract
from foundry_core.data.robot.normalize import FieldNormalizer, Normalizer
from foundry_core.data.robot.transform_config import IMAGE, OBS, RobotInputs
from foundry_core.data.robot.transforms import RobotTransform
from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.training.validation.actions import ActionRuler
from foundry_core.training.validation.baselines import ActionBaselines

COMMANDED, MEASURED = "robot__action__joints", "robot__actual__joints"
POSE = "robot__{}__poses__arm__{}"
XYZ, ROT = (POSE.format("action", one) + "_relative" for one in ("xyz", "rot_6d"))
DEGREES = FieldContract(dims=2, quantity="joints", unit="deg")
SHOWN = np.array([[1.0, 3.0], [5.0, 7.0]])  # of each step, in two windows; both dimensions alike


def transformed(inputs, rules) -> RobotTransform:
    words = Tokenizer.of_bytes()
    words.add_special(IMAGE)
    words.add_special(OBS)
    return RobotTransform(inputs, Normalizer(rules), words, 1)


def baselines(meaning=DEGREES, measured=DEGREES, *, may_lack=False, **options) -> ActionBaselines:
    """Of a policy that commands two joints and reads them, at two steps; normalised by centre 1 and
    scale 2; trained on SHOWN."""
    inputs = RobotInputs(
        cameras=("c",),
        action_fields=(COMMANDED,),
        horizon=2,
        **{"proprio_fields": (MEASURED,), **options},
    )
    rule = FieldNormalizer(centre=np.ones(2), scale=np.full(2, 2.0), clip=None)
    transform = transformed(inputs, {COMMANDED: rule, MEASURED: rule})
    contract = PolicyContract(
        cameras={},
        observes={MEASURED: measured},
        commands={COMMANDED: meaning},
        ahead=2,
        execute_steps=1,
    )
    values = np.repeat(SHOWN[..., None], 2, axis=2)
    statistics = compute_statistics([("e", {COMMANDED: values}, np.ones((2, 2), bool))])
    ruler = ActionRuler.of(transform, contract.commands)
    return ActionBaselines.of(ruler, transform, contract, statistics, may_lack=may_lack)


def sample(shown, measured=2.0, steps=1):
    """One window whose joints are commanded to `shown`, [K], while they are measured at 2."""
    actions = np.repeat((np.array(shown) - 1)[None, :, None] / 2, 2, axis=2)
    proprio = np.full((1, steps, 2), (measured - 1) / 2, np.float32)
    return {"actions": actions, "action_mask": np.ones((1, 2, 2), bool), "proprio": proprio}


def test_the_mean_is_of_each_step_and_holding_is_what_is_measured_now():
    found = baselines().sums(sample([4.0, 9.0]))
    assert found["mean/joints_deg"] == (pytest.approx(abs(4 - 3) + abs(9 - 5)), 2)
    assert found["hold/joints_deg"] == (pytest.approx(abs(4 - 2) + abs(9 - 2)), 2)


def test_the_present_is_the_step_0_of_what_is_measured():
    one = baselines(proprio_steps=(-1, 0))
    window = sample([4.0, 9.0], steps=2)
    window["proprio"][:, 0] = 50.0  # the step before
    assert one.sums(window)["hold/joints_deg"][0] == pytest.approx(9)


def test_masked_steps_count_for_nothing():
    window = sample([4.0, 9.0])
    window["action_mask"][:, 1] = False
    found = baselines().sums(window)
    assert (found["mean/joints_deg"], found["hold/joints_deg"]) == (
        (pytest.approx(1), 1),
        (pytest.approx(2), 1),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"measured": FieldContract(dims=2, quantity="joints", unit="rad")},  # another unit
        {"proprio_fields": ()},  # the policy does not read them
        {"proprio_steps": (-1,)},  # nor now
        {"may_lack": True},  # some data do not have them
    ],
)
def test_what_cannot_be_held_is_left_out(changes):
    window = sample([4.0, 9.0])
    if changes.get("proprio_fields") == ():
        window["proprio"] = np.zeros((1, 1, 0))
    found = baselines(**changes).sums(window)
    assert set(found) == {"mean/joints_deg"}


def test_a_change_that_is_held_is_none():
    delta = DEGREES.model_copy(update={"steps": "delta"})
    found = baselines(delta, may_lack=True).sums(sample([4.0, -9.0]))
    assert found["hold/joints_deg"] == (pytest.approx(4 + 9), 2)


def test_a_relative_pose_that_is_held_stays_where_the_hand_is():
    """0.3 mm, then 4 mm from it, and a turn by 90 degrees."""
    inputs = RobotInputs(cameras=("c",), proprio_fields=(), action_fields=(XYZ, ROT), horizon=2)
    rules = {
        name: FieldNormalizer(centre=np.full(dims, 0.5), scale=np.full(dims, 3.0), clip=None)
        for name, dims in ((XYZ, 3), (ROT, 6))
    }
    transform = transformed(inputs, rules)
    contract = PolicyContract(cameras={}, observes={}, commands={}, ahead=2, execute_steps=1)
    raw = np.zeros((1, 2, 9))
    raw[0, :, :3] = [[0.0003, 0, 0], [0, 0.004, 0]]
    raw[0, :, 3:] = [[1, 0, 0, 0, 1, 0], [0, -1, 0, 1, 0, 0]]
    shown = {XYZ: raw[..., :3], ROT: raw[..., 3:]}
    statistics = compute_statistics([("e", shown, np.ones((1, 2), bool))])
    ruler = ActionRuler.of(transform, contract.commands)
    one = ActionBaselines.of(ruler, transform, contract, statistics)
    window = {
        "actions": (raw - 0.5) / 3,
        "action_mask": np.ones((1, 2, 9), bool),
        "proprio": np.zeros((1, 1, 0)),
    }
    found = one.sums(window)
    assert found["hold/position_mm"] == (pytest.approx(0.3 + 4), 2)
    assert found["hold/rotation_deg"] == (pytest.approx(90), 2)
    assert found["mean/position_mm"][0] == pytest.approx(0, abs=1e-3)  # the window is its mean
