"""Files of the original tools through reader, ready mapping and conversion."""

import json

import numpy as np
import pytest

from foundry_core.config.validation import validate
from foundry_core.data.config import ImageConfig, WindowConfig
from foundry_core.data.convert.robot import convert_robot
from foundry_core.data.convert.robot_samples import RobotSettings
from foundry_core.data.inspection.raw import detect
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.mapping.config import AnyMapping, relative_poses
from foundry_core.data.robot.poses import decode_rot6d
from foundry_core.parallel import ray_session
from tests.real_data import ABSENT, FORMATS

# place, mapping, options of the source, windows
SETS = {
    "droid": ("rlds_droid/tfds", "droid", {"hz": 15}, 30),
    "bridge": ("rlds_bridge/tfds", "bridge", {"hz": 5}, 26),
    "libero": ("hdf5_libero", "libero", {}, 25),
    "robomimic": ("hdf5_robomimic", "robomimic", {}, 68),
    "aloha": ("hdf5_aloha_sim", "aloha", {"hz": 50, "instruction": "lift it"}, 60),
    "aloha mobile": ("hdf5_aloha_mobile", "aloha_mobile", {"hz": 50, "instruction": "lift"}, 74),
    "pusht": ("zarr_pusht", "pusht", {"hz": 10}, 44),
    "umi": ("zarr_umi_zip", "umi", {"hz": 60}, 32),
}
pytestmark = pytest.mark.skipif(not FORMATS.is_dir(), reason=ABSENT)


@pytest.fixture(scope="module")
def ray():
    """One for all conversions of the module."""
    with ray_session(1):
        yield


def opened(name):
    place, mapping, options, windows = SETS[name]
    kind = detect(FORMATS / place)
    source = validate(kind, {**kind.options(str(FORMATS / place)), **options}, "source")
    return source, validate(AnyMapping, mapping, "mapping"), windows


@pytest.mark.parametrize("name", SETS)
def test_mapped_episodes_are_rotations_openings_and_finite_numbers(name):
    source, mapping, _ = opened(name)
    for ref in source.episodes():
        raw = source.read_episode(ref)
        found = mapped(raw, mapping)
        contract = mapping.contract(source.contract())
        assert found.lowdim.keys() == contract.fields.keys()
        for field, values in found.lowdim.items():
            assert values.shape[0] == raw.length
            if field.endswith("__rot_6d"):
                rows = decode_rot6d(values)
                np.testing.assert_allclose(np.linalg.det(rows), 1, atol=1e-6)
            if contract.fields[field].quantity == "gripper":
                assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("name", SETS)
def test_they_convert_and_say_what_they_hold(name, tmp_path):
    source, mapping, windows = opened(name)
    given = mapping.contract(source.contract())
    image = ImageConfig(size=(32, 32))
    contract = given.converted(given.cameras, given.fields, image, mapping.rotate)
    settings = RobotSettings(
        contract=contract,
        groups=relative_poses(contract.fields),
        window=WindowConfig(future=3, max_padding_right=3),
        image_steps=(0,),
        image=image,
        layout="episode",
        keep_failures=True,
        mapping=mapping,
    )
    metrics = convert_robot(
        source, settings, tmp_path, episodes_per_shard=10, max_skipped=0, workers=1,
        progress=lambda *args, **values: None,
    )  # fmt: skip
    assert (metrics["windows"], metrics["skipped"]) == (windows, 0)
    stated = json.loads((tmp_path / "dataset.json").read_text())
    assert stated["hz"] == mapping.hz
    assert stated["contract"]["cameras"].keys() == mapping.cameras.keys()
    statistics = json.loads((tmp_path / "stats.json").read_text())
    for group in relative_poses(contract.fields):
        assert all(f"{pose}__xyz_relative" in statistics for pose in group.poses)


def test_a_step_of_libero_is_its_state_and_five_centimetres():
    source, mapping, _ = opened("libero")
    raw = source.read_episode(source.episodes()[0])
    found = mapped(raw, mapping).lowdim
    step = found["robot__action__poses__right::panda__xyz"] - raw.lowdim["obs/ee_states"][:, :3]
    np.testing.assert_allclose(step, 0.05 * raw.lowdim["actions"][:, :3], atol=1e-12)
    closed = raw.lowdim["actions"][:, 6] > 0
    openings = found["robot__action__grippers__right::panda_hand"][:, 0]
    assert (openings[closed] < 0.5).all()
    assert (openings[~closed] >= 0.5).all()
