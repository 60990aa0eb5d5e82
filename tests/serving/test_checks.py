"""What is said of an observation that lacks something."""

import numpy as np
import pytest

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, PolicyContract
from foundry_core.errors import FoundryError
from foundry_core.serving.checks import check_observation
from foundry_core.serving.mapping import plain

PICTURE = np.zeros((4, 4, 3), np.uint8)
CONTRACT = PolicyContract(
    cameras={"front": CameraContract(), "wrist": CameraContract()},
    observes={"joints": FieldContract(dims=2)},
    commands={"hand": FieldContract(dims=1)},
    ahead=1,
    execute_steps=1,
)
KEYS = {"images": "observation/", "fields": "observation/", "instruction": "prompt"}


def refusal(raw: dict) -> FoundryError:
    """Of what an openpi client sends."""
    with pytest.raises(FoundryError) as refused:
        check_observation(plain(CONTRACT, **KEYS).observation(raw), CONTRACT)
    return refused.value


def test_a_camera_under_another_name_is_told_by_both_names():
    joints = {"observation/joints": np.zeros(2), "prompt": "go"}
    error = refusal({**joints, "observation/wrist": PICTURE, "observation/frnt": PICTURE})
    assert error.message == (
        "camera 'front' is missing: the observation shows wrist (sent, and read as nothing: "
        "observation/frnt); the policy looks through front, wrist"
    )
    assert error.hint == (
        "is it 'observation/frnt'? Send that as 'observation/front', or serve by a mapping that "
        "names your key"
    )
    error = refusal(joints)
    assert "the observation shows no camera; the policy looks through front, wrist" in error.message
    assert error.hint.startswith("send it under its own name")


def test_a_field_under_another_name_too():
    pictures = {f"observation/{name}": PICTURE for name in CONTRACT.cameras}
    error = refusal({**pictures, "observation/joint": np.zeros(2)})
    assert error.message == (
        "field 'joints' is missing: the observation measures no field (sent, and read as nothing: "
        "observation/joint); the policy reads joints"
    )
    assert "'observation/joint'? Send that as 'observation/joints'" in error.hint
    many = {f"k{number}": 0 for number in range(10)}
    assert "k0, k1, k2, k3, k4, k5, k6, k7 and 2 more)" in refusal({**pictures, **many}).message
