"""Keys of a protocol to fields and back: known values of LIBERO's conventions, and inverses."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, PolicyContract
from foundry_core.errors import FoundryError
from foundry_core.serving.mapping import load_serving_mapping, plain, served_as

POSE, HAND = "robot__{}__poses__right::panda", "robot__{}__grippers__right::panda_hand"
XYZ, ROT, GRIP = (
    POSE.format("action") + "__xyz",
    POSE.format("action") + "__rot_6d",
    HAND.format("action"),
)
KEYS = {"openpi": "observation/state", "vla_eval": "states"}
TEXTS = {"openpi": "prompt", "vla_eval": "task_description"}
PICTURES = {"openpi": "observation/image", "vla_eval": "images/agentview"}


def libero_policy(**changes) -> PolicyContract:
    frame = {"frame": "world"}
    arm = {
        "__xyz": FieldContract(dims=3, quantity="position", unit="m", **frame),
        "__rot_6d": FieldContract(dims=6, quantity="rotation", form="rot6d_rows", **frame),
    }
    hand = FieldContract(dims=1, quantity="gripper", closed=0, open=1)
    fields = {
        kind: {
            **{POSE.format(kind) + half: one for half, one in arm.items()},
            HAND.format(kind): hand,
        }
        for kind in ("actual", "action")
    }
    stated = {
        "hz": 20,
        "cameras": {"scene": CameraContract(rotated=180)},
        "observes": fields["actual"],
        "commands": fields["action"],
        "ahead": 8,
        "execute_steps": 4,
    }
    return PolicyContract(**{**stated, **changes})


@pytest.mark.parametrize("protocol", ["openpi", "vla_eval"])
def test_libero_as_its_clients_show_it(protocol):
    mapping, _ = served_as(libero_policy(), "libero", protocol)
    turn = Rotation.from_rotvec([0, 0, np.pi / 2])
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[0, 0] = 255
    raw = {
        KEYS[protocol]: np.array([0.1, 0.2, 0.3, 0, 0, np.pi / 2, 0.02, -0.02], np.float32),
        PICTURES[protocol]: picture,
        TEXTS[protocol]: "put the bowl on the plate",
    }
    seen = mapping.observation(raw)
    measured = seen["lowdim"]
    np.testing.assert_allclose(measured[POSE.format("actual") + "__xyz"], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(
        measured[POSE.format("actual") + "__rot_6d"], turn.as_matrix()[:2].ravel(), atol=1e-6
    )
    np.testing.assert_allclose(measured[HAND.format("actual")], [0.5])
    # Half a turn back: the policy turns it again, as its data were.
    assert seen["images"]["scene"][-1, -1].tolist() == [255] * 3
    assert seen["instruction"] == "put the bowl on the plate"

    tilt = Rotation.from_rotvec([0.25, 0, 0])
    targets = {
        XYZ: np.array([[0.125, 0.2, 0.28]]),
        ROT: (tilt * turn).as_matrix()[:2].reshape(1, 6),  # world axes: from the left
        GRIP: np.array([[0.0]]),
    }
    # Shares of 5 cm and half a radian; closed is +1.
    np.testing.assert_allclose(
        mapping.actions(targets, measured), [[0.5, 0, -0.4, 0.5, 0, 0, 1]], atol=1e-6
    )


def test_deltas_of_a_chunk_start_from_where_the_robot_will_be():
    mapping = load_serving_mapping("libero", "openpi")
    measured = {
        POSE.format("actual") + "__xyz": np.zeros(3),
        POSE.format("actual") + "__rot_6d": np.array([1.0, 0, 0, 0, 1, 0]),
    }
    targets = {
        XYZ: np.array([[0.04, 0, 0], [0.04, 0, 0], [0.04, 0, 0]]),
        ROT: np.tile([1.0, 0, 0, 0, 1, 0], (3, 1)),
        GRIP: np.ones((3, 1)),
    }
    found = mapping.actions(targets, measured)
    # A quarter of what is left is done in each step.
    np.testing.assert_allclose(found[:, 0], [0.8, 0.6, 0.45], atol=1e-6)
    assert found[:, 6].tolist() == [-1, -1, -1]


@pytest.mark.parametrize("protocol", ["openpi", "vla_eval"])
def test_somebody_elses_actions_and_observations_go_the_other_way(protocol):
    mapping = load_serving_mapping("libero", protocol)
    rng = np.random.default_rng(0)
    raw = {
        KEYS[protocol]: np.append(rng.normal(size=6) * 0.5, [0.01, -0.01]),
        PICTURES[protocol]: rng.integers(0, 256, (4, 6, 3), dtype=np.uint8),
        PICTURES[protocol].replace("agentview", "wrist").replace("/image", "/wrist_image"):
            rng.integers(0, 256, (4, 6, 3), dtype=np.uint8),
        TEXTS[protocol]: "go",
    }  # fmt: skip
    seen = mapping.observation(raw)
    again = mapping.raw_observation(seen)
    assert again.keys() == raw.keys()
    for key, value in raw.items():
        if isinstance(value, str):
            assert again[key] == value
        else:
            np.testing.assert_allclose(again[key], value, atol=1e-6)
    actions = rng.uniform(-0.9, 0.9, (5, 7))
    actions[:, 6] = np.sign(actions[:, 6])
    targets = mapping.targets(actions, seen["lowdim"])
    np.testing.assert_allclose(mapping.actions(targets, seen["lowdim"]), actions, atol=1e-6)


def test_without_a_mapping_fields_go_by_their_own_names_to_the_bit():
    contract = libero_policy()
    keys = {"images": "cam/", "fields": "state/", "instruction": "say"}
    mapping = plain(contract, **keys)
    rng = np.random.default_rng(1)
    rows = Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix()[:2].ravel()
    values = {
        POSE.format("actual") + "__xyz": rng.normal(size=3),
        POSE.format("actual") + "__rot_6d": rows,
        HAND.format("actual"): np.array([0.3]),
    }
    raw = {f"state/{name}": value for name, value in values.items()}
    seen = mapping.observation({**raw, "say": "go", "cam/scene": np.zeros((2, 2, 3), np.uint8)})
    for name, value in values.items():
        np.testing.assert_array_equal(seen["lowdim"][name], value)
    targets = {XYZ: rng.normal(size=(2, 3)), ROT: np.stack([rows, rows]), GRIP: np.ones((2, 1))}
    wanted = np.concatenate([targets[XYZ], targets[ROT], targets[GRIP]], axis=1)
    np.testing.assert_allclose(mapping.actions(targets, seen["lowdim"]), wanted, atol=1e-7)
    back = mapping.targets(wanted, seen["lowdim"])
    for name, value in targets.items():
        np.testing.assert_allclose(back[name], value, atol=1e-12)
    _, adapter = served_as(contract, "", "openpi", **keys)
    assert not adapter.absent
    assert adapter.commanded(targets) == targets


def test_what_a_mapping_and_a_policy_mean_differently_is_named():
    with pytest.raises(FoundryError, match=r"acts at 10 Hz, the mapping 'libero'.* 20 Hz"):
        served_as(libero_policy(hz=10), "libero", "openpi")
    cameras = {"far": CameraContract()}
    with pytest.raises(FoundryError, match=r"looks through camera 'far'; .* shows scene, wrist"):
        served_as(libero_policy(cameras=cameras), "libero", "openpi")
    base = {"robot__actual__base": FieldContract(dims=3)}
    with pytest.raises(FoundryError, match="observes 'robot__actual__base'"):
        served_as(libero_policy(observes=base), "libero", "openpi")


def test_files_of_ones_own_and_mistakes(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("openpi: {instruction: say, robot: {fields: {a: {from: actions}}}}")
    assert load_serving_mapping(str(file), "openpi").instruction == "say"
    with pytest.raises(FoundryError, match="says nothing of vla_eval"):
        load_serving_mapping(str(file), "vla_eval")
    with pytest.raises(FoundryError, match="no serving mapping 'liberoo'") as error:
        load_serving_mapping("liberoo", "openpi")
    assert "'libero'" in error.value.hint
    file.write_text("openpi: {instruction: say, robot: {fields: {a: {from: b}}}}")
    with pytest.raises(FoundryError, match="what is commanded"):
        load_serving_mapping(str(file), "openpi")
    mapping = load_serving_mapping("libero", "openpi")
    with pytest.raises(FoundryError, match="'observation/state' is str, not numbers"):
        mapping.observation({"observation/state": "left"})
    with pytest.raises(FoundryError, match=r"dims \[3, 6\) of 'observation/state', which has 3"):
        mapping.observation({"observation/state": np.zeros(3)})
