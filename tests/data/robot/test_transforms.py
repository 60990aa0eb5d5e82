"""The pair of transforms that training and serving share."""

import numpy as np
import pytest
from pydantic import ValidationError

from foundry_core.data.robot.normalize import FieldNormalizer, Normalizer
from foundry_core.data.robot.poses import decode_rot6d, encode_rot6d
from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.robot.transform_config import Prompt, RobotInputs
from foundry_core.data.robot.transforms import RobotTransform, collate_robot
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError

ARMS = ("right", "left")


def two_arms() -> RobotInputs:
    proprio, actions = [], []
    for arm in ARMS:
        for part in ("xyz", "rot_6d"):
            proprio.append(f"robot__actual__poses__{arm}::panda__{part}")
            actions.append(f"robot__action__poses__{arm}::panda__{part}_relative")
    grippers = tuple(f"robot__action__grippers__{arm}::panda_hand" for arm in ARMS)
    return RobotInputs(
        cameras=("a", "b"),
        image_steps=(-1, 0),
        proprio_fields=tuple(proprio),
        action_fields=(*actions, *grippers),
        horizon=5,
        action_past=1,
    )


def wide_normalizer(inputs: RobotInputs) -> Normalizer:
    rng = np.random.default_rng(0)
    fields = {}
    for name in inputs.fields:
        dims = 3 if "xyz" in name else 6 if "rot_6d" in name else 1
        fields[name] = FieldNormalizer(
            centre=rng.normal(size=(7, dims)),
            scale=rng.uniform(5, 9, size=(7, dims)),
            clip=1.5,
            past=2,
        )
    return Normalizer(fields)


@pytest.fixture(scope="module")
def transform() -> RobotTransform:
    tokenizer = Tokenizer.train(["x"], 258)
    tokenizer.add_special(IMAGE)
    tokenizer.add_special(OBS)
    inputs = two_arms()
    return RobotTransform(inputs, wide_normalizer(inputs), tokenizer, tokens_per_image=3)


def random_fields(names: tuple[str, ...], lead: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    fields = {}
    for name in names:
        if name.endswith("rot_6d"):
            turn, _ = np.linalg.qr(rng.normal(size=(*lead, 3, 3)))
            turn[np.linalg.det(turn) < 0, 0] *= -1
            fields[name] = encode_rot6d(turn)
        else:
            fields[name] = rng.normal(size=(*lead, 3 if name.endswith("xyz") else 1))
    return fields


def test_targets_invert_actions(transform: RobotTransform) -> None:
    measured = random_fields(transform.measured_fields, (4,))
    targets = random_fields(transform.target_fields, (4, 5))
    actions, known = transform.actions(targets, measured)
    assert actions.shape == (4, 5, 20) and actions.dtype == np.float32 and known.all()
    assert np.abs(actions).max() < 1.5
    back = transform.targets(actions, measured)
    assert sorted(back) == sorted(targets)
    for name, value in targets.items():
        np.testing.assert_allclose(back[name], value, atol=1e-5, err_msg=name)
    one = transform.targets(actions[2], {n: v[2] for n, v in measured.items()})
    for name in targets:
        np.testing.assert_allclose(one[name], back[name][2], atol=1e-12)


def test_targets_are_rotations_whatever_the_model_says(transform: RobotTransform) -> None:
    measured = random_fields(transform.measured_fields, ())
    noise = np.random.default_rng(3).normal(size=(5, 20))
    for name, value in transform.targets(noise, measured).items():
        if name.endswith("rot_6d"):
            turn = decode_rot6d(value)
            np.testing.assert_allclose(encode_rot6d(turn), value, atol=1e-12)


def test_absent_arm_is_zero_and_masked(transform: RobotTransform) -> None:
    def right(fields: dict) -> dict:
        return {name: value for name, value in fields.items() if "right" in name}

    measured = right(random_fields(transform.measured_fields, (2,)))
    targets = right(random_fields(transform.target_fields, (2, 5)))
    actions, known = transform.actions(targets, measured)
    expected = ["right" in n for n, d in transform.action_dims.items() for _ in range(d)]
    assert known.tolist() == expected
    assert not actions[..., ~known].any() and actions[..., known].all()
    history = {name: value[:, None] for name, value in measured.items()}
    proprio = transform.proprio(history, measured, lead=(2,))
    assert proprio.shape == (2, 1, 18) and not proprio[..., 9:].any()


def test_tokens_are_images_instruction_and_obs(transform: RobotTransform) -> None:
    tokens, cut = transform.tokens("  lift it ")
    prompts = transform.prompts
    tokenizer = prompts._tokenizer
    image, obs = tokenizer.token_id(IMAGE), tokenizer.token_id(OBS)
    assert tokens.tolist() == [image] * 12 + tokenizer.encode("lift it") + [obs]
    assert not cut
    long, cut = transform.tokens("x" * 500)
    assert cut and len(long) == 12 + 64 + 1 and long[-1] == obs


def test_collate_pads_on_the_right(transform: RobotTransform) -> None:
    samples = [{"tokens": transform.tokens(t)[0], "proprio": np.ones((1, 2))} for t in ("a", "abc")]
    batch = collate_robot(samples, pad_id=1, pad_multiple=8)
    assert batch["tokens"].shape == (2, 16)
    assert batch["token_mask"].sum(1).tolist() == [14, 16]
    assert (batch["tokens"][0, 14:] == 1).all()
    assert batch["proprio"].shape == (2, 1, 2)


def test_configs_refuse_what_cannot_work(transform: RobotTransform) -> None:
    with pytest.raises(ValidationError, match="rot_6d_relative"):
        RobotInputs(cameras=("a",), action_fields=(transform.inputs.action_fields[0],))
    with pytest.raises(ValidationError, match="future"):
        RobotInputs(cameras=("a",), image_steps=(0, 1))
    with pytest.raises(ValidationError, match="twice"):
        RobotInputs(cameras=("a", "a"))
    with pytest.raises(ValidationError, match="instruction"):
        Prompt(instruction="do it")
    with pytest.raises(ValidationError, match="reference"):
        RobotInputs(cameras=("a",), action_fields=("arm__xyz_relative", "arm__rot_6d_relative"))
    free = RobotInputs(
        cameras=("a",),
        action_fields=("arm__xyz_relative", "arm__rot_6d_relative"),
        references={"arm": "measured"},
    )
    assert free.reference("arm__xyz_relative") == "measured"
    measured = random_fields(transform.measured_fields, ())
    del measured["robot__actual__poses__left::panda__xyz"]
    with pytest.raises(FoundryError, match="not measured"):
        transform.targets(np.zeros((5, 20)), measured)
